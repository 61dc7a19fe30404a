//! A lent disk that is a file, read by a client and refused to others.

use std::io::{Read, Write};

use super::*;
use crate::api::DiskInfo;
use crate::io::net::api_client::client;
use crate::nbd::client::{Exported, Unopened, open, parse_reply, read_request, request_of};
use crate::nbd::errno;
use crate::testkit::http;

/// 1 MiB whose bytes tell their place.
fn disk() -> Arc<LentDisk> {
    let bytes: Vec<u8> = (0..1u32 << 18).flat_map(u32::to_be_bytes).collect();
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&bytes).unwrap();
    let info = DiskInfo { name: "sdx".into(), size: 1 << 20, sector_size: 512, ..DiskInfo::default() };
    Arc::new(LentDisk::of(file, info))
}

fn api(base: &str) -> Api {
    Api::new(client().unwrap(), base)
}

fn connect(port: u16) -> TcpStream {
    let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream
}

async fn off_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.unwrap()
}

fn is_closed(mut stream: TcpStream) -> bool {
    matches!(stream.read(&mut [0; 64]), Ok(0) | Err(_))
}

#[tokio::test]
async fn the_server_reads_by_the_name_and_cannot_write() {
    let lending = Lending::begin(&api("http://127.0.0.1:1"), disk(), &[]).await.unwrap();
    let (port, name) = (lending.port, lending.export.clone());
    off_thread(move || {
        assert!(matches!(open(&mut connect(port), "golden"), Err(Unopened::Unknown)));
        let mut stream = connect(port);
        let Exported { size, minimum, .. } = open(&mut stream, &name).unwrap();
        assert_eq!((size, minimum), (1 << 20, 512));
        let reply = |stream: &mut TcpStream| {
            let mut header = [0; 16];
            stream.read_exact(&mut header).unwrap();
            parse_reply(&header)
        };
        // Two requests at once, then a write.
        stream.write_all(&[read_request(1, 4096, 4096), read_request(2, 0, 512)].concat()).unwrap();
        let mut bytes = vec![0; 4096];
        for (cookie, offset, length) in [(1, 4096, 4096), (2, 0, 512)] {
            assert_eq!(reply(&mut stream), Some((cookie, 0)));
            stream.read_exact(&mut bytes[..length]).unwrap();
            assert_eq!(bytes[..4], u32::to_be_bytes(offset / 4));
        }
        stream.write_all(&request_of(1, 3, 0, 512)).unwrap();
        stream.write_all(&[7; 512]).unwrap();
        assert_eq!(reply(&mut stream), Some((3, errno::PERM)));
    })
    .await;
    assert_eq!(lending.read.load(Ordering::Relaxed), 4096 + 512);
    let open = connect(lending.port);
    tokio::time::sleep(Duration::from_millis(100)).await;
    drop(lending);
    assert!(off_thread(move || is_closed_after_greeting(open)).await, "released");
}

fn is_closed_after_greeting(mut stream: TcpStream) -> bool {
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).is_ok() || rest.len() <= 18
}

#[tokio::test]
async fn nobody_but_the_server_gets_a_byte() {
    let lending = Lending::begin(&api("http://192.0.2.1:6969"), disk(), &[]).await.unwrap();
    let port = lending.port;
    assert!(off_thread(move || is_closed(connect(port))).await);
    assert_eq!(lending.read.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn a_server_with_several_addresses_reads_from_the_one_that_it_names() {
    let begin = async |readers: &[String]| {
        let lending = Lending::begin(&api("http://192.0.2.1:6969"), disk(), readers).await.unwrap();
        let (port, name) = (lending.port, lending.export.clone());
        off_thread(move || open(&mut connect(port), &name).is_ok()).await
    };
    assert!(begin(&["10.0.0.1".into(), "127.0.0.1".into()]).await);
    assert!(!begin(&["10.0.0.1".into(), "not an address".into()]).await);
}

#[tokio::test]
async fn garbage_and_too_many_connections_are_closed_and_others_go_on() {
    let lending = Lending::begin(&api("http://127.0.0.1:1"), disk(), &[]).await.unwrap();
    let (port, name) = (lending.port, lending.export.clone());
    off_thread(move || {
        let mut stream = connect(port);
        open(&mut stream, &name).unwrap();
        let mut garbage = connect(port);
        garbage.write_all(&[0xff; 100]).unwrap();
        assert!(is_closed_after_greeting(garbage));
        let others: Vec<TcpStream> = (0..8).map(|_| connect(port)).collect();
        let is_greeted = |mut other: &TcpStream| matches!(other.read(&mut [0; 18]), Ok(18));
        let greeted = others.iter().filter(|other| is_greeted(other)).count();
        assert!((2..MOST_CLIENTS).contains(&greeted), "{greeted}");
        stream.write_all(&read_request(1, 0, 512)).unwrap();
        let mut reply = [0; 16 + 512];
        stream.read_exact(&mut reply).unwrap();
    })
    .await;
}

#[tokio::test]
async fn the_terminal_is_released_by_the_server_or_by_one_that_forgot_the_capture() {
    let offer = LendOffer {
        capture: 7,
        token: "t".into(),
        code: "042137".into(),
        image: "lab".into(),
        disk: "internal".into(),
        readers: Vec::new(),
    };
    for answer in [(200, r#"{"release":true}"#), (404, r#"{"error":"no capture","advice":"x"}"#)] {
        let url = http::serve(move |path, body| {
            assert!(path == "/api/v1/captures/7/lending" && body.contains(r#""token":"t""#), "{path} {body}");
            (answer.0, answer.1.to_owned())
        })
        .await;
        let lending = Lending::begin(&api(&url), disk(), &[]).await.unwrap();
        let (api, status) = (api(&url), Status::new());
        let reported = lending.report(&api, &offer, &status);
        tokio::time::timeout(Duration::from_secs(20), reported).await.expect("released");
    }
}

#[tokio::test]
async fn a_disk_that_is_not_there_is_told_to_the_server() {
    let (sender, mut told) = tokio::sync::mpsc::unbounded_channel();
    let url = http::serve(move |_, body| {
        sender.send(body.to_owned()).unwrap();
        (200, r#"{"release":true}"#.into())
    })
    .await;
    let offer = LendOffer {
        capture: 7,
        token: "t".into(),
        code: "042137".into(),
        image: "lab".into(),
        disk: "serial=never-made".into(),
        readers: Vec::new(),
    };
    let failure = run(&api(&url), &offer, None, &Status::new()).await.unwrap_err();
    let body = told.recv().await.unwrap();
    assert!(body.contains("never-made") && failure.message.contains("never-made"), "{failure:?} {body}");
}

#[tokio::test]
async fn the_screen_shows_the_code_that_the_person_at_the_server_types() {
    let url = http::serve(|_, _| (200, r#"{"release":true}"#.into())).await;
    let old = r#"{"capture":7,"token":"t","image":"lab","disk":"serial=never-made"}"#;
    let new = old.replace(r#""disk""#, r#""code":"042137","disk""#);
    for (offer, line) in [(&*new, "code 042137: 'flashmob capture' asks"), (old, "lab is made of this")] {
        let (offer, status) = (serde_json::from_str(offer).unwrap(), Status::new());
        run(&api(&url), &offer, None, &status).await.unwrap_err();
        assert!(status.view().image.starts_with(line), "{}", status.view().image);
    }
}
