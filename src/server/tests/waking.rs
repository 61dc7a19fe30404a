//! Terminals are woken: by the server, or by a terminal at work in their network.

use super::*;
use crate::api::{NicInfo, Woken};
use crate::event::Stage;

impl World {
    /// Says hello with a card in this network.
    async fn hello_in(&self, mac: &str, address: &str) -> String {
        let mut hello = hello_of(mac);
        let nic = NicInfo { mac: mac.into(), address: Some(address.into()), ..NicInfo::default() };
        hello.inventory.nics.push(nic);
        self.post::<Welcome>("/api/v1/hello", &hello).await.expect("welcome").terminal
    }

    async fn wake(&self, terminal: &str) -> Result<Vec<Woken>, StatusCode> {
        self.post(&format!("/api/v1/terminals/{terminal}/wake"), &()).await
    }
}

fn fetching() -> Progress {
    Progress::at(Stage::Fetch)
}

#[tokio::test]
async fn a_terminal_at_work_is_told_once_to_wake_its_neighbour() {
    let world = World::new(QUIET).await;
    // The server has no interface in 127.0.0.0/8 but loopback, and packets to there reach nobody.
    let sleeper = world.hello_in(A, "127.0.0.1/8").await;
    let worker = world.hello_in(B, "127.0.0.1/8").await;
    world.order(B).await;
    let job = world.take(&worker, Take::default()).await.expect("work waits");
    let orders = world.progress(&job, fetching()).await.expect("taken");
    assert_eq!(orders.wake, [] as [&str; 0]);

    let woken = world.wake(&sleeper).await.expect("sent");
    assert_eq!((&woken[0].relays, &woken[0].macs), (&vec![worker], &vec![A.to_string()]));
    assert_eq!(world.progress(&job, fetching()).await.expect("taken").wake, [A]);
    assert_eq!(world.progress(&job, fetching()).await.expect("taken").wake, [] as [&str; 0]);
}

#[tokio::test]
async fn a_terminal_that_cannot_be_woken_is_named_with_the_reason() {
    let world = World::new("").await;
    assert_eq!(world.wake("lab-99").await, Err(StatusCode::CONFLICT));
    world.hello_in(A, "127.0.0.1/32").await;
    world.hello_in(B, "127.0.0.1/32").await;
    let woken = world.wake("new").await.expect("an answer");
    assert_eq!(woken.len(), 2);
    for one in woken {
        assert!(one.failure.as_ref().is_some_and(|why| why.contains("another network")), "{one:?}");
    }
    let url = world.url("/api/v1/terminals/new/wake");
    let page = world.http.post(url).header("origin", "http://lab.example").send().await.expect("an answer");
    assert_eq!(page.status(), StatusCode::FORBIDDEN);
}
