//! Network namespaces, and free ports.

use std::fs::File;
use std::net::TcpListener;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result};
use nix::sched::{CloneFlags, setns};

use crate::command::run_line;

/// Runs `ip` with the words of a line, and returns its output.
pub fn ip(line: &str) -> String {
    run_line("ip", line)
}

/// Moves this thread into a network namespace.
pub fn enter(namespace: &str) -> Result<()> {
    let path = format!("/run/netns/{namespace}");
    let handle = File::open(&path).with_context(|| format!("opening {path}"))?;
    setns(handle, CloneFlags::CLONE_NEWNET).context("entering the namespace (needs root)")
}

/// Network namespaces, deleted when they are dropped.
#[derive(Debug, Default)]
pub struct Namespaces(Vec<String>);

impl Namespaces {
    /// Makes one more. Needs root.
    pub fn add(&mut self, name: &str) {
        // Names have the number of this process: a namespace that is there is of a run that was killed.
        let _ = Command::new("ip").args(["netns", "del", name]).output();
        ip(&format!("netns add {name}"));
        self.0.push(name.to_owned());
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        for name in &self.0 {
            let _ = Command::new("ip").args(["netns", "del", name]).status();
        }
    }
}

/// A port of 127.0.0.1 that is free, for programs that cannot choose a free port themselves. It is below
/// those that the kernel chooses itself (32768 and above), so nobody gets it before the program has it; the
/// number of this process keeps two test programs apart.
pub fn free_port() -> u16 {
    const EACH: u32 = 300;
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let first = 20_000 + std::process::id() % 40 * EACH;
    let ports = std::iter::repeat_with(|| first + NEXT.fetch_add(1, Ordering::Relaxed) % EACH);
    let mut ports = ports.take(EACH as usize).filter_map(|port| u16::try_from(port).ok());
    ports.find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok()).expect("a free port")
}
