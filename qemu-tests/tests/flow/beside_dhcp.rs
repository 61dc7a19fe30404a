//! The whole way beside a DHCP server that knows nothing of flashmob, by each kind of firmware: a terminal is
//! imaged, fills its larger disk, gets its name, calls the server from the new system, and goes on to its
//! disk when it boots from the network again.

use std::fs;
use std::path::Path;
use std::sync::LazyLock;
use std::time::Duration;

use flashmob_testkit::child::{tail, wait_until};
use qemu_tests::assets::{Assets, capture};
use qemu_tests::golden;
use qemu_tests::lab::{Job, Lab, PORT, label};
use qemu_tests::machine::{Bus, Firmware, Machine, OWN_KEY, Start};
use qemu_tests::net::SERVER;
use qemu_tests::slots::Slots;
use tempfile::TempDir;

use crate::own::assert_named_and_grown;
use crate::{ASSETS, BOOTED, GONE_ON, IMAGED, NEW_IS_UP, make_netboot, write_own_key};

/// From switching on to the call of the new system.
const CALLED: Duration = IMAGED.saturating_add(BOOTED);

/// A golden disk with flashmob's helper, made once.
static HELPED: LazyLock<std::path::PathBuf> =
    LazyLock::new(|| ASSETS.golden_with_helper().expect("making the golden disk"));

/// A folder for a test's own assets.
fn own_folder() -> TempDir {
    tempfile::Builder::new().prefix("beside").tempdir_in(&ASSETS.folder).unwrap()
}

/// Captures `golden` as an image that grows, into `folder`.
fn image_of(golden: &Path, folder: &TempDir) -> Assets {
    let images = folder.path().join("images");
    capture(&ASSETS.programs, golden, &images, &ASSETS.secret, &["--grow"]).unwrap();
    Assets { golden: golden.to_path_buf(), images, ..ASSETS.clone() }
}

/// Starts the server beside the DHCP server, with a job that names the terminals 1 to `count`.
fn lab_with_job(assets: &Assets, name: &str, count: u8, more: &[&str]) -> Lab {
    let lab = Lab::beside_dhcp(assets, name, &assets.images, more).unwrap();
    let terminals: Vec<u8> = (1..=count).collect();
    lab.give(&terminals, &Job { hostname: Some("{room}-{seat:02}"), ..Job::for_all() }).unwrap();
    lab
}

fn name_of(number: u8) -> String {
    format!("qemu-{number:02}")
}

/// Waits until the report says that this terminal's new system has called.
fn wait_for_call(lab: &Lab, number: u8) {
    let called = format!("booted as {}: Golden", name_of(number));
    let mut report = String::new();
    let waited = wait_until(&format!("{} has {called}", label(number)), CALLED, || {
        report = lab.flashmob(&["job", "report", "1"])?;
        Ok(report.contains(&called))
    });
    if let Err(error) = waited {
        panic!("{error:#}\n{report}\n{}", tail(&lab.folder.join("server.log")));
    }
}

/// Each of `kinds` (terminal 1, 2, …) goes the whole way; `agent` tells whether the agent runs when it boots
/// from the network again.
fn go_the_whole_way(lab: &Lab, kinds: &[(Firmware, Bus)], agent: bool) {
    let numbered = || kinds.iter().zip(1u8..);
    let machines: Vec<Machine> =
        numbered().map(|((firmware, bus), number)| lab.netboot(number, *firmware, *bus).unwrap()).collect();
    for (_, number) in numbered() {
        wait_for_call(lab, number);
    }
    let mut again = Vec::new();
    for mut machine in machines {
        machine.wait_for(NEW_IS_UP, BOOTED).unwrap();
        // The kernel says it by Debian's chain, systemd's stub by the other.
        let secure = matches!(machine.terminal.firmware, Firmware::UefiSecure | Firmware::UefiOwnKey);
        assert_eq!(
            machine.said().to_lowercase().contains("secure boot enabled")
                || machine.said().contains("Secure Boot is enabled"),
            secure,
            "{}",
            machine.said()
        );
        again.push(machine.cut_power().switch_on(&lab.network, &Start::Network).unwrap());
    }
    for (mut machine, number) in again.into_iter().zip(1u8..) {
        machine.wait_for(NEW_IS_UP, GONE_ON).unwrap();
        let said = machine.said();
        assert_eq!(said.contains("flashmob: agent"), agent, "{said}");
        let terminal = machine.cut_power();
        assert_named_and_grown(&terminal, &name_of(number));
    }
    let report = lab.flashmob(&["job", "report", "1"]).unwrap();
    for (_, number) in numbered() {
        let line = report.lines().find(|line| line.starts_with(&label(number))).unwrap();
        let words: Vec<&str> = line.split_whitespace().take(3).collect();
        assert_eq!(words, [label(number).as_str(), "done", "1"], "imaged once: {report}");
    }
}

#[test]
fn bios_uefi_and_http_boot_go_the_whole_way_beside_a_dhcp_server_that_knows_nothing_of_it() {
    let kinds = [(Firmware::Bios, Bus::Virtio), (Firmware::Uefi, Bus::Nvme), (Firmware::UefiHttp, Bus::Ahci)];
    let _slots = Slots::take(kinds.len());
    let folder = own_folder();
    let assets = image_of(&HELPED, &folder);
    let lab = lab_with_job(&assets, "beside-dhcp", 3, &[]);
    go_the_whole_way(&lab, &kinds, false);
}

#[test]
fn with_secure_boot_a_terminal_goes_the_whole_way_by_debians_chain_beside_such_a_dhcp_server() {
    let _slots = Slots::take(1);
    let folder = own_folder();
    let (disk, netboot) = (folder.path().join("golden.img"), folder.path().join("netboot"));
    fs::copy(&*HELPED, &disk).unwrap();
    golden::sign_chain(&disk).unwrap();
    let more = ["--secure-boot", "debian"].map(AsRef::as_ref);
    make_netboot(&netboot, &more);
    let assets = Assets { netboot, ..image_of(&disk, &folder) };
    let firmware = ["--pxe-firmware", "10.77.0.240,10.77.0.250"];
    let lab = lab_with_job(&assets, "beside-dhcp-secure", 1, &firmware);
    go_the_whole_way(&lab, &[(Firmware::UefiSecure, Bus::Nvme)], false);
}

#[test]
fn a_terminal_goes_the_whole_way_by_the_organisations_own_program_beside_such_a_dhcp_server() {
    let _slots = Slots::take(1);
    let folder = own_folder();
    let at = |name: &str| folder.path().join(name);
    let (key, disk, netboot) = (at("own.key"), at("golden.img"), at("netboot"));
    write_own_key(&key);
    fs::copy(&*HELPED, &disk).unwrap();
    golden::sign_unified(&disk, &key, OWN_KEY[1].as_ref()).unwrap();
    let server = format!("http://{SERVER}:{PORT}");
    let more = ["--uki", "--server", &server, "--sign-cert", OWN_KEY[1], "--sign-key"].map(AsRef::as_ref);
    let more: Vec<_> = more.into_iter().chain([key.as_os_str()]).collect();
    make_netboot(&netboot, &more);
    let assets = Assets { netboot, ..image_of(&disk, &folder) };
    let lab = lab_with_job(&assets, "beside-dhcp-own-key", 1, &[]);
    go_the_whole_way(&lab, &[(Firmware::UefiOwnKey, Bus::Nvme)], true);
}
