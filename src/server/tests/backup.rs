//! A backup while terminals report, and its restoration.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use clap::Parser;

use super::*;
use crate::cli::backup;
use crate::event::Class;
use crate::testkit::lab::done;

/// `flashmob backup …`
#[derive(clap::Parser)]
struct Program {
    #[command(flatten)]
    backup: backup::BackupArgs,
}

async fn back_up(arguments: &[&str]) -> Result<(), Failure> {
    backup::run(Program::parse_from([&["backup"], arguments].concat()).backup).await
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

/// What people see of all terminals, without the seconds that pass.
async fn rows(world: &World) -> Vec<TerminalView> {
    let mut rows: Vec<TerminalView> =
        serde_json::from_str(&world.text("/api/v1/terminals").await.1).expect("rows");
    rows.iter_mut().for_each(|row| row.silent = None);
    rows
}

/// Restarts the server with the backup as its state.
async fn restore(world: &mut World, backup: &Path) {
    world.server.take().expect("running").stop().await;
    fs::rename(world.at("state"), world.at("old-state")).expect("moved away");
    fs::create_dir(world.at("state")).expect("made");
    fs::copy(backup, world.at("state/flashmob.sqlite")).expect("copied");
    world.start().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_while_terminals_report_is_a_database_that_a_server_starts_with() {
    let world = Arc::new(World::new(QUIET).await);
    let (finished, enough) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let reporting = tokio::spawn({
        let (world, finished, enough) = (Arc::clone(&world), Arc::clone(&finished), Arc::clone(&enough));
        async move {
            while !enough.load(Ordering::SeqCst) {
                let n = finished.load(Ordering::SeqCst);
                let job = world.begin(&format!("52:54:00:00:{:02x}:{:02x}", n / 256, n % 256)).await;
                world.outcome(&job, done()).await.expect("taken");
                finished.fetch_add(1, Ordering::SeqCst);
            }
        }
    });
    while finished.load(Ordering::SeqCst) < 20 {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let (during, after) = (world.at("during.sqlite"), world.at("after.sqlite"));
    let server = world.url("");
    let before = finished.load(Ordering::SeqCst);
    back_up(&[&text(&during), "--server", &server]).await.expect("a copy");
    enough.store(true, Ordering::SeqCst);
    reporting.await.expect("all reported");
    back_up(&[&text(&after), "--server", &server]).await.expect("a copy");

    let mut world = Arc::into_inner(world).expect("no one else has it");
    let all = rows(&world).await;
    restore(&mut world, &after).await;
    assert_eq!(rows(&world).await, all);
    fs::remove_dir_all(world.at("old-state")).expect("removed");
    restore(&mut world, &during).await;
    let restored = rows(&world).await;
    let done = restored.iter().filter(|row| row.state == TerminalState::Done).count();
    let possible = before..=finished.load(Ordering::SeqCst);
    assert!(possible.contains(&done), "{before} were acknowledged before, {done} are in the copy");
    assert!(restored.len() <= done + 1, "one terminal reports at a time");
    assert!(restored.iter().all(|row| row.state != TerminalState::Done || all.contains(row)));
}

#[tokio::test]
async fn a_backup_replaces_nothing_and_leaves_nothing_when_it_fails() {
    use std::os::unix::fs::PermissionsExt;
    let mut world = World::new("").await;
    world.hello(A).await;
    fs::create_dir(world.at("backups")).expect("made");
    let (file, server) = (world.at("backups/lab.sqlite"), world.url(""));
    back_up(&[&text(&file), "--server", &server]).await.expect("a copy");
    assert_eq!(fs::metadata(&file).expect("there").permissions().mode() & 0o777, 0o600, "it holds secrets");
    let first = fs::read(&file).expect("there");
    let again = back_up(&[&text(&file), "--server", &server]).await.expect_err("it exists");
    assert_eq!(again.class, Class::Refused);
    assert!(again.message.contains("exists already"), "{again:?}");

    let other = world.at("backups/other.sqlite");
    let busy = back_up(&[&text(&other), "--state", &text(&world.at("state"))]).await.expect_err("locked");
    assert!(busy.advice.contains("--server"), "{busy:?}");
    world.server.take().expect("running").stop().await;
    let (_held, nobody) = crate::testkit::http::nobody();
    let away = back_up(&[&text(&other), "--server", &nobody]).await.expect_err("nobody answers");
    assert_eq!(away.class, Class::Retry);
    assert!(away.advice.contains("--server"), "{away:?}");
    let names: Vec<_> = fs::read_dir(world.at("backups")).expect("listed").collect();
    assert_eq!(names.len(), 1, "{names:?}");
    assert_eq!(fs::read(&file).expect("there"), first);

    back_up(&[&text(&other), "--state", &text(&world.at("state"))]).await.expect("no server has it now");
    assert_eq!(crate::server::store::examine(&other).expect("sound").terminals, 1);
}

#[tokio::test]
async fn a_page_in_a_browser_fetches_no_backup() {
    let world = World::new("").await;
    let call = world.http.post(world.url("/api/v1/backup"));
    let answer = call.header("origin", "http://evil.example").send().await.expect("an answer");
    assert_eq!(answer.status(), StatusCode::FORBIDDEN);
    assert!(answer.text().await.expect("text").contains("on the server itself"));
}
