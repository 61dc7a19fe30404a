//! Which program listens at which port, as `/proc` shows it.
//!
//! Invariant: a program is named only if this user may see its open files; its port is listed in any case.

use std::collections::HashMap;
use std::fs;

/// TCP or UDP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    Tcp,
    Udp,
}

/// A port that is taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Taken {
    pub protocol: Protocol,
    pub port: u16,
    /// By whom, where that can be seen.
    pub program: Option<String>,
}

/// All ports of this machine that are taken.
pub(crate) fn taken() -> Vec<Taken> {
    let tables = [
        ("/proc/net/tcp", Protocol::Tcp),
        ("/proc/net/tcp6", Protocol::Tcp),
        ("/proc/net/udp", Protocol::Udp),
        ("/proc/net/udp6", Protocol::Udp),
    ];
    let programs = programs();
    let mut all: Vec<Taken> = Vec::new();
    for (file, protocol) in tables {
        // A machine without IPv6 has no such file.
        for (port, inode) in rows(&fs::read_to_string(file).unwrap_or_default(), protocol) {
            let taken = Taken { protocol, port, program: programs.get(&inode).cloned() };
            if !all.contains(&taken) {
                all.push(taken);
            }
        }
    }
    all
}

/// Local port and inode of the sockets that listen.
fn rows(table: &str, protocol: Protocol) -> Vec<(u16, u64)> {
    const LISTEN: &str = "0A";
    let row = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (_, port) = fields.get(1)?.rsplit_once(':')?;
        let listens = protocol == Protocol::Udp || *fields.get(3)? == LISTEN;
        listens.then_some((u16::from_str_radix(port, 16).ok()?, fields.get(9)?.parse().ok()?))
    };
    table.lines().skip(1).filter_map(row).collect()
}

/// The programs by the inodes of their sockets.
fn programs() -> HashMap<u64, String> {
    let mut found = HashMap::new();
    for process in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Ok(name) = fs::read_to_string(process.path().join("comm")) else { continue };
        for file in fs::read_dir(process.path().join("fd")).into_iter().flatten().flatten() {
            let target = fs::read_link(file.path()).unwrap_or_default();
            let target = target.to_string_lossy();
            let inode = target.strip_prefix("socket:[").and_then(|rest| rest.strip_suffix(']'));
            if let Some(inode) = inode.and_then(|inode| inode.parse().ok()) {
                found.insert(inode, name.trim().to_string());
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_of_this_process_is_found_with_its_program() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("bound").port();
        let found = taken().into_iter().find(|t| t.port == port && t.protocol == Protocol::Tcp);
        assert!(found.expect("listed").program.is_some());
    }

    #[test]
    fn connections_take_no_port() {
        let table = "sl local_address rem_address st queues tr:tm->when retrnsmt uid timeout inode\n\
            0: 0100007F:1B39 00000000:0000 0A 00000000:00000000 00:00000000 00000000  0  0 4711 1\n\
            1: 0100007F:0050 0100007F:A000 01 00000000:00000000 00:00000000 00000000  0  0 4712 1\n";
        assert_eq!(rows(table, Protocol::Tcp), [(6969, 4711)]);
        assert_eq!(rows("", Protocol::Udp), []);
    }
}
