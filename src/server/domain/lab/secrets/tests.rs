//! Who gets a secret by which ticket, and whom it replaces.

use super::*;
use crate::api::LendReport;
use crate::server::domain::captures::OfferSecrets;
use crate::server::domain::tickets::{self, Key};
use crate::server::domain::ties::Ties;
use crate::testkit::lab::{at, done, hello_of, target};

const KEY: Key = Key([7; 32]);
const A: &str = "52:54:00:00:00:0a";
const B: &str = "52:54:00:00:00:0b";
const START: u64 = 1_800_000_000;

fn who(macs: &[&str]) -> Identity {
    Identity::new(macs, None)
}

/// The ticket of a machine that asked for its boot script at this time.
fn ticket(mac: &str, made: u64) -> Voucher<'static> {
    let subject = Subject::of(&who(&[mac])).expect("a MAC");
    let text = tickets::issue(&KEY, subject, at(START + made));
    Voucher::Ticket(tickets::check(&KEY, &text, &who(&[mac]), at(START + made)).expect("good"))
}

fn nothing(mac: &str) -> NotAdmitted {
    NotAdmitted::Known(mac.into())
}

/// Says hello with what it presents, and keeps the secret that it is given.
fn hello(
    lab: &mut Lab,
    now: u64,
    macs: &[&str],
    voucher: Voucher<'_>,
    secret: &str,
) -> Result<String, NotAdmitted> {
    let admitted = lab.admit(at(START + now), &who(macs), voucher)?;
    let said = hello_of(macs[0]);
    let (id, _) =
        lab.hello_as(at(START + now), String::new(), said, admitted.known, admitted.who).expect("room");
    if let Some(made) = admitted.new_secret {
        lab.give_secret(&id, secret, made);
    }
    Ok(id)
}

fn speaks(lab: &mut Lab, now: u64, secret: &str) -> bool {
    lab.speaks_for(at(START + now), A, secret).is_some()
}

#[test]
fn a_terminal_speaks_by_its_ticket_once_and_then_by_its_secret() {
    let mut lab = Lab::default();
    assert_eq!(hello(&mut lab, 1, &[A], ticket(A, 0), "one"), Ok(A.into()));
    assert!(speaks(&mut lab, 2, "one") && !speaks(&mut lab, 2, "two"));
    assert_eq!(hello(&mut lab, 3, &[A], Voucher::Secret("one"), "none"), Ok(A.into()));
    assert!(speaks(&mut lab, 4, "one"), "it stays good");
    for refused in [Voucher::Nothing, Voucher::Secret("guess")] {
        assert_eq!(hello(&mut lab, 100, &[A], refused, "no"), Err(nothing(A)));
    }
    assert_eq!(hello(&mut lab, 100, &[A], ticket(A, 0), "no"), Err(NotAdmitted::Used(A.into())));
    assert_eq!(hello(&mut lab, 100, &[A], ticket(B, 99), "no"), Err(NotAdmitted::Foreign(A.into())));
    assert!(speaks(&mut lab, 101, "one") && !speaks(&mut lab, 101, "no"));
}

#[test]
fn a_listed_terminal_that_never_came_comes_by_the_ticket_of_its_boot_script() {
    const U: &str = "8a95d198-7f46-11e5-bf8b-08002704d48e";
    let mut lab = Lab::default();
    let table = format!("mac,uuid\n{A},\n,{U}\n");
    let entries = crate::server::domain::registry::table::read(&table).expect("a table");
    lab.import(&entries, &Default::default()).expect("imported");
    assert_eq!(hello(&mut lab, 1, &[A], Voucher::Nothing, "no"), Err(nothing(A)));
    assert_eq!(hello(&mut lab, 1, &[A], ticket(A, 0), "one"), Ok(A.into()));
    let by_uuid = Identity::new(&[B], Some(U));
    let admitted = lab.admit(at(START + 1), &by_uuid, ticket(B, 0)).expect("admitted");
    assert_eq!((admitted.known.as_deref(), admitted.who), (Some(U), by_uuid));
}

#[test]
fn each_boot_brings_a_new_secret_and_the_old_one_ends_when_the_ticket_is_used() {
    let mut lab = Lab::default();
    hello(&mut lab, 1, &[A], ticket(A, 0), "one").expect("admitted");
    assert!(speaks(&mut lab, 60, "one"), "a script that was sent changes nothing");
    assert_eq!(hello(&mut lab, 80, &[A], ticket(A, 60), "two"), Ok(A.into()));
    assert!(speaks(&mut lab, 81, "two") && !speaks(&mut lab, 81, "one"));
}

#[test]
fn a_terminal_that_never_got_the_answer_may_use_its_ticket_again() {
    let mut lab = Lab::default();
    hello(&mut lab, 1, &[A], ticket(A, 0), "lost").expect("admitted");
    assert_eq!(hello(&mut lab, 2, &[A], ticket(A, 0), "two"), Ok(A.into()));
    assert!(speaks(&mut lab, 3, "two") && !speaks(&mut lab, 3, "lost"));
    assert_eq!(hello(&mut lab, 60, &[A], ticket(A, 0), "no"), Err(NotAdmitted::Used(A.into())));
}

#[test]
fn nobody_takes_the_place_of_a_terminal_that_speaks() {
    let mut lab = Lab::default();
    hello(&mut lab, 1, &[A], ticket(A, 0), "one").expect("admitted");
    assert!(speaks(&mut lab, 10, "one"));
    let busy = |wait: u64| Err(NotAdmitted::Speaks(A.into(), at(wait)));
    assert_eq!(hello(&mut lab, 12, &[A], ticket(A, 12), "two"), busy(13));
    let number = lab.take(at(START + 20), A, &target(), "t".into()).expect("known").0.number;
    assert_eq!(hello(&mut lab, 30, &[A], ticket(A, 30), "two"), busy(5));
    let fetching = crate::event::Progress::at(Stage::Fetch);
    lab.progress(at(START + 50), number, "t", fetching, &Ties::default()).expect("taken");
    assert_eq!(hello(&mut lab, 60, &[A], ticket(A, 60), "two"), busy(5));
    lab.outcome(at(START + 61), number, "t", done(), &Ties::default()).expect("taken");
    assert_eq!(hello(&mut lab, 62, &[A], ticket(A, 62), "two"), Ok(A.into()), "it ended");
    let number = lab.take(at(START + 70), A, &target(), "t".into()).expect("known").0.number;
    lab.outcome(at(START + 71), number, "t", done(), &Ties::default()).expect("taken");
    for time in [72, 90] {
        let own = crate::event::Progress::at(Stage::Personalise);
        lab.progress(at(START + time), number, "t", own, &Ties::default()).expect("taken");
    }
    assert_eq!(hello(&mut lab, 100, &[A], ticket(A, 100), "three"), busy(5), "its system becomes its own");
    assert_eq!(hello(&mut lab, 106, &[A], ticket(A, 106), "three"), Ok(A.into()));
}

#[test]
fn nobody_takes_the_place_of_a_terminal_that_lends_its_disk() {
    let mut lab = Lab::default();
    hello(&mut lab, 1, &[A], ticket(A, 0), "one").expect("admitted");
    let number = lab.captures.open(A, ("golden", "internal"), "anna".into(), at(START + 1));
    let secrets = OfferSecrets { token: "token".into(), code: "123456".into() };
    lab.captures.offer(A, secrets, at(START + 2)).expect("an offer");
    let report = LendReport {
        token: "token".into(),
        port: 4711,
        export: "abc".into(),
        disk: "sda".into(),
        size: 512,
        sector_size: 512,
        read: 0,
        failure: None,
    };
    let from = std::net::IpAddr::from([10, 0, 0, 9]);
    lab.captures.report(number, from, report, at(START + 60)).expect("it lends");
    let busy = Err(NotAdmitted::Speaks(A.into(), at(10)));
    assert_eq!(hello(&mut lab, 65, &[A], ticket(A, 65), "stranger"), busy);
    assert_eq!(hello(&mut lab, 80, &[A], ticket(A, 80), "again"), Ok(A.into()), "it was silent");
}

#[test]
fn a_machine_without_a_ticket_is_new_and_cannot_claim_what_another_has() {
    let mut lab = Lab::default();
    hello(&mut lab, 1, &[A], ticket(A, 0), "one").expect("admitted");
    assert_eq!(hello(&mut lab, 2, &[B, A], Voucher::Nothing, "two"), Err(nothing(A)));
    let (c, d) = ("52:54:00:00:00:0c", "52:54:00:00:00:0d");
    hello(&mut lab, 3, &[B, c], Voucher::Nothing, "two").expect("new");
    hello(&mut lab, 4, &[d, c, A], Voucher::Nothing, "three").expect_err("part of it is another's");
    let claims = lab.admit(at(START + 5), &who(&[d, c]), Voucher::Nothing).expect("another machine");
    assert_eq!((claims.known, claims.who), (None, who(&[d])));
    assert!(lab.speaks_for(at(START + 6), B, "two").is_some(), "it got a secret at once");
    assert_eq!(hello(&mut lab, 7, &[B, c], Voucher::Nothing, "no"), Err(nothing(B)));
    // Whoever came first without a ticket does not keep out the one that has it.
    assert_eq!(hello(&mut lab, 7, &[B], ticket(B, 7), "four"), Ok(B.into()));
    assert!(lab.speaks_for(at(START + 8), B, "two").is_none());
}

#[test]
fn a_teacher_gives_a_terminal_no_name_of_another_and_an_administrator_any() {
    let mut lab = Lab::default();
    hello(&mut lab, 1, &[A], ticket(A, 0), "one").expect("admitted");
    hello(&mut lab, 2, &[B], ticket(B, 1), "two").expect("admitted");
    let both = who(&[A, B]);
    let names = |voucher| lab.admit(at(START + 3), &both, voucher).expect("admitted").who;
    assert_eq!(names(Voucher::Teacher), who(&[B]), "it is the one that spoke last");
    assert_eq!(names(Voucher::Person), both);
}

#[test]
fn a_person_lets_a_terminal_in_once_that_has_no_ticket() {
    let mut lab = Lab::default();
    hello(&mut lab, 1, &[A], ticket(A, 0), "one").expect("admitted");
    lab.let_in(at(START + 100), A);
    assert!(speaks(&mut lab, 101, "one"), "until then nothing changes");
    assert_eq!(hello(&mut lab, 102, &[A], Voucher::Nothing, "two"), Ok(A.into()));
    assert_eq!(hello(&mut lab, 103, &[A], Voucher::Nothing, "no"), Err(nothing(A)));
    assert!(speaks(&mut lab, 104, "two"));
    lab.let_in(at(START + 200), A);
    assert_eq!(hello(&mut lab, 1100, &[A], Voucher::Nothing, "no"), Err(nothing(A)), "too late");
}

#[test]
fn secrets_survive_a_restart_also_at_an_earlier_date() {
    let mut lab = Lab::default();
    hello(&mut lab, 1, &[A], ticket(A, 0), "one").expect("admitted");
    let held = lab.secrets.held.iter().map(|(id, held)| (id.clone(), *held)).collect::<Vec<_>>();
    let terminals: Vec<_> = lab.iter().cloned().collect();
    let early = at(START - 5000);
    let (mut lab, _) = Lab::restore(early, terminals, 0);
    lab.restore_secrets(early, held);
    assert!(lab.speaks_for(early, A, "one").is_some());
    let made = at(START - 4000);
    let fresh = Voucher::Ticket(tickets::Ticket { made, subject: Subject::of(&who(&[A])).expect("a MAC") });
    assert!(lab.admit(made, &who(&[A]), fresh).is_ok());
    lab.forget(made, &[A.to_owned()]).expect("idle");
    assert!(lab.speaks_for(made, A, "one").is_none());
}
