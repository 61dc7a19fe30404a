//! Old history goes at the start of the server, unless its date is in doubt. What is left can be looked up.

use super::*;
use crate::server::clock::Clock;
use crate::server::domain::lab::Lab;
use crate::server::store::Store;

const DAY: u64 = 24 * 3600;

/// Restarts the server on a state in which these terminals were heard that many days ago.
async fn with_strangers(strangers: &[(&str, u64)]) -> World {
    let mut world = World::new("").await;
    world.server.take().expect("running").stop().await;
    fs::remove_dir_all(world.at("state")).expect("removed");
    let (store, _, thread) = Store::open(&world.at("state")).expect("new");
    let mut lab = Lab::default();
    for (mac, days) in strangers {
        let then = Clock::start().now() - Duration::from_secs(days * DAY);
        let changes = lab.hello(then, "10.0.0.1".into(), hello_of(mac)).expect("room").1;
        store.save(changes).await.expect("written");
    }
    drop(store);
    thread.join().expect("ends");
    world.start().await;
    world
}

async fn known(world: &World) -> Vec<String> {
    let rows: Vec<TerminalView> =
        serde_json::from_str(&world.text("/api/v1/terminals").await.1).expect("rows");
    rows.into_iter().map(|row| row.id).collect()
}

#[tokio::test]
async fn a_stranger_of_more_than_a_year_ago_is_forgotten() {
    let mut world = with_strangers(&[(A, 366), (B, 3)]).await;
    for _ in 0..200 {
        if known(&world).await == [B] {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    world.restart().await;
    assert_eq!(known(&world).await, [B], "for good");
}

#[tokio::test]
async fn a_start_more_than_a_year_after_all_that_was_written_forgets_nothing_for_a_day() {
    let world = with_strangers(&[(A, 800), (B, 400)]).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(known(&world).await, [A, B]);
}

#[tokio::test]
async fn the_history_shows_attempts_without_tokens_and_the_runs_of_jobs() {
    let world = World::new("").await;
    let first = world.begin(A).await;
    world.outcome(&first, crate::testkit::lab::done()).await.expect("taken");
    world.begin(B).await;
    let second = world.begin(A).await;
    let read = async |query: &str| world.text(&format!("/api/v1/attempts{query}")).await;
    let (status, text) = read("").await;
    assert_eq!(status, StatusCode::OK, "{text}");
    for secret in [&first.token, &second.token] {
        assert!(!text.contains(secret.as_str()), "{text}");
    }
    let numbers = async |query: &str| {
        let text = read(query).await.1;
        let found: Vec<crate::api::PastAttempt> = serde_json::from_str(&text).expect(&text);
        found.into_iter().map(|past| past.attempt.number).collect::<Vec<_>>()
    };
    assert_eq!(numbers(&format!("?terminal={A}")).await, [second.attempt, first.attempt]);
    assert_eq!(numbers(&format!("?terminal={A}&limit=1")).await, [second.attempt]);
    assert_eq!(numbers("?job=1").await, [first.attempt]);
    assert_eq!(read("?limit=1001").await.0, StatusCode::BAD_REQUEST);
    assert_eq!(read("?terminal=nobody").await.0, StatusCode::NOT_FOUND);
    let (_, run) = world.text("/api/v1/jobs/1/runs/1").await;
    assert!(run.contains(r#""state":"done""#) && run.contains(A), "{run}");
    let (status, text) = world.text("/api/v1/jobs/1/runs/2").await;
    assert!(status == StatusCode::NOT_FOUND && text.contains("runs 1 to 1"), "{text}");
}
