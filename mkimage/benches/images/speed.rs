//! How long a capture takes, beside reading the same source with `cat` and beside partclone, in turn.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};

use super::volume::{Kind, Volume, stage};
use super::{Content, capture, folder};

#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    content: Content,
    /// Turns.
    #[arg(long, default_value_t = 3)]
    runs: usize,
    /// The source may be in the machine's memory: then processors count and not the disk.
    #[arg(long)]
    warm: bool,
}

const WHAT: [&str; 5] = [
    "cat SOURCE >/dev/null",
    "partclone -c -O /dev/null",
    "partclone -c -O FILE, synced",
    "capture",
    "capture, not hashed",
];

pub fn run(arguments: &Arguments) {
    let folder = folder(&arguments.content);
    let staged = folder.path().join("staged");
    stage(&arguments.content.tree, &staged, arguments.content.size);
    let size = arguments.content.size + arguments.content.size / 8;
    let mut volume = Volume::make(Kind::Ext4, folder.path(), size).expect("ext4 can be mounted");
    volume.add(&staged);
    fs::remove_dir_all(&staged).expect("removed");
    let used = volume.used();
    println!("ext4 of {} MiB, {} MiB in use, {} turns", size >> 20, used >> 20, arguments.runs);
    let mut times = vec![Vec::new(); WHAT.len()];
    for turn in 0..arguments.runs {
        for (number, times) in times.iter_mut().enumerate() {
            settle(&volume.image, arguments.warm);
            let begun = Instant::now();
            once(number, &volume.image, folder.path());
            times.push(begun.elapsed().as_secs_f64());
            eprintln!("{turn}: {} {:.2} s", WHAT[number], times[turn]);
        }
    }
    println!("| | best s | middle s | MB/s in use | ÷ cat | ÷ partclone to a file |");
    println!("|---|---|---|---|---|---|");
    let middle = |times: &[f64]| {
        let mut sorted = times.to_vec();
        sorted.sort_by(f64::total_cmp);
        (sorted[0], sorted[sorted.len() / 2])
    };
    let ((cat, _), (partclone, _)) = (middle(&times[0]), middle(&times[2]));
    for (what, times) in WHAT.iter().zip(&times) {
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

fn once(number: usize, source: &Path, folder: &Path) {
    let (out, log, repository) = (folder.join("out"), folder.join("log"), folder.join("repository"));
    let partclone = |to: &Path| {
        let mut command = Command::new("partclone.extfs");
        command.arg("-c").arg("-s").arg(source).arg("-O").arg(to).arg("-L").arg(&log);
        let status = command.stdout(Stdio::null()).stderr(Stdio::null()).status();
        assert!(status.expect("package partclone").success(), "partclone");
    };
    match number {
        0 => {
            let status = Command::new("cat").arg(source).stdout(Stdio::null()).status();
            assert!(status.expect("cat").success());
        }
        1 => partclone(Path::new("/dev/null")),
        2 => {
            partclone(&out);
            File::open(&out).and_then(|file| file.sync_all()).expect("synced");
            fs::remove_file(&out).expect("removed");
        }
        3 => drop(capture(source, &repository, "1", &[])),
        _ => drop(capture(source, &repository, "1", &["--piece-hashes", "none"])),
    }
    if repository.exists() {
        fs::remove_dir_all(&repository).expect("removed");
    }
}
