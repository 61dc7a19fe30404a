//! Terminals that are imaged: by every firmware and disk, in one swarm, with every way to the new system.

use std::process::Command;

use flashmob::api::TerminalState;
use flashmob::event::Outcome;
use flashmob_testkit::command::try_command;
use qemu_tests::lab::{Job, Lab};
use qemu_tests::machine::{Bus, Firmware, Machine, Start, Terminal, mac_of};
use qemu_tests::slots::Slots;

use crate::{ASSETS, BOOTED, IMAGED, NEW_IS_UP};

/// The disk holds the image, and its table is in order to the end of the (larger) disk.
fn assert_disk_is_imaged(terminal: &Terminal) {
    let image = ASSETS.images.join("golden/1");
    let mut verify = Command::new(&ASSETS.programs.mkimage);
    try_command(verify.arg("verify").arg(&image).arg("--disk").arg(terminal.disk())).unwrap();
    let table = try_command(Command::new("sgdisk").arg("--verify").arg(terminal.disk())).unwrap();
    assert!(table.contains("No problems found"), "{table}");
}

#[test]
fn three_kinds_of_terminals_image_themselves_in_one_swarm_and_boot_the_new_system() {
    let assets = &*ASSETS;
    let _slots = Slots::take(3);
    let lab = Lab::start(assets, "three", &[1, 2, 3], &Job::for_all(), &assets.images).unwrap();
    let kinds = [(Firmware::Bios, Bus::Virtio), (Firmware::Uefi, Bus::Nvme), (Firmware::Bios, Bus::Ahci)];
    let mut machines: Vec<Machine> =
        (1u8..).zip(kinds).map(|(n, (firmware, bus))| lab.netboot(n, firmware, bus).unwrap()).collect();

    for machine in &machines {
        lab.wait_for_state(machine, TerminalState::Done, IMAGED).unwrap();
        let view = lab.view(&machine.terminal).unwrap().unwrap();
        assert_eq!(view.image.as_deref(), Some("golden@1"));
        assert!(matches!(view.outcome, Some(Outcome::Done { .. })), "{view:?}");
    }
    let page = lab.get("/").unwrap();
    assert!(page.contains("/page/main.js"), "the page has no program:\n{page}");
    let program = lab.get("/page/jobs.js").unwrap();
    assert!(program.contains("/api/v1/"), "the page asks for nothing:\n{program}");
    let metrics = lab.get("/metrics").unwrap();
    assert!(metrics.contains("flashmob_"), "{metrics}");

    // They boot from the network first again, and the server sends them on to their disks.
    for machine in &mut machines {
        machine.wait_for(NEW_IS_UP, BOOTED).unwrap();
    }
    // Once more: a finished terminal is never imaged again by itself.
    let again = machines.pop().unwrap();
    let terminal = again.cut_power();
    let mut again = terminal.switch_on(&lab.network, &Start::Network).unwrap();
    again.wait_for(NEW_IS_UP, BOOTED).unwrap();
    assert_eq!(lab.view(&again.terminal).unwrap().unwrap().state, TerminalState::Done);
    machines.push(again);

    for machine in machines {
        assert_disk_is_imaged(&machine.cut_power());
    }
}

#[test]
fn a_terminal_without_a_job_and_one_that_is_new_boot_their_own_disks_untouched() {
    let assets = &*ASSETS;
    let _slots = Slots::take(2);
    // Terminal 1 is known, but the job is for another one. Nobody has told the server of terminal 2.
    let job = Job { targets: vec![mac_of(3)], ..Job::for_all() };
    let lab = Lab::start(assets, "no-job", &[1, 3], &job, &assets.images).unwrap();
    let mut machines = Vec::new();
    for (number, firmware, bus) in [(1, Firmware::Bios, Bus::Ahci), (2, Firmware::Uefi, Bus::Virtio)] {
        let terminal = lab.terminal(number, firmware, bus).unwrap();
        terminal.fill_disk(&assets.old).unwrap();
        let before = terminal.disk_hash().unwrap();
        machines.push((terminal.switch_on(&lab.network, &Start::Network).unwrap(), before));
    }
    for (mut machine, before) in machines {
        machine.wait_for(crate::OLD_IS_UP, crate::GONE_ON).unwrap();
        let terminal = machine.cut_power();
        assert_eq!(terminal.disk_hash().unwrap(), before, "{}", terminal.name);
        let view = lab.view(&terminal).unwrap().unwrap();
        assert_eq!((view.state, view.new), (TerminalState::Idle, terminal.mac == mac_of(2)), "{view:?}");
    }
}

#[test]
fn kexec_starts_the_new_system_without_the_firmware() {
    let assets = &*ASSETS;
    let _slots = Slots::take(1);
    let job = Job { after: "kexec", ..Job::for_all() };
    let lab = Lab::start(assets, "kexec", &[1], &job, &assets.images).unwrap();
    let mut machine = lab.netboot(1, Firmware::Bios, Bus::Virtio).unwrap();
    lab.wait_for_state(&machine, TerminalState::Done, IMAGED).unwrap();
    machine.wait_for(NEW_IS_UP, BOOTED).unwrap();
    let said = machine.said();
    assert_eq!(said.matches("SeaBIOS (version").count(), 1, "the firmware ran again:\n{said}");
    assert_disk_is_imaged(&machine.cut_power());
}

#[test]
fn a_terminal_that_cannot_netboot_is_imaged_from_a_cd() {
    let assets = &*ASSETS;
    let _slots = Slots::take(1);
    let job = Job { after: "poweroff", ..Job::for_all() };
    let lab = Lab::start(assets, "cd", &[1], &job, &assets.images).unwrap();
    let terminal = lab.terminal(1, Firmware::Uefi, Bus::Virtio).unwrap();
    // A kernel from a CD has no ticket, so a person vouches for the terminal.
    lab.flashmob(&["terminal", "admit", &terminal.mac]).unwrap();
    let mut machine = terminal.switch_on(&lab.network, &Start::Cd(assets.iso.clone())).unwrap();
    lab.wait_for_state(&machine, TerminalState::Done, IMAGED).unwrap();
    machine.wait_for_power_off(BOOTED).unwrap();
    let mut machine = machine.cut_power().switch_on(&lab.network, &Start::Disk).unwrap();
    machine.wait_for(NEW_IS_UP, BOOTED).unwrap();
    assert_disk_is_imaged(&machine.cut_power());
}
