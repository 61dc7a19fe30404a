//! The lab in calls: terminals that come, image themselves, and are stopped and started by people.

mod cut_off;
mod random;

use super::bounds::{MAX_PARTS, MAX_WORD};
use super::*;
use crate::api::{DiskInfo, Neighbour, NicInfo, Orders, TerminalState};
use crate::event::{CheckFinding, Chosen, Class, DiskIdentity, Outcome, Progress, Stage};
use crate::image_id::ImageId;
use crate::server::domain::jobs::{AtBoot, Offer, State};
use crate::server::domain::ties::Ties;
use crate::testkit::lab::{at, hello_of, job, moment, target};
use crate::testkit::lab::{checked, done, failed};
use crate::tracker::{Topology, Zone};

pub(super) const A: &str = "52:54:00:00:00:0a";
pub(super) const B: &str = "52:54:00:00:00:0b";

pub(super) fn lab() -> Lab {
    let mut lab = Lab::default();
    for mac in [A, B] {
        lab.hello(at(0), "10.0.0.9".into(), hello_of(mac)).expect("room");
    }
    lab.add_job(job(1, 0, 1_000_000), &[A, B].map(String::from).into(), &moment(0));
    lab
}

/// Takes what the job offers, else the same by hand.
pub(super) fn begin(lab: &mut Lab, now: u64, id: &str, token: &str) -> u64 {
    let target = match lab.offer(id, &moment(now)) {
        Offer::Now(target) => target,
        _ => target(),
    };
    lab.begin(id, target, token.into(), at(now)).expect("known").attempt.number
}

fn state(lab: &Lab, id: &str, now: u64) -> TerminalState {
    let place = lab.jobs().current(id);
    lab.get(id).expect("there").view(None, vec![], place, &Ties::default(), at(now)).state
}

#[test]
fn a_terminal_that_says_hello_again_is_the_same_one() {
    let mut lab = lab();
    let number = begin(&mut lab, 1, A, "t");
    let (id, _) = lab.hello(at(5), "10.0.0.10".into(), hello_of(A)).expect("room");
    assert_eq!((id.as_str(), lab.iter().count()), (A, 2));
    let terminal = lab.get(A).expect("there");
    assert_eq!(terminal.address.as_deref(), Some("10.0.0.10"));
    assert_eq!((terminal.first, terminal.heard), (Some(at(0)), Some(at(5))));
    assert_eq!(terminal.last.as_ref().map(|a| a.number), Some(number));
}

#[test]
fn fixed_disks_are_remembered_until_a_person_accepts_that_they_are_gone() {
    let disk = |serial: &str| DiskInfo { serial: Some(serial.into()), size: 1 << 38, ..DiskInfo::default() };
    let with = |disks: &[&str]| {
        let mut hello = hello_of(A);
        hello.inventory.disks = disks.iter().map(|serial| disk(serial)).collect();
        hello
    };
    let known = |lab: &Lab| {
        let known = &lab.get(A).expect("there").known_disks;
        known.iter().filter_map(|disk| disk.serial.clone()).collect::<Vec<_>>()
    };
    let mut lab = Lab::default();
    let mut hello = with(&["ssd", "hdd"]);
    hello.inventory.disks.push(DiskInfo { removable: true, ..disk("stick") });
    lab.hello(at(0), String::new(), hello).expect("room");
    lab.add_job(job(1, 0, 1_000_000), &[A.to_string()].into(), &moment(0));
    lab.hello(at(1), String::new(), with(&["ssd", "hdd"])).expect("room");
    let (_, changes) = lab.hello(at(1), String::new(), with(&["hdd"])).expect("room");
    assert_eq!(known(&lab), ["hdd", "ssd"], "a dead disk is missed, a stick is not");
    assert!(
        matches!(&changes[..], [Change::Terminal(terminal)] if terminal.known_disks.len() == 2),
        "and written down"
    );

    let refused = begin(&mut lab, 2, A, "one");
    let outcome = failed(Class::Refused, false);
    lab.outcome(at(3), refused, "one", outcome.clone(), &Ties::default()).expect("taken");
    lab.retry(&moment(4), A, None, false).expect("failed");
    let again = begin(&mut lab, 5, A, "two");
    assert_eq!(known(&lab), ["hdd", "ssd"], "trying again accepts nothing");
    lab.outcome(at(6), again, "two", outcome, &Ties::default()).expect("taken");
    lab.retry(&moment(7), A, None, true).expect("failed");
    assert_eq!(known(&lab), ["hdd"], "what the person saw");
    lab.hello(at(8), String::new(), with(&["hdd", "new"])).expect("room");
    assert_eq!(known(&lab), ["hdd", "new"]);
    lab.hello(at(9), String::new(), with(&["hdd"])).expect("room");
    let last = begin(&mut lab, 10, A, "three");
    lab.outcome(at(11), last, "three", done(), &Ties::default()).expect("taken");
    assert_eq!(known(&lab), ["hdd", "new"], "a good outcome is nobody's consent");
}

#[test]
fn the_disk_that_a_rule_chose_is_remembered_through_a_power_cut_until_a_person_accepts_another() {
    let on = |rule: &str, serial: &str| {
        let identity = DiskIdentity { serial: Some(serial.into()), ..DiskIdentity::default() };
        Chosen { rule: rule.into(), disk: serial.into(), identity }
    };
    let mut lab = lab();
    let first = begin(&mut lab, 1, A, "one");
    lab.progress(at(2), first, "one", Progress::at(Stage::Fetch), &Ties::default()).expect("taken");
    let change = lab.chosen(first, vec![on("internal", "ssd"), on("bus=ata", "hdd")]);
    assert!(matches!(change, Some(Change::Terminal(terminal)) if terminal.chosen.len() == 2), "written down");
    // Power cut: no outcome, and the terminal comes back.
    lab.hello(at(100), String::new(), hello_of(A)).expect("room");
    begin(&mut lab, 101, A, "two");
    let chosen = |lab: &Lab| {
        let chosen = &lab.get(A).expect("there").chosen;
        chosen.iter().map(|one| one.disk.clone()).collect::<Vec<_>>()
    };
    assert_eq!(chosen(&lab), ["ssd", "hdd"]);
    lab.retry(&moment(1000), A, None, false).expect("silent for long");
    assert_eq!(lab.jobs().member(1, A).expect("in it").tries, 0);
    assert_eq!(chosen(&lab).len(), 2);
    lab.retry(&moment(1001), A, None, true).expect("silent for long");
    assert!(chosen(&lab).is_empty());
}

#[test]
fn who_has_neither_mac_nor_uuid_is_nobody() {
    assert_eq!(lab().hello(at(0), String::new(), hello_of("no")).err(), Some(NotKnown::Nameless));
}

#[test]
fn only_the_token_of_the_current_attempt_reports() {
    let mut lab = lab();
    let first = begin(&mut lab, 1, A, "one");
    let progress = || Progress::at(Stage::Fetch);
    assert_eq!(
        lab.progress(at(2), first, "two", progress(), &Ties::default()).err(),
        Some(ReportError::WrongToken)
    );
    assert_eq!(
        lab.progress(at(2), 99, "one", progress(), &Ties::default()).err(),
        Some(ReportError::Unknown)
    );
    assert!(lab.progress(at(2), first, "one", progress(), &Ties::default()).is_ok());
    let second = begin(&mut lab, 3, A, "two");
    assert!(second > first);
    assert_eq!(
        lab.progress(at(4), first, "one", progress(), &Ties::default()).err(),
        Some(ReportError::Unknown)
    );
    assert!(lab.get(A).and_then(|t| t.last.as_ref()).expect("attempt").dirty);
}

#[test]
fn progress_is_written_at_each_stage_and_now_and_then() {
    let mut lab = lab();
    let number = begin(&mut lab, 100, A, "t");
    let mut report = |now, stage| {
        let taken = lab.progress(at(now), number, "t", Progress::at(stage), &Ties::default());
        !taken.expect("taken").1.is_empty()
    };
    assert!(report(101, Stage::Claim));
    assert!(!report(102, Stage::Claim));
    assert!(report(103, Stage::Disarm));
    assert!(!report(122, Stage::Disarm));
    assert!(report(123, Stage::Disarm));
}

#[test]
fn the_last_one_releases_all() {
    let mut lab = lab();
    let (a, b) = (begin(&mut lab, 1, A, "a"), begin(&mut lab, 1, B, "b"));
    assert_eq!(lab.outcome(at(2), a, "a", done(), &Ties::default()).expect("taken").0, Orders::default());
    assert!(lab.outcome(at(3), b, "b", done(), &Ties::default()).expect("taken").0.release);
    let serving = Progress::at(Stage::Serve);
    assert!(lab.progress(at(4), a, "a", serving, &Ties::default()).expect("taken").0.release);
}

#[test]
fn a_zone_that_is_done_is_released_but_for_the_gateway_that_others_fetch_through() {
    const C: &str = "52:54:00:00:00:0c";
    let mut lab = Lab::default();
    for (mac, address) in [(A, "10.1.0.1"), (B, "10.1.0.2"), (C, "10.2.0.1")] {
        lab.hello(at(0), address.into(), hello_of(mac)).expect("room");
    }
    let zone = |name: &str, net: &str| Zone::new(name, vec![net.parse().expect("a network")]);
    let zones = vec![zone("one", "10.1.0.0/16"), zone("two", "10.2.0.0/16")];
    let ties = Ties {
        topology: Topology { zones, ..Topology::default() }.into(),
        gateways: [[10, 1, 0, 1].into(), [10, 2, 0, 1].into()].into(),
    };
    let [a, b, c] = [(A, "a"), (B, "b"), (C, "c")].map(|(id, token)| begin(&mut lab, 1, id, token));
    let mut end =
        |now, attempt, token| lab.outcome(at(now), attempt, token, done(), &ties).expect("taken").0.release;
    assert!(!end(2, a, "a"));
    assert!(end(3, b, "b"), "its zone is done, and nobody fetches through it");
    assert!(!end(4, a, "a"), "zone two still fetches through it");
    assert!(end(5, c, "c") && end(6, a, "a"));
}

#[test]
fn one_that_netboots_is_waited_for_until_it_takes() {
    let mut lab = lab();
    let a = begin(&mut lab, 1, A, "a");
    lab.expect(at(2), B, [10, 0, 0, 9].into(), vec![ImageId::new("debian", "1")]);
    assert!(!lab.outcome(at(3), a, "a", done(), &Ties::default()).expect("taken").0.release);
    let b = begin(&mut lab, 4, B, "b");
    lab.outcome(at(5), b, "b", failed(Class::Disk, true), &Ties::default()).expect("taken");
    assert!(
        lab.progress(at(6), a, "a", Progress::at(Stage::Serve), &Ties::default()).expect("taken").0.release
    );
}

#[test]
fn a_hello_that_says_nothing_new_is_not_stored_again_and_again() {
    let mut lab = Lab::default();
    let mut hello = |now, agent: &str| {
        let hello = Hello { agent: agent.into(), ..hello_of(A) };
        lab.hello(at(now), "10.0.0.9".into(), hello).expect("room").1.len()
    };
    assert_eq!([hello(1, "1"), hello(2, "1"), hello(3, "2"), hello(4, "2"), hello(64, "2")], [1, 0, 1, 0, 1]);
}

#[test]
fn the_next_attempt_knows_what_the_last_one_left_on_the_disk() {
    let mut lab = lab();
    let first = begin(&mut lab, 1, A, "a");
    let installed = |lab: &Lab| lab.get(A).and_then(|t| t.last.clone()).expect("attempt").installed;
    assert!(installed(&lab).is_empty());
    lab.outcome(at(2), first, "a", done(), &Ties::default()).expect("taken");
    let second = begin(&mut lab, 3, A, "b");
    assert_eq!(installed(&lab).len(), 1);
    lab.progress(at(4), second, "b", Progress::at(Stage::Fetch), &Ties::default()).expect("taken");
    begin(&mut lab, 5, A, "c");
    assert!(installed(&lab).is_empty(), "half of something");
}

#[test]
fn the_first_outcome_stands_and_is_stored_again_when_it_is_told_again() {
    let mut lab = lab();
    let a = begin(&mut lab, 1, A, "a");
    let stored = |changes: Vec<Change>| {
        let mut stored = (None, None);
        for change in changes {
            match change {
                Change::Attempt(_, attempt) => stored.0 = attempt.outcome,
                Change::Job(JobChange::Member { member, .. }) => stored.1 = Some(member.state),
                _ => {}
            }
        }
        stored
    };
    let first = lab.outcome(at(2), a, "a", done(), &Ties::default()).expect("taken").1;
    assert_eq!(stored(first), (Some(done()), Some(State::Done)));
    // The database may have refused the first one.
    let again = lab.outcome(at(3), a, "a", failed(Class::Disk, true), &Ties::default()).expect("taken").1;
    assert_eq!(stored(again), (Some(done()), Some(State::Done)));
    assert_eq!(lab.get(A).and_then(|t| t.last.clone()).and_then(|a| a.outcome), Some(done()));
}

#[test]
fn a_report_that_the_outcome_overtook_begins_nothing_again() {
    let mut lab = lab();
    let a = begin(&mut lab, 1, A, "a");
    lab.outcome(at(2), a, "a", failed(Class::Disk, true), &Ties::default()).expect("taken");
    lab.progress(at(3), a, "a", Progress::at(Stage::Fetch), &Ties::default()).expect("taken");
    lab.tick(&moment(100), &|_| None);
    assert_eq!(lab.jobs().member(1, A).expect("in it").state, State::Failed);
}

#[test]
fn a_person_can_stop_a_running_one_and_start_it_again() {
    let mut lab = lab();
    let a = begin(&mut lab, 1, A, "a");
    lab.progress(at(2), a, "a", Progress::at(Stage::Fetch), &Ties::default()).expect("taken");
    assert!(lab.retry(&moment(3), A, None, false).is_err(), "imaging now");
    lab.cancel(&moment(3), A).expect("running");
    let (orders, _) =
        lab.progress(at(4), a, "a", Progress::at(Stage::Fetch), &Ties::default()).expect("taken");
    assert!(orders.cancel);
    let attempt = lab.get(A).and_then(|t| t.last.clone()).expect("attempt");
    assert!(attempt.leaves_half_a_system() && lab.offer(A, &moment(4)) == Offer::Nothing);
    lab.retry(&moment(5), A, None, false).expect("stopped");
    assert_eq!(state(&lab, A, 5), TerminalState::Waiting);
}

#[test]
fn a_person_can_keep_a_waiting_one_from_starting() {
    let mut lab = lab();
    let changes = lab.cancel(&moment(1), A).expect("waiting");
    assert!(changes.iter().all(|change| matches!(change, Change::Job(_))), "no attempt is made up");
    assert_eq!(state(&lab, A, 1), TerminalState::Cancelled);
    assert_eq!(lab.offer(A, &moment(1)), Offer::Nothing);
    assert!(lab.cancel(&moment(2), A).is_err(), "nothing left");
    lab.cancel(&moment(2), B).expect("it waits as well");
    assert!(lab.jobs().get(1).expect("there").is_over());
}

#[test]
fn what_terminals_say_is_bounded() {
    let mut lab = lab();
    let mut long = hello_of(A);
    long.inventory.machine = "ä".repeat(100_000);
    long.inventory.disks = vec![Default::default(); 1000];
    let neighbour = Neighbour { name: Some("x".repeat(100_000)), ..Neighbour::default() };
    long.inventory.nics = vec![NicInfo { neighbour: Some(neighbour), ..NicInfo::default() }];
    lab.hello(at(1), String::new(), long).expect("room");
    let inventory = &lab.get(A).expect("there").inventory;
    assert_eq!((inventory.machine.chars().count(), inventory.disks.len()), (MAX_WORD, MAX_PARTS));
    let switch = inventory.nics[0].neighbour.as_ref().expect("kept");
    assert_eq!(switch.name.as_ref().map(String::len), Some(MAX_WORD));
    let a = begin(&mut lab, 1, A, "a");
    let wild = Progress { percent: f32::NAN, ..Progress::at(Stage::Fetch) };
    lab.progress(at(2), a, "a", wild, &Ties::default()).expect("taken");
    let view = lab.get(A).expect("there").view(None, vec![], None, &Ties::default(), at(2));
    assert_eq!(view.progress.map(|p| p.percent), Some(0.0));
}

/// A preflight of A begins at `now`.
fn look(lab: &mut Lab, now: u64) -> u64 {
    let mut target = target();
    target.terms.preflight = true;
    lab.begin(A, target, "look".into(), at(now)).expect("known").attempt.number
}

#[test]
fn a_preflight_leaves_what_is_installed_and_half_written_as_it_was_however_it_ends() {
    let ends: [Option<Outcome>; 3] = [Some(checked(vec![])), Some(failed(Class::Retry, false)), None];
    for (first, dirty) in [(done(), false), (failed(Class::Disk, true), true)] {
        for end in &ends {
            let mut lab = lab();
            let number = begin(&mut lab, 1, A, "one");
            lab.outcome(at(2), number, "one", first.clone(), &Ties::default()).expect("taken");
            let before = lab.get(A).and_then(|a| a.last.as_ref()).expect("there").leaves_installed();
            let number = look(&mut lab, 3);
            lab.progress(at(4), number, "look", Progress::at(Stage::Check), &Ties::default()).expect("taken");
            if let Some(end) = end.clone() {
                lab.outcome(at(5), number, "look", end, &Ties::default()).expect("taken");
            }
            let last = lab.get(A).and_then(|a| a.last.as_ref()).expect("there");
            assert_eq!((last.leaves_half_a_system(), last.leaves_installed()), (dirty, before), "{end:?}");
            let step = lab.next_step(A, &moment(100));
            let held =
                matches!(&step, AtBoot::Hold { error, .. } if error.contains("before the last preflight"));
            assert_eq!((held, step == AtBoot::Disk), (dirty, !dirty), "{step:?}");
        }
    }
}

#[test]
fn an_attempt_that_only_says_that_it_checked_is_judged_by_its_reports() {
    let mut lab = lab();
    let number = begin(&mut lab, 1, A, "one");
    lab.progress(at(2), number, "one", Progress::at(Stage::Fetch), &Ties::default()).expect("taken");
    lab.outcome(at(3), number, "one", checked(vec![]), &Ties::default()).expect("taken");
    assert!(lab.get(A).and_then(|a| a.last.as_ref()).expect("there").leaves_half_a_system());
}

#[test]
fn a_terminal_that_is_looked_at_keeps_nobody_in_the_swarm() {
    let mut lab = lab();
    let number = begin(&mut lab, 1, B, "b");
    look(&mut lab, 2);
    let (orders, _) = lab.outcome(at(3), number, "b", done(), &Ties::default()).expect("taken");
    assert!(orders.release);
}

#[test]
fn a_terminal_that_finds_too_much_is_cut_with_its_errors_first() {
    let mut lab = lab();
    let number = look(&mut lab, 1);
    let mut findings = vec![CheckFinding::warning("w".repeat(5000), ""); 40];
    findings.push(CheckFinding::error("e", ""));
    lab.outcome(at(2), number, "look", checked(findings), &Ties::default()).expect("taken");
    let last = lab.get(A).and_then(|a| a.last.as_ref()).expect("there");
    let Some(Outcome::Checked { findings, .. }) = &last.outcome else { panic!("{:?}", last.outcome) };
    assert_eq!((findings.len(), findings[0].what.as_str(), findings[1].what.len()), (16, "e", 2000));
}
