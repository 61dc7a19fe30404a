//! The server's disks: room, and the speed at which an image can be read.

use std::fs::OpenOptions;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sys::statvfs::statvfs;

use super::finding::Finding;
use crate::buf::BufPool;
use crate::units::show_bytes;

const CHECK: &str = "disk";
/// The database, its backup and its log fit into this.
const STATE: u64 = 256 << 20;
/// What the seeder of a lab with gigabit links needs, in bytes a second.
const GIGABIT: u64 = 110_000_000;
/// Bytes of one read.
const STEP: usize = 4 << 20;
/// Less than this says nothing about a disk.
const SAMPLE: u64 = 16 << 20;
/// How long reading may take.
const BRIEF: Duration = Duration::from_secs(1);

pub(super) struct Facts {
    /// Free bytes at the images and at the state.
    images: (PathBuf, Result<u64, String>),
    state: (PathBuf, Result<u64, String>),
    /// Bytes a second from a payload, past the page cache.
    rate: Option<Result<u64, String>>,
}

pub(super) fn facts(images: &Path, state: &Path, payload: Option<PathBuf>) -> Facts {
    let room = |path: &Path| {
        // A state folder that the first start will make: its nearest parent counts.
        let there = path.ancestors().find(|path| path.exists()).unwrap_or(path);
        let free = statvfs(there).map(|fs| fs.blocks_available().saturating_mul(fs.fragment_size()));
        (path.to_path_buf(), free.map_err(|e| e.to_string()))
    };
    let rate =
        payload.and_then(|file| read_rate(&file).map_err(|e| format!("{}: {e}", file.display())).transpose());
    Facts { images: room(images), state: room(state), rate }
}

/// Reads the beginning of a file past the page cache, for a second at most. `None` for a small file.
fn read_rate(file: &Path) -> std::io::Result<Option<u64>> {
    let file = OpenOptions::new().read(true).custom_flags(libc::O_DIRECT).open(file)?;
    let pool = BufPool::new(STEP, 1);
    let mut buffer = pool.take().ok_or_else(|| std::io::Error::other("no memory"))?;
    let (begin, mut read) = (Instant::now(), 0u64);
    while begin.elapsed() < BRIEF {
        let length = file.read_at(&mut buffer, read)?;
        read += length as u64;
        if length < STEP {
            break;
        }
    }
    let micros = u64::try_from(begin.elapsed().as_micros()).unwrap_or(u64::MAX).max(1);
    Ok((read >= SAMPLE).then(|| read.saturating_mul(1_000_000) / micros))
}

pub(super) fn findings(facts: &Facts) -> Vec<Finding> {
    let mut found = Vec::new();
    for ((path, free), least) in [(&facts.images, 0), (&facts.state, STATE)] {
        let shown = path.display();
        found.push(match free {
            Err(why) => Finding::warning(CHECK, format!("{shown}: {why}"), "Name the right folder."),
            Ok(free) if *free < least => Finding::error(
                CHECK,
                format!("{shown} has {} free", show_bytes(*free)),
                format!("The server's state needs {}: free some space.", show_bytes(least)),
            ),
            Ok(free) => Finding::ok(CHECK, format!("{shown} has {} free", show_bytes(*free))),
        });
    }
    found.extend(facts.rate.as_ref().map(|rate| match rate {
        Err(why) => Finding::warning(CHECK, format!("reading an image: {why}"), "Look at that disk (dmesg)."),
        Ok(rate) if *rate < GIGABIT => Finding::warning(
            CHECK,
            format!("images are read at {}/s: less than one gigabit link carries", show_bytes(*rate)),
            "The swarm starts slowly; an SSD for the repository, or more memory, helps.",
        ),
        Ok(rate) => Finding::ok(CHECK, format!("images are read at {}/s", show_bytes(*rate))),
    }));
    found
}

#[cfg(test)]
mod tests {
    use super::super::finding::Level;
    use super::*;

    #[test]
    fn a_full_disk_is_an_error_and_a_slow_one_a_warning() {
        let with = |free, rate| {
            let facts = Facts {
                images: ("/srv/images".into(), Ok(0)),
                state: ("/var/lib/flashmob".into(), Ok(free)),
                rate: Some(Ok(rate)),
            };
            findings(&facts).iter().map(|finding| finding.level).collect::<Vec<_>>()
        };
        assert_eq!(with(1 << 30, 500_000_000), [Level::Ok; 3], "a full repository still serves");
        assert_eq!(with(1 << 20, 60_000_000), [Level::Ok, Level::Error, Level::Warning]);
    }

    #[test]
    fn the_room_of_a_state_that_is_not_there_yet_is_that_of_its_parent() {
        let folder = tempfile::tempdir().expect("a folder");
        let facts = facts(folder.path(), &folder.path().join("not/yet"), None);
        assert!(facts.state.1.is_ok_and(|free| free > 0));
    }
}
