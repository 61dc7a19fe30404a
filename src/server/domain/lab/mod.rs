//! All terminals as the server knows them, in memory: their identities and attempts.
//!
//! `terminal` is one terminal, `bounds` cuts their statements, `secrets` says who may speak for them, `cards`
//! which network cards are certainly theirs,
//! `reports` takes their attempts' reports and answers with orders, `decisions` carries out administrators'
//! decisions, `forget` removes terminals, `namesakes` finds terminals that share a UUID, `registered` applies
//! what people say of terminals, `captured` keeps captures, `personal` keeps how much systems are their
//! terminals' own, `restart` corrects stored times, `retention` says what is old enough to go.
//!
//! Invariant: each terminal has at most one current attempt; the numbers of known and of expected terminals
//! are bounded. Time, tokens and targets come in as arguments; changes go out as [`Change`]s, which `store`
//! keeps.

mod bounds;
mod captured;
mod cards;
mod decisions;
mod forget;
mod namesakes;
mod personal;
mod registered;
mod reports;
mod restart;
mod retention;
mod secrets;
mod terminal;
#[cfg(test)]
mod tests;
mod work;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::time::Duration;

use uuid::Uuid;

use crate::api::Hello;
use crate::image_id::ImageId;
use crate::layout::known;
use crate::server::domain::attempt::Attempt;
use crate::server::domain::audit;
use crate::server::domain::captures::{self, Captures};
use crate::server::domain::coming::Coming;
use crate::server::domain::identity::{self, Identity, Known, Mac};
use crate::server::domain::jobs::{JobChange, Jobs};
use crate::server::domain::limits;
use crate::server::domain::people::Person;
use crate::server::domain::target::Target;
use crate::server::domain::tickets;
pub(crate) use bounds::{line, sentence};
pub(crate) use cards::own_of_older;
use namesakes::Namesakes;
pub use namesakes::{first_of, some_of};
pub(crate) use personal::NotBooted;
pub use reports::ReportError;
pub use secrets::{Admitted, Held, NotAdmitted, Voucher};
pub use terminal::Terminal;
pub(crate) use terminal::{date, stages};
pub(crate) use work::{Begun, Netboot};

/// A hello that says nothing new within this time after the last call is not stored.
const REPEATED: Duration = Duration::from_secs(60);

/// Most terminals that are remembered.
pub(crate) const MAX_TERMINALS: usize = 10_000;

/// A change to be stored.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// A terminal is new or says something new of itself.
    Terminal(Box<Terminal>),
    /// An attempt began or went on.
    Attempt(String, Box<Attempt>),
    /// A terminal has another secret, or uses it for the first time.
    Secret(String, Held),
    /// The key of the server's tickets.
    TicketKey(tickets::Key),
    /// A person has a token.
    Person(Box<Person>),
    /// The token with this name is no longer valid.
    Revoke(String),
    /// What a person did.
    Audit(audit::Entry),
    /// The log of an attempt, a zstd frame, in place of an earlier one.
    Log { attempt: u64, received: Duration, packed: Vec<u8> },
    /// A terminal is unknown again, and its attempts are deleted.
    Forget(String),
    /// Something about a job.
    Job(JobChange),
    /// A terminal is to be captured, or no longer.
    Capture(String, Option<Box<captures::Request>>),
    /// Attempts that ended before this time are deleted, but for the last one of each terminal. An attempt
    /// stays as long as one with a lower number does, because a wrong date must not make it older than that.
    Expire { ended_before: Duration },
}

/// Why a terminal that introduces itself is not known afterwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotKnown {
    /// It has neither a MAC nor a UUID.
    Nameless,
    /// [`MAX_TERMINALS`] are known, and a disk of each depends on it.
    Full,
}

#[derive(Debug, Default)]
pub struct Lab {
    terminals: BTreeMap<String, Terminal>,
    by_attempt: HashMap<u64, String>,
    last_number: u64,
    namesakes: Namesakes,
    /// Terminals that were sent the agent for these images and have taken nothing yet.
    coming: Coming<Vec<ImageId>>,
    /// What netbooting terminals were told last, and when that was logged.
    told: HashMap<String, (String, Duration)>,
    netboots: HashMap<String, Netboot>,
    /// Where half-written terminals spoke from before they said hello from another address.
    moved: HashMap<String, String>,
    jobs: Jobs,
    /// When the progress of each attempt was written down last.
    written: HashMap<u64, Duration>,
    /// Between the last time that an earlier run wrote down and the start.
    unwritten: Duration,
    secrets: secrets::Secrets,
    /// Terminals that lend their disks; no job begins on them.
    pub(crate) captures: Captures,
}

impl Lab {
    /// The lab from its stored state, at `now` of this start's clock. `last_number` is the highest attempt
    /// number ever given. The changes are corrected times.
    pub fn restore(now: Duration, mut terminals: Vec<Terminal>, last_number: u64) -> (Self, Vec<Change>) {
        let unwritten =
            restart::last_time(&terminals).map_or(Duration::ZERO, |last| now.saturating_sub(last));
        let changes = restart::correct(now, &mut terminals);
        let by_attempt =
            terminals.iter().filter_map(|t| Some((t.last.as_ref()?.number, t.id.clone()))).collect();
        let mut namesakes = Namesakes::default();
        terminals.iter().for_each(|t| namesakes.note(&t.id, None, &t.identity));
        let terminals = terminals.into_iter().map(|t| (t.id.clone(), t)).collect();
        (Lab { terminals, by_attempt, last_number, namesakes, unwritten, ..Lab::default() }, changes)
    }

    /// Puts the stored jobs into force, at the start.
    pub(crate) fn restore_jobs(&mut self, jobs: Jobs) {
        self.jobs = jobs;
        for (id, terminal) in &self.terminals {
            let last = terminal.last.as_ref().filter(|last| last.outcome.is_none() && last.was_committed());
            if let Some(last) = last {
                self.jobs.committed_before(id, last.number);
            }
        }
    }

    pub fn jobs(&self) -> &Jobs {
        &self.jobs
    }

    /// The terminal with this name.
    pub fn get(&self, id: &str) -> Option<&Terminal> {
        self.terminals.get(id)
    }

    /// The terminal whose current attempt has this number.
    pub(crate) fn of_attempt(&self, number: u64) -> Option<&str> {
        self.by_attempt.get(&number).map(String::as_str)
    }

    /// Has the terminal itself said how this attempt ended?
    pub(crate) fn has_outcome(&self, number: u64) -> bool {
        let last = self.of_attempt(number).and_then(|id| self.get(id)?.last.as_ref());
        last.is_some_and(|last| last.outcome.is_some() && !last.cancelled)
    }

    /// Terminals that are known, and those of them that are imaging.
    pub(crate) fn count(&self, now: Duration) -> (usize, usize) {
        let live = self.terminals.values().filter(|t| t.last.as_ref().is_some_and(|a| a.is_live(now)));
        (self.terminals.len(), live.count())
    }

    pub fn iter(&self) -> impl Iterator<Item = &Terminal> {
        self.terminals.values()
    }

    /// Which terminal is this?
    pub fn find(&self, who: &Identity, now: Duration) -> Option<&Terminal> {
        self.find_by(who, None, now)
    }

    /// The same for a caller with a ticket for the MAC `vouched`.
    fn find_by(&self, who: &Identity, vouched: Option<Mac>, now: Duration) -> Option<&Terminal> {
        // Only these can be it: looking at all would make the hellos of strangers expensive.
        let sharing: BTreeSet<&str> = self.namesakes.sharing(who).collect();
        let known = sharing.iter().filter_map(|id| self.terminals.get(*id)).map(|t| Known {
            id: &t.id,
            identity: &t.identity,
            own: &t.own_macs,
            accepted: t.accepted,
            silent: t.silent(now).map_or(u64::MAX, |silent| silent.as_secs()),
        });
        let found = identity::find(known, who, vouched).and_then(|id| self.terminals.get(id));
        found.or_else(|| self.listed_by_uuid(who))
    }

    /// The terminal that a person listed by this UUID alone, until a machine has come as it. The next one
    /// with the same UUID is another machine.
    fn listed_by_uuid(&self, who: &Identity) -> Option<&Terminal> {
        let uuid = who.uuid?;
        let orders = [uuid, Uuid::from_bytes(uuid.to_bytes_le())];
        let mut listed = orders.iter().filter_map(|uuid| self.terminals.get(&uuid.to_string()));
        listed.find(|t| t.heard.is_none() && t.identity.macs.is_empty())
    }

    /// The terminal `id`, or somebody in its name, was sent the agent at `from`, to fetch `images`.
    pub(crate) fn expect(&mut self, now: Duration, id: &str, from: IpAddr, images: Vec<ImageId>) {
        self.coming.sent(now, limits::owner(from), id, images);
    }

    /// A terminal introduces itself. A new one may take the place of one that never took a job.
    pub fn hello(
        &mut self,
        now: Duration,
        address: String,
        hello: Hello,
    ) -> Result<(String, Vec<Change>), NotKnown> {
        let who = Identity::new(&hello.macs, hello.uuid.as_deref());
        let known = self.find(&who, now).map(|terminal| terminal.id.clone());
        self.hello_as(now, address, hello, known, who)
    }

    /// The same for a terminal that is the one called `known`, or new, with the names `who`.
    pub fn hello_as(
        &mut self,
        now: Duration,
        address: String,
        hello: Hello,
        known: Option<String>,
        who: Identity,
    ) -> Result<(String, Vec<Change>), NotKnown> {
        let mut changes = Vec::new();
        let id = match known.filter(|id| self.terminals.contains_key(id)) {
            Some(known) => known,
            None => {
                let id = self.new_id(&who, |_| false).ok_or(NotKnown::Nameless)?;
                if self.terminals.len() >= MAX_TERMINALS {
                    changes.push(self.forget_the_least(now).ok_or(NotKnown::Full)?);
                }
                id
            }
        };
        self.note_move(&id, &address);
        let before = self.terminals.get(&id);
        // All its names may have become those of others.
        let who = Some(who).filter(|who| *who != Identity::default());
        let who = who.or_else(|| before.map(|t| t.identity.clone())).unwrap_or_default();
        let own_macs = cards::own_after(before, &who);
        // Otherwise a stranger with a ticket would make the real machine, which has it, another one.
        let uuid = before.filter(|t| t.accepted).and_then(|t| t.identity.uuid).or(who.uuid);
        let who = cards::with_own(Identity { uuid, ..who }, &own_macs);
        self.namesakes.note(&id, before.map(|t| &t.identity), &who);
        let last = before.and_then(|t| t.last.clone());
        let inventory = bounds::inventory(hello.inventory);
        let known = before.map_or(&[][..], |t| &t.known_disks);
        let mut known_disks = known::remember(known, &inventory.disks);
        known_disks.truncate(bounds::MAX_PARTS);
        let terminal = Terminal {
            id: id.clone(),
            identity: who,
            own_macs,
            known_disks,
            chosen: before.map(|t| t.chosen.clone()).unwrap_or_default(),
            inventory,
            agent: bounds::word(hello.agent),
            address: Some(address),
            first: before.filter(|t| t.heard.is_some()).map_or(Some(now), |t| t.first),
            heard: Some(now),
            place: before.map(|t| t.place.clone()).unwrap_or_default(),
            accepted: before.is_some_and(|t| t.accepted),
            last,
        };
        let repeats = before.is_some_and(|before| {
            let heard = before.heard.filter(|heard| now.saturating_sub(*heard) < REPEATED);
            heard.is_some() && *before == Terminal { heard, ..terminal.clone() }
        });
        self.terminals.insert(id.clone(), terminal.clone());
        if !repeats {
            changes.push(Change::Terminal(Box::new(terminal)));
        }
        changes.extend(self.jobs.spoke(&id).changes.into_iter().map(Change::Job));
        Ok((id, changes))
    }

    /// A half-written terminal that speaks from another address may be somebody else.
    fn note_move(&mut self, id: &str, address: &str) {
        let Some(before) = self.terminals.get(id) else { return };
        if self.moved.get(id).is_some_and(|earlier| earlier == address) {
            self.moved.remove(id);
        } else if let (Some(earlier), true) = (&before.address, self.is_half_written(id))
            && earlier != address
        {
            self.moved.entry(id.into()).or_insert(earlier.clone());
        }
    }

    /// A name for a new terminal that no other one has, also none of the `reserved`.
    fn new_id(&self, who: &Identity, reserved: impl Fn(&str) -> bool) -> Option<String> {
        let mac = who.macs.first().map(ToString::to_string);
        let name = mac.or_else(|| who.uuid.map(|uuid| uuid.to_string()))?;
        let free = |id: &String| !self.terminals.contains_key(id) && !reserved(id);
        std::iter::once(name.clone()).chain((2..).map(|n| format!("{name}-{n}"))).find(free)
    }

    /// A terminal takes `target`: a new attempt begins. Without a token it is one that a person made, and the
    /// terminal has not spoken.
    pub fn take(
        &mut self,
        now: Duration,
        id: &str,
        target: &Target,
        token: String,
    ) -> Option<(Attempt, Vec<Change>)> {
        let terminal = self.terminals.get_mut(id)?;
        let last = terminal.last.take();
        let mut changes = Vec::new();
        self.last_number += 1;
        let attempt = Attempt::after(last.as_ref(), self.last_number, token, target, now);
        if let Some(mut old) = last {
            self.by_attempt.remove(&old.number);
            self.written.remove(&old.number);
            old.ended.get_or_insert(now);
            changes.push(Change::Attempt(id.into(), Box::new(old)));
        }
        if !attempt.token.is_empty() {
            terminal.heard = Some(now);
        }
        terminal.last = Some(attempt.clone());
        self.coming.came(id);
        self.by_attempt.insert(attempt.number, id.into());
        self.written.insert(attempt.number, now);
        changes.push(Change::Attempt(id.into(), Box::new(attempt.clone())));
        Some((attempt, changes))
    }
}
