//! Terminals that must not be imaged, and one that cannot be: the server says why, and no half system starts.

use std::fs;
use std::path::{Path, PathBuf};

use flashmob::api::TerminalState;
use flashmob::event::{Class, Outcome};
use flashmob_testkit::child::wait_until;
use qemu_tests::assets::copy_folder;
use qemu_tests::lab::{Job, Lab, NOTHING_BOOTS};
use qemu_tests::machine::{Bus, Firmware, Other, Start, Terminal};
use qemu_tests::slots::Slots;

use crate::{ASSETS, BOOTED, IMAGED};

/// Runs one terminal whose disk holds an older system against `images` until its attempt has failed.
fn assert_refused(name: &str, images: &Path, disk_size: u64, class: Class) {
    let assets = &*ASSETS;
    let _slots = Slots::take(1);
    let lab = Lab::start(assets, name, &[1], &Job::for_all(), images).unwrap();
    let terminal = Terminal::new(&lab.folder, 1, Firmware::Bios, Bus::Virtio, disk_size).unwrap();
    terminal.fill_disk(&assets.old).unwrap();
    let before = terminal.disk_hash().unwrap();
    let machine = terminal.switch_on(&lab.network, &Start::Network).unwrap();
    lab.wait_for_state(&machine, TerminalState::Failed, IMAGED).unwrap();
    let view = lab.view(&terminal).unwrap().unwrap();
    let Some(Outcome::Failed { failure, disk_touched, .. }) = view.outcome else {
        panic!("no failure was reported: {:?}", view.outcome);
    };
    assert_eq!((failure.class, disk_touched), (class, false), "{failure:?}");
    assert!(!failure.advice.is_empty(), "nothing says what to do: {failure:?}");
    assert_eq!(machine.cut_power().disk_hash().unwrap(), before, "something was written");
}

/// A copy of the repository in which `spoil` has changed the image's folder.
fn spoilt(name: &str, spoil: impl FnOnce(&Path)) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::Builder::new().prefix(name).tempdir_in(&ASSETS.folder).unwrap();
    let images = folder.path().join("images");
    copy_folder(&ASSETS.images, &images).unwrap();
    spoil(&images.join("golden/1"));
    (folder, images)
}

#[test]
fn an_unsigned_manifest_is_refused_and_nothing_is_written() {
    let (_folder, images) =
        spoilt("unsigned", |image| fs::remove_file(image.join("manifest.json.minisig")).unwrap());
    assert_refused("unsigned", &images, 160 << 20, Class::Untrusted);
}

#[test]
fn an_altered_manifest_is_refused_and_nothing_is_written() {
    let (_folder, images) = spoilt("altered", |image| {
        let file = image.join("manifest.json");
        let text = fs::read_to_string(&file).unwrap();
        let altered = text.replacen("\"sequence\": 1", "\"sequence\": 7", 1);
        assert_ne!(text, altered, "the manifest has no sequence 1:\n{text}");
        fs::write(&file, altered).unwrap();
    });
    assert_refused("altered", &images, 160 << 20, Class::Untrusted);
}

#[test]
fn a_disk_that_is_too_small_is_refused_and_nothing_is_written() {
    assert_refused("too-small", &ASSETS.images, 96 << 20, Class::Refused);
}

#[test]
fn a_terminal_whose_disk_failed_is_held_and_not_sent_to_half_a_system() {
    let assets = &*ASSETS;
    let _slots = Slots::take(1);
    // Write the pieces too that the old and the new system share.
    let job = Job { compare: "full", ..Job::for_all() };
    let lab = Lab::start(assets, "held", &[1], &job, &assets.images).unwrap();
    let mut terminal = lab.terminal(1, Firmware::Bios, Bus::Virtio).unwrap();
    terminal.fill_disk(&assets.old).unwrap();
    // In the middle of the root, whose content travels.
    terminal.bad_sector = Some((48 << 20) / 512);
    let machine = terminal.switch_on(&lab.network, &Start::Network).unwrap();
    lab.wait_for_state(&machine, TerminalState::Failed, IMAGED).unwrap();
    let view = lab.view(&terminal).unwrap().unwrap();
    let Some(Outcome::Failed { failure, disk_touched, .. }) = view.outcome else {
        panic!("no failure was reported: {:?}", view.outcome);
    };
    assert_eq!((failure.class, disk_touched), (Class::Disk, true), "{failure:?}");

    // After the next start it shows the reason, waits, and asks again.
    let machine = machine.cut_power().switch_on(&lab.network, &Start::Network).unwrap();
    let told = || machine.said().matches("this terminal was not imaged").count();
    wait_until("the terminal asks a second time", BOOTED, || Ok(told() >= 2))
        .map_err(|error| panic!("{error:#}\n{}", machine.said()))
        .unwrap();
    let went_on =
        NOTHING_BOOTS.iter().chain(&["Linux version", "GRUB"]).find(|text| machine.said().contains(**text));
    assert_eq!(went_on, None, "it went on to its disk:\n{}", machine.said());
}

#[test]
fn a_vague_rule_and_two_disks_are_refused_also_where_only_one_is_large_enough() {
    let assets = &*ASSETS;
    let _slots = Slots::take(1);
    let lab = Lab::start(assets, "two-disks", &[1], &Job::for_all(), &assets.images).unwrap();
    let mut terminal = lab.terminal(1, Firmware::Bios, Bus::Ahci).unwrap();
    // The system's own disk, which the image does not fit, and another one with foreign data.
    let small = terminal.folder.join("small.img");
    fs::File::create(&small).unwrap().set_len(64 << 20).unwrap();
    terminal.others = vec![Other::Internal(small)];
    terminal.fill_disk(&assets.old).unwrap();
    let before = terminal.disk_hash().unwrap();
    let machine = terminal.switch_on(&lab.network, &Start::Network).unwrap();
    lab.wait_for_state(&machine, TerminalState::Failed, IMAGED).unwrap();
    let view = lab.view(&terminal).unwrap().unwrap();
    let Some(Outcome::Failed { failure, disk_touched: false, .. }) = view.outcome else {
        panic!("no refusal was reported: {:?}", view.outcome);
    };
    assert_eq!(failure.class, Class::Refused);
    assert!(failure.message.contains("vda") && failure.message.contains("sda"), "{failure:?}");
    assert_eq!(machine.cut_power().disk_hash().unwrap(), before, "something was written");
}
