//! What a new job will do to each terminal, and what may go wrong at night.
//!
//! Invariant: pure.

use std::collections::BTreeSet;
use std::time::Duration;

use super::names::{self, Names};
use super::setting::Setting;
use super::{Affected, Finding, Job, JobPlan, Placement};
use crate::api::DiskInfo;
use crate::event::Failure;
use crate::layout::rule::{Rule, describe};
use crate::server::domain::catalog::{Published, Signature};
use crate::server::domain::lab::Terminal;
use crate::server::domain::times::window;

pub(super) fn plan(
    job: &Job,
    terminals: &BTreeSet<String>,
    all: Duration,
    (place, names): (&Setting<'_>, &Names),
) -> JobPlan {
    let zone = place.at.date.time_zone();
    let mut findings = of_the_job(job, all, place);
    findings.extend(names::too_long(names).map(|error| Finding {
        terminal: None,
        error,
        advice: "Linux takes them. Windows does not: choose a shorter rule for it.".into(),
    }));
    let mut affected = Vec::new();
    for terminal in terminals.iter().filter_map(|id| place.lab.get(id)) {
        let label = (place.label)(terminal);
        let name = label.clone().unwrap_or_else(|| terminal.id.clone());
        findings.extend(of_terminal(job, terminal, &name, place));
        let hostname = names.get(&terminal.id).cloned();
        if hostname.is_none() && job.terms.hostname.is_some() {
            findings.push(Finding {
                terminal: Some(name.clone()),
                error: "its address is not known, so DNS cannot be asked for its name yet".into(),
                advice: "It is asked when the terminal comes. Without a name there it is not imaged.".into(),
            });
        }
        let (id, loses) = (terminal.id.clone(), loses(job, terminal));
        affected.push(Affected { id, label, loses, hostname, files: Vec::new() });
    }
    JobPlan {
        number: None,
        images: job.terms.title(),
        preflight: job.terms.preflight,
        opens: job.run.opens,
        closes: job.run.closes,
        window: window(job.run.opens, job.run.closes, zone),
        needs: job.needs,
        all: all.as_secs(),
        terminals: affected,
        findings,
    }
}

fn of_the_job(job: &Job, all: Duration, place: &Setting<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut found = |error: String, advice: &str| {
        findings.push(Finding { terminal: None, error, advice: advice.into() });
    };
    if !place.can_netboot {
        found(
            "there are no netboot files to send to terminals".into(),
            "Make them with flashmob-initramfs and name their folder with --boot.",
        );
    }
    for id in job.terms.ids() {
        let signature = place.catalog.resolve(&id.clone().into()).map(|image| image.signature.clone());
        match signature {
            Ok(Signature::Missing) => found(
                format!("image {id} is not signed, and terminals refuse it"),
                "Sign it with 'flashmob-mkimage sign' before the job opens.",
            ),
            Ok(Signature::Unjudged) => found(
                format!("this server has no public keys, so it cannot judge the signature of {id}"),
                "Name the file of public keys with keys in the configuration, or with --keys.",
            ),
            _ => {}
        }
    }
    let first = job.terms.images.first().filter(|_| job.terms.hostname.is_some());
    if let Some(image) = first
        && place.catalog.resolve(&image.id.clone().into()).is_ok_and(|found| found.nameless)
    {
        found(
            format!("no partition of {} can hold a host name: its system keeps its own", image.id),
            "A Windows that starts by BIOS gets a name only where flashmob's helper has made a blank for it \
             before the capture: 'flashmob-first-start.ps1 -Blank' (docs/identity.md). Else leave out \
             --hostname.",
        );
    }
    let window = job.run.closes.duration_since(job.run.opens).as_secs();
    let (all, needs) = (all.as_secs(), job.needs);
    if i64::try_from(needs).unwrap_or(i64::MAX) > window {
        found(
            format!("the window has {} min, and one terminal needs about {} min", window / 60, needs / 60),
            "Give a later --until: nobody begins when the rest of the window is too short.",
        );
    } else if i64::try_from(all).unwrap_or(i64::MAX) > window {
        found(
            format!("the window has {} min, and all terminals need about {} min", window / 60, all / 60),
            "Give a later --until or a larger --wave: the last terminals will miss the window.",
        );
    }
    findings
}

fn of_terminal(job: &Job, terminal: &Terminal, name: &str, place: &Setting<'_>) -> Vec<Finding> {
    let found = |error: String, advice: String| Finding { terminal: Some(name.into()), error, advice };
    let mut findings = Vec::new();
    if let Some(capture) = place.lab.captures.of(&terminal.id, place.at.now) {
        findings.push(found(
            format!("it is captured as {}", capture.request.image),
            "It begins when 'flashmob capture' has ended, within the window.".into(),
        ));
    }
    if terminal.inventory.disks.is_empty() {
        let advice = "They are looked at when the terminal comes; a --preflight by day shows them.";
        findings.push(found("the disks are not known, because no agent has run there".into(), advice.into()));
        return findings;
    }
    for image in &job.terms.images {
        let Ok(rule) = image.disk.parse::<Rule>() else { continue };
        let Ok(published) = place.catalog.resolve(&image.id.clone().into()) else { continue };
        if let Err(failure) = takes(&rule, &terminal.inventory.disks, published) {
            findings.push(found(failure.message, failure.advice));
        }
    }
    if let Some((other, _)) = place.lab.jobs().of(&terminal.id).find(|(_, member)| !member.state.is_final()) {
        findings.push(found(
            format!("job {} is for it as well", other.number),
            "The single job goes first, and the standing one images it again at its next run.".into(),
        ));
    }
    findings
}

/// Refuses an image that the terminal will refuse for the disk that the rule means.
fn takes(rule: &Rule, disks: &[DiskInfo], image: &Published) -> Result<(), Failure> {
    let disk = rule.choose(disks, image.demands.minimum_size)?;
    match (image.demands.sector_size, disk.sector_size) {
        // One of them is not known.
        (0, _) | (_, 0) => Ok(()),
        (_, has) => image.demands.check_sectors(&image.id(), &describe(disk), has),
    }
}

/// What a job takes from a terminal's disk, for people.
fn loses(job: &Job, terminal: &Terminal) -> String {
    if job.terms.preflight {
        return "nothing: it is only looked at".into();
    }
    let installed = terminal.last.as_ref().map(|last| last.leaves_installed()).unwrap_or_default();
    let of = |image: &Placement| {
        let disk = image.disk.parse::<Rule>().ok();
        let disk = disk.and_then(|rule| rule.choose(&terminal.inventory.disks, 0).ok());
        let what = match &image.partitions {
            Some(some) => {
                let numbers: Vec<String> = some.iter().map(ToString::to_string).collect();
                format!("partitions {} of ", numbers.join(", "))
            }
            None => String::new(),
        };
        match disk {
            None => format!("{what}the disk that fits '{}'", image.disk),
            Some(disk) => {
                let had = installed.iter().find(|one| one.disk == disk.name);
                let had = had.map_or_else(|| "what is on it".into(), |one| one.id.to_string());
                format!("{what}{}: {had}", describe(disk))
            }
        }
    };
    job.terms.images.iter().map(of).collect::<Vec<_>>().join("; ")
}
