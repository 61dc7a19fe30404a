//! A preflight: everything that can refuse an attempt or make it slow, found out by day.
//!
//! Invariant: nothing is written. Disks are open for reading only, so the kernel would refuse a write, and no
//! swarm is joined. What imaging would fail for is a finding and no failure, so that the rest is looked at as
//! well; only a network that fails is tried again.

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::bounds::timely;
use super::context::{ImagingContext, blocking};
use super::download::{self, Description};
use super::{target, twins};
use crate::agent::checks::{self, Seen, SeenDisk};
use crate::agent::network;
use crate::api::{Assignment, DiskInfo, Task};
use crate::event::{CheckFact, CheckFinding, Class, Failure, Stage};
use crate::io::disk::claim::{ExaminedDisk, examine};
use crate::io::disk::{health, sample};
use crate::io::host::{firmware, inventory};
use crate::layout::identity::Identity;
use crate::layout::plan::LayoutPlan;
use crate::layout::rule::describe;

/// A disk that says nothing for this time is a finding.
const DISK: Duration = Duration::from_secs(60);

/// What a preflight saw.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Checked {
    pub findings: Vec<CheckFinding>,
    pub facts: Vec<CheckFact>,
}

/// A disk as it would be imaged.
struct Planned {
    seen: SeenDisk,
    identity: Identity,
    warnings: Vec<String>,
}

/// Looks at the terminal as `assignment` would image it.
pub async fn check(ctx: &ImagingContext, assignment: &Assignment) -> Result<Checked, Failure> {
    let ahead = assignment.date.and_then(|server| ahead(SystemTime::now(), server));
    let mut findings = Vec::new();
    let mut facts = Vec::new();
    ctx.status.stage(Stage::Manifest);
    let mut images = Vec::new();
    for task in assignment.tasks() {
        match download::describe(ctx, task).await {
            Ok(image) => {
                facts.push(CheckFact {
                    name: "image".into(),
                    value: format!("{}, the manifest is accepted", task.id),
                });
                images.push((task, image));
            }
            Err(failure) if failure.class == Class::Retry => return Err(failure),
            Err(failure) => findings.push(failure.into()),
        }
    }
    ctx.status.stage(Stage::Claim);
    let mut planned: Vec<Planned> = Vec::new();
    for (task, image) in images {
        match plan(ctx, assignment, task, image, &planned).await {
            Ok(one) => {
                let advice = "Imaging says this as well, and goes on.";
                findings.extend(one.warnings.iter().map(|text| CheckFinding::warning(text, advice)));
                planned.push(one);
            }
            Err(failure) => findings.push(failure.into()),
        }
    }
    let disks: Vec<String> = planned.iter().map(|one| describe(&one.seen.info)).collect();
    ctx.status.disk(disks.join(" and "));
    let identities = planned.iter().map(|one| (one.seen.info.clone(), one.identity.clone())).collect();
    let twins = timely(DISK, "looking for disks with the same identity", twins::look(identities)).await;
    match twins {
        Ok(warnings) => {
            let advice = "Pull it before the terminal is imaged.";
            findings.extend(warnings.into_iter().map(|text| CheckFinding::warning(text, advice)));
        }
        Err(failure) => findings.push(failure.into()),
    }
    let nics = network::towards(&ctx.server).await;
    let seen = Seen {
        inventory: inventory::read(nics),
        firmware: firmware::read(Path::new("/")),
        ahead,
        disks: planned.into_iter().map(|one| one.seen).collect(),
    };
    let (more, found) = checks::judge(&seen);
    facts.extend(more);
    findings.extend(found);
    findings.sort_by_key(|finding| finding.severity);
    findings.iter().for_each(|finding| ctx.status.note(finding.to_string()));
    Ok(Checked { findings, facts })
}

/// Chooses the disk of `task`, plans `image` onto it, and looks how it does. `others` have their disks.
async fn plan(
    ctx: &ImagingContext,
    assignment: &Assignment,
    task: &Task,
    image: Description,
    others: &[Planned],
) -> Result<Planned, Failure> {
    let info = target::choose(ctx, task, image.manifest(), assignment, target::list).await?;
    if others.iter().any(|other| other.seen.info.name == info.name) {
        return Err(Failure::refused(
            format!("{} and another image of the same job both choose the disk {}", task.id, describe(&info)),
            "Name each disk in the job by a rule that fits no other: serial=…, bus=…, size=….",
        ));
    }
    ctx.status.stage(Stage::Check);
    let (what, task) = (format!("looking at the disk {}", describe(&info)), task.clone());
    timely(DISK, &what, blocking(move || look(info, &task, &image))).await
}

fn look(info: DiskInfo, task: &Task, image: &Description) -> Result<Planned, Failure> {
    let ExaminedDisk { disk, facts } = examine(&info, task.layout)?;
    let only = task.partitions.as_deref();
    let plan = LayoutPlan::new(&image.trusted, &image.boot, &facts, task.layout, only)?;
    let speed = sample::read_speed(&disk)?;
    let health = health::read(disk.device(), &info.bus);
    Ok(Planned {
        seen: SeenDisk { info, speed, health },
        identity: plan.identity().clone(),
        warnings: plan.warnings().to_vec(),
    })
}

/// Seconds by which `now` is ahead of the server's date.
fn ahead(now: SystemTime, server: i64) -> Option<i64> {
    let now = i64::try_from(now.duration_since(UNIX_EPOCH).ok()?.as_secs()).ok()?;
    now.checked_sub(server)
}
