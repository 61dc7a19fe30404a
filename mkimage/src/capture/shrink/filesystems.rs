//! Shrinks filesystems by their own tools: e2fsck and resize2fs, ntfsresize, and the kernel's Btrfs.
//!
//! Invariant: a filesystem is checked before and after it is shrunk.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use flashmob::io::sysfs;

/// The kernel makes no Btrfs smaller than this (Linux, fs/btrfs/ioctl.c).
const LEAST_BTRFS: u64 = 256 << 20;
/// Exit code of e2fsck when it corrected something.
const CORRECTED: i32 = 1;

pub(super) fn is_known(filesystem: &str) -> bool {
    matches!(filesystem, "ext2" | "ext3" | "ext4" | "ntfs" | "btrfs")
}

/// The tools for one filesystem on a writable block device. All errors are for people.
pub(super) enum Tools<'a> {
    Ext(&'a Path),
    Ntfs(&'a Path),
    Btrfs(&'a Path),
}

impl<'a> Tools<'a> {
    pub(super) fn of(filesystem: &str, device: &'a Path) -> Self {
        match filesystem {
            "ntfs" => Tools::Ntfs(device),
            "btrfs" => Tools::Btrfs(device),
            _ => Tools::Ext(device),
        }
    }

    /// The fewest bytes that it can have, by its own estimate.
    pub(super) fn least(&self) -> Result<u64, String> {
        match self {
            Tools::Ext(device) => {
                check_ext(device)?;
                let said = run("resize2fs", "e2fsprogs", [OsStr::new("-P"), device.as_os_str()])?;
                let blocks = number_behind(&said, "minimum size of the filesystem:");
                let said = run("dumpe2fs", "e2fsprogs", [OsStr::new("-h"), device.as_os_str()])?;
                let size = number_behind(&said, "Block size:");
                let least = blocks.zip(size).and_then(|(blocks, size)| blocks.checked_mul(size));
                least.ok_or_else(|| "resize2fs does not say how small it can be".into())
            }
            Tools::Ntfs(device) => {
                let said = ntfsresize(&["--info"], device)?;
                let least = number_behind(&said, "You might resize at");
                least.ok_or_else(|| "ntfsresize does not say how small it can be".into())
            }
            Tools::Btrfs(device) => {
                let mount = Mount::of(device)?;
                let place = mount.folder.path().as_os_str();
                let said = run(
                    "btrfs",
                    "btrfs-progs",
                    [OsStr::new("inspect-internal"), OsStr::new("min-dev-size"), place],
                )?;
                let least = number_behind(&said, "");
                mount.end()?;
                least
                    .map(|least| least.max(LEAST_BTRFS))
                    .ok_or_else(|| "btrfs does not say how small it can be".into())
            }
        }
    }

    /// Makes it `size` bytes, a multiple of a mebibyte.
    pub(super) fn resize(&self, size: u64) -> Result<(), String> {
        match self {
            Tools::Ext(device) => {
                let kilobytes = format!("{}K", size >> 10);
                run("resize2fs", "e2fsprogs", [device.as_os_str(), OsStr::new(&kilobytes)])?;
                check_ext(device)
            }
            Tools::Ntfs(device) => {
                // Twice: no question. It marks the volume for a check by Windows, which ntfsfix takes back
                // once ntfsresize has counted all clusters again and found nothing.
                ntfsresize(&["--force", "--force", "--size", &size.to_string()], device)?;
                ntfsresize(&["--force", "--info"], device)?;
                run("ntfsfix", "ntfs-3g", [OsStr::new("--clear-dirty"), device.as_os_str()]).map(|_| ())
            }
            Tools::Btrfs(device) => {
                let mount = Mount::of(device)?;
                let (size, place) = (size.to_string(), mount.folder.path().as_os_str());
                run(
                    "btrfs",
                    "btrfs-progs",
                    [OsStr::new("filesystem"), OsStr::new("resize"), OsStr::new(&size), place],
                )?;
                mount.end()?;
                let check = [OsStr::new("check"), OsStr::new("--readonly"), device.as_os_str()];
                run("btrfs", "btrfs-progs", check).map(|_| ())
            }
        }
    }
}

fn check_ext(device: &Path) -> Result<(), String> {
    let ran = output("e2fsck", "e2fsprogs", [OsStr::new("-f"), OsStr::new("-p"), device.as_os_str()])?;
    match ran.status.code() {
        Some(code) if code <= CORRECTED => Ok(()),
        _ => Err(format!("e2fsck finds it damaged: {}", last_line(&ran))),
    }
}

fn ntfsresize(options: &[&str], device: &Path) -> Result<String, String> {
    let options = options.iter().map(OsStr::new);
    run("ntfsresize", "ntfs-3g", options.chain([OsStr::new("--no-progress-bar"), device.as_os_str()]))
}

/// A Btrfs that is mounted in a folder of its own.
struct Mount {
    folder: tempfile::TempDir,
    mounted: bool,
}

impl Mount {
    fn of(device: &Path) -> Result<Self, String> {
        let folder = tempfile::tempdir().map_err(|e| format!("there is no folder to mount it in: {e}"))?;
        let place = folder.path().as_os_str().to_owned();
        run("mount", "mount", [OsStr::new("-t"), OsStr::new("btrfs"), device.as_os_str(), &place])?;
        let mount = Mount { folder, mounted: true };
        // The kernel knows a Btrfs by its identity, which the golden disk's own has too.
        let text = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let real = fs::canonicalize(&place).unwrap_or_else(|_| PathBuf::from(&place));
        let found = sysfs::mounts(&text).find(|mount| Path::new(&mount.place) == real);
        match found {
            Some(found) if Path::new(&found.device) == device => Ok(mount),
            _ => Err("the same Btrfs is mounted elsewhere on this machine".into()),
        }
    }

    fn end(mut self) -> Result<(), String> {
        self.mounted = false;
        run("umount", "mount", [self.folder.path().as_os_str()]).map(|_| ())
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        if self.mounted
            && let Err(why) = run("umount", "mount", [self.folder.path().as_os_str()])
        {
            log::warn!("{why}");
        }
    }
}

/// The number behind these words.
fn number_behind(text: &str, words: &str) -> Option<u64> {
    let (_, rest) = text.split_once(words)?;
    let digits: String = rest.trim_start().chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}

/// Runs a program of `package` in English. Returns its output, or its last words if it fails.
pub(super) fn run<A: AsRef<OsStr>>(
    program: &str,
    package: &str,
    arguments: impl IntoIterator<Item = A>,
) -> Result<String, String> {
    let ran = output(program, package, arguments)?;
    if ran.status.success() {
        Ok(String::from_utf8_lossy(&ran.stdout).into_owned())
    } else {
        Err(format!("{program} says: {}", last_line(&ran)))
    }
}

fn output<A: AsRef<OsStr>>(
    program: &str,
    package: &str,
    arguments: impl IntoIterator<Item = A>,
) -> Result<std::process::Output, String> {
    let mut command = Command::new(program);
    let ran = command.args(arguments).env("LC_ALL", "C").stdin(std::process::Stdio::null()).output();
    ran.map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => format!("{program} is not installed (package {package})"),
        _ => format!("{program} cannot be run: {e}"),
    })
}

fn last_line(ran: &std::process::Output) -> String {
    let all = [&ran.stdout[..], b"\n", &ran.stderr].concat();
    let text = String::from_utf8_lossy(&all).into_owned();
    let last = text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("nothing");
    last.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_size_is_read_from_the_words_of_each_tool() {
        let ext = "resize2fs 1.47.0\nEstimated minimum size of the filesystem: 27319\n";
        assert_eq!(number_behind(ext, "minimum size of the filesystem:"), Some(27319));
        let ntfs = "Space in use : 2 MB\nYou might resize at 1888256 bytes or 2 MB (freeing 282 MB).\n";
        assert_eq!(number_behind(ntfs, "You might resize at"), Some(1_888_256));
        assert_eq!(number_behind("135266304 bytes (129.00MiB)\n", ""), Some(135_266_304));
        assert_eq!(number_behind("nothing", "You might resize at"), None);
        assert_eq!(number_behind("You might resize at most", "You might resize at"), None);
    }
}
