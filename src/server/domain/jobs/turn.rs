//! Whose turn it is: offers, and places of a wave. `lease` has what becomes of a terminal that has begun.
//!
//! Invariant: nobody begins outside of a window, nor when the forecast says that the rest of it is too short.
//! A terminal whose disk this run left half written may finish within two hours after the window, unless the
//! job says stop. An open single job goes before a standing one, also while it lets the terminal wait.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp, Zoned};

use super::{Effects, Entry, Job, Jobs, LEASE, Lease, Member, Moment, Overrun, Phase, State, Told};
use crate::server::domain::target::Target;
use crate::server::domain::times;

/// How long a terminal that is being woken keeps a place of the wave.
const WAKING: Duration = Duration::from_secs(300);

/// How long after the window a terminal may finish that was cut off.
const FINISHING: SignedDuration = SignedDuration::from_hours(2);

/// What a terminal may do now.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Offer {
    /// No job is for it now.
    Nothing,
    /// A job is for it, but not yet: why, for people.
    Later(String),
    /// It waits only for a place of a wave: why, for people.
    Queued(String),
    /// It may begin.
    Now(Target),
}

/// A member's window as a person may have changed it.
pub(super) fn closes(job: &Job, member: &Member) -> Timestamp {
    member.until.unwrap_or(job.run.closes)
}

impl Entry {
    /// May this member begin now, places of the wave aside? `Err` says why not, for people.
    /// `tries` are the attempts that count against it.
    fn may_begin(&self, member: &Member, tries: u32, half_written: bool, at: &Moment) -> Result<(), String> {
        let (job, date) = (&self.job, at.date.timestamp());
        if job.run.phase == Phase::Planned || member.until.is_none() && date < job.run.opens {
            let opens = times::minute(job.run.opens, at.date.time_zone());
            return Err(format!("job {} opens on {opens}", job.number));
        }
        if tries >= job.pace.attempts {
            return Err(format!("it was interrupted {tries} times in a row"));
        }
        if self.may_finish(member, half_written, date) {
            return Ok(());
        }
        let left = closes(job, member).duration_since(date).as_secs();
        if left <= 0 {
            return Err(format!("the window of job {} is over", job.number));
        }
        let needs = i64::try_from(job.needs).unwrap_or(i64::MAX);
        if left < needs {
            let (left, needs) = (left.div_euclid(60), needs.div_euclid(60) + 1);
            return Err(format!("the window ends in {left} min and imaging takes about {needs} min"));
        }
        Ok(())
    }

    /// Whether a terminal that this run left half written may come back although the window ends: for two
    /// hours, because a person may use it later.
    pub(super) fn may_finish(&self, member: &Member, half_written: bool, date: Timestamp) -> bool {
        let until = closes(&self.job, member).checked_add(FINISHING).unwrap_or(Timestamp::MAX);
        let writes = !self.job.terms.preflight;
        writes && half_written && member.tries > 0 && self.job.pace.overrun == Overrun::Finish && date < until
    }
}

impl Jobs {
    /// The jobs in which this terminal has no final state, the one that goes first before the others:
    /// open ones before planned ones, a single job before a standing one.
    fn unfinished(&self, terminal: &str) -> Vec<&Entry> {
        let numbers = self.of_terminal.get(terminal).into_iter().flatten();
        let mut entries: Vec<&Entry> = numbers
            .filter_map(|number| self.entries.get(number))
            .filter(|entry| entry.members.get(terminal).is_some_and(|member| !member.state.is_final()))
            .collect();
        entries.sort_by_key(|e| (e.job.run.phase == Phase::Planned, e.job.standing.is_some(), e.job.number));
        entries
    }

    /// May this terminal begin in this job now, places of the wave aside? `Err` says why not, for people.
    fn may_take(&self, entry: &Entry, terminal: &str, half_written: bool, at: &Moment) -> Result<(), String> {
        let member = entry.members.get(terminal).ok_or("it is not in the job")?;
        let repeats = u32::from(self.repeats(terminal, entry.job.number, at.now));
        entry.may_begin(member, member.tries.saturating_sub(repeats), half_written, at)
    }

    /// Would a take of this job be the same attempt, because the answer to the take before was lost?
    pub(super) fn repeats(&self, terminal: &str, job: u64, now: Duration) -> bool {
        self.leases.get(terminal).is_some_and(|lease| lease.job == job && lease.repeats(now))
    }

    /// What `terminal` may do now. A terminal that asks while it holds a lease has restarted. One whose image
    /// was committed is done when its lease ends, and a person may use the new system already.
    pub(crate) fn offer(&self, terminal: &str, half_written: bool, at: &Moment) -> Offer {
        if self.leases.get(terminal).is_some_and(|lease| lease.committed) {
            return Offer::Nothing;
        }
        // The reason of the job that goes first.
        let mut first = Offer::Nothing;
        for entry in self.unfinished(terminal) {
            let waits = match self.may_take(entry, terminal, half_written, at) {
                Ok(()) if self.has_place(entry, terminal, at.now) => {
                    return Offer::Now(Target { job: entry.job.name(), terms: entry.job.terms.clone() });
                }
                Ok(()) => {
                    let (number, wave) = (entry.job.number, entry.job.pace.wave.unwrap_or_default());
                    Offer::Queued(format!(
                        "job {number} images {wave} terminals at a time, and all places are taken"
                    ))
                }
                Err(reason) => Offer::Later(reason),
            };
            if first == Offer::Nothing {
                first = waits;
            }
            let alone = entry.job.standing.is_none() && !entry.job.terms.preflight;
            if alone && entry.job.run.phase == Phase::Open {
                break;
            }
        }
        first
    }

    fn has_place(&self, entry: &Entry, terminal: &str, now: Duration) -> bool {
        let Some(wave) = entry.job.pace.wave else { return true };
        self.taken(entry.job.number, Some(terminal), now) < usize::try_from(wave).unwrap_or(usize::MAX)
    }

    /// Places of a job's wave that others than `but` hold.
    pub(super) fn taken(&self, job: u64, but: Option<&str>, now: Duration) -> usize {
        let other = |id: &String| Some(id.as_str()) != but;
        let live = |lease: &Lease| lease.job == job && now.saturating_sub(lease.renewed) < LEASE;
        let leases = self.leases.iter().filter(|(id, lease)| other(id) && live(lease)).count();
        let coming = self
            .granted
            .iter(now)
            .filter(|(id, of)| Some(*id) != but && **of == job && !self.leases.contains_key(*id));
        leases + coming.map(|(id, _)| id).collect::<BTreeSet<&str>>().len()
    }

    /// A terminal was sent the agent for `job`, because `owner` asked in its name: its place is kept while it
    /// starts.
    pub(crate) fn grant(&mut self, terminal: &str, job: &str, owner: IpAddr, now: Duration) {
        let Ok(number) = job.parse() else { return };
        self.granted.sent(now, owner, terminal, number);
    }

    /// A terminal asked, and was told `why` it may not begin. It explains what becomes of the terminal in the
    /// windows that are open, and in no later one.
    pub(crate) fn asked(&mut self, terminal: &str, why: &str) {
        for number in self.of_terminal.get(terminal).into_iter().flatten() {
            let Some(entry) = self.entries.get_mut(number) else { continue };
            let waits = entry.members.get(terminal).is_some_and(|member| member.state == State::Waiting);
            if waits && entry.job.run.phase == Phase::Open {
                entry.asked.insert(terminal.into(), Told { why: why.into(), again: None });
            }
        }
    }

    /// Drops what the terminal was told: it no longer explains its state.
    pub(super) fn forget_answers(&mut self, terminal: &str) {
        for number in self.of_terminal.get(terminal).into_iter().flatten() {
            if let Some(entry) = self.entries.get_mut(number) {
                entry.asked.remove(terminal);
            }
        }
    }

    /// A terminal asked, and was told `why` `job` has nothing for it before `again`.
    pub(crate) fn put_off(&mut self, terminal: &str, job: &str, why: &str, again: &Zoned) {
        self.asked(terminal, why);
        let entry = job.parse().ok().and_then(|number: u64| self.entries.get_mut(&number));
        if let Some(told) = entry.and_then(|entry| entry.asked.get_mut(terminal)) {
            told.again = Some(again.strftime("%H:%M:%S %:z").to_string());
        }
    }

    /// Why a terminal that asked still waits for job `number`, and until when if that is known.
    pub(crate) fn why_not_yet(&self, terminal: &str, number: u64) -> Option<String> {
        let Told { why, again } = self.entries.get(&number)?.asked.get(terminal)?;
        let again = again.as_ref().map(|again| format!("; asked again at {again}")).unwrap_or_default();
        Some(format!("{why}{again}"))
    }

    /// A terminal spoke: it is awake.
    pub(crate) fn spoke(&mut self, terminal: &str) -> Effects {
        self.woken.remove(terminal);
        let mut effects = Effects::default();
        for number in self.of_terminal.get(terminal).into_iter().flatten() {
            let Some(entry) = self.entries.get_mut(number) else { continue };
            let open = entry.job.run.phase == Phase::Open;
            let Some(member) = entry.members.get_mut(terminal) else { continue };
            if open && !member.heard && !member.state.is_final() {
                member.heard = true;
                effects.changes.push(entry.change(terminal));
            }
        }
        effects
    }

    /// The terminals that should be switched on now: the first ones that have not spoken, as many as the
    /// wave has places. One that does not answer for [`WAKING`] gives its place to the next and is woken
    /// beside it.
    pub(crate) fn wanted_awake(&mut self, at: &Moment) -> Vec<String> {
        let mut wanted = Vec::new();
        for (number, entry) in &self.entries {
            if !entry.job.pace.wake || entry.job.run.phase != Phase::Open {
                continue;
            }
            let wave =
                entry.job.pace.wave.map_or(usize::MAX, |wave| usize::try_from(wave).unwrap_or(usize::MAX));
            let mut free = wave.saturating_sub(self.taken(*number, None, at.now));
            for (id, member) in &entry.members {
                let asleep = member.state == State::Waiting && !member.heard;
                if !asleep || entry.may_begin(member, member.tries, false, at).is_err() {
                    continue;
                }
                let since = self.woken.get(id).copied();
                let late = since.is_some_and(|since| at.now.saturating_sub(since) >= WAKING);
                if !late && free == 0 {
                    continue;
                }
                if !late {
                    free -= 1;
                }
                self.woken.entry(id.clone()).or_insert(at.now);
                wanted.push(id.clone());
            }
        }
        wanted
    }
}
