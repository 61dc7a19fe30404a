//! The firmware's boot entries through efivarfs.
//!
//! Invariant: only `Boot####` variables that are not there yet, `BootOrder` and `BootNext` are written,
//! entries before the order that names them. Old entries are deleted first where the store is full, else
//! last. `boot::entries` decides the content.

use std::fs;
use std::io;
use std::path::Path;

use crate::boot::entries::{self, Changes, Present};

/// Where Linux shows the variables.
pub(crate) const EFIVARS: &str = "/sys/firmware/efi/efivars";
/// `EFI_GLOBAL_VARIABLE` (UEFI 2.10 §3.3).
const GLOBAL: &str = "8be4df61-93ca-11d2-aa0d-00e098032b8c";
/// Non-volatile, boot service and runtime access: the four bytes before the data.
const ATTRIBUTES: [u8; 4] = [7, 0, 0, 0];
/// No boot entry is larger.
const MAX_VARIABLE: u64 = 64 << 10;

/// Booted by UEFI, and the variables can be seen.
pub(crate) fn is_there(folder: &Path) -> bool {
    fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_some())
}

/// Reads the entries, their order and the entry that was started.
pub(crate) fn read(folder: &Path) -> io::Result<Present> {
    let mut present = Present::default();
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        let Some(name) = name.strip_suffix(&format!("-{GLOBAL}")) else { continue };
        let number = name.strip_prefix("Boot").filter(|digits| digits.len() == 4);
        if let Some(number) = number.and_then(|digits| u16::from_str_radix(digits, 16).ok())
            && let Some(data) = variable(folder, name)?
        {
            present.entries.push((number, data));
        }
    }
    present.entries.sort();
    let numbers =
        |data: Vec<u8>| data.as_chunks::<2>().0.iter().map(|n| u16::from_le_bytes(*n)).collect::<Vec<_>>();
    present.order = variable(folder, "BootOrder")?.map(numbers).unwrap_or_default();
    present.current = variable(folder, "BootCurrent")?.and_then(|data| numbers(data).first().copied());
    Ok(present)
}

/// A variable's data without its attributes; `None` if there is no such variable.
fn variable(folder: &Path, name: &str) -> io::Result<Option<Vec<u8>>> {
    let path = folder.join(format!("{name}-{GLOBAL}"));
    match fs::metadata(&path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Ok(metadata) if metadata.len() > MAX_VARIABLE => return Ok(None),
        _ => {}
    }
    let data = fs::read(path)?;
    Ok(data.get(ATTRIBUTES.len()..).map(<[u8]>::to_vec))
}

/// Writes new entries, then the order; reads each back. Then deletes old entries.
pub(crate) fn write(folder: &Path, changes: &Changes) -> io::Result<()> {
    for (number, data) in &changes.entries {
        let name = format!("Boot{number:04X}");
        if let Err(full) = set(folder, &name, data) {
            // Entries of systems that are gone make room.
            if remove(folder, &changes.removed) == 0 {
                return Err(full);
            }
            set(folder, &name, data)?;
        }
    }
    if let Some(order) = &changes.order {
        let data: Vec<u8> = order.iter().flat_map(|number| number.to_le_bytes()).collect();
        set(folder, "BootOrder", &data)?;
    }
    remove(folder, &changes.removed);
    Ok(())
}

/// Deletes entries, and returns how many. One that stays starts nothing, because its loader is gone.
fn remove(folder: &Path, numbers: &[u16]) -> usize {
    let gone = |number: &&u16| {
        let path = folder.join(format!("Boot{number:04X}-{GLOBAL}"));
        match fs::remove_file(&path) {
            Ok(()) => true,
            Err(e) if e.kind() == io::ErrorKind::NotFound => false,
            Err(e) => {
                log::warn!("deleting {}: {e}", path.display());
                false
            }
        }
    };
    numbers.iter().filter(gone).count()
}

/// Lets the firmware start the entry after the one that was started now, once. The answer is its number.
pub(crate) fn start_following(folder: &Path) -> io::Result<u16> {
    let next = entries::following(&read(folder)?).ok_or_else(|| {
        io::Error::other("the boot order has no disk after the entry that started this system")
    })?;
    set(folder, "BootNext", &next.to_le_bytes())?;
    Ok(next)
}

/// A variable is written with one call: efivarfs takes each write for a whole value.
fn set(folder: &Path, name: &str, data: &[u8]) -> io::Result<()> {
    let path = folder.join(format!("{name}-{GLOBAL}"));
    let said = |e: io::Error| io::Error::new(e.kind(), format!("writing the variable {name}: {e}"));
    fs::write(&path, [&ATTRIBUTES, data].concat()).map_err(said)?;
    if variable(folder, name).map_err(said)?.as_deref() != Some(data) {
        return Err(io::Error::other(format!("the firmware does not keep the variable {name}")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::boot::entries::plan;
    use crate::boot::option::{LoadOption, PartitionId};

    #[test]
    fn the_following_entry_is_started_once() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = |name: &str, data: &[u8]| {
            let bytes = [&[6, 0, 0, 0], data].concat();
            fs::write(folder.path().join(format!("{name}-{GLOBAL}")), bytes).expect("a file");
        };
        file("Boot0003", &[1, 0, 0, 0, 0, 0, 0, 0]);
        file("Boot0001", &[1, 0, 0, 0, 0, 0, 0, 0]);
        file("BootOrder", &[3, 0, 1, 0]);
        file("BootCurrent", &[3, 0]);
        assert_eq!(start_following(folder.path()).expect("written"), 1);
        assert_eq!(variable(folder.path(), "BootNext").expect("readable"), Some(vec![1, 0]));
        file("BootCurrent", &[1, 0]);
        assert!(start_following(folder.path()).is_err());
    }

    #[test]
    fn entries_and_order_are_written_and_read_again() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = |name: &str, data: &[u8]| {
            let bytes = [&[6, 0, 0, 0], data].concat();
            fs::write(folder.path().join(format!("{name}-{GLOBAL}")), bytes).expect("a file");
        };
        assert!(!is_there(folder.path()));
        file("Boot0003", &[9; 8]);
        file("BootOrder", &[3, 0]);
        file("BootCurrent", &[3, 0]);
        file("BootOptionSupport", &[0; 4]);
        assert!(is_there(folder.path()));
        let present = read(folder.path()).expect("readable");
        assert_eq!(present, Present { entries: vec![(3, vec![9; 8])], order: vec![3], current: Some(3) });
        let option = LoadOption {
            label: "lab".into(),
            partition: 1,
            first: 1,
            sectors: 1,
            id: PartitionId::Mbr([1, 2, 3, 4]),
            path: "\\a.efi".into(),
        };
        write(folder.path(), &plan(&present, std::slice::from_ref(&option), &[])).expect("written");
        let after = read(folder.path()).expect("readable");
        assert_eq!(after.order, [3, 0]);
        let changes = Changes { removed: vec![3, 9], order: Some(vec![0]), ..Changes::default() };
        write(folder.path(), &changes).expect("written");
        let now = read(folder.path()).expect("readable");
        assert_eq!((now.entries.len(), now.order), (1, vec![0]));
        assert_eq!(after.entries[0], (0, option.encode().expect("short")));
    }
}
