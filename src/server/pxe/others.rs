//! Asks at this server's interfaces as a terminal would, and looks at who else answers.
//!
//! Invariant: addresses are given out only where no other server offered one.

use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::watch as channel;

use super::Setup;
use crate::api::Refusal;
use crate::io::net::interfaces::interfaces;
use crate::io::net::pxe_probe::{self, WAIT};
use crate::lan::pxe::Answer;
use crate::server::domain::pxe::others::{Place, problems, second_dhcp};
use crate::server::domain::pxe::{Plan, Watch};
use crate::sync;

const ASK_AGAIN: Duration = Duration::from_secs(600);

/// Refuses a plan that gives out addresses where another server does.
pub(super) async fn none_gives_out(plan: &Plan) -> Result<(), Refusal> {
    for interface in plan.interfaces().iter().filter(|one| plan.gives_out(one)) {
        let (own, answers) = ask(interface).await.map_err(|e| Refusal {
            error: format!("whether another DHCP server is at {interface} could not be asked: {e}"),
            advice:
                "Give the interface an address of its own (a DHCP client there keeps the port), and run this \
                     as root or with the service's capabilities (docs/netboot.md)."
                    .into(),
        })?;
        let place = Place { interface, own: &own, gives_out: true };
        if let Some(refusal) = second_dhcp(&place, &answers) {
            return Err(refusal);
        }
    }
    Ok(())
}

/// Looks again and again until `stop`.
pub(crate) async fn follow(setup: Setup, watch: Arc<Mutex<Watch>>, mut stop: channel::Receiver<bool>) {
    loop {
        // Without a plan dnsmasq does not answer either, and the problem is known.
        if let Ok(plan) = setup.plan() {
            let found = look(&plan).await;
            let mut watch = sync::lock(&watch);
            for Refusal { error, advice } in found.iter().filter(|one| !watch.others.contains(one)) {
                log::warn!("netboot: {error}. {advice}");
            }
            watch.others = found;
        }
        tokio::select! {
            () = tokio::time::sleep(ASK_AGAIN) => {}
            _ = stop.wait_for(|stop| *stop) => return,
        }
    }
}

async fn look(plan: &Plan) -> Vec<Refusal> {
    let mut found = Vec::new();
    for interface in plan.interfaces() {
        match ask(interface).await {
            Ok((own, answers)) => {
                let place = Place { interface, own: &own, gives_out: plan.gives_out(interface) };
                found.extend(problems(&place, &answers));
            }
            // A DHCP client of this machine may hold the port that answers come to.
            Err(e) => log::info!("netboot: other servers at {interface} cannot be asked for: {e}"),
        }
    }
    found
}

/// This machine's addresses at the interface, and the answers there.
async fn ask(interface: &str) -> std::io::Result<(Vec<Ipv4Addr>, Vec<Answer>)> {
    let all = interfaces()?;
    let one = all.get(interface).cloned().unwrap_or_default();
    let mac = one.mac.ok_or_else(|| std::io::Error::other("it has no MAC address"))?;
    let own = one.addresses.iter().map(ipnet::Ipv4Net::addr).collect();
    Ok((own, pxe_probe::answers(interface, mac.0, WAIT).await?))
}
