//! Preflights: terminals are looked at, and stay what they were.

use super::*;
use crate::api::TerminalDetails;
use crate::event::CheckFinding;
use crate::server::domain::jobs::{Report, State};
use crate::testkit::lab::{checked, done};

const KNOWS: fn() -> Take = || Take { preflight: true, ..Take::default() };

impl World {
    /// A person wants the terminal with this MAC to be looked at.
    async fn order_preflight(&self, mac: &str) {
        let targets = vec![mac.into()];
        let order = JobOrder { image: "golden".into(), targets, preflight: true, ..JobOrder::default() };
        let answer = self.http.post(self.url("/api/v1/jobs")).json(&order).send().await.expect("an answer");
        assert_eq!(answer.status(), StatusCode::CREATED, "{:?}", answer.text().await);
    }

    async fn report(&self, job: u64) -> Report {
        let text = self.text(&format!("/api/v1/jobs/{job}")).await.1;
        serde_json::from_str(&text).expect("a report")
    }

    async fn details(&self, terminal: &str) -> TerminalDetails {
        serde_json::from_str(&self.text(&format!("/api/v1/terminals/{terminal}")).await.1).expect("details")
    }
}

#[tokio::test]
async fn an_agent_that_does_not_know_preflights_is_refused_and_boots_back() {
    let world = World::new(QUIET).await;
    let terminal = world.hello(A).await;
    world.order_preflight(A).await;
    let old = serde_json::json!({"job": null, "image": null});
    let url = world.url(&format!("/api/v1/terminals/{terminal}/take"));
    let answer = world.http.post(url).json(&old).send().await.expect("an answer");
    assert_eq!(answer.status(), StatusCode::CONFLICT);
    let text = answer.text().await.expect("a refusal");
    assert!(text.contains("too old for a preflight") && text.contains("flashmob-initramfs"), "{text}");
    let member = world.report(1).await.terminals.remove(0);
    assert!(member.state == State::Failed && member.reason.contains("too old"), "{member:?}");
    assert_eq!(world.details(A).await.attempt, None, "there was no attempt");
    assert!(!world.ipxe(A, "pcbios").await.contains("/boot/vmlinuz"), "by day nobody is held");
    assert_eq!(world.take(&terminal, Take::default()).await, Err(StatusCode::NO_CONTENT));
}

#[tokio::test]
async fn a_preflight_changes_nothing_and_a_job_with_images_still_waits() {
    let mut world = World::new(QUIET).await;
    let imaged = world.begin(A).await;
    assert!(!imaged.preflight);
    world.outcome(&imaged, done()).await.expect("taken");
    let before = world.details(A).await.installed;
    assert_eq!(before.len(), 1);

    world.order_preflight(A).await;
    world.order(A).await;
    let look = world.take(A, KNOWS()).await.expect("work waits");
    assert!(look.preflight && look.date.is_some() && look.task.ticket.is_none(), "it fetches no payload");
    let finding = CheckFinding::warning("the link of eth0 has 100 Mbit/s", "Replace the cable.");
    let outcome = checked(vec![finding.clone()]);
    assert_eq!(
        world.outcome(&look, outcome.clone()).await,
        Ok(Orders { release: true, ..Orders::default() })
    );
    world.restart().await;
    let member = world.report(2).await.terminals.remove(0);
    assert_eq!((member.state, member.reason), (State::Done, finding.what.clone()));
    assert_eq!(member.findings, [finding]);
    let details = world.details(A).await;
    assert_eq!((details.installed, details.half_written), (before, false));
    assert_eq!(details.row.outcome, Some(outcome));
    assert_eq!(world.state(A).await, TerminalState::Waiting, "for the job with images");
    let next = world.take(A, KNOWS()).await.expect("work waits");
    assert_eq!((next.job.as_str(), next.preflight), ("3", false));
    let metrics = world.until("/metrics", "result=\"checked\"} 1").await;
    assert!(metrics.contains("result=\"done\"} 1"), "{metrics}");
}

#[tokio::test]
async fn a_person_at_the_terminal_gets_the_image_and_no_preflight() {
    let world = World::new(QUIET).await;
    let terminal = world.hello(A).await;
    world.order_preflight(A).await;
    let take = Take { image: Some("golden".into()), ..KNOWS() };
    assert!(!world.take(&terminal, take).await.expect("work").preflight);
}

#[tokio::test]
async fn a_preflight_boots_back_and_nothing_else() {
    let world = World::new(QUIET).await;
    world.hello(A).await;
    let order =
        serde_json::json!({"image": "golden", "targets": [A], "preflight": true, "after": "poweroff"});
    let answer = world.http.post(world.url("/api/v1/jobs")).json(&order).send().await.expect("an answer");
    let text = answer.text().await.expect("a refusal");
    assert!(text.contains("a preflight boots back"), "{text}");
}
