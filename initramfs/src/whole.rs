//! Files of the output folder, from which a lab boots.
//!
//! Invariant: after a power cut each has its old content or its new one. Its bytes are on the medium before
//! its name is, and its name before the program goes on.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result};

/// Writes a file, with the folders above it.
pub(crate) fn write(path: &Path, content: &[u8]) -> Result<()> {
    fs::create_dir_all(folder_of(path)?)
        .with_context(|| format!("making the folder of {}", path.display()))?;
    let half = path.with_extension("half");
    let written = File::create(&half).and_then(|mut file| file.write_all(content));
    written.with_context(|| format!("writing {}", half.display()))?;
    place(&half, path)
}

/// Gives the finished file `half`, of the same filesystem, its name.
pub(crate) fn place(half: &Path, path: &Path) -> Result<()> {
    let sync = |at: &Path| {
        let synced = File::open(at).and_then(|file| file.sync_all());
        synced.with_context(|| format!("syncing {}", at.display()))
    };
    sync(half)?;
    fs::rename(half, path).with_context(|| format!("naming {}", path.display()))?;
    sync(folder_of(path)?)
}

fn folder_of(path: &Path) -> Result<&Path> {
    let folder = path.parent().with_context(|| format!("{} has no folder", path.display()))?;
    Ok(if folder.as_os_str().is_empty() { Path::new(".") } else { folder })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_and_leaves_nothing_beside_it() {
        let dir = tempfile::tempdir().expect("temp");
        let file = dir.path().join("boot/vmlinuz");
        for content in [&b"a longer kernel"[..], b"kernel"] {
            write(&file, content).expect("written");
            assert_eq!(fs::read(&file).expect("there"), content);
        }
        assert_eq!(fs::read_dir(dir.path().join("boot")).expect("a folder").count(), 1);
    }

    #[test]
    fn a_file_of_this_folder_has_a_folder() {
        assert_eq!(folder_of(Path::new("vmlinuz")).expect("a folder"), Path::new("."));
    }
}
