//! Sends the wake-up packets that `domain::wake` decides, and tells it where the terminals are.
//!
//! Invariant: a packet that cannot be sent is logged and repeated as if it had been lost.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;

use crate::io::net::wake::{self, Sent};
use crate::server::app::App;
use crate::server::domain::lab::Terminal;
use crate::server::domain::ties::Ties;
use crate::server::domain::wake::{Due, Location, Relay, Wanted, Way};
use crate::sync;
use crate::units::Mac;

/// What left in one round.
#[derive(Debug, Default)]
pub(super) struct Round {
    pub(super) due: Due,
    /// The server's own interfaces, if one of the packets was theirs.
    pub(super) sent: Sent,
}

/// Sends what is due.
pub(super) async fn send_due(app: &App) -> Round {
    let now = app.now();
    if sync::lock(&app.waking).is_idle(now) {
        return Round::default();
    }
    // The kernel answers at once, but through system calls that may not run on the threads of all requests.
    let (own, mut problems) = match tokio::task::spawn_blocking(wake::own_networks).await {
        Ok(Ok(own)) => (own, Vec::new()),
        Ok(Err(e)) => (Vec::new(), vec![format!("listing the server's interfaces: {e}")]),
        Err(e) => (Vec::new(), vec![e.to_string()]),
    };
    let relays = relays(app, now);
    let due = sync::lock(&app.waking).due(now, &own, &relays);
    let mut by_way: BTreeMap<Option<ipnet::Ipv4Net>, Vec<Mac>> = BTreeMap::new();
    for packet in &due.packets {
        let macs = || packet.macs.iter().copied();
        match &packet.way {
            Way::Server => by_way.entry(None).or_default().extend(macs()),
            Way::Router(network) => by_way.entry(Some(*network)).or_default().extend(macs()),
            Way::Relay(_) => {}
        }
    }
    let mut sent = match tokio::task::spawn_blocking(move || send(&by_way)).await {
        Ok(sent) => sent,
        Err(e) => Sent { problems: vec![e.to_string()], ..Sent::default() },
    };
    sent.problems.append(&mut problems);
    for problem in &sent.problems {
        log::warn!("waking terminals: {problem}");
    }
    Round { due, sent }
}

fn send(by_way: &BTreeMap<Option<ipnet::Ipv4Net>, Vec<Mac>>) -> Sent {
    let mut sent = Sent::default();
    for (network, macs) in by_way {
        let result = match network {
            None => wake::send(macs),
            Some(network) => wake::send_to(*network, macs).map(|()| Sent::default()),
        };
        match result {
            Ok(mut more) => {
                sent.interfaces.append(&mut more.interfaces);
                sent.problems.append(&mut more.problems);
            }
            Err(e) => {
                let to = network.map_or_else(String::new, |network| format!("to {network}: "));
                sent.problems.push(format!("{to}{e}"));
            }
        }
    }
    sent
}

/// What it takes to wake `terminal` until then.
pub(super) fn wanted(terminal: &Terminal, ties: &Ties, until: Duration) -> Wanted {
    let (macs, location) = (terminal.identity.macs.clone(), location(terminal, ties));
    Wanted { terminal: terminal.id.clone(), macs, location, until }
}

/// The terminals at work: their reports are answered with orders each second.
fn relays(app: &App, now: Duration) -> Vec<Relay> {
    let ties = app.ties();
    let lab = sync::lock(&app.lab);
    let at_work = lab.iter().filter(|t| t.last.as_ref().is_some_and(|attempt| attempt.is_live(now)));
    at_work.map(|t| Relay { terminal: t.id.clone(), location: location(t, &ties) }).collect()
}

fn location(terminal: &Terminal, ties: &Ties) -> Location {
    let ip = terminal.ip();
    Location { address: ip.map(|ip| network(terminal, ip)), zone: ties.zone(ip) }
}

/// The address with the prefix that its card has, or with all bits if no card of the terminal has it (because
/// it is behind a router that translates addresses).
fn network(terminal: &Terminal, ip: IpAddr) -> IpNet {
    let nets = terminal.inventory.nics.iter().filter_map(|nic| nic.address.as_ref()?.parse::<IpNet>().ok());
    nets.into_iter().find(|net| net.addr() == ip).unwrap_or_else(|| ip.into())
}
