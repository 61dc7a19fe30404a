//! Kernel settings that a swarm feels.

use nix::sys::resource::{Resource, getrlimit};

use super::finding::Finding;

const CHECK: &str = "kernel";
/// Connections of a thousand terminals, and files.
const FILES: u64 = 16_384;
/// Machines of one network that a lab of a thousand terminals may have beside them.
const NEIGHBOURS: u64 = 4096;
/// A socket's buffer that a link of 10 Gbit/s with 1 ms of delay fills.
const BUFFER: u64 = 1 << 20;

#[derive(Debug, Clone, Copy)]
pub(super) struct Facts {
    /// `net.ipv4.tcp_slow_start_after_idle`.
    slow_start: Option<u64>,
    /// `fs.file-max`.
    file_max: Option<u64>,
    /// What a process may have open.
    open_files: Option<u64>,
    /// The largest automatic buffers for receiving and sending, in bytes (`net.ipv4.tcp_rmem`, `tcp_wmem`).
    buffers: Option<(u64, u64)>,
    /// Machines of its networks whose MACs the kernel remembers (`net.ipv4.neigh.default.gc_thresh3`).
    neighbours: Option<u64>,
}

pub(super) fn facts() -> Facts {
    let last = |path: &str| {
        let text = std::fs::read_to_string(format!("/proc/sys/{path}")).ok()?;
        text.split_whitespace().last()?.parse().ok()
    };
    Facts {
        slow_start: last("net/ipv4/tcp_slow_start_after_idle"),
        file_max: last("fs/file-max"),
        open_files: getrlimit(Resource::RLIMIT_NOFILE).ok().map(|(_, hard)| hard),
        buffers: last("net/ipv4/tcp_rmem").zip(last("net/ipv4/tcp_wmem")),
        neighbours: last("net/ipv4/neigh/default/gc_thresh3"),
    }
}

pub(super) fn findings(facts: &Facts) -> Vec<Finding> {
    let mut found = Vec::new();
    let keep = |setting: &str| {
        format!("'sysctl -w {setting}', and the same line in /etc/sysctl.d/flashmob.conf to keep it.")
    };
    if facts.slow_start == Some(1) {
        let what = "tcp_slow_start_after_idle is on: connections begin slowly again after each pause";
        found.push(Finding::warning(CHECK, what, keep("net.ipv4.tcp_slow_start_after_idle=0")));
    }
    if let Some(max) = facts.file_max.filter(|max| *max < FILES) {
        let what = format!("fs.file-max is {max}: a thousand terminals need more files and sockets");
        found.push(Finding::warning(CHECK, what, keep("fs.file-max=1048576")));
    }
    if let Some(max) = facts.open_files.filter(|max| *max < FILES) {
        let what = format!("a process may open {max} files here: a thousand terminals need more");
        found.push(Finding::warning(
            CHECK,
            what,
            "Start the server by its unit, which has LimitNOFILE=65536.",
        ));
    }
    if let Some((receive, send)) = facts.buffers.filter(|(receive, send)| (*receive).min(*send) < BUFFER) {
        let what = format!("TCP buffers grow to {receive} and {send} bytes only: too little for fast links");
        let settings = "net.ipv4.tcp_rmem='4096 131072 6291456' net.ipv4.tcp_wmem='4096 16384 4194304'";
        found.push(Finding::warning(CHECK, what, keep(settings)));
    }
    if let Some(most) = facts.neighbours.filter(|most| *most < NEIGHBOURS) {
        let what = format!(
            "the kernel remembers the MACs of {most} machines at most: where more terminals are in the \
             server's own networks, some wait for minutes until they reach it"
        );
        let settings = "net.ipv4.neigh.default.gc_thresh2=4096 net.ipv4.neigh.default.gc_thresh3=8192";
        found.push(Finding::warning(CHECK, what, keep(settings)));
    }
    if found.is_empty() {
        found.push(Finding::ok(CHECK, "its settings suit a swarm"));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::super::finding::Level;
    use super::*;

    #[test]
    fn each_setting_that_slows_a_swarm_is_named_with_the_command() {
        let good = Facts {
            slow_start: Some(0),
            file_max: Some(1 << 30),
            open_files: Some(1 << 20),
            buffers: Some((6 << 20, 4 << 20)),
            neighbours: Some(8192),
        };
        assert_eq!(findings(&good).iter().map(|f| f.level).collect::<Vec<_>>(), [Level::Ok]);
        let bad = Facts {
            slow_start: Some(1),
            file_max: Some(1000),
            open_files: Some(1024),
            buffers: Some((200_000, 4 << 20)),
            neighbours: Some(1024),
        };
        let found = findings(&bad);
        assert_eq!(found.len(), 5, "{found:?}");
        assert!(found[0].advice.contains("tcp_slow_start_after_idle=0"));
        assert!(found[4].advice.contains("gc_thresh3=8192"), "{found:?}");
    }
}
