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
    terminal.netboots_by_own_card(who).then(|| terminal.id.clone())
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
