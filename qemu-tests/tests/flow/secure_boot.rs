//! Secure Boot with Microsoft's keys: from the network and from a CD by Debian's signed chain.

use std::fs;
use std::time::Duration;

use flashmob::api::TerminalState;
use flashmob_testkit::command::try_run;
use qemu_tests::assets::{Assets, build_netboot, capture};
use qemu_tests::decoy::{self, DECOY_IS_UP};
use qemu_tests::golden;
use qemu_tests::lab::{Job, Lab, PORT};
use qemu_tests::machine::{Bus, Firmware, OWN_KEY, Start};
use qemu_tests::net::SERVER;
use qemu_tests::slots::Slots;
use tempfile::TempDir;

use crate::{ASSETS, BOOTED, IMAGED, NEW_IS_UP};

const SECURE: &str = "UEFI Secure Boot is enabled";
/// From switching on to the agent's first line: shim, GRUB and the kernel come by TFTP.
const STARTED: Duration = Duration::from_secs(180);

/// The usual assets, but with netboot files, ISO and image that Secure Boot accepts.
fn signed(folder: &TempDir) -> Assets {
    let at = |name: &str| folder.path().join(name);
    let (keys, disk) = (ASSETS.folder.join("keys"), at("golden.img"));
    let mut assets =
        Assets { netboot: at("netboot"), iso: at("signed.iso"), images: at("images"), ..ASSETS.clone() };
    let more = ["--secure-boot".as_ref(), "debian".as_ref(), "--iso".as_ref(), assets.iso.as_os_str()];
    let cache = assets.folder.join("kernel");
    build_netboot(&assets.programs, &assets.netboot, &cache, &more, &keys.join("lab.pub")).unwrap();
    fs::copy(&assets.golden, &disk).unwrap();
    golden::sign_chain(&disk).unwrap();
    assets.golden = disk;
    capture(&assets.programs, &assets.golden, &assets.images, &keys.join("lab.key"), &[]).unwrap();
    assets
}

#[test]
fn with_secure_boot_a_terminal_is_imaged_by_debians_chain_and_goes_on_to_its_disk_from_then_on() {
    let _slots = Slots::take(1);
    let folder = tempfile::Builder::new().prefix("signed").tempdir_in(&ASSETS.folder).unwrap();
    let assets = signed(&folder);
    let lab = Lab::start(&assets, "secure-boot", &[1], &Job::for_all(), &assets.images).unwrap();
    let mut machine = lab.netboot(1, Firmware::UefiSecure, Bus::Nvme).unwrap();
    machine.wait_for("flashmob: agent", STARTED).unwrap();
    assert!(machine.said().contains(SECURE), "{}", machine.said());
    lab.wait_for_state(&machine, TerminalState::Done, IMAGED).unwrap();
    machine.wait_for(NEW_IS_UP, BOOTED).unwrap();

    // Switched on once more, it is sent to its disk, by the loader that the image starts.
    let mut machine = machine.cut_power().switch_on(&lab.network, &Start::Network).unwrap();
    machine.wait_for("booting from the disk that was imaged", STARTED).unwrap();
    machine.wait_for(NEW_IS_UP, BOOTED).unwrap();
    assert!(machine.said().contains(SECURE), "{}", machine.said());
    assert!(!machine.said().contains("flashmob: agent"), "{}", machine.said());
    drop(lab);

    // The CD starts likewise. BIOS starts it too.
    let lab = Lab::without_job(&assets, "secure-boot-cd", &assets.images, &[]).unwrap();
    for (number, firmware) in [(2, Firmware::UefiSecure), (3, Firmware::Bios)] {
        let terminal = lab.terminal(number, firmware, Bus::Virtio).unwrap();
        let mut machine = terminal.switch_on(&lab.network, &Start::Cd(assets.iso.clone())).unwrap();
        machine.wait_for("flashmob: agent", STARTED).unwrap();
    }
}

/// Netboot files with a program signed by the firmware's own key, and an image whose loaders it signed too.
fn signed_by_own_key(folder: &TempDir) -> Assets {
    let at = |name: &str| folder.path().join(name);
    let (key, certificate, disk) = (at("own.key"), OWN_KEY[1].as_ref(), at("golden.img"));
    let words = ["rsa", "-passin", "pass:snakeoil", "-in", OWN_KEY[0], "-out", &key.to_string_lossy()];
    try_run("openssl", words).unwrap();
    let assets = Assets { netboot: at("netboot"), images: at("images"), golden: disk, ..ASSETS.clone() };
    let server = format!("http://{SERVER}:{PORT}");
    let more = ["--uki", "--server", &server, "--sign-cert", OWN_KEY[1], "--sign-key"].map(AsRef::as_ref);
    let more: Vec<_> = more.into_iter().chain([key.as_os_str()]).collect();
    let (cache, keys) = (assets.folder.join("kernel"), assets.folder.join("keys"));
    build_netboot(&assets.programs, &assets.netboot, &cache, &more, &keys.join("lab.pub")).unwrap();
    decoy::make(&assets.golden).unwrap();
    decoy::sign(&assets.golden, &key, certificate).unwrap();
    capture(&assets.programs, &assets.golden, &assets.images, &keys.join("lab.key"), &[]).unwrap();
    assets
}

#[test]
fn a_program_signed_by_the_organisation_images_a_terminal_and_sends_it_on_to_its_disk() {
    let _slots = Slots::take(1);
    let folder = tempfile::Builder::new().prefix("own-key").tempdir_in(&ASSETS.folder).unwrap();
    let assets = signed_by_own_key(&folder);
    let lab = Lab::start(&assets, "own-key", &[1], &Job::for_all(), &assets.images).unwrap();
    let mut machine = lab.netboot(1, Firmware::UefiOwnKey, Bus::Nvme).unwrap();
    machine.wait_for("flashmob: agent", STARTED).unwrap();
    assert!(machine.said().contains("Secure boot enabled"), "{}", machine.said());
    lab.wait_for_state(&machine, TerminalState::Done, IMAGED).unwrap();
    // The restart brings the agent again, which the server sends on.
    machine.wait_for("the firmware goes on with its entry", BOOTED).unwrap();
    machine.wait_for(DECOY_IS_UP, BOOTED).unwrap();
}
