//! Random nights: what must hold in any order of events, even when answers are lost and when the server ends
//! before it has written what nobody was told.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::server::domain::jobs::{Job, Member, Moment, Overrun, Phase, Which, stamp};
use crate::server::domain::target::BY_HAND;
use crate::server::domain::targets::Meant;
use crate::testkit::lab::standing;

const HOUR: u64 = 3600;
const SINGLE: u64 = 1;
const NIGHTLY: u64 = 2;
const NEEDS: u64 = 900;

/// One step of a random night.
#[derive(Debug, Clone)]
enum Event {
    /// A terminal boots from the network and takes what is for it.
    Boot(usize),
    ByHand(usize),
    Report(usize, Stage),
    /// An attempt ends as well as it can, or fails.
    Outcome(usize, Option<Class>),
    CancelTerminal(usize),
    CancelJob(u64),
    /// Of one terminal, or of all that have not succeeded.
    Retry(u64, Option<usize>),
    Restart,
    Pass(u64),
    /// The machine's date is set.
    Jump(i64),
}

fn event() -> impl Strategy<Value = Event> {
    let who = || 0..3usize;
    let job = || SINGLE..=NIGHTLY;
    let stage = prop::sample::select(vec![Stage::Claim, Stage::Disarm, Stage::Fetch, Stage::Serve]);
    let class = prop::option::of(prop::sample::select(vec![Class::Retry, Class::Retry, Class::Disk]));
    prop_oneof![
        6 => who().prop_map(Event::Boot),
        1 => who().prop_map(Event::ByHand),
        6 => (who(), stage).prop_map(|(who, stage)| Event::Report(who, stage)),
        3 => (who(), class).prop_map(|(who, class)| Event::Outcome(who, class)),
        1 => who().prop_map(Event::CancelTerminal),
        1 => job().prop_map(Event::CancelJob),
        2 => (job(), prop::option::of(who())).prop_map(|(job, who)| Event::Retry(job, who)),
        2 => Just(Event::Restart),
        4 => (1..70u64).prop_map(Event::Pass),
        2 => (1..10 * HOUR).prop_map(Event::Pass),
        1 => (-40_000..40_000i64).prop_map(Event::Jump),
    ]
}

fn name(i: usize) -> String {
    format!("52:54:00:00:00:0{i}")
}

/// The database: the latest value of each row.
#[derive(Debug, Clone, Default)]
struct Rows {
    terminals: BTreeMap<String, Terminal>,
    attempts: BTreeMap<u64, (String, Attempt)>,
    jobs: BTreeMap<u64, Job>,
    /// By job, run and terminal.
    members: BTreeMap<(u64, u32, String), Member>,
}

impl Rows {
    fn write(&mut self, changes: Vec<Change>) {
        for change in changes {
            match change {
                Change::Terminal(terminal) => {
                    self.terminals.insert(terminal.id.clone(), *terminal);
                }
                Change::Attempt(id, attempt) => {
                    self.attempts.insert(attempt.number, (id, *attempt));
                }
                Change::Job(JobChange::Job(job)) => {
                    self.jobs.insert(job.number, *job);
                }
                Change::Job(JobChange::Member { job, run, terminal, member }) => {
                    self.members.insert((job, run, terminal), *member);
                }
                other => panic!("{other:?}"),
            }
        }
    }

    /// The server's next start.
    fn restore(&self, now: u64) -> (Lab, Vec<Change>) {
        let mut terminals = self.terminals.clone();
        for (id, attempt) in self.attempts.values() {
            terminals.get_mut(id).expect("stored").last = Some(attempt.clone());
        }
        let number = self.attempts.keys().last().copied().unwrap_or(0);
        let (mut lab, changes) = Lab::restore(at(now), terminals.into_values().collect(), number);
        let of = |job: &Job| {
            let rows =
                self.members.iter().filter(|((of, run, _), _)| (*of, *run) == (job.number, job.run.number));
            rows.map(|((_, _, id), member)| (id.clone(), member.clone())).collect()
        };
        let stored = self.jobs.values().map(|job| (job.clone(), of(job))).collect();
        lab.restore_jobs(Jobs::restore(at(now), stored));
        (lab, changes)
    }
}

/// What was promised. A server that ends before it has written a word has promised nothing.
#[derive(Debug, Clone, Default)]
struct Promises {
    /// The image is on the disk of this terminal by this run of a job: it never begins again by itself.
    imaged: BTreeSet<(usize, u64, u32)>,
    /// A person has taken this terminal out of this job.
    out: BTreeSet<(usize, u64)>,
    /// Attempts that a person stopped.
    stopped: BTreeSet<u64>,
    /// Disks that hold half a system.
    half: BTreeSet<usize>,
}

/// An agent at work, and how its attempt ended.
#[derive(Debug, Clone)]
struct Agent {
    number: u64,
    job: Option<u64>,
    stage: Stage,
    end: Option<Outcome>,
}

struct Night {
    lab: Lab,
    now: u64,
    /// The machine's date, from `now`.
    shift: i64,
    agents: [Option<Agent>; 3],
    written: (Rows, Promises),
    /// With what is still to be written.
    latest: (Rows, Promises),
}

impl Night {
    fn new(wave: u32, overrun: [Overrun; 2]) -> Night {
        let now = 20 * HOUR;
        let mut night = Night {
            lab: Lab::default(),
            now,
            shift: 0,
            agents: [const { None }; 3],
            written: Default::default(),
            latest: Default::default(),
        };
        let all: BTreeSet<String> = (0..3).map(name).collect();
        for id in &all {
            let (_, changes) = night.lab.hello(at(now), String::new(), hello_of(id)).expect("room");
            night.latest.0.write(changes);
        }
        let orders = [job(SINGLE, now, now + 6 * HOUR), standing(job(NIGHTLY, 22 * HOUR, 30 * HOUR))];
        for (mut order, overrun) in orders.into_iter().zip(overrun) {
            (order.pace.wave, order.pace.overrun, order.needs) = (Some(wave), overrun, NEEDS);
            let changes = night.lab.add_job(order, &all, &night.here());
            night.latest.0.write(changes);
        }
        night.written = night.latest.clone();
        night
    }

    fn date(&self) -> u64 {
        self.now.saturating_add_signed(self.shift)
    }

    fn here(&self) -> Moment {
        Moment { now: at(self.now), date: moment(self.date()).date }
    }

    fn member(&self, i: usize, job: u64) -> &Member {
        self.lab.jobs().member(job, &name(i)).expect("in it")
    }

    fn run(&self, job: u64) -> u32 {
        self.lab.jobs().get(job).expect("there").run.number
    }

    /// Has this agent's attempt an outcome that it told itself, or is it another one's turn?
    fn is_open(&self, i: usize, number: u64) -> bool {
        let last = self.lab.get(&name(i)).and_then(|terminal| terminal.last.as_ref());
        last.is_some_and(|last| last.number == number && last.outcome.is_none())
    }

    /// What the server says to `event`. `heard`: the one who caused it gets the answer, so that everything is
    /// written before.
    fn step(&mut self, event: &Event, heard: bool) -> Result<(), TestCaseError> {
        let changes = match event {
            Event::Boot(i) => self.boot(*i, heard)?,
            Event::ByHand(i) => {
                let target = Target { job: BY_HAND.into(), ..target() };
                self.begin(*i, target, None, heard)
            }
            Event::Report(i, stage) => self.report(*i, *stage)?,
            Event::Outcome(i, class) => self.outcome(*i, *class, heard)?,
            Event::CancelTerminal(i) => self.cancel_terminal(*i),
            Event::CancelJob(job) => self.cancel_job(*job),
            Event::Retry(job, who) => self.retry(*job, *who),
            Event::Restart => {
                self.latest = self.written.clone();
                (self.now, self.shift) = (self.date(), 0);
                let (lab, changes) = self.written.0.restore(self.now);
                self.lab = lab;
                changes
            }
            Event::Pass(seconds) => {
                self.now += seconds;
                Vec::new()
            }
            Event::Jump(seconds) => {
                self.shift += seconds;
                Vec::new()
            }
        };
        self.latest.0.write(changes);
        if heard {
            self.written = self.latest.clone();
        }
        let changes = self.lab.tick(&self.here(), &|_| None);
        self.latest.0.write(changes);
        self.check()
    }

    fn boot(&mut self, i: usize, heard: bool) -> Result<Vec<Change>, TestCaseError> {
        self.agents[i] = None;
        let (id, here) = (name(i), self.here());
        match self.lab.next_step(&id, &here) {
            AtBoot::Agent(_) => {}
            AtBoot::Disk => {
                prop_assert!(!self.latest.1.half.contains(&i), "half a system is never booted");
                return Ok(Vec::new());
            }
            AtBoot::Hold { .. } => {
                prop_assert!(self.latest.1.half.contains(&i), "a whole system is never held");
                return Ok(Vec::new());
            }
            _ => return Ok(Vec::new()),
        }
        let Offer::Now(target) = self.lab.offer(&id, &here) else { panic!("it was sent the agent") };
        let number: u64 = target.job.parse().expect("a number");
        let promises = &self.latest.1;
        prop_assert!(!promises.imaged.contains(&(i, number, self.run(number))), "{id} is imaged twice");
        prop_assert!(!promises.out.contains(&(i, number)), "a person took {id} out of job {number}");
        let job = self.lab.jobs().get(number).expect("there");
        let others =
            (0..3).filter(|other| *other != i && self.member(*other, number).state == State::Running);
        prop_assert!(others.count() < job.pace.wave.unwrap_or(9) as usize, "the wave is full");
        let (member, date) = (self.member(i, number), stamp(at(self.date())));
        let ends = member.until.unwrap_or(job.run.closes);
        let comes_back =
            self.lab.is_half_written(&id) && member.tries > 0 && job.pace.overrun == Overrun::Finish;
        let ends = if comes_back { ends + at(2 * HOUR) } else { ends - at(NEEDS) };
        prop_assert!(date <= ends && (member.until.is_some() || job.run.opens <= date), "{member:?} {job:?}");
        Ok(self.begin(i, target, Some(number), heard))
    }

    fn begin(&mut self, i: usize, target: Target, job: Option<u64>, heard: bool) -> Vec<Change> {
        let begun = self.lab.begin(&name(i), target, "token".into(), at(self.now)).expect("known");
        let agent = Agent { number: begun.attempt.number, job, stage: Stage::Discover, end: None };
        self.agents[i] = Some(agent).filter(|_| heard);
        begun.changes
    }

    fn report(&mut self, i: usize, stage: Stage) -> Result<Vec<Change>, TestCaseError> {
        let Some(mut agent) = self.agents[i].clone() else { return Ok(Vec::new()) };
        let ended = agent.end.is_some();
        if !ended {
            agent.stage = agent.stage.max(stage);
        }
        let progress = Progress::at(agent.stage);
        let answer = self.lab.progress(at(self.now), agent.number, "token", progress, &Ties::default());
        let Ok((orders, changes)) = answer else {
            self.agents[i] = None;
            return Ok(Vec::new());
        };
        let promises = &mut self.latest.1;
        let must_stop = !ended && promises.stopped.contains(&agent.number);
        prop_assert!(orders.cancel || !must_stop, "a person stopped it");
        match agent.stage {
            Stage::Serve => promises.half.remove(&i),
            stage => stage >= Stage::Disarm && promises.half.insert(i),
        };
        self.agents[i] = Some(agent.clone());
        if let Some(job) = agent.job.filter(|_| agent.stage == Stage::Serve) {
            let member = self.member(i, job);
            if member.state == State::Running && member.attempt == Some(agent.number) {
                self.imaged(i, job);
            }
        }
        Ok(changes)
    }

    /// The image of this job's run is on a terminal's disk.
    fn imaged(&mut self, i: usize, job: u64) {
        let run = self.run(job);
        self.latest.1.imaged.insert((i, job, run));
    }

    fn outcome(&mut self, i: usize, class: Option<Class>, heard: bool) -> Result<Vec<Change>, TestCaseError> {
        let Some(mut agent) = self.agents[i].clone() else { return Ok(Vec::new()) };
        let outcome = match (agent.end.clone(), class) {
            (Some(told), _) => told,
            (None, Some(class)) if agent.stage < Stage::Serve => failed(class, agent.stage >= Stage::Disarm),
            (None, _) => done(),
        };
        agent.end = Some(outcome.clone());
        if let Outcome::Done { .. } = outcome {
            agent.stage = Stage::Serve;
        }
        let open = self.is_open(i, agent.number);
        let place = agent.job.map(|job| self.member(i, job).attempt == Some(agent.number));
        let nightly = self.lab.jobs().get(NIGHTLY).is_some_and(|job| job.run.phase == Phase::Open)
            && self.member(i, NIGHTLY).state == State::Waiting;
        let good = matches!(outcome, Outcome::Done { .. });
        let answer = self.lab.outcome(at(self.now), agent.number, "token", outcome, &Ties::default());
        self.agents[i] = Some(agent.clone()).filter(|_| !heard);
        let Ok((_, changes)) = answer else {
            self.agents[i] = None;
            return Ok(Vec::new());
        };
        match good {
            true => self.latest.1.half.remove(&i),
            false => agent.stage >= Stage::Disarm && self.latest.1.half.insert(i),
        };
        if let (Some(job), Some(true), true, true) = (agent.job, place, good, open) {
            prop_assert_eq!(self.member(i, job).state, State::Done);
            self.imaged(i, job);
            if job == SINGLE && nightly {
                self.imaged(i, NIGHTLY);
            }
        }
        Ok(changes)
    }

    /// A person stops the attempt of this terminal, if it is of this job.
    fn stops(&mut self, i: usize, job: u64) {
        let Some(Agent { number, stage, .. }) = self.agents[i] else { return };
        let member = self.member(i, job);
        // One whose image is on the disk is done.
        let done = member.state == State::Done || member.state == State::Running && stage == Stage::Serve;
        if member.attempt == Some(number) && !done && self.is_open(i, number) {
            self.latest.1.stopped.insert(number);
        }
    }

    fn cancel_terminal(&mut self, i: usize) -> Vec<Change> {
        let id = name(i);
        let wanted =
            |(job, member): &(&Job, &Member)| !member.out && (!member.state.is_final() || job.next.is_some());
        let jobs: Vec<u64> = self.lab.jobs().of(&id).filter(wanted).map(|(job, _)| job.number).collect();
        for job in &jobs {
            self.stops(i, *job);
            self.latest.1.out.insert((i, *job));
        }
        let answer = self.lab.cancel(&self.here(), &id);
        assert_eq!(answer.is_err(), jobs.is_empty());
        answer.unwrap_or_default()
    }

    fn cancel_job(&mut self, job: u64) -> Vec<Change> {
        if self.lab.jobs().get(job).expect("there").is_over() {
            return Vec::new();
        }
        for i in 0..3 {
            self.stops(i, job);
            self.latest.1.out.insert((i, job));
        }
        self.lab.cancel_job(job, &self.here()).expect("not over")
    }

    fn retry(&mut self, job: u64, who: Option<usize>) -> Vec<Change> {
        let named = who.map(|i| Meant::each([name(i)]));
        let which = named.as_ref().map_or(Which::Unsuccessful, Which::Named);
        let (each, changes) = self.lab.retry_job(job, which, None, &self.here());
        let begins = |i: &usize| each.iter().any(|(id, answer)| *id == name(*i) && answer.is_ok());
        for i in (0..3).filter(begins) {
            self.latest.1.out.remove(&(i, job));
            self.latest.1.imaged.retain(|(who, of, _)| (*who, *of) != (i, job));
        }
        changes
    }

    /// What holds at each moment.
    fn check(&self) -> Result<(), TestCaseError> {
        let date = stamp(at(self.date()));
        for i in 0..3 {
            let id = name(i);
            for number in [SINGLE, NIGHTLY] {
                let (job, member) = (self.lab.jobs().get(number).expect("there"), self.member(i, number));
                let leased = self.lab.jobs().lease_of(&id) == Some(number);
                prop_assert_eq!(leased, member.state == State::Running, "one lease, and in one job");
                prop_assert!(member.tries <= job.pace.attempts);
                // Of one whose image is on the disk only the outcome is missing.
                let last = self.lab.get(&id).and_then(|terminal| terminal.last.as_ref());
                let committed = last.is_some_and(Attempt::was_committed);
                let goes_on =
                    member.state == State::Running && job.pace.overrun == Overrun::Stop && !committed;
                prop_assert!(!goes_on || date < member.until.unwrap_or(job.run.closes), "it says stop");
                let row = self.latest.0.members.get(&(number, job.run.number, id.clone()));
                prop_assert_eq!(Some(member), row, "what is stored is what holds");
                prop_assert_eq!(Some(job), self.latest.0.jobs.get(&number));
            }
            let last = self.lab.get(&id).and_then(|terminal| terminal.last.as_ref());
            let row = last.and_then(|last| self.latest.0.attempts.get(&last.number));
            let outcome = row.map(|(_, attempt)| attempt.outcome.as_ref());
            prop_assert_eq!(last.map(|last| last.outcome.as_ref()), outcome);
        }
        for ((job, run, id), member) in &self.latest.0.members {
            let ended = *run < self.run(*job);
            prop_assert!(!ended || member.state.is_final(), "run {} has ended for {}: {:?}", run, id, member);
        }
        Ok(())
    }
}

fn overrun() -> impl Strategy<Value = Overrun> {
    prop_oneof![Just(Overrun::Finish), Just(Overrun::Stop)]
}

proptest! {
    /// In any order of events: nobody is imaged twice without a person, begins outside of a window or beyond
    /// the wave, or boots half a system; who was stopped stops; no acknowledged word is lost by a restart.
    #[test]
    fn a_random_night_keeps_its_promises(
        events in prop::collection::vec((event(), any::<bool>()), 1..150),
        wave in 1..4u32,
        overruns in [overrun(), overrun()],
    ) {
        let mut night = Night::new(wave, overruns);
        for (event, heard) in events {
            night.step(&event, heard)?;
        }
    }
}
