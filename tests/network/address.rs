//! An address by DHCP, kept while the network comes and goes.

use flashmob::agent::network::{self, Interfaces};
use flashmob::agent::status::Status;
use flashmob::lan::dhcp::Offer;
use tokio::sync::watch;

use crate::lab::{Lab, one_round};

/// Waits for a lease that `fits`.
async fn lease(interfaces: &mut watch::Receiver<Interfaces>, fits: impl Fn(&Offer) -> bool) -> Offer {
    let lease_of = |all: &Interfaces| all.iter().find_map(|i| i.lease.clone());
    let there = |all: &Interfaces| lease_of(all).is_some_and(|lease| fits(&lease));
    lease_of(&interfaces.wait_for(there).await.unwrap()).unwrap()
}

async fn carrier(interfaces: &mut watch::Receiver<Interfaces>, there: bool) {
    let as_wanted = |all: &Interfaces| all.iter().all(|i| i.link.carrier == there) && !all.is_empty();
    interfaces.wait_for(as_wanted).await.unwrap();
}

#[test]
fn a_lease_is_taken_with_all_it_says_and_set_in_the_kernel() {
    let lab = Lab::new();
    lab.dnsmasq(&[
        "--dhcp-option=224,http://10.77.0.1:7000",
        "--dhcp-option=option:mtu,1400",
        "--dhcp-option=option:router,10.77.0.2",
        "--dhcp-boot=any,any,10.77.0.9",
    ]);
    let status = Status::new();
    let lease = lab.at_terminal(async || {
        let mut interfaces = network::start(None, status.clone(), lab.resolvers(), one_round()).unwrap();
        lease(&mut interfaces, |_| true).await
    });
    assert_eq!(lease.flashmob.as_deref(), Some("http://10.77.0.1:7000"));
    assert_eq!(lease.next_server, Some([10, 77, 0, 9].into()));
    assert_eq!((lease.prefix, lease.mtu, lease.domain.as_deref()), (24, Some(1400), Some("lab.test")));
    assert_eq!(lease.dns, [std::net::Ipv4Addr::from([10, 77, 0, 1])]);
    let address = lab.terminal_ip("addr show dev eth0");
    assert!(address.contains(&format!("inet {}/24", lease.address)), "{address}");
    assert!(address.contains("mtu 1400"), "{address}");
    let route = lab.terminal_ip("route show default");
    assert!(route.contains("default via 10.77.0.2 dev eth0"), "{route}");
    let resolvers = std::fs::read_to_string(lab.resolvers()).unwrap();
    assert_eq!(resolvers, "search lab.test\nnameserver 10.77.0.1\n");
    assert!(status.view().address.contains("10.77.0."), "{}", status.view().address);
}

#[test]
fn a_cable_and_a_dhcp_server_that_come_late_are_waited_for() {
    let lab = Lab::new();
    lab.cable(false);
    let status = Status::new();
    lab.at_terminal(async || {
        let mut interfaces = network::start(None, status.clone(), lab.resolvers(), one_round()).unwrap();
        carrier(&mut interfaces, false).await;
        assert_eq!(status.view().address, "eth0: no cable or no link yet");
        lab.cable(true);
        carrier(&mut interfaces, true).await;
        // The first question is lost, because nothing listens yet.
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        assert!(interfaces.borrow().iter().all(|i| i.lease.is_none()));
        lab.dnsmasq(&[]);
        lease(&mut interfaces, |_| true).await;
    });
}

#[test]
fn a_cable_that_is_moved_to_another_network_brings_another_address() {
    let lab = Lab::new();
    lab.dnsmasq(&[]);
    lab.at_terminal(async || {
        let mut interfaces = network::start(None, Status::new(), lab.resolvers(), one_round()).unwrap();
        let first = lease(&mut interfaces, |_| true).await.address;
        assert_eq!(first.octets()[..3], [10, 77, 0]);
        lab.cable(false);
        carrier(&mut interfaces, false).await;
        lab.dnsmasq_elsewhere();
        lab.cable(true);
        let second = lease(&mut interfaces, |lease| lease.address.octets()[1] == 78).await.address;
        let addresses = lab.terminal_ip("addr show dev eth0");
        assert!(addresses.contains(&second.to_string()), "{addresses}");
        assert!(!addresses.contains(&first.to_string()), "{addresses}");
    });
}

#[test]
fn the_switch_at_the_other_end_is_heard() {
    let lab = Lab::new();
    let mut interfaces = lab.at_terminal(async || {
        let mut interfaces = network::start(None, Status::new(), lab.resolvers(), one_round()).unwrap();
        carrier(&mut interfaces, true).await;
        lab.switch_says(b"\x02\x07\x04\x52\x54\0\0\0\x01\x04\x04\x05eth\x06\x02\0\x78\0\0");
        let heard = |all: &Interfaces| all.iter().any(|i| i.neighbour.is_some());
        interfaces.wait_for(heard).await.unwrap().clone()
    });
    let neighbour = interfaces.remove(0).neighbour.unwrap();
    assert_eq!((&*neighbour.chassis, &*neighbour.port), ("52:54:00:00:00:01", "eth"));
}
