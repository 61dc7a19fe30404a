//! Figures for docs/bench.md: a thousand terminals that arrive at once, and a stranger who floods the server.
//!
//!     cargo test --test night -- --ignored --nocapture figures
//!
//! `FLASHMOB` names the program that is measured, for example a release build; `TERMINALS` and `SECONDS`
//! change the load.

use std::time::{Duration, Instant};

use flashmob::api::{Assignment, Hello, Inventory, ProgressReport, Take, Welcome};
use flashmob::event::{Progress, Stage};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;

use crate::place::{Place, SERVER, address, mac};

/// A connection that is kept, with as little work for each call as possible: the terminals share the machine
/// with the server.
struct Line {
    from: std::net::Ipv4Addr,
    stream: Option<TcpStream>,
    buffer: Vec<u8>,
}

impl Line {
    fn new(n: usize) -> Line {
        Line { from: address(n), stream: None, buffer: vec![0; 64 << 10] }
    }

    async fn connect(&self) -> std::io::Result<TcpStream> {
        let socket = TcpSocket::new_v4()?;
        socket.bind((self.from, 0).into())?;
        let stream = socket.connect((SERVER.parse::<std::net::Ipv4Addr>().unwrap(), 6969).into()).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    async fn try_call(&mut self, request: &[u8]) -> std::io::Result<(u16, String)> {
        if self.stream.is_none() {
            self.stream = Some(self.connect().await?);
        }
        let stream = self.stream.as_mut().unwrap();
        stream.write_all(request).await?;
        let mut filled = 0;
        loop {
            let read = stream.read(&mut self.buffer[filled..]).await?;
            if read == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            filled += read;
            let text = String::from_utf8_lossy(&self.buffer[..filled]);
            let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            if body.len() >= length.map_or(0, |length| length.parse().unwrap()) {
                return Ok((head[9..12].parse().unwrap(), body.to_string()));
            }
        }
    }

    /// Calls until there is an answer.
    async fn call(&mut self, head: &str, authorization: &str, body: &str) -> (u16, String) {
        let request = format!(
            "{head} HTTP/1.1\r\nhost: {SERVER}:6969\r\n{authorization}content-type: application/json\r\n\
             content-length: {}\r\n\r\n{body}",
            body.len()
        );
        loop {
            match self.try_call(request.as_bytes()).await {
                Ok(answer) => return answer,
                Err(_) => {
                    self.stream = None;
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
            }
        }
    }
}

fn hello(mac: String) -> String {
    let hello = Hello { uuid: None, macs: vec![mac], inventory: Inventory::default(), agent: "test".into() };
    serde_json::to_string(&hello).unwrap()
}

/// Boots, and takes the job that waits.
async fn arrive(line: &mut Line, n: usize) -> Assignment {
    let (_, script) = line.call(&format!("GET /boot/ipxe?mac={}&platform=efi", mac(n)), "", "").await;
    let ticket = script.split_once("flashmob.ticket=").expect("work waits").1;
    let ticket = ticket.split_whitespace().next().unwrap();
    let welcome: Welcome = loop {
        let authorization = format!("authorization: Ticket {ticket}\r\n");
        match line.call("POST /api/v1/hello", &authorization, &hello(mac(n))).await {
            (200, text) => break serde_json::from_str(&text).unwrap(),
            _ => tokio::time::sleep(Duration::from_millis(200)).await,
        }
    };
    let bearer = format!("authorization: Bearer {}\r\n", welcome.secret.unwrap());
    let take = serde_json::to_string(&Take::default()).unwrap();
    loop {
        match line.call(&format!("POST /api/v1/terminals/{}/take", welcome.terminal), &bearer, &take).await {
            (200, text) => return serde_json::from_str(&text).unwrap(),
            _ => tokio::time::sleep(Duration::from_millis(200)).await,
        }
    }
}

/// Reports each second until `end`; returns when each report was sent and how long its answer took.
async fn report(line: &mut Line, work: &Assignment, end: Instant) -> Vec<(Instant, Duration)> {
    let head = format!("POST /api/v1/attempts/{}/progress", work.attempt);
    let mut progress = Progress::at(Stage::Fetch);
    let mut took = Vec::new();
    let mut next = tokio::time::interval(Duration::from_secs(1));
    next.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while Instant::now() < end {
        next.tick().await;
        progress.bytes_done += 1 << 20;
        let report =
            ProgressReport { token: work.token.clone(), progress: progress.clone(), chosen: Vec::new() };
        let body = serde_json::to_string(&report).unwrap();
        let begin = Instant::now();
        let (status, text) = line.call(&head, "", &body).await;
        assert_eq!(status, 200, "{text}");
        took.push((begin, begin.elapsed()));
    }
    took
}

/// Processor seconds of a process so far, and its memory in MiB: now, and the most.
fn used(pid: u32) -> (f64, u64, u64) {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
    let ticks: f64 = [11, 12].iter().map(|n| fields[*n].parse::<f64>().unwrap()).sum();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let memory = |key: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(key)).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1024
    };
    (ticks / 100.0, memory("VmRSS:"), memory("VmHWM:"))
}

fn quantiles(all: &[(Instant, Duration)]) -> String {
    let mut all: Vec<Duration> = all.iter().map(|(_, took)| *took).collect();
    all.sort();
    if all.is_empty() {
        return "none".into();
    }
    let at = |share: usize| all[(all.len() - 1) * share / 1000].as_secs_f64() * 1000.0;
    format!("p50 {:.2} ms, p99 {:.2} ms, longest {:.0} ms of {}", at(500), at(990), at(1000), all.len())
}

fn number(name: &str, default: usize) -> usize {
    std::env::var(name).ok().map_or(default, |text| text.parse().unwrap())
}

/// A lab with an open job for all of its terminals.
fn lab(terminals: usize, more: usize) -> Place {
    let mut place = Place::new(terminals + more, "");
    if let Some(program) = std::env::var_os("FLASHMOB") {
        place.program = std::path::absolute(program).unwrap();
    }
    place.behind_a_router(terminals + more);
    place.start();
    place.import(terminals);
    place.run("flashmob job create golden room:1");
    place
}

#[test]
fn a_terminal_that_stays_connected_costs_the_server_little_memory() {
    const CONNECTIONS: u64 = 1000;
    let _alone = crate::ALONE.blocking_lock();
    let mut place = Place::new(1, "");
    place.start();
    let pid = place.pid();
    place.among_terminals(async || {
        let mut lines: Vec<Line> = (0..=CONNECTIONS).map(|_| Line::new(0)).collect();
        let (_, before, _) = used(pid);
        for line in &mut lines {
            assert_eq!(line.call("GET /boot/ipxe", "", "").await.0, 200);
        }
        let (_, after, _) = used(pid);
        let each = (after - before) * 1024 / CONNECTIONS;
        assert!(each <= 40, "{each} KiB for each connection");
    });
}

#[test]
#[ignore = "prints figures, for a minute"]
fn figures_of_terminals_that_arrive_at_once() {
    let _alone = crate::ALONE.blocking_lock();
    let (terminals, seconds) = (number("TERMINALS", 1000), number("SECONDS", 60));
    let place = lab(terminals, 0);
    let pid = place.pid();
    let (before, idle, _) = used(pid);
    place.among_terminals(async || {
        let begin = Instant::now();
        let end = begin + Duration::from_secs(u64::try_from(seconds).unwrap());
        let (there, mut arrived) = tokio::sync::mpsc::channel(terminals);
        let mut reporting = JoinSet::new();
        for n in 0..terminals {
            let there = there.clone();
            reporting.spawn(async move {
                let mut line = Line::new(n);
                let work = arrive(&mut line, n).await;
                there.send(()).await.unwrap();
                report(&mut line, &work, end).await
            });
        }
        for _ in 0..terminals {
            arrived.recv().await.unwrap();
        }
        let (arrival, (spent, ..)) = (begin.elapsed(), used(pid));
        let mut all = reporting.join_all().await.concat();
        all.sort();
        let (during, later) = all.split_at(all.partition_point(|(sent, _)| *sent < begin + arrival));
        let ((after, now, most), whole) = (used(pid), begin.elapsed());
        let rest = (whole - arrival).as_secs_f64();
        println!("{terminals} terminals, all at work after {:.1} s", arrival.as_secs_f64());
        println!("reports: {}", quantiles(&all));
        println!("reports while others arrive: {}", quantiles(during));
        println!("reports once all are at work: {}", quantiles(later));
        println!(
            "cores: {:.3} in all, {:.3} while they report; {:.2} CPU s to arrive",
            (after - before) / whole.as_secs_f64(),
            (after - spent) / rest,
            spent - before
        );
        println!("memory: {idle} MiB before, {now} MiB after, {most} MiB at most");
    });
}

/// Sends hellos of invented terminals from one address until `end`, beginning with number `from`. Returns how
/// many.
async fn flood(n: usize, from: usize, end: Instant) -> usize {
    let mut line = Line::new(n);
    let mut sent = 0;
    while Instant::now() < end {
        let [.., a, b, c] = (from + sent).to_be_bytes();
        line.call("POST /api/v1/hello", "", &hello(format!("02:00:00:{a:02x}:{b:02x}:{c:02x}"))).await;
        sent += 1;
    }
    sent
}

/// How long a terminal at address `n`, with a MAC that nobody knows, needs to register.
async fn register(n: usize, mac: String) -> Duration {
    let begin = Instant::now();
    let mut line = Line::new(n);
    while line.call("POST /api/v1/hello", "", &hello(mac.clone())).await.0 != 200 {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    begin.elapsed()
}

#[test]
#[ignore = "prints figures, for two minutes"]
fn figures_of_a_flood_of_hellos() {
    const KNOWN: usize = 200;
    const LINES: usize = 20;
    let _alone = crate::ALONE.blocking_lock();
    let length = Duration::from_secs(u64::try_from(number("SECONDS", 30)).unwrap());
    let place = lab(KNOWN, 2);
    let pid = place.pid();
    place.among_terminals(async || {
        let mut lines = Vec::new();
        for n in 0..KNOWN {
            let mut line = Line::new(n);
            let work = arrive(&mut line, n).await;
            lines.push((line, work));
        }
        for (round, flooded) in [false, true, false, true].into_iter().enumerate() {
            let end = Instant::now() + length;
            let (before, ..) = used(pid);
            let mut reporting = JoinSet::new();
            for (mut line, work) in lines.drain(..) {
                reporting.spawn(async move {
                    let took = report(&mut line, &work, end).await;
                    (line, work, took)
                });
            }
            let mut flooding = JoinSet::new();
            if flooded {
                for part in 0..LINES {
                    flooding.spawn(flood(KNOWN, part << 19, end));
                }
                tokio::time::sleep(length / 4).await;
                println!("a new terminal registers after {:?}", register(KNOWN + 1, mac(9000 + round)).await);
            }
            let hellos: usize = flooding.join_all().await.iter().sum();
            let mut all = Vec::new();
            for (line, work, took) in reporting.join_all().await {
                all.extend(took);
                lines.push((line, work));
            }
            let (after, now, _) = used(pid);
            println!("{hellos} hellos beside {KNOWN} known terminals: {}", quantiles(&all));
            println!("{:.2} cores, {now} MiB", (after - before) / length.as_secs_f64());
        }
    });
}
