//! Strangers who name the network cards of other machines.

use super::speaking::ticket_in;
use super::*;

/// A caller on another machine says hello with these MACs.
async fn hello(world: &World, macs: &[&str], ticket: Option<&str>) -> StatusCode {
    let hello = Hello { macs: macs.iter().map(ToString::to_string).collect(), ..hello_of(A) };
    let call = world.http.post(world.abroad("/api/v1/hello")).json(&hello);
    let call = match ticket {
        Some(ticket) => call.header("Authorization", format!("Ticket {ticket}")),
        None => call,
    };
    call.send().await.expect("an answer").status()
}

async fn import(world: &World, table: String) -> StatusCode {
    let call = world.http.post(world.url("/api/v1/terminals/import")).body(table);
    call.send().await.expect("an answer").status()
}

#[tokio::test]
async fn a_stranger_brings_the_agent_to_no_machine_that_a_person_did_not_list() {
    let mut world = World::new(QUIET).await;
    world.open_abroad().await;
    let invented: Vec<String> = (1..=8).map(|n| format!("52:54:77:00:00:{n:02x}")).collect();
    let invented: Vec<&str> = invented.iter().map(String::as_str).collect();
    assert_eq!(hello(&world, &invented, None).await, StatusCode::OK);
    let listed = invented[3];
    assert_eq!(import(&world, format!("mac,label\n{listed},w-4\n")).await, StatusCode::OK);
    world.order(listed).await;
    world.restart().await;
    for mac in &invented {
        let script = world.ipxe(mac, "efi").await;
        assert_eq!(script.contains("flashmob.ticket"), *mac == listed, "{mac}: {script}");
    }

    let ticket = ticket_in(&world.ipxe(listed, "efi").await);
    assert_eq!(hello(&world, &[B, listed, A], Some(&ticket)).await, StatusCode::OK);
    world.restart().await;
    for mac in [A, B] {
        assert!(!world.ipxe(mac, "efi").await.contains("flashmob.ticket"), "{mac}");
    }
    assert_eq!(world.row(listed).await.label.as_deref(), Some("w-4"), "its card stays with it");
    assert!(world.ipxe(listed, "efi").await.contains("flashmob.ticket"));
    let rows: String = invented.iter().chain(&[A]).map(|mac| format!("{mac}\n")).collect();
    assert_eq!(import(&world, format!("mac\n{rows}")).await, StatusCode::OK);
    assert_eq!(world.row(listed).await.macs, [listed, B]);
}

#[tokio::test]
async fn a_card_that_only_a_hello_named_names_no_terminal_for_people() {
    let mut world = World::new(QUIET).await;
    world.open_abroad().await;
    assert_eq!(hello(&world, &[A, B], None).await, StatusCode::OK);
    let order = JobOrder { image: "golden".into(), targets: vec![B.into()], ..JobOrder::default() };
    let answer = world.http.post(world.url("/api/v1/jobs")).json(&order).send().await.expect("an answer");
    let text = answer.text().await.expect("text");
    assert!(text.contains(&format!("nobody has listed {B} as a card of {A}")), "{text}");
    world.order(A).await;
}
