//! Who may speak: what callers on other machines may do.

use reqwest::RequestBuilder;

use super::*;
use crate::api::Refusal;
use crate::io::net::api_client::{Api, CallError, Taken};
use crate::io::net::credentials::Credentials;

/// A server with a port for callers on other machines.
async fn abroad(config: &str) -> World {
    let mut world = World::new(config).await;
    world.open_abroad().await;
    world
}

/// The ticket in a boot script.
pub(super) fn ticket_in(script: &str) -> String {
    let (_, rest) = script.split_once("flashmob.ticket=").expect("a ticket");
    rest.split(' ').next().expect("a word").to_string()
}

/// A netbooted agent that has this ticket.
fn agent(world: &World, ticket: Option<String>) -> Api {
    let base = world.abroad("");
    let ticket = ticket.map(|ticket| (base.clone(), ticket));
    let client = Client::builder().no_proxy().build().expect("client");
    Api::new(client, base).with(Credentials::of_terminal(ticket, None))
}

async fn hello(api: &Api, mac: &str) -> Result<String, CallError> {
    api.hello(&hello_of(mac), Duration::from_secs(10)).await.map(|welcome| welcome.terminal)
}

async fn refused(request: RequestBuilder) -> (StatusCode, Refusal) {
    let answer = request.send().await.expect("an answer");
    (answer.status(), answer.json().await.expect("a refusal"))
}

#[tokio::test]
async fn a_netbooted_terminal_speaks_by_the_ticket_of_its_boot_script() {
    let mut world = abroad(FOR_ALL).await;
    let ticket = ticket_in(&world.ipxe(A, "efi").await);
    // The server may be restarted between the script and the agent's first call, and after it.
    world.restart().await;
    let api = agent(&world, Some(ticket.clone()));
    let terminal = hello(&api, A).await.expect("admitted");
    assert_eq!(hello(&api, A).await.as_ref(), Ok(&terminal), "again by its secret");
    let Ok(Taken::Job(job)) = api.take(&terminal, &Take::default()).await else { panic!("no work") };

    let again = hello(&agent(&world, Some(ticket)), A).await.expect_err("the ticket was used");
    assert!(again.to_string().contains("was used before"), "{again}");
    let none = hello(&agent(&world, None), A).await.expect_err("known");
    let CallError::Refused(none) = none else { panic!("{none}") };
    assert!(none.status == 401 && none.advice.contains("flashmob terminal admit"), "{none:?}");
    let thief = ticket_in(&world.ipxe(A, "efi").await);
    let thief = agent(&world, Some(thief));
    assert!(matches!(hello_once(&thief).await, Err(CallError::Busy { .. })), "while the terminal works");
    world.progress(&job, Progress::at(crate::event::Stage::Fetch)).await.expect("it still reports");

    let wrong = agent(&world, None);
    assert!(matches!(wrong.take(&terminal, &Take::default()).await, Err(CallError::Refused(_))));
}

async fn hello_once(api: &Api) -> Result<String, CallError> {
    hello(api, A).await
}

#[tokio::test]
async fn a_new_terminal_needs_no_ticket_and_a_known_one_from_a_stick_a_persons_word() {
    let world = abroad(FOR_ALL).await;
    assert_eq!(hello(&agent(&world, None), A).await.as_deref(), Ok(A));
    let second_start = agent(&world, None);
    assert!(hello(&second_start, A).await.is_err());
    let url = world.abroad(&format!("/api/v1/terminals/{A}/admit"));
    assert_eq!(refused(world.http.post(url)).await.0, StatusCode::FORBIDDEN);
    assert_eq!(world.decide(A, "admit").await, StatusCode::NO_CONTENT);
    assert_eq!(hello(&second_start, A).await.as_deref(), Ok(A));
    assert!(matches!(second_start.take(A, &Take::default()).await, Ok(Taken::Job(_))));
}

#[tokio::test]
async fn a_refused_hello_changes_nothing() {
    let world = abroad(FOR_ALL).await;
    let job = world.begin(A).await;
    let before = world.text("/api/v1/terminals").await.1;
    let mut lie = hello_of(A);
    lie.inventory.machine = "another".into();
    lie.macs.push(B.into());
    for scheme in ["Bearer ", "Ticket ", "Basic "] {
        let request = world.http.post(world.abroad("/api/v1/hello")).json(&lie);
        let (status, refusal) = refused(request.header("Authorization", format!("{scheme}0f"))).await;
        assert_eq!(status, StatusCode::UNAUTHORIZED, "{refusal:?}");
    }
    assert_eq!(world.text("/api/v1/terminals").await.1, before);
    world.progress(&job, Progress::at(crate::event::Stage::Fetch)).await.expect("taken");
}
