//! Duties of a machine's first process: mounts, checks of its own files, reaping, the end.
//!
//! Invariant: the list of mounts is data ([`MOUNTS`]). `agent::init` decides what to run and when to stop.

use std::convert::Infallible;
use std::fs;
use std::io;
use std::path::Path;

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sys::reboot::{RebootMode, reboot};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;

/// A filesystem the system needs.
struct Mount {
    kind: &'static str,
    target: &'static str,
    flags: MsFlags,
    options: &'static str,
    /// Mounted only when this exists.
    when: Option<&'static str>,
}

const PROC: &str = "/proc";
const QUIET: MsFlags = MsFlags::MS_NOSUID.union(MsFlags::MS_NODEV).union(MsFlags::MS_NOEXEC);

/// Everything that is mounted at the start, in this order.
const MOUNTS: [Mount; 6] = [
    Mount { kind: "proc", target: PROC, flags: QUIET, options: "", when: None },
    Mount { kind: "sysfs", target: "/sys", flags: QUIET, options: "", when: None },
    Mount { kind: "devtmpfs", target: "/dev", flags: MsFlags::MS_NOSUID, options: "mode=0755", when: None },
    Mount { kind: "tmpfs", target: "/run", flags: QUIET, options: "mode=0755,size=16m", when: None },
    Mount { kind: "tmpfs", target: "/tmp", flags: QUIET, options: "mode=1777,size=16m", when: None },
    EFIVARS,
];

/// The firmware's variables; needs a driver, so it is tried again once drivers are loaded.
const EFIVARS: Mount = Mount {
    kind: "efivarfs",
    target: "/sys/firmware/efi/efivars",
    flags: QUIET,
    options: "",
    when: Some("/sys/firmware/efi/efivars"),
};

/// Mounts all of [`MOUNTS`], and sets the reaction to a kernel panic as soon as `/proc` exists. Returns
/// problems, for people; the firmware's variables may appear later.
pub(crate) fn mount_all() -> Vec<String> {
    let mut problems = Vec::new();
    for m in &MOUNTS {
        match mount_one(m) {
            Ok(()) if m.target == PROC => {
                if let Err(e) = restart_after_panic(Path::new(PROC)) {
                    problems.push(format!("the machine stays as it is if the kernel panics: {e}"));
                }
            }
            Ok(()) => {}
            Err(Errno::ENODEV) if m.when.is_some() => {}
            Err(e) => problems.push(format!("cannot mount {} on {}: {e}", m.kind, m.target)),
        }
    }
    problems
}

/// Makes the kernel restart the machine 10 s after a panic, and treat an oops as a panic, because a terminal
/// in a locked room must not hang until an administrator comes. `proc` is where `/proc` is mounted.
fn restart_after_panic(proc: &Path) -> io::Result<()> {
    // The delay first: an oops between the two writes already ends in a restart if it panics.
    fs::write(proc.join("sys/kernel/panic"), "10")?;
    fs::write(proc.join("sys/kernel/panic_on_oops"), "1")
}

/// Mounts the firmware's variables, once their driver is loaded. Fine where the firmware has none.
pub(crate) fn mount_efivars() -> io::Result<()> {
    Ok(mount_one(&EFIVARS)?)
}

fn mount_one(m: &Mount) -> nix::Result<()> {
    if m.when.is_some_and(|path| !Path::new(path).exists()) {
        return Ok(());
    }
    // Where the folder cannot be made, the mount says why.
    let _ = fs::create_dir_all(m.target);
    match mount(Some(m.kind), m.target, Some(m.kind), m.flags, Some(m.options)) {
        // Mounted already, by the kernel for example.
        Ok(()) | Err(Errno::EBUSY) => Ok(()),
        Err(e) => Err(e),
    }
}

/// Keeps idle connections at their previous speed (tcp(7), `tcp_slow_start_after_idle`): a terminal sends to
/// one peer after another, and each transfer would begin slowly again.
pub fn keep_pace_after_idle() -> io::Result<()> {
    fs::write("/proc/sys/net/ipv4/tcp_slow_start_after_idle", "0")
}

/// Files that are missing or have another size than the list says (lines of `SIZE  PATH`), below `root`. A
/// machine with too little memory unpacks its initramfs partly and boots it without saying so.
pub(crate) fn incomplete_files(list: &str, root: &Path) -> Vec<String> {
    let mut wrong = Vec::new();
    for line in list.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#')) {
        let Some((size, path)) = line.trim().split_once(char::is_whitespace) else {
            wrong.push(format!("unreadable line '{line}' in the list of files"));
            continue;
        };
        let path = path.trim();
        let file = root.join(path.trim_start_matches(['.', '/']));
        let is = fs::symlink_metadata(&file).map(|m| m.len());
        match (size.parse::<u64>(), is) {
            (Ok(size), Ok(is)) if size == is => {}
            (Ok(size), Ok(is)) => wrong.push(format!("{path} has {is} of {size} bytes")),
            (Ok(_), Err(e)) => wrong.push(format!("{path}: {e}")),
            (Err(_), _) => wrong.push(format!("unreadable line '{line}' in the list of files")),
        }
    }
    wrong
}

/// How a child ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// By itself, with this status.
    Exited(i32),
    Signalled(i32),
}

/// Waits until the process `child` ends, reaping every other process that ends meanwhile (a first process
/// inherits all orphans).
pub(crate) fn reap_until(child: u32) -> io::Result<End> {
    loop {
        let (pid, end) = match waitpid(None::<Pid>, None) {
            Ok(WaitStatus::Exited(pid, status)) => (pid, End::Exited(status)),
            Ok(WaitStatus::Signaled(pid, signal, _)) => (pid, End::Signalled(signal as i32)),
            Ok(_) | Err(Errno::EINTR) => continue,
            Err(e) => return Err(e.into()),
        };
        if u32::try_from(pid.as_raw()) == Ok(child) {
            return Ok(end);
        }
    }
}

/// The machine's next state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PowerOff {
    /// Through the firmware.
    Restart,
    /// Not at all.
    Off,
    /// With the kernel that was loaded.
    Kexec,
}

/// Syncs and ends this system. Comes back only with the reason why that was refused.
pub fn end(how: PowerOff) -> io::Error {
    nix::unistd::sync();
    let mode = match how {
        PowerOff::Restart => RebootMode::RB_AUTOBOOT,
        PowerOff::Off => RebootMode::RB_POWER_OFF,
        PowerOff::Kexec => RebootMode::RB_KEXEC,
    };
    let refused: nix::Result<Infallible> = reboot(mode);
    match refused {
        Ok(never) => match never {},
        Err(e) => e.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_cut_or_missing_is_named() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("whole"), "12345").unwrap();
        fs::write(root.path().join("cut file"), "123").unwrap();
        let list = "# sizes\n5  /whole\n5  ./cut file\n7  gone\nx\n";
        let wrong = incomplete_files(list, root.path());
        assert_eq!(wrong.len(), 3, "{wrong:?}");
        assert_eq!(wrong[0], "./cut file has 3 of 5 bytes");
        assert!(wrong[1].starts_with("gone: "), "{wrong:?}");
        assert!(incomplete_files("5 /whole\n", root.path()).is_empty());
    }

    #[test]
    fn a_kernel_that_panics_or_oopses_restarts_the_machine() {
        let proc = tempfile::tempdir().unwrap();
        assert!(restart_after_panic(proc.path()).is_err(), "it says so where it cannot be set");
        let kernel = proc.path().join("sys/kernel");
        fs::create_dir_all(&kernel).unwrap();
        restart_after_panic(proc.path()).unwrap();
        let set = |name: &str| fs::read_to_string(kernel.join(name)).unwrap();
        assert_eq!((set("panic").as_str(), set("panic_on_oops").as_str()), ("10", "1"));
        assert_eq!(MOUNTS[0].target, PROC, "nothing that may crash comes before");
    }

    #[test]
    fn a_childs_end_is_told_as_it_was() {
        // One test for both: reaping takes any child of this process.
        let sh = |script: &str| std::process::Command::new("sh").args(["-c", script]).spawn().unwrap().id();
        if std::env::var_os("FLASHMOB_REAP_TEST").is_some() {
            assert_eq!(reap_until(sh("exit 7")).unwrap(), End::Exited(7));
            assert_eq!(reap_until(sh("kill -9 $$")).unwrap(), End::Signalled(9));
            return;
        }
        // In another process, so that children of other tests are left alone.
        let this = std::env::current_exe().unwrap();
        let status = std::process::Command::new(this)
            .args(["--exact", "io::host::init::tests::a_childs_end_is_told_as_it_was"])
            .env("FLASHMOB_REAP_TEST", "1")
            .stdout(std::process::Stdio::null())
            .status()
            .unwrap();
        assert!(status.success());
    }
}
