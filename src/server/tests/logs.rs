//! Attempts' logs come in, and people read them.

use super::*;
use crate::api::{MAX_LOG, MAX_PACKED_LOG, TOKEN_HEADER};
use crate::testkit::lab::done;

impl World {
    /// Hands over a log for this attempt.
    async fn log(&self, attempt: u64, token: &str, packed: Vec<u8>) -> StatusCode {
        let url = self.url(&format!("/api/v1/attempts/{attempt}/log"));
        let call = self.http.post(url).header(TOKEN_HEADER, token).body(packed);
        call.send().await.expect("an answer").status()
    }
}

fn pack(text: &str) -> Vec<u8> {
    zstd::bulk::compress(text.as_bytes(), 3).expect("packed")
}

#[tokio::test]
async fn a_log_is_read_by_people_as_it_came_last_also_after_a_restart() {
    let mut world = World::new(QUIET).await;
    let job = world.begin(A).await;
    let path = format!("/api/v1/attempts/{}/log", job.attempt);
    assert_eq!(world.text(&path).await.0, StatusCode::NOT_FOUND);
    assert_eq!(world.log(job.attempt, &job.token, pack("early\n")).await, StatusCode::NO_CONTENT);
    world.outcome(&job, done()).await.expect("taken");
    assert_eq!(world.log(job.attempt, &job.token, pack("late\x1b[2J\n")).await, StatusCode::NO_CONTENT);
    for _ in 0..2 {
        let (status, text) = world.text(&path).await;
        assert_eq!(status, StatusCode::OK);
        assert!(text.starts_with(&format!("# attempt {} of {A}, as of 20", job.attempt)), "{text}");
        assert!(text.ends_with("Z\nlate[2J\n"), "{text}");
        world.restart().await;
    }
    assert_eq!(world.text(&format!("{path}?terminal={A}")).await.0, StatusCode::OK);
    world.hello(B).await;
    let (status, text) = world.text(&format!("{path}?terminal={B}")).await;
    assert!(status == StatusCode::NOT_FOUND && text.contains("there is no log of attempt"), "{text}");
}

#[tokio::test]
async fn nobody_hands_over_the_log_of_another_terminals_attempt() {
    let world = World::new(QUIET).await;
    let (one, other) = (world.begin(A).await, world.begin(B).await);
    for token in ["", "x", &other.token] {
        assert_eq!(world.log(one.attempt, token, pack("forged")).await, StatusCode::FORBIDDEN, "{token}");
    }
    assert_eq!(world.log(99, &one.token, pack("forged")).await, StatusCode::NOT_FOUND);
    let (status, text) = world.text(&format!("/api/v1/attempts/{}/log", one.attempt)).await;
    assert_eq!(status, StatusCode::NOT_FOUND, "{text}");
}

#[tokio::test]
async fn a_log_that_is_too_long_or_damaged_is_refused_and_the_one_before_stays() {
    let world = World::new(QUIET).await;
    let job = world.begin(A).await;
    assert_eq!(world.log(job.attempt, &job.token, pack("good\n")).await, StatusCode::NO_CONTENT);
    let bomb = pack(&"a".repeat(64 << 20));
    assert!(bomb.len() < MAX_PACKED_LOG);
    for (packed, status) in [
        (bomb, StatusCode::UNPROCESSABLE_ENTITY),
        (pack(&"a".repeat(MAX_LOG + 1)), StatusCode::UNPROCESSABLE_ENTITY),
        (b"no frame".to_vec(), StatusCode::UNPROCESSABLE_ENTITY),
        (vec![0; MAX_PACKED_LOG + 1], StatusCode::UNPROCESSABLE_ENTITY),
        (vec![0; 10 << 20], StatusCode::PAYLOAD_TOO_LARGE),
    ] {
        let bytes = packed.len();
        assert_eq!(world.log(job.attempt, &job.token, packed).await, status, "{bytes} bytes");
    }
    assert!(world.text(&format!("/api/v1/attempts/{}/log", job.attempt)).await.1.ends_with("good\n"));
}
