//! Targets in a lab with rooms, groups, zones, new terminals and one that has yet to come.

use std::time::Duration;

use super::*;
use crate::server::domain::registry::table::read;
use crate::server::domain::zones::topology;
use crate::testkit::lab::hello_of;

const A: &str = "02:00:00:00:00:0a";
const B: &str = "02:00:00:00:00:0b";
/// It has never come.
const C: &str = "02:00:00:00:00:0c";
/// Nobody has registered it.
const N: &str = "02:00:00:00:00:0e";

const CONFIG: &str = "[[zone]]\nname='one'\nnetworks=['10.1.0.0/16']\n\
    [[zone]]\nname='two'\nnetworks=['10.2.0.0/16']\n\
    [[group]]\nname='rules'\nnetworks=['10.1.0.1/32']\n[[group]]\nname='dell'\nmodels=['optiplex']\n\
    [[group]]\nname='by-zone'\nzones=['two']\n[[group]]\nname='nobody'\nmodels=['cray']\n\
    [[group]]\nname='listed'\nterminals=['pc-1','02:00:00:00:00:0e','pc-9']\n";

fn lab() -> (Lab, Config) {
    let mut lab = Lab::default();
    let config = Config::parse(CONFIG).expect("valid");
    let table = format!("mac,label,room,groups\n{A},pc-1,101,east\n{B},pc-2,101,\n{C},pc-3,102,east;west\n");
    lab.import(&read(&table).expect("a table"), &config).expect("imported");
    for (mac, address) in [(A, "10.1.0.1"), (B, "10.2.0.1"), (N, "10.1.0.9")] {
        let mut hello = hello_of(mac);
        hello.inventory.machine = "Dell Inc. OptiPlex 7010".into();
        lab.hello(Duration::ZERO, address.into(), hello).expect("room");
    }
    (lab, config)
}

fn texts(targets: &[&str]) -> Vec<String> {
    targets.iter().map(ToString::to_string).collect()
}

#[test]
fn an_order_has_a_bounded_number_of_bounded_words_each_once() {
    let once = words(&texts(&["room:101", " pc-1", "room: 101", "pc-1"])).expect("few");
    assert_eq!(once, [TargetExpr::Room("101".into()), TargetExpr::One("pc-1".into())]);
    let many = |n: usize| words(&vec![A.to_string(); n]);
    assert_eq!(many(1000).map(|words| words.len()), Ok(1));
    let refusal = many(1001).expect_err("too many");
    assert!(refusal.error.contains("at most 1000") && refusal.advice.contains("room:NAME"), "{refusal:?}");
    assert!(words(&["ä".repeat(200)]).is_ok());
    let refusal = words(&["ä".repeat(201)]).expect_err("too long");
    assert!(refusal.error.chars().count() < 100, "{refusal:?}");
}

#[test]
fn a_job_keeps_the_first_words_of_its_order_and_their_number() {
    let words: Vec<String> = (0..23).map(|n| format!("pc-{n}")).collect();
    let short = shortened(&words);
    assert_eq!((short.len(), short[19].as_str(), short[20].as_str()), (21, "pc-19", "and 3 more"));
    assert_eq!(shortened(&words[..20]), words[..20]);
}

fn meant(targets: &[&str]) -> Result<Vec<String>, Refusal> {
    let (lab, config) = lab();
    let targets: Vec<TargetExpr> = targets.iter().map(|text| text.parse().expect(text)).collect();
    resolve(&lab, &config, &topology(&config, &lab), &targets)
}

#[test]
fn each_word_means_its_terminals_once_and_in_order() {
    for (targets, expected) in [
        (&["pc-2"][..], &[B][..]),
        (&["02-00-00-00-00-0A"], &[A]),
        (&["room:101"], &[A, B]),
        (&["room:102", "pc-1", "room:101", A], &[A, B, C]),
        (&["group:east"], &[A, C]),
        (&["group:rules"], &[A]),
        (&["group:dell"], &[A, B]),
        (&["group:by-zone"], &[B]),
        (&["group:listed"], &[A, N]),
        (&["zone:one"], &[A]),
        (&["zone:two"], &[B]),
        (&["all"], &[A, B, C]),
        (&["new"], &[N]),
        (&[N], &[N]),
    ] {
        assert_eq!(meant(targets).expect("they mean somebody"), expected, "{targets:?}");
    }
}

#[test]
fn a_word_that_means_nobody_is_refused_with_names_that_are_known() {
    for (target, error, advice) in [
        ("room:10l", "no room '10l'; rooms are 101, 102", "Name one of these"),
        ("group:est", "no group 'est'; groups are by-zone, dell, east,", "Name one"),
        ("group:nobody", "the group 'nobody' has no terminal", "[[group]]"),
        ("zone:three", "no zone 'three'; zones are one, rest, two", "Name one"),
        ("zone:rest", "no registered terminal was heard in zone 'rest'", "terminal list"),
        ("pc-7", "no terminal 'pc-7' is known here", "Is it pc-1, pc-2, pc-3?"),
    ] {
        let refusal = meant(&["pc-1", target]).expect_err(target);
        assert!(refusal.error.starts_with(error) && refusal.advice.contains(advice), "{refusal:?}");
    }
    assert_eq!(meant(&[]).expect_err("nobody").error, "no terminal is named");
    let (nobody, config) = (Lab::default(), Config::default());
    for (target, error) in [
        (TargetExpr::All, "no terminal is registered"),
        (TargetExpr::New, "no terminal is new"),
        (TargetExpr::Room("101".into()), "no room '101'; there are no rooms"),
    ] {
        let refusal = resolve(&nobody, &config, &Topology::default(), &[target]).expect_err(error);
        assert_eq!(refusal.error, error);
    }
}

#[test]
fn a_name_that_fits_several_terminals_is_refused() {
    let (mut lab, _) = lab();
    let config = Config::parse(&format!("[terminals]\n'{N}' = {{ label = 'pc-1' }}\n")).expect("valid");
    let ask = |lab: &Lab, name: &str| {
        resolve(lab, &config, &Topology::default(), &[TargetExpr::One(name.into())])
            .expect_err("several")
            .error
    };
    assert_eq!(ask(&lab, "pc-1"), format!("'pc-1' fits 2 terminals: {A}, {N}"));
    const U: &str = "8a95d198-7f46-11e5-bf8b-08002704d48e";
    for mac in ["02:00:00:00:00:f1", "02:00:00:00:00:f2"] {
        let hello = crate::api::Hello { uuid: Some(U.into()), ..hello_of(mac) };
        lab.hello(Duration::ZERO, String::new(), hello).expect("room");
    }
    assert!(ask(&lab, &format!("uuid:{U}")).contains("fits 2 terminals"));
}

#[test]
fn targets_are_written_as_they_are_read() {
    for text in [
        "pc-1",
        A,
        "uuid:8a95d198-7f46-11e5-bf8b-08002704d48e",
        "room:101 a",
        "group:x",
        "zone:y",
        "new",
        "all",
    ] {
        let target: TargetExpr = text.parse().expect(text);
        assert_eq!(target.to_string(), text);
    }
    assert_eq!(" room: 101 ".parse(), Ok(TargetExpr::Room("101".into())));
    for bad in ["", "room:", "zone: "] {
        assert!(bad.parse::<TargetExpr>().is_err(), "{bad}");
    }
}

#[test]
fn a_model_is_described_by_a_part_of_it_or_by_a_pattern_for_the_whole() {
    for (pattern, model, fits) in [
        ("optiplex 7", "Dell Inc. OptiPlex 7010", true),
        ("7010*", "Dell Inc. OptiPlex 7010", false),
        ("*7010", "Dell Inc. OptiPlex 7010", true),
        ("dell*plex ????", "Dell Inc. OptiPlex 7010", true),
        ("dell*plex ???", "Dell Inc. OptiPlex 7010", false),
        ("*a*b*", "xxaxxaxxb", true),
        ("*a?b", "aab aab", true),
        ("?", "", false),
        ("*", "", true),
    ] {
        assert_eq!(is_model(pattern, model), fits, "{pattern} {model}");
    }
    assert_eq!(
        [("", ""), ("10l", "101"), ("", "ab"), ("kitten", "sitting")].map(|(a, b)| distance(a, b)),
        [0, 1, 2, 3]
    );
}

#[test]
fn the_groups_of_each_terminal_are_those_whose_words_mean_it() {
    let (lab, config) = lab();
    let shape = topology(&config, &lab);
    let groups = Groups::new(&lab, &config, &shape);
    let names = ["east", "west", "rules", "dell", "by-zone", "listed"];
    for terminal in lab.iter() {
        let means = |name: &&&str| {
            let word = TargetExpr::Group((**name).into());
            resolve(&lab, &config, &shape, &[word]).expect("not empty").contains(&terminal.id)
        };
        let mut expected: Vec<&str> = names.iter().filter(means).copied().collect();
        expected.sort_unstable();
        assert_eq!(groups.of(terminal), expected, "{}", terminal.id);
    }
}

#[test]
fn the_groups_of_a_thousand_terminals_are_looked_up_once() {
    let mac = |n: usize| format!("02:00:00:00:{:02x}:{:02x}", n / 256, n % 256);
    let rows: Vec<String> = (0..1000).map(|n| format!("{},pc-{n}\n", mac(n))).collect();
    let listed: Vec<String> = (0..1000).map(|n| format!("'pc-{n}'")).collect();
    let config = format!("[[group]]\nname='all'\nterminals=[{}]\n", listed.join(","));
    let config = Config::parse(&config).expect("valid");
    let mut lab = Lab::default();
    lab.import(&read(&format!("mac,label\n{}", rows.concat())).expect("a table"), &config).expect("imported");
    let shape = topology(&config, &lab);
    let before = SEARCHES.get();
    let groups = Groups::new(&lab, &config, &shape);
    assert!(lab.iter().all(|terminal| groups.of(terminal) == ["all"]));
    // To look up each name of the group for each terminal takes minutes.
    assert!(SEARCHES.get() - before <= 1000, "each name at most once");
}
