//! `nbd://HOST[:PORT]/EXPORT`, as the NBD project describes it (doc/uri.md).

use std::path::Path;

use flashmob::event::Failure;
use flashmob::nbd;

/// An export of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Address {
    /// A name or an address, without brackets.
    pub host: String,
    pub port: u16,
    pub export: String,
}

impl Address {
    /// The address that a source names; `None` if it names a file or a device.
    pub(crate) fn of(source: &Path) -> Result<Option<Self>, Failure> {
        let Some(text) = source.to_str() else { return Ok(None) };
        let Some((scheme, rest)) = text.split_once("://") else { return Ok(None) };
        if !scheme.starts_with("nbd") {
            return Ok(None);
        }
        let wrong = |why: &str| {
            Failure::usage(
                format!("'{text}' is not the address of a disk on the network: {why}"),
                "Give nbd://HOST/EXPORT or nbd://HOST:PORT/EXPORT, for example nbd://10.0.0.5/golden.",
            )
        };
        if scheme != "nbd" {
            return Err(wrong("only nbd:// over TCP is known"));
        }
        let (host, export) = rest.split_once('/').unwrap_or((rest, ""));
        let (host, port) = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((host, "")) => (host, None),
            Some((host, port)) => (
                host,
                Some(
                    port.strip_prefix(':')
                        .ok_or_else(|| wrong("its port is not a number from 1 to 65535"))?,
                ),
            ),
            None => host.split_once(':').map_or((host, None), |(host, port)| (host, Some(port))),
        };
        if host.is_empty() || host.contains(['@', '?', '#', '[']) {
            return Err(wrong("it has no plain host name or address"));
        }
        let port = match port {
            None => nbd::PORT,
            Some(port) => port
                .parse()
                .ok()
                .filter(|port| *port != 0)
                .ok_or_else(|| wrong("its port is not a number from 1 to 65535"))?,
        };
        if export.contains(['?', '#']) {
            return Err(wrong("it has parameters behind the export"));
        }
        let export =
            decoded(export).ok_or_else(|| wrong("its export is not UTF-8, or longer than 4096 bytes"))?;
        Ok(Some(Address { host: host.into(), port, export }))
    }
}

/// `text` with its %XX decoded.
fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((first, behind)) = rest.split_first() {
        rest = behind;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let digits = std::str::from_utf8(rest.get(..2)?).ok()?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        rest = &rest[2..];
    }
    String::from_utf8(bytes).ok().filter(|name| name.len() <= 4096)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Option<(String, u16, String)> {
        let address = Address::of(Path::new(text)).expect("an address")?;
        Some((address.host, address.port, address.export))
    }

    #[test]
    fn hosts_ports_and_exports_are_read_and_files_are_left_alone() {
        let is = |host: &str, port, export: &str| Some((host.into(), port, export.into()));
        assert_eq!(of("nbd://lab-7/golden"), is("lab-7", 10809, "golden"));
        assert_eq!(of("nbd://10.0.0.5:7000"), is("10.0.0.5", 7000, ""));
        assert_eq!(of("nbd://[fe80::1]:7000/a%20b/c"), is("fe80::1", 7000, "a b/c"));
        assert_eq!(of("nbd://[::1]/"), is("::1", 10809, ""));
        assert_eq!(of("/dev/sda"), None);
        assert_eq!(of("disk.qcow2"), None);
        for wrong in [
            "nbds://a/b",
            "nbd+unix:///x?socket=y",
            "nbd:///x",
            "nbd://a:0/x",
            "nbd://a:b/x",
            "nbd://[::1]7/x",
            "nbd://a/%f",
            "nbd://a/%ff",
            "nbd://a/b?c=d",
        ] {
            assert!(Address::of(Path::new(wrong)).is_err(), "{wrong}");
        }
    }
}
