//! Leases got, kept, lost and taken away, against a server made of messages.

use super::*;
use crate::lan::dhcp_message::tests::{answer, sample};

const MAC: [u8; 6] = [2, 0, 0, 0, 0, 9];

fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn drain(client: &mut Client) -> Vec<Output> {
    std::iter::from_fn(|| client.poll()).collect()
}

fn sent(client: &mut Client) -> Vec<u8> {
    match drain(client).pop() {
        Some(Output::Broadcast(bytes) | Output::Unicast(_, bytes)) => bytes,
        other => panic!("nothing was sent but {other:?}"),
    }
}

/// The message's type: 1 is DISCOVER, 3 is REQUEST.
fn kind(bytes: &[u8]) -> u8 {
    let at = bytes.windows(2).skip(240).position(|w| w == [53, 1]).unwrap();
    bytes[240 + at + 2]
}

/// A client that holds `offer` since the time 0.
fn bound(offer: &Offer) -> Client {
    let mut client = Client::new(MAC, 1, at(0));
    let discover = sent(&mut client);
    client.receive(at(0), &answer(MessageType::Offer, &discover, offer));
    let request = sent(&mut client);
    client.receive(at(0), &answer(MessageType::Ack, &request, offer));
    assert_eq!(drain(&mut client), [Output::Bound(Box::new(offer.clone()))]);
    client
}

#[test]
fn it_asks_for_minutes_and_still_takes_the_first_answer() {
    let mut client = Client::new(MAC, 42, at(0));
    let mut now = at(0);
    let mut discovers = vec![sent(&mut client)];
    while now < at(300) {
        let next = client.deadline().unwrap();
        assert!(next > now && next - now <= SLOWEST, "pause of {:?}", next - now);
        now = next;
        client.tick(now);
        discovers.push(sent(&mut client));
    }
    assert!(discovers.len() > 300 / 8, "asked only {} times", discovers.len());
    client.receive(now, &answer(MessageType::Offer, discovers.last().unwrap(), &sample()));
    let request = sent(&mut client);
    client.receive(now, &answer(MessageType::Ack, &request, &sample()));
    assert_eq!(drain(&mut client), [Output::Bound(Box::new(sample()))]);
}

#[test]
fn a_lost_acknowledgement_is_asked_for_again_and_then_all_begins_anew() {
    let mut client = Client::new(MAC, 1, at(0));
    let discover = sent(&mut client);
    client.receive(at(1), &answer(MessageType::Offer, &discover, &sample()));
    let mut kinds = Vec::new();
    for _ in 0..=REQUESTS {
        let bytes = sent(&mut client);
        kinds.push(kind(&bytes));
        let deadline = client.deadline().unwrap();
        client.tick(deadline);
    }
    assert_eq!(kinds, [3, 3, 3, 3, 1], "four REQUESTs, then a DISCOVER");
}

#[test]
fn a_refusal_begins_anew_with_another_transaction() {
    let mut client = Client::new(MAC, 1, at(0));
    let discover = sent(&mut client);
    client.receive(at(1), &answer(MessageType::Offer, &discover, &sample()));
    let request = sent(&mut client);
    client.receive(at(2), &answer(MessageType::Nak, &request, &sample()));
    let again = sent(&mut client);
    assert_eq!(kind(&again), 1, "a DISCOVER");
    assert_ne!(again[4..8], discover[4..8], "transaction numbers differ");
}

#[test]
fn a_lease_is_renewed_with_its_server_then_with_any_then_given_up() {
    let mut client = bound(&sample());
    assert_eq!(client.deadline(), Some(at(300)));
    client.tick(at(299));
    assert_eq!(drain(&mut client), []);
    client.tick(at(300));
    let first = drain(&mut client);
    let Some(Output::Unicast(server, bytes)) = first.first() else { panic!("no renewal: {first:?}") };
    assert_eq!(Some(*server), sample().server);
    assert_eq!(bytes[12..16], sample().address.octets(), "ciaddr");
    let mut broadcasts = 0;
    let mut now = at(300);
    loop {
        let deadline = client.deadline().unwrap();
        assert!(deadline > now && deadline <= at(600));
        now = deadline;
        client.tick(now);
        match drain(&mut client).first().unwrap() {
            Output::Unicast(..) => assert!(now < at(500)),
            Output::Broadcast(_) => {
                broadcasts += 1;
                assert!(now >= at(500));
            }
            Output::Lost(address) => {
                assert_eq!((now, *address), (at(600), sample().address));
                break;
            }
            Output::Bound(_) => panic!("bound without an answer"),
        }
    }
    assert!(broadcasts > 0);
}

#[test]
fn a_server_that_wants_renewals_at_once_is_not_flooded() {
    for (renew, rebind) in [(Some(0), Some(0)), (Some(1), Some(500)), (None, Some(0))] {
        let client = bound(&Offer { renew, rebind, ..sample() });
        assert!(client.deadline().is_some_and(|due| due >= at(u64::from(SHORTEST_LEASE / 2))), "{renew:?}");
    }
}

#[test]
fn a_renewed_lease_keeps_what_the_renewal_leaves_out() {
    let mut client = bound(&sample());
    client.tick(at(300));
    let request = sent(&mut client);
    let ack = Offer { flashmob: None, next_server: None, ..sample() };
    client.receive(at(301), &answer(MessageType::Ack, &request, &ack));
    assert_eq!(drain(&mut client), [Output::Bound(Box::new(sample()))]);
    assert_eq!(client.deadline(), Some(at(601)));
}

#[test]
fn another_address_in_a_renewal_replaces_the_old_one() {
    let mut client = bound(&sample());
    client.tick(at(300));
    let request = sent(&mut client);
    let other = Offer { address: Ipv4Addr::new(10, 7, 0, 77), ..sample() };
    client.receive(at(301), &answer(MessageType::Ack, &request, &other));
    assert_eq!(drain(&mut client), [Output::Lost(sample().address), Output::Bound(Box::new(other))]);
}

#[test]
fn a_cable_that_was_out_confirms_the_address_and_a_refusal_gives_it_up() {
    let mut client = bound(&sample());
    client.link_back(at(10));
    let request = sent(&mut client);
    assert_eq!(kind(&request), 3);
    client.receive(at(10), &answer(MessageType::Nak, &request, &sample()));
    assert_eq!(drain(&mut client)[0], Output::Lost(sample().address));
}

#[test]
fn after_a_cable_was_out_the_question_is_repeated_soon_until_an_answer() {
    let mut client = bound(&Offer { lease: Some(3600), renew: None, rebind: None, ..sample() });
    client.link_back(at(10));
    let (mut now, mut requests) = (at(10), 0);
    while now < at(50) {
        let outputs = drain(&mut client);
        assert!(matches!(&outputs[..], [Output::Broadcast(bytes)] if kind(bytes) == 3), "{outputs:?}");
        let next = client.deadline().unwrap();
        assert!(next > now && next - now <= SLOWEST, "pause of {:?}", next - now);
        requests += 1;
        now = next;
        client.tick(now);
    }
    assert!((6..=9).contains(&requests), "asked {requests} times in 40 s");
    let request = sent(&mut client);
    client.receive(now, &answer(MessageType::Ack, &request, &sample()));
    drain(&mut client);
    let renewal = client.deadline().unwrap();
    client.tick(renewal);
    let pause = client.deadline().unwrap() - renewal;
    assert!(pause >= RENEW_AGAIN, "a renewal that gets no answer is repeated after {pause:?}");
}

#[test]
fn an_endless_lease_is_never_renewed() {
    let client = bound(&Offer { lease: Some(u32::MAX), ..sample() });
    assert_eq!(client.deadline(), None);
}
