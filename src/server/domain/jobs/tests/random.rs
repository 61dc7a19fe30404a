//! Random nights: what must hold in any order of events.

use super::*;

/// One step of a random night.
#[derive(Debug, Clone)]
enum Event {
    Take(usize),
    Report(usize),
    Committed(usize),
    Outcome(usize, bool),
    Cancel(usize),
    CancelJob,
    Retry(usize),
    Restart,
    Pass(u64),
    Jump(i64),
}

fn event() -> impl Strategy<Value = Event> {
    let who = 0..4usize;
    prop_oneof![
        4 => who.clone().prop_map(Event::Take),
        4 => who.clone().prop_map(Event::Report),
        1 => who.clone().prop_map(Event::Committed),
        3 => (who.clone(), any::<bool>()).prop_map(|(id, good)| Event::Outcome(id, good)),
        1 => who.clone().prop_map(Event::Cancel),
        1 => Just(Event::CancelJob),
        2 => who.prop_map(Event::Retry),
        2 => Just(Event::Restart),
        4 => (1..200u64).prop_map(Event::Pass),
        1 => (-40_000..40_000i64).prop_map(Event::Jump),
    ]
}

/// The database: the latest value of each row.
#[derive(Default)]
struct Rows {
    job: Option<Job>,
    members: BTreeMap<String, Member>,
}

impl Rows {
    fn write(&mut self, effects: &Effects) {
        for change in &effects.changes {
            match change {
                JobChange::Job(job) => self.job = Some((**job).clone()),
                JobChange::Member { terminal, member, .. } => {
                    self.members.insert(terminal.clone(), (**member).clone());
                }
            }
        }
    }
}

proptest! {
    /// In any order of events: never two live leases of a terminal, never more than the wave has places,
    /// never a terminal that is done twice without a person, and no acknowledged word lost by a restart.
    #[test]
    fn a_random_night_keeps_its_promises(events in prop::collection::vec(event(), 1..120), wave in 1..4u32) {
        let mut lab = Jobs::default();
        let mut order = job(1, 1000, 1000 + 10 * HOUR);
        order.pace.wave = Some(wave);
        let mut rows = Rows::default();
        rows.write(&lab.add(order, &names(4), &moment(1000)));
        let (mut now, mut shift, mut number) = (1000u64, 0i64, 0u64);
        // The last attempt of each terminal, whether its outcome is known, and how often a person said so.
        let mut last = [(0u64, true); 4];
        let (mut finished, mut allowed) = ([0u32; 4], [1u32; 4]);
        for event in events {
            let date = u64::try_from(i64::try_from(now).unwrap() + shift).unwrap_or(0);
            let here = Moment { now: at(now), date: moment(date).date };
            let effects = match &event {
                Event::Take(i) => {
                    let id = format!("t{i}");
                    let Offer::Now(target) = lab.offer(&id, false, &here) else { continue };
                    prop_assert!(lab.taken(1, Some(&id), at(now)) < wave as usize, "the wave is full");
                    number += 1;
                    last[*i] = (number, false);
                    lab.take(&id, &target.job, number, at(now))
                }
                Event::Report(i) if !last[*i].1 => lab.renew(&format!("t{i}"), last[*i].0, false, at(now)),
                Event::Committed(i) if !last[*i].1 => lab.renew(&format!("t{i}"), last[*i].0, true, at(now)),
                Event::Outcome(i, good) if !last[*i].1 => {
                    let outcome: Outcome = if *good { done() } else { failed(Class::Retry, true) };
                    last[*i].1 = true;
                    finished[*i] += u32::from(*good);
                    let effects = lab.outcome(&format!("t{i}"), last[*i].0, &outcome, at(now));
                    if *good {
                        prop_assert_eq!(state(&lab, &format!("t{i}")), State::Done);
                    }
                    effects
                }
                Event::Cancel(i) => lab.cancel_terminal(&format!("t{i}"), &here).unwrap_or_default(),
                Event::CancelJob => lab.cancel(1, &here).unwrap_or_default(),
                Event::Retry(i) => match lab.retry(1, Which::Named(&[format!("t{i}")]), None, &here) {
                    Ok((_, effects)) => {
                        allowed[*i] = finished[*i] + 1;
                        effects
                    }
                    Err(_) => continue,
                },
                Event::Restart => {
                    let members = rows.members.clone().into_iter().collect();
                    let stored = rows.job.clone().map(|job| (job, members));
                    lab = Jobs::restore(at(now), stored.into_iter().collect());
                    Effects::default()
                }
                Event::Pass(seconds) => {
                    now += seconds;
                    Effects::default()
                }
                Event::Jump(seconds) => {
                    shift += seconds;
                    Effects::default()
                }
                _ => continue,
            };
            rows.write(&effects);
            let date = u64::try_from(i64::try_from(now).unwrap() + shift).unwrap_or(0);
            let here = Moment { now: at(now), date: moment(date).date };
            rows.write(&lab.tick(&here, &|_| false, &|_| None));
            for i in 0..4 {
                prop_assert!(finished[i] <= allowed[i], "t{i} was imaged twice");
                let id = format!("t{i}");
                let member = lab.member(1, &id).expect("in it");
                prop_assert_eq!(Some(member), rows.members.get(&id), "what is stored is what holds");
                prop_assert_eq!(lab.leases.contains_key(&id), member.state == State::Running);
            }
            prop_assert_eq!(lab.get(1), rows.job.as_ref());
        }
    }
}
