//! Notices are posted to the configured addresses.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::http::HeaderMap;
use axum::routing::post;

use super::*;
use crate::event::Class;
use crate::testkit::lab::failed;

/// A receiver that is busy at the first post.
struct Receiver {
    address: SocketAddr,
    got: Arc<Mutex<Vec<(String, serde_json::Value)>>>,
    _server: tokio::task::JoinHandle<()>,
}

impl Receiver {
    async fn start() -> Receiver {
        let got: Arc<Mutex<Vec<_>>> = Arc::default();
        let busy = Arc::new(Mutex::new(true));
        let kept = Arc::clone(&got);
        let take = move |headers: HeaderMap, body: Bytes| async move {
            if std::mem::take(&mut *busy.lock().expect("lock")) {
                return StatusCode::SERVICE_UNAVAILABLE;
            }
            let token = headers.get("authorization").map(|v| v.to_str().expect("text").to_string());
            let body = serde_json::from_slice(&body).expect("JSON");
            kept.lock().expect("lock").push((token.unwrap_or_default(), body));
            StatusCode::NO_CONTENT
        };
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let app = Router::new().route("/hook", post(take));
        let server = tokio::spawn(async move { axum::serve(listener, app).await.expect("serves") });
        Receiver { address, got, _server: server }
    }
}

#[tokio::test]
async fn a_failed_terminal_and_the_end_of_its_job_are_posted_although_the_receiver_was_busy() {
    let receiver = Receiver::start().await;
    let token = tempfile::NamedTempFile::new().expect("temp");
    fs::write(token.path(), "hush\n").expect("written");
    let config = format!(
        "[[webhook]]\nurl = 'http://{}/hook'\non = ['terminal-failed', 'job-done']\ntoken_file = '{}'\n",
        receiver.address,
        token.path().display()
    );
    let world = World::new(&config).await;
    // What is so at the server's first look is not news.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let assignment = world.begin(A).await;
    world.outcome(&assignment, failed(Class::Refused, false)).await.expect("taken");
    for _ in 0..300 {
        if receiver.got.lock().expect("lock").len() >= 2 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let got = receiver.got.lock().expect("lock").clone();
    let [(token, first), (_, second)] = got.as_slice() else { panic!("{got:?}") };
    assert_eq!(token, "Bearer hush");
    assert_eq!((&first["event"], &first["state"]), (&"terminal-failed".into(), &"failed".into()));
    assert!(first["text"].as_str().expect("text").contains("writing sda failed"), "{first}");
    assert_eq!((&second["event"], &second["counts"]["failed"]), (&"job-done".into(), &1.into()));
}
