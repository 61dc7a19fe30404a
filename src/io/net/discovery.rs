//! Looks for flashmob servers with DNS and mDNS.
//!
//! Invariant: everything found is a candidate and nothing more, and every search ends after the time it was
//! given. Messages are `lan::srv`'s, the order `lan::discovery`'s.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use mdns_sd::{ServiceDaemon, ServiceEvent};
use tokio::net::UdpSocket;
use tokio::time::{Instant, timeout_at};

use crate::lan::srv::{self, Service};

/// The service's type, as DNS-SD writes it.
pub const SERVICE_TYPE: &str = "_flashmob._tcp.local.";
/// Pause between two questions to one name server.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// Asks the name servers (port 53) for the flashmob servers of `domain`; the first that answers is believed.
pub async fn ask_dns(servers: &[Ipv4Addr], domain: &str, within: Duration) -> io::Result<Vec<Service>> {
    let servers: Vec<_> = servers.iter().map(|a| SocketAddr::from((*a, 53))).collect();
    ask_dns_at(&servers, domain, within).await
}

async fn ask_dns_at(servers: &[SocketAddr], domain: &str, within: Duration) -> io::Result<Vec<Service>> {
    let id = getrandom::u32().map_err(|e| io::Error::other(e.to_string()))?.to_be_bytes();
    let id = u16::from_be_bytes([id[0], id[1]]);
    let wrong = || io::Error::new(io::ErrorKind::InvalidInput, format!("'{domain}' is no domain name"));
    let question = srv::question(id, domain).ok_or_else(wrong)?;
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).await?;
    let end = Instant::now() + within;
    let mut buffer = [0u8; 4096];
    while Instant::now() < end {
        for server in servers {
            // A name server that cannot be reached is as silent as one that does not answer.
            let _ = socket.send_to(&question, server).await;
        }
        let again = end.min(Instant::now() + ASK_AGAIN);
        while let Ok(received) = timeout_at(again, socket.recv_from(&mut buffer)).await {
            let Ok((length, from)) = received else { continue };
            if servers.contains(&from)
                && let Some(found) = srv::answer(id, domain, &buffer[..length])
            {
                return Ok(found);
            }
        }
    }
    Err(io::Error::new(io::ErrorKind::TimedOut, "no name server answered"))
}

/// The address of this machine from which packets to the server at `url` (`http://HOST:PORT`) leave; nothing
/// is sent.
pub(crate) async fn address_towards(url: &str) -> Option<IpAddr> {
    let server = tokio::net::lookup_host(url.strip_prefix("http://")?).await.ok()?.next()?;
    let any: IpAddr =
        if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).await.ok()?;
    socket.connect(server).await.ok()?;
    Some(socket.local_addr().ok()?.ip())
}

/// Browses for flashmob servers on the links of this machine until one is found (and half a second longer,
/// for others that answer as well) or the time is over. Addresses with ports, IPv4 first.
pub async fn browse_mdns(within: Duration) -> io::Result<Vec<SocketAddr>> {
    browse_daemon(ServiceDaemon::new(), within).await
}

async fn browse_daemon(
    daemon: mdns_sd::Result<ServiceDaemon>,
    within: Duration,
) -> io::Result<Vec<SocketAddr>> {
    let failed = |e: mdns_sd::Error| io::Error::other(format!("mDNS: {e}"));
    let daemon = daemon.map_err(failed)?;
    let events = daemon.browse(SERVICE_TYPE).map_err(failed)?;
    let mut end = Instant::now() + within;
    let mut found = Vec::new();
    while let Ok(Ok(event)) = timeout_at(end, events.recv_async()).await {
        if let ServiceEvent::ServiceResolved(service) = event {
            let mut addresses: Vec<IpAddr> = service.addresses.iter().map(|a| a.to_ip_addr()).collect();
            // A link-local IPv6 address means nothing without its interface.
            addresses.retain(|a| !matches!(a, IpAddr::V6(v6) if v6.is_unicast_link_local()));
            addresses.sort_by_key(|a| (a.is_ipv6(), *a));
            for address in addresses {
                let address = SocketAddr::new(address, service.port);
                if !found.contains(&address) {
                    found.push(address);
                }
            }
            end = end.min(Instant::now() + Duration::from_millis(500));
        }
    }
    // Its thread ends by itself; nothing depends on when.
    let _ = daemon.shutdown();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use mdns_sd::ServiceInfo;

    #[tokio::test]
    async fn a_name_server_that_is_silent_is_asked_again_and_others_are_not_believed() {
        let server = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = server.local_addr().unwrap();
        let answering = tokio::spawn(async move {
            let mut buffer = [0u8; 512];
            // The first question is lost.
            server.recv_from(&mut buffer).await.unwrap();
            let (length, from) = server.recv_from(&mut buffer).await.unwrap();
            let mut reply = buffer[..length].to_vec();
            reply[2] |= 0x80;
            let liar = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            liar.send_to(&reply, from).await.unwrap();
            // An SRV record: pointer to the question's name, type 33, class 1, TTL, length, data.
            reply[7] = 1;
            reply.extend([0xc0, 12, 0, 33, 0, 1, 0, 0, 0, 60, 0, 9, 0, 1, 0, 1, 0x1b, 0x39, 1, b's', 0]);
            server.send_to(&reply, from).await.unwrap();
        });
        let found = ask_dns_at(&[address], "lab", Duration::from_secs(20)).await.unwrap();
        assert_eq!(found, [Service { host: "s".into(), port: 6969, addresses: vec![] }]);
        answering.await.unwrap();
    }

    #[tokio::test]
    async fn without_an_answer_the_search_ends() {
        let silent = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let error = ask_dns_at(&[silent.local_addr().unwrap()], "lab", Duration::from_millis(50)).await;
        assert_eq!(error.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn a_server_that_announces_itself_is_found() {
        // Unusual ports keep other programs' daemons out, and the kernel gives none below 32768 to a socket
        // that asks for any. Loopback multicast is enough.
        let port = 20_000 + u16::try_from(std::process::id() % 10_000).unwrap();
        let server = ServiceDaemon::new_with_port(port).unwrap();
        server.enable_interface(mdns_sd::IfKind::LoopbackV4).unwrap();
        let addresses: &[IpAddr] = &[IpAddr::from([127, 0, 0, 1])];
        let info = ServiceInfo::new(SERVICE_TYPE, "lab", "lab.local.", addresses, 7171, None).unwrap();
        server.register(info).unwrap();
        let client = ServiceDaemon::new_with_port(port).unwrap();
        client.enable_interface(mdns_sd::IfKind::LoopbackV4).unwrap();
        let found = browse_daemon(Ok(client), Duration::from_secs(20)).await.unwrap();
        assert_eq!(found, [SocketAddr::from(([127, 0, 0, 1], 7171))]);
        server.shutdown().unwrap();
    }
}
