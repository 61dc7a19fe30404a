//! Strangers who name the network cards of other machines.

use super::*;
use crate::server::domain::lab::{Lab, NotAdmitted, Voucher};
use crate::server::domain::registry::table::read;
use crate::server::domain::tickets::{self, Subject};
use crate::testkit::lab::{at, hello_of};

const A: &str = "52:54:00:00:00:0a";
const B: &str = "52:54:00:00:00:0b";
const C: &str = "52:54:00:00:00:0c";
const START: u64 = 1_800_000_000;

fn who(macs: &[&str]) -> Identity {
    Identity::new(macs, None)
}

/// The ticket of the boot script that anybody can fetch in the name of this MAC.
fn ticket(mac: &str, made: u64) -> Voucher<'static> {
    let subject = Subject::of(&who(&[mac])).expect("a MAC");
    Voucher::Ticket(tickets::Ticket { made: at(START + made), subject })
}

/// Says hello, and keeps the secret that it is given.
fn hello(lab: &mut Lab, now: u64, who: &Identity, voucher: Voucher<'_>) -> Result<String, NotAdmitted> {
    let admitted = lab.admit(at(START + now), who, voucher)?;
    let (known, names) = (admitted.known, admitted.who);
    let (id, _) = lab.hello_as(at(START + now), String::new(), hello_of(A), known, names).expect("room");
    if let Some(made) = admitted.new_secret {
        lab.give_secret(&id, &format!("secret of {now}"), made);
    }
    Ok(id)
}

fn import(lab: &mut Lab, table: &str) {
    let entries = read(table).expect("a table");
    lab.import(&entries, &Default::default()).unwrap_or_else(|mistakes| panic!("{mistakes:?}"));
}

/// The terminal that would get its work at a network boot as `who`.
fn gets_agent(lab: &Lab, who: &Identity) -> Option<String> {
    let terminal = lab.find(who, at(START + 1000))?;
    terminal.claimed_card(who).is_none().then(|| terminal.id.clone())
}

#[test]
fn a_ticket_of_a_listed_terminal_gives_no_other_machine_its_work() {
    let mut lab = Lab::default();
    import(&mut lab, &format!("mac,label\n{A},lab-01\n"));
    for (now, macs) in [(1, vec![A, B]), (100, vec![B, A]), (200, vec![C, A, B])] {
        assert_eq!(hello(&mut lab, now, &who(&macs), ticket(A, now)), Ok(A.into()), "{macs:?}");
        assert_eq!(gets_agent(&lab, &who(&[A])).as_deref(), Some(A), "{macs:?}");
        assert_eq!(gets_agent(&lab, &who(&[B])), None, "{macs:?}");
    }
}

#[test]
fn no_hello_takes_a_listed_card_from_its_terminal() {
    let mut lab = Lab::default();
    import(&mut lab, &format!("mac,label\n{A},lab-01\n"));
    hello(&mut lab, 1, &who(&[A, B]), ticket(A, 1)).expect("admitted");
    let secret = "secret of 1";
    for macs in [&[B][..], &[C, B], &[]] {
        hello(&mut lab, 2, &who(macs), Voucher::Secret(secret)).expect("its secret is good");
        assert_eq!(lab.get(A).expect("known").identity.macs.first(), Some(&A.parse().expect("valid")));
        assert_eq!(gets_agent(&lab, &who(&[A])).as_deref(), Some(A), "{macs:?}");
    }
    let many: Vec<String> = (0..40).map(|n| format!("52:54:77:00:00:{n:02x}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    hello(&mut lab, 3, &who(&many), Voucher::Secret(secret)).expect("its secret is good");
    let terminal = lab.get(A).expect("known");
    assert_eq!((terminal.own_macs.len(), terminal.identity.macs.len()), (1, MAX_MACS));
    assert!(terminal.identity.macs.contains(&A.parse().expect("valid")));
}

#[test]
fn the_card_that_a_new_terminal_netbooted_by_is_its_own_whatever_order_its_hello_has() {
    let mut lab = Lab::default();
    let id = hello(&mut lab, 1, &who(&[A, B]), ticket(B, 0)).expect("new");
    assert_eq!((id.as_str(), gets_agent(&lab, &who(&[B])).as_deref()), (B, Some(B)));
    assert_eq!(gets_agent(&lab, &who(&[A])), None);
}

#[test]
fn an_older_database_has_as_own_cards_the_one_that_names_the_terminal_and_the_last_one() {
    let macs = who(&[C, A, B]).macs;
    assert_eq!(own_of_older(A, &macs, true), who(&[C, A]).macs);
    assert_eq!(own_of_older("lab", &macs, true), who(&[C]).macs);
    assert_eq!(own_of_older(A, &macs, false), macs, "a person listed them all");
}

/// The MACs of a purchase, as a stranger can invent them.
fn purchase() -> Vec<String> {
    (1..=32).map(|n| format!("52:54:77:00:00:{n:02x}")).collect()
}

#[test]
fn a_table_takes_the_named_card_from_a_stranger_and_gives_the_others_of_its_cards_nothing() {
    let mut lab = Lab::default();
    let macs = purchase();
    let macs: Vec<&str> = macs.iter().map(String::as_str).collect();
    let stranger = hello(&mut lab, 1, &who(&macs), Voucher::Nothing).expect("new");
    import(&mut lab, &format!("mac,label\n{},w-9\n", macs[8]));
    assert_eq!(gets_agent(&lab, &who(&[macs[8]])).as_deref(), Some(macs[8]));
    let listed = lab.get(macs[8]).expect("a terminal of its own");
    assert_eq!((listed.place.label.as_deref(), listed.identity.macs.len()), (Some("w-9"), 1));
    let left = lab.get(&stranger).expect("known");
    assert!(!left.accepted && left.identity.macs.len() == 31 && left.own_macs == who(&macs[..1]).macs);
    for mac in macs.iter().filter(|mac| **mac != macs[8] && **mac != macs[0]) {
        assert_eq!(lab.find(&who(&[mac]), at(START)).map(|t| t.id.as_str()), None, "{mac}");
    }
    hello(&mut lab, 2, &who(&macs), Voucher::Secret("secret of 1")).expect("its own secret");
    assert_eq!(lab.get(&stranger).expect("known").identity.macs.len(), 31, "it does not get it back");
}

#[test]
fn a_stranger_who_claims_a_whole_room_keeps_neither_its_machines_nor_its_table_out() {
    for by_ticket in [false, true] {
        let mut lab = Lab::default();
        let macs = purchase();
        let macs: Vec<&str> = macs.iter().map(String::as_str).collect();
        if by_ticket {
            import(&mut lab, &format!("mac,label\n{A},lab-01\n"));
            hello(&mut lab, 1, &who(&[&[A], &macs[1..]].concat()), ticket(A, 1)).expect("admitted");
        } else {
            hello(&mut lab, 1, &who(&macs), Voucher::Nothing).expect("new");
        }
        let real = hello(&mut lab, 2, &who(&[macs[9], macs[20]]), Voucher::Nothing).expect("new");
        assert_eq!(real, macs[9]);
        let rows: String = macs.iter().map(|mac| format!("{mac},w-{}\n", &mac[15..])).collect();
        import(&mut lab, &format!("mac,label\n{rows}"));
        for (n, mac) in macs.iter().enumerate() {
            assert_eq!(gets_agent(&lab, &who(&[mac])).as_deref(), Some(*mac), "{by_ticket}, {n}");
            let now = 100 + u64::try_from(n).expect("small");
            assert_eq!(hello(&mut lab, now, &who(&[mac]), ticket(mac, now)).as_deref(), Ok(*mac));
        }
        assert_eq!(lab.iter().count(), if by_ticket { 33 } else { 32 });
    }
}

#[test]
fn a_laptop_at_the_dock_of_one_that_a_person_listed_stays_another_machine() {
    const FIRST: &str = "11112222-3333-4444-5555-666677778888";
    const SECOND: &str = "8a95d198-7f46-11e5-bf8b-08002704d48e";
    let mut lab = Lab::default();
    let at_dock = |uuid: &str| Identity::new(&[A], Some(uuid));
    hello(&mut lab, 1, &at_dock(FIRST), Voucher::Nothing).expect("new");
    import(&mut lab, &format!("mac,label\n{A},lab-01\n"));
    assert_eq!(gets_agent(&lab, &at_dock(FIRST)).as_deref(), Some(A));
    assert_eq!(gets_agent(&lab, &at_dock(SECOND)), None);
}

#[test]
fn a_terminal_listed_by_its_uuid_gives_its_work_to_no_machine_without_that_uuid() {
    const U: &str = "8a95d198-7f46-11e5-bf8b-08002704d48e";
    let mut lab = Lab::default();
    import(&mut lab, &format!("uuid,label\n{U},lab-01\n"));
    // Somebody who knows the UUID comes with the card of another machine, which has none.
    assert_eq!(hello(&mut lab, 1, &Identity::new(&[B], Some(U)), ticket(B, 1)), Ok(U.into()));
    assert_eq!(gets_agent(&lab, &Identity::new(&[B], None)), None);
    assert_eq!(gets_agent(&lab, &Identity::new(&[B], Some(U))).as_deref(), Some(U));
}

#[test]
fn a_line_with_a_label_and_another_uuid_does_not_mean_the_labels_terminal() {
    const OLD: &str = "11112222-3333-4444-5555-666677778888";
    const NEW: &str = "8a95d198-7f46-11e5-bf8b-08002704d48e";
    let mut lab = Lab::default();
    import(&mut lab, &format!("mac,uuid,label\n{A},{OLD},lab-01\n"));
    let table = format!("mac,uuid,label\n{A},{NEW},lab-01\n");
    let entries = crate::server::domain::registry::table::read(&table).expect("a table");
    let mistakes = lab.import(&entries, &Default::default()).expect_err("another board");
    assert!(mistakes.iter().any(|mistake| mistake.to_string().contains("lab-01")), "{mistakes:?}");
}

#[test]
fn a_listed_machine_with_two_cards_goes_on_working_and_its_second_card_does_when_it_is_listed_too() {
    const U: &str = "8a95d198-7f46-11e5-bf8b-08002704d48e";
    for uuid in [None, Some(U)] {
        let with = |macs: &[&str]| Identity::new(macs, uuid);
        let mut lab = Lab::default();
        import(&mut lab, &format!("mac,label\n{A},lab-01\n"));
        for (now, macs) in [(1, [A, B]), (100, [B, A])] {
            assert_eq!(hello(&mut lab, now, &with(&macs), ticket(A, now)), Ok(A.into()));
            assert_eq!(gets_agent(&lab, &with(&[A])).as_deref(), Some(A));
        }
        assert_eq!(gets_agent(&lab, &with(&[B])), None, "a person decides");
        import(&mut lab, &format!("mac,label\n{B},lab-01\n"));
        assert_eq!((gets_agent(&lab, &with(&[B])).as_deref(), lab.iter().count()), (Some(A), 1));
        assert_eq!(hello(&mut lab, 200, &with(&[B, A]), ticket(B, 200)), Ok(A.into()));
    }
}

#[test]
fn a_machine_whose_second_card_was_listed_comes_by_its_ticket_though_it_was_new_by_the_first() {
    const U: &str = "8a95d198-7f46-11e5-bf8b-08002704d48e";
    let both = Identity::new(&[A, B], Some(U));
    let mut lab = Lab::default();
    assert_eq!(hello(&mut lab, 1, &both, Voucher::Nothing), Ok(A.into()));
    import(&mut lab, &format!("mac,label\n{B},lab-01\n"));
    assert_eq!(gets_agent(&lab, &Identity::new(&[B], Some(U))).as_deref(), Some(B));
    assert_eq!(hello(&mut lab, 2, &both, ticket(B, 2)), Ok(B.into()));
}

#[test]
fn no_hello_gives_a_registered_terminal_another_uuid() {
    const U: &str = "8a95d198-7f46-11e5-bf8b-08002704d48e";
    const JUNK: &str = "11112222-3333-4444-5555-666677778888";
    let real = Identity::new(&[A], Some(U));
    let mut lab = Lab::default();
    import(&mut lab, &format!("mac,label\n{A},lab-01\n"));
    hello(&mut lab, 1, &real, ticket(A, 1)).expect("admitted");
    hello(&mut lab, 100, &who(&[A]), ticket(A, 100)).expect("a stranger with its ticket");
    let secret = Voucher::Secret("secret of 100");
    hello(&mut lab, 101, &Identity::new(&[A], Some(JUNK)), secret).expect("the secret is good");
    assert_eq!(gets_agent(&lab, &real).as_deref(), Some(A));
}
