//! What the service manager hears from the server at its socket, and when.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use flashmob_testkit::child::{Guarded, command};
use flashmob_testkit::net::free_port;
use nix::sys::signal::Signal;

/// A service manager's socket, and the server that it started.
struct Service {
    folder: tempfile::TempDir,
    socket: UnixDatagram,
    server: Guarded,
    port: u16,
}

impl Service {
    fn start(watchdog: Duration) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let socket = UnixDatagram::bind(at("notify")).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        std::fs::create_dir(at("images")).unwrap();
        std::fs::write(at("config.toml"), "").unwrap();
        let port = free_port();
        let mut serve = command(None, env!("CARGO_BIN_EXE_flashmob"));
        serve
            .args(["serve", "--no-mdns", "--peer-listen", "127.0.0.1:0"])
            .args(["--listen", &format!("127.0.0.1:{port}")])
            .args([PathBuf::from("--images"), at("images"), "--config".into(), at("config.toml")])
            .args([PathBuf::from("--state"), at("state")])
            .env("NOTIFY_SOCKET", at("notify"))
            .env("WATCHDOG_USEC", watchdog.as_micros().to_string())
            .env_remove("WATCHDOG_PID")
            .stderr(Stdio::null());
        let server = Guarded::start(&mut serve);
        Service { folder, socket, server, port }
    }

    fn hear(&self) -> String {
        let mut message = [0; 4096];
        let length = self.socket.recv(&mut message).expect("the server says something");
        String::from_utf8(message[..length].to_vec()).unwrap()
    }

    /// The next message that has this line.
    fn hear_line(&self, line: &str) -> String {
        let end = Instant::now() + Duration::from_secs(30);
        while Instant::now() < end {
            let message = self.hear();
            if message.lines().any(|l| l == line) {
                return message;
            }
        }
        panic!("the service manager never heard {line}");
    }

    fn get(&self, path: &str) -> String {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).expect("it answers when it is ready");
        write!(stream, "GET {path} HTTP/1.0\r\nHost: lab\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }
}

#[test]
fn the_server_is_ready_when_it_answers_and_says_that_it_stops() {
    let mut service = Service::start(Duration::from_secs(60));
    assert!(service.hear().contains("STATUS=checking the database"));
    let ready = service.hear();
    assert!(ready.starts_with("READY=1\n"), "{ready}");
    assert!(ready.contains("STATUS=0 images, 0 terminals (0 imaging), 1 problem\n"), "{ready}");
    assert!(service.get("/api/v1/lab").starts_with("HTTP/1.0 200"), "ready means that it answers");
    service.server.terminate();
    service.hear_line("STOPPING=1");
    assert!(service.server.wait(Duration::from_secs(20)).unwrap().success());
}

#[test]
fn a_reload_ends_when_the_new_configuration_is_in_force() {
    let service = Service::start(Duration::from_secs(60));
    service.hear_line("READY=1");
    let config = service.folder.path().join("config.toml");
    std::fs::write(&config, "[[zone]]\nname = \"lab-101\"\nnetworks = [\"10.0.101.0/24\"]\n").unwrap();
    service.server.signal(Signal::SIGHUP);
    let reloading = service.hear_line("RELOADING=1");
    assert!(reloading.contains("MONOTONIC_USEC="), "{reloading}");
    service.hear_line("READY=1");
    assert!(service.get("/api/v1/lab").contains("lab-101"), "ready again means that it is in force");

    std::fs::write(&config, "zone = 1").unwrap();
    service.server.signal(Signal::SIGHUP);
    service.hear_line("RELOADING=1");
    let ready = service.hear_line("READY=1");
    assert!(ready.contains(", 2 problems\n"), "a mistake in the file is told: {ready}");
}

#[test]
fn the_watchdog_hears_the_server_twice_in_each_of_its_periods() {
    let service = Service::start(Duration::from_millis(400));
    service.hear_line("READY=1");
    let begin = Instant::now();
    (0..5).for_each(|_| drop(service.hear_line("WATCHDOG=1")));
    assert!(begin.elapsed() < Duration::from_secs(5), "five messages took {:?}", begin.elapsed());
}
