//! Network namespaces, and free ports.

use std::fs::File;
use std::process::Command;

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

/// A port of 127.0.0.1 that was free a moment ago, for programs that cannot choose a free port themselves.
pub fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("its address").port()
}
