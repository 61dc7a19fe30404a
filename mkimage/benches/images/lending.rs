//! How fast a disk is captured where it stands: an agent lends it over a link, `flashmob capture` reads it.
//! Beside it, in turn, a plain TCP connection that carries as many bytes over the same link.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Instant;

use flashmob::units::parse_bytes;
use flashmob_testkit::child::{Guarded, command};
use flashmob_testkit::command::run_line;
use flashmob_testkit::loops::LoopDevice;
use flashmob_testkit::net::{Namespaces, enter, ip};

use super::beside;
use super::difference::noise;

const SERVER: &str = "10.88.0.1";
const TERMINAL: &str = "10.88.0.2";
const PORT: u16 = 6969;
const PLAIN: u16 = 6970;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Bytes of the disk, all in use
    #[arg(long, default_value = "2GiB", value_parser = parse_bytes)]
    size: u64,
    /// What the link carries, in Mbit/s.
    #[arg(long, default_value_t = 1000)]
    megabits: u32,
    /// Number of runs
    #[arg(long, default_value_t = 3)]
    runs: usize,
    /// Room for disk and images: in memory, so that the link counts.
    #[arg(long, default_value = "/dev/shm")]
    folder: PathBuf,
}

pub(crate) fn run(arguments: &Arguments) {
    let folder = tempfile::tempdir_in(&arguments.folder).expect("a folder");
    let (disk, repository) = (folder.path().join("disk"), folder.path().join("images"));
    noise(&[&disk], arguments.size);
    fs::create_dir(&repository).expect("a repository");
    let device = LoopDevice::over(&disk, &["--read-only"]);
    let link = Link::new(arguments.megabits);
    let rate = |seconds: f64| arguments.size as f64 / seconds / 1e6;
    println!("| turn | plain TCP MB/s | captured MB/s | ÷ plain TCP |");
    println!("|---|---|---|---|");
    for turn in 0..arguments.runs {
        // A terminal that comes again must prove who it is, so each turn has a server that knows nobody.
        let _server = link.serve(&repository, &folder.path().join(format!("state-{turn}")));
        let plain = rate(link.carry(arguments.size));
        let captured = rate(link.capture(&device, &repository, turn));
        println!("| {turn} | {plain:.1} | {captured:.1} | {:.3} |", captured / plain);
        fs::remove_dir_all(repository.join("bench")).expect("removed");
    }
}

/// Two machines and the link between them.
struct Link {
    server: String,
    terminal: String,
    _namespaces: Namespaces,
}

impl Link {
    fn new(megabits: u32) -> Self {
        let [server, terminal] = ["s", "t"].map(|end| format!("fmlend{}{end}", std::process::id()));
        let mut namespaces = Namespaces::default();
        [&server, &terminal].into_iter().for_each(|name| namespaces.add(name));
        ip(&format!("-n {server} link add lan type veth peer name lan netns {terminal}"));
        for (name, address) in [(&server, SERVER), (&terminal, TERMINAL)] {
            ip(&format!("-n {name} addr add {address}/24 dev lan"));
            ip(&format!("-n {name} link set lan up"));
            ip(&format!("-n {name} link set lo up"));
            let shape = format!("rate {megabits}mbit burst 256kb latency 20ms");
            run_line("tc", &format!("-n {name} qdisc add dev lan root tbf {shape}"));
        }
        Link { server, terminal, _namespaces: namespaces }
    }

    fn serve(&self, repository: &Path, state: &Path) -> Guarded {
        let mut serve = command(Some(&self.server), beside("flashmob"));
        serve.arg("serve").arg("--images").arg(repository).arg("--state").arg(state).arg("--no-mdns");
        let mut server = Guarded::start(serve.stderr(Stdio::piped()));
        let mut lines = lines_of(&mut server);
        assert!(lines.any(|line| line.contains("flashmob serves on ")), "the server ends");
        std::thread::spawn(move || lines.for_each(drop));
        server
    }

    /// Seconds that this many bytes take from the terminal to the server.
    fn carry(&self, bytes: u64) -> f64 {
        let (server, terminal) = (self.server.clone(), self.terminal.clone());
        let (ready, is_ready) = std::sync::mpsc::channel();
        let receiver = std::thread::spawn(move || {
            enter(&server).expect("a namespace");
            let listener = TcpListener::bind((SERVER, PLAIN)).expect("a port");
            ready.send(()).expect("it waits");
            let (mut stream, _) = listener.accept().expect("a connection");
            let begun = Instant::now();
            let read = std::io::copy(&mut stream, &mut std::io::sink()).expect("read");
            (read, begun.elapsed().as_secs_f64())
        });
        is_ready.recv().expect("ready");
        let sender = std::thread::spawn(move || {
            enter(&terminal).expect("a namespace");
            let mut stream = TcpStream::connect((SERVER, PLAIN)).expect("the receiver");
            std::io::copy(&mut std::io::repeat(7).take(bytes), &mut stream).expect("sent");
            stream.flush().expect("sent");
        });
        sender.join().expect("sent");
        let (read, seconds) = receiver.join().expect("received");
        assert_eq!(read, bytes);
        seconds
    }

    /// Seconds from the disk's being lent until its image is made, all programs and messages included.
    fn capture(&self, device: &LoopDevice, repository: &Path, turn: usize) -> f64 {
        let mut lend = command(Some(&self.terminal), beside("flashmob-agent"));
        lend.args(["lend", "--server", &format!("http://{SERVER}:{PORT}"), "--disk", device.name()]);
        let mut agent = Guarded::start(lend.stderr(Stdio::piped()));
        let mut lines = lines_of(&mut agent);
        let waiting = lines.find(|line| line.contains("waiting for 'flashmob capture")).expect("it waits");
        let name = waiting.split(['\'', ' ']).rfind(|word| word.contains(':')).expect("its name").to_owned();
        let mut lent = lines.skip_while(|line| !line.contains("code "));
        let mut capture = command(Some(&self.server), beside("flashmob"));
        capture.args([
            "capture",
            &name,
            "--name",
            "bench",
            "--version",
            &turn.to_string(),
            "--trust-network",
        ]);
        capture.args(["--server", &format!("http://127.0.0.1:{PORT}"), "--repository"]).arg(repository);
        let making = Guarded::start(capture.stdout(Stdio::null()));
        assert!(lent.next().is_some(), "the disk is lent");
        let begun = Instant::now();
        std::thread::spawn(move || lent.for_each(drop));
        let deadline = std::time::Duration::from_secs(3600);
        assert!(making.finish(deadline).expect("it ends").status.success());
        let seconds = begun.elapsed().as_secs_f64();
        assert!(agent.finish(deadline).expect("it ends").status.success());
        seconds
    }
}

fn lines_of(process: &mut Guarded) -> impl Iterator<Item = String> + Send + use<> {
    BufReader::new(process.take_stderr().expect("its words")).lines().map_while(Result::ok)
}
