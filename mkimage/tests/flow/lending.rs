//! The whole way of a capture over the network: `flashmob serve`, an agent that lends a loop device, and
//! `flashmob capture`, which runs `flashmob-mkimage`.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use flashmob_testkit::child::{Guarded, command};
use flashmob_testkit::command::{run, write_program};
use flashmob_testkit::loops::LoopDevice;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::imaging::{Server, beside, serve};
use super::network::image;
use super::{SMALL, capture_as, disks, succeed};

const DEADLINE: Duration = Duration::from_secs(120);

/// A golden machine: its disk, and the agent that lends it.
struct Golden {
    disk: PathBuf,
    device: LoopDevice,
}

impl Golden {
    fn new(folder: &Path) -> Self {
        let disk = disks::gpt(folder);
        // The kernel refuses each write.
        let device = LoopDevice::over(&disk, &["--read-only"]);
        Golden { disk, device }
    }

    /// The agent, the terminal's name in calls, and what the agent says afterwards.
    fn boot(&self, server: &Server) -> (Guarded, String, Receiver<String>) {
        let mut agent = command(None, beside("flashmob-agent"));
        agent.args(["lend", "--server", &server.url, "--disk", self.device.name()]);
        let mut agent = Guarded::start(agent.stderr(Stdio::piped()));
        let mut lines = BufReader::new(agent.take_stderr().expect("its words")).lines().map_while(Result::ok);
        let waiting = lines.find(|line| line.contains("waiting for 'flashmob capture")).expect("it waits");
        let (says, said) = channel();
        std::thread::spawn(move || {
            lines.for_each(|line| {
                eprintln!("{line}");
                // Not every test listens.
                let _ = says.send(line);
            });
        });
        let name = waiting.split(['\'', ' ']).rfind(|word| word.contains(':')).expect("its name");
        (agent, name.to_owned(), said)
    }

    fn write(&self, bytes: &[u8], at: u64) {
        let file = File::options().write(true).open(&self.disk).expect("the disk");
        file.write_all_at(bytes, at).expect("written");
    }
}

/// `flashmob capture` by this program, for a terminal, into a repository.
fn capture_by(program: &Path, server: &Server, terminal: &str, repository: &Path) -> Command {
    let mut capture = command(None, program);
    capture.args(["capture", terminal, "--server", &server.url, "--name", "lab", "--repository"]);
    capture.arg(repository).stdout(Stdio::piped()).stderr(Stdio::piped());
    capture
}

/// The same in a network that is trusted.
fn capture(program: &Path, server: &Server, terminal: &str, repository: &Path, more: &[&str]) -> Guarded {
    let mut capture = capture_by(program, server, terminal, repository);
    Guarded::start(capture.arg("--trust-network").args(more))
}

/// The code on the screen of a machine that lends.
fn code(said: &Receiver<String>) -> String {
    let lines = std::iter::from_fn(|| said.recv_timeout(DEADLINE).ok());
    let code = lines.filter_map(|line| Some(line.split_once(" code ")?.1.split_once(':')?.0.to_owned()));
    code.into_iter().next().expect("a code")
}

const PIECES: [&str; 5] = ["--", "--piece-length", "64KiB", "--file-size", "256KiB"];

#[test]
fn a_golden_machine_is_captured_where_it_stands_and_its_next_version_stores_what_changed() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: needs root");
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let (local, lent) = (folder.path().join("local"), folder.path().join("lent"));
    fs::create_dir(&lent).expect("a repository");
    let golden = Golden::new(folder.path());
    let server = serve(None, &lent, &folder.path().join("state"), "127.0.0.1:0");

    let before = fs::read(&golden.disk).expect("the disk");
    succeed(&capture_as("lab@1", &golden.disk, &local, &SMALL));
    let (agent, terminal, says) = golden.boot(&server);
    let first = [&["--version", "1"][..], &PIECES].concat();
    let (typed, mut types) = std::io::pipe().expect("a pipe");
    let mut making = capture_by(&beside("flashmob"), &server, &terminal, &lent);
    let making = Guarded::start(making.args(&first).stdin(typed));
    let shown = code(&says);
    let wrong = if shown == "111111" { "222222" } else { "111111" };
    write!(types, "{wrong}\n{shown}\n").expect("typed");
    let said = succeed(&making.finish(DEADLINE).expect("it ends"));
    assert!(said.contains("has another code") && said.contains("right: this is the machine"), "{said}");
    assert!(
        said.contains("waiting until it lends") && said.contains("released, it boots its own disk"),
        "{said}"
    );
    assert!(said.contains("lends ") && said.contains("not signed"), "{said}");
    assert!(agent.finish(DEADLINE).expect("it ends").status.success());
    assert!(image(&lent.join("lab/1")) == image(&local.join("lab/1")));
    assert!(fs::read(&golden.disk).expect("the disk") == before, "the golden disk was written");

    golden.write(&disks::noise(77, 5000), 45056 * 512 + 70_000);
    let parent = ["--parent", "1"];
    let terms = [&SMALL[..], &[&parent[0], &parent[1]]].concat();
    succeed(&capture_as("lab@2", &golden.disk, &local, &terms));
    let (agent, terminal, _) = golden.boot(&server);
    let second = [&["--version", "2"][..], &parent, &PIECES].concat();
    let made =
        capture(&beside("flashmob"), &server, &terminal, &lent, &second).finish(DEADLINE).expect("it ends");
    let said = succeed(&made);
    assert!(image(&lent.join("lab/2")) == image(&local.join("lab/2")), "{said}");
    assert!(agent.finish(DEADLINE).expect("it ends").status.success());
}

/// A folder with `flashmob` and a `flashmob-mkimage` that hangs as long as the file `hang` is there.
fn hanging(folder: &Path) -> (PathBuf, PathBuf) {
    let bin = folder.join("bin");
    fs::create_dir(&bin).expect("a folder");
    // Not by this process, which would have a program open for writing while other tests start programs.
    run("cp", &[&beside("flashmob"), &bin.join("flashmob")]);
    let (hang, real) = (folder.join("hang"), beside("flashmob-mkimage"));
    fs::write(&hang, "").expect("written");
    let script = format!(
        "#!/bin/sh\necho starts >> {0}.log\nwhile [ -e {0} ]; do sleep 0.1; done\nexec {1} \"$@\"\n",
        hang.display(),
        real.display()
    );
    write_program(&bin.join("flashmob-mkimage"), &script);
    (bin.join("flashmob"), hang)
}

fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let end = Instant::now() + DEADLINE;
    while !is_so() {
        assert!(Instant::now() < end, "{what}: never");
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn a_terminal_that_starts_again_lends_again_and_an_interrupted_capture_releases_it() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: needs root");
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let (local, lent) = (folder.path().join("local"), folder.path().join("lent"));
    fs::create_dir(&lent).expect("a repository");
    let golden = Golden::new(folder.path());
    succeed(&capture_as("lab@1", &golden.disk, &local, &SMALL));
    let server = serve(None, &lent, &folder.path().join("state"), "127.0.0.1:0");
    let (program, hang) = hanging(folder.path());
    let starts = || {
        let log = fs::read_to_string(hang.with_extension("log")).unwrap_or_default();
        log.lines().count()
    };
    let (agent, terminal, _) = golden.boot(&server);
    let terms = [&["--version", "1"][..], &PIECES].concat();
    let making = capture(&program, &server, &terminal, &lent, &terms);
    wait_until("the capture runs", || starts() == 1);
    // Its power is cut, and it comes back.
    drop(agent);
    let (agent, _, _) = golden.boot(&server);
    wait_until("the capture runs again", || starts() == 2);
    fs::remove_file(&hang).expect("removed");
    let said = succeed(&making.finish(DEADLINE).expect("it ends"));
    assert!(said.contains("started again: the capture begins anew"), "{said}");
    assert!(agent.finish(DEADLINE).expect("it ends").status.success());
    assert!(image(&lent.join("lab/1")) == image(&local.join("lab/1")));

    fs::write(&hang, "").expect("written");
    let (agent, terminal, _) = golden.boot(&server);
    let making = capture(&program, &server, &terminal, &lent, &["--version", "2"]);
    wait_until("the capture runs", || starts() == 3);
    let show = Command::new(beside("flashmob"))
        .args(["terminal", "show", &terminal, "--server", &server.url])
        .output();
    assert!(succeed(&show.expect("it starts")).contains("being captured"));
    kill(Pid::from_raw(making.id().cast_signed()), Signal::SIGINT).expect("interrupted");
    let output = making.finish(DEADLINE).expect("it ends");
    assert_eq!(output.status.code(), Some(3));
    assert!(String::from_utf8_lossy(&output.stdout).contains("released, it boots its own disk"));
    assert!(agent.finish(DEADLINE).expect("it ends").status.success());
    assert!(!lent.join("lab/2").exists());
}

#[test]
fn nothing_is_read_from_a_machine_whose_code_nobody_types() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: needs root");
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let lent = folder.path().join("lent");
    fs::create_dir(&lent).expect("a repository");
    let golden = Golden::new(folder.path());
    let server = serve(None, &lent, &folder.path().join("state"), "127.0.0.1:0");
    let (agent, terminal, says) = golden.boot(&server);
    // Its input is empty, as a script's.
    let making = Guarded::start(&mut capture_by(&beside("flashmob"), &server, &terminal, &lent));
    code(&says);
    let output = making.finish(DEADLINE).expect("it ends");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(2) && said.contains("--trust-network"), "{said}");
    assert!(agent.finish(DEADLINE).expect("it ends").status.success(), "released");
    assert!(!lent.join("lab").exists());
}
