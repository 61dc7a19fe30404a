//! A source's state before it was read, to compare with its state afterwards.
//!
//! A file is known by its place on its filesystem, its size and the time of its last change; a block device
//! by its number, its size and its count of written sectors. Invariant: every write through the kernel in
//! between is noticed.

use std::fs::{self, File};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use flashmob::event::Failure;
use flashmob::io::sysfs;
use nix::sys::statfs::{FUSE_SUPER_MAGIC, statfs};
use nix::unistd::{Whence, lseek64};

use crate::keys::file_failure;

/// A view's present time is up to 2 s old: QEMU returns whole seconds, and the kernel keeps them for a
/// second. Kernel and QEMU count with clocks that advance in steps of some milliseconds, which the third
/// second covers.
const JUST_NOW: Duration = Duration::from_secs(3);

#[derive(Debug)]
pub(super) struct Seen {
    path: PathBuf,
    facts: Facts,
    /// The file behind a loop device.
    behind: Option<Box<Seen>>,
}

#[derive(Debug, PartialEq, Eq)]
struct Facts {
    /// Filesystem and number there, or the device's own number.
    identity: (u64, u64),
    size: u64,
    change: Change,
}

#[derive(Debug, PartialEq, Eq)]
enum Change {
    /// When a file was last written to: seconds and nanoseconds.
    At(i64, i64),
    /// Its filesystem returns the present time, as a view by QEMU does.
    Untold,
    /// Sectors of a block device that were written or discarded since it is there, if the kernel counts them.
    Sectors(Option<u64>),
}

impl Seen {
    /// Looks at a file or a block device.
    pub(super) fn look(path: &Path) -> Result<Self, Failure> {
        let cannot = |e: std::io::Error| file_failure("looking at", path, &e);
        let asked = SystemTime::now();
        let metadata = fs::metadata(path).map_err(cannot)?;
        let path = path.to_path_buf();
        if !metadata.file_type().is_block_device() {
            let change = match by_program(&path) && says_now(metadata.modified().ok(), asked) {
                true => Change::Untold,
                false => Change::At(metadata.mtime(), metadata.mtime_nsec()),
            };
            let identity = (metadata.dev(), metadata.ino());
            return Ok(Seen { path, facts: Facts { identity, size: metadata.len(), change }, behind: None });
        }
        let device = metadata.rdev();
        write_out(device);
        let file = File::open(&path).map_err(cannot)?;
        let size = lseek64(&file, 0, Whence::SeekEnd).map_err(|e| cannot(e.into()))?;
        let change = Change::Sectors(written(device));
        let facts = Facts { identity: (0, device), size: u64::try_from(size).unwrap_or(0), change };
        let behind = backing(device).map(|file| Seen::look(&file)).transpose()?.map(Box::new);
        Ok(Seen { path, facts, behind })
    }

    /// The file behind a loop device.
    pub(super) fn behind(&self) -> Option<&Path> {
        self.behind.as_ref().map(|behind| behind.path.as_path())
    }

    /// Looks again, and refuses a changed source.
    pub(super) fn refuse_changed(&self) -> Result<(), Failure> {
        let changed = |what: String| {
            Failure::retry(
                format!("{} changed while it was read: {what}", self.path.display()),
                "Capture it again while no other program writes to it.",
            )
        };
        let now = Seen::look(&self.path).map_err(|failure| changed(failure.message))?;
        let (then, now_facts) = (&self.facts, &now.facts);
        if now_facts.identity != then.identity {
            return Err(changed("another file or disk is there now".into()));
        }
        if now_facts.size != then.size {
            return Err(changed(format!("it had {} bytes, and has {}", then.size, now_facts.size)));
        }
        if now_facts.change != then.change && then.change != Change::Untold {
            return Err(changed(match (&then.change, &now_facts.change) {
                (Change::Sectors(Some(before)), Change::Sectors(Some(after))) => {
                    format!("{} sectors of it were written", after.wrapping_sub(*before))
                }
                _ => "it was written to".into(),
            }));
        }
        match (&self.behind, &now.behind) {
            (Some(before), Some(after)) if before.path == after.path => before.refuse_changed(),
            (None, None) => Ok(()),
            _ => Err(changed("another file lies behind the loop device".into())),
        }
    }
}

/// Is the file on a filesystem that is a program (FUSE)?
fn by_program(path: &Path) -> bool {
    statfs(path).is_ok_and(|fs| fs.filesystem_type() == FUSE_SUPER_MAGIC)
}

/// Was the file written when the kernel was `asked` for its time? Then its time says nothing. `asked` is read
/// before the question, because the answer does not get older on a machine that stalls afterwards.
fn says_now(modified: Option<SystemTime>, asked: SystemTime) -> bool {
    let age = modified.and_then(|time| asked.duration_since(time).ok());
    age.is_none_or(|age| age < JUST_NOW)
}

/// Makes the kernel write its buffers back, so that they count. A disk's partitions have separate buffers.
fn write_out(device: u64) {
    for numbers in sysfs::with_partitions(device) {
        let name = fs::read_to_string(format!("/sys/dev/block/{numbers}/uevent")).unwrap_or_default();
        let Some(name) = name.lines().find_map(|line| line.strip_prefix("DEVNAME=")) else { continue };
        if let Err(e) = File::open(Path::new("/dev").join(name)).and_then(|file| file.sync_all()) {
            log::info!("writing out /dev/{name}: {e}");
        }
    }
}

/// Sectors that were written and discarded (Linux, Documentation/block/stat.rst).
fn written(device: u64) -> Option<u64> {
    let text = fs::read_to_string(sysfs::folder(device).join("stat")).ok()?;
    let fields: Vec<&str> = text.split_whitespace().collect();
    let sectors = |at: usize| fields.get(at).and_then(|field| field.parse::<u64>().ok());
    Some(sectors(6)?.wrapping_add(sectors(13).unwrap_or_default()))
}

/// The file behind a loop device or a partition of one, unless it was removed.
fn backing(device: u64) -> Option<PathBuf> {
    let path = fs::read_to_string(sysfs::disk_folder(device).join("loop/backing_file")).ok()?;
    let path = PathBuf::from(path.trim_end_matches('\n'));
    let there = path.is_file();
    if !there {
        log::info!("the file behind {} is gone: {}", sysfs::numbers(device), path.display());
    }
    there.then_some(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use flashmob::event::Class;
    use std::os::unix::fs::FileExt;

    #[test]
    fn a_time_in_whole_seconds_that_the_kernel_kept_for_a_second_is_the_present() {
        let asked = SystemTime::now();
        for (age, present) in [(0, true), (1000, true), (2010, true), (3000, false), (60_000, false)] {
            assert_eq!(says_now(Some(asked - Duration::from_millis(age)), asked), present, "{age} ms");
        }
        assert!(says_now(Some(asked + Duration::from_secs(1)), asked), "a clock that is ahead");
        assert!(says_now(None, asked));
    }

    #[test]
    fn a_file_that_was_written_replaced_cut_off_or_removed_meanwhile_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("disk");
        let changed = |what: &str, change: &dyn Fn()| {
            fs::write(&path, vec![1; 4096]).expect("written");
            // Long ago: two changes at the same moment could have the same time.
            let long_ago = SystemTime::now() - Duration::from_secs(1000);
            File::open(&path).and_then(|file| file.set_modified(long_ago)).expect("its time");
            let seen = Seen::look(&path).expect("seen");
            seen.refuse_changed().expect("nothing happened");
            change();
            let failure = seen.refuse_changed().expect_err("it changed");
            assert_eq!(failure.class, Class::Retry);
            assert!(failure.message.contains(what), "{what}: {}", failure.message);
        };
        let open = || File::options().write(true).open(&path).expect("opened");
        changed("it was written to", &|| open().write_all_at(b"x", 5).expect("written"));
        changed("it had 4096 bytes, and has 512", &|| open().set_len(512).expect("cut off"));
        changed("another file", &|| {
            let other = folder.path().join("other");
            fs::copy(&path, &other).expect("copied");
            fs::rename(&other, &path).expect("renamed");
        });
        changed("No such file", &|| fs::remove_file(&path).expect("removed"));
    }
}
