//! Limits: what one address sends never keeps the server from the terminals of others.

use std::net::{IpAddr, Ipv4Addr};

use futures_util::{StreamExt, stream};
use reqwest::Response;

use super::*;
use crate::event::Stage;

const C: &str = "52:54:00:00:00:0c";
const FEW: &str = "[limits]\nnew_terminals=60\nnew_terminals_per_minute=1200\nrequests_per_second=20\n";
/// Ten requests at once, and the next after a second: no machine is too slow to ask too much.
const SLOW: &str = "[limits]\nnew_terminals=60\nrequests_per_second=1\n";

/// A client with another address of this machine.
fn at_address(last: u8) -> Client {
    let address = IpAddr::V4(Ipv4Addr::new(127, 0, 0, last));
    Client::builder().no_proxy().local_address(address).build().expect("client")
}

async fn hello_from(world: &World, client: &Client, mac: &str) -> Response {
    client.post(world.url("/api/v1/hello")).json(&hello_of(mac)).send().await.expect("an answer")
}

/// How many of `count` invented terminals register.
async fn invent(world: &World, client: &Client, count: u32) -> usize {
    let hellos = stream::iter(0..count).map(|n| async move {
        let [_, a, b, c] = n.to_be_bytes();
        hello_from(world, client, &format!("02:66:00:{a:02x}:{b:02x}:{c:02x}")).await.status()
    });
    let answers: Vec<StatusCode> = hellos.buffer_unordered(16).collect().await;
    let good = answers.iter().filter(|status| status.is_success()).count();
    let refused = answers.iter().filter(|status| **status == StatusCode::TOO_MANY_REQUESTS).count();
    assert_eq!(good + refused, answers.len(), "nothing else is answered");
    good
}

#[tokio::test]
async fn ten_thousand_invented_terminals_disturb_no_known_and_no_new_one() {
    let world = World::new(&format!("{QUIET}{FEW}")).await;
    let job = world.begin(A).await;
    let (room, laptop) = (at_address(10), at_address(66));
    for n in 0..59 {
        let answer = hello_from(&world, &room, &format!("52:54:00:00:01:{n:02x}")).await;
        assert_eq!(answer.status(), StatusCode::OK, "machine {n} behind one relay");
    }
    let registered = invent(&world, &laptop, 10_000).await;
    assert!((60..5000).contains(&registered), "{registered}");

    // A known terminal reports, says hello again and ends, even behind the laptop's own address.
    world.progress(&job, Progress::at(Stage::Fetch)).await.expect("taken");
    assert_eq!(hello_from(&world, &laptop, A).await.status(), StatusCode::OK);
    let report =
        ProgressReport { token: job.token.clone(), progress: Progress::at(Stage::Verify), chosen: vec![] };
    let path = world.url(&format!("/api/v1/attempts/{}/progress", job.attempt));
    let answer = laptop.post(path).json(&report).send().await.expect("an answer");
    assert_eq!(answer.status(), StatusCode::OK);
    world.outcome(&job, crate::testkit::lab::done()).await.expect("taken");

    // A real new one registers from another address at once, and from the laptop's after the wait it is told.
    assert_eq!(hello_from(&world, &room, B).await.status(), StatusCode::OK);
    for _ in 0..100 {
        let answer = hello_from(&world, &laptop, C).await;
        if answer.status() == StatusCode::OK {
            return;
        }
        let wait: u64 = answer.headers()["retry-after"].to_str().expect("text").parse().expect("seconds");
        let refusal: crate::api::Refusal = answer.json().await.expect("a refusal");
        assert!(refusal.error.contains("127.0.0.66"), "{refusal:?}");
        assert!(refusal.advice.contains("Try again in 1 s") && refusal.advice.contains("new_terminals"));
        tokio::time::sleep(Duration::from_secs(wait)).await;
    }
    panic!("it never registered");
}

#[tokio::test]
async fn an_address_that_asks_too_much_is_told_to_wait_and_others_are_not() {
    let world = World::new(&format!("{QUIET}{SLOW}")).await;
    let job = world.begin(A).await;
    let laptop = at_address(66);
    let ask = |path: &str| {
        let request = laptop.get(world.url(path));
        async move { request.send().await.expect("an answer").status() }
    };
    let mut answers = Vec::new();
    for _ in 0..300 {
        answers.push(ask("/api/v1/terminals").await);
    }
    assert!(answers[..10].iter().all(|status| *status == StatusCode::OK));
    assert!(answers.contains(&StatusCode::TOO_MANY_REQUESTS));
    // Guesses at others' attempts count as well.
    let guess = ProgressReport { token: "no".into(), progress: Progress::at(Stage::Fetch), chosen: vec![] };
    let path = world.url(&format!("/api/v1/attempts/{}/progress", job.attempt));
    let mut guesses = Vec::new();
    for _ in 0..300 {
        guesses.push(laptop.post(&path).json(&guess).send().await.expect("an answer").status());
    }
    assert!(guesses.contains(&StatusCode::TOO_MANY_REQUESTS) && !guesses.contains(&StatusCode::OK));
    assert_eq!(world.state(A).await, TerminalState::Imaging);
    world.progress(&job, Progress::at(Stage::Fetch)).await.expect("taken");
    assert!(world.ipxe(A, "efi").await.starts_with("#!ipxe"), "boot scripts are not counted");
}

#[tokio::test]
async fn a_terminal_that_registered_itself_is_counted_until_a_person_registers_it() {
    for register in ["ask", "open"] {
        let mut world = World::new(&format!("register='{register}'\n{QUIET}{SLOW}")).await;
        world.open_abroad().await;
        let hello = async |secret: Option<&str>| {
            let request = world.http.post(world.abroad("/api/v1/hello")).json(&hello_of(C));
            let request = secret.into_iter().fold(request, |request, secret| request.bearer_auth(secret));
            request.send().await.expect("an answer")
        };
        let welcome: Welcome = hello(None).await.json().await.expect("welcome");
        let secret = welcome.secret.expect("new");
        let take = async || {
            let request = world.http.post(world.abroad(&format!("/api/v1/terminals/{C}/take")));
            request.bearer_auth(&secret).json(&Take::default()).send().await.expect("an answer").status()
        };
        let mut answers = Vec::new();
        for _ in 0..300 {
            answers.push(hello(Some(&secret)).await.status());
        }
        assert!(answers[..10].iter().all(|status| *status == StatusCode::OK), "{register}");
        assert!(answers[10..].contains(&StatusCode::TOO_MANY_REQUESTS), "{register}");
        let mut takes = Vec::new();
        for _ in 0..20 {
            takes.push(take().await);
        }
        assert!(takes.contains(&StatusCode::TOO_MANY_REQUESTS), "{register}: {takes:?}");
        world.order(C).await;
        for _ in 0..50 {
            assert_eq!(hello(Some(&secret)).await.status(), StatusCode::OK, "it has a job now");
        }
        assert_eq!(take().await, StatusCode::OK);
    }
}

#[tokio::test]
async fn boot_scripts_in_the_names_of_others_keep_no_terminal_from_its_turn() {
    let world = World::new(QUIET).await;
    let sleepers: Vec<String> = (0..8).map(|n| format!("52:54:00:00:02:{n:02x}")).collect();
    for mac in sleepers.iter().map(String::as_str).chain([A, B]) {
        world.hello(mac).await;
    }
    let order = JobOrder {
        image: "golden".into(),
        targets: sleepers.iter().cloned().chain([A.into(), B.into()]).collect(),
        wave: Some(2),
        ..JobOrder::default()
    };
    let answer = world.http.post(world.url("/api/v1/jobs")).json(&order).send().await.expect("an answer");
    assert_eq!(answer.status(), StatusCode::CREATED);
    let (laptop, room) = (at_address(66), at_address(10));
    let ask = async |client: &Client, path: &str, mac: &str| {
        let answer = client.get(world.url(&format!("/boot/{path}?mac={mac}"))).send().await;
        answer.expect("an answer").text().await.expect("text")
    };
    for path in ["ipxe", "grub", "step"] {
        for mac in &sleepers {
            ask(&laptop, path, mac).await;
        }
    }
    let script = ask(&room, "ipxe", A).await;
    assert!(script.contains("flashmob.ticket="), "{script}");
    let script = ask(&room, "ipxe", B).await;
    assert!(script.contains("2 terminals at a time"), "A and the laptop's last one are on the way: {script}");
}
