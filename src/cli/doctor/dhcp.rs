//! DHCP and proxyDHCP servers that a terminal would meet, asked as its firmware asks.

use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;

use super::finding::Finding;
use crate::io::net::pxe_probe::{self, WAIT};
use crate::lan::pxe::Answer;

const CHECK: &str = "dhcp";

/// The answers at one interface, or why nobody could be asked.
pub(super) struct Heard {
    interface: String,
    answers: Result<Vec<Answer>, String>,
}

/// Asks at every Ethernet interface that is up, at all of them at once.
pub(super) async fn facts() -> Vec<Heard> {
    let asked: Vec<_> = interfaces().into_iter().map(|(name, mac)| tokio::spawn(ask(name, mac))).collect();
    let mut heard = Vec::new();
    for one in asked {
        heard.extend(one.await.ok());
    }
    heard
}

async fn ask(interface: String, mac: [u8; 6]) -> Heard {
    let answers = pxe_probe::answers(&interface, mac, WAIT).await.map_err(|e| e.to_string());
    Heard { interface, answers }
}

/// Ethernet interfaces that are up and belong to a network; bridges' ports and tunnels have no address.
fn interfaces() -> Vec<(String, [u8; 6])> {
    let all: Vec<_> = getifaddrs().map(|all| all.collect()).unwrap_or_default();
    let wanted = InterfaceFlags::IFF_UP | InterfaceFlags::IFF_RUNNING | InterfaceFlags::IFF_BROADCAST;
    let addressed = |name: &str| {
        all.iter().any(|one| {
            let four = one.address.as_ref().and_then(|address| address.as_sockaddr_in());
            one.interface_name == name && four.is_some()
        })
    };
    let cards = all.iter().filter(|one| one.flags.contains(wanted) && addressed(&one.interface_name));
    cards
        .filter_map(|one| Some((one.interface_name.clone(), one.address.as_ref()?.as_link_addr()?.addr()?)))
        .collect()
}

pub(super) fn findings(heard: &[Heard]) -> Vec<Finding> {
    if heard.is_empty() {
        let advice = "Give the network card of the lab an IPv4 address.";
        return vec![Finding::warning(CHECK, "no network card has a link and an IPv4 address", advice)];
    }
    heard.iter().flat_map(at_interface).collect()
}

fn at_interface(heard: &Heard) -> Vec<Finding> {
    let name = &heard.interface;
    let answers = match &heard.answers {
        Ok(answers) => answers,
        Err(why) => {
            let advice = "Run the doctor as root: only root may ask at the port of DHCP clients.";
            return vec![Finding::warning(CHECK, format!("{name}: nobody could be asked: {why}"), advice)];
        }
    };
    let leasing = answers.iter().filter(|answer| answer.offers_address).count();
    let mut found: Vec<Finding> = Vec::new();
    for answer in answers {
        let kind = if answer.offers_address { "DHCP server" } else { "proxyDHCP server" };
        let starts = match &answer.boots {
            Some(file) => format!("boots '{file}' from {}", answer.next_server),
            // UEFI firmware asks a proxyDHCP server once more, at port 4011.
            None if !answer.offers_address => "says what to boot at port 4011".to_string(),
            None => "names no boot file".to_string(),
        };
        found.push(Finding::ok(CHECK, format!("{name}: {kind} {} {starts}", answer.server)));
    }
    let booting: Vec<&Answer> =
        answers.iter().filter(|one| one.boots.is_some() || !one.offers_address).collect();
    match (leasing, booting.len()) {
        (0, _) => found.push(Finding::warning(
            CHECK,
            format!("{name}: no DHCP server offers an address within {} s", WAIT.as_secs()),
            "Terminals at this card get no address: start the lab's DHCP server, or look at the cable.",
        )),
        (1, _) => {}
        (n, _) => found.push(Finding::warning(
            CHECK,
            format!("{name}: {n} DHCP servers offer addresses"),
            "Switch all but one off, unless they share their leases.",
        )),
    }
    if leasing > 0 && booting.is_empty() {
        found.push(Finding::error(
            CHECK,
            format!("{name}: no DHCP server tells terminals what to boot"),
            "Let 'flashmob serve --pxe IFACE' answer beside it, or give it the options of docs/netboot.md.",
        ));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::super::finding::Level;
    use super::*;

    fn levels(answers: Result<Vec<Answer>, String>) -> Vec<Level> {
        let heard = Heard { interface: "eth0".into(), answers };
        findings(&[heard]).iter().map(|finding| finding.level).collect()
    }

    fn server(last: u8, offers_address: bool, boots: Option<&str>) -> Answer {
        let server = [10, 0, 0, last].into();
        Answer { server, next_server: server, offers_address, boots: boots.map(str::to_string) }
    }

    #[test]
    fn terminals_need_one_address_and_something_to_boot() {
        use Level::{Error, Ok as Good, Warning};
        let (lease, both) = (server(1, true, None), server(2, true, Some("snponly.efi")));
        let proxy = server(3, false, Some("snponly.efi"));
        assert_eq!(levels(Ok(vec![both.clone()])), [Good]);
        assert_eq!(levels(Ok(vec![lease.clone(), proxy.clone()])), [Good, Good]);
        assert_eq!(levels(Ok(vec![lease.clone()])), [Good, Error], "nothing to boot");
        assert_eq!(levels(Ok(vec![lease, both])), [Good, Good, Warning], "two servers");
        assert_eq!(levels(Ok(vec![proxy])), [Good, Warning], "no address");
        let (lease, by_4011) = (server(1, true, None), server(3, false, None));
        assert_eq!(levels(Ok(vec![lease, by_4011])), [Good, Good], "it is asked once more");
        assert_eq!(levels(Err("Permission denied".into())), [Warning]);
    }
}
