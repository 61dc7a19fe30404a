//! One decision for several terminals or jobs: what becomes of each, and what changes nothing.

use super::speaking::{audit, token};
use super::*;
use crate::api::{Decided, JobDecided, Refusal};
use crate::event::Class;
use crate::server::domain::jobs::Phase;
use crate::testkit::lab::{done, failed};

const C: &str = "52:54:00:00:00:0c";

impl World {
    /// Calls from the server itself, or with a token from another machine.
    async fn together(&self, token: Option<&str>, what: &str, body: &str) -> (StatusCode, String) {
        let path = format!("/api/v1/decisions/{what}");
        let request = match token {
            Some(token) => self.http.post(self.abroad(&path)).bearer_auth(token),
            None => self.http.post(self.url(&path)),
        };
        let request = request.header("content-type", "application/json").body(body.to_string());
        let answer = request.send().await.expect("an answer");
        (answer.status(), answer.text().await.expect("text"))
    }

    async fn decided(&self, what: &str, body: &str) -> Vec<Decided> {
        let (status, text) = self.together(None, what, body).await;
        assert_eq!(status, StatusCode::OK, "{text}");
        serde_json::from_str(&text).expect("decided")
    }

    async fn refused(&self, what: &str, body: &str) -> Refusal {
        let (status, text) = self.together(None, what, body).await;
        assert_eq!(status, StatusCode::CONFLICT, "{text}");
        serde_json::from_str(&text).expect("a refusal")
    }

    /// Lists A and B in room 101 and C in room 102.
    async fn rooms(&self) {
        let table = format!("mac,label,room,seat\n{A},lab-1,101,1\n{B},lab-2,101,2\n{C},lab-3,102,1\n");
        let request = self.http.post(self.url("/api/v1/terminals/import"));
        let answer = request.header("content-type", "text/csv").body(table).send().await.expect("an answer");
        assert_eq!(answer.status(), StatusCode::OK);
    }
}

fn changed(decided: &[Decided]) -> Vec<(&str, bool)> {
    decided.iter().map(|one| (one.terminal.as_str(), one.changed)).collect()
}

#[tokio::test]
async fn a_room_is_cancelled_and_retried_at_once_and_each_terminal_is_answered_for() {
    let world = World::new(QUIET).await;
    world.rooms().await;
    let job = world.begin(A).await;
    world.outcome(&job, done()).await.expect("taken");
    world.begin(B).await;
    world.order(C).await;

    let decided = world.decided("cancel", r#"{"targets":["room:101","lab-3"]}"#).await;
    assert_eq!(changed(&decided), [(A, false), (B, true), (C, true)]);
    assert_eq!(decided[0].label.as_deref(), Some("lab-1"));
    assert!(decided[0].result.contains("has nothing to cancel"), "{decided:?}");
    assert_eq!(decided[1].result, "is told to stop, and has left job 2");
    assert_eq!(decided[2].result, "will not begin, and has left job 3");
    let states = [world.state(A).await, world.state(B).await, world.state(C).await];
    assert_eq!(states, [TerminalState::Done, TerminalState::Cancelled, TerminalState::Cancelled]);
    let nobody = world.refused("cancel", r#"{"targets":["room:101"]}"#).await;
    assert!(nobody.error.contains("lab-1") && nobody.error.contains("lab-2"), "{nobody:?}");

    let decided = world.decided("retry", r#"{"targets":["room:101"],"compare":"full"}"#).await;
    assert_eq!(changed(&decided), [(A, false), (B, true)], "the system of the one that is done is in use");
    assert!(decided[0].advice.contains("label or MAC"), "{decided:?}");
    let decided = world.decided("retry", r#"{"targets":["lab-1","room:101"]}"#).await;
    assert_eq!(changed(&decided), [(A, true), (B, false)], "a word names it alone, and the other one waits");
    assert_eq!(world.state(C).await, TerminalState::Cancelled);
    let entries = audit(&world).await;
    let count = |action: &str, id: &str| {
        entries.iter().filter(|entry| entry.action == action && entry.subject == id).count()
    };
    assert_eq!([count("cancel", A), count("cancel", B), count("cancel", C)], [0, 1, 1]);
    assert_eq!([count("retry", A), count("retry", B), count("retry", C)], [1, 1, 0]);
}

#[tokio::test]
async fn a_target_that_is_not_known_keeps_a_decision_from_changing_anything() {
    let world = World::new(QUIET).await;
    world.rooms().await;
    world.order(A).await;
    let wrong = r#"{"targets":["lab-1","lab-9"]}"#;
    for what in ["cancel", "retry", "forget", "wake"] {
        let (status, text) = world.together(None, what, wrong).await;
        let refusal: Refusal = serde_json::from_str(&text).expect("a refusal");
        assert!(refusal.error.contains("lab-9") && !refusal.advice.is_empty(), "{what}: {refusal:?}");
        assert_eq!(status == StatusCode::NOT_FOUND, what != "wake", "{what}: {status}");
    }
    world.refused("set", r#"{"targets":["lab-1","room:9"],"set":{"room":"103"}}"#).await;
    let jobs = world.together(None, "cancel-jobs", r#"{"jobs":[1,9]}"#).await;
    assert_eq!(jobs.0, StatusCode::NOT_FOUND, "{}", jobs.1);
    for nobody in ["retry", "cancel", "forget", "wake"] {
        let refusal = world.refused(nobody, r#"{"targets":[]}"#).await;
        assert_eq!(refusal.error, "no terminal is named");
    }
    assert_eq!(world.state(A).await, TerminalState::Waiting);
    assert_eq!(world.row(A).await.room.as_deref(), Some("101"));
    let act =
        |action: &str| matches!(action, "cancel" | "retry" | "forget" | "wake" | "set" | "cancel the job");
    assert!(!audit(&world).await.iter().any(|entry| act(&entry.action)));
}

#[tokio::test]
async fn a_teacher_decides_for_several_terminals_of_the_own_room_only() {
    let mut world = World::new(QUIET).await;
    world.open_abroad().await;
    world.rooms().await;
    for mac in [A, B, C] {
        world.order(mac).await;
    }
    let teacher = token(&world, "teacher", Some("101")).await.token;
    let teacher = Some(teacher.as_str());
    for what in ["cancel", "wake", "retry"] {
        let (status, _) = world.together(teacher, what, r#"{"targets":["room:101","lab-3"]}"#).await;
        assert_eq!(status, StatusCode::FORBIDDEN, "{what}");
        let (status, _) = world.together(Some("guess"), what, r#"{"targets":["lab-1"]}"#).await;
        assert_eq!(status, StatusCode::UNAUTHORIZED, "{what}");
    }
    for (what, body) in [
        ("cancel-jobs", r#"{"jobs":[1,3]}"#),
        ("forget", r#"{"targets":["lab-1"]}"#),
        ("set", r#"{"targets":["lab-1"],"set":{"seat":"9"}}"#),
    ] {
        assert_eq!(world.together(teacher, what, body).await.0, StatusCode::FORBIDDEN, "{what}");
    }
    for mac in [A, B, C] {
        assert_eq!(world.state(mac).await, TerminalState::Waiting);
    }
    assert_eq!(world.together(teacher, "cancel", r#"{"targets":["room:101"]}"#).await.0, StatusCode::OK);
    assert_eq!(world.state(B).await, TerminalState::Cancelled);
    let refused = audit(&world).await;
    assert!(refused.iter().any(|e| e.subject == C && e.detail.starts_with("refused")), "{refused:?}");
}

#[tokio::test]
async fn a_room_is_forgotten_only_when_the_person_says_so_and_none_while_one_is_at_work() {
    let world = World::new(QUIET).await;
    world.rooms().await;
    let job = world.begin(A).await;
    world.outcome(&job, failed(Class::Disk, true)).await.expect("taken");
    let refusal = world.refused("forget", r#"{"targets":["room:101"]}"#).await;
    assert!(refusal.error.contains("2 terminals") && refusal.error.contains("lab-2"), "{refusal:?}");
    assert!(refusal.error.contains("half a system is on a disk of 1"), "{refusal:?}");
    assert!(refusal.advice.contains("--all-of-them"), "{refusal:?}");
    world.begin(C).await;
    let busy = world.refused("forget", r#"{"targets":["all"],"all_of_them":true}"#).await;
    assert!(busy.error.contains("lab-3"), "{busy:?}");
    for mac in [A, B, C] {
        world.row(mac).await;
    }
    let forgotten = world.decided("forget", r#"{"targets":["lab-1","lab-2"]}"#).await;
    assert_eq!(changed(&forgotten), [(A, true), (B, true)]);
    assert!(forgotten[0].advice.contains("half a system") && forgotten[1].advice.is_empty(), "{forgotten:?}");
    assert_eq!(forgotten[1].label.as_deref(), Some("lab-2"));
    let left: Vec<TerminalView> =
        serde_json::from_str(&world.text("/api/v1/terminals").await.1).expect("rows");
    assert_eq!(left.iter().map(|row| row.id.as_str()).collect::<Vec<_>>(), [C]);
}

#[tokio::test]
async fn several_terminals_share_a_room_and_groups_and_no_label() {
    let world = World::new(QUIET).await;
    world.rooms().await;
    for name in ["label", "seat", "hostname"] {
        let body = format!(r#"{{"targets":["room:101"],"set":{{"{name}":"one"}}}}"#);
        assert!(world.refused("set", &body).await.error.contains("'one'"), "{name}");
    }
    // Seat 1 of room 102 is taken, so neither of the two moves there.
    let body = r#"{"targets":["room:101"],"set":{"room":"102"}}"#;
    let clash = world.refused("set", body).await;
    assert!(clash.error.contains("seat '1' of room 102"), "{clash:?}");
    assert_eq!(world.row(B).await.room.as_deref(), Some("101"));
    let body = r#"{"targets":["room:101"],"set":{"room":"102","seat":"","join":["cad"]}}"#;
    assert_eq!(changed(&world.decided("set", body).await), [(A, true), (B, true)]);
    let row = world.row(B).await;
    assert_eq!((row.room.as_deref(), row.seat, row.groups), (Some("102"), None, vec!["cad".to_string()]));
    let body = r#"{"targets":["room:102"],"set":{"join":["cad"]}}"#;
    assert_eq!(changed(&world.decided("set", body).await), [(A, false), (B, false), (C, true)]);
}

#[tokio::test]
async fn disks_are_accepted_only_of_terminals_that_are_named_one_by_one() {
    let world = World::new(QUIET).await;
    world.rooms().await;
    world.order(A).await;
    let room = world.refused("retry", r#"{"targets":["room:101"],"accept_disks":true}"#).await;
    assert!(room.error.contains("one by one"), "{room:?}");
    let one = world.decided("retry", r#"{"targets":["lab-1"],"accept_disks":true}"#).await;
    assert_eq!(changed(&one), [(A, true)]);
}

#[tokio::test]
async fn several_jobs_are_cancelled_and_one_that_is_over_stays_as_it_is() {
    let world = World::new(QUIET).await;
    world.rooms().await;
    for mac in [A, B, C] {
        world.order(mac).await;
    }
    let cancel = async |body: &str| {
        let (status, text) = world.together(None, "cancel-jobs", body).await;
        let decided = serde_json::from_str::<Vec<JobDecided>>(&text).unwrap_or_default();
        (status, decided.into_iter().map(|one| (one.job, one.changed)).collect::<Vec<_>>())
    };
    assert_eq!(cancel(r#"{"jobs":[2]}"#).await, (StatusCode::OK, vec![(2, true)]));
    assert_eq!(cancel(r#"{"jobs":[3,2,1,1]}"#).await.1, [(1, true), (2, false), (3, true)]);
    assert_eq!(cancel(r#"{"jobs":[1,2]}"#).await.0, StatusCode::CONFLICT);
    assert_eq!(cancel(r#"{"jobs":[]}"#).await.0, StatusCode::CONFLICT);
    assert_eq!(world.state(C).await, TerminalState::Cancelled);
}

#[tokio::test]
async fn of_a_jobs_room_only_those_begin_again_that_have_not_succeeded() {
    let world = World::new(QUIET).await;
    world.rooms().await;
    let order = JobOrder { image: "golden".into(), targets: vec!["room:101".into()], ..JobOrder::default() };
    let answer = world.http.post(world.url("/api/v1/jobs")).json(&order).send().await.expect("an answer");
    assert_eq!(answer.status(), StatusCode::CREATED);
    for (mac, outcome) in [(A, done()), (B, failed(Class::Disk, true))] {
        let terminal = world.hello(mac).await;
        let job = world.take(&terminal, Take::default()).await.expect("work");
        world.outcome(&job, outcome).await.expect("taken");
    }
    let retry = async |targets: &str| {
        let url = world.url("/api/v1/jobs/1/retry");
        let request = world.http.post(url).header("content-type", "application/json");
        let answer = request.body(format!(r#"{{"targets":{targets}}}"#)).send().await.expect("an answer");
        (answer.status(), answer.text().await.expect("text"))
    };
    let (status, text) = retry(r#"["lab-2","lab-3"]"#).await;
    assert_eq!(status, StatusCode::CONFLICT);
    assert!(text.contains("terminal lab-3 (52:54:00:00:00:0c) is not in job 1"), "{text}");
    assert_eq!(world.state(B).await, TerminalState::Failed, "nothing has begun again");
    let (status, text) = retry(r#"["all"]"#).await;
    assert_eq!(status, StatusCode::OK, "{text}");
    assert!(text.contains(&format!(r#""terminals":["{B}"]"#)), "{text}");
    assert_eq!((world.state(A).await, world.state(B).await), (TerminalState::Done, TerminalState::Waiting));
    assert_eq!(retry(r#"["lab-1"]"#).await.0, StatusCode::OK);
    let (_, report) = world.text("/api/v1/jobs/1").await;
    assert!(report.contains(&format!("{:?}", Phase::Open).to_lowercase()), "{report}");
}
