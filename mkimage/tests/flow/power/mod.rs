//! The power is cut at any moment of an attempt, on disks that lose any part of their unflushed writes.
//!
//! The real agent writes an image from a real server onto model disks. At a moment that follows from a seed
//! the agent is killed, and each unflushed sector is independently lost or kept. The disk must then start the
//! whole old system, the whole new one, or nothing, and the next attempt on it must finish. `FLASHMOB_CUTS`
//! is the number of cuts of each scene (5), `FLASHMOB_SEED` the first seed.

mod model;
mod starts;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use flashmob::io::image::folder::ImageFolder;
use flashmob::rng::Rng;

use super::disks::{self, MIB};
use super::imaging::{Server, beside, serve};
use super::{SMALL, capture_as, fail, mkimage, succeed};
use flashmob_testkit::child::command;
use model::{Cut, Disks};
use starts::{Starts, Truth};

/// An attempt that takes longer has failed.
const ATTEMPT: Duration = Duration::from_secs(120);
/// How many cuts in a row may come upon one disk.
const IN_A_ROW: usize = 2;

/// Images for the disks of one terminal, and the disks' old content.
struct Case {
    server: Server,
    images: Vec<ImageFolder>,
    old: Vec<Vec<u8>>,
    /// Writes in each epoch of an attempt without a cut.
    epochs: Vec<usize>,
}

/// Where in an attempt the power is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    Disarm,
    Pieces,
    Commit,
}

const PHASES: [Phase; 3] = [Phase::Disarm, Phase::Commit, Phase::Pieces];

/// Creates a job that keeps the table, because attempts by hand take the layout of the job that waits for
/// their terminal.
fn keep_the_table(server: &Server) {
    // By a call that is refused the server comes to know this machine as a terminal.
    let mut agent = command(None, beside("flashmob-agent"));
    agent.args(["--server", &server.url, "--insecure", "--listen", "127.0.0.1:0"]);
    let output = agent.args(["--image", "nothing", "--disk", "/dev/null"]).output().expect("it starts");
    fail(&output, 3);
    let mut create = command(None, beside("flashmob"));
    create.args(["job", "create", "lab0", "new", "--layout", "keep", "--server", &server.url]);
    succeed(&create.output().expect("it starts"));
}

impl Case {
    /// `sources` are captured; the partitions with the numbers `keep` stay, and then the table does.
    fn new(folder: &Path, name: &str, sources: &[PathBuf], keep: Option<&[&str]>, old: Vec<Vec<u8>>) -> Self {
        let folder = folder.join(name);
        let repository = folder.join("images");
        let kept = keep.unwrap_or_default().iter().flat_map(|number| ["--keep", number]);
        let more: Vec<String> = kept.map(str::to_string).collect();
        let images = sources.iter().enumerate().map(|(i, source)| {
            let terms = SMALL.iter().copied().chain(more.iter().map(|term| term as _)).collect::<Vec<_>>();
            succeed(&capture_as(&format!("lab{i}@1"), source, &repository, &terms));
            ImageFolder::open(&repository.join(format!("lab{i}/1"))).expect("an image")
        });
        let images = images.collect();
        let server = serve(None, &repository, &folder.join("state"), "127.0.0.1:0");
        if keep.is_some() {
            keep_the_table(&server);
        }
        let mut case = Case { server, images, old, epochs: Vec::new() };
        let disks = Disks::switch_on(&case.old, None);
        assert_eq!(disks.attempt(&mut case.agent(&disks)), Ok(true), "{name}: without a cut");
        case.epochs = disks.epochs();
        let media = disks.switch_off();
        case.assert_finished(&media);
        assert!(case.starts(&media) == Ok(vec![Starts::New; media.len()]), "{name}: it starts in the end");
        assert!(case.starts(&case.old) == Ok(vec![Starts::Old; media.len()]), "{name}: it starts before");
        case
    }

    fn agent(&self, disks: &Disks) -> Command {
        let mut agent = command(None, beside("flashmob-agent"));
        agent.args(["--server", &self.server.url, "--insecure", "--listen", "127.0.0.1:0"]);
        for (i, device) in disks.devices().into_iter().enumerate() {
            match i {
                0 => agent.args(["--image", "lab0", "--disk", device]),
                _ => agent.args(["--also", &format!("lab{i}={device}")]),
            };
        }
        agent
    }

    /// The system that each disk starts. It is on the first disk, and the other disks belong to it.
    fn starts(&self, media: &[Vec<u8>]) -> Result<Vec<Starts>, String> {
        let truths = self.images.iter().zip(&self.old).map(|(image, old)| Truth { old, image });
        let each = truths.zip(media).map(|(truth, disk)| truth.starts(disk));
        let each = each.collect::<Result<Vec<_>, _>>()?;
        if each[0] != Starts::Nothing && each.iter().any(|other| *other != each[0]) {
            return Err(format!("the first disk starts, and the others are of another state: {each:?}"));
        }
        Ok(each)
    }

    /// The images are on the disks, as the program says that proves it.
    fn assert_finished(&self, media: &[Vec<u8>]) {
        for (image, bytes) in self.images.iter().zip(media) {
            let folder = tempfile::tempdir().expect("a folder");
            let disk = folder.path().join("disk.img");
            fs::write(&disk, bytes).expect("written");
            succeed(&mkimage(&[&"verify", &image.path(), &"--disk", &disk]));
        }
    }

    /// A moment in this phase: any flush is as likely as any other, and any write before it.
    fn moment(&self, phase: Phase, rng: &mut Rng) -> Cut {
        let most = self.epochs.iter().max().expect("it wrote");
        let pieces = self.epochs.iter().position(|writes| writes == most).expect("it is there");
        let last = self.epochs.len() - 1;
        let epoch = match phase {
            Phase::Disarm => rng.below(pieces),
            Phase::Pieces => pieces,
            Phase::Commit => last.min(pieces + 1 + rng.below(last - pieces)),
        };
        Cut { epoch, write: rng.below(self.epochs[epoch] + 1), seed: rng.next_u64() }
    }
}

fn number_from<T: std::str::FromStr>(variable: &str, otherwise: T) -> T {
    std::env::var(variable).map_or(otherwise, |text| text.parse().ok().expect("a number in the environment"))
}

/// Cuts the power in each case and each phase by turns.
fn cut_power(scene: &str, cases: &[Case]) {
    let begun = Instant::now();
    let cuts: usize = number_from("FLASHMOB_CUTS", 5);
    let first: u64 = number_from("FLASHMOB_SEED", 1);
    let mut left: BTreeMap<(Phase, Starts), usize> = BTreeMap::new();
    let (mut done, mut finished, mut late) = (0, 0, 0);
    for seed in first.. {
        if done >= cuts {
            break;
        }
        let rng = &mut Rng::new(seed);
        let case = &cases[finished % cases.len()];
        let mut media = case.old.clone();
        // Now and then the next attempt is cut too.
        for _ in 0..(1 + rng.below(IN_A_ROW)).min(cuts - done) {
            let phase = PHASES[done % PHASES.len()];
            let cut = case.moment(phase, rng);
            let what = format!("{scene}, seed {seed}, cut in {phase:?} at {cut:?}");
            let disks = Disks::switch_on(&media, Some(cut));
            let ended = disks.attempt(&mut case.agent(&disks)).expect(&what);
            media = disks.switch_off();
            if ended {
                // Pieces that were already on the disk made the attempt shorter.
                late += 1;
                break;
            }
            done += 1;
            let starts = case.starts(&media).expect(&what);
            *left.entry((phase, starts[0])).or_default() += 1;
        }
        let disks = Disks::switch_on(&media, None);
        let ended = disks.attempt(&mut case.agent(&disks));
        assert_eq!(ended, Ok(true), "{scene}, seed {seed}: the attempt after the cut");
        let media = disks.switch_off();
        case.assert_finished(&media);
        assert!(case.starts(&media) == Ok(vec![Starts::New; media.len()]), "{scene}, seed {seed}");
        finished += 1;
    }
    let took = begun.elapsed().as_secs();
    println!(
        "{scene}: {done} cuts ({late} came too late), {finished} disks, all finished, in {took} s; then \
         started"
    );
    for ((phase, starts), count) in left {
        println!("  after a cut in {phase:?}: {starts:?} {count} times");
    }
}

/// A disk with this content in its partitions and otherwise equal to `golden`: an older version.
fn older(golden: &[u8], content: &[u8]) -> Vec<u8> {
    let mut disk = golden.to_vec();
    for range in starts::partitions(golden) {
        disk[range.clone()].copy_from_slice(&content[range]);
    }
    disk
}

/// Golden disks and others like them, each in a separate folder.
struct Sources {
    gpt: [PathBuf; 2],
    mbr: [PathBuf; 2],
}

impl Sources {
    fn make(folder: &Path) -> Self {
        let make = |name: &str, salt: u64, make: fn(&Path, u64) -> PathBuf| {
            let folder = folder.join(format!("{name}{salt}"));
            fs::create_dir(&folder).expect("a folder");
            make(&folder, salt)
        };
        let both = |name: &str, of: fn(&Path, u64) -> PathBuf| [0, 100].map(|salt| make(name, salt, of));
        Sources { gpt: both("gpt", disks::gpt_of), mbr: both("mbr", disks::mbr_of) }
    }

    fn older(&self, which: fn(&Self) -> &[PathBuf; 2]) -> Vec<u8> {
        let [golden, other] = which(self).each_ref().map(|path| fs::read(path).expect("a disk"));
        older(&golden, &other)
    }

    fn other(&self, which: fn(&Self) -> &[PathBuf; 2]) -> Vec<u8> {
        fs::read(&which(self)[1]).expect("a disk")
    }
}

/// Another system with a GPT: its partitions lie elsewhere, and its disk is larger.
fn gpt_elsewhere(folder: &Path, sources: &Sources) -> Vec<u8> {
    let disk = folder.join("elsewhere.img");
    fs::File::create(&disk).and_then(|file| file.set_len(40 * MIB)).expect("a file");
    let new = ["--new=1:2048:+16M", "--typecode=1:8300", "--new=2:40960:+4M", "--typecode=2:ef00"];
    disks::run("sgdisk", &[&new[..], &[disk.to_str().expect("text")]].concat());
    let (mut bytes, other) = (fs::read(&disk).expect("the disk"), sources.other(|all| &all.gpt));
    let mib = |number: u64| usize::try_from(number * MIB).expect("small");
    bytes[..440].copy_from_slice(&other[..440]);
    bytes[mib(1)..mib(17)].copy_from_slice(&other[mib(6)..mib(22)]);
    bytes[mib(20)..mib(24)].copy_from_slice(&other[mib(2)..mib(6)]);
    bytes
}

#[test]
fn a_power_cut_while_a_whole_gpt_disk_is_written_starts_nothing_half_and_the_next_attempt_finishes() {
    let folder = tempfile::tempdir().expect("a folder");
    let sources = Sources::make(folder.path());
    let case = |name: &str, old: Vec<u8>| Case::new(folder.path(), name, &sources.gpt[..1], None, vec![old]);
    let elsewhere = gpt_elsewhere(folder.path(), &sources);
    let cases = [
        case("over-older", sources.older(|all| &all.gpt)),
        case("over-other", elsewhere),
        case("over-mbr", sources.other(|all| &all.mbr)),
    ];
    cut_power("whole disk, GPT", &cases);
}

#[test]
fn a_power_cut_while_a_whole_mbr_disk_is_written_starts_nothing_half_and_the_next_attempt_finishes() {
    let folder = tempfile::tempdir().expect("a folder");
    let sources = Sources::make(folder.path());
    let case = |name: &str, old: Vec<u8>| Case::new(folder.path(), name, &sources.mbr[..1], None, vec![old]);
    let elsewhere = gpt_elsewhere(folder.path(), &sources);
    let cases = [case("over-older", sources.older(|all| &all.mbr)), case("over-gpt", elsewhere)];
    cut_power("whole disk, MBR", &cases);
}

#[test]
fn a_power_cut_while_the_table_is_kept_starts_nothing_half_and_the_next_attempt_finishes() {
    let folder = tempfile::tempdir().expect("a folder");
    let sources = Sources::make(folder.path());
    let (gpt, mbr) = (sources.older(|all| &all.gpt), sources.older(|all| &all.mbr));
    let cases = [
        Case::new(folder.path(), "gpt", &sources.gpt[..1], Some(&[]), vec![gpt.clone()]),
        Case::new(folder.path(), "gpt-kept-esp", &sources.gpt[..1], Some(&["2"]), vec![gpt]),
        Case::new(folder.path(), "mbr", &sources.mbr[..1], Some(&[]), vec![mbr]),
    ];
    cut_power("kept table", &cases);
}

#[test]
fn a_power_cut_while_two_disks_are_written_starts_nothing_half_and_the_next_attempt_finishes() {
    let folder = tempfile::tempdir().expect("a folder");
    let sources = Sources::make(folder.path());
    let images = [sources.gpt[0].clone(), sources.mbr[0].clone()];
    let old = vec![sources.older(|all| &all.gpt), sources.older(|all| &all.mbr)];
    let other = vec![gpt_elsewhere(folder.path(), &sources), sources.other(|all| &all.gpt)];
    let cases = [
        Case::new(folder.path(), "over-older", &images, None, old),
        Case::new(folder.path(), "over-other", &images, None, other),
    ];
    cut_power("two disks", &cases);
}
