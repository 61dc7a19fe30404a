//! Firmware files that drivers ask for: found in the modules themselves, taken where the machine has them.
//!
//! Invariant: a firmware file that is not there is reported and never an error; most drivers work without.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Firmware found for a set of modules.
#[derive(Debug, Default)]
pub(crate) struct Firmware {
    /// Files by their name under `/lib/firmware`.
    pub files: BTreeMap<String, PathBuf>,
    /// Modules and how many of the files they name are missing (of how many).
    pub missing: BTreeMap<String, (usize, usize)>,
}

impl Firmware {
    /// Looks in `folder` for the firmware that the module `name` with `content` asks for.
    pub(crate) fn add(&mut self, name: &str, content: &[u8], folder: &Path) {
        let wanted = wanted_by(content);
        let mut absent = 0;
        for file in &wanted {
            let path = folder.join(file);
            if path.is_file() {
                self.files.insert(file.clone(), path);
            } else {
                absent += 1;
            }
        }
        if absent > 0 {
            self.missing.insert(name.to_string(), (absent, wanted.len()));
        }
    }
}

/// The `firmware=` entries of a module's `.modinfo`: strings that end in NUL, each after another's NUL.
fn wanted_by(module: &[u8]) -> BTreeSet<String> {
    const KEY: &[u8] = b"\0firmware=";
    let mut found = BTreeSet::new();
    let mut rest = module;
    while let Some(at) = rest.windows(KEY.len()).position(|window| window == KEY) {
        rest = &rest[at + KEY.len()..];
        let end = rest.iter().position(|byte| *byte == 0).unwrap_or(rest.len());
        if let Ok(name) = std::str::from_utf8(&rest[..end])
            && is_plain(name)
        {
            found.insert(name.to_string());
        }
    }
    found
}

/// A relative path of plain characters, as kernels ask for, that stays inside the folder.
fn is_plain(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with('/')
        && name.split('/').all(|part| part != "..")
        && name.bytes().all(|b| b.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use super::*;

    const MODULE: &[u8] = b"\x7fELF\0license=GPL\0firmware=rtl_nic/a.fw\0firmware=../etc/x\0firmware=b.bin\0";

    #[test]
    fn firmware_is_taken_where_it_is_and_reported_where_it_is_not() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("rtl_nic")).unwrap();
        std::fs::write(dir.path().join("rtl_nic/a.fw"), b"x").unwrap();
        let mut firmware = Firmware::default();
        firmware.add("r8169", MODULE, dir.path());
        firmware.add("plain", b"\0license=GPL\0", dir.path());
        assert_eq!(firmware.files.keys().collect::<Vec<_>>(), ["rtl_nic/a.fw"]);
        assert_eq!(firmware.missing, BTreeMap::from([("r8169".to_string(), (1, 2))]));
    }

    #[test]
    fn a_name_that_leaves_the_folder_is_never_asked_for() {
        assert!(!wanted_by(MODULE).contains("../etc/x"));
    }
}
