//! A database that cannot be written for a while.

use super::*;
use crate::testkit::lab::done;

/// Makes the database read-only, or writable again.
fn read_only(world: &World, on: bool) {
    let store = &world.server.as_ref().expect("running").app().store;
    store.run(move |connection| connection.pragma_update(None, "query_only", on).expect("set"));
}

#[tokio::test]
async fn what_was_done_while_the_database_could_not_be_written_survives_the_next_restart() {
    let mut world = World::new(QUIET).await;
    let job = world.begin(A).await;
    world.hello(B).await;
    read_only(&world, true);
    for _ in 0..2 {
        let answer = world.outcome(&job, done()).await;
        assert_eq!(answer.err(), Some(StatusCode::SERVICE_UNAVAILABLE), "it is not on the disk");
    }
    let order = JobOrder { image: "golden".into(), targets: vec![B.into()], ..JobOrder::default() };
    let answer = world.http.post(world.url("/api/v1/jobs")).json(&order).send().await.expect("an answer");
    assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
    let text = answer.text().await.expect("text");
    assert!(text.contains("in force all the same"), "{text}");
    let (_, page) = world.text("/api/v1/lab").await;
    assert!(page.contains("in the server's memory only"), "{page}");
    let (_, metrics) = world.text("/metrics").await;
    let value = |name: &str| metrics.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    assert_ne!(value("flashmob_database_unwritten_changes"), Some("0"), "{metrics}");
    assert_eq!(value("flashmob_database_lost_changes_total"), Some("0"));

    read_only(&world, false);
    world.outcome(&job, done()).await.expect("on the disk now");
    let (_, page) = world.text("/api/v1/lab").await;
    assert!(!page.contains("in the server's memory only"), "{page}");
    let (_, jobs) = world.text("/api/v1/jobs").await;
    world.restart().await;
    assert_eq!(world.row(A).await.state, TerminalState::Done);
    assert_eq!(world.text("/api/v1/jobs").await.1, jobs);
}
