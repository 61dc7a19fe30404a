//! A terminal with two cards, of which only one leads to the server.

use flashmob::agent::network::{self, Interfaces};
use flashmob::agent::status::Status;
use tokio::sync::watch;

use crate::lab::{Lab, one_round};

async fn both_have_leases(interfaces: &mut watch::Receiver<Interfaces>, status: &Status) {
    let there = |all: &Interfaces| all.len() == 2 && all.iter().all(|i| i.lease.is_some());
    let waited = tokio::time::timeout(std::time::Duration::from_secs(30), interfaces.wait_for(there)).await;
    assert!(waited.is_ok(), "{:?}", status.view());
}

/// The card through which the terminal sends to `address`.
fn card_towards(lab: &Lab, address: &str) -> String {
    let route = lab.terminal_ip(&format!("route get {address}"));
    route.split_once("dev ").and_then(|(_, rest)| rest.split(' ').next()).unwrap_or_default().to_owned()
}

#[test]
fn a_server_behind_the_second_cards_router_is_looked_for_through_it() {
    let lab = Lab::new();
    lab.second_card("10.79.0.1");
    lab.dnsmasq(&["--interface=eth1", "--dhcp-range=10.79.0.50,10.79.0.60,255.255.255.0,2m"]);
    let status = Status::new();
    lab.at_terminal(async || {
        let (rounds, round) = watch::channel(0);
        let mut interfaces = network::start(None, status.clone(), lab.resolvers(), round).unwrap();
        both_have_leases(&mut interfaces, &status).await;
        assert_eq!(card_towards(&lab, "10.99.0.1"), "eth0");
        for card in ["eth1", "eth0", "eth1"] {
            let notes = status.view().notes_said;
            rounds.send_modify(|round| *round += 1);
            while status.view().notes_said == notes {
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
            assert_eq!(card_towards(&lab, "10.99.0.1"), card, "{:?}", status.view().notes);
        }
        assert_eq!(card_towards(&lab, "10.77.0.1"), "eth0", "its own network stays behind the first one");
    });
}

#[test]
fn a_pulled_cables_network_does_not_hide_the_same_network_at_the_second_card() {
    let lab = Lab::new();
    lab.second_card("10.77.0.2");
    lab.dnsmasq(&["--interface=eth1"]);
    let status = Status::new();
    lab.at_terminal(async || {
        let mut interfaces = network::start(None, status.clone(), lab.resolvers(), one_round()).unwrap();
        both_have_leases(&mut interfaces, &status).await;
        let (used, other, server) = match &*card_towards(&lab, "10.77.0.9") {
            "eth0" => ("eth0", "eth1", "10.77.0.2"),
            _ => ("eth1", "eth0", "10.77.0.1"),
        };
        lab.pull(used);
        // The kernel marks the routes up to a second after the interface.
        while card_towards(&lab, server) != other {
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
    });
}
