//! Decisions about one terminal: does a job wait for it, what does it boot, may it leave the swarm.
//!
//! Invariant: pure functions of the latest attempt, what the configuration wants now, and the time. A disk that is
//! half written is never booted: once an attempt has touched it, only a later attempt that is done makes it whole.

use std::time::Duration;

use super::config::{ImageRef, Job};
use crate::api::{Compare, TerminalState};
use crate::event::{Class, Installed, Outcome, Progress, Stage};

/// An attempt that says nothing for so long is interrupted: switched off, or cut off.
pub const SILENCE: Duration = Duration::from_secs(60);
/// A terminal that was sent the agent and has not spoken is expected for so long.
pub const COMING: Duration = Duration::from_secs(180);
/// So many attempts are made by themselves when they fail with `Class::Retry`.
pub const TRIES: u32 = 3;

/// One try of a job on one terminal.
#[derive(Debug, Clone, PartialEq)]
pub struct Attempt {
    /// Unique on the server, growing.
    pub number: u64,
    /// Must come with every report.
    pub token: String,
    /// The job's name.
    pub job: String,
    /// The image.
    pub image: String,
    /// The version.
    pub version: String,
    /// `name@version` of further images for further disks.
    pub also: Vec<String>,
    /// When it began.
    pub started: Duration,
    /// When it was last heard.
    pub heard: Duration,
    /// Its latest report.
    pub progress: Option<Progress>,
    /// When its outcome came.
    pub ended: Option<Duration>,
    /// How it ended.
    pub outcome: Option<Outcome>,
    /// 1 for the first of a row of attempts at the same thing that were made without a person.
    pub tries: u32,
    /// The disk was already half written when it began.
    pub dirty: bool,
    /// A person wants another attempt whatever came of this one.
    pub retried: bool,
    /// What becomes of what is on the disk then, if the person said so.
    pub retried_as: Option<Compare>,
    /// What was on the terminal's disks when it began, as far as is known.
    pub installed: Vec<Installed>,
    /// A person wants it to stop.
    pub cancelled: bool,
}

impl Attempt {
    /// `name@version` of each image, the one that starts first.
    pub fn image_ids(&self) -> Vec<String> {
        let first = format!("{}@{}", self.image, self.version);
        std::iter::once(first).chain(self.also.iter().cloned()).collect()
    }

    /// The same for people.
    pub fn title(&self) -> String {
        self.image_ids().join(" + ")
    }

    /// Under way, and heard lately.
    pub fn is_live(&self, now: Duration) -> bool {
        self.outcome.is_none() && now.saturating_sub(self.heard) < SILENCE
    }

    /// Does the disk hold half a system because of it, or since before it?
    pub fn leaves_half_a_system(&self) -> bool {
        match &self.outcome {
            Some(Outcome::Done { .. }) => false,
            Some(Outcome::Failed { disk_touched, .. }) => *disk_touched || self.dirty,
            None => self.dirty || self.progress.as_ref().is_some_and(|p| p.stage >= Stage::Disarm),
        }
    }

    /// What is on the terminal's disks after it, as far as is known: a disk that was touched is no record's.
    pub fn leaves_installed(&self) -> Vec<Installed> {
        match &self.outcome {
            Some(Outcome::Done { installed: new, .. }) => {
                let others = self.installed.iter().filter(|old| !new.iter().any(|new| new.disk == old.disk));
                others.chain(new).cloned().collect()
            }
            Some(Outcome::Failed { disk_touched: false, .. }) if !self.dirty => self.installed.clone(),
            // What was heard last says too little: the next thing may have been the disarm.
            _ => Vec::new(),
        }
    }

    fn is_for(&self, target: &Target) -> bool {
        self.job == target.job.name && self.image_ids() == target.image_ids()
    }
}

/// What the configuration wants of a terminal now.
#[derive(Debug, Clone, PartialEq)]
pub struct Target {
    /// The job.
    pub job: Job,
    /// Its image.
    pub image: String,
    /// The version that this means now.
    pub version: String,
    /// The versions that the job's further images mean now, in its order.
    pub also: Vec<ImageRef>,
}

impl Target {
    /// `name@version` of each image, the one that starts first.
    pub fn image_ids(&self) -> Vec<String> {
        let first = format!("{}@{}", self.image, self.version);
        std::iter::once(first).chain(self.also.iter().map(ImageRef::to_string)).collect()
    }

    /// The same for people.
    pub fn title(&self) -> String {
        self.image_ids().join(" + ")
    }
}

/// Does work wait for the terminal when it asks?
pub fn waits(last: Option<&Attempt>, target: Option<&Target>) -> bool {
    let Some(target) = target else { return false };
    let Some(last) = last.filter(|last| !last.retried && last.is_for(target)) else { return true };
    match &last.outcome {
        None => true,
        Some(Outcome::Done { .. }) => false,
        Some(Outcome::Failed { failure, .. }) => {
            failure.class == Class::Retry && last.tries < TRIES && !last.cancelled
        }
    }
}

/// Where the terminal stands, for people.
pub fn state(last: Option<&Attempt>, target: Option<&Target>, now: Duration) -> TerminalState {
    let waits = waits(last, target);
    match last {
        Some(last) if last.is_live(now) => TerminalState::Imaging,
        Some(last) if last.outcome.is_none() && !last.retried => TerminalState::Interrupted,
        _ if waits => TerminalState::Waiting,
        Some(Attempt { outcome: Some(Outcome::Done { .. }), .. }) => TerminalState::Done,
        Some(Attempt { outcome: Some(Outcome::Failed { .. }), .. }) => TerminalState::Failed,
        _ => TerminalState::Idle,
    }
}

/// What a terminal that netboots does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AtBoot {
    /// Work waits: boot the agent.
    Agent,
    /// Nothing to do: boot from the disk.
    Disk,
    /// The disk holds half a system and nothing will mend it by itself.
    Hold {
        /// Why.
        error: String,
        /// What a person should do.
        advice: String,
    },
}

/// Decides what a netbooting terminal does.
pub fn at_boot(id: &str, last: Option<&Attempt>, target: Option<&Target>) -> AtBoot {
    if waits(last, target) {
        return AtBoot::Agent;
    }
    let Some(last) = last.filter(|last| last.leaves_half_a_system()) else { return AtBoot::Disk };
    let again = format!("Then run on the server: flashmob job retry {id}");
    match &last.outcome {
        Some(Outcome::Failed { failure, .. }) => {
            AtBoot::Hold { error: failure.message.clone(), advice: format!("{} {again}", failure.advice) }
        }
        _ => AtBoot::Hold {
            error: format!("writing {} was interrupted, and no job is assigned any more", last.title()),
            advice: format!("Assign a job to this terminal in the server's configuration. {again}"),
        },
    }
}

/// Number in the row of attempts without a person, for the attempt that begins now.
pub fn tries_of_next(last: Option<&Attempt>, target: &Target) -> u32 {
    match last {
        Some(last) if last.is_for(target) && !last.retried => match &last.outcome {
            Some(Outcome::Failed { .. }) => last.tries.saturating_add(1),
            _ => last.tries,
        },
        _ => 1,
    }
}

/// What becomes of what is on the disk, in the attempt that begins now. What an interrupted attempt at the same thing wrote is
/// looked for: it is not discarded and fetched twice.
pub fn compare_of_next(last: Option<&Attempt>, target: &Target) -> Compare {
    match last {
        Some(last) if last.retried => last.retried_as.unwrap_or(target.job.compare),
        Some(last) if last.is_for(target) && last.leaves_half_a_system() => Compare::Auto,
        _ => target.job.compare,
    }
}

/// May a terminal that is done leave the swarm? Yes when nobody fetches the same image any more: no other attempt at it
/// is live, and no terminal that was just sent the agent is expected.
pub fn may_leave<'a>(
    me: &Attempt,
    mut others: impl Iterator<Item = &'a Attempt>,
    mut coming: impl Iterator<Item = &'a (Duration, String)>,
    now: Duration,
) -> bool {
    let mine = me.image_ids();
    let fetches = |other: &Attempt| other.image_ids().iter().any(|image| mine.contains(image));
    me.outcome.is_some()
        && !others.any(|other| other.number != me.number && other.is_live(now) && fetches(other))
        && !coming.any(|(since, what)| mine.contains(what) && now.saturating_sub(*since) < COMING)
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::event::Failure;

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn target(version: &str) -> Target {
        let image = "debian".parse().expect("valid");
        let job = Job { name: "lab".into(), ..Job::by_hand(image) };
        Target { job, image: "debian".into(), version: version.into(), also: Vec::new() }
    }

    fn attempt(outcome: Option<Outcome>) -> Attempt {
        Attempt {
            number: 1,
            token: "t".into(),
            job: "lab".into(),
            image: "debian".into(),
            version: "1".into(),
            also: Vec::new(),
            started: at(1000),
            heard: at(1000),
            progress: None,
            ended: outcome.as_ref().map(|_| at(1000)),
            outcome,
            tries: 1,
            dirty: false,
            retried: false,
            retried_as: None,
            installed: Vec::new(),
            cancelled: false,
        }
    }

    /// A good outcome for tests.
    pub fn done() -> Outcome {
        let installed =
            Installed { image: "debian".into(), version: "1".into(), disk: "sda".into(), partitions: None };
        Outcome::Done {
            seconds: 60,
            bytes_in: 1,
            bytes_out: 2,
            disk: "sda".into(),
            installed: vec![installed],
        }
    }

    /// A bad outcome for tests.
    pub fn failed(class: Class, disk_touched: bool) -> Outcome {
        let failure = Failure::new(class, "writing sda failed", "Replace the disk.");
        Outcome::Failed { stage: Stage::Fetch, failure, disk_touched }
    }

    fn in_stage(stage: Stage) -> Attempt {
        Attempt { progress: Some(Progress::at(stage)), ..attempt(None) }
    }

    #[test]
    fn a_terminal_without_a_job_boots_its_disk_untouched() {
        assert_eq!(state(None, None, at(0)), TerminalState::Idle);
        assert_eq!(at_boot("x", None, None), AtBoot::Disk);
    }

    #[test]
    fn a_job_waits_until_it_is_done() {
        let target = target("1");
        assert_eq!(state(None, Some(&target), at(0)), TerminalState::Waiting);
        assert_eq!(at_boot("x", None, Some(&target)), AtBoot::Agent);
        let done = attempt(Some(done()));
        assert_eq!(state(Some(&done), Some(&target), at(1000)), TerminalState::Done);
        assert_eq!(at_boot("x", Some(&done), Some(&target)), AtBoot::Disk);
        assert_eq!(state(Some(&done), None, at(1000)), TerminalState::Done);
    }

    #[test]
    fn a_new_version_or_a_person_makes_it_wait_again() {
        let done = attempt(Some(done()));
        assert!(waits(Some(&done), Some(&target("2"))));
        assert_eq!(state(Some(&done), Some(&target("2")), at(1000)), TerminalState::Waiting);
        let retried = Attempt { retried: true, ..done };
        assert!(waits(Some(&retried), Some(&target("1"))));
        assert_eq!(tries_of_next(Some(&retried), &target("1")), 1);
    }

    #[test]
    fn a_new_version_of_a_further_image_makes_it_wait_again() {
        let of = |data: &str| Target { also: vec![data.parse().expect("valid")], ..target("1") };
        let done = Attempt { also: vec!["data@1".into()], ..attempt(Some(done())) };
        assert!(!waits(Some(&done), Some(&of("data@1"))));
        assert!(waits(Some(&done), Some(&of("data@2"))) && waits(Some(&done), Some(&target("1"))));
        assert_eq!(
            (done.title(), of("data@2").title()),
            ("debian@1 + data@1".into(), "debian@1 + data@2".into())
        );
    }

    #[test]
    fn an_attempt_is_imaging_while_heard_and_interrupted_when_silent() {
        let (running, target) = (in_stage(Stage::Fetch), target("1"));
        assert_eq!(state(Some(&running), Some(&target), at(1059)), TerminalState::Imaging);
        assert_eq!(state(Some(&running), Some(&target), at(1060)), TerminalState::Interrupted);
        // Whoever netboots is not imaging, whatever was heard a second ago.
        assert_eq!(at_boot("x", Some(&running), Some(&target)), AtBoot::Agent);
        assert_eq!(tries_of_next(Some(&running), &target), 1);
    }

    #[test]
    fn failures_that_may_pass_are_tried_three_times_and_others_once() {
        let target = target("1");
        let mut last = attempt(Some(failed(Class::Retry, true)));
        for tries in 1..TRIES {
            assert_eq!(last.tries, tries);
            assert_eq!(state(Some(&last), Some(&target), at(1000)), TerminalState::Waiting);
            last.tries = tries_of_next(Some(&last), &target);
        }
        assert_eq!(state(Some(&last), Some(&target), at(1000)), TerminalState::Failed);
        for class in [Class::Usage, Class::Refused, Class::Untrusted, Class::Disk] {
            let last = attempt(Some(failed(class, false)));
            assert_eq!(state(Some(&last), Some(&target), at(1000)), TerminalState::Failed, "{class:?}");
        }
    }

    #[test]
    fn a_failure_before_the_first_write_boots_the_old_system() {
        let last = attempt(Some(failed(Class::Refused, false)));
        assert_eq!(at_boot("x", Some(&last), Some(&target("1"))), AtBoot::Disk);
    }

    #[test]
    fn half_a_system_is_never_booted() {
        let held = |last: &Attempt, target: Option<&Target>| matches!(at_boot("lab-01", Some(last), target), AtBoot::Hold { advice, .. } if advice.contains("job retry lab-01"));
        assert!(held(&attempt(Some(failed(Class::Disk, true))), Some(&target("1"))));
        // Interrupted, and then the job was taken away.
        assert!(held(&in_stage(Stage::Disarm), None));
        assert!(!held(&in_stage(Stage::Claim), None));
        // The next attempt failed before it touched anything: the disk is still what the first one left.
        let refused = attempt(Some(failed(Class::Refused, false)));
        assert!(held(&Attempt { dirty: true, ..refused }, Some(&target("1"))));
        assert!(!held(&Attempt { dirty: true, ..attempt(Some(done())) }, None));
    }

    #[test]
    fn a_terminal_leaves_when_nobody_fetches_its_image_any_more() {
        let me = attempt(Some(done()));
        let other = Attempt { number: 2, ..in_stage(Stage::Fetch) };
        let leaves = |others: &[&Attempt], coming: &[(Duration, String)], now| {
            may_leave(&me, others.iter().copied(), coming.iter(), at(now))
        };
        assert!(leaves(&[&me], &[], 1000));
        assert!(!leaves(&[&me, &other], &[], 1000));
        assert!(leaves(&[&me, &other], &[], 1060), "the other one is silent");
        assert!(leaves(&[&Attempt { version: "2".into(), ..other.clone() }], &[], 1000));
        assert!(leaves(&[&Attempt { outcome: Some(done()), ..other.clone() }], &[], 1000));
        assert!(!leaves(&[], &[(at(900), "debian@1".into())], 1000), "one is on its way");
        assert!(leaves(&[], &[(at(900), "debian@2".into()), (at(820), "debian@1".into())], 1000));
        let both = Attempt { version: "2".into(), also: vec!["debian@1".into()], ..other };
        assert!(!leaves(&[&me, &both], &[], 1000), "it fetches this one for another disk");
        let unfinished = attempt(None);
        assert!(!may_leave(&unfinished, [].into_iter(), [].into_iter(), at(1000)));
    }

    #[test]
    fn a_record_of_a_disk_holds_until_something_is_written_there() {
        let on = |version: &str, disk: &str| Installed {
            image: "debian".into(),
            version: version.into(),
            disk: disk.into(),
            partitions: None,
        };
        let before = vec![on("0", "sda"), on("7", "sdb")];
        let after = |outcome, dirty| {
            Attempt { installed: before.clone(), dirty, ..attempt(outcome) }.leaves_installed()
        };
        assert_eq!(after(Some(done()), true), [on("7", "sdb"), on("1", "sda")]);
        assert_eq!(after(Some(failed(Class::Refused, false)), false), before);
        assert_eq!(after(Some(failed(Class::Refused, false)), true), []);
        assert_eq!(after(Some(failed(Class::Disk, true)), false), []);
        assert_eq!(after(None, false), [], "nobody knows how far it came");
    }

    #[test]
    fn an_interrupted_attempt_is_resumed_by_looking_whatever_the_job_says() {
        let mut target = target("1");
        target.job.compare = Compare::Full;
        let of = |last: Option<&Attempt>| compare_of_next(last, &target);
        assert_eq!(of(None), Compare::Full);
        assert_eq!(of(Some(&in_stage(Stage::Fetch))), Compare::Auto);
        assert_eq!(of(Some(&in_stage(Stage::Claim))), Compare::Full);
        assert_eq!(of(Some(&Attempt { version: "0".into(), ..in_stage(Stage::Fetch) })), Compare::Full);
        let retried = Attempt { retried: true, ..attempt(Some(failed(Class::Disk, true))) };
        assert_eq!(of(Some(&retried)), Compare::Full, "a person may mean it");
        let trusting = Attempt { retried_as: Some(Compare::Trust), ..retried };
        assert_eq!(of(Some(&trusting)), Compare::Trust);
    }

    #[test]
    fn a_cancelled_attempt_does_not_start_again_by_itself() {
        let last = Attempt { cancelled: true, ..attempt(Some(failed(Class::Retry, true))) };
        assert!(!waits(Some(&last), Some(&target("1"))));
    }
}
