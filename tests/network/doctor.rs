//! `flashmob doctor` on a network with a DHCP server, and on one without.

use std::net::{Ipv4Addr, UdpSocket};
use std::process::Stdio;
use std::time::Duration;

use dhcproto::v4::{DhcpOption, Message, MessageType, Opcode};
use dhcproto::{Decodable, Decoder, Encodable};
use flashmob_testkit::child::{Guarded, wait_until};

use crate::lab::{DEADLINE, Lab};

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

/// A lab whose terminal has an address and a link.
fn lab_with_address() -> Lab {
    let lab = Lab::new();
    lab.terminal_ip("addr add 10.77.0.9/24 dev eth0");
    lab.terminal_ip("link set eth0 up");
    wait_until("the link is up", Duration::from_secs(10), || {
        Ok(lab.terminal_ip("link show eth0").contains("state UP"))
    })
    .unwrap();
    lab
}

#[test]
fn the_doctor_names_the_dhcp_server_and_what_it_boots() {
    let lab = lab_with_address();
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
    assert_eq!(dhcp_findings(&lab), [("ok".to_string(), expected.to_string())]);
}

/// A DHCP server that hears two questions and offers an address to the second, twice.
fn offer_to_the_second_question(socket: &UdpSocket) {
    let mut buffer = [0; 2048];
    socket.recv(&mut buffer).unwrap();
    let length = socket.recv(&mut buffer).unwrap();
    let question = Message::decode(&mut Decoder::new(&buffer[..length])).unwrap();
    let mut offer = Message::default();
    offer.set_opcode(Opcode::BootReply).set_xid(question.xid()).set_chaddr(question.chaddr());
    offer.set_yiaddr([10, 77, 0, 50]).set_siaddr([10, 77, 0, 1]);
    offer.opts_mut().insert(DhcpOption::MessageType(MessageType::Offer));
    offer.opts_mut().insert(DhcpOption::ServerIdentifier([10, 77, 0, 1].into()));
    for _ in 0..2 {
        socket.send_to(&offer.to_vec().unwrap(), (Ipv4Addr::BROADCAST, 68)).unwrap();
    }
}

#[test]
fn the_doctor_asks_again_until_the_first_answer_and_names_each_server_once() {
    let lab = lab_with_address();
    let socket = lab.at_server(async || {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 67)).unwrap();
        socket.set_broadcast(true).unwrap();
        socket2::SockRef::from(&socket).bind_device(Some(b"eth0")).unwrap();
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        socket
    });
    let findings = std::thread::scope(|scope| {
        scope.spawn(|| offer_to_the_second_question(&socket));
        dhcp_findings(&lab)
    });
    let named = "eth0: DHCP server 10.77.0.1 names no boot file";
    assert_eq!(findings[0], ("ok".to_string(), named.to_string()));
    assert_eq!(findings.len(), 2, "{findings:?}");
}
