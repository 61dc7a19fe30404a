//! Enrols the organisation's keys of Secure Boot where the firmware is in Setup Mode. The administrator asked
//! for it by building the keys into the initramfs.
//!
//! Invariant: nothing is written unless all three updates are understood, the firmware is in Setup Mode, and
//! Microsoft's certificates are in its `db` or in ours (or the administrator did without them). `db` and
//! `KEK` are read back before the next one is written. Certificates that are there stay.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::fcntl::OFlag;

use crate::boot::secure::{IN_ORDER, KeyVariable, certificates, is_microsofts, payload};
use crate::io::sys;

/// `SetupMode` of `EFI_GLOBAL_VARIABLE` (UEFI 2.10 §3.3): four bytes of attributes, then one byte.
const SETUP_MODE: &str = "SetupMode-8be4df61-93ca-11d2-aa0d-00e098032b8c";
/// Bytes of a variable's attributes before its data.
const ATTRIBUTES: usize = 4;
/// No update is larger.
const MAX_UPDATE: u64 = 64 << 10;
/// A file with this name beside the updates lets the firmware do without Microsoft's certificates.
pub const WITHOUT_MICROSOFT: &str = "without-microsoft";

/// The file of an update, `db.auth` for example.
pub fn file_of(variable: KeyVariable) -> String {
    format!("{}.auth", variable.name())
}

/// The updates of the three variables, in their order.
pub struct Updates {
    updates: [Vec<u8>; 3],
    without_microsoft: bool,
}

impl Updates {
    /// Reads and checks the updates in `folder`; `None` if there is no such folder.
    pub fn read(folder: &Path) -> io::Result<Option<Self>> {
        if !folder.exists() {
            return Ok(None);
        }
        let mut updates: [Vec<u8>; 3] = Default::default();
        for (update, variable) in updates.iter_mut().zip(IN_ORDER) {
            let path = folder.join(file_of(variable));
            let said = |why: &dyn std::fmt::Display| io::Error::other(format!("{}: {why}", path.display()));
            if fs::metadata(&path).map_err(|e| said(&e))?.len() > MAX_UPDATE {
                return Err(said(&"it is too large"));
            }
            *update = fs::read(&path).map_err(|e| said(&e))?;
            payload(update).map_err(|e| said(&e))?;
        }
        Ok(Some(Updates { updates, without_microsoft: folder.join(WITHOUT_MICROSOFT).exists() }))
    }

    /// Whether Microsoft's certificates are in the update of `db`, or are not wanted.
    pub fn keep_microsoft(&self) -> bool {
        let own = payload(&self.updates[0]).and_then(certificates);
        self.without_microsoft || own.is_ok_and(|own| own.into_iter().any(is_microsofts))
    }
}

/// The firmware's variables.
pub(crate) trait Variables {
    /// A variable's signature lists; empty if there is no such variable.
    fn lists(&self, variable: KeyVariable) -> io::Result<Vec<u8>>;
    fn update(&mut self, variable: KeyVariable, update: &[u8]) -> io::Result<()>;
    fn in_setup_mode(&self) -> bool;
}

/// What became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Enrolled {
    /// The firmware has an owner's key already.
    NotInSetupMode,
    Done,
}

/// Enrols the keys.
pub(crate) fn enrol(updates: &Updates, variables: &mut impl Variables) -> io::Result<Enrolled> {
    if !variables.in_setup_mode() {
        return Ok(Enrolled::NotInSetupMode);
    }
    if !updates.keep_microsoft() {
        let there = variables.lists(KeyVariable::Db)?;
        let there = certificates(&there).map_err(|e| io::Error::other(format!("the firmware's db: {e}")))?;
        if !there.into_iter().any(is_microsofts) {
            return Err(io::Error::other(
                "Microsoft's certificates are neither in the firmware's db nor in ours: Windows, shim and \
                 graphics cards would not start. Nothing was written",
            ));
        }
    }
    for (variable, update) in IN_ORDER.into_iter().zip(&updates.updates) {
        if !has(variables, variable, update)? {
            variables.update(variable, update)?;
            if !has(variables, variable, update)? {
                return Err(io::Error::other(format!("the firmware does not keep {}", variable.name())));
            }
        }
    }
    Ok(Enrolled::Done)
}

/// Are all certificates of `update` in the variable?
fn has(variables: &impl Variables, variable: KeyVariable, update: &[u8]) -> io::Result<bool> {
    let said = |why: &dyn std::fmt::Display| io::Error::other(format!("{}: {why}", variable.name()));
    let there = variables.lists(variable).map_err(|e| said(&e))?;
    let there = certificates(&there).map_err(|e| said(&e))?;
    let wanted = payload(update).and_then(certificates).map_err(|e| said(&e))?;
    Ok(wanted.iter().all(|certificate| there.contains(certificate)))
}

/// The variables that Linux shows in this folder.
pub(crate) struct Efivars<'a>(pub(crate) &'a Path);

impl Efivars<'_> {
    fn path(&self, variable: KeyVariable) -> std::path::PathBuf {
        self.0.join(format!("{}-{}", variable.name(), variable.vendor()))
    }
}

impl Variables for Efivars<'_> {
    fn lists(&self, variable: KeyVariable) -> io::Result<Vec<u8>> {
        match fs::read(self.path(variable)) {
            Ok(data) => Ok(data.get(ATTRIBUTES..).unwrap_or_default().to_vec()),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(e) => Err(e),
        }
    }

    fn update(&mut self, variable: KeyVariable, update: &[u8]) -> io::Result<()> {
        let path = self.path(variable);
        let said = |e: io::Error| io::Error::new(e.kind(), format!("writing {}: {e}", variable.name()));
        match File::open(&path) {
            // Linux protects variables that firmware may not start without.
            Ok(file) => sys::clear_immutable(&file).map_err(said)?,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(said(e)),
        }
        // No truncation: efivarfs takes each write for a whole value, or for an addition.
        let flags = (OFlag::O_CREAT | OFlag::O_CLOEXEC).bits();
        let mut file = fs::OpenOptions::new().write(true).custom_flags(flags).open(&path).map_err(said)?;
        let data = [&variable.attributes().to_le_bytes()[..], update].concat();
        // One call, because the kernel hands each write to the firmware.
        let written = io::Write::write(&mut file, &data).map_err(said)?;
        if written != data.len() {
            return Err(said(io::ErrorKind::WriteZero.into()));
        }
        Ok(())
    }

    fn in_setup_mode(&self) -> bool {
        fs::read(self.0.join(SETUP_MODE)).is_ok_and(|data| data.get(ATTRIBUTES) == Some(&1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::boot::secure::lists_of;
    use std::collections::BTreeMap;

    const MICROSOFT: &[u8] = b"O=Microsoft Corporation, CN=Microsoft UEFI CA 2023";

    fn lists(certificates: &[&[u8]]) -> Vec<u8> {
        lists_of([1; 16], &certificates.iter().map(|one| one.to_vec()).collect::<Vec<_>>()).expect("short")
    }

    fn signed(lists: &[u8]) -> Vec<u8> {
        let guid =
            [0x9d, 0xd2, 0xaf, 0x4a, 0xdf, 0x68, 0xee, 0x49, 0x8a, 0xa9, 0x34, 0x7d, 0x37, 0x56, 0x65, 0xa7];
        [&[0; 16][..], &[28, 0, 0, 0, 0x00, 0x02, 0xf1, 0x0e], &guid, b"sign", lists].concat()
    }

    fn updates(db: &[&[u8]], without_microsoft: bool) -> Updates {
        let updates = [signed(&lists(db)), signed(&lists(&[b"kek"])), signed(&lists(&[b"pk"]))];
        Updates { updates, without_microsoft }
    }

    /// A firmware in memory that does as UEFI says.
    #[derive(Default)]
    struct Fake {
        variables: BTreeMap<&'static str, Vec<u8>>,
        written: Vec<&'static str>,
        forgets: Option<KeyVariable>,
    }

    impl Variables for Fake {
        fn lists(&self, variable: KeyVariable) -> io::Result<Vec<u8>> {
            Ok(self.variables.get(variable.name()).cloned().unwrap_or_default())
        }

        fn update(&mut self, variable: KeyVariable, update: &[u8]) -> io::Result<()> {
            self.written.push(variable.name());
            if self.forgets != Some(variable) {
                let lists = payload(update).expect("an update");
                self.variables.entry(variable.name()).or_default().extend(lists);
            }
            Ok(())
        }

        fn in_setup_mode(&self) -> bool {
            !self.variables.contains_key("PK")
        }
    }

    #[test]
    fn keys_are_enrolled_in_order_and_those_that_are_there_stay() {
        let mut firmware = Fake::default();
        firmware.variables.insert("db", lists(&[MICROSOFT]));
        let updates = updates(&[b"school"], false);
        assert_eq!(enrol(&updates, &mut firmware).expect("enrolled"), Enrolled::Done);
        assert_eq!(firmware.written, ["db", "KEK", "PK"]);
        let db = firmware.lists(KeyVariable::Db).expect("there");
        assert_eq!(certificates(&db), Ok(vec![MICROSOFT, b"school"]));
        assert_eq!(enrol(&updates, &mut firmware).expect("read"), Enrolled::NotInSetupMode);
        assert_eq!(firmware.written.len(), 3, "a machine with an owner is left alone");
    }

    #[test]
    fn after_a_power_cut_only_the_rest_is_written() {
        let mut firmware = Fake::default();
        firmware.variables.insert("db", lists(&[MICROSOFT, b"school"]));
        enrol(&updates(&[b"school"], false), &mut firmware).expect("enrolled");
        assert_eq!(firmware.written, ["KEK", "PK"]);
    }

    #[test]
    fn without_microsofts_certificates_nothing_is_written_unless_the_administrator_does_without_them() {
        let mut firmware = Fake::default();
        let error = enrol(&updates(&[b"school"], false), &mut firmware).expect_err("refused").to_string();
        assert!(error.contains("Microsoft's certificates") && firmware.written.is_empty(), "{error}");
        enrol(&updates(&[b"school", MICROSOFT], false), &mut firmware).expect("ours has them");
        enrol(&updates(&[b"school"], true), &mut Fake::default()).expect("not wanted");
    }

    #[test]
    fn a_firmware_that_keeps_nothing_gets_no_owner() {
        let mut firmware = Fake { forgets: Some(KeyVariable::Kek), ..Fake::default() };
        let error = enrol(&updates(&[MICROSOFT], false), &mut firmware).expect_err("not kept").to_string();
        assert!(error.contains("does not keep KEK"), "{error}");
        assert_eq!(firmware.written, ["db", "KEK"]);
    }

    #[test]
    fn updates_are_read_whole_or_not_at_all() {
        let folder = tempfile::tempdir().expect("a folder");
        assert!(Updates::read(&folder.path().join("none")).expect("absent").is_none());
        let put = |name: &str, data: &[u8]| fs::write(folder.path().join(name), data).expect("written");
        put("db.auth", &signed(&lists(&[b"school"])));
        put("KEK.auth", &signed(&lists(&[b"kek"])));
        assert!(Updates::read(folder.path()).err().expect("no PK").to_string().contains("PK.auth"));
        put("PK.auth", b"garbage");
        assert!(Updates::read(folder.path()).is_err());
        put("PK.auth", &signed(&lists(&[b"pk"])));
        assert!(!Updates::read(folder.path()).expect("read").expect("there").keep_microsoft());
        put(WITHOUT_MICROSOFT, b"");
        assert!(Updates::read(folder.path()).expect("read").expect("there").keep_microsoft());
    }

    #[test]
    fn a_variable_gets_its_attributes_and_the_update_in_one_write() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut efivars = Efivars(folder.path());
        assert!(!efivars.in_setup_mode() && efivars.lists(KeyVariable::Db).expect("absent").is_empty());
        fs::write(folder.path().join(SETUP_MODE), [6, 0, 0, 0, 1]).expect("written");
        assert!(efivars.in_setup_mode());
        efivars.update(KeyVariable::Db, b"update").expect("written");
        let file = folder.path().join("db-d719b2cb-3d3a-4596-a3bc-dad00e67656f");
        assert_eq!(fs::read(&file).expect("there"), b"\x67\0\0\0update");
        efivars.update(KeyVariable::Pk, b"update").expect("written");
        let file = folder.path().join("PK-8be4df61-93ca-11d2-aa0d-00e098032b8c");
        assert_eq!(fs::read(&file).expect("there"), b"\x27\0\0\0update");
        assert_eq!(efivars.lists(KeyVariable::Pk).expect("there"), b"update");
    }
}
