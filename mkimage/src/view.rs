//! Virtual disks (qcow2, vhdx, vmdk, vdi, vhd) as the bytes that a machine would see, without converting
//! them, and disks that an NBD server lends: QEMU's storage daemon shows one as a file, by FUSE, read-only or
//! with an overlay that takes the writes.
//!
//! Invariant: dropping the value ends the daemon and its file. QEMU takes its own locks, so a disk that a
//! running machine writes to is refused. QEMU is told the format and never probes; it opens only the named
//! file (`format` refuses disks that would need another).

use std::ffi::OsString;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use flashmob::event::Failure;

use crate::format::Format;

/// How long the daemon may take to show a disk.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long it may take to end.
const END: Duration = Duration::from_secs(10);

/// A virtual disk that is shown.
#[derive(Debug)]
pub(crate) struct View {
    daemon: Child,
    folder: tempfile::TempDir,
}

impl View {
    /// Shows the disk at `path`.
    pub(crate) fn show(path: &Path, format: Format) -> Result<Self, Failure> {
        let file = joined("driver=file,node-name=file,read-only=on,filename=", path);
        Self::of_nodes([file, node(format).into()], false).map_err(|what| {
            Failure::refused(
                format!("{} is a virtual disk ({}), and {what}", path.display(), format.name()),
                "Install qemu-system-common and run as root, shut down the machine that uses the disk, or \
                 convert it with `qemu-img convert -O raw`.",
            )
        })
    }

    /// Shows an export of the NBD server on a Unix socket.
    pub(crate) fn show_export(socket: &Path, export: &str) -> Result<Self, Failure> {
        Self::of_export(socket, export).map_err(|what| {
            Failure::refused(
                format!("a disk on the network is read with QEMU's help, and {what}"),
                "Install qemu-system-common (and qemu-block-extra, if it is there) and run as root.",
            )
        })
    }

    /// The same. The error is for people, and says only what went wrong with QEMU.
    pub(crate) fn of_export(socket: &Path, export: &str) -> Result<Self, String> {
        let options =
            format!("driver=nbd,node-name=disk,read-only=on,export={export},server.type=unix,server.path=");
        Self::of_nodes([joined(&options, socket)], false)
    }

    /// Shows the bytes of `base`, a file or block device that is only read, and takes writes, which go to
    /// `overlay`, an empty qcow2 of the same size. The error is for people.
    pub(crate) fn overlay(base: &Path, overlay: &Path) -> Result<Self, String> {
        let is_device = fs::metadata(base).is_ok_and(|metadata| metadata.file_type().is_block_device());
        let driver = if is_device { "host_device" } else { "file" };
        let below = format!("driver={driver},node-name=below,read-only=on,filename=");
        let nodes = [
            joined(&below, base),
            "driver=raw,node-name=base,read-only=on,file=below".into(),
            joined("driver=file,node-name=above,filename=", overlay),
            "driver=qcow2,node-name=disk,file=above,backing=base".into(),
        ];
        Self::of_nodes(nodes, true)
    }

    /// Shows the node `disk` of these nodes. The error is for people.
    fn of_nodes<const N: usize>(nodes: [OsString; N], writable: bool) -> Result<Self, String> {
        let no_room = |e: std::io::Error| format!("there is no room for a view of it: {e}");
        let folder = tempfile::tempdir().map_err(no_room)?;
        let place = folder.path().join("disk");
        File::create(&place).map_err(no_room)?;
        let said = folder.path().join("said");
        let log = File::create(&said).map_err(no_room)?;
        // A capture that is killed takes the daemon along (setpriv of util-linux).
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "TERM", "--", "qemu-storage-daemon"]);
        for node in nodes {
            command.arg("--blockdev").arg(node);
        }
        let writable = if writable { "on" } else { "off" };
        let export = format!("type=fuse,id=view,node-name=disk,writable={writable},mountpoint=");
        command.arg("--export").arg(joined(&export, &place));
        let daemon = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn();
        let daemon = daemon.map_err(|e| format!("qemu-storage-daemon cannot be run: {e}"))?;
        let own = fs::metadata(folder.path()).map(|m| m.dev()).unwrap_or_default();
        let mut view = View { daemon, folder };
        let begun = Instant::now();
        loop {
            if fs::metadata(&place).is_ok_and(|m| m.dev() != own) {
                return Ok(view);
            }
            if !matches!(view.daemon.try_wait(), Ok(None)) || begun.elapsed() > PATIENCE {
                let said = fs::read_to_string(&said).unwrap_or_default();
                let last = said.lines().last().unwrap_or("it does not come up").to_owned();
                return Err(format!("QEMU cannot show it: {last}"));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Where the disk's bytes are.
    pub(crate) fn path(&self) -> PathBuf {
        self.folder.path().join("disk")
    }
}

impl Drop for View {
    fn drop(&mut self) {
        let ended = |daemon: &mut Child| matches!(daemon.try_wait(), Ok(Some(_)));
        if let Ok(pid) = i32::try_from(self.daemon.id()) {
            // It takes its view away itself.
            let _ =
                nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGTERM);
        }
        let begun = Instant::now();
        while !ended(&mut self.daemon) && begun.elapsed() < END {
            std::thread::sleep(Duration::from_millis(10));
        }
        if !ended(&mut self.daemon) {
            log::warn!("qemu-storage-daemon did not end by itself");
            let _ = self.daemon.kill();
            let _ = self.daemon.wait();
        }
    }
}

/// QEMU's node for the file. A format with backing files is opened without one.
fn node(format: Format) -> String {
    let alone = if format.has_backing() { r#","backing":null"# } else { "" };
    let driver = format.driver();
    format!(r#"{{"driver":"{driver}","node-name":"disk","read-only":true,"file":"file"{alone}}}"#)
}

/// QEMU's options end at a comma; one inside a name is doubled.
fn joined(option: &str, path: &Path) -> OsString {
    let mut text = option.as_bytes().to_vec();
    for byte in path.as_os_str().as_bytes() {
        text.push(*byte);
        if *byte == b',' {
            text.push(b',');
        }
    }
    OsString::from(std::ffi::OsStr::from_bytes(&text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commas_in_names_are_doubled() {
        assert_eq!(joined("a=", Path::new("/x,y")), OsString::from("a=/x,,y"));
    }
}
