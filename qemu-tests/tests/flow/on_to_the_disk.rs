//! From the network on to the disk: the imaged disk starts, even if others could.

use std::fs;
use std::path::Path;
use std::time::Duration;

use flashmob::api::TerminalState;
use qemu_tests::assets::capture;
use qemu_tests::decoy::{self, DECOY_IS_UP};
use qemu_tests::lab::{Job, Lab};
use qemu_tests::machine::{Bus, Firmware, Machine, Other, Start};
use qemu_tests::slots::Slots;

use crate::{ASSETS, BOOTED, GONE_ON, IMAGED, NEW_IS_UP};

/// Waits for the new system, which starts before anything else does.
fn assert_new_starts(machine: &mut Machine, within: Duration) {
    let which = machine.wait_for_any(&[NEW_IS_UP, DECOY_IS_UP], within).unwrap();
    assert_eq!(which, 0, "another disk started:\n{}", machine.said());
}

/// A terminal with another bootable disk, which the firmware would start first, and a bootable stick.
fn images_and_starts(name: &str, firmware: Firmware, bus: Bus, disk: &'static str, images: &Path) {
    let lab = Lab::start(&ASSETS, name, &[1], &Job { disk, ..Job::for_all() }, images).unwrap();
    let mut terminal = lab.terminal(1, firmware, bus).unwrap();
    let [second, stick] = ["second.img", "stick.img"].map(|name| terminal.folder.join(name));
    decoy::make(&second).unwrap();
    decoy::make(&stick).unwrap();
    terminal.others = vec![Other::Internal(second), Other::Stick(stick)];
    let mut machine = terminal.switch_on(&lab.network, &Start::Network).unwrap();
    lab.wait_for_state(&machine, TerminalState::Done, IMAGED).unwrap();
    assert_new_starts(&mut machine, BOOTED);
}

#[test]
fn by_bios_neither_a_second_disk_nor_a_stick_starts_instead() {
    let _slots = Slots::take(1);
    images_and_starts("second-disk-bios", Firmware::Bios, Bus::Ahci, "bus=ata", &ASSETS.images);
}

#[test]
fn by_uefi_neither_a_second_disk_nor_a_stick_nor_the_other_system_of_a_dual_boot_image_starts_instead() {
    let _slots = Slots::take(1);
    let assets = &*ASSETS;
    let folder = tempfile::Builder::new().prefix("dual-boot").tempdir_in(&assets.folder).unwrap();
    let (disk, images) = (folder.path().join("golden.img"), folder.path().join("images"));
    fs::copy(&assets.golden, &disk).unwrap();
    decoy::make_dual_boot(&disk).unwrap();
    capture(&assets.programs, &disk, &images, &assets.secret, &[]).unwrap();
    images_and_starts("second-disk-uefi", Firmware::Uefi, Bus::Nvme, "bus=nvme", &images);
}

#[test]
fn a_stick_with_the_identity_of_the_imaged_disk_is_not_started_and_named() {
    let _slots = Slots::take(2);
    let assets = &*ASSETS;
    let lab = Lab::start(assets, "copied-stick", &[1, 2], &Job::for_all(), &assets.images).unwrap();
    for (number, firmware, bus) in [(1, Firmware::Bios, Bus::Ahci), (2, Firmware::Uefi, Bus::Virtio)] {
        let mut machine = lab.netboot(number, firmware, bus).unwrap();
        lab.wait_for_state(&machine, TerminalState::Done, IMAGED).unwrap();
        assert_new_starts(&mut machine, BOOTED);
        let mut terminal = machine.cut_power();
        let stick = terminal.folder.join("stick.img");
        decoy::copy_of(&assets.golden, &stick).unwrap();
        terminal.others = vec![Other::Stick(stick)];
        let mut machine = terminal.switch_on(&lab.network, &Start::Network).unwrap();
        machine.wait_for("two disks carry the identity", BOOTED).unwrap();
        // The firmware's own order continues with the disk.
        assert_new_starts(&mut machine, GONE_ON);
    }
}
