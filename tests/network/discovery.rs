//! The server found by name servers and by multicast.

use std::net::SocketAddr;
use std::time::Duration;

use flashmob::agent::network;
use flashmob::agent::status::Status;
use flashmob::io::net::discovery::{SERVICE_TYPE, ask_dns, browse_mdns};
use mdns_sd::{ServiceDaemon, ServiceInfo};

use crate::lab::{Lab, SERVER, one_round};

#[test]
fn dns_names_the_server() {
    let lab = Lab::new();
    lab.dnsmasq(&[
        "--srv-host=_flashmob._tcp.lab.test,second.lab.test,7002,20",
        "--srv-host=_flashmob._tcp.lab.test,first.lab.test,7001,10",
        "--host-record=first.lab.test,10.77.0.21",
    ]);
    let found = lab.at_terminal(async || {
        let mut interfaces = network::start(None, Status::new(), lab.resolvers(), one_round()).unwrap();
        interfaces.wait_for(|all| all.iter().any(|i| i.lease.is_some())).await.unwrap();
        ask_dns(&[SERVER.parse().unwrap()], "lab.test", Duration::from_secs(20)).await.unwrap()
    });
    let hosts: Vec<_> = found.iter().map(|s| (s.host.as_str(), s.port)).collect();
    assert_eq!(hosts, [("first.lab.test", 7001), ("second.lab.test", 7002)]);
    assert_eq!(found[0].addresses, [std::net::Ipv4Addr::from([10, 77, 0, 21])]);
}

#[test]
fn mdns_names_the_server_on_the_same_link() {
    let lab = Lab::new();
    lab.dnsmasq(&[]);
    let found = lab.at_terminal(async || {
        let mut interfaces = network::start(None, Status::new(), lab.resolvers(), one_round()).unwrap();
        interfaces.wait_for(|all| all.iter().any(|i| i.lease.is_some())).await.unwrap();
        // A daemon that starts on an interface without a carrier does not serve it later.
        let server = lab.at_server(async || {
            let daemon = ServiceDaemon::new().unwrap();
            let addresses: &[std::net::IpAddr] = &[SERVER.parse().unwrap()];
            let info = ServiceInfo::new(SERVICE_TYPE, "lab", "lab.local.", addresses, 7003, None).unwrap();
            daemon.register(info).unwrap();
            daemon
        });
        let found = browse_mdns(Duration::from_secs(30)).await.unwrap();
        server.shutdown().unwrap();
        found
    });
    assert_eq!(found, [SocketAddr::new(SERVER.parse().unwrap(), 7003)]);
}
