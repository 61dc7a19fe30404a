//! Plans and their text; dnsmasq itself reads each text.

use std::collections::{BTreeSet, HashMap};
use std::io::Write;
use std::process::{Command, Stdio};

use ipnet::Ipv4Net;

use super::{Facts, Interface, Plan, PxeConfig};

const ALL: [&str; 2] = ["undionly.kpxe", "snponly.efi"];

fn net(text: &str) -> Ipv4Net {
    text.parse().expect("a network")
}

/// A server with two cards, and with a route to 10.9.0.0/24.
fn facts(files: &[&str]) -> Facts {
    let interface =
        |name: &str, address: &str| Interface { name: name.into(), addresses: vec![net(address)] };
    Facts {
        interfaces: vec![
            interface("eth0", "10.0.0.2/24"),
            interface("eth1", "10.1.0.2/16"),
            Interface { name: "bare".into(), addresses: vec![] },
        ],
        towards: HashMap::from([(net("10.9.0.0/24"), "10.0.0.2".parse().expect("an address"))]),
        folder: "/srv/boot".into(),
        files: files.iter().map(ToString::to_string).collect::<BTreeSet<_>>(),
        listens: "[::]:6969".parse().expect("an address"),
        state: "/var/lib/flashmob/pxe".into(),
    }
}

fn config(interfaces: &[&str], ranges: &[&str], subnets: &[&str]) -> PxeConfig {
    PxeConfig {
        firmware: vec![],
        interfaces: interfaces.iter().map(ToString::to_string).collect(),
        ranges: ranges.iter().map(|text| text.parse().expect("a range")).collect(),
        subnets: subnets.iter().map(|text| net(text)).collect(),
    }
}

fn text(config: &PxeConfig, files: &[&str]) -> String {
    Plan::new(config, &facts(files)).expect("a plan").text()
}

fn refused(config: &PxeConfig, facts: &Facts) -> String {
    Plan::new(config, facts).expect_err("a refusal").error
}

/// The lines that begin with `key`.
fn lines<'a>(text: &'a str, key: &str) -> Vec<&'a str> {
    text.lines().filter(|line| line.starts_with(key)).collect()
}

#[test]
fn beside_another_dhcp_server_each_firmware_is_told_its_first_program_and_ipxe_the_script() {
    let text = text(&config(&["eth0"], &[], &[]), &ALL);
    assert_eq!(lines(&text, "dhcp-range"), ["dhcp-range=set:net0,10.0.0.0,proxy,255.255.255.0"]);
    let script = "http://10.0.0.2:6969/boot/ipxe";
    assert_eq!(
        lines(&text, "pxe-service"),
        [
            "pxe-service=tag:net0,tag:!ipxe,x86PC,\"flashmob\",undionly.kpxe".to_string(),
            format!("pxe-service=tag:net0,tag:ipxe,x86PC,\"flashmob\",{script}"),
            "pxe-service=tag:net0,tag:!ipxe,BC_EFI,\"flashmob\",snponly.efi".to_string(),
            format!("pxe-service=tag:net0,tag:ipxe,BC_EFI,\"flashmob\",{script}"),
            "pxe-service=tag:net0,tag:!ipxe,X86-64_EFI,\"flashmob\",snponly.efi".to_string(),
            format!("pxe-service=tag:net0,tag:ipxe,X86-64_EFI,\"flashmob\",{script}"),
        ]
    );
    let http = "dhcp-boot=tag:net0,tag:!ipxe,tag:http,http://10.0.0.2:6969/boot/snponly.efi";
    assert_eq!(lines(&text, "dhcp-boot"), [http]);
    for no_server_of_addresses in ["dhcp-authoritative", "dhcp-leasefile", "dhcp-option"] {
        assert!(!text.contains(no_server_of_addresses), "{text}");
    }
    assert!(text.contains("\nport=0\n") && text.contains("\ntftp-root=/srv/boot\n"), "{text}");
}

#[test]
fn as_the_dhcp_server_it_gives_out_addresses_option_224_and_no_router_that_nobody_named() {
    let text = text(&config(&["eth0"], &["10.0.0.100,10.0.0.199"], &[]), &ALL);
    assert_eq!(lines(&text, "dhcp-range"), ["dhcp-range=set:net0,10.0.0.100,10.0.0.199,255.255.255.0,2h"]);
    assert_eq!(
        lines(&text, "dhcp-option"),
        [
            "dhcp-option=tag:net0,option:router",
            "dhcp-option=tag:net0,224,\"http://10.0.0.2:6969/\"",
            "dhcp-option-force=tag:net0,tag:http,60,HTTPClient",
        ]
    );
    assert_eq!(
        lines(&text, "dhcp-boot"),
        [
            "dhcp-boot=tag:net0,tag:ipxe,http://10.0.0.2:6969/boot/ipxe",
            "dhcp-boot=tag:net0,tag:!ipxe,tag:!efi,tag:!http,undionly.kpxe,,10.0.0.2",
            "dhcp-boot=tag:net0,tag:!ipxe,tag:efi,snponly.efi,,10.0.0.2",
            "dhcp-boot=tag:net0,tag:!ipxe,tag:http,http://10.0.0.2:6969/boot/snponly.efi",
        ]
    );
    assert_eq!(lines(&text, "pxe-service"), [""; 0]);
    assert!(text.contains("dhcp-leasefile=/var/lib/flashmob/pxe/dnsmasq.leases"), "{text}");
    let routed = config(&["eth1"], &["10.1.0.0,10.1.20.0,10.1.0.1"], &[]);
    assert!(refused(&routed, &facts(&ALL)).contains("10.1.0.0 is not an address for a machine"));
    let routed = config(&["eth1"], &["10.1.1.0,10.1.20.0,255.255.0.0,10.1.0.1"], &[]);
    let text = self::text(&routed, &ALL);
    assert!(text.contains("\ndhcp-option=tag:net0,option:router,10.1.0.1\n"), "{text}");
    assert!(text.contains("\ndhcp-lease-max=4865\n"), "{text}");
}

#[test]
fn each_network_is_told_the_servers_address_there() {
    let all = config(&["eth0", "eth1"], &["10.1.0.10,10.1.0.20"], &["10.9.0.0/24"]);
    let text = text(&all, &ALL);
    assert_eq!(
        lines(&text, "dhcp-range"),
        [
            "dhcp-range=set:net0,10.0.0.0,proxy,255.255.255.0",
            "dhcp-range=set:net1,10.1.0.10,10.1.0.20,255.255.0.0,2h",
            "dhcp-range=set:net2,10.9.0.0,proxy,255.255.255.0",
        ]
    );
    for line in [
        "pxe-service=tag:net0,tag:ipxe,x86PC,\"flashmob\",http://10.0.0.2:6969/boot/ipxe",
        "dhcp-boot=tag:net1,tag:ipxe,http://10.1.0.2:6969/boot/ipxe",
        "pxe-service=tag:net2,tag:ipxe,x86PC,\"flashmob\",http://10.0.0.2:6969/boot/ipxe",
        "interface=eth0",
        "interface=eth1",
        "enable-tftp=eth0,eth1",
    ] {
        assert_eq!(lines(&text, line), [line], "{text}");
    }
}

#[test]
fn shim_with_its_grub_is_the_first_program_of_uefi_where_its_grub_finds_this_server() {
    let chain = ["undionly.kpxe", "snponly.efi", "shimx64.efi", "grubx64.efi"];
    let (whole, proxy) = (config(&["eth0"], &["10.0.0.100,10.0.0.199"], &[]), config(&["eth0"], &[], &[]));
    assert_eq!(text(&proxy, &chain), text(&proxy, &ALL), "GRUB would ask the other DHCP server's machine");
    let (plain, signed) = (text(&whole, &ALL), text(&whole, &chain));
    let swap = |line: &str| match line.contains("http://") {
        true => line.to_string(),
        false => line.replace("snponly.efi", "shimx64.efi"),
    };
    assert_eq!(signed.lines().collect::<Vec<_>>(), plain.lines().map(swap).collect::<Vec<_>>());
    assert!(signed.contains("shimx64.efi"));
    assert_eq!(text(&whole, &chain[..3]), plain, "shim without GRUB starts nothing");
}

#[test]
fn the_organisations_own_program_is_the_first_of_every_uefi() {
    let own = ["undionly.kpxe", "snponly.efi", "flashmob.efi"];
    for config in [config(&["eth0"], &["10.0.0.100,10.0.0.199"], &[]), config(&["eth0"], &[], &[])] {
        let (plain, unified) = (text(&config, &ALL), text(&config, &own));
        assert_eq!(unified, plain.replace("snponly.efi", "flashmob.efi"));
        assert!(unified.contains("/boot/flashmob.efi"), "by HTTP too: {unified}");
    }
    let chain = ["undionly.kpxe", "snponly.efi", "shimx64.efi", "grubx64.efi"];
    let both = [&chain[..], &["flashmob.efi"]].concat();
    let proxy = config(&["eth0"], &[], &[]);
    assert_eq!(text(&proxy, &both), text(&proxy, &own), "shim's GRUB would not find this server");
    let whole = config(&["eth0"], &["10.0.0.100,10.0.0.199"], &[]);
    let expected = text(&whole, &chain).replace("boot/snponly.efi", "boot/flashmob.efi");
    assert_eq!(text(&whole, &both), expected, "by TFTP firmware that trusts shim goes on");
}

#[test]
fn beside_another_dhcp_server_firmware_gets_addresses_of_its_own_for_the_signed_chain_and_nobody_else_does() {
    let chain = ["undionly.kpxe", "snponly.efi", "shimx64.efi", "grubx64.efi"];
    let firmware = "10.0.0.240,10.0.0.250".parse().expect("a range");
    let proxy = PxeConfig { firmware: vec![firmware], ..config(&["eth0"], &[], &[]) };
    let text = text(&proxy, &chain);
    assert_eq!(
        lines(&text, "dhcp-range"),
        [
            "dhcp-range=set:net0f,tag:firmware,10.0.0.240,10.0.0.250,255.255.255.0,10m",
            "dhcp-range=set:net0,tag:!firmware,10.0.0.0,proxy,255.255.255.0",
        ]
    );
    assert_eq!(lines(&text, "dhcp-boot=tag:net0f"), ["dhcp-boot=tag:net0f,shimx64.efi,,10.0.0.2"]);
    assert_eq!(lines(&text, "dhcp-ignore"), ["dhcp-ignore=tag:!pxe,tag:eth0"]);
    assert!(!text.contains("dhcp-authoritative") && text.contains("tag:ipxe,BC_EFI"), "{text}");
    let unused = self::text(&proxy, &ALL);
    assert_eq!(unused, self::text(&config(&["eth0"], &[], &[]), &ALL), "without shim it is not needed");
    let both = PxeConfig { firmware: vec![firmware], ..config(&["eth0"], &["10.0.0.100,10.0.0.199"], &[]) };
    assert!(refused(&both, &facts(&chain)).contains("needs no addresses for firmware"));
}

#[test]
fn a_missing_first_program_is_named_and_none_at_all_is_refused() {
    let eth0 = config(&["eth0"], &[], &[]);
    let plan = |files: &[&str]| Plan::new(&eth0, &facts(files));
    assert_eq!(plan(&ALL).expect("a plan").lacks(), None);
    for (there, missing) in [("snponly.efi", "undionly.kpxe"), ("undionly.kpxe", "snponly.efi")] {
        let plan = plan(&[there]).expect("a plan");
        let lacks = plan.lacks().expect("something");
        assert!(lacks.error.contains(missing) && lacks.advice.contains("flashmob-initramfs"), "{lacks:?}");
        assert!(!plan.text().contains(missing));
    }
    let error = plan(&["vmlinuz"]).expect_err("a refusal").error;
    assert_eq!(
        error,
        "/srv/boot has neither undionly.kpxe nor snponly.efi, so no terminal can boot from the network"
    );
}

#[test]
fn what_this_machine_lacks_is_refused_with_what_to_do() {
    let here = facts(&ALL);
    for (config, says) in [
        (config(&["eth7"], &[], &[]), "no interface eth7 that is up"),
        (config(&["bare"], &[], &[]), "bare has no IPv4 address"),
        (config(&["eth0"], &["10.0.7.1,10.0.7.9"], &[]), "10.0.7.1 to 10.0.7.9 is in none of the networks"),
        (config(&["eth0"], &["10.0.0.9,10.0.1.9"], &[]), "10.0.1.9 is not in 10.0.0.0/24"),
        (config(&["eth0"], &["10.0.0.9,10.0.0.10", "10.0.0.20,10.0.0.30"], &[]), "has two ranges"),
        (config(&["eth0"], &[], &["10.8.0.0/24"]), "no route to 10.8.0.0/24"),
        (config(&["eth0"], &[], &["10.0.0.128/25"]), "eth0's own network"),
        (config(&["eth0", "eth0"], &[], &[]), "twice"),
    ] {
        let error = refused(&config, &here);
        assert!(error.contains(says), "{error}");
    }
    let eth0 = config(&["eth0"], &[], &[]);
    let at = |listens: &str| Facts { listens: listens.parse().expect("an address"), ..here.clone() };
    assert!(refused(&eth0, &at("127.0.0.1:6969")).contains("where no terminal reaches it"));
    let text = Plan::new(&eth0, &at("192.0.2.7:80")).expect("a plan").text();
    assert!(text.contains("http://192.0.2.7:80/boot/ipxe"), "the address that it listens at: {text}");
    for folder in ["boot", "/srv/a,b", "/srv/a\nport=53"] {
        let error = refused(&eth0, &Facts { folder: folder.into(), ..here.clone() });
        assert!(error.contains("dnsmasq cannot be told the folder"), "{error}");
    }
}

#[test]
fn dnsmasq_accepts_every_configuration() {
    let ways: [(&[&str], &[&str], &[&str]); 5] = [
        (&["eth0"], &[], &[]),
        (&["eth0"], &["10.0.0.100,10.0.0.199"], &[]),
        (&["eth1"], &["10.1.1.0,10.1.20.0,255.255.0.0,10.1.0.1"], &[]),
        (&["eth0"], &["10.9.0.10,10.9.0.20,10.9.0.1"], &["10.9.0.0/24"]),
        (&["eth0", "eth1"], &["10.1.0.10,10.1.0.20"], &["10.9.0.0/24"]),
    ];
    let some: [&[&str]; 4] = [&ALL, &ALL[..1], &ALL[1..], &["snponly.efi", "shimx64.efi", "grubx64.efi"]];
    for (interfaces, ranges, subnets) in ways {
        for files in some {
            let mut config = config(interfaces, ranges, subnets);
            if ranges.is_empty() {
                config.firmware = vec!["10.0.0.240,10.0.0.250,10.0.0.1".parse().expect("a range")];
            }
            let text = text(&config, files);
            let mut dnsmasq = Command::new("dnsmasq")
                .args(["--test", "--conf-file=-"])
                .stdin(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .expect("install the Debian package dnsmasq-base");
            dnsmasq.stdin.take().expect("a pipe").write_all(text.as_bytes()).expect("written");
            let output = dnsmasq.wait_with_output().expect("its end");
            assert!(output.status.success(), "{}\n{text}", String::from_utf8_lossy(&output.stderr));
        }
    }
}
