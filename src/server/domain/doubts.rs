//! Names in the configuration that fit several terminals (a UUID that boards share, a label or an adapter of
//! several machines), labels that fit none, and standing jobs that outlived the right to create them.
//!
//! Invariant: pure; it only informs people. `lab` ignores such a UUID, `zones` leaves out such a pin.

use std::collections::HashMap;

use crate::server::domain::catalog::Problem;
use crate::server::domain::config::{Config, Who};
use crate::server::domain::identity::TerminalKey;
use crate::server::domain::jobs::Job;
use crate::server::domain::lab::{Lab, Terminal, some_of};
use crate::server::domain::people::{People, name_in};
use crate::server::domain::zones::called;

/// Names in the configuration that mean several terminals.
pub(crate) fn doubts(config: &Config, lab: &Lab) -> Vec<Problem> {
    let by_uuid = |keys: &[TerminalKey]| -> Vec<TerminalKey> {
        keys.iter().filter(|key| matches!(key, TerminalKey::Uuid(_))).copied().collect()
    };
    let mut doubts = Vec::new();
    let mut labelled = by_uuid(&config.terminals.keys().copied().collect::<Vec<_>>());
    labelled.sort_by_key(ToString::to_string);
    let fitting = labelled.into_iter().map(|key| (key.to_string(), lab.fitting(&key)));
    doubts.extend(fitting.filter_map(|(name, fits)| doubt("terminals".into(), &name, &fits)));
    doubts.extend(borrowed(config, lab));
    let pinned = config.pins.iter().flat_map(|pin| std::iter::once(&pin.terminal).chain(&pin.from));
    let grouped = config
        .groups
        .iter()
        .flat_map(|group| group.terminals.iter().map(|who| (format!("group {}", group.name), who)));
    for (what, who) in pinned.map(|who| ("pin".to_string(), who)).chain(grouped) {
        let (name, fits) = match who {
            Who::Address(_) => continue,
            Who::Key(key) => (key.to_string(), lab.fitting(key)),
            Who::Label(label) => (label.clone(), called(config, lab, label)),
        };
        match (who, fits.is_empty()) {
            (Who::Label(label), true) if !has_label(config, label) => doubts.push(nobody(what, label)),
            _ => doubts.extend(doubt(what, &name, &fits)),
        }
    }
    doubts.dedup();
    doubts
}

/// Standing jobs whose creator may no longer create them: the token was revoked, or terminals have left the
/// teacher's room.
pub(crate) fn of_jobs(lab: &Lab, people: &People) -> Vec<Problem> {
    let goes_on = |job: &&Job| job.standing.is_some() && job.next.is_some() && !job.cancelled;
    lab.jobs().iter().filter(goes_on).filter_map(|job| outlived(job, lab, people)).collect()
}

fn outlived(job: &Job, lab: &Lab, people: &People) -> Option<Problem> {
    let (what, number) = (format!("job {}", job.number), job.number);
    let name = name_in(&job.by)?;
    let Some(person) = people.named(name) else {
        return Some(Problem {
            what,
            error: format!("'{name}' created it, whose token was revoked, and it runs again and again"),
            advice: format!(
                "End it with 'flashmob job cancel {number}'. If it should go on, create it again yourself."
            ),
        });
    };
    let room = person.role.room()?;
    let place = |id: &str| lab.get(id).and_then(|terminal| terminal.place.room.as_deref());
    let members = lab.jobs().members(number).filter(|(_, member)| !member.out).map(|(id, _)| id);
    let strays: Vec<&str> = members.filter(|id| place(id) != Some(room)).collect();
    (!strays.is_empty()).then(|| Problem {
        what,
        error: format!(
            "'{name}' of room {room} created it, and it is still for terminals that are not in that room: {}",
            some_of(&strays)
        ),
        advice: "Take them out with 'flashmob terminal cancel TERMINAL', or move them back.".into(),
    })
}

/// Labels that the configuration gives to one terminal and a person gave to another.
fn borrowed(config: &Config, lab: &Lab) -> Vec<Problem> {
    let own = lab.iter().filter_map(|t| Some((t.place.label.as_deref()?, t)));
    let own: HashMap<&str, &Terminal> = own.collect();
    let given = |t: &&Terminal| t.place.label.is_none();
    let mut doubts = Vec::new();
    for terminal in lab.iter().filter(given) {
        let label = lab.label(config, terminal);
        if let Some((label, other)) = label.and_then(|label| Some((label, own.get(label)?))) {
            doubts.extend(doubt("terminals".into(), label, &[other, terminal]));
        }
    }
    doubts
}

/// Does the configuration give this label to a terminal, which has yet to come?
fn has_label(config: &Config, label: &str) -> bool {
    config.terminals.values().any(|note| note.label == label)
}

fn nobody(what: String, label: &str) -> Problem {
    Problem {
        what,
        error: format!("'{label}' is no address, no MAC address, no UUID and no label of a terminal"),
        advice: "Correct it, or give the label with 'flashmob terminal set TERMINAL --label'.".into(),
    }
}

fn doubt(what: String, name: &str, fits: &[&Terminal]) -> Option<Problem> {
    let ids: Vec<&str> = fits.iter().map(|t| t.id.as_str()).collect();
    (ids.len() > 1).then(|| Problem {
        what,
        error: format!("'{name}' fits {} terminals ({}), so it names none of them", ids.len(), some_of(&ids)),
        advice: "Name each of them by its MAC address.".into(),
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::time::Duration;

    use super::*;
    use crate::api::Hello;
    use crate::server::domain::jobs::{Standing, stamp};
    use crate::server::domain::people::Role;
    use crate::server::domain::registry::Edit;
    use crate::server::domain::zones::topology;
    use crate::testkit::lab::{at, hello_of, job, moment};

    const U: &str = "8a95d198-7f46-11e5-bf8b-08002704d48e";

    #[test]
    fn a_uuid_in_the_configuration_that_several_terminals_share_names_none_and_is_a_problem() {
        let text = format!(
            "[terminals]\n'uuid:{U}' = {{ label = 'lab-01' }}\n\
             [[pin]]\nterminal='lab-01'\nfrom=['10.0.0.9']\n\
             [[pin]]\nterminal='10.0.0.8'\nfrom=['uuid:{U}']\n"
        );
        let config = Config::parse(&text).expect("valid");
        let mut lab = Lab::default();
        let mut come = |mac: &str, address: &str| {
            let hello = Hello { uuid: Some(U.into()), ..hello_of(mac) };
            let (id, _) = lab.hello(Duration::ZERO, address.into(), hello).expect("room");
            let who = lab.named(&lab.get(&id).expect("known").identity, Some(&id));
            let shape = topology(&config, &lab);
            let pins: usize = shape.pins.iter().map(|pin| pin.from.len()).sum();
            (config.label(&who).is_some(), pins, doubts(&config, &lab))
        };
        assert_eq!(come("02:00:00:00:00:0a", "10.0.0.1"), (true, 2, vec![]), "as long as it is one");
        let (label, pins, problems) = come("02:00:00:00:00:0b", "10.0.0.2");
        assert_eq!((label, pins), (false, 0), "neither of the two is taken");
        let what: Vec<&str> = problems.iter().map(|problem| problem.what.as_str()).collect();
        assert_eq!(what, ["terminals", "pin"]);
        assert!(problems[0].error.contains("02:00:00:00:00:0a, 02:00:00:00:00:0b"), "{:?}", problems[0]);
    }

    #[test]
    fn a_standing_job_is_a_problem_once_its_creator_may_no_longer_create_it() {
        let a = "02:00:00:00:00:0a";
        let (mut lab, mut people) = (Lab::default(), People::default());
        lab.hello(Duration::ZERO, String::new(), hello_of(a)).expect("room");
        let room = |lab: &mut Lab, room: &str| {
            let edit = Edit { room: Some(room.into()), ..Edit::default() };
            lab.describe(&[(a.into(), edit)], &Config::default()).expect("described");
        };
        room(&mut lab, "101");
        let teacher = Role::read("teacher", Some("101".into())).expect("a role");
        people.create(at(0), Some("eve"), teacher, "token").expect("made");
        let every = "daily 22:00".parse().expect("valid");
        let standing = Standing { every, closing: "06:00".parse().expect("valid"), follow: false };
        let (by, next) = ("eve at 10.0.0.1".to_string(), Some(stamp(at(9999))));
        let job = Job { by, next, standing: Some(standing), ..job(1, 0, 10) };
        lab.add_job(job, &BTreeSet::from([a.into()]), &moment(0));
        assert_eq!(of_jobs(&lab, &people), []);
        room(&mut lab, "102");
        let problem = of_jobs(&lab, &people).remove(0);
        assert!(problem.what == "job 1" && problem.error.contains("not in that room: 02:00"), "{problem:?}");
        people.revoke("eve").expect("there");
        let problem = of_jobs(&lab, &people).remove(0);
        assert!(problem.error.contains("'eve' created it, whose token was revoked"), "{problem:?}");
        lab.cancel_job(1, &moment(1)).expect("it goes on");
        assert_eq!(of_jobs(&lab, &people), []);
    }

    #[test]
    fn a_label_that_the_configuration_gives_to_another_terminal_than_people_do_is_a_problem() {
        let (a, b) = ("02:00:00:00:00:0a", "02:00:00:00:00:0b");
        let mut lab = Lab::default();
        for mac in [a, b] {
            lab.hello(Duration::ZERO, String::new(), hello_of(mac)).expect("room");
        }
        let edit = Edit { label: Some("lab-01".into()), ..Edit::default() };
        lab.describe(&[(a.into(), edit)], &Config::default()).expect("free");
        let problems = |mac: &str| {
            let config = format!("[terminals]\n'{mac}' = {{ label = 'lab-01' }}\n");
            doubts(&Config::parse(&config).expect("valid"), &lab)
        };
        assert_eq!(problems(a), [], "both mean the same one");
        assert!(problems(b)[0].error.contains(&format!("fits 2 terminals ({a}, {b})")));
    }

    #[test]
    fn a_label_in_the_configuration_that_nobody_has_is_a_problem_until_a_person_gives_it() {
        let config =
            "[[pin]]\nterminal='10.0.0.1'\nfrom=['lab-09']\n[[group]]\nname='g'\nterminals=['lab-09']\n";
        let config = Config::parse(config).expect("valid");
        let mut lab = Lab::default();
        lab.hello(Duration::ZERO, "10.0.0.9".into(), hello_of("02:00:00:00:00:0a")).expect("room");
        let problems = doubts(&config, &lab);
        assert_eq!(problems.iter().map(|p| p.what.as_str()).collect::<Vec<_>>(), ["pin", "group g"]);
        assert!(problems[0].error.starts_with("'lab-09' is no address"), "{problems:?}");
        let edit = Edit { label: Some("lab-09".into()), ..Edit::default() };
        lab.describe(&[("02:00:00:00:00:0a".into(), edit)], &config).expect("free");
        assert_eq!((doubts(&config, &lab), topology(&config, &lab).pins.len()), (vec![], 1));
        assert_eq!(
            topology(&config, &lab).pins[0].from,
            ["10.0.0.9".parse::<std::net::IpAddr>().expect("valid")]
        );
    }
}
