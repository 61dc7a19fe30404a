//! The ports of flashmob and of what terminals need to netboot: who has them?

use super::finding::Finding;
use crate::io::net::sockets::{Protocol, Taken, taken};
use crate::server::{DEFAULT_PEER_PORT, DEFAULT_PORT};

const CHECK: &str = "ports";

pub(super) fn facts() -> Vec<Taken> {
    taken()
}

pub(super) fn findings(taken: &[Taken]) -> Vec<Finding> {
    let mut found = vec![
        own(taken, DEFAULT_PORT, "the server", "--listen"),
        own(taken, DEFAULT_PEER_PORT, "the swarm", "--peer-listen"),
    ];
    for (port, what) in [(67, "DHCP"), (69, "TFTP"), (4011, "proxyDHCP")] {
        let holders = holders(taken, Protocol::Udp, port);
        found.push(match holders.is_empty() {
            true => {
                Finding::ok(CHECK, format!("{port}/udp ({what}) is free: this machine does not do {what}"))
            }
            false => Finding::ok(CHECK, format!("{port}/udp ({what}) belongs to {}", holders.join(", "))),
        });
    }
    found
}

/// A port that `flashmob serve` wants.
fn own(taken: &[Taken], port: u16, what: &str, option: &str) -> Finding {
    let holders = holders(taken, Protocol::Tcp, port);
    match holders.iter().find(|holder| !holder.starts_with("flashmob")) {
        Some(other) if other == UNSEEN => Finding::warning(
            CHECK,
            format!("{port}/tcp ({what}) is taken by a program that this user cannot see"),
            "Run the doctor as root to see whether it is flashmob.",
        ),
        Some(other) => Finding::error(
            CHECK,
            format!("{port}/tcp ({what}) is taken by {other}"),
            format!("Stop it, or choose another port with 'flashmob serve {option} ADDR:PORT'."),
        ),
        None if holders.is_empty() => Finding::warning(
            CHECK,
            format!("{port}/tcp ({what}) is free: no server runs here"),
            "Start it: 'systemctl start flashmob'; 'journalctl -u flashmob' tells why it stopped.",
        ),
        None => Finding::ok(CHECK, format!("{port}/tcp ({what}) belongs to flashmob")),
    }
}

const UNSEEN: &str = "a program that this user cannot see";

fn holders(taken: &[Taken], protocol: Protocol, port: u16) -> Vec<String> {
    let ours = taken.iter().filter(|taken| (taken.protocol, taken.port) == (protocol, port));
    ours.map(|taken| taken.program.clone().unwrap_or_else(|| UNSEEN.into())).collect()
}

#[cfg(test)]
mod tests {
    use super::super::finding::Level;
    use super::*;

    fn levels(taken: &[Taken]) -> [Level; 2] {
        let found = findings(taken);
        [found[0].level, found[1].level]
    }

    #[test]
    fn another_program_at_a_port_of_flashmob_is_an_error_that_names_it() {
        let at = |port, program: Option<&str>| Taken {
            protocol: Protocol::Tcp,
            port,
            program: program.map(str::to_string),
        };
        assert_eq!(levels(&[at(6969, Some("flashmob")), at(6881, Some("flashmob"))]), [Level::Ok; 2]);
        let taken = [at(6969, Some("opentracker")), at(6881, None)];
        assert_eq!(levels(&taken), [Level::Error, Level::Warning]);
        assert!(findings(&taken)[0].what.contains("opentracker"));
        assert_eq!(levels(&[]), [Level::Warning; 2], "no server runs");
    }
}
