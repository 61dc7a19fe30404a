//! The time of a capture, of its parts (reading the same source, copying it, hashing) and of partclone, in
//! turn.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use flashmob::io::hash::{sha1, sha256};
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};

use super::volume::{Kind, Volume, stage};
use super::{Content, capture, folder};

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    content: Content,
    /// Number of runs
    #[arg(long, default_value_t = 3)]
    runs: usize,
    /// The source may be in the machine's memory: then processors count and not the disk.
    #[arg(long)]
    warm: bool,
}

/// One measurement of each run.
#[derive(Clone, Copy)]
enum What {
    Read,
    Copy,
    Hash,
    PartcloneNull,
    PartcloneFile,
    Capture,
    NotHashed,
    InPlace,
}

const ALL: [(What, &str); 8] = [
    (What::Read, "cat SOURCE >/dev/null"),
    (What::Copy, "cat SOURCE >FILE, synced"),
    (What::Hash, "SHA-1 and SHA-256 on all cores, of as much in memory"),
    (What::PartcloneNull, "partclone -c -O /dev/null"),
    (What::PartcloneFile, "partclone -c -O FILE, synced"),
    (What::Capture, "capture"),
    (What::NotHashed, "capture, not hashed"),
    (What::InPlace, "capture, payload left in place"),
];

pub(crate) fn run(arguments: &Arguments) {
    let folder = folder(&arguments.content);
    let staged = folder.path().join("staged");
    stage(&arguments.content.tree, &staged, arguments.content.size);
    let size = arguments.content.size + arguments.content.size / 8;
    let mut volume = Volume::make(Kind::Ext4, folder.path(), size).expect("ext4 can be mounted");
    volume.add(&staged);
    fs::remove_dir_all(&staged).expect("removed");
    let used = volume.used();
    println!("ext4 of {} MiB, {} MiB in use, {} turns", size >> 20, used >> 20, arguments.runs);
    let mut times = vec![Vec::new(); ALL.len()];
    for turn in 0..arguments.runs {
        for ((what, name), times) in ALL.iter().zip(&mut times) {
            settle(&volume.image, arguments.warm);
            let begun = Instant::now();
            once(*what, &volume.image, folder.path(), used);
            times.push(begun.elapsed().as_secs_f64());
            clear(folder.path());
            eprintln!("{turn}: {name} {:.2} s", times[turn]);
        }
    }
    println!("| | best s | middle s | MB/s in use | ÷ cat | ÷ partclone to a file |");
    println!("|---|---|---|---|---|---|");
    let middle = |times: &[f64]| {
        let mut sorted = times.to_vec();
        sorted.sort_by(f64::total_cmp);
        (sorted[0], sorted[sorted.len() / 2])
    };
    let ((cat, _), (partclone, _)) = (middle(&times[0]), middle(&times[4]));
    for ((_, what), times) in ALL.iter().zip(&times) {
        let (best, middle) = middle(times);
        let rate = used as f64 / best / 1e6;
        println!(
            "| {what} | {best:.2} | {middle:.2} | {rate:.0} | {:.2} | {:.2} |",
            best / cat,
            best / partclone
        );
    }
}

/// The source out of memory (or in it), and nothing left to be written.
fn settle(source: &Path, warm: bool) {
    nix::unistd::sync();
    let file = File::open(source).expect("the source");
    if warm {
        std::io::copy(&mut &file, &mut std::io::sink()).expect("read");
    } else {
        posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED).expect("advice");
    }
}

fn once(what: What, source: &Path, folder: &Path, used: u64) {
    let (out, log, repository) = (folder.join("out"), folder.join("log"), folder.join("repository"));
    let cat = |to: &Path| {
        let to = File::options().write(true).create(true).truncate(true).open(to).expect("a file");
        let status = Command::new("cat").arg(source).stdout(to).status();
        assert!(status.expect("cat").success());
    };
    let partclone = |to: &Path| {
        let mut command = Command::new("partclone.extfs");
        // Else it sleeps until its next line of progress is due.
        command.args(["-q", "-f", "0"]);
        command.arg("-c").arg("-s").arg(source).arg("-O").arg(to).arg("-L").arg(&log);
        let status = command.stdout(Stdio::null()).stderr(Stdio::null()).status();
        assert!(status.expect("package partclone").success(), "partclone");
    };
    let sync = || File::open(&out).and_then(|file| file.sync_all()).expect("synced");
    match what {
        What::Read => cat(Path::new("/dev/null")),
        What::Copy => {
            cat(&out);
            sync();
        }
        What::Hash => hash(used),
        What::PartcloneNull => partclone(Path::new("/dev/null")),
        What::PartcloneFile => {
            partclone(&out);
            sync();
        }
        What::Capture => drop(capture(source, &repository, "1", &[])),
        What::NotHashed => drop(capture(source, &repository, "1", &["--piece-hashes", "none"])),
        What::InPlace => drop(capture(source, &repository, "1", &["--payload", "reference"])),
    }
}

/// Removes the files of a run.
fn clear(folder: &Path) {
    let (out, repository) = (folder.join("out"), folder.join("repository"));
    if out.exists() {
        fs::remove_file(out).expect("removed");
    }
    if repository.exists() {
        fs::remove_dir_all(repository).expect("removed");
    }
}

/// Both hashes of `bytes` in all, in pieces, on all cores.
fn hash(bytes: u64) {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let piece = vec![0x5a; 4 << 20];
    let each = usize::try_from(bytes).expect("they fit into memory's addresses") / piece.len() / cores;
    std::thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(|| {
                for _ in 0..each {
                    std::hint::black_box((sha1(&piece), sha256(&piece)));
                }
            });
        }
    });
}
