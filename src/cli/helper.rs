//! `flashmob helper`: writes the helpers that go into golden images.
//!
//! Invariant: the files are those of `src/packaging/helper`, of the same version as this program. A folder
//! with other files in it is not touched.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use clap::Args;

use crate::event::Failure;

/// Write the helpers for golden images: a Debian package, and scripts for Windows.
///
/// A helper sets the host name at the first start of an imaged terminal, runs the administrator's scripts and
/// tells the server that the system has started (docs/identity.md).
#[derive(Debug, Args)]
pub struct HelperArgs {
    /// A new or empty folder.
    folder: PathBuf,
}

/// A file of a helper: its path, its mode and its content.
type HelperFile = (&'static str, u32, &'static str);

macro_rules! text {
    ($path:literal) => {
        include_str!(concat!("../packaging/helper/", $path))
    };
}

/// The folder from which the Debian package is made.
const DEBIAN: [HelperFile; 8] = [
    ("DEBIAN/control", 0o644, text!("linux/DEBIAN/control")),
    ("DEBIAN/postinst", 0o755, text!("linux/DEBIAN/postinst")),
    ("DEBIAN/prerm", 0o755, text!("linux/DEBIAN/prerm")),
    ("usr/lib/flashmob/first-start", 0o755, text!("linux/first-start")),
    (
        "usr/lib/systemd/system/flashmob-first-start.service",
        0o644,
        text!("linux/flashmob-first-start.service"),
    ),
    ("usr/lib/systemd/system/flashmob-booted.service", 0o644, text!("linux/flashmob-booted.service")),
    ("usr/share/doc/flashmob-helper/identity.md", 0o644, include_str!("../../docs/identity.md")),
    ("usr/share/doc/flashmob-helper/copyright", 0o644, include_str!("../../LICENSE")),
];

const WINDOWS: [HelperFile; 3] = [
    ("flashmob-first-start.ps1", 0o644, text!("windows/flashmob-first-start.ps1")),
    ("SetupComplete.cmd", 0o644, text!("windows/SetupComplete.cmd")),
    ("unattend-snippet.xml", 0o644, text!("windows/unattend-snippet.xml")),
];

const PACKAGE: &str = "flashmob-helper.deb";

pub fn run(args: &HelperArgs) -> Result<(), Failure> {
    let folder = &args.folder;
    let failed = |what: &Path, e: &io::Error| {
        Failure::refused(format!("{}: {e}", what.display()), "Name a folder that can be written.")
    };
    fs::create_dir_all(folder).map_err(|e| failed(folder, &e))?;
    if fs::read_dir(folder).map_err(|e| failed(folder, &e))?.next().is_some() {
        let what = format!("{} has files in it", folder.display());
        return Err(Failure::refused(what, "Name a new folder: nothing is written over."));
    }
    let debian = folder.join("debian");
    write(&debian, &DEBIAN, "\n")
        .and_then(|()| fs::create_dir_all(debian.join("etc/flashmob/first-start.d")))
        .map_err(|e| failed(&debian, &e))?;
    let windows = folder.join("windows");
    write(&windows, &WINDOWS, "\r\n").map_err(|e| failed(&windows, &e))?;
    let package = folder.join(PACKAGE);
    let built =
        Command::new("dpkg-deb").args(["--root-owner-group", "--build"]).arg(&debian).arg(&package).output();
    match built {
        Ok(output) if output.status.success() => println!("Debian and Ubuntu: {}", package.display()),
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr).trim().to_string();
            return Err(Failure::refused(format!("dpkg-deb: {said}"), "Look at the folder's file system."));
        }
        Err(_) => println!(
            "There is no dpkg-deb here. On a Debian: dpkg-deb --root-owner-group --build {} {PACKAGE}",
            debian.display()
        ),
    }
    println!("Windows: the files in {}", windows.display());
    println!("docs/identity.md says what to do with them on the golden machine.");
    Ok(())
}

/// Writes these files; their lines end with `end`, because cmd.exe reads scripts reliably only with CR LF.
fn write(folder: &Path, files: &[HelperFile], end: &str) -> io::Result<()> {
    for (path, mode, content) in files {
        let path = folder.join(path);
        path.parent().map_or(Ok(()), fs::create_dir_all)?;
        fs::write(&path, content.replace("@VERSION@", env!("CARGO_PKG_VERSION")).replace('\n', end))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(*mode))?;
    }
    Ok(())
}
