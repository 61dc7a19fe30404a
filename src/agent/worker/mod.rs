//! The worker of a netbooted terminal: network, server, job, attempt, repeated until the machine may leave.
//!
//! Invariant: it ends only with a decision. A failure is shown and reported; its class decides whether it is
//! retried or stays on the screen with the network up. A failed terminal leaves only if an administrator or
//! the server orders it.

use std::time::Duration;

use reqwest::Client;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::agent::attempt::{self, Ended, Imager, Pace};
use crate::agent::cmdline::Cmdline;
use crate::agent::find::{EACH, Finder, Found};
use crate::agent::hidden;
use crate::agent::imaging::Next;
use crate::agent::leave::Leave;
use crate::agent::lending;
use crate::agent::network::{Interfaces, lease_facts, nics};
use crate::agent::status::Status;
use crate::api::{After, DiskInfo, Hello, Inventory, Take};
use crate::event::{Class, Failure, Outcome, Stage};
use crate::io::disk::list;
use crate::io::host::inventory;
use crate::io::net::api_client::{Api, CallError, Taken};
use crate::io::net::credentials::Credentials;
use crate::lan::discovery::{Facts, steps};

/// How long a person, a server and late disks are waited for; tests are less patient.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    /// How long a terminal without a job waits for one before it leaves.
    pub idle: Duration,
    /// How long a network and a server are looked for before the machine restarts.
    pub search: Duration,
    /// Between two questions for a job.
    pub ask: Duration,
    /// The same while a failure is on the screen.
    pub hold: Duration,
    /// How long a failure that may be gone next time is shown before the restart.
    pub show: Duration,
    /// How long an outcome is shown before the machine leaves.
    pub show_result_for: Duration,
    /// For each candidate while the server is looked for.
    pub each: Duration,
    /// The list of disks counts as complete when it has not changed for this long.
    pub settled: Duration,
    /// The longest wait for a complete list of disks.
    pub settle: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Patience {
            idle: Duration::from_secs(30),
            search: Duration::from_secs(1800),
            ask: Duration::from_secs(3),
            hold: Duration::from_secs(30),
            show: Duration::from_secs(60),
            show_result_for: Duration::from_secs(3),
            each: EACH,
            settled: Duration::from_millis(1500),
            settle: Duration::from_secs(10),
        }
    }
}

/// HTTP status of the answer to a terminal that the server does not know, and to one whose secret is not
/// known.
const NOT_KNOWN: [u16; 2] = [404, 401];
/// Calls that fail in a row before the server is looked for anew.
const MAX_FAILED_CALLS: u32 = 3;

/// A terminal at work.
pub(crate) struct Worker<I> {
    /// The kernel command line.
    pub cmdline: Cmdline,
    /// Content of the initramfs's file with the server's address.
    pub file: Option<String>,
    /// Whether servers are looked for by mDNS as well.
    pub browse: bool,
    pub imager: I,
    /// State shown to people.
    pub status: Status,
    pub http: Client,
    /// What it presents to servers.
    pub credentials: Credentials,
    pub network: watch::Receiver<Interfaces>,
    /// Counts the rounds of the search that found no server, for the network.
    pub rounds: watch::Sender<usize>,
    pub pace: Pace,
    pub patience: Patience,
}

/// Where a conversation with one server ended.
enum Verdict {
    /// The machine may leave.
    Leave(Leave),
    /// The server has no job. The machine may leave when no other candidate has one either.
    Idle(Leave),
    /// The next candidate is tried.
    Next,
}

impl<I: Imager> Worker<I> {
    /// Works until the machine may leave.
    pub(crate) async fn run(mut self) -> Leave {
        self.status.stage(Stage::Network);
        settle(|| list::all().unwrap_or_default(), self.patience.settled, self.patience.settle).await;
        let mut round = 0u32;
        let mut held = None;
        let end = Instant::now() + self.patience.search;
        loop {
            let address = tokio::time::timeout_at(end, self.wait_for_address()).await;
            match (address, &held) {
                (Ok(()), _) => {}
                // The failure stays on the screen; a restart would take it away.
                (Err(_), Some(_)) => self.wait_for_address().await,
                (Err(_), None) => return self.give_up("no network card got an address").await,
            }
            if held.is_none() {
                self.status.stage(Stage::Discover);
            }
            let hello = self.hello();
            self.status.change(|view| view.machine = machine(&hello));
            if round == 0 {
                self.tell_hidden_disks(&hello.inventory);
            }
            let facts = Facts {
                command_line: self.cmdline.server.clone(),
                file: self.file.clone(),
                leases: lease_facts(&self.network.borrow()),
                browse: self.browse,
            };
            let status = self.status.clone();
            let mut finder =
                Finder::new(self.http.clone(), &hello, &status, steps(&facts), self.patience.each)
                    .with(self.credentials.clone())
                    .started_directly(self.cmdline.direct);
            let (mut idle, mut answered) = (None, false);
            while let Some(found) = finder.next().await {
                answered = true;
                match self.converse(&found, &mut held).await {
                    Verdict::Leave(leave) => return self.leave(leave).await,
                    Verdict::Idle(leave) => idle = Some(leave),
                    Verdict::Next => {}
                }
            }
            if finder.sent_on() && held.is_none() {
                return self.leave(Leave::ToDisk).await;
            }
            // A failure of another candidate stays on the screen.
            if let (Some(leave), None) = (idle, &held) {
                return self.leave(leave).await;
            }
            if held.is_none() && Instant::now() >= end {
                return self.give_up("no flashmob server gave work").await;
            }
            round += 1;
            if !answered {
                self.rounds.send_modify(|rounds| *rounds += 1);
            }
            let pause = match held {
                Some(_) => self.patience.hold,
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

    /// Nothing to wait for has come: a new start brings another address, or the server in the meantime.
    async fn give_up(&self, why: &str) -> Leave {
        let minutes = self.patience.search.as_secs() / 60;
        self.show(Failure::retry(
            format!("{why} for {minutes} minutes"),
            "Look at the cable, at DHCP, and whether 'flashmob serve' runs. The machine restarts.",
        ));
        tokio::time::sleep(self.patience.show).await;
        self.leave(Leave::Restart).await
    }

    /// Lets people read the last message before the machine leaves.
    async fn leave(&self, leave: Leave) -> Leave {
        tokio::time::sleep(self.patience.show_result_for).await;
        leave
    }

    /// Waits until an interface has an address; meanwhile the view's address line shows the wait.
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

    /// A person at the screen learns why a disk is not there, whatever the rule of a job will be.
    fn tell_hidden_disks(&self, inventory: &Inventory) {
        let controllers = hidden::controllers(&inventory.devices, &inventory.disks);
        for (what, advice) in controllers.into_iter().filter_map(|controller| controller.hides) {
            self.status.note(format!("{what}. {advice}"));
        }
    }

    /// Takes and carries out jobs of one server. `held` is the failure that is on the screen.
    async fn converse(&self, found: &Found, held: &mut Option<Failure>) -> Verdict {
        self.status.change(|view| {
            view.server = match &found.welcome.label {
                Some(label) => format!("{}, which calls this terminal {label}", found.api.base()),
                None => found.api.base().to_owned(),
            };
        });
        attempt::tell_crash(&found.api, &self.status).await;
        let job = self.cmdline.job.clone();
        let take = Take {
            job,
            preflight: true,
            personal: true,
            limit: true,
            files: true,
            growth: true,
            blank: true,
            lend: true,
            ..Take::default()
        };
        let mut beside = JoinSet::new();
        let boot_mac = self.cmdline.boot_mac.clone();
        beside.spawn(tell_neighbours(found.api.clone(), self.network.clone(), boot_mac));
        let since = Instant::now();
        let mut failed_calls = 0;
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
                        // By day nobody waits before the screen: the system on the disk starts again.
                        Ended::Checked => return Verdict::Leave(Leave::after(after, &Next::Firmware)),
                        Ended::Failed { failure, .. } if failure.class == Class::Retry => {
                            self.status.note(format!(
                                "restarting in {} s to try again",
                                self.patience.show.as_secs()
                            ));
                            tokio::time::sleep(self.patience.show).await;
                            return Verdict::Leave(Leave::Restart);
                        }
                        Ended::Failed { failure, .. } => {
                            self.status
                                .note("holding; the server may start the job again: flashmob terminal retry");
                            *held = Some(failure);
                            return Verdict::Next;
                        }
                    }
                }
                Ok(Taken::Lend(offer)) => {
                    // Whatever came of it: nothing was written, and the system on the disk starts again.
                    if lending::run(&found.api, &offer, None, &self.status).await.is_err() {
                        tokio::time::sleep(self.patience.show).await;
                    }
                    let after = self.cmdline.after.unwrap_or(After::Reboot);
                    return Verdict::Leave(Leave::after(after, &Next::Firmware));
                }
                Ok(Taken::Nothing) if held.is_some() => return Verdict::Next,
                Ok(Taken::Nothing) if since.elapsed() >= self.patience.idle => {
                    let after = self.cmdline.after.unwrap_or(After::Reboot);
                    self.status.note(format!("{} has no job for this terminal", found.api.base()));
                    return Verdict::Idle(Leave::after(after, &Next::Firmware));
                }
                Ok(Taken::Nothing) => {
                    failed_calls = 0;
                    let left = self.patience.idle.saturating_sub(since.elapsed()).as_secs().div_ceil(10) * 10;
                    self.status
                        .note(format!("no job for this terminal; waiting about {left} s more for one"));
                    tokio::time::sleep(self.patience.ask).await;
                }
                Err(CallError::Busy { rejected, wait }) if since.elapsed() < self.patience.search => {
                    self.status.note(rejected.to_string());
                    tokio::time::sleep(wait.unwrap_or(self.patience.ask)).await;
                }
                // The server has forgotten this terminal or its secret since its hello, so it says hello
                // again.
                Err(CallError::Refused(rejected)) if NOT_KNOWN.contains(&rejected.status) => {
                    self.status.note(rejected.to_string());
                    return Verdict::Next;
                }
                Err(CallError::Refused(rejected)) => {
                    let failure = Failure::refused(rejected.to_string(), rejected.advice);
                    self.show(failure.clone());
                    *held = Some(failure);
                    return Verdict::Next;
                }
                Err(e) => {
                    failed_calls += 1;
                    self.status.note(e.to_string());
                    if failed_calls == MAX_FAILED_CALLS {
                        return Verdict::Next;
                    }
                    tokio::time::sleep(self.patience.ask).await;
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

/// Says hello again when a switch is heard, because it decides the terminal's zone. Runs beside the job, and
/// ends with the network's task.
async fn tell_neighbours(api: Api, mut network: watch::Receiver<Interfaces>, boot_mac: Option<String>) {
    let mut told = Vec::new();
    loop {
        let nics = nics(&network.borrow_and_update());
        let heard: Vec<_> = nics.iter().filter_map(|nic| nic.neighbour.clone()).collect();
        if !heard.is_empty() && heard != told {
            let hello = inventory::hello(inventory::read(nics), boot_mac.as_deref());
            match api.hello(&hello, EACH).await {
                Ok(_) => told = heard,
                // With the next change, or by the hello of the next conversation.
                Err(e) => log::warn!("cannot tell which switch this terminal is at: {e}"),
            }
        }
        if network.changed().await.is_err() {
            return;
        }
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

/// Waits until the list of disks no longer changes: drivers find disks one after another, and "the only
/// internal disk" must not be decided too early.
async fn settle(list: impl Fn() -> Vec<DiskInfo>, settled: Duration, at_most: Duration) {
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

#[cfg(test)]
mod tests;
