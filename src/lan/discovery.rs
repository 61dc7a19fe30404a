//! In which order the server is looked for, as a list of steps.
//!
//! Invariant: a server is only ever a candidate; whether it answers as flashmob is found by asking
//! (`agent::find`), and whether it may be obeyed is decided by the manifest's signature.

use std::fmt;
use std::net::Ipv4Addr;

/// The port of everything a server offers.
pub const PORT: u16 = 6969;

/// Where a candidate comes from; in the order in which they are tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Origin {
    /// `flashmob.server` on the kernel command line, or `--server`.
    CommandLine,
    /// `/etc/flashmob/server` in the initramfs.
    File,
    /// DHCP option 224.
    DhcpOption,
    /// The machine that the netboot files came from.
    NextServer,
    /// DNS SRV.
    Dns,
    /// mDNS/DNS-SD.
    Mdns,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Origin::CommandLine => "the command line",
            Origin::File => "the initramfs",
            Origin::DhcpOption => "DHCP option 224",
            Origin::NextServer => "the netboot server",
            Origin::Dns => "DNS",
            Origin::Mdns => "mDNS",
        })
    }
}

/// Facts that are known before any query.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// From the command line.
    pub command_line: Option<String>,
    /// From the file in the initramfs.
    pub file: Option<String>,
    /// The facts of each interface's lease; the interface in use comes first.
    pub leases: Vec<LeaseFacts>,
    /// Whether to ask all hosts on the link by mDNS at the end.
    pub browse: bool,
}

/// The facts about servers in a lease.
#[derive(Debug, Clone, Default)]
pub struct LeaseFacts {
    /// Option 224.
    pub flashmob: Option<String>,
    /// `siaddr`.
    pub next_server: Option<Ipv4Addr>,
    pub dns: Vec<Ipv4Addr>,
    pub domain: Option<String>,
}

/// One thing to try.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Ask this address whether it is flashmob.
    Ask {
        /// `http://HOST:PORT`, without a final slash.
        url: String,
        /// The source that named it.
        origin: Origin,
    },
    /// Ask these name servers for SRV records of the domain, then ask those servers.
    Srv { servers: Vec<Ipv4Addr>, domain: String },
    /// Browse for `_flashmob._tcp.local`, then ask those servers.
    Browse,
    /// A candidate that is no address, for people to see.
    Unusable {
        /// The problem.
        why: String,
        /// The source that named it.
        origin: Origin,
    },
}

/// The steps to try, in order. No address is asked twice.
pub fn steps(facts: &Facts) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    let mut push = |step: Step| {
        let known = |old: &Step| match (old, &step) {
            (Step::Ask { url: a, .. }, Step::Ask { url: b, .. }) => a == b,
            _ => *old == step,
        };
        if !steps.iter().any(known) {
            steps.push(step);
        }
    };
    let named = |text: &str, origin| match server_url(text) {
        Ok(url) => Step::Ask { url, origin },
        Err(why) => Step::Unusable { why, origin },
    };
    if let Some(text) = &facts.command_line {
        push(named(text, Origin::CommandLine));
    }
    if let Some(text) = &facts.file {
        push(named(text, Origin::File));
    }
    for text in facts.leases.iter().filter_map(|lease| lease.flashmob.as_ref()) {
        push(named(text, Origin::DhcpOption));
    }
    for address in facts.leases.iter().filter_map(|lease| lease.next_server) {
        push(Step::Ask { url: format!("http://{address}:{PORT}"), origin: Origin::NextServer });
    }
    for lease in &facts.leases {
        if let (Some(domain), false) = (&lease.domain, lease.dns.is_empty()) {
            push(Step::Srv { servers: lease.dns.clone(), domain: domain.clone() });
        }
    }
    if facts.browse {
        push(Step::Browse);
    }
    steps
}

/// Reads a server's address as people write it (`10.0.0.1`, `lab:7000`, `http://lab:7000/`) and gives it as
/// `http://HOST:PORT` without a final slash. Ports default to [`PORT`], also after `http://`.
pub(crate) fn server_url(text: &str) -> Result<String, String> {
    let text = text.trim();
    let wrong =
        |why: &str| Err(format!("'{text}' is not a server's address: {why}; write http://HOST:{PORT}"));
    let rest = match text.split_once("://") {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => rest,
        Some((scheme, _)) => return wrong(&format!("{scheme} is not spoken here, only http")),
        None => text,
    };
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    if rest.contains(|c: char| c == '/' || c == '@' || c == '?' || c == '#' || c.is_whitespace()) {
        return wrong("it may have a host and a port only");
    }
    let (host, port) = match rest.strip_prefix('[') {
        Some(v6) => match v6.split_once(']') {
            Some((inside, "")) => (format!("[{inside}]"), None),
            Some((inside, port)) if port.starts_with(':') => (format!("[{inside}]"), Some(&port[1..])),
            _ => return wrong("']' is missing"),
        },
        None => match rest.split_once(':') {
            Some((host, port)) => (host.to_owned(), Some(port)),
            None => (rest.to_owned(), None),
        },
    };
    let inside = host.trim_start_matches('[').trim_end_matches(']');
    let plain = |c: char| {
        c.is_ascii_alphanumeric()
            || matches!(c, '.' | '-' | '_')
            || (host.len() > inside.len() && matches!(c, ':' | '%'))
    };
    if inside.is_empty() || !inside.chars().all(plain) {
        return wrong("the host is not a name or an address");
    }
    let port = match port {
        None => PORT,
        Some(port) => match port.parse::<u16>() {
            Ok(port) if port > 0 => port,
            _ => return wrong("the port is not a number from 1 to 65535"),
        },
    };
    Ok(format!("http://{host}:{port}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn servers_are_looked_for_in_the_order_of_the_design() {
        let facts = Facts {
            command_line: Some("http://a:1".into()),
            file: Some("b".into()),
            leases: vec![LeaseFacts {
                flashmob: Some("c:3/".into()),
                next_server: Some(Ipv4Addr::new(10, 0, 0, 4)),
                dns: vec![Ipv4Addr::new(10, 0, 0, 5)],
                domain: Some("lab".into()),
            }],
            browse: true,
        };
        let ask = |url: &str, origin| Step::Ask { url: url.into(), origin };
        assert_eq!(
            steps(&facts),
            [
                ask("http://a:1", Origin::CommandLine),
                ask("http://b:6969", Origin::File),
                ask("http://c:3", Origin::DhcpOption),
                ask("http://10.0.0.4:6969", Origin::NextServer),
                Step::Srv { servers: vec![Ipv4Addr::new(10, 0, 0, 5)], domain: "lab".into() },
                Step::Browse,
            ]
        );
    }

    #[test]
    fn nobody_is_asked_twice_and_a_wrong_address_is_shown() {
        let lease = LeaseFacts { next_server: Some(Ipv4Addr::new(10, 0, 0, 4)), ..LeaseFacts::default() };
        let facts = Facts {
            command_line: Some("10.0.0.4".into()),
            file: Some("https://x".into()),
            leases: vec![lease.clone(), lease],
            browse: true,
        };
        let steps = steps(&facts);
        assert_eq!(steps.len(), 3, "{steps:?}");
        assert!(
            matches!(&steps[1], Step::Unusable { origin: Origin::File, why } if why.contains("only http"))
        );
    }

    #[test]
    fn addresses_are_read_as_people_write_them() {
        for (text, url) in [
            ("lab", "http://lab:6969"),
            (" http://lab/ ", "http://lab:6969"),
            ("HTTP://10.0.0.1:80", "http://10.0.0.1:80"),
            ("[fe80::1]", "http://[fe80::1]:6969"),
            ("http://[fd00::1]:99/", "http://[fd00::1]:99"),
        ] {
            assert_eq!(server_url(text).as_deref(), Ok(url), "{text}");
        }
        for bad in [
            "",
            "http://",
            "https://lab",
            "lab:0",
            "lab:99999",
            "lab:x",
            "a b",
            "lab/path",
            "u@lab",
            "[::1",
            "a:b:c",
        ] {
            assert!(server_url(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn what_was_read_reads_the_same_again(text in "[a-z0-9.:/\\[\\]-]{0,30}") {
            if let Ok(url) = server_url(&text) {
                prop_assert_eq!(server_url(&url), Ok(url.clone()));
            }
        }
    }
}
