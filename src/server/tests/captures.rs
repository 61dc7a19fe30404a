//! Captures over the network: the terminal lends its disk, no job begins on it, and it is released.

use super::*;
use crate::api::{CaptureState, CaptureView, Lend, LendOffer, LendOrders, LendReport, NewCapture, Watch};

const KNOWS: fn() -> Take = || Take { preflight: true, lend: true, ..Take::default() };

impl World {
    /// An administrator wants the disk of a terminal: the answer's status and text.
    async fn capture(&self, terminal: &str) -> (StatusCode, String) {
        let wanted = NewCapture { image: "debian".into(), disk: "internal".into() };
        let url = self.url(&format!("/api/v1/terminals/{terminal}/capture"));
        let answer = self.http.post(url).json(&wanted).send().await.expect("an answer");
        (answer.status(), answer.text().await.expect("text"))
    }

    async fn captured(&self, terminal: &str) -> CaptureView {
        let (status, text) = self.capture(terminal).await;
        assert_eq!(status, StatusCode::CREATED, "{text}");
        serde_json::from_str(&text).expect("a view")
    }

    async fn offered(&self, terminal: &str) -> LendOffer {
        let path = format!("/api/v1/terminals/{terminal}/take");
        self.post::<Lend>(&path, &KNOWS()).await.expect("an offer").lend
    }

    async fn lends(&self, offer: &LendOffer, export: &str) -> bool {
        let report = LendReport {
            token: offer.token.clone(),
            port: 4711,
            export: export.into(),
            disk: "sda,\u{1b}]0;x\u{7} 20 GB\n".into(),
            size: 20 << 30,
            sector_size: 512,
            read: 7,
            failure: None,
        };
        let path = format!("/api/v1/captures/{}/lending", offer.capture);
        !self.post::<LendOrders>(&path, &report).await.expect("orders").release
    }

    async fn watched(&self, number: u64, percent: Option<u8>) -> Result<CaptureView, StatusCode> {
        self.post(&format!("/api/v1/captures/{number}"), &Watch { percent }).await
    }

    async fn released(&self, number: u64) {
        let url = self.url(&format!("/api/v1/captures/{number}"));
        let answer = self.http.delete(url).send().await.expect("an answer");
        assert_eq!(answer.status(), StatusCode::NO_CONTENT);
    }
}

#[tokio::test]
async fn a_terminal_lends_its_disk_from_its_next_network_boot_until_it_is_released() {
    let world = World::new(QUIET).await;
    let terminal = world.hello(A).await;
    assert!(!world.ipxe(A, "efi").await.contains("/boot/vmlinuz"));
    let view = world.captured(A).await;
    assert_eq!((view.state, view.terminal.as_str(), view.job), (CaptureState::Waiting, &*terminal, None));
    assert!(world.row(A).await.capture.is_some_and(|text| text.contains("next network boot")));
    let script = world.ipxe(A, "efi").await;
    assert!(script.contains("/boot/vmlinuz") && script.contains("flashmob.ticket="), "{script}");

    let offer = world.offered(&terminal).await;
    assert_eq!(offer.readers, ["127.0.0.1"]);
    assert!(world.lends(&offer, "abc123").await);
    let view = world.watched(view.number, Some(41)).await.expect("it stands");
    assert_eq!(view.state, CaptureState::Lending);
    let lent = view.lent.expect("lent");
    assert_eq!((lent.url.as_str(), lent.disk.as_str()), ("nbd://127.0.0.1:4711/abc123", "sda, ]0;x  20 GB"));
    assert!(lent.code == offer.code && offer.code.len() == 6, "what its screen shows: {lent:?} {offer:?}");
    let show = world.text(&format!("/api/v1/terminals/{A}")).await.1;
    assert!(show.contains("being captured, 41 %") && !show.contains("abc123"), "{show}");
    assert!(!show.contains(&offer.code), "{show}");

    // It starts again, and lends under another name and code.
    let again = world.offered(&terminal).await;
    assert_ne!((&again.token, &again.code), (&offer.token, &offer.code));
    assert!(!world.lends(&offer, "abc123").await && world.lends(&again, "def456").await);
    world.released(view.number).await;
    assert!(!world.lends(&again, "def456").await, "it boots its own disk");
    assert!(!world.ipxe(A, "efi").await.contains("/boot/vmlinuz"));
    assert_eq!(world.watched(view.number, None).await, Err(StatusCode::NOT_FOUND));
    let audit = world.text("/api/v1/audit").await.1;
    assert!(
        audit.contains(r#""action":"capture""#) && audit.contains(r#""action":"end a capture""#),
        "{audit}"
    );
}

#[tokio::test]
async fn no_job_begins_on_a_terminal_while_it_is_captured() {
    let world = World::new(QUIET).await;
    let terminal = world.hello(A).await;
    world.order(A).await;
    let view = world.captured(A).await;
    assert!(view.job.as_ref().is_some_and(|job| job.contains("golden")), "{:?}", view.job);
    let by_hand = Take { image: Some("golden".into()), ..KNOWS() };
    assert_eq!(world.take(&terminal, by_hand).await, Err(StatusCode::CONFLICT));
    let offer = world.offered(&terminal).await;
    assert!(world.lends(&offer, "abc").await);
    world.hello(B).await;
    world.captured(B).await;
    let order =
        JobOrder { image: "golden".into(), targets: vec![B.into()], dry_run: true, ..JobOrder::default() };
    let answer = world.http.post(world.url("/api/v1/jobs")).json(&order).send().await.expect("an answer");
    let plan = answer.text().await.expect("a plan");
    assert!(plan.contains("it is captured as debian"), "{plan}");
    world.released(view.number).await;
    assert!(world.take(&terminal, KNOWS()).await.is_ok(), "the job waited");
    let (status, text) = world.capture(A).await;
    assert!(status == StatusCode::CONFLICT && text.contains("being imaged"), "{text}");
}

#[tokio::test]
async fn an_agent_that_is_too_old_to_lend_ends_the_capture_and_its_administrator_is_told() {
    let world = World::new(QUIET).await;
    let terminal = world.hello(A).await;
    let view = world.captured(A).await;
    assert_eq!(world.take(&terminal, Take::default()).await, Err(StatusCode::CONFLICT));
    let failure = world.watched(view.number, None).await.expect("it is known").failure.expect("told");
    assert!(failure.message.contains("too old to lend"), "{failure:?}");
    assert!(!world.ipxe(A, "efi").await.contains("/boot/vmlinuz"), "it boots its own disk");
}

#[tokio::test]
async fn a_strangers_report_changes_nothing_while_a_terminal_lends() {
    let world = World::new(QUIET).await;
    let terminal = world.hello(A).await;
    let view = world.captured(A).await;
    let offer = world.offered(&terminal).await;
    assert!(world.lends(&offer, "abc").await);
    let stranger = LendOffer { token: "0".repeat(32), ..offer.clone() };
    assert!(!world.lends(&stranger, "xyz").await);
    let lent = world.watched(view.number, None).await.expect("it is known").lent.expect("lent");
    assert!(lent.url.ends_with("/abc"), "{lent:?}");
}

#[tokio::test]
async fn a_terminal_that_cannot_lend_boots_its_disk_and_its_administrator_is_told() {
    let world = World::new(QUIET).await;
    let terminal = world.hello(A).await;
    let view = world.captured(A).await;
    let (status, text) = world.capture(A).await;
    assert!(status == StatusCode::CONFLICT && text.contains("captured already, as debian"), "{text}");
    let offer = world.offered(&terminal).await;
    let report = serde_json::json!({"token": offer.token, "port": 0, "export": "", "disk": "", "size": 0,
        "sector_size": 0, "read": 0, "failure":
        {"class": "refused", "message": "no disk fits", "advice": "Look."}});
    let orders: LendOrders =
        world.post(&format!("/api/v1/captures/{}/lending", offer.capture), &report).await.expect("orders");
    assert!(orders.release);
    let view = world.watched(view.number, None).await.expect("it stands");
    assert!(view.failure.is_some_and(|failure| failure.message == "no disk fits"));
    assert!(!world.ipxe(A, "pcbios").await.contains("/boot/vmlinuz"));
    assert_eq!(world.take(&terminal, KNOWS()).await, Err(StatusCode::NO_CONTENT));
}

#[tokio::test]
async fn only_an_administrator_captures() {
    let mut world = World::new(QUIET).await;
    world.open_abroad().await;
    let terminal = world.hello(A).await;
    let wanted = NewCapture { image: "debian".into(), disk: "internal".into() };
    let abroad = world.abroad(&format!("/api/v1/terminals/{A}/capture"));
    let answer = world.http.post(abroad).json(&wanted).send().await.expect("an answer");
    assert_eq!(answer.status(), StatusCode::FORBIDDEN);
    let view = world.captured(A).await;
    let offer = world.offered(&terminal).await;
    assert!(world.lends(&offer, "abc").await);
    let abroad = world.abroad(&format!("/api/v1/captures/{}", view.number));
    let answer = world.http.post(abroad).json(&Watch::default()).send().await.expect("an answer");
    assert_eq!(answer.status(), StatusCode::FORBIDDEN, "the export's name is a secret");
}

#[tokio::test]
async fn a_capture_goes_on_after_a_restart_of_the_server() {
    let mut world = World::new(QUIET).await;
    let terminal = world.hello(A).await;
    world.hello(B).await;
    let (waiting, view) = (world.captured(B).await, world.captured(A).await);
    let offer = world.offered(&terminal).await;
    assert!(world.lends(&offer, "abc").await);
    world.restart().await;
    assert_eq!(world.watched(view.number, Some(7)).await.expect("kept").state, CaptureState::Waiting);
    assert!(world.lends(&offer, "abc").await, "the same agent goes on");
    let lent = world.watched(view.number, Some(8)).await.expect("kept").lent.expect("lent");
    assert_eq!((lent.url.as_str(), &lent.code), ("nbd://127.0.0.1:4711/abc", &offer.code));
    let script = world.ipxe(B, "efi").await;
    assert!(script.contains("/boot/vmlinuz"), "the other one is still sent the agent: {script}");
    assert_eq!(world.watched(waiting.number, None).await.expect("kept").terminal, waiting.terminal);

    world.released(view.number).await;
    world.restart().await;
    assert_eq!(world.watched(view.number, None).await, Err(StatusCode::NOT_FOUND));
    assert!(!world.lends(&offer, "abc").await);
    let only = Take { only_lend: true, ..KNOWS() };
    assert_eq!(world.take(&terminal, only).await, Err(StatusCode::NO_CONTENT));
}

#[tokio::test]
async fn a_terminal_that_could_not_lend_is_not_asked_again_after_a_restart() {
    let mut world = World::new(QUIET).await;
    let terminal = world.hello(A).await;
    let view = world.captured(A).await;
    assert_eq!(world.take(&terminal, Take::default()).await, Err(StatusCode::CONFLICT));
    world.restart().await;
    let failure = world.watched(view.number, None).await.expect("kept").failure.expect("told");
    assert!(failure.message.contains("too old to lend"), "{failure:?}");
    assert!(!world.ipxe(A, "efi").await.contains("/boot/vmlinuz"), "it boots its own disk");
}
