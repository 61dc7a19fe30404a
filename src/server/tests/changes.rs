//! Viewers follow the lab by its changes.

use reqwest::header;
use serde_json::Value;

use super::*;
use crate::event::Stage;

/// What `path` answers, with its headers.
async fn get(world: &World, path: &str, headers: &[(header::HeaderName, &str)]) -> reqwest::Response {
    let mut request = world.http.get(world.url(path));
    for (name, value) in headers {
        request = request.header(name, *value);
    }
    request.send().await.expect("an answer")
}

async fn changes(world: &World, query: &str) -> Value {
    get(world, &format!("/api/v1/changes{query}"), &[]).await.json().await.expect("JSON")
}

fn version(answer: &Value) -> String {
    answer["version"].as_str().expect("a version").into()
}

#[tokio::test]
async fn a_viewer_is_told_only_what_changed_and_as_soon_as_it_did() {
    let mut world = World::new(QUIET).await;
    world.hello(A).await;
    let job = world.begin(B).await;
    let first = changes(&world, "").await;
    assert!(first["full"] == true && first["lab"]["images"].is_array(), "{first}");
    assert_eq!(
        (first["terminals"].as_array().map(Vec::len), first["jobs"][0]["id"].as_str()),
        (Some(2), Some("1"))
    );

    let (seen, fetching) = (version(&first), Progress { percent: 40.0, ..Progress::at(Stage::Fetch) });
    let query = format!("?since={seen}&wait=10");
    let waiting = changes(&world, &query);
    let reports = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        world.progress(&job, fetching).await.expect("taken");
    };
    let began = std::time::Instant::now();
    let (news, ()) = tokio::join!(waiting, reports);
    assert!(began.elapsed() < Duration::from_secs(10), "it does not wait to the end");
    assert!(news["full"] == false && news["jobs"] == serde_json::json!([]), "{news}");
    let terminals = news["terminals"].as_array().expect("a list");
    assert_eq!((terminals.len(), terminals[0]["id"].as_str()), (1, Some(B)));
    assert_eq!(terminals[0]["live"]["progress"]["percent"], 40.0);

    world.restart().await;
    let all = changes(&world, &format!("?since={seen}")).await;
    assert_eq!(all["full"], true, "a version of another run is not known");
    let bad = get(&world, "/api/v1/changes?wait=soon", &[]).await;
    assert_eq!(bad.status(), StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn a_waiting_viewer_does_not_delay_the_end_of_the_server() {
    let mut world = World::new("").await;
    let seen = version(&changes(&world, "").await);
    let waiting = world.http.get(world.url(&format!("/api/v1/changes?since={seen}&wait=10"))).send();
    let waiting = tokio::spawn(waiting);
    tokio::time::sleep(Duration::from_millis(200)).await;
    let server = world.server.take().expect("running");
    server.stop().await;
    // A viewer that is not told of the end is cut off after the grace period, before its own wait is over.
    assert_eq!(waiting.await.expect("ends").expect("an answer").status(), StatusCode::OK);
}

#[tokio::test]
async fn full_lists_have_an_etag_and_travel_compressed() {
    let world = World::new("").await;
    world.hello(A).await;
    for path in ["/api/v1/terminals", "/api/v1/lab", "/api/v1/jobs", "/api/v1/terminals?new=true"] {
        let answer = get(&world, path, &[]).await;
        let tag = answer.headers()[header::ETAG].to_str().expect("text").to_string();
        let again = get(&world, path, &[(header::IF_NONE_MATCH, &format!("\"other\", {tag}"))]).await;
        assert_eq!(again.status(), StatusCode::NOT_MODIFIED, "{path}");
        assert_eq!(again.headers()[header::ETAG].to_str().expect("text"), tag);
        let other = get(&world, path, &[(header::IF_NONE_MATCH, "W/\"0.0\"")]).await;
        assert_eq!(other.status(), StatusCode::OK, "{path}");
    }
    for path in ["/", "/api/v1/terminals", "/api/v1/changes"] {
        let answer = get(&world, path, &[(header::ACCEPT_ENCODING, "gzip")]).await;
        assert_eq!(answer.headers()[header::CONTENT_ENCODING], "gzip", "{path}");
    }
}
