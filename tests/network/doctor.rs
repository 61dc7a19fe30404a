//! `flashmob doctor` on a network with a DHCP server, and on one without.

use std::process::Stdio;
use std::time::Duration;

use flashmob_testkit::child::{Guarded, wait_until};

use crate::lab::Lab;

/// The level and the text of each finding about DHCP.
fn dhcp_findings(lab: &Lab) -> Vec<(String, String)> {
    let folder = tempfile::tempdir().unwrap();
    let mut doctor = lab.command_at_terminal(env!("CARGO_BIN_EXE_flashmob"));
    doctor.args(["doctor", "--json"]).stdout(Stdio::piped()).stderr(Stdio::null());
    for option in ["--images", "--boot", "--state", "--config"] {
        doctor.arg(option).arg(folder.path());
    }
    let output = Guarded::start(&mut doctor).finish(Duration::from_secs(30)).unwrap();
    assert_eq!(output.status.code(), Some(1), "empty folders are errors");
    let findings: Vec<serde_json::Value> = serde_json::from_slice(&output.stdout).unwrap();
    let text = |finding: &serde_json::Value, key: &str| finding[key].as_str().unwrap().to_string();
    let about = findings.iter().filter(|finding| finding["check"] == "dhcp");
    about.map(|finding| (text(finding, "level"), text(finding, "what"))).collect()
}

#[test]
fn the_doctor_names_the_dhcp_server_and_what_it_boots() {
    let lab = Lab::new();
    lab.terminal_ip("addr add 10.77.0.9/24 dev eth0");
    lab.terminal_ip("link set eth0 up");
    wait_until("the link is up", Duration::from_secs(10), || {
        Ok(lab.terminal_ip("link show eth0").contains("state UP"))
    })
    .unwrap();
    let nobody = dhcp_findings(&lab);
    assert!(
        nobody[0].0 == "warning" && nobody[0].1.contains("no DHCP server offers an address"),
        "{nobody:?}"
    );

    lab.dnsmasq(&["--dhcp-authoritative"]);
    let no_boot = dhcp_findings(&lab);
    assert!(
        no_boot.iter().any(|(level, what)| level == "error" && what.contains("what to boot")),
        "{no_boot:?}"
    );

    lab.dnsmasq(&["--dhcp-authoritative", "--dhcp-boot=snponly.efi"]);
    let expected = "eth0: DHCP server 10.77.0.1 boots 'snponly.efi' from 10.77.0.1";
    let expected = [("ok".to_string(), expected.to_string())];
    // The doctor looks for 5 s, which a busy machine's DHCP server may need.
    let mut boots = Vec::new();
    let found = wait_until("the doctor names it", Duration::from_secs(60), || {
        boots = dhcp_findings(&lab);
        Ok(boots == expected)
    });
    assert!(found.is_ok(), "{boots:?}");
}
