//! The CD that Secure Boot accepts, and keys that the agent enrols. `beside_dhcp` has the way over the
//! network.

use std::process::Command;
use std::time::Duration;

use flashmob_testkit::command::try_command;

use qemu_tests::assets::Assets;
use qemu_tests::lab::{Lab, NOTHING_BOOTS};
use qemu_tests::machine::{Bus, Firmware, OWN_KEY, Start};
use qemu_tests::slots::Slots;

use crate::{ASSETS, BOOTED, make_netboot, write_own_key};

/// From switching on to the agent's first line.
const STARTED: Duration = Duration::from_secs(180);

#[test]
fn the_cd_starts_the_agent_under_secure_boot_and_by_bios() {
    let _slots = Slots::take(1);
    let folder = tempfile::Builder::new().prefix("signed").tempdir_in(&ASSETS.folder).unwrap();
    let [netboot, iso] = ["netboot", "signed.iso"].map(|name| folder.path().join(name));
    let more = ["--secure-boot".as_ref(), "debian".as_ref(), "--iso".as_ref(), iso.as_os_str()];
    make_netboot(&netboot, &more);
    let assets = Assets { netboot, iso, ..ASSETS.clone() };
    let lab = Lab::without_job(&assets, "secure-boot-cd", &assets.images, &[]).unwrap();
    for (number, firmware) in [(2, Firmware::UefiSecure), (3, Firmware::Bios)] {
        let terminal = lab.terminal(number, firmware, Bus::Virtio).unwrap();
        let mut machine = terminal.switch_on(&lab.network, &Start::Cd(assets.iso.clone())).unwrap();
        machine.wait_for("flashmob: agent", STARTED).unwrap();
        let secure = machine.said().contains("UEFI Secure Boot is enabled");
        assert_eq!(secure, firmware == Firmware::UefiSecure, "{}", machine.said());
    }
}

#[test]
fn the_agent_enrols_the_keys_in_setup_mode_and_from_then_on_only_signed_programs_start() {
    let _slots = Slots::take(1);
    let folder = tempfile::Builder::new().prefix("enrol").tempdir_in(&ASSETS.folder).unwrap();
    let [key, keys, netboot, iso] =
        ["own.key", "keys", "netboot", "own.iso"].map(|name| folder.path().join(name));
    write_own_key(&key);
    let mut make_keys = Command::new(&ASSETS.programs.initramfs);
    make_keys.arg("keys").arg("--out").arg(&keys).arg("--sign-key").arg(&key);
    try_command(make_keys.args(["--sign-cert", OWN_KEY[1], "--without-microsoft"])).unwrap();
    let sign = ["--uki".as_ref(), "--sign-cert".as_ref(), OWN_KEY[1].as_ref(), "--sign-key".as_ref()];
    let more =
        [key.as_os_str(), "--enrol-keys".as_ref(), keys.as_os_str(), "--iso".as_ref(), iso.as_os_str()];
    make_netboot(&netboot, &[&sign[..], &more].concat());
    let assets = Assets { netboot, iso, ..ASSETS.clone() };
    let lab = Lab::without_job(&assets, "secure-boot-enrol", &assets.images, &[]).unwrap();
    let terminal = lab.terminal(4, Firmware::UefiSetupMode, Bus::Virtio).unwrap();
    let enrolled = "the firmware was in Setup Mode and has the organisation's keys now";

    let mut machine = terminal.switch_on(&lab.network, &Start::Cd(assets.iso.clone())).unwrap();
    machine.wait_for(enrolled, STARTED).unwrap();
    let said = machine.said().to_lowercase();
    assert!(!said.contains("secure boot enabled"), "it is on from the next start: {said}");

    let terminal = machine.cut_power();
    let mut machine = terminal.switch_on(&lab.network, &Start::Cd(assets.iso.clone())).unwrap();
    machine.wait_for("flashmob: agent", STARTED).unwrap();
    let said = machine.said();
    assert!(said.to_lowercase().contains("secure boot enabled") && !said.contains(enrolled), "{said}");

    let terminal = machine.cut_power();
    let mut machine = terminal.switch_on(&lab.network, &Start::Cd(ASSETS.iso.clone())).unwrap();
    machine.wait_for_any(&NOTHING_BOOTS, BOOTED).unwrap();
    let said = machine.said();
    assert!(said.contains("Access Denied") && !said.contains("flashmob: agent"), "{said}");
}
