//! The CD that Secure Boot accepts. `beside_dhcp` has the way over the network.

use std::time::Duration;

use qemu_tests::assets::Assets;
use qemu_tests::lab::Lab;
use qemu_tests::machine::{Bus, Firmware, Start};
use qemu_tests::slots::Slots;

use crate::{ASSETS, make_netboot};

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
