//! ntfsresize for the agent: Debian's program with the libraries that it loads, taken from this machine.
//!
//! Invariant: every file lies in the initramfs where the dynamic loader of this machine finds it.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};

use crate::archive::Tree;
use crate::tools::{command, find, run};

const PROGRAM: &str = "ntfsresize";
/// Where the agent looks for it.
const PLACE: &str = "sbin/ntfsresize";

/// Adds them. Returns their bytes.
pub(crate) fn add(tree: &mut Tree) -> Result<u64> {
    let program = find(PROGRAM)?;
    let listed = run(command("ldd")?.arg(&program), "listing the libraries of ntfsresize")?;
    let listed = String::from_utf8(listed.stdout).context("the libraries of ntfsresize")?;
    let libraries = libraries(&listed)?;
    let read = |path: &PathBuf| std::fs::read(path).with_context(|| format!("reading {}", path.display()));
    let content = read(&program)?;
    let mut bytes = content.len();
    tree.program(PLACE, content);
    for path in libraries {
        let content = read(&path)?;
        bytes += content.len();
        let place = path.to_str().with_context(|| format!("{} is not text", path.display()))?;
        tree.program(place, content);
    }
    Ok(u64::try_from(bytes)?)
}

/// The files that ldd names, by absolute paths; the kernel's own library has none.
fn libraries(listed: &str) -> Result<Vec<PathBuf>> {
    if let Some(missing) = listed.lines().find(|line| line.contains("not found")) {
        bail!("a library of ntfsresize is missing: {}", missing.trim());
    }
    let paths = listed.lines().filter_map(|line| {
        let path = line.split_whitespace().find(|word| word.starts_with('/'))?;
        Some(PathBuf::from(path))
    });
    let paths: Vec<PathBuf> = paths.collect();
    match paths.is_empty() {
        true => bail!("ldd names no library of ntfsresize: {}", listed.trim()),
        false => Ok(paths),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::process::Stdio;

    #[test]
    fn the_program_runs_with_nothing_but_the_files_that_are_added() {
        let mut tree = Tree::default();
        let bytes = add(&mut tree).expect("ntfsresize of package ntfs-3g");
        assert!(bytes > 1 << 20, "{bytes}");
        let folder = tempfile::tempdir().expect("a folder");
        let root = folder.path();
        let mut unpack = command("cpio").expect("there");
        unpack.args(["--extract", "--quiet", "--directory"]).arg(root).stdin(Stdio::piped());
        let mut unpack = unpack.spawn().expect("it starts");
        let archive = tree.to_cpio().expect("an archive");
        unpack.stdin.take().expect("its input").write_all(&archive).expect("all of it");
        assert!(unpack.wait().expect("it ends").success());
        // It asks there whether its device is mounted; on a terminal the agent has mounted it.
        std::fs::create_dir(root.join("proc")).expect("a folder");
        std::fs::write(root.join("proc/mounts"), "").expect("written");
        let volume = root.join("volume");
        std::fs::File::create(&volume).and_then(|file| file.set_len(64 << 20)).expect("a file");
        run(command("mkntfs").expect("there").args(["-q", "-F", "-Q"]).arg(&volume), "making it")
            .expect("made");
        let mut chroot = command("chroot").expect("there");
        let ran = chroot.arg(root).args(["/sbin/ntfsresize", "--info", "/volume"]);
        let said = run(ran, "looking at a volume").expect("it runs");
        let said = String::from_utf8_lossy(&said.stdout).into_owned();
        assert!(said.contains("You might resize at"), "{said}");
    }

    #[test]
    fn ldd_names_the_libraries_and_the_loader_or_what_is_missing() {
        let listed = "\tlinux-vdso.so.1 (0x00007ffd3e5f2000)\n\
                      \tlibntfs-3g.so.89 => /lib/x86_64-linux-gnu/libntfs-3g.so.89 (0x00007f)\n\
                      \t/lib64/ld-linux-x86-64.so.2 (0x00007f55)\n";
        let found = libraries(listed).expect("found");
        let expected = ["/lib/x86_64-linux-gnu/libntfs-3g.so.89", "/lib64/ld-linux-x86-64.so.2"];
        assert_eq!(found, expected.map(PathBuf::from));
        let error = libraries("\tlibntfs-3g.so.89 => not found\n").expect_err("missing").to_string();
        assert!(error.contains("libntfs-3g.so.89"), "{error}");
        assert!(libraries("\tnot a dynamic executable\n").is_err());
    }
}
