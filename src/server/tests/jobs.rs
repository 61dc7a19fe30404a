//! Jobs over the real port: what people create, what terminals then get, and what is refused.

use super::operation::add_newer_version;
use super::*;
use crate::api::{DiskInfo, Refusal};
use crate::event::Class;
use crate::server::domain::jobs::{JobPlan, JobView, Order, Phase, Report, State};
use crate::testkit::lab::{done, failed};

fn order(targets: &[&str]) -> JobOrder {
    JobOrder {
        image: "golden".into(),
        targets: targets.iter().map(ToString::to_string).collect(),
        ..JobOrder::default()
    }
}

async fn create(world: &World, order: &JobOrder) -> Result<JobPlan, Refusal> {
    let answer = world.http.post(world.url("/api/v1/jobs")).json(order).send().await.expect("an answer");
    match answer.status().is_success() {
        true => Ok(answer.json().await.expect("a plan")),
        false => Err(answer.json().await.expect("a refusal")),
    }
}

async fn report(world: &World, number: u64) -> Report {
    serde_json::from_str(&world.text(&format!("/api/v1/jobs/{number}")).await.1).expect("a report")
}

async fn act(world: &World, path: &str, body: &str) -> (StatusCode, String) {
    let request = world.http.post(world.url(path)).header("content-type", "application/json");
    let answer = request.body(body.to_string()).send().await.expect("an answer");
    (answer.status(), answer.text().await.expect("text"))
}

#[tokio::test]
async fn a_new_version_changes_the_state_of_no_terminal() {
    let world = World::new(QUIET).await;
    let macs: Vec<String> = (0..12).map(|n| format!("52:54:00:00:01:{n:02x}")).collect();
    for (n, mac) in macs.iter().enumerate() {
        let job = world.begin(mac).await;
        let outcome = if n % 3 == 0 { failed(Class::Disk, false) } else { done() };
        world.outcome(&job, outcome).await.expect("taken");
    }
    let states = async || {
        let mut states = Vec::new();
        for mac in &macs {
            states.push(world.state(mac).await);
        }
        states
    };
    let before = states().await;
    let images = world.at("images/golden");
    fs::rename(images.join("format-1"), world.at("kept")).expect("moved");
    world.until("/api/v1/lab", "the repository has no image").await;
    fs::rename(world.at("kept"), images.join("format-1")).expect("moved");
    world.until("/api/v1/lab", "\"name\":\"golden\"").await;
    assert_eq!(states().await, before);
    for mac in &macs {
        assert!(!world.ipxe(mac, "efi").await.contains("vmlinuz"));
        assert_eq!(world.take(mac, Take::default()).await, Err(StatusCode::NO_CONTENT));
    }
}

#[tokio::test]
async fn a_job_that_is_created_right_after_a_version_was_published_takes_that_version() {
    let world = World::new(QUIET).await;
    world.hello(A).await;
    let dry = JobOrder { dry_run: true, ..order(&[A]) };
    assert_eq!(create(&world, &dry).await.expect("planned").images, "golden@format-1");
    add_newer_version(&world);
    let both = tokio::join!(create(&world, &dry), create(&world, &dry));
    for plan in [both.0, both.1] {
        assert_eq!(plan.expect("planned").images, "golden@format-2");
    }
    let published = world.at("images/golden/format-2");
    fs::rename(&published, world.at("kept")).expect("moved");
    assert_eq!(create(&world, &dry).await.expect("planned").images, "golden@format-1");
    fs::rename(world.at("kept"), &published).expect("moved");
    assert_eq!(create(&world, &order(&[A])).await.expect("created").images, "golden@format-2");
}

#[tokio::test]
async fn a_machine_that_is_not_known_boots_its_disk_and_is_listed_as_new_whatever_jobs_there_are() {
    for register in ["ask", "open"] {
        let world = World::new(&format!("register = '{register}'\n")).await;
        world.hello(A).await;
        world.http.post(world.url(&format!("/api/v1/terminals/{A}"))).send().await.expect("an answer");
        create(&world, &order(&[A])).await.expect("created");
        for _ in 0..2 {
            assert!(world.ipxe(B, "efi").await.ends_with("exit 1\n"), "{register}");
        }
        assert!(world.row(B).await.new, "its agent has not spoken");
        assert_eq!(world.take(&world.hello(B).await, Take::default()).await, Err(StatusCode::NO_CONTENT));
    }
}

#[tokio::test]
async fn a_dry_run_says_what_would_be_lost_and_creates_nothing() {
    let world = World::new(QUIET).await;
    let disk = |name: &str| DiskInfo { name: name.into(), size: 1 << 38, ..DiskInfo::default() };
    let mut hello = hello_of(A);
    hello.inventory.disks = vec![disk("sda")];
    let _: Welcome = world.post("/api/v1/hello", &hello).await.expect("welcome");
    let mut hello = hello_of(B);
    hello.inventory.disks = vec![disk("sda"), disk("sdb")];
    let _: Welcome = world.post("/api/v1/hello", &hello).await.expect("welcome");
    let dry = JobOrder { dry_run: true, ..order(&["new"]) };
    let plan = create(&world, &dry).await.expect("planned");
    assert_eq!((plan.number, plan.images.as_str(), plan.terminals.len()), (None, "golden@format-1", 2));
    assert!(plan.terminals[0].loses.contains("sda") && plan.needs > 0, "{plan:?}");
    let of = |name: &str| plan.findings.iter().filter(|f| f.terminal.as_deref() == Some(name)).count();
    assert_eq!((of(A), of(B)), (0, 1), "two disks fit the rule: {:?}", plan.findings);
    assert_eq!(world.text("/api/v1/jobs").await.1, "[]");
    assert_eq!(create(&world, &order(&["new"])).await.expect("created").number, Some(1));
}

#[tokio::test]
async fn a_disk_that_the_terminal_will_refuse_is_found_when_the_job_is_created() {
    let world = World::new(QUIET).await;
    // golden@format-1 has a payload of 192 KiB, and needs a disk of 1 MiB and a sector.
    for (mac, size, sector_size) in [(A, 1 << 20, 512), (B, 1 << 38, 4096)] {
        let mut hello = hello_of(mac);
        hello.inventory.disks =
            vec![DiskInfo { name: "sda".into(), size, sector_size, ..DiskInfo::default() }];
        let _: Welcome = world.post("/api/v1/hello", &hello).await.expect("welcome");
    }
    let fits = "52:54:00:00:00:0c";
    let mut hello = hello_of(fits);
    let (size, sector_size) = (1 << 38, 512);
    hello.inventory.disks = vec![DiskInfo { name: "sda".into(), size, sector_size, ..DiskInfo::default() }];
    let _: Welcome = world.post("/api/v1/hello", &hello).await.expect("welcome");
    let plan = create(&world, &order(&["new"])).await.expect("created");
    let of = |name: &str| {
        let mut of = plan.findings.iter().filter(|finding| finding.terminal.as_deref() == Some(name));
        (of.next().map(|finding| finding.error.clone()).unwrap_or_default(), of.count())
    };
    let (small, other) = (of(A), of(B));
    assert!(small.0.contains("needs 1049088 bytes") && small.0.contains("512 too few"), "{small:?}");
    assert!(other.0.contains("sectors of 512 bytes, and sda") && other.0.contains("4096 bytes"), "{other:?}");
    assert_eq!((small.1, other.1, of(fits)), (0, 0, (String::new(), 0)));
}

#[tokio::test]
async fn a_terminal_without_known_disks_is_said_to_have_run_no_agent() {
    let world = World::new(QUIET).await;
    world.ipxe(A, "efi").await;
    assert!(world.row(A).await.new, "it was heard at its firmware's start");
    let plan = create(&world, &JobOrder { dry_run: true, ..order(&["new"]) }).await.expect("planned");
    let finding = plan.findings.iter().find(|finding| finding.terminal.as_deref() == Some(A));
    assert_eq!(
        finding.map(|it| it.error.as_str()),
        Some("the disks are not known, because no agent has run there")
    );
}

#[tokio::test]
async fn a_limit_makes_the_forecast_longer_reaches_the_terminal_and_survives_a_restart() {
    let mut world = World::new(QUIET).await;
    world.hello(A).await;
    let dry = JobOrder { dry_run: true, ..order(&[A]) };
    let limited = JobOrder { limit_mbit: Some(1), ..dry.clone() };
    let (all, few) = (create(&world, &dry).await.expect("planned"), create(&world, &limited).await);
    let few = few.expect("planned");
    assert!(few.needs > all.needs, "{} {}", few.needs, all.needs);

    create(&world, &JobOrder { limit_mbit: Some(200), ..order(&[A]) }).await.expect("created");
    world.restart().await;
    let view: serde_json::Value = serde_json::from_str(&world.text("/api/v1/jobs").await.1).expect("jobs");
    assert_eq!(view[0]["limit_mbit"], 200);
    let old = world.take(A, Take::default()).await.expect_err("it would use the whole link");
    assert_eq!(old, StatusCode::CONFLICT);
    let (_, report) = world.text("/api/v1/jobs/1").await;
    assert!(report.contains("too old for --limit-mbit"), "{report}");
    act(&world, "/api/v1/jobs/1/retry", "{}").await;
    let work = world.take(A, Take { limit: true, ..Take::default() }).await.expect("work waits");
    assert_eq!(work.limit_mbit, Some(200));
}

#[tokio::test]
async fn what_cannot_work_is_refused_when_the_job_is_created() {
    let world = World::new(QUIET).await;
    world.hello(A).await;
    let disk = "bus=ata".to_string();
    let further = Order { image: "golden".into(), disk, partitions: Some(vec![8]), ..Order::default() };
    let cases = [
        (JobOrder { image: "silver".into(), ..order(&[A]) }, "silver"),
        (JobOrder { image: "golden@2".into(), ..order(&[A]) }, "golden@2"),
        (order(&["room:10l"]), "10l"),
        (order(&["lab-99"]), "lab-99"),
        (order(&[]), "no terminal is named"),
        (JobOrder { at: Some("2001-01-01 22:00".into()), ..order(&[A]) }, "past"),
        (JobOrder { at: Some("+2h".into()), until: Some("now".into()), ..order(&[A]) }, "not after"),
        (JobOrder { at: Some("soon".into()), ..order(&[A]) }, "not a time"),
        (JobOrder { every: Some("daily 22:00".into()), ..order(&[A]) }, "end of its window"),
        (JobOrder { follow: true, ..order(&[A]) }, "--every"),
        (JobOrder { wave: Some(0), ..order(&[A]) }, "--wave"),
        (JobOrder { attempts: Some(0), ..order(&[A]) }, "--attempts"),
        (JobOrder { limit_mbit: Some(0), ..order(&[A]) }, "--limit-mbit must be 1 to 1000000"),
        (JobOrder { limit_mbit: Some(9), preflight: true, ..order(&[A]) }, "a preflight fetches no image"),
        (JobOrder { disk: Some("the big one".into()), ..order(&[A]) }, "the big one"),
        (JobOrder { partitions: Some(vec![1, 1]), ..order(&[A]) }, "named twice"),
        (JobOrder { partitions: Some(vec![1, 9]), ..order(&[A]) }, "golden@format-1 has no partition 9"),
        (JobOrder { partitions: Some(vec![0]), ..order(&[A]) }, "golden@format-1 has no partition 0"),
        (JobOrder { also: vec![further], ..order(&[A]) }, "golden@format-1 has no partition 8"),
    ];
    for (order, word) in cases {
        let refusal = create(&world, &order).await.expect_err(word);
        let text = format!("{} {}", refusal.error, refusal.advice);
        assert!(text.contains(word) && !refusal.advice.is_empty(), "{word}: {refusal:?}");
    }
    assert_eq!(world.text("/api/v1/jobs").await.1, "[]");
    create(&world, &order(&[A])).await.expect("created");
    let twice = create(&world, &order(&[A])).await.expect_err("in job 1");
    assert!(twice.error.contains("in job 1 already"), "{twice:?}");
    assert_eq!(act(&world, "/api/v1/jobs", "{\"imago\":1}").await.0, StatusCode::UNPROCESSABLE_ENTITY);
    for path in ["/api/v1/jobs/7/cancel", "/api/v1/jobs/7/retry"] {
        assert_eq!(act(&world, path, "{}").await.0, StatusCode::NOT_FOUND, "{path}");
    }
}

#[tokio::test]
async fn a_planned_job_begins_nothing_before_it_opens_and_survives_a_restart() {
    let mut world = World::new(QUIET).await;
    let terminal = world.hello(A).await;
    let later = JobOrder { at: Some("+2h".into()), note: "holidays".into(), ..order(&[A]) };
    create(&world, &later).await.expect("created");
    assert_eq!(world.state(A).await, TerminalState::Planned);
    assert!(world.ipxe(A, "pcbios").await.ends_with("exit 1\n"));
    assert_eq!(world.take(&terminal, Take::default()).await, Err(StatusCode::NO_CONTENT));
    let before = report(&world, 1).await;
    world.restart().await;
    assert_eq!(report(&world, 1).await, before);
    assert_eq!((before.job.phase, before.job.note.as_str()), (Phase::Planned, "holidays"));
    assert_eq!(act(&world, "/api/v1/jobs/1/cancel", "").await.0, StatusCode::NO_CONTENT);
    assert_eq!(act(&world, "/api/v1/jobs/1/cancel", "").await.0, StatusCode::CONFLICT);
    assert_eq!(world.state(A).await, TerminalState::Cancelled);
}

#[tokio::test]
async fn refusals_screens_and_the_audit_name_terminals_by_their_labels() {
    let world = World::new(QUIET).await;
    let url = world.url("/api/v1/terminals/import");
    let csv = format!("mac,label,room\n{A},lab-01,101\n{B},lab-02,101\n");
    let import = world.http.post(url).header("content-type", "text/csv").body(csv);
    assert!(import.send().await.expect("an answer").status().is_success());
    world.hello(A).await;
    create(&world, &order(&["room:101"])).await.expect("created");
    let twice = create(&world, &order(&["lab-02"])).await.expect_err("in job 1");
    assert_eq!(twice.error, "terminal lab-02 is in job 1 already");
    let (_, text) = act(&world, "/api/v1/jobs/1/retry", "{\"targets\":[\"lab-02\"]}").await;
    assert!(text.contains("terminal lab-02 waits already"), "{text}");
    let (_, text) = act(&world, "/api/v1/decisions/retry", "{\"targets\":[\"room:101\"]}").await;
    assert!(text.contains("terminal lab-01 waits already; terminal lab-02 waits already"), "{text}");
    assert_eq!(world.decide("lab-02", "cancel").await, StatusCode::NO_CONTENT);
    let audit = world.text("/api/v1/audit").await.1;
    assert!(audit.contains("\"detail\":\"lab-02\""), "{audit}");
    let job = world.take(A, Take::default()).await.expect("work");
    world.outcome(&job, failed(Class::Disk, true)).await.expect("taken");
    let script = world.ipxe(A, "efi").await;
    assert!(script.contains("flashmob terminal retry lab-01"), "{script}");
}

#[tokio::test]
async fn a_wave_lets_the_next_one_begin_when_a_place_is_free() {
    let world = World::new(QUIET).await;
    let (a, b) = (world.hello(A).await, world.hello(B).await);
    create(&world, &JobOrder { wave: Some(1), ..order(&[A, B]) }).await.expect("created");
    assert!(world.ipxe(A, "efi").await.contains("vmlinuz"));
    let queued = world.ipxe(B, "efi").await;
    assert!(queued.contains("1 terminals at a time") && queued.contains("sleep 15"), "{queued}");
    let why = "job 1 images 1 terminals at a time, and all places are taken";
    assert_eq!(world.row(B).await.reason.as_deref(), Some(why));
    assert_eq!(report(&world, 1).await.terminals.iter().filter(|row| row.reason == why).count(), 1);
    let (_, details) = world.text(&format!("/api/v1/terminals/{B}")).await;
    assert!(details.contains(&format!("from 127.0.0.1: it waits, {why}")), "{details}");
    assert_eq!(world.take(&b, Take::default()).await, Err(StatusCode::TOO_MANY_REQUESTS));
    let job = world.take(&a, Take::default()).await.expect("its place was kept");
    world.outcome(&job, done()).await.expect("taken");
    world.take(&b, Take::default()).await.expect("the place is free");
}

#[tokio::test]
async fn the_report_names_those_that_need_a_person_first_and_a_retry_starts_them_again() {
    let mut world = World::new(QUIET).await;
    let (a, b) = (world.hello(A).await, world.hello(B).await);
    create(&world, &order(&[A, B])).await.expect("created");
    let job = world.take(&a, Take::default()).await.expect("work");
    world.outcome(&job, done()).await.expect("taken");
    let job = world.take(&b, Take::default()).await.expect("work");
    world.outcome(&job, failed(Class::Disk, true)).await.expect("taken");
    world.restart().await;
    let shown = report(&world, 1).await;
    let states: Vec<_> = shown.terminals.iter().map(|row| (row.terminal.as_str(), row.state)).collect();
    assert_eq!(states, [(B, State::Failed), (A, State::Done)]);
    assert_eq!((shown.job.phase, shown.terminals[0].reason.as_str()), (Phase::Over, "writing sda failed"));
    let csv = world.text("/api/v1/jobs/1/report.csv").await.1;
    assert!(csv.starts_with("label,terminal,state,reason,attempts,since,system\n"), "{csv}");
    assert!(csv.contains(&format!("\n,{B},failed,writing sda failed,1,")), "{csv}");
    let (status, text) = act(&world, "/api/v1/jobs/1/retry", "{}").await;
    assert_eq!(status, StatusCode::OK);
    assert!(text.starts_with(&format!("{{\"terminals\":[\"{B}\"],\"decided\":[")), "{text}");
    assert_eq!((world.state(A).await, world.state(B).await), (TerminalState::Done, TerminalState::Waiting));
    let named = format!("{{\"targets\":[\"{A}\"],\"compare\":\"full\"}}");
    assert_eq!(act(&world, "/api/v1/jobs/1/retry", &named).await.0, StatusCode::OK);
    let again = world.take(&a, Take::default()).await.expect("a person named it");
    assert_eq!(again.task.compare, crate::api::Compare::Full);
    let jobs: Vec<JobView> = serde_json::from_str(&world.text("/api/v1/jobs").await.1).expect("jobs");
    assert_eq!((jobs.len(), jobs[0].phase), (1, Phase::Open));
}

#[tokio::test]
async fn an_attempt_by_hand_keeps_the_table_as_the_terminals_finished_job_did() {
    let world = World::new(QUIET).await;
    let terminal = world.hello(A).await;
    create(&world, &JobOrder { layout: crate::api::LayoutMode::Keep, ..order(&[A]) }).await.expect("created");
    let job = world.take(&terminal, Take::default()).await.expect("work");
    world.outcome(&job, done()).await.expect("taken");
    let wish = Take { image: Some("golden".into()), ..Take::default() };
    let again = world.take(&terminal, wish).await.expect("given");
    assert_eq!(again.task.layout, crate::api::LayoutMode::Keep);
}
