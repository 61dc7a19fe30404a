//! Terminals: hello, take, progress, outcome, boot scripts, and the state after a restart.

use clap::Parser;

use super::*;
use crate::api::{DiskInfo, TerminalDetails};
use crate::event::{Chosen, Class, DiskIdentity, Stage};
use crate::testkit::lab::{done, failed};

#[tokio::test]
async fn a_terminal_images_itself_and_then_boots_from_its_disk() {
    let world = World::new(QUIET).await;
    assert!(!world.ipxe(A, "pcbios").await.contains("/boot/vmlinuz"), "nobody wants it to be imaged");
    assert!(world.row(A).await.new, "it is listed");
    world.order(A).await;
    let script = world.ipxe(A, "pcbios").await;
    assert!(
        script.contains("/boot/vmlinuz initrd=initramfs.img flashmob.server=http://127.0.0.1:"),
        "{script}"
    );
    assert!(script.contains(" quiet || goto failed"), "{script}");

    let terminal = world.hello(A).await;
    assert_eq!((terminal.as_str(), world.state(A).await), (A, TerminalState::Waiting));
    let job = world.take(&terminal, Take::default()).await.expect("work waits");
    assert_eq!((job.task.id.name.as_str(), job.task.id.version.as_str()), ("golden", "format-1"));
    assert_eq!(
        (job.task.folder.as_str(), job.task.disk.as_str(), job.job.as_str()),
        ("/images/golden/format-1/", "internal", "1")
    );

    let fetching = Progress { percent: 40.0, peers: 3, ..Progress::at(Stage::Fetch) };
    assert_eq!(world.progress(&job, fetching.clone()).await, Ok(Orders::default()));
    let row = world.row(A).await;
    assert_eq!((row.state, row.progress), (TerminalState::Imaging, Some(fetching)));
    assert_eq!((row.image.as_deref(), row.address.as_deref()), (Some("golden@format-1"), Some("127.0.0.1")));

    assert_eq!(world.outcome(&job, done()).await, Ok(Orders { release: true, ..Orders::default() }));
    assert_eq!(world.state(A).await, TerminalState::Done);
    let script = world.ipxe(A, "pcbios").await;
    assert!(script.contains("set netX/root-path flashmob:1234abcd-01 ||"), "{script}");
    assert!(script.contains("/boot/localboot.0 || exit 1"), "{script}");
    let script = world.ipxe(A, "efi").await;
    assert!(script.contains("flashmob:1234abcd-01:/EFI/debian/shimx64.efi ||"), "{script}");
    assert!(script.contains("/boot/localboot.efi || exit 1"), "{script}");
    assert_eq!(world.take(&terminal, Take::default()).await, Err(StatusCode::NO_CONTENT));
}

#[tokio::test]
async fn a_terminal_without_a_job_boots_from_its_disk() {
    let world = World::new("").await;
    for platform in ["pcbios", "efi"] {
        let script = world.ipxe(A, platform).await;
        assert!(script.ends_with("exit 1\n") && !script.contains("chain"), "{script}");
    }
    let terminal = world.hello(A).await;
    assert_eq!(world.take(&terminal, Take::default()).await, Err(StatusCode::NO_CONTENT));
    assert_eq!(world.state(A).await, TerminalState::Idle);
}

#[tokio::test]
async fn what_happened_survives_a_restart() {
    let mut world = World::new(QUIET).await;
    let (a, b) = (world.begin(A).await, world.begin(B).await);
    world.progress(&b, Progress::at(Stage::Fetch)).await.expect("taken");
    world.outcome(&a, done()).await.expect("taken");
    world.restart().await;
    assert_eq!(world.state(A).await, TerminalState::Done);
    assert_eq!(world.row(A).await.outcome, Some(done()));
    // The one that was fetching continues with its token.
    assert_eq!(world.state(B).await, TerminalState::Imaging);
    world.progress(&b, Progress::at(Stage::Verify)).await.expect("taken");
    world.outcome(&b, failed(Class::Disk, true)).await.expect("taken");
    world.restart().await;
    assert_eq!(world.state(B).await, TerminalState::Failed);
    assert!(world.ipxe(B, "pcbios").await.contains("echo -- writing sda failed"));
    assert!(world.begin("52:54:00:00:00:0c").await.attempt > b.attempt, "numbers are never given twice");
}

#[tokio::test]
async fn only_who_has_the_token_reports() {
    let world = World::new(QUIET).await;
    let job = world.begin(A).await;
    let stranger = Assignment { token: "guess".into(), ..job.clone() };
    assert_eq!(world.progress(&stranger, Progress::at(Stage::Fetch)).await, Err(StatusCode::FORBIDDEN));
    assert_eq!(world.outcome(&stranger, done()).await, Err(StatusCode::FORBIDDEN));
    let nobody = Assignment { attempt: 4711, ..job };
    assert_eq!(world.outcome(&nobody, done()).await, Err(StatusCode::NOT_FOUND));
    assert_eq!(world.take("52:54:00:00:00:ff", Take::default()).await, Err(StatusCode::NOT_FOUND));
}

#[tokio::test]
async fn a_failed_terminal_is_held_until_a_person_lets_it_try_again() {
    let world = World::new(&format!("{QUIET}[terminals.'{A}']\nlabel='lab-01'\n")).await;
    let job = world.begin(A).await;
    world.outcome(&job, failed(Class::Disk, true)).await.expect("taken");
    let script = world.ipxe(A, "efi").await;
    assert!(script.contains("echo -- writing sda failed") && script.contains("sleep 60"), "{script}");
    assert!(!script.contains("localboot") && !script.contains("vmlinuz"), "{script}");
    assert_eq!(world.decide("no-such", "retry").await, StatusCode::NOT_FOUND);
    assert_eq!(world.decide("lab-01", "retry").await, StatusCode::NO_CONTENT);
    assert_eq!(world.state(A).await, TerminalState::Waiting);
    assert!(world.ipxe(A, "efi").await.contains("/boot/vmlinuz"));
    let again = world.begin(A).await;
    assert_eq!(world.decide(A, "retry").await, StatusCode::CONFLICT);
    assert_eq!(world.decide(A, "cancel").await, StatusCode::NO_CONTENT);
    assert!(world.progress(&again, Progress::at(Stage::Fetch)).await.expect("taken").cancel);
}

/// A terminal with disks of these serial numbers says hello, and takes the waiting job.
async fn begin_with(world: &World, serials: &[&str]) -> Assignment {
    let mut hello = hello_of(A);
    let disk = |serial: &&str| DiskInfo { serial: Some((*serial).into()), ..DiskInfo::default() };
    hello.inventory.disks = serials.iter().map(disk).collect();
    let welcome: Welcome = world.post("/api/v1/hello", &hello).await.expect("welcome");
    if let Ok(assignment) = world.take(&welcome.terminal, Take::default()).await {
        return assignment;
    }
    world.order(A).await;
    world.take(&welcome.terminal, Take::default()).await.expect("work waits")
}

/// The serial numbers of the disks that the server thinks the terminal has.
fn known(job: &Assignment) -> Vec<&str> {
    job.known_disks.iter().filter_map(|disk| disk.serial.as_deref()).collect()
}

#[tokio::test]
async fn a_disk_that_is_gone_is_missed_until_a_person_retries_with_accept_disks() {
    let mut world = World::new(QUIET).await;
    let refused = failed(Class::Refused, false);
    let first = begin_with(&world, &["ssd", "hdd"]).await;
    assert_eq!(known(&first), ["ssd", "hdd"]);
    let chosen = Chosen { rule: "internal".into(), disk: "ssd".into(), identity: DiskIdentity::default() };
    let (token, progress) = (first.token.clone(), Progress::at(Stage::Claim));
    let report = ProgressReport { token, progress, chosen: vec![chosen] };
    let path = format!("/api/v1/attempts/{}/progress", first.attempt);
    world.post::<Orders>(&path, &report).await.expect("taken");
    world.outcome(&first, refused.clone()).await.expect("taken");

    assert_eq!(world.decide(A, "retry").await, StatusCode::NO_CONTENT);
    let second = begin_with(&world, &["hdd"]).await;
    assert_eq!((known(&second), second.chosen.len()), (vec!["hdd", "ssd"], 1), "a retry accepts nothing");
    world.outcome(&second, refused.clone()).await.expect("taken");

    assert_eq!(world.decide(A, "retry?accept_disks=perhaps").await, StatusCode::BAD_REQUEST);
    assert_eq!(world.state(A).await, TerminalState::Failed, "what is not understood decides nothing");
    assert_eq!(world.decide(A, "retry?accept_disks=true").await, StatusCode::NO_CONTENT);
    world.restart().await;
    let third = begin_with(&world, &["hdd"]).await;
    assert_eq!((known(&third), third.chosen.len()), (vec!["hdd"], 0), "also after a restart");
}

#[tokio::test]
async fn the_programs_accept_disks_reaches_the_server() {
    let world = World::new(&format!("{QUIET}[terminals.'{A}']\nlabel='lab-01'\n")).await;
    for (options, wanted) in [(vec![], vec!["hdd", "ssd"]), (vec!["--accept-disks"], vec!["hdd"])] {
        begin_with(&world, &["ssd", "hdd"]).await;
        let job = begin_with(&world, &["hdd"]).await;
        world.outcome(&job, failed(Class::Refused, false)).await.expect("taken");
        let server = world.url("");
        let words = [&["terminal", "retry", "lab-01", "--server", &server][..], &options].concat();
        let args = Program::try_parse_from(words).expect("it is understood").terminal;
        crate::cli::terminal::run(args).await.expect("decided");
        let job = begin_with(&world, &["hdd"]).await;
        assert_eq!(known(&job), wanted, "{options:?}");
        world.outcome(&job, failed(Class::Refused, false)).await.expect("taken");
        assert_eq!(world.decide(A, "retry").await, StatusCode::NO_CONTENT);
    }
}

/// `flashmob terminal …`
#[derive(clap::Parser)]
struct Program {
    #[command(flatten)]
    terminal: crate::cli::terminal::TerminalArgs,
}

#[tokio::test]
async fn a_page_in_a_browser_decides_nothing() {
    let world = World::new(QUIET).await;
    let job = world.begin(A).await;
    world.outcome(&job, done()).await.expect("taken");
    let url = world.url(&format!("/api/v1/terminals/{A}/retry"));
    let answer =
        world.http.post(url).header("origin", "http://evil.example").send().await.expect("an answer");
    assert_eq!(answer.status(), StatusCode::FORBIDDEN);
    assert_eq!(world.state(A).await, TerminalState::Done);
}

#[tokio::test]
async fn an_image_asked_for_by_name_is_given_whatever_waits() {
    let world = World::new("").await;
    let terminal = world.hello(A).await;
    let wish = |image: &str| Take { image: Some(image.into()), ..Take::default() };
    let job = world.take(&terminal, wish("golden@format-1")).await.expect("given");
    assert_eq!((job.job.as_str(), job.task.id.version.as_str()), ("by-hand", "format-1"));
    for wrong in ["golden@2", "silver", "../x"] {
        assert_eq!(world.take(&terminal, wish(wrong)).await, Err(StatusCode::CONFLICT), "{wrong}");
    }
    let unknown = Take { job: Some("night".into()), ..Take::default() };
    assert_eq!(world.take(&terminal, unknown).await, Err(StatusCode::CONFLICT));
}

#[tokio::test]
async fn further_images_asked_for_by_name_are_looked_up_like_the_first() {
    let world = World::new("").await;
    let terminal = world.hello(A).await;
    for wrong in ["golden", "silver", "../x"] {
        let also = vec![Further { image: wrong.into(), disk: "/dev/sdb".into() }];
        let wish = Take { image: Some("golden".into()), also, ..Take::default() };
        assert_eq!(world.take(&terminal, wish).await, Err(StatusCode::CONFLICT), "{wrong}");
    }
}

#[tokio::test]
async fn without_netboot_files_nobody_is_sent_the_agent() {
    let world = World::new(QUIET).await;
    world.hello(A).await;
    world.order(A).await;
    fs::remove_file(world.at("boot/vmlinuz")).expect("removed");
    assert!(world.server.as_ref().expect("running").app().look_at_images().await, "in time");
    assert!(world.ipxe(A, "pcbios").await.ends_with("exit 1\n"));
    assert!(world.text("/api/v1/lab").await.1.contains("there are no netboot files"));
}

#[tokio::test]
async fn nonsense_is_refused_with_a_reason() {
    let world = World::new(QUIET).await;
    let send = |body: Vec<u8>| {
        let request = world.http.post(world.url("/api/v1/hello")).header("content-type", "application/json");
        async move { request.body(body).send().await.expect("an answer") }
    };
    let answer = send(b"{\"macs\": 7}".to_vec()).await;
    assert!(answer.status().is_client_error());
    let refusal: crate::api::Refusal = answer.json().await.expect("a refusal");
    assert!(refusal.error.contains("macs"), "{refusal:?}");
    assert_eq!(send(vec![b' '; 300 << 10]).await.status(), StatusCode::PAYLOAD_TOO_LARGE);
    let nobody = Hello { macs: vec!["nonsense".into()], ..hello_of(A) };
    assert_eq!(world.post::<Welcome>("/api/v1/hello", &nobody).await, Err(StatusCode::CONFLICT));
}

#[tokio::test]
async fn boards_with_one_uuid_are_imaged_one_by_one_and_a_decision_by_that_uuid_takes_neither() {
    const U: &str = "8a95d198-7f46-11e5-bf8b-08002704d48e";
    let world = World::new(QUIET).await;
    for mac in [A, B] {
        let netboot = format!("/boot/ipxe?mac={mac}&uuid={U}&platform=pcbios");
        assert!(world.text(&netboot).await.1.ends_with("exit 1\n"), "it is new");
        world.order(mac).await;
        let script = world.text(&netboot).await.1;
        assert!(script.contains("imaging this terminal"), "{mac}: {script}");
        let hello = Hello { uuid: Some(U.into()), ..hello_of(mac) };
        let welcome: Welcome = world.post("/api/v1/hello", &hello).await.expect("welcome");
        let job = world.take(&welcome.terminal, Take::default()).await.expect("work waits");
        world.outcome(&job, done()).await.expect("taken");
    }
    assert_eq!(world.row(A).await.notes, [format!("shares its UUID with {B}; tell them apart by MAC")]);
    assert_eq!(world.row(B).await.notes, [format!("shares its UUID with {A}; tell them apart by MAC")]);
    assert_eq!(world.decide(U, "retry").await, StatusCode::CONFLICT);
    assert_eq!((world.state(A).await, world.state(B).await), (TerminalState::Done, TerminalState::Done));
    assert_eq!(world.decide(A, "retry").await, StatusCode::NO_CONTENT);
    assert_eq!((world.state(A).await, world.state(B).await), (TerminalState::Waiting, TerminalState::Done));
}

/// Asks `path` with DELETE.
async fn delete(world: &World, path: &str) -> (StatusCode, String) {
    let answer = world.http.delete(world.url(path)).send().await.expect("an answer");
    (answer.status(), answer.text().await.expect("text"))
}

#[tokio::test]
async fn one_terminal_is_shown_in_full_by_any_of_its_names() {
    let mut world = World::new(&format!("{QUIET}[terminals.'{A}']\nlabel='lab-01'\n")).await;
    const U: &str = "8a95d198-7f46-11e5-bf8b-08002704d48e";
    let mut hello = Hello { uuid: Some(U.into()), ..hello_of(A) };
    hello.inventory.memory = 8 << 30;
    hello.inventory.disks = vec![DiskInfo { name: "sda".into(), size: 1 << 38, ..DiskInfo::default() }];
    let _: Welcome = world.post("/api/v1/hello", &hello).await.expect("welcome");
    world.hello(B).await;
    world.order(A).await;
    let job = world.take(A, Take::default()).await.expect("work waits");
    world.outcome(&job, done()).await.expect("taken");
    world.restart().await;
    for name in [A, "lab-01", &format!("uuid:{U}"), U, &A.replace(':', "-")] {
        let (status, text) = world.text(&format!("/api/v1/terminals/{name}")).await;
        assert_eq!(status, StatusCode::OK, "{name}: {text}");
        let shown: TerminalDetails = serde_json::from_str(&text).expect("details");
        assert_eq!((shown.row.id.as_str(), shown.row.state), (A, TerminalState::Done));
        assert_eq!((shown.inventory, shown.agent.as_str()), (hello.inventory.clone(), "0.1.0"));
        assert_eq!(shown.installed.len(), 1);
        let attempt = shown.attempt.expect("one");
        assert_eq!((attempt.number, attempt.job.as_str()), (job.attempt, "1"));
        assert_eq!(attempt.images, "golden@format-1");
        assert!(shown.first_heard.expect("known") <= shown.last_heard.expect("known"));
    }
}

#[tokio::test]
async fn a_name_that_fits_no_terminal_or_two_is_refused_with_the_candidates() {
    const U: &str = "8a95d198-7f46-11e5-bf8b-08002704d48e";
    let labels = format!("[terminals.'{A}']\nlabel='lab-01'\n[terminals.'{B}']\nlabel='lab-02'\n");
    let world = World::new(&labels).await;
    for mac in [A, B] {
        let hello = Hello { uuid: Some(U.into()), ..hello_of(mac) };
        let _: Welcome = world.post("/api/v1/hello", &hello).await.expect("welcome");
    }
    let (status, text) = world.text("/api/v1/terminals/lab-17").await;
    assert!(status == StatusCode::NOT_FOUND && text.contains("Is it lab-01, lab-02?"), "{text}");
    let (status, text) = world.text("/api/v1/terminals/52:54:00:00:00").await;
    assert!(status == StatusCode::NOT_FOUND && text.contains(&format!("Is it {A}, {B}?")), "{text}");
    let (status, text) = delete(&world, &format!("/api/v1/terminals/uuid:{U}")).await;
    assert!(
        status == StatusCode::CONFLICT && text.contains(&format!("fits 2 terminals: {A}, {B}")),
        "{text}"
    );
}

#[tokio::test]
async fn a_terminal_is_forgotten_by_the_servers_own_machine_and_not_while_it_is_at_work() {
    let mut world = World::new(QUIET).await;
    let job = world.begin(A).await;
    world.hello(B).await;
    let path = format!("/api/v1/terminals/{A}");
    let (status, text) = delete(&world, &path).await;
    assert!(status == StatusCode::CONFLICT && text.contains("imaging now"), "{text}");
    let page = world.http.delete(world.url(&path)).header("origin", "http://lab").send().await;
    assert_eq!(page.expect("an answer").status(), StatusCode::FORBIDDEN);
    world.outcome(&job, failed(Class::Disk, true)).await.expect("taken");
    assert_eq!(delete(&world, &path).await.0, StatusCode::NO_CONTENT);
    assert_eq!(delete(&world, &path).await.0, StatusCode::NOT_FOUND);
    world.restart().await;
    let rows: Vec<TerminalView> =
        serde_json::from_str(&world.text("/api/v1/terminals").await.1).expect("rows");
    assert_eq!(rows.iter().map(|row| row.id.as_str()).collect::<Vec<_>>(), [B]);
    assert!(world.begin(A).await.attempt > job.attempt, "its number is not given again");
}

#[tokio::test]
async fn the_program_shows_and_forgets_a_terminal() {
    #[derive(Parser)]
    struct Program {
        #[command(flatten)]
        terminal: crate::cli::terminal::TerminalArgs,
    }
    let world = World::new("").await;
    world.hello(A).await;
    let server = world.url("");
    let run = |what: &str, name: &str| {
        let arguments = ["flashmob", what, name, "--server", &server];
        crate::cli::terminal::run(Program::try_parse_from(arguments).expect("arguments").terminal)
    };
    run("show", A).await.expect("shown");
    let failure = run("show", "52:54:00:00:00:ff").await.expect_err("nobody");
    assert!(failure.class == Class::Usage && failure.advice.contains(A), "{failure:?}");
    run("forget", A).await.expect("forgotten");
    assert_eq!(run("forget", A).await.map_err(|failure| failure.class), Err(Class::Usage));
}
