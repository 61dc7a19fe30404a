//! `flashmob serve --pxe` beside a DHCP server that knows nothing of it, and as the DHCP server itself.

mod firmware;
mod lan;

use std::time::Duration;

use flashmob_testkit::child::wait_until;

use firmware::Firmware;
use lan::{Lan, SERVER};

const SCRIPT: &str = "http://10.77.0.2:6969/boot/ipxe";
const SOON: Duration = Duration::from_secs(20);

/// Each kind of firmware, and what it must be told.
const TOLD: [(Firmware, &str); 7] = [
    (Firmware::bios(), "undionly.kpxe"),
    (Firmware::uefi(7), "snponly.efi"),
    (Firmware::uefi(9), "snponly.efi"),
    (Firmware::http(), "http://10.77.0.2:6969/boot/snponly.efi"),
    (Firmware::bios().ipxe(), SCRIPT),
    (Firmware::uefi(7).ipxe(), SCRIPT),
    (Firmware::uefi(9).ipxe(), SCRIPT),
];

#[test]
fn beside_an_untouched_dhcp_server_each_firmware_is_told_what_to_boot() {
    let lan = Lan::new();
    let _dhcp = lan.existing_dhcp(&[]);
    let mut serve = lan.serve(&["--pxe", "eth0"]);
    for (firmware, file) in TOLD {
        let told = lan.at_terminal(|| firmware.boot());
        assert_eq!(told.address.map(|ip| ip.to_string()).as_deref(), Some("10.77.0.50"), "{firmware:?}");
        assert_eq!(told.file.as_deref(), Some(file), "{firmware:?}");
        if !file.starts_with("http") {
            assert_eq!(told.next_server.to_string(), SERVER, "{firmware:?}");
        }
    }
    let fetched = lan.at_terminal(|| firmware::tftp(SERVER, "snponly.efi"));
    assert_eq!(fetched.len(), 100_000, "whole");
    wait_until("the log says who fetched what", SOON, || Ok(lan.log().contains("snponly.efi to 10.77.0.9")))
        .unwrap();
    assert!(serve.is_running());
}

#[test]
fn the_end_of_the_server_is_the_end_of_dnsmasq_however_it_ends() {
    let lan = Lan::new();
    for by_force in [false, true] {
        let mut serve = lan.serve(&["--pxe", "eth0"]);
        let dnsmasq = lan.dnsmasq_of_serve();
        assert!(lan::runs(dnsmasq));
        match by_force {
            true => serve.signal(nix::sys::signal::Signal::SIGKILL),
            false => serve.terminate(),
        }
        wait_until("dnsmasq ends", SOON, || Ok(!lan::runs(dnsmasq))).unwrap();
        assert_eq!(serve.wait(SOON).unwrap().success(), !by_force);
    }
}

#[test]
fn a_dnsmasq_that_dies_is_started_again_and_changed_files_are_followed() {
    let lan = Lan::new();
    let _dhcp = lan.existing_dhcp(&[]);
    lan.remove_boot_file("undionly.kpxe");
    let _serve = lan.serve(&["--pxe", "eth0"]);
    let first = lan.dnsmasq_of_serve();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(first), nix::sys::signal::Signal::SIGKILL).unwrap();
    wait_until("another one runs", SOON, || {
        let now = lan.dnsmasq_of_serve();
        Ok(now != first && lan::runs(now))
    })
    .unwrap();
    assert!(!lan.configuration().contains("undionly.kpxe"));
    lan.add_boot_file("undionly.kpxe");
    wait_until("the new file is named", SOON, || Ok(lan.configuration().contains("undionly.kpxe"))).unwrap();
    let told = lan.at_terminal(|| Firmware::bios().boot());
    assert_eq!(told.file.as_deref(), Some("undionly.kpxe"));
}

#[test]
fn as_the_dhcp_server_it_gives_out_addresses_and_tells_each_firmware_the_same() {
    let lan = Lan::new();
    let _serve = lan.serve(&["--pxe", "eth0", "--pxe-range", "10.77.0.100,10.77.0.150"]);
    for (firmware, file) in TOLD {
        let told = lan.at_terminal(|| firmware.boot());
        let given = told.address.unwrap().octets()[3];
        assert!((100..=150).contains(&given), "{firmware:?}: {given}");
        assert_eq!(told.file.as_deref(), Some(file), "{firmware:?}");
        assert_eq!(told.flashmob.as_deref(), Some("http://10.77.0.2:6969/"), "{firmware:?}");
        assert!(!told.router, "no router was named");
    }
}

#[test]
fn behind_a_relay_each_firmware_is_told_the_same() {
    const RELAY: &str = "10.78.0.1";
    const OWN: &str = "10.78.0.50";
    let address = |text: &str| text.parse().unwrap();
    for range in [None, Some("10.78.0.100,10.78.0.150")] {
        let lan = Lan::new();
        lan.add_network_behind_terminal("10.78.0.0/24", &[RELAY, OWN]);
        let mut options = vec!["--pxe", "eth0", "--pxe-subnet", "10.78.0.0/24"];
        options.extend(range.iter().flat_map(|range| ["--pxe-range", range]));
        let _serve = lan.serve(&options);
        for (firmware, file) in TOLD {
            let told =
                lan.at_terminal(|| firmware.boot_behind(address(RELAY), address(OWN), address(SERVER)));
            assert_eq!(told.file.as_deref(), Some(file), "{range:?} {firmware:?}");
            if !file.starts_with("http") {
                assert_eq!(told.next_server.to_string(), SERVER, "{range:?} {firmware:?}");
            }
            let given = told.address.map(|ip| (100..=150).contains(&ip.octets()[3]));
            assert_eq!(given, range.map(|_| true), "{firmware:?}");
        }
    }
}

#[test]
fn beside_another_dhcp_server_the_signed_chain_has_addresses_of_its_own() {
    let lan = Lan::new();
    let _dhcp = lan.existing_dhcp(&[]);
    lan.add_boot_file("shimx64.efi");
    lan.add_boot_file("grubx64.efi");
    let _serve = lan.serve(&["--pxe", "eth0", "--pxe-firmware", "10.77.0.240,10.77.0.250"]);
    for arch in [7, 9] {
        let offers = lan.at_terminal(|| Firmware::uefi(arch).offers());
        let ours = offers.iter().find(|one| one.file.is_some()).unwrap();
        assert_eq!(ours.file.as_deref(), Some("shimx64.efi"));
        assert_eq!(ours.next_server.to_string(), SERVER, "where GRUB looks for its configuration");
        assert!((240..=250).contains(&ours.address.unwrap().octets()[3]), "{offers:?}");
    }
    for (firmware, file) in TOLD.into_iter().filter(|(firmware, _)| !firmware.is_plain_uefi()) {
        let told = lan.at_terminal(|| firmware.boot());
        assert_eq!(told.address.map(|ip| ip.octets()[3]), Some(50), "the other server's: {firmware:?}");
        assert_eq!(told.file.as_deref(), Some(file), "{firmware:?}");
    }
    let system = lan.at_terminal(|| Firmware::system().offers());
    assert_eq!(system.len(), 1, "a running system has one DHCP server: {system:?}");
}

#[test]
fn addresses_are_not_given_out_beside_another_dhcp_server() {
    let lan = Lan::new();
    let _dhcp = lan.existing_dhcp(&[]);
    let error = lan.serve_refused(&["--pxe", "eth0", "--pxe-range", "10.77.0.100,10.77.0.150"]);
    assert!(error.contains("the DHCP server 10.77.0.1 gives out addresses at eth0"), "{error}");
    assert!(error.contains("Leave --pxe-range out"), "{error}");
}

#[test]
fn what_keeps_netboot_from_working_is_told_in_words() {
    let lan = Lan::new();
    let error = lan.serve_refused(&["--pxe", "eth7"]);
    assert!(error.contains("no interface eth7 that is up") && error.contains("eth0"), "{error}");
    let error = lan.serve_refused(&["--pxe", "eth0", "--pxe-range", "10.78.0.1,10.78.0.9"]);
    assert!(error.contains("is in none of the networks 10.77.0.0/24"), "{error}");
    for port in [67, 69, 4011] {
        let _taken = lan.take_port(port);
        let error = lan.serve_refused(&["--pxe", "eth0"]);
        assert!(error.contains(&format!("port {port}/udp")) && error.contains("taken by python3"), "{error}");
    }
    let other = lan.existing_dhcp(&["--dhcp-range=10.77.0.0,proxy", "--pxe-service=BC_EFI,x,other.efi"]);
    let _serve = lan.serve(&["--pxe", "eth0"]);
    wait_until("the other proxyDHCP server is named", SOON, || {
        Ok(lan.log().contains("another proxyDHCP server, 10.77.0.1, answers at eth0"))
    })
    .unwrap();
    drop(other);
}
