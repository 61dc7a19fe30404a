//! What a lab's server hears and has: hellos, targets, outcomes, published images.

use std::time::Duration;

use crate::api::{Hello, Inventory};
use crate::event::{Class, Failure, Installed, Loader, Outcome, Stage, Starts};
use crate::image_id::ImageId;
use crate::server::domain::catalog::{Published, Signature};
use crate::server::domain::config::Job;
use crate::server::domain::target::Target;
use crate::units::InfoHash;

pub(crate) fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

pub(crate) fn target() -> Target {
    let job = Job { name: "lab".into(), ..Job::by_hand("debian".parse().expect("valid")) };
    Target { job, image: ImageId::new("debian", "1"), also: Vec::new() }
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
    }
}
