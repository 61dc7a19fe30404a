//! How long a disk takes to become the next version when a few of its pieces differ, compared with reading it
//! once, in turn: the comparison alone, and an agent from its start until all is proved.

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use flashmob::api::LayoutMode;
use flashmob::io::disk::claim::claim;
use flashmob::io::disk::compare::{CompareProgress, compare};
use flashmob::io::disk::list;
use flashmob::io::image::folder::ImageFolder;
use flashmob::layout::plan::LayoutPlan;
use flashmob::manifest::TrustedManifest;
use flashmob::units::parse_bytes;
use flashmob_testkit::child::{Guarded, command};
use flashmob_testkit::command::run;
use flashmob_testkit::loops::LoopDevice;
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};

use super::{Chance, beside, capture};

/// How `dd` reads a disk once, past the kernel's memory.
const READ: [&str; 3] = ["of=/dev/null", "iflag=direct", "bs=4M"];
/// Where the server of this bench listens.
const SERVER: &str = "127.0.0.1:26880";

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Bytes of the disk, all different
    #[arg(long, default_value = "4GiB", value_parser = parse_bytes)]
    size: u64,
    /// Length of a piece.
    #[arg(long, default_value = "4MiB", value_parser = parse_bytes)]
    piece: u64,
    /// So many pieces of a hundred differ.
    #[arg(long, default_value_t = 5)]
    changed: usize,
    /// Number of runs
    #[arg(long, default_value_t = 3)]
    runs: usize,
    /// The disk seeks slowly, for all that the agent knows.
    #[arg(long)]
    rotational: bool,
    /// Read and write rate of the disk in MB/s; unlimited if left out
    #[arg(long)]
    rate: Option<u64>,
    /// Room for the image.
    #[arg(long)]
    folder: Option<PathBuf>,
    /// Room for the disk: in memory, so that only processors and `rate` count.
    #[arg(long, default_value = "/dev/shm")]
    disk_folder: PathBuf,
}

pub(crate) fn run_all(arguments: &Arguments) {
    let base = arguments.folder.clone().unwrap_or_else(std::env::temp_dir);
    let folder = tempfile::tempdir_in(base).expect("a folder");
    let disk_folder = tempfile::tempdir_in(&arguments.disk_folder).expect("a folder");
    let (source, target) = (folder.path().join("source"), disk_folder.path().join("target"));
    noise(&[&source, &target], arguments.size);
    let repository = folder.path().join("repository");
    let piece = arguments.piece.to_string();
    let version = capture(&source, &repository, "1", &["--payload", "reference", "--piece-length", &piece]);
    let image = ImageFolder::open(&version).expect("an image");
    let disk = attach(&target, arguments.rotational);
    let _limit = arguments.rate.map(|rate| Limit::new(&disk, rate * 1_000_000));
    let pieces = image.manifest().payload.pieces;
    let changed = (pieces as usize * arguments.changed).div_ceil(100);
    let bytes = changed as u64 * arguments.piece;
    println!("{pieces} pieces of {} KiB, {changed} of them differ", arguments.piece >> 10);
    println!("| turn | read once s | comparison s | ÷ once | agent s | ÷ once | fetched ÷ changed |");
    println!("|---|---|---|---|---|---|---|");
    let _server = serve(&repository, &folder.path().join("state"));
    let mut chance = Chance(1);
    for turn in 0..arguments.runs {
        spoil(&target, arguments.piece, pieces, changed, &mut chance);
        let once =
            timed(&disk, || drop(run("dd", &[&format!("if={}", disk.name()), &READ[0], &READ[1], &READ[2]])));
        let compared = timed(&disk, || assert_eq!(found(&image, &disk), pieces as usize - changed));
        let (mut fetched, mut agent) = (0, 0.0);
        timed(&disk, || (fetched, agent) = imaged(&disk));
        println!(
            "| {turn} | {once:.2} | {compared:.2} | {:.2} | {agent:.2} | {:.2} | {:.3} |",
            compared / once,
            agent / once,
            fetched as f64 / bytes as f64
        );
    }
}

/// Fills files with the same bytes, without two equal pieces.
pub(crate) fn noise(files: &[&Path], size: u64) {
    let files: Vec<File> = files.iter().map(|path| File::create(path).expect("a file")).collect();
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = vec![0u8; 1 << 20];
    for at in (0..size).step_by(bytes.len()) {
        for word in bytes.chunks_exact_mut(8) {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            word.copy_from_slice(&state.to_le_bytes());
        }
        let len = usize::try_from(size - at).unwrap_or(usize::MAX).min(bytes.len());
        files.iter().for_each(|file| file.write_all_at(&bytes[..len], at).expect("written"));
    }
    files.iter().for_each(|file| file.sync_all().expect("synced"));
}

/// Other pieces each time: an agent has made the last ones right again.
fn spoil(target: &Path, piece: u64, pieces: u32, changed: usize, chance: &mut Chance) {
    let file = OpenOptions::new().write(true).open(target).expect("the disk");
    let mut rest: Vec<u64> = (0..u64::from(pieces)).collect();
    for _ in 0..changed {
        let at = rest.swap_remove(chance.below(rest.len()));
        file.write_all_at(format!("changed {}", chance.below(1 << 30)).as_bytes(), at * piece + piece / 3)
            .expect("written");
    }
}

/// Seconds that `work` takes with a disk of which nothing is in memory.
fn timed(disk: &LoopDevice, work: impl FnOnce()) -> f64 {
    nix::unistd::sync();
    let file = File::open(disk.path()).expect("the disk");
    posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED).expect("advice");
    drop(file);
    let begun = Instant::now();
    work();
    begun.elapsed().as_secs_f64()
}

/// Pieces that a comparison finds.
fn found(image: &ImageFolder, disk: &LoopDevice) -> usize {
    let info = list::find(disk.name()).expect("the disk");
    let claimed = claim(&info, LayoutMode::WholeDisk, &[1]).expect("claimed");
    let manifest = TrustedManifest::insecure(image.manifest_bytes()).expect("a manifest");
    let facts = claimed.facts();
    let plan =
        LayoutPlan::new(&manifest, image.boot_bytes(), facts, LayoutMode::WholeDisk, None).expect("a plan");
    let (table, progress) = (facts.table.as_ref().ok(), CompareProgress::default());
    let (present, _) = compare(claimed.disk(), &plan, table, image.grid(), image.piece_hashes(), &progress);
    present.kept.count() as usize + present.moves.len()
}

/// Runs an agent; returns the bytes that it fetched, and after how many seconds the disk was proved to be
/// right.
fn imaged(disk: &LoopDevice) -> (u64, f64) {
    let mut command = Command::new(beside("flashmob-agent"));
    command.args(["--server", &format!("http://{SERVER}"), "--image", "bench", "--disk", disk.name()]);
    command.args(["--insecure", "--json", "--listen", "127.0.0.1:0"]);
    let output = command.stderr(Stdio::null()).output().expect("flashmob-agent");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "flashmob-agent: {said}");
    let mut events = said.lines().map(|line| serde_json::from_str(line).expect("an event"));
    let complete: serde_json::Value =
        events.find(|event: &serde_json::Value| event["event"] == "complete").expect("it was complete");
    (complete["bytes"].as_u64().expect("bytes"), complete["seconds"].as_f64().expect("seconds"))
}

/// Starts a server and waits until it is there.
fn serve(repository: &Path, state: &Path) -> Guarded {
    let mut command = command(None, beside("flashmob"));
    command.arg("serve").arg("--images").arg(repository).arg("--state").arg(state);
    command.args(["--listen", SERVER, "--peer-listen", "127.0.0.1:0", "--no-mdns"]);
    let mut server = Guarded::start(command.stderr(Stdio::piped()));
    let mut lines = BufReader::new(server.take_stderr().expect("its words")).lines().map_while(Result::ok);
    assert!(lines.any(|line| line.contains("flashmob serves on ")), "the server ends");
    std::thread::spawn(move || lines.for_each(drop));
    server
}

/// A control group of this process and its children that limits the rate of one disk.
struct Limit(PathBuf);

const GROUPS: &str = "/sys/fs/cgroup/blkio";

impl Limit {
    fn new(disk: &LoopDevice, rate: u64) -> Self {
        let number = fs::metadata(disk.path()).expect("the disk").rdev();
        let line = format!("{}:{} {rate}", nix::sys::stat::major(number), nix::sys::stat::minor(number));
        let limit = Limit(Path::new(GROUPS).join(format!("flashmob-bench-{}", std::process::id())));
        fs::create_dir(&limit.0).expect("a control group (version 1, blkio)");
        for what in ["read", "write"] {
            fs::write(limit.0.join(format!("blkio.throttle.{what}_bps_device")), &line).expect("a limit");
        }
        limit.enter(&limit.0);
        limit
    }

    fn enter(&self, group: &Path) {
        fs::write(group.join("cgroup.procs"), std::process::id().to_string()).expect("entered");
    }
}

impl Drop for Limit {
    fn drop(&mut self) {
        self.enter(Path::new(GROUPS));
        let _ = fs::remove_dir(&self.0);
    }
}

/// A file as a disk that the kernel does not keep in memory.
fn attach(file: &Path, rotational: bool) -> LoopDevice {
    let device = LoopDevice::over(file, &["--direct-io=on"]);
    let queue =
        Path::new("/sys/block").join(device.name().trim_start_matches("/dev/")).join("queue/rotational");
    fs::write(queue, if rotational { "1" } else { "0" }).expect("told how it seeks");
    device
}
