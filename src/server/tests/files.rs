//! The files under `/boot`, `/images` and `/torrents`, and none besides.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UdpSocket;

use super::*;

/// A request exactly as written, which no polite client would send.
async fn raw(world: &World, path: &str) -> String {
    let address = world.server.as_ref().expect("running").local_addr();
    let mut stream = tokio::net::TcpStream::connect(address).await.expect("connected");
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("sent");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.expect("read");
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn images_and_netboot_files_are_served_with_ranges() {
    let world = World::new("").await;
    assert_eq!(world.text("/boot/vmlinuz").await, (StatusCode::OK, "vmlinuz".into()));
    let manifest = fs::read_to_string(golden().join("manifest.json")).expect("read");
    assert_eq!(world.text("/images/golden/format-1/manifest.json").await, (StatusCode::OK, manifest));
    let payload = fs::read(golden().join("payload/0000.bin")).expect("read");
    let request = world.http.get(world.url("/images/golden/format-1/payload/0000.bin"));
    let answer = request.header("range", "bytes=1000-1999").send().await.expect("an answer");
    assert_eq!(answer.status(), StatusCode::PARTIAL_CONTENT);
    assert_eq!(answer.headers()["content-range"], "bytes 1000-1999/131072");
    assert_eq!(answer.bytes().await.expect("bytes"), payload[1000..2000]);
}

#[tokio::test]
async fn nothing_else_of_the_machine_is_served() {
    let world = World::new("").await;
    copy(&golden(), &world.at("images/golden/.partial-2"));
    fs::write(world.at("images/golden/notes.txt"), "secret").expect("written");
    for path in [
        "/images/../secret",
        "/images/golden/../../secret",
        "/images/golden/format-1/../../../secret",
        "/images/%2e%2e/secret",
        "/images/golden/%2e%2e/%2e%2e/secret",
        "/boot/../secret",
        "/boot/%2e%2e/secret",
        "/boot/..%2fsecret",
        "/images/golden/.partial-2/manifest.json",
        "/images/golden/%2epartial-2/manifest.json",
        "/images/golden/notes.txt",
        "/images/golden/format-1/",
        "/images/",
        "/boot/",
        "/nothing",
    ] {
        let answer = raw(&world, path).await;
        assert!(answer.starts_with("HTTP/1.1 404"), "{path}: {answer}");
        assert!(!answer.contains("secret\n") && !answer.contains("piece_length"), "{path}");
    }
}

#[tokio::test]
async fn a_handed_out_torrent_knows_the_way_here_and_is_the_same_torrent() {
    let world = World::new("").await;
    let bytes =
        world.http.get(world.url("/torrents/golden/format-1.torrent")).send().await.expect("an answer");
    let bytes = bytes.bytes().await.expect("bytes");
    let torrent = crate::metainfo::Metainfo::parse(&bytes).expect("a torrent");
    let stored = fs::read(golden().join("image.torrent")).expect("read");
    let stored = crate::metainfo::Metainfo::parse(&stored).expect("a torrent");
    assert_eq!(torrent.info_hash, stored.info_hash);
    let (_, ticket) = torrent.trackers[0].split_once("?t=").expect("a ticket");
    assert_eq!(torrent.trackers, [world.url(&format!("/announce?t={ticket}"))]);
    assert_eq!(torrent.url_list, [world.url(&format!("/images/t={ticket}/golden/"))]);
    assert!(stored.trackers.is_empty());
    assert_eq!(world.text("/torrents/golden/2.torrent").await.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn ipxe_is_asked_who_it_is_when_it_does_not_say() {
    let world = World::new(QUIET).await;
    let (_, script) = world.text("/boot/ipxe").await;
    assert!(script.starts_with("#!ipxe\nchain ") && script.contains("${uuid}"), "{script}");
}

#[tokio::test]
async fn signed_grub_is_told_the_same_by_http_and_by_tftp() {
    let mut world = World::new(QUIET).await;
    let address = |world: &World| world.server.as_ref().expect("running").local_addr();
    // The server goes on without TFTP if another program has the UDP port of the same number.
    while UdpSocket::bind(address(&world)).await.is_ok() {
        world.restart().await;
    }
    let server = address(&world);
    let question = format!("/boot/grub?host={server}&mac={A}&uuid=");
    let received = async |udp: &UdpSocket, packet: &mut [u8]| {
        let answer = tokio::time::timeout(Duration::from_secs(60), udp.recv_from(packet));
        answer.await.expect("in time").expect("an answer")
    };
    let one_file = async |name: &str| {
        // Late copies of an earlier file's packets do not come to a new port.
        let udp = UdpSocket::bind("127.0.0.1:0").await.expect("bound");
        let mut packet = [0; 2000];
        let request = [b"\0\x01", name.as_bytes(), b"\0octet\0blksize\x001024\0tsize\x000\0"].concat();
        udp.send_to(&request, server).await.expect("sent");
        let (_, from) = received(&udp, &mut packet).await;
        if packet[1] == 5 {
            return None;
        }
        udp.send_to(b"\0\x04\0\0", from).await.expect("sent");
        let mut length = 0;
        while packet[1] == 6 {
            // The options come again if they were not acknowledged in time.
            length = received(&udp, &mut packet).await.0;
        }
        udp.send_to(b"\0\x04\0\x01", from).await.expect("sent");
        assert!(packet.starts_with(b"\0\x03\0\x01"));
        Some(String::from_utf8(packet[4..length].to_vec()).expect("text"))
    };
    // Its `grub.cfg` asks again with the variable that the first answer sets.
    let by_tftp = async |name: &str| {
        let first = one_file(name).await?;
        let uuid = first.strip_prefix("set answered=yes\nset uuid='").expect("a variable");
        let (uuid, again) = uuid.split_once("'\n").expect("quoted");
        assert_eq!(again, "set again=yes\n");
        one_file(&format!("{name}{uuid}")).await
    };
    for (imaging, command) in
        [(false, "\nflashmob_disk\n"), (true, "\nif linux /vmlinuz 'flashmob.server=http://")]
    {
        if imaging {
            world.order(A).await;
        }
        for script in [world.text(&question).await.1, by_tftp(&question).await.expect("a script")] {
            assert!(script.starts_with("set answered=yes\n") && script.contains(command), "{script}");
            assert!(!imaging || script.contains(&format!("http://{server}'")), "{script}");
        }
    }
    let (_, step) = world.text(&format!("/boot/step?mac={A}&uuid=")).await;
    assert!(step.starts_with(r#"{"step":"work","ticket":""#), "{step}");
    assert_eq!(world.text(&format!("/boot/step?mac={B}&uuid=")).await.1, r#"{"step":"disk"}"#);
    // Without the ticket of its address a caller changes nothing.
    let stranger = format!("/boot/grub?host={server}&mac=52:54:00:00:00:0c&uuid=");
    for _ in 0..3 {
        assert!(one_file(&stranger).await.is_some());
    }
    for wrong in ["&proof=", "&proof=00112233445566778899aabbccddeeff0011223344"] {
        assert!(one_file(&format!("{stranger}{wrong}")).await.is_some_and(|text| text.contains("set uuid=")));
    }
    assert!(!world.text("/api/v1/terminals").await.1.contains("52:54:00:00:00:0c"));
    by_tftp(&stranger).await.expect("a script");
    assert_eq!(world.row("52:54:00:00:00:0c").await.address.as_deref(), Some("127.0.0.1"));
    assert_eq!(by_tftp("/boot/vmlinuz").await, None);
    assert_eq!(by_tftp("/boot/grub?host=a%20b&mac=&uuid=").await, None);
}

#[tokio::test]
async fn the_page_fetches_nothing_from_elsewhere() {
    let world = World::new("").await;
    for path in ["/", "/page/main.js", "/page/style.css"] {
        let answer = world.http.get(world.url(path)).send().await.expect("an answer");
        assert_eq!(answer.status(), StatusCode::OK, "{path}");
        let policy = answer.headers()["content-security-policy"].to_str().expect("text");
        assert!(policy.contains("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
    }
    assert_eq!(world.text("/page/mod.rs").await.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn the_pages_look_at_one_terminal_reads_what_the_server_says_of_it() {
    let world = World::new(QUIET).await;
    world.begin(A).await;
    let script = world.text("/page/one.js").await.1;
    let look = script.split("function facts(t)").nth(1).expect("there").split("function fill").next();
    let said: serde_json::Value =
        serde_json::from_str(&world.text(&format!("/api/v1/terminals/{A}")).await.1).expect("details");
    let names = |text: &str, before: &str| -> Vec<String> {
        let after = text.split(|c: char| !(c.is_alphanumeric() || "._".contains(c)));
        let fields = after.filter_map(|word| word.strip_prefix(before)?.split('.').next().map(str::to_owned));
        fields.collect()
    };
    let look = look.expect("there");
    let fields = names(look, "t.");
    assert!(fields.len() > 15, "{fields:?}");
    for field in fields {
        assert!(said.get(&field).is_some(), "the page reads '{field}': {said}");
    }
    for field in names(look, "i.") {
        assert!(said["inventory"].get(&field).is_some(), "the page reads '{field}' of the inventory");
    }
}
