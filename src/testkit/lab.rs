//! What a lab's server hears and has: hellos, targets, outcomes, published images.

use std::time::Duration;

use crate::api::{Hello, Inventory};
use crate::event::{CheckFact, CheckFinding, Class, Failure, Installed, Loader, Outcome, Stage, Starts};
use crate::image_id::ImageId;
use crate::layout::plan::Demands;
use crate::server::domain::catalog::{Published, Signature};
use crate::server::domain::jobs::{
    Job, Moment, Overrun, Pace, Phase, Placement, Run, Standing, Terms, stamp,
};
use crate::server::domain::target::Target;
use crate::server::domain::times::Every;
use crate::units::InfoHash;

pub(crate) fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// A target outside of any job of the database.
pub(crate) fn target() -> Target {
    Target { job: "lab".into(), terms: Terms::of(Placement::whole(ImageId::new("debian", "1"))) }
}

/// A moment at which both clocks agree.
pub(crate) fn moment(seconds: u64) -> Moment {
    let date = stamp(at(seconds)).to_zoned(jiff::tz::TimeZone::UTC);
    Moment { now: at(seconds), date }
}

/// A job whose window is open from `opens` to `closes`, in seconds.
pub(crate) fn job(number: u64, opens: u64, closes: u64) -> Job {
    Job {
        number,
        created: stamp(at(opens)),
        by: "administrator".into(),
        note: String::new(),
        targets: vec!["all".into()],
        terms: target().terms,
        pace: Pace { attempts: 3, wave: None, wake: false, overrun: Overrun::Finish },
        needs: 0,
        bytes: 0,
        standing: None,
        run: Run { number: 1, opens: stamp(at(opens)), closes: stamp(at(closes)), phase: Phase::Planned },
        next: None,
        cancelled: false,
    }
}

/// A terminal with one MAC introduces itself.
pub(crate) fn hello_of(mac: &str) -> Hello {
    let inventory = Inventory { machine: "QEMU Standard PC".into(), ..Inventory::default() };
    Hello { uuid: None, macs: vec![mac.into()], inventory, agent: "0.1.0".into() }
}

/// A good outcome for tests.
pub(crate) fn done() -> Outcome {
    let loader = Loader { partition: "1234abcd-01".into(), path: "/EFI/debian/shimx64.efi".into() };
    let installed = Installed {
        id: ImageId::new("debian", "1"),
        disk: "sda".into(),
        partitions: None,
        starts: Starts { bios: Some("1234abcd-01".into()), uefi: Some(loader) },
        personalised: false,
    };
    Outcome::Done {
        seconds: 60,
        bytes_in: 1,
        bytes_out: 2,
        disk: "sda".into(),
        installed: vec![installed],
        warnings: Vec::new(),
    }
}

/// A bad outcome for tests.
pub(crate) fn failed(class: Class, disk_touched: bool) -> Outcome {
    let failure = Failure::new(class, "writing sda failed", "Replace the disk.");
    Outcome::Failed { stage: Stage::Fetch, failure, disk_touched }
}

/// An image for tests.
pub(crate) fn published(name: &str, version: &str, sequence: u64) -> Published {
    Published {
        name: name.into(),
        version: version.into(),
        sequence,
        created: "2025-01-01T00:00:00Z".into(),
        bytes: 1 << 20,
        info_hash: InfoHash([u8::try_from(sequence).unwrap_or(0); 20]),
        signature: Signature::Good,
        nameless: false,
        grows: false,
        demands: Demands { minimum_size: 4 << 20, sector_size: 512, written: vec![1], kept: Vec::new() },
        blank: false,
    }
}

/// The outcome of a preflight that found `findings`.
pub(crate) fn checked(findings: Vec<CheckFinding>) -> Outcome {
    let facts = vec![CheckFact { name: "read speed".into(), value: "512 MB/s".into() }];
    Outcome::Checked { seconds: 9, findings, facts }
}

/// The same job each night from 22:00 to 6:00, after its window, with the version that was ordered.
pub(crate) fn standing(mut job: Job) -> Job {
    let every: Every = "daily 22:00".parse().expect("valid");
    let closes = job.run.closes.to_zoned(jiff::tz::TimeZone::UTC);
    job.next = Some(every.next(&closes).timestamp());
    job.standing = Some(Standing { every, closing: "06:00".parse().expect("valid"), follow: false });
    job
}
