//! Power is cut while a disk is written that held an older bootable system.

use std::fs::File;
use std::os::unix::fs::FileExt;

use anyhow::Context;
use flashmob::api::TerminalState;
use flashmob_testkit::child::{tail, wait_until};
use qemu_tests::lab::{Job, Lab, NOTHING_BOOTS};
use qemu_tests::machine::{Bus, Firmware, Start, Terminal};
use qemu_tests::slots::Slots;

use crate::{ASSETS, BOOTED, IMAGED, NEW_IS_UP, OLD_IS_UP};

/// Rough place of the fill on the golden disk's root; the ranges that differ between old and new are written
/// late.
const SAMPLES: std::ops::Range<u64> = 36..104;

/// How many MiB of the root are as in the new system and were not so in the old one.
fn written(terminal: &Terminal) -> usize {
    let disk = File::open(terminal.disk()).unwrap();
    let [old, new] = [&ASSETS.old, &ASSETS.golden].map(|path| File::open(path).unwrap());
    let piece = |file: &File, mib: u64| {
        let mut buffer = vec![0u8; 1 << 20];
        file.read_exact_at(&mut buffer, mib << 20).unwrap();
        buffer
    };
    SAMPLES
        .filter(|mib| {
            let wanted = piece(&new, *mib);
            wanted != piece(&old, *mib) && wanted == piece(&disk, *mib)
        })
        .count()
}

/// Cuts the power as soon as `moment` has come, and shows that the disk starts nothing; the next boot from
/// the network finishes.
fn cut_at(name: &str, firmware: Firmware, bus: Bus, moment: impl Fn(&Terminal) -> bool) {
    let assets = &*ASSETS;
    let _slots = Slots::take(1);
    let lab = Lab::start(assets, name, &[1], &Job::for_all(), &assets.images).unwrap();
    let terminal = lab.terminal(1, firmware, bus).unwrap();
    terminal.fill_disk(&assets.old).unwrap();
    let machine = terminal.switch_on(&lab.network, &Start::Network).unwrap();
    wait_until("the moment to cut the power", IMAGED, || Ok(moment(&terminal)))
        .with_context(|| tail(&terminal.serial()))
        .unwrap();
    let terminal = machine.cut_power();
    let state = lab.view(&terminal).unwrap().unwrap().state;
    assert!(state != TerminalState::Done, "the power was cut too late to show anything");

    let mut from_disk = terminal.switch_on(&lab.network, &Start::Disk).unwrap();
    let mut ends = NOTHING_BOOTS.to_vec();
    ends.extend([NEW_IS_UP, OLD_IS_UP, "Linux version"]);
    let which = from_disk.wait_for_any(&ends, BOOTED).unwrap();
    assert!(which < NOTHING_BOOTS.len(), "a half-written disk started:\n{}", from_disk.said());

    let terminal = from_disk.cut_power();
    let mut machine = terminal.switch_on(&lab.network, &Start::Network).unwrap();
    lab.wait_for_state(&machine, TerminalState::Done, IMAGED).unwrap();
    machine.wait_for(NEW_IS_UP, BOOTED).unwrap();
}

#[test]
fn a_disk_that_lost_power_after_it_was_disarmed_boots_nothing_until_it_is_finished() {
    let before = {
        let mut sector = [0u8; 512];
        File::open(&ASSETS.old).unwrap().read_exact_at(&mut sector, 0).unwrap();
        sector
    };
    cut_at("power-disarmed", Firmware::Bios, Bus::Virtio, |terminal| {
        terminal.first_sector().unwrap() != before
    });
}

#[test]
fn a_disk_that_lost_power_between_pieces_boots_nothing_until_it_is_finished() {
    cut_at("power-pieces", Firmware::Uefi, Bus::Nvme, |terminal| written(terminal) >= 2);
}
