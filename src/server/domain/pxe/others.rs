//! Other servers that answer netbooting machines in the same network.
//!
//! Invariant: answers of this server are no problem; everything else that is said is what terminals hear too.

use std::net::Ipv4Addr;

use crate::api::Refusal;
use crate::lan::pxe::Answer;

/// Who is asked: a network at an interface.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place<'a> {
    pub interface: &'a str,
    /// This machine's addresses there.
    pub own: &'a [Ipv4Addr],
    /// This server gives out the addresses there.
    pub gives_out: bool,
}

impl Place<'_> {
    fn strangers<'a>(&self, answers: &'a [Answer]) -> impl Iterator<Item = &'a Answer> {
        answers.iter().filter(|answer| !self.own.contains(&answer.server))
    }
}

/// Why this server must not give out addresses there.
pub(crate) fn second_dhcp(place: &Place<'_>, answers: &[Answer]) -> Option<Refusal> {
    let other = place.strangers(answers).find(|answer| answer.offers_address)?;
    let interface = place.interface;
    Some(Refusal {
        error: format!("the DHCP server {} gives out addresses at {interface}", other.server),
        advice:
            "Leave --pxe-range out: beside that server --pxe alone is enough. Two servers would give out \
                 conflicting addresses."
                .into(),
    })
}

/// What a person should know about the answers.
pub(crate) fn problems(place: &Place<'_>, answers: &[Answer]) -> Vec<Refusal> {
    let interface = place.interface;
    if place.gives_out {
        return second_dhcp(place, answers).into_iter().collect();
    }
    let mut found = Vec::new();
    for other in place.strangers(answers) {
        let Some(file) = &other.boots else { continue };
        let error = match other.offers_address {
            true => format!(
                "the DHCP server {} at {interface} names a boot file of its own ('{file}')",
                other.server
            ),
            false => format!("another proxyDHCP server, {}, answers at {interface} ('{file}')", other.server),
        };
        let advice = match other.offers_address {
            true => {
                "Take its boot options away (66 and 67, next-server, filename): terminals may follow either."
            }
            false => "Let one of the two answer there: terminals follow whichever is faster.",
        };
        found.push(Refusal { error, advice: advice.into() });
    }
    let silent = place.strangers(answers).filter(|answer| !answer.offers_address && answer.boots.is_none());
    found.extend(silent.map(|other| Refusal {
        error: format!("another proxyDHCP server, {}, answers at {interface}", other.server),
        advice: "Let one of the two answer there: terminals follow whichever is faster.".into(),
    }));
    if !place.strangers(answers).any(|answer| answer.offers_address) {
        found.push(Refusal {
            error: format!("no DHCP server offers an address at {interface}"),
            advice: "Start the network's DHCP server, or let this server give out addresses (--pxe-range)."
                .into(),
        });
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: [Ipv4Addr; 1] = [Ipv4Addr::new(10, 0, 0, 2)];

    fn answer(last: u8, offers_address: bool, boots: Option<&str>) -> Answer {
        let server = Ipv4Addr::new(10, 0, 0, last);
        Answer { server, next_server: server, offers_address, boots: boots.map(str::to_string) }
    }

    fn said(gives_out: bool, answers: &[Answer]) -> Vec<String> {
        let place = Place { interface: "eth0", own: &OWN, gives_out };
        problems(&place, answers).into_iter().map(|problem| problem.error).collect()
    }

    #[test]
    fn every_other_server_that_tells_terminals_what_to_boot_is_named() {
        let (dhcp, own) = (answer(1, true, None), answer(2, false, None));
        assert_eq!(said(false, &[dhcp.clone(), own.clone()]), [""; 0]);
        assert_eq!(said(false, std::slice::from_ref(&own)), ["no DHCP server offers an address at eth0"]);
        // A proxy redirects UEFI to another port, and names no file in its offer.
        let second = answer(3, false, None);
        let expected = ["another proxyDHCP server, 10.0.0.3, answers at eth0"];
        assert_eq!(said(false, &[dhcp, own, second]), expected);
        let booting = answer(1, true, Some("pxelinux.0"));
        assert!(said(false, &[booting])[0].contains("names a boot file of its own ('pxelinux.0')"));
    }

    #[test]
    fn a_second_dhcp_server_is_named_where_this_one_gives_out_addresses() {
        assert_eq!(said(true, &[answer(2, true, Some("snponly.efi"))]), [""; 0]);
        let two = [answer(2, true, None), answer(1, true, None)];
        assert_eq!(said(true, &two), ["the DHCP server 10.0.0.1 gives out addresses at eth0"]);
    }
}
