//! Systems of their own: host names by rule, finishing after a power cut, the started system's call.

use std::sync::atomic::Ordering;

use super::speaking::token;
use super::*;
use crate::api::{Booted, Personal, PersonalReport, TerminalDetails};
use crate::digest::sha256;
use crate::event::Stage;
use crate::image_id::ImageId;
use crate::io::net::reverse_dns;
use crate::manifest::after::{After, AfterFile, FORMAT, Rule};
use crate::manifest::{Manifest, Role};
use crate::server::domain::jobs::JobPlan;
use crate::server::domain::tickets;
use crate::testkit::lab::done;

/// An agent that knows how to personalise.
const KNOWS: fn() -> Take =
    || Take { preflight: true, personal: true, files: true, blank: true, ..Take::default() };

/// All places for questions to DNS.
const PLACES: u32 = 16;

/// A room of two terminals with seats, and one without.
const ROOM: &str = "mac,label,room,seat,hostname\n\
    52:54:00:00:00:0a,lab-01,101,1,pc1\n52:54:00:00:00:0b,lab-02,101,2,\n52:54:00:00:00:0c,lab-03,,,PC1\n";

async fn world() -> World {
    let world = World::new(QUIET).await;
    let answer = world.http.post(world.url("/api/v1/terminals/import")).body(ROOM).send().await;
    assert_eq!(answer.expect("an answer").status(), StatusCode::OK);
    world
}

fn order(targets: &[&str], hostname: Option<&str>) -> JobOrder {
    JobOrder {
        image: "golden".into(),
        targets: targets.iter().map(|target| (*target).into()).collect(),
        hostname: hostname.map(str::to_string),
        ..JobOrder::default()
    }
}

async fn create(world: &World, order: &JobOrder) -> (StatusCode, String) {
    let answer = world.http.post(world.url("/api/v1/jobs")).json(order).send().await.expect("an answer");
    (answer.status(), answer.text().await.expect("text"))
}

/// Takes the work that waits for the terminal with this MAC.
async fn take(world: &World, mac: &str) -> Assignment {
    let terminal = world.hello(mac).await;
    world.take(&terminal, KNOWS()).await.expect("work waits")
}

async fn report(world: &World, job: &Assignment, done: bool, problems: &[&str]) -> StatusCode {
    let problems = problems.iter().map(|text| (*text).into()).collect();
    let report =
        PersonalReport { token: job.token.clone(), done, steps: vec!["etc/hostname".into()], problems };
    let url = world.url(&format!("/api/v1/attempts/{}/personal", job.attempt));
    world.http.post(url).json(&report).send().await.expect("an answer").status()
}

async fn booted(world: &World, ticket: &str) -> StatusCode {
    let said = Booted {
        ticket: ticket.into(),
        hostname: "101-01".into(),
        system: "Debian GNU/Linux 12 (bookworm)\n".into(),
        kernel: "6.1.0-26-amd64".into(),
    };
    let answer = world.http.post(world.url("/api/v1/booted")).json(&said).send().await;
    answer.expect("an answer").status()
}

async fn system(world: &World, mac: &str) -> Option<String> {
    world.row(mac).await.system
}

#[tokio::test]
async fn a_rule_that_leaves_a_terminal_nameless_or_names_two_alike_is_refused_when_the_job_is_created() {
    let world = world().await;
    for (targets, rule, why) in [
        (&["all"][..], "{room}-{seat:02}", "no name to lab-03: it has no room"),
        (&["all"], "csv", "no name to lab-02: no host name is registered"),
        (&["lab-01", "lab-03"], "csv", "gives the name 'pc1' to lab-01, lab-03"),
        (&["room:101"], "{room}", "gives the name '101' to lab-01, lab-02"),
        (&["room:101"], "pc", "same name"),
        (&["room:101"], "{floor}", "{room}, {seat}"),
    ] {
        let (status, text) = create(&world, &order(targets, Some(rule))).await;
        assert!(status == StatusCode::CONFLICT && text.contains(why), "{rule}: {text}");
    }
    let (status, text) = create(&world, &JobOrder { as_is: true, ..order(&["all"], Some("{label}")) }).await;
    assert!(status == StatusCode::CONFLICT && text.contains("--as-is"), "{text}");
    let dry = JobOrder { dry_run: true, ..order(&["room:101"], Some("{room}-{seat:02}-of-the-school")) };
    let (status, text) = create(&world, &dry).await;
    assert_eq!(status, StatusCode::OK, "{text}");
    let plan: JobPlan = serde_json::from_str(&text).expect("a plan");
    let names: Vec<_> = plan.terminals.iter().filter_map(|t| t.hostname.as_deref()).collect();
    assert_eq!(names, ["101-01-of-the-school", "101-02-of-the-school"]);
    assert!(plan.findings.iter().any(|f| f.error.contains("15 characters")), "{:?}", plan.findings);
}

#[tokio::test]
async fn an_agent_gets_the_name_by_rule_and_one_that_would_leave_the_old_name_gets_no_work() {
    let world = world().await;
    create(&world, &order(&["room:101"], Some("{room}-{seat:02}"))).await;
    let Personal { hostname, label, room, seat, ticket, .. } = take(&world, A).await.personal.expect("given");
    assert_eq!(hostname.as_deref(), Some("101-01"));
    assert_eq!([label, room, seat].map(Option::unwrap), ["lab-01", "101", "1"]);
    assert!(ticket.len() > 40, "{ticket}");
    let terminal = world.hello(B).await;
    let old = Take { preflight: true, ..Take::default() };
    assert_eq!(world.take(&terminal, old).await, Err(StatusCode::CONFLICT));
    let row = world.row(B).await;
    assert_eq!(row.state, TerminalState::Failed);
    assert!(row.reason.as_deref().is_some_and(|why| why.contains("too old")), "{row:?}");
    // Whoever clears the seat after the job was created stops the terminal, not the night.
    world.decide(B, "retry").await;
    let url = world.url(&format!("/api/v1/terminals/{B}"));
    world.http.patch(url).json(&serde_json::json!({ "seat": "" })).send().await.expect("described");
    assert_eq!(world.take(&terminal, KNOWS()).await, Err(StatusCode::CONFLICT));
    assert!(world.row(B).await.reason.is_some_and(|why| why.contains("no seat")));
}

#[tokio::test]
async fn a_job_says_when_no_partition_of_the_image_can_hold_a_host_name() {
    let world = world().await;
    let said = async |rule| {
        let dry = JobOrder { dry_run: true, ..order(&["room:101"], rule) };
        let (status, text) = create(&world, &dry).await;
        assert_eq!(status, StatusCode::OK, "{text}");
        text.contains("can hold a host name")
    };
    assert!(said(Some("{label}")).await, "the image has no filesystem that is known");
    assert!(!said(None).await);
}

/// Makes the golden image one of a Windows that starts by BIOS, with a blank.
fn add_blank(world: &World) {
    let file = world.at("images/golden/format-1/manifest.json");
    let mut manifest = Manifest::parse(&std::fs::read(&file).expect("there")).expect("right");
    manifest.partitions.iter_mut().for_each(|partition| partition.role = Role::Data);
    let first = manifest.partitions.first_mut().expect("one");
    (first.filesystem, first.blank) = (Some("ntfs".into()), Some(4096));
    std::fs::write(&file, manifest.to_bytes()).expect("written");
}

#[tokio::test]
async fn a_windows_that_starts_by_bios_has_a_name_in_its_blank_no_files_and_no_older_agent() {
    let world = world().await;
    add_files(&world);
    add_blank(&world);
    let dry = JobOrder { dry_run: true, ..order(&["room:101"], Some("{room}-{seat:02}")) };
    let (status, text) = create(&world, &dry).await;
    assert_eq!(status, StatusCode::OK, "{text}");
    assert!(!text.contains("can hold a host name"), "{text}");
    assert!(text.contains("starts by BIOS gets none of the administrator's files"), "{text}");
    create(&world, &JobOrder { dry_run: false, ..dry }).await;
    let terminal = world.hello(A).await;
    assert_eq!(world.take(&terminal, Take { blank: false, ..KNOWS() }).await, Err(StatusCode::CONFLICT));
    assert!(world.row(A).await.reason.is_some_and(|why| why.contains("too old for this image")));
    assert_eq!(take(&world, B).await.personal.expect("given").hostname.as_deref(), Some("101-02"));
}

#[tokio::test]
async fn without_a_rule_only_the_file_is_written_and_with_as_is_not_even_that() {
    let world = world().await;
    create(&world, &order(&[A], None)).await;
    assert_eq!(take(&world, A).await.personal.expect("given").hostname, None);
    create(&world, &JobOrder { as_is: true, ..order(&[B], None) }).await;
    let job = take(&world, B).await;
    assert_eq!(job.personal, None);
    world.outcome(&job, done()).await.expect("taken");
    assert_eq!(system(&world, B).await.as_deref(), Some("imaged"));
    assert!(!world.ipxe(B, "efi").await.contains("/boot/vmlinuz"), "nothing is left to do");
}

#[tokio::test]
async fn a_terminal_that_is_cut_off_while_it_personalises_is_finished_and_not_imaged_again() {
    let mut world = world().await;
    create(&world, &order(&[A], Some("{label}"))).await;
    let first = take(&world, A).await;
    world.outcome(&first, done()).await.expect("taken");
    world.progress(&first, crate::event::Progress::at(Stage::Personalise)).await.expect("taken");
    assert_eq!(report(&world, &first, false, &[]).await, StatusCode::NO_CONTENT);
    assert_eq!(system(&world, A).await.as_deref(), Some("imaged, not yet personalised"));
    world.restart().await;
    assert_eq!(world.state(A).await, TerminalState::Done);
    assert!(world.ipxe(A, "efi").await.contains("/boot/vmlinuz"), "the agent comes again");
    let again = take(&world, A).await;
    assert_eq!((again.attempt, &again.token, again.finish), (first.attempt, &first.token, true));
    assert_eq!(again.personal.as_ref().and_then(|p| p.hostname.as_deref()), Some("lab-01"));
    assert!(again.installed.iter().all(|one| one.personalised) && !again.installed.is_empty());
    assert_eq!(report(&world, &again, true, &[]).await, StatusCode::NO_CONTENT);
    assert_eq!(system(&world, A).await.as_deref(), Some("imaged, personalised as lab-01"));
    assert!(!world.ipxe(A, "efi").await.contains("/boot/vmlinuz"), "its disk boots");
    let terminal = world.hello(A).await;
    assert_eq!(world.take(&terminal, KNOWS()).await, Err(StatusCode::NO_CONTENT));
    let stranger = Assignment { token: "guess".into(), ..again };
    assert_eq!(report(&world, &stranger, true, &[]).await, StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn one_that_is_cut_off_each_time_boots_its_disk_in_the_end_and_a_retry_images_it_anew() {
    let world = world().await;
    create(&world, &order(&[A], None)).await;
    let job = take(&world, A).await;
    world.outcome(&job, done()).await.expect("taken");
    for _ in 0..3 {
        assert!(take(&world, A).await.finish);
    }
    assert!(!world.ipxe(A, "efi").await.contains("/boot/vmlinuz"));
    assert!(system(&world, A).await.is_some_and(|words| words.contains("cut off each time")));
    world.decide(A, "retry").await;
    let next = take(&world, A).await;
    assert!(!next.finish && next.attempt > job.attempt);
}

#[tokio::test]
async fn an_image_by_hand_needs_no_agent_that_knows_the_files_and_the_limit_of_jobs() {
    let mut world = world().await;
    add_files(&world);
    world.restart().await;
    create(&world, &JobOrder { limit_mbit: Some(100), ..order(&[A], None) }).await;
    let terminal = world.hello(A).await;
    let by_hand = Take { image: Some("golden".into()), preflight: true, ..Take::default() };
    let assignment = world.take(&terminal, by_hand).await.expect("given");
    assert_eq!(assignment.personal, None);
}

#[tokio::test]
async fn a_started_system_calls_back_once() {
    let mut world = world().await;
    create(&world, &order(&[A], Some("{room}-{seat:02}"))).await;
    let job = take(&world, A).await;
    let ticket = job.personal.as_ref().expect("given").ticket.clone();
    world.outcome(&job, done()).await.expect("taken");
    report(&world, &job, true, &["/dev/sda3 holds LVM"]).await;
    let partly = system(&world, A).await;
    assert_eq!(partly.as_deref(), Some("imaged, not fully personalised: /dev/sda3 holds LVM"));
    for wrong in ["", "1-00", &ticket[1..], &format!("9{ticket}")] {
        assert_eq!(booted(&world, wrong).await, StatusCode::FORBIDDEN, "{wrong}");
    }
    assert_eq!(booted(&world, &ticket).await, StatusCode::NO_CONTENT);
    let words = "booted as 101-01: Debian GNU/Linux 12 (bookworm), 6.1.0-26-amd64";
    assert_eq!(booted(&world, &ticket).await, StatusCode::FORBIDDEN, "used");
    world.restart().await;
    assert_eq!(booted(&world, &ticket).await, StatusCode::FORBIDDEN, "used before the restart");
    assert_eq!(system(&world, A).await.as_deref(), Some(words));
    let details = world.text(&format!("/api/v1/terminals/{A}")).await.1;
    let details: TerminalDetails = serde_json::from_str(&details).expect("details");
    let personal = details.attempt.and_then(|attempt| attempt.personal).expect("kept");
    assert_eq!(personal.booted.expect("booted").kernel, "6.1.0-26-amd64");
    let csv = world.text("/api/v1/jobs/1/report.csv").await.1;
    assert!(csv.contains(&format!("\"{words}\"")), "{csv}");
    // Imaged again, the old ticket says nothing of the new system.
    create(&world, &order(&[A], None)).await;
    take(&world, A).await;
    assert_eq!(booted(&world, &ticket).await, StatusCode::FORBIDDEN);
}

/// Gives the golden image one file for everybody and one for the group `cad`. Returns the second's address.
fn add_files(world: &World) -> String {
    let image = world.at("images/golden/format-1");
    let file = |path: &str, content: &[u8]| {
        let sha256 = sha256(content);
        fs::create_dir_all(image.join("after")).expect("made");
        fs::write(image.join("after").join(sha256.to_string()), content).expect("written");
        AfterFile { path: path.into(), mode: "0644".into(), size: content.len() as u64, sha256 }
    };
    let rule = |name: &str, files| Rule { name: name.into(), files, ..Rule::default() };
    let mut rules = vec![rule("all", vec![file("etc/motd", b"welcome")])];
    rules.push(Rule { groups: vec!["cad".into()], ..rule("cad", vec![file("opt/licence", b"secret")]) });
    let list = After { format: FORMAT, rules }.to_bytes();
    let manifest = fs::read(image.join("manifest.json")).expect("read");
    let mut manifest = Manifest::parse(&manifest).expect("sound");
    manifest.sidecars.insert("after.json".into(), sha256(&list));
    fs::write(image.join("after.json"), list).expect("written");
    fs::write(image.join("manifest.json"), manifest.to_bytes()).expect("written");
    format!("golden/format-1/after/{}", sha256(b"secret"))
}

#[tokio::test]
async fn the_administrators_files_are_listed_by_a_dry_run_and_go_to_terminals_with_a_job_only() {
    let mut world =
        World::new("open_images = ['golden']\n[[group]]\nname='cad'\nterminals=['lab-02']\n").await;
    let answer = world.http.post(world.url("/api/v1/terminals/import")).body(ROOM).send().await;
    assert_eq!(answer.expect("an answer").status(), StatusCode::OK);
    let secret = add_files(&world);
    world.restart().await;
    let dry = JobOrder { dry_run: true, ..order(&["room:101"], None) };
    let plan = |text: String| serde_json::from_str::<JobPlan>(&text).expect("a plan").terminals;
    let listed = plan(create(&world, &dry).await.1);
    assert_eq!(listed[0].files, ["/etc/motd"]);
    assert_eq!(listed[1].files, ["/etc/motd", "/opt/licence"]);
    let as_is = plan(create(&world, &JobOrder { as_is: true, ..dry }).await.1);
    assert!(as_is.iter().all(|terminal| terminal.files.is_empty()));

    create(&world, &order(&["room:101"], None)).await;
    let terminal = world.hello(A).await;
    let old = Take { files: false, ..KNOWS() };
    assert_eq!(world.take(&terminal, old).await, Err(StatusCode::CONFLICT));
    assert!(
        world.row(A).await.reason.is_some_and(|why| why.contains("too old for the administrator's files"))
    );
    let job = take(&world, B).await;
    assert_eq!(job.personal.as_ref().map(|own| &own.groups[..]), Some(&["cad".to_string()][..]));
    let ticket = job.task.ticket.clone().expect("a ticket, although the image is open");
    world.open_abroad().await;
    let app = world.server.as_ref().expect("running").app();
    let get = async |path: String| {
        let answer = world.http.get(world.abroad(&path)).send().await.expect("an answer");
        (answer.status(), answer.text().await.expect("text"))
    };
    assert_eq!(get("/images/golden/format-1/after.json".into()).await.0, StatusCode::OK);
    assert_eq!(get(format!("/images/{secret}")).await.0, StatusCode::FORBIDDEN);
    assert_eq!(get(format!("/images/t=0f/{secret}")).await.0, StatusCode::FORBIDDEN);
    let torrent = tickets::issue_for_torrent(&app.ticket_key, &ImageId::new("golden", "format-1"), app.now());
    assert_eq!(get(format!("/images/t={torrent}/{secret}")).await.0, StatusCode::FORBIDDEN);
    assert_eq!(get(format!("/images/t={ticket}/{secret}")).await, (StatusCode::OK, "secret".into()));
    // Another terminal has a job for the same image, and no rule that names it has the secret.
    world.decide(A, "retry").await;
    let other = take(&world, A).await;
    let others = other.task.ticket.expect("a ticket");
    assert_eq!(get(format!("/images/t={others}/{secret}")).await.0, StatusCode::FORBIDDEN);
    let as_b = others.replacen(&other.attempt.to_string(), &job.attempt.to_string(), 1);
    assert_eq!(get(format!("/images/t={as_b}/{secret}")).await.0, StatusCode::FORBIDDEN);
    for (role, room, status) in
        [("teacher", Some("102"), StatusCode::FORBIDDEN), ("admin", None, StatusCode::OK)]
    {
        let token = token(&world, role, room).await.token;
        let url = world.abroad(&format!("/images/{secret}"));
        let answer = world.http.get(url).bearer_auth(token).send().await.expect("an answer");
        assert_eq!(answer.status(), status, "{role}");
    }
    let motd = format!("golden/format-1/after/{}", sha256(b"welcome"));
    assert_eq!(get(format!("/images/t={others}/{motd}")).await, (StatusCode::OK, "welcome".into()));
    // Cut off after its image was on the disk, the terminal gets a ticket again, unless its agent would leave
    // the files out.
    world.outcome(&job, done()).await.expect("taken");
    let terminal = world.hello(B).await;
    let old = Take { files: false, ..KNOWS() };
    assert_eq!(world.take(&terminal, old).await, Err(StatusCode::CONFLICT));
    let again = take(&world, B).await;
    assert!(again.finish && again.task.ticket.is_some());
}

/// Tests that ask DNS, one at a time, because one of them takes all places for questions.
static ASKS_DNS: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

#[tokio::test]
async fn a_stranger_makes_the_server_ask_dns_nothing_and_a_terminal_waits_while_dns_gives_no_answer() {
    let mut world = world().await;
    let _alone = ASKS_DNS.lock().await;
    create(&world, &order(&[A], Some("{dns}"))).await;
    let terminal = world.hello(A).await;
    world.open_abroad().await;
    let resolver_is_away = reverse_dns::PLACES.acquire_many(PLACES).await.expect("open");
    let url = world.abroad(&format!("/api/v1/terminals/{terminal}/take"));
    let calls = || reverse_dns::CALLS.load(Ordering::SeqCst);
    let before = calls();
    let stranger = world.http.post(url).json(&KNOWS()).send().await;
    assert_eq!(stranger.expect("an answer").status(), StatusCode::UNAUTHORIZED);
    assert_eq!(calls(), before, "nothing is asked for a stranger");
    assert_eq!(world.take(&terminal, KNOWS()).await, Err(StatusCode::TOO_MANY_REQUESTS));
    assert_eq!(calls(), before + 1);
    assert_eq!(world.state(A).await, TerminalState::Waiting);
    let report = world.text("/api/v1/jobs/1").await.1;
    let report: serde_json::Value = serde_json::from_str(&report).expect("a report");
    for why in [world.row(A).await.reason.expect("why"), report["terminals"][0]["reason"].to_string()] {
        assert!(why.contains("no name yet: DNS did not answer for 127.0.0.1"), "{why}");
        assert!(why.contains("; asked again at "), "{why}");
    }
    drop(resolver_is_away);
    assert!(world.take(&terminal, KNOWS()).await.is_ok(), "without a retry by a person");
    assert_eq!(world.row(A).await.reason, None, "it was put off before");
}

#[tokio::test]
async fn a_name_from_dns_is_that_of_the_address_that_the_terminal_has_when_it_begins() {
    let world = world().await;
    let _alone = ASKS_DNS.lock().await;
    // It has never come, so its address is not known when the job is created.
    let (status, text) = create(&world, &order(&[A], Some("{dns}"))).await;
    assert_eq!(status, StatusCode::CREATED, "{text}");
    let plan: JobPlan = serde_json::from_str(&text).expect("a plan");
    assert_eq!(plan.terminals[0].hostname, None);
    assert!(plan.findings.iter().any(|found| found.error.contains("DNS cannot be asked")), "{plan:?}");
    let name = take(&world, A).await.personal.expect("given").hostname.expect("this machine's name");
    assert!(name.starts_with("localhost"), "{name}");
    // A second terminal at the same address.
    world.hello(B).await;
    let dry = |rule| JobOrder { dry_run: true, ..order(&["room:101"], Some(rule)) };
    let (status, text) = create(&world, &dry("{dns}")).await;
    assert!(
        status == StatusCode::CONFLICT && text.contains(&format!("'{name}' to lab-01, lab-02")),
        "{text}"
    );
    let fallback = JobOrder { dry_run: true, ..order(&[B], Some("csv|{dns}")) };
    let (_, text) = create(&world, &fallback).await;
    let plan: JobPlan = serde_json::from_str(&text).expect("a plan");
    assert_eq!(plan.terminals[0].hostname, Some(name.clone()), "no host name is registered for it");
    // A third one, whose address is not known when the job is created.
    let (status, text) = create(&world, &order(&["lab-02", "lab-03"], Some("{dns}"))).await;
    assert_eq!(status, StatusCode::CREATED, "{text}");
    take(&world, B).await;
    let third = world.hello("52:54:00:00:00:0c").await;
    assert_eq!(world.take(&third, KNOWS()).await, Err(StatusCode::CONFLICT));
    let why = world.row("52:54:00:00:00:0c").await.reason.expect("a reason");
    assert!(why.contains(&format!("'{name}', which lab-02")), "{why}");
}
