//! The worker of a netbooted terminal: network, server, job, attempt, and again until the machine may leave.
//!
//! Invariant: it ends only with a decision. What fails is shown, reported, and then either tried again or held on
//! the screen with the network up, by its class; a terminal that failed leaves only when a person or the server
//! says so.

use std::future::Future;
use std::time::Duration;

use reqwest::Client;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::agent::attempt::{self, Ended, Imager, Pace};
use crate::agent::cmdline::Cmdline;
use crate::agent::find::{EACH, Finder, Found};
use crate::agent::leave::Leave;
use crate::agent::network::{Interfaces, lease_facts, nics};
use crate::agent::status::Status;
use crate::api::{After, DiskInfo, Hello, Take};
use crate::event::{Class, Failure, Outcome, Stage};
use crate::io::http::{CallError, Taken};
use crate::io::{disks, inventory};
use crate::lan::discovery::{Facts, steps};

/// How long a terminal without a job waits for one before it leaves.
const IDLE: Duration = Duration::from_secs(30);
/// Between two questions for a job.
const ASK_EVERY: Duration = Duration::from_secs(3);
/// The same while a failure is on the screen, or the server refuses.
const HOLD_EVERY: Duration = Duration::from_secs(30);
/// How long a failure that may be gone next time is shown before the restart.
const SHOW: Duration = Duration::from_secs(60);
/// How long an outcome is shown before the machine leaves.
const GLANCE: Duration = Duration::from_secs(3);
/// A machine whose disks do not change for so long has all of them; it is not waited longer than the second.
const SETTLED: Duration = Duration::from_millis(1500);
const SETTLE_AT_MOST: Duration = Duration::from_secs(10);
/// Calls that fail in a row before the server is looked for anew.
const DEAF: u32 = 3;

/// A terminal at work.
pub struct Worker<I> {
    /// The kernel command line.
    pub cmdline: Cmdline,
    /// Content of the initramfs's file with the server's address.
    pub file: Option<String>,
    /// What carries out jobs.
    pub imager: I,
    /// What it tells people.
    pub status: Status,
    /// For all calls.
    pub http: Client,
    /// Its interfaces.
    pub network: watch::Receiver<Interfaces>,
    /// The attempts' speed.
    pub pace: Pace,
}

/// Where a conversation with one server ended.
enum Verdict {
    /// The machine may leave.
    Leave(Leave),
    /// The next candidate is tried.
    Next,
}

impl<I: Imager> Worker<I> {
    /// Works until the machine may leave.
    pub async fn run(mut self) -> Leave {
        self.status.stage(Stage::Network);
        settle_disks().await;
        let mut round = 0u32;
        let mut held = None;
        loop {
            self.wait_for_address().await;
            if held.is_none() {
                self.status.stage(Stage::Discover);
            }
            let hello = self.hello();
            self.status.change(|view| view.machine = machine(&hello));
            let facts = Facts {
                command_line: self.cmdline.server.clone(),
                file: self.file.clone(),
                leases: lease_facts(&self.network.borrow()),
            };
            let status = self.status.clone();
            let mut finder = Finder::new(self.http.clone(), &hello, &status, steps(&facts), EACH);
            while let Some(found) = finder.next().await {
                if let Verdict::Leave(leave) = self.converse(&found, &mut held).await {
                    tokio::time::sleep(GLANCE).await;
                    return leave;
                }
            }
            round += 1;
            let pause = match held {
                Some(_) => HOLD_EVERY,
                None => Duration::from_secs(u64::from(2 * round.min(7))),
            };
            if held.is_none() {
                self.status.note(format!(
                    "no flashmob server gave work; looking again in {} s (is 'flashmob serve' running here?)",
                    pause.as_secs()
                ));
            }
            tokio::time::sleep(pause).await;
        }
    }

    /// Waits until an interface has an address. The address line of the view tells what is waited for.
    async fn wait_for_address(&mut self) {
        let there = |all: &Interfaces| all.iter().any(|i| i.lease.is_some());
        if self.network.wait_for(there).await.is_err() {
            // The network's owner never ends before this worker does.
            std::future::pending().await
        }
    }

    fn hello(&self) -> Hello {
        let interfaces = self.network.borrow().clone();
        inventory::hello(inventory::read(nics(&interfaces)), self.cmdline.boot_mac.as_deref())
    }

    /// Takes and carries out jobs of one server. `held` is the failure that is on the screen.
    async fn converse(&self, found: &Found, held: &mut Option<Failure>) -> Verdict {
        self.status.change(|view| {
            view.server = match &found.welcome.label {
                Some(label) => format!("{}, which calls this terminal {label}", found.api.base()),
                None => found.api.base().to_owned(),
            };
        });
        let take = Take { job: self.cmdline.job.clone(), image: None };
        let since = Instant::now();
        let mut deaf = 0;
        loop {
            match found.api.take(&found.welcome.terminal, &take).await {
                Ok(Taken::Job(assignment)) => {
                    let stop = std::future::pending();
                    let ended =
                        attempt::run(&found.api, &assignment, &self.imager, &self.status, self.pace, stop)
                            .await;
                    let after = self.cmdline.after.unwrap_or(assignment.after);
                    match ended {
                        Ended::Done(next) => return Verdict::Leave(Leave::after(after, &next)),
                        Ended::Failed { failure, .. } if failure.class == Class::Retry => {
                            self.status.note(format!("restarting in {} s to try again", SHOW.as_secs()));
                            tokio::time::sleep(SHOW).await;
                            return Verdict::Leave(Leave::Restart);
                        }
                        Ended::Failed { failure, .. } => {
                            self.status
                                .note("holding; the server may start the job again: flashmob job retry");
                            *held = Some(failure);
                            return Verdict::Next;
                        }
                    }
                }
                Ok(Taken::Nothing) if held.is_some() => return Verdict::Next,
                Ok(Taken::Nothing) if since.elapsed() >= IDLE => {
                    let after = self.cmdline.after.unwrap_or(After::Reboot);
                    return Verdict::Leave(Leave::after(after, &crate::agent::imaging::Next::Firmware));
                }
                Ok(Taken::Nothing) => {
                    deaf = 0;
                    let left = IDLE.saturating_sub(since.elapsed()).as_secs().div_ceil(10) * 10;
                    self.status.note(format!("no job for this terminal; leaving in about {left} s"));
                    tokio::time::sleep(ASK_EVERY).await;
                }
                Err(CallError::Refused(rejected)) => {
                    let failure = Failure::new(Class::Refused, rejected.to_string(), rejected.advice);
                    self.show(failure.clone());
                    *held = Some(failure);
                    return Verdict::Next;
                }
                Err(e) => {
                    deaf += 1;
                    self.status.note(e.to_string());
                    if deaf == DEAF {
                        return Verdict::Next;
                    }
                    tokio::time::sleep(ASK_EVERY).await;
                }
            }
        }
    }

    /// Shows a failure that came before an attempt.
    fn show(&self, failure: Failure) {
        self.status.change(|view| {
            let stage = view.progress.stage;
            view.outcome = Some(Outcome::Failed { stage, failure, disk_touched: false });
        });
    }
}

/// The machine for people.
pub fn machine(hello: &Hello) -> String {
    let inventory = &hello.inventory;
    let mut text =
        if inventory.machine.is_empty() { "unnamed machine".into() } else { inventory.machine.clone() };
    if let Some(serial) = &inventory.serial {
        text.push_str(&format!(", serial number {serial}"));
    }
    if let Some(mac) = hello.macs.first() {
        text.push_str(&format!(", {mac}"));
    }
    text
}

/// Waits until the list of disks does not change any more: drivers find them one after another, and "the only
/// internal disk" must not be said too early.
async fn settle_disks() {
    settle(|| disks::list().unwrap_or_default(), SETTLED, SETTLE_AT_MOST).await;
}

fn settle(
    list: impl Fn() -> Vec<DiskInfo>,
    settled: Duration,
    at_most: Duration,
) -> impl Future<Output = ()> {
    async move {
        let began = Instant::now();
        let (mut known, mut since) = (list(), began);
        while began.elapsed() < at_most && (known.is_empty() || since.elapsed() < settled) {
            tokio::time::sleep(settled / 8).await;
            let now = list();
            if now != known {
                (known, since) = (now, Instant::now());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    fn disk(name: &str) -> DiskInfo {
        DiskInfo { name: name.into(), ..DiskInfo::default() }
    }

    #[tokio::test(start_paused = true)]
    async fn disks_that_come_late_are_waited_for() {
        let began = Instant::now();
        let last = Cell::new(0);
        let list = || {
            last.set(match began.elapsed().as_millis() {
                0..2000 => 0,
                2000..3000 => 1,
                _ => 2,
            });
            ["sda", "sdb"][..last.get()].iter().map(|name| disk(name)).collect()
        };
        settle(list, SETTLED, SETTLE_AT_MOST).await;
        assert_eq!(last.get(), 2);
        assert!(began.elapsed() < Duration::from_secs(6));
    }

    #[tokio::test(start_paused = true)]
    async fn a_machine_without_disks_is_not_waited_for_longer_than_ten_seconds() {
        let began = Instant::now();
        settle(Vec::new, SETTLED, SETTLE_AT_MOST).await;
        assert!(began.elapsed() <= SETTLE_AT_MOST + SETTLED);
    }
}
