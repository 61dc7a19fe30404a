//! Tables and descriptions of terminals, and the machines that come as them.

use std::time::Duration;

use super::*;
use crate::api::Hello;
use crate::server::domain::registry::table::{describe, read};
use crate::testkit::lab::{at, hello_of};

const A: &str = "02:00:00:00:00:0a";
const B: &str = "02:00:00:00:00:0b";
const DOCK: &str = "02:00:00:00:00:d0";
const U: &str = "8a95d198-7f46-11e5-bf8b-08002704d48e";
const V: &str = "11112222-3333-4444-5555-666677778888";

fn import(lab: &mut Lab, table: &str) -> Result<Imported, String> {
    import_with(lab, table, &Config::default())
}

fn import_with(lab: &mut Lab, table: &str, config: &Config) -> Result<Imported, String> {
    let before: Vec<Terminal> = lab.iter().cloned().collect();
    let entries = read(table).map_err(|mistakes| describe(&mistakes))?;
    match lab.import(&entries, config) {
        Ok((imported, changes)) => {
            assert!(changes.len() >= imported.created + imported.updated);
            Ok(imported)
        }
        Err(mistakes) => {
            assert_eq!(lab.iter().cloned().collect::<Vec<_>>(), before, "nothing is half imported");
            Err(describe(&mistakes))
        }
    }
}

/// A machine with these MACs and this UUID comes. Returns its id.
fn come(lab: &mut Lab, now: u64, macs: &[&str], uuid: Option<&str>) -> String {
    let macs = macs.iter().map(ToString::to_string).collect();
    let hello = Hello { uuid: uuid.map(Into::into), macs, ..hello_of(A) };
    lab.hello(at(now), "10.0.0.9".into(), hello).expect("room").0
}

fn label(lab: &Lab, id: &str) -> String {
    lab.get(id).expect("known").place.label.clone().unwrap_or_default()
}

#[test]
fn a_listed_terminal_is_known_before_it_comes_and_keeps_its_place_when_it_does() {
    let mut lab = Lab::default();
    let table = format!("mac,label,room,seat,groups\n{A},lab-01,101,1,east;win\n{B},lab-02,101,2,\n");
    let counts = import(&mut lab, &table).expect("imported");
    assert_eq!((counts.created, counts.updated, counts.unchanged), (2, 0, 0));
    let listed = lab.get(A).expect("known").clone();
    assert!(listed.accepted && listed.heard.is_none() && listed.first.is_none());
    assert_eq!(come(&mut lab, 7, &[A, "02:00:00:00:00:1a"], Some(U)), A);
    let come = lab.get(A).expect("known");
    assert_eq!((come.first, come.heard, come.accepted), (Some(at(7)), Some(at(7)), true));
    assert_eq!((&come.place, come.identity.macs.len()), (&listed.place, 2));
    let counts = import(&mut lab, &format!("mac,seat\n{A},9\n{B},2\n")).expect("imported");
    assert_eq!((counts.created, counts.updated, counts.unchanged), (0, 1, 1));
    let place = &lab.get(A).expect("known").place;
    assert_eq!((place.seat.as_deref(), place.room.as_deref()), (Some("9"), Some("101")));
}

#[test]
fn an_unknown_machine_is_new_until_a_person_accepts_or_describes_it() {
    let mut lab = Lab::default();
    for mac in [A, B] {
        let id = come(&mut lab, 1, &[mac], None);
        assert!(!lab.get(&id).expect("known").accepted);
    }
    assert!(matches!(lab.accept(A), Some(Change::Terminal(terminal)) if terminal.accepted));
    assert_eq!(lab.accept(A), None);
    let edit = Edit { room: Some("101".into()), ..Edit::default() };
    assert_eq!(lab.describe(&[(B.into(), edit)], &Config::default()).expect("described").len(), 1);
    come(&mut lab, 2, &[A], None);
    assert!(lab.iter().all(|terminal| terminal.accepted));
}

#[test]
fn a_label_or_seat_or_machine_that_is_there_twice_is_a_mistake_with_its_line() {
    let config = Config::parse(&format!("[terminals]\n'{B}' = {{ label = 'toml-b' }}\n")).expect("valid");
    let lab = || {
        let mut lab = Lab::default();
        come(&mut lab, 0, &[DOCK], None);
        import(&mut lab, &format!("mac,label,room,seat\n{DOCK},taken,101,1\n")).expect("imported");
        lab
    };
    for (table, expected) in [
        (
            format!("mac,label\n{A},x\n{B},x\n"),
            format!("line 3, column label: the label 'x' belongs to {A} on"),
        ),
        (
            format!("mac,label\n{A},taken\n"),
            format!("line 2, column label: the label 'taken' belongs to {DOCK}"),
        ),
        (
            format!("mac,label\n{A},toml-b\n"),
            "line 2, column label: the configuration gives the label".into(),
        ),
        (
            format!("mac,room,seat\n{A},101,1\n"),
            "line 2, column seat: seat '1' of room 101 belongs to".into(),
        ),
        (format!("mac,seat\n{A},1\n{B},1\n"), "line 3, column seat: seat '1' belongs to".into()),
        (format!("mac\n{A}\n{B}\n{A}\n"), format!("line 4, column mac: {A} is on line 2 already")),
        (format!("mac,uuid\n{A},\n{A},{U}\n"), format!("line 3, column mac: {A} is on line 2 already")),
        (
            format!("mac\n{DOCK}\n{DOCK}\n"),
            format!("line 3, column mac: this is the terminal {DOCK} of line 2"),
        ),
        (format!("uuid\n{U}\n{U}\n"), format!("line 3, column uuid: uuid:{U} is on line 2 already")),
    ] {
        let mistakes = import_with(&mut lab(), &table, &config).expect_err(&table);
        assert!(mistakes.starts_with(&expected), "{table}\n{mistakes}");
    }
    import_with(&mut lab(), &format!("mac,label\n{B},toml-b\n"), &config).expect("its own label");
    import(&mut lab(), &format!("mac,room,seat\n{A},102,1\n{B},103,1\n")).expect("in another room");
}

#[test]
fn a_table_may_exchange_the_labels_of_two_terminals() {
    let mut lab = Lab::default();
    import(&mut lab, &format!("mac,label\n{A},one\n{B},two\n")).expect("imported");
    import(&mut lab, &format!("mac,label\n{A},two\n{B},one\n")).expect("imported");
    assert_eq!((label(&lab, A), label(&lab, B)), ("two".into(), "one".into()));
    let edit = Edit { label: Some("one".into()), ..Edit::default() };
    let refusal = lab.describe(&[(A.into(), edit)], &Config::default()).expect_err("taken");
    assert_eq!(refusal.error, format!("the label 'one' belongs to {B}"));
}

#[test]
fn what_is_exported_is_imported_as_the_same_lab() {
    let mut lab = Lab::default();
    let table = format!(
        "mac,uuid,label,room,seat,groups,hostname\n{A},,lab-10,101,1,east,pc-1\n{B},,\"lab-2, old\",101,2,,\n\
         {DOCK},{U},cart-1,,,carts;win,\n{DOCK},{V},cart-2,,,carts,\n"
    );
    import(&mut lab, &table).expect("imported");
    come(&mut lab, 3, &[DOCK, "02:00:00:00:00:e0"], Some(U));
    come(&mut lab, 3, &["02:00:00:00:00:ff"], None);
    let config = Config::default();
    let exported = lab.export(&config, false).expect("written");
    let labels: Vec<&str> = exported.lines().map(|line| line.split(',').nth(2).unwrap_or_default()).collect();
    assert_eq!(
        labels,
        ["label", "cart-1", "cart-2", "\"lab-2", "lab-10"],
        "in the order of rooms and labels"
    );
    let before: Vec<Terminal> = lab.iter().cloned().collect();
    let counts = import(&mut lab, &exported).expect("imported");
    assert_eq!((counts.created, counts.updated, counts.unchanged), (0, 0, 4));
    assert_eq!(lab.iter().cloned().collect::<Vec<_>>(), before);
    let mut other = Lab::default();
    import(&mut other, &exported).expect("imported");
    let again = other.export(&config, false).expect("written");
    let places = |lab: &Lab| {
        let mut places: Vec<_> = lab.iter().map(|t| format!("{:?}", t.place)).collect();
        places.sort();
        places
    };
    lab.forget(at(9), &["02:00:00:00:00:ff".to_owned()]).expect("forgotten");
    assert_eq!(places(&other), places(&lab), "{again}");
    assert_eq!(again.lines().count(), 5);
}

#[test]
fn the_export_for_filling_in_has_the_new_terminals_too() {
    let mut lab = Lab::default();
    come(&mut lab, 1, &[A], None);
    let config = Config::parse(&format!("[terminals]\n'{A}' = {{ label = 'toml-a' }}\n")).expect("valid");
    assert_eq!(lab.export(&config, false).expect("written").lines().count(), 1);
    let all = lab.export(&config, true).expect("written");
    assert_eq!(all.lines().nth(1), Some(format!("{A},,toml-a,,,,").as_str()));
}

#[test]
fn a_stranger_with_the_adapter_or_uuid_of_a_listed_terminal_is_exported_apart_and_keeps_no_table_out() {
    let mut lab = Lab::default();
    import(&mut lab, &format!("mac,uuid,label\n{A},{U},lab-01\n")).expect("imported");
    let stranger = come(&mut lab, 1, &[A], Some(V));
    come(&mut lab, 1, &[B], Some(U));
    assert_ne!(stranger, A);
    for table in [format!("mac,label\n{A},x\n"), format!("uuid,label\n{U},y\n")] {
        import(&mut lab, &table).expect("it means the listed one");
    }
    assert_eq!((label(&lab, A), label(&lab, &stranger), label(&lab, B)), ("y".into(), "".into(), "".into()));
    let all = lab.export(&Config::default(), true).expect("written");
    assert!(all.contains(&format!("{A},,y,")) && all.contains(&format!("{A},{V},,")), "{all}");
    import(&mut lab, &all).expect("its own table");
    assert!(lab.iter().count() == 3 && lab.get(&stranger).expect("known").accepted);
}

#[test]
fn laptops_that_use_a_listed_dock_stay_apart() {
    let mut lab = Lab::default();
    import(&mut lab, &format!("mac,label\n{DOCK},cart-1\n")).expect("imported");
    let first = come(&mut lab, 1, &[DOCK, A], Some(U));
    let second = come(&mut lab, 2, &[DOCK, B], Some(V));
    assert_eq!(
        (first.as_str(), label(&lab, &first), label(&lab, &second)),
        (DOCK, "cart-1".into(), String::new())
    );
    assert!(first != second && !lab.get(&second).expect("known").accepted, "the person listed one machine");
    for (macs, uuid, id) in [(vec![DOCK, A], U, &first), (vec![B], V, &second), (vec![A], U, &first)] {
        assert_eq!(&come(&mut lab, 3, &macs, Some(uuid)), id, "{macs:?}");
    }
    come(&mut lab, 4, &[DOCK, A], Some(U));
    come(&mut lab, 5, &[DOCK, B], Some(V));
    import(&mut lab, &format!("mac,label\n{DOCK},cart-2\n")).expect("the one that was listed");
    assert_eq!((label(&lab, &first), label(&lab, &second)), ("cart-2".into(), String::new()));
    let table = format!("mac,uuid,label\n{DOCK},{U},cart-9\n{DOCK},{V},cart-8\n");
    import(&mut lab, &table).expect("the UUIDs tell them apart");
    assert_eq!((label(&lab, &first), label(&lab, &second)), ("cart-9".into(), "cart-8".into()));
    let mistake = import(&mut lab, &format!("mac,label\n{DOCK},cart-1\n")).expect_err("it fits two");
    assert!(mistake.starts_with("line 2, column mac: 2 terminals have used this adapter"), "{mistake}");
}

#[test]
fn laptops_that_were_known_before_their_dock_was_listed_stay_apart() {
    let mut lab = Lab::default();
    let (first, second) = (come(&mut lab, 1, &[A], Some(U)), come(&mut lab, 1, &[B], Some(V)));
    import(&mut lab, &format!("mac,label\n{DOCK},cart-1\n")).expect("nobody was seen with it");
    assert_eq!(come(&mut lab, 2, &[DOCK, A], Some(U)), first);
    assert_eq!(come(&mut lab, 3, &[DOCK, B], Some(V)), second);
    assert_eq!((lab.iter().count(), lab.get(DOCK).expect("listed").heard), (3, None));
}

#[test]
fn boards_with_one_uuid_stay_apart_also_when_it_was_listed() {
    for turned in [false, true] {
        let uuid = uuid::Uuid::parse_str(U).expect("valid");
        let listed = if turned { uuid::Uuid::from_bytes(uuid.to_bytes_le()) } else { uuid };
        let mut lab = Lab::default();
        import(&mut lab, &format!("uuid,label\n{listed},lab-01\n")).expect("imported");
        let first = come(&mut lab, 1, &[A], Some(U));
        let second = come(&mut lab, 2, &[B], Some(U));
        assert_eq!((first.clone(), second.as_str()), (listed.to_string(), B));
        assert_eq!((label(&lab, &first), label(&lab, B)), ("lab-01".into(), String::new()));
        assert_eq!(come(&mut lab, 3, &[A], Some(U)), first);
        import(&mut lab, &format!("uuid,label\n{U},lab-02\n")).expect("the one that was listed");
        assert_eq!((label(&lab, &first), label(&lab, B)), ("lab-02".into(), String::new()));
        lab.accept(B).expect("new");
        let mistake = import(&mut lab, &format!("uuid,label\n{U},x\n")).expect_err("it fits two");
        assert!(mistake.starts_with("line 2, column uuid: 2 terminals share this UUID"), "{mistake}");
    }
}

#[test]
fn a_table_may_name_the_machine_of_a_listed_one_more_exactly() {
    let mut lab = Lab::default();
    import(&mut lab, &format!("mac,label\n{DOCK},cart-1\n")).expect("imported");
    import(&mut lab, &format!("mac,uuid\n{DOCK},{U}\n")).expect("imported");
    assert_ne!(come(&mut lab, 1, &[DOCK], Some(V)), DOCK);
    assert_eq!(come(&mut lab, 2, &[DOCK], Some(U)), DOCK);
    import(&mut lab, &format!("uuid,label\n{V},cart-2\n")).expect("by its UUID alone");
    assert_eq!((label(&lab, DOCK), lab.iter().count()), ("cart-1".into(), 2));
}

#[test]
fn a_listed_terminal_can_be_forgotten_by_a_person_only() {
    let mut lab = Lab::default();
    import(&mut lab, &format!("mac,label\n{A},lab-01\n{B},\n")).expect("imported");
    let year = Duration::from_secs(365 * 24 * 3600);
    assert_eq!(lab.forget_older(year * 3, year).len(), 1, "only the history goes");
    assert_eq!(lab.forget_the_least(at(1)), None);
    assert_eq!(lab.forget(at(1), &[A.to_owned()]).expect("forgotten"), [Change::Forget(A.into())]);
    let back = come(&mut lab, 2, &[A], None);
    assert!(!lab.get(&back).expect("known").accepted, "it is new");
    import(&mut lab, &format!("mac,label\n{B},lab-01\n")).expect("the label is free");
}

#[test]
fn a_lab_that_is_full_takes_no_more_rows() {
    let mut lab = Lab::default();
    let rows: String =
        (0..MAX_TERMINALS).map(|n| format!("02:00:00:01:{:02x}:{:02x}\n", n >> 8, n & 255)).collect();
    let mistake = import(&mut lab, &format!("mac\n{rows}{A}\n")).expect_err("one too many");
    assert!(mistake.contains("more than 10000"), "{mistake}");
    assert_eq!(import(&mut lab, &format!("mac\n{rows}")).map(|counts| counts.created), Ok(MAX_TERMINALS));
}
