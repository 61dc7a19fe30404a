//! Runs the Debian programs that this program needs, and names the package when one is missing.
//!
//! Invariant: an exit status other than 0 is an error with the program's output.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context, Result, bail};

/// Programs and the Debian package each comes from.
const PACKAGES: &[(&str, &str)] = &[
    ("apt-cache", "apt"),
    ("apt-get", "apt"),
    ("depmod", "kmod"),
    ("dpkg", "dpkg"),
    ("grub-mkimage", "grub-common"),
    ("grub-mkrescue", "grub-common"),
    ("ldd", "libc-bin"),
    ("mcopy", "mtools"),
    ("mformat", "mtools"),
    ("mmd", "mtools"),
    ("ntfsresize", "ntfs-3g"),
    ("openssl", "openssl"),
    ("sbsign", "sbsigntool"),
    ("sbvarsign", "sbsigntool"),
    ("sbverify", "sbsigntool"),
    ("tar", "tar"),
    ("xorriso", "xorriso"),
    ("xz", "xz-utils"),
    ("zstd", "zstd"),
];

/// Folders that are searched beside `PATH`, because a root shell may lack the sbin ones.
const SBIN: &[&str] = &["/usr/local/sbin", "/usr/sbin", "/sbin"];

/// A command for `program`, or an error that names its package.
pub(crate) fn command(program: &str) -> Result<Command> {
    Ok(Command::new(find(program)?))
}

/// Where `program` lies, or an error that names its package.
pub(crate) fn find(program: &str) -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path)
        .chain(SBIN.iter().map(PathBuf::from))
        .map(|folder| folder.join(program))
        .find(|candidate| candidate.is_file());
    match found {
        Some(path) => Ok(path),
        None => {
            let package = PACKAGES.iter().find(|(name, _)| *name == program).map_or(program, |(_, p)| p);
            bail!("the program {program} is missing; install it with: apt-get install {package}")
        }
    }
}

/// Runs `command` to its end; errors describe the step as `what`.
pub(crate) fn run(command: &mut Command, what: &str) -> Result<Output> {
    let output = command.output().with_context(|| format!("{what}: cannot start {command:?}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{what}: {:?} ended with {}: {}", command.get_program(), output.status, said.trim());
    }
    Ok(output)
}

/// `path` if it is a file, or an error that names the Debian package it comes from.
pub(crate) fn file_of_package(path: &str, package: &str) -> Result<PathBuf> {
    let path = Path::new(path);
    if path.is_file() {
        return Ok(path.to_path_buf());
    }
    bail!("{} is missing; install it with: apt-get install {package}", path.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_program_is_reported_with_its_package() {
        let error = find("flashmob-no-such-program").unwrap_err().to_string();
        assert!(error.contains("apt-get install"), "{error}");
    }

    #[test]
    fn a_failed_program_is_an_error_with_its_words() {
        let error = run(Command::new("sh").args(["-c", "echo broken >&2; exit 3"]), "trying").unwrap_err();
        assert!(error.to_string().contains("broken"), "{error}");
    }
}
