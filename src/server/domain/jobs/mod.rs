//! Jobs: who images what, when and how often. The one place that decides whether a terminal may begin.
//!
//! `job` is what a person ordered, `member` one terminal in it with its transitions, `turn` says whose turn
//! it is, `calendar` opens and closes windows and ends leases, `people` carries out a person's words, `boot`
//! is the next step of a netbooting terminal, `view` shows jobs. Of a new job, `order` is what a person
//! wrote, `create` checks it, `forecast` says how long it takes, `names` which host names it gives, and
//! `findings` what may go wrong.
//!
//! Invariant: pure. The monotonic clock (`Moment::now`) measures leases; the machine's date opens and
//! closes windows. A terminal holds at most one lease. A window that has closed stays closed, even when the
//! date jumps back.

mod boot;
mod calendar;
mod create;
mod findings;
mod forecast;
mod job;
mod lease;
mod member;
mod names;
mod order;
mod people;
mod setting;
#[cfg(test)]
mod tests;
mod turn;
mod view;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use jiff::{Timestamp, Zoned};

use crate::image_id::{ImageId, ImageRef};
use crate::server::domain::attempt::SILENCE;
use crate::server::domain::coming::Coming;
pub(crate) use boot::{AtBoot, at_boot, compare_of_next, may_leave, state};
pub(crate) use job::Kind;
pub use job::{Job, Overrun, Pace, Phase, Placement, Run, Standing, Terms};
pub use member::{Member, State};
pub(crate) use names::{DnsNames, of_terminal as hostname_of};
pub use order::{Affected, Finding, JobOrder, JobPlan, Order};
pub(crate) use people::{Each, Left, Which};
pub(crate) use setting::Setting;
pub(crate) use turn::Offer;
pub use view::{JobView, MemberView, PastRun, Report};

/// An attempt's lease; each report renews it.
pub(crate) const LEASE: Duration = SILENCE;

/// A terminal that takes again within this time of its first take, without a report in between, has not
/// restarted.
const REPEATS: Duration = Duration::from_secs(30);

/// One moment by both clocks.
#[derive(Debug, Clone)]
pub struct Moment {
    /// Since 1970, by the monotonic clock: it does not jump when the date is set.
    pub now: Duration,
    /// The machine's date, in its time zone.
    pub date: Zoned,
}

/// A time of the server's clock as a date.
pub(crate) fn stamp(now: Duration) -> Timestamp {
    let seconds = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    Timestamp::from_second(seconds).unwrap_or(Timestamp::MAX)
}

/// The version that an image's name means now, and its bytes.
pub(crate) type Newest<'a> = &'a dyn Fn(&ImageRef) -> Option<(ImageId, u64)>;

/// A change to be stored.
#[derive(Debug, Clone, PartialEq)]
pub enum JobChange {
    /// A job is new or went on.
    Job(Box<Job>),
    /// A terminal's place in a run.
    Member { job: u64, run: u32, terminal: String, member: Box<Member> },
}

/// What follows from an event.
#[derive(Debug, Default, PartialEq)]
pub struct Effects {
    /// To be stored, in this order.
    pub changes: Vec<JobChange>,
    /// Attempts that must stop if they have not ended.
    pub stops: Vec<Stop>,
}

/// An order to stop. The attempt may be silent only for a while, whatever its job holds of it.
#[derive(Debug, PartialEq)]
pub struct Stop {
    pub terminal: String,
    pub attempt: u64,
    pub why: String,
}

impl Stop {
    /// Stops the latest attempt of a member.
    pub(super) fn of(terminal: &str, member: &Member, why: &str) -> Option<Stop> {
        Some(Stop { terminal: terminal.into(), attempt: member.attempt?, why: why.into() })
    }
}

impl Effects {
    pub(super) fn and(&mut self, other: Effects) {
        self.changes.extend(other.changes);
        self.stops.extend(other.stops);
    }
}

/// A job with its terminals.
#[derive(Debug, Clone, PartialEq)]
struct Entry {
    job: Job,
    /// By the terminals' names in calls.
    members: BTreeMap<String, Member>,
    /// What terminals that asked in this run's window were told last.
    asked: BTreeMap<String, Told>,
}

/// What a terminal that asked was told.
#[derive(Debug, Clone, PartialEq)]
struct Told {
    /// Why it may not begin.
    why: String,
    /// The time of day at which it asks again, if it was told one.
    again: Option<String>,
}

/// A right to one place of a wave.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Lease {
    job: u64,
    /// When the attempt was taken first, if lost answers let the terminal take again.
    began: Duration,
    renewed: Duration,
    /// A report has come.
    reported: bool,
    /// Its image is on the disk; only the outcome is missing.
    committed: bool,
}

impl Lease {
    /// Whether a terminal that takes now most likely did not get the answer to its call before.
    fn repeats(&self, now: Duration) -> bool {
        !self.reported && now.saturating_sub(self.began) < REPEATS
    }
}

/// All jobs.
#[derive(Debug, Default)]
pub struct Jobs {
    entries: BTreeMap<u64, Entry>,
    last_number: u64,
    /// The jobs of each terminal.
    of_terminal: HashMap<String, BTreeSet<u64>>,
    /// The leases of terminals under way. A restart renews them all, because the server heard nobody
    /// meanwhile.
    leases: HashMap<String, Lease>,
    /// Terminals that were sent the agent for these jobs and have taken nothing yet: their places are kept.
    granted: Coming<u64>,
    /// Since when each terminal is being woken.
    woken: HashMap<String, Duration>,
}

impl Jobs {
    /// The jobs from their stored state. `committed_before` adds what the attempts know.
    pub fn restore(now: Duration, stored: Vec<(Job, Vec<(String, Member)>)>) -> Self {
        let mut jobs = Jobs::default();
        for (job, members) in stored {
            for (terminal, member) in &members {
                if member.state == State::Running {
                    let lease =
                        Lease { job: job.number, began: now, renewed: now, reported: true, committed: false };
                    jobs.leases.insert(terminal.clone(), lease);
                }
            }
            jobs.insert(Entry { job, members: members.into_iter().collect(), asked: BTreeMap::new() });
        }
        jobs
    }

    /// A terminal said before this start of the server that its image is on the disk.
    pub(crate) fn committed_before(&mut self, terminal: &str, attempt: u64) {
        let number = self.job_of(terminal, attempt);
        if let Some(lease) = self.leases.get_mut(terminal).filter(|lease| Some(lease.job) == number) {
            lease.committed = true;
        }
    }

    fn insert(&mut self, entry: Entry) {
        let number = entry.job.number;
        self.last_number = self.last_number.max(number);
        for terminal in entry.members.keys() {
            self.of_terminal.entry(terminal.clone()).or_default().insert(number);
        }
        self.entries.insert(number, entry);
    }

    /// Puts a job that was checked into force.
    pub fn add(&mut self, job: Job, terminals: &BTreeSet<String>, at: &Moment) -> Effects {
        let since = job.created;
        let members = terminals.iter().map(|id| (id.clone(), Member::waiting(since))).collect();
        let mut entry = Entry { job, members, asked: BTreeMap::new() };
        entry.open(at);
        let mut changes = vec![JobChange::Job(Box::new(entry.job.clone()))];
        changes.extend(entry.members.keys().map(|id| entry.change(id)));
        self.insert(entry);
        Effects { changes, stops: Vec::new() }
    }

    /// The number of the next job.
    pub fn next_number(&self) -> u64 {
        self.last_number + 1
    }

    /// The job with this number.
    pub fn get(&self, number: u64) -> Option<&Job> {
        self.entries.get(&number).map(|entry| &entry.job)
    }

    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Job> {
        self.entries.values().map(|entry| &entry.job)
    }

    /// The terminals of a job, by name.
    pub fn members(&self, number: u64) -> impl Iterator<Item = (&str, &Member)> {
        let entry = self.entries.get(&number);
        entry.into_iter().flat_map(|entry| entry.members.iter().map(|(id, member)| (id.as_str(), member)))
    }

    /// A terminal's place in a job.
    pub fn member(&self, number: u64, terminal: &str) -> Option<&Member> {
        self.entries.get(&number)?.members.get(terminal)
    }

    /// All jobs of a terminal with its place in each, the oldest first.
    pub fn of(&self, terminal: &str) -> impl DoubleEndedIterator<Item = (&Job, &Member)> {
        let numbers = self.of_terminal.get(terminal).into_iter().flatten();
        let entries = numbers.filter_map(|number| self.entries.get(number));
        let terminal = terminal.to_owned();
        entries.filter_map(move |entry| Some((&entry.job, entry.members.get(&terminal)?)))
    }

    /// The place that says most about a terminal: where it is under way or may begin, else where something
    /// happened last, else what is planned.
    pub fn current(&self, terminal: &str) -> Option<(&Job, &Member)> {
        let weight = |(job, member): &(&Job, &Member)| {
            let open = job.run.phase == Phase::Open && !member.state.is_final();
            let planned = job.run.phase == Phase::Planned;
            (member.state == State::Running, open, !planned, member.since, job.number)
        };
        self.of(terminal).max_by_key(weight)
    }

    /// Forgets jobs that were over before this time, but for the latest one, as the database does.
    pub(crate) fn forget_older(&mut self, before: Duration) {
        let (before, latest) = (stamp(before), self.last_number);
        let old = |job: &Job| job.is_over() && job.run.closes < before && job.number < latest;
        let gone: Vec<u64> = self.iter().filter(|job| old(job)).map(|job| job.number).collect();
        for number in gone {
            self.entries.remove(&number);
            self.of_terminal.values_mut().for_each(|numbers| {
                numbers.remove(&number);
            });
        }
    }

    /// The job in which this terminal holds a lease.
    #[cfg(test)]
    pub(crate) fn lease_of(&self, terminal: &str) -> Option<u64> {
        self.leases.get(terminal).map(|lease| lease.job)
    }

    /// Whether a job is still to come or under way for this terminal.
    pub(crate) fn is_wanted(&self, terminal: &str) -> bool {
        self.of(terminal).any(|(job, member)| !member.state.is_final() || job.next.is_some())
    }

    /// Forgets a terminal.
    pub fn forget(&mut self, terminal: &str) {
        for number in self.of_terminal.remove(terminal).into_iter().flatten() {
            if let Some(entry) = self.entries.get_mut(&number) {
                entry.members.remove(terminal);
                entry.asked.remove(terminal);
            }
        }
        self.leases.remove(terminal);
        self.granted.came(terminal);
        self.woken.remove(terminal);
    }
}

impl Entry {
    /// The place of one terminal, to be stored.
    fn change(&self, terminal: &str) -> JobChange {
        let member = self.members.get(terminal).cloned();
        let member = Box::new(member.unwrap_or_else(|| Member::waiting(self.job.created)));
        JobChange::Member {
            job: self.job.number,
            run: self.job.run.number,
            terminal: terminal.into(),
            member,
        }
    }

    /// The places of these terminals, and the job if its phase follows from them.
    fn changes(&mut self, terminals: &[String]) -> Vec<JobChange> {
        let mut changes: Vec<JobChange> = terminals.iter().map(|id| self.change(id)).collect();
        let over = self.members.values().all(|member| member.state.is_final());
        let phase = match self.job.run.phase {
            Phase::Open if over => Phase::Over,
            // An attempt that was given up has come back.
            Phase::Over if !over => Phase::Open,
            same => same,
        };
        if phase != self.job.run.phase {
            self.job.run.phase = phase;
            changes.push(JobChange::Job(Box::new(self.job.clone())));
        }
        changes
    }
}
