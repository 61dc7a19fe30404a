//! SELinux labels of new files and folders.
//!
//! Invariant: on a system without SELinux nothing gets a label. A label that may not be the policy's makes
//! the system label all files anew at its first start.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::AsFd;

use nix::fcntl::OFlag;

use super::{NEW, Root};
use crate::io::sys;

impl Root {
    /// Gives a new file or folder of this folder a label if the system has SELinux. The kernel of this
    /// program has no policy that would give it one, and one without a label is closed to nearly all
    /// programs.
    pub(super) fn label(&self, new: &impl AsFd, name: &str) -> io::Result<()> {
        let Some(own) = sys::label_of(&self.folder)? else { return Ok(()) };
        // What lies beside it has the same purpose, if all of that has one label.
        let is_other = |other: &String| ![".", "..", NEW, name].contains(&other.as_str());
        let is_folder = self.is_folder(name);
        let mut beside = BTreeSet::new();
        for other in self.names(".")?.into_iter().filter(is_other) {
            let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
            if self.is_folder(&other) == is_folder
                && let Ok(other) = self.open_at(&other, flags)
            {
                beside.extend(sys::label_of(&other)?);
            }
        }
        match (beside.len(), beside.pop_first()) {
            (1, Some(label)) => sys::set_label(new, &label),
            // Most policies give what is in a folder the folder's label.
            (0, _) => sys::set_label(new, &own),
            _ => {
                self.guessed.set(true);
                sys::set_label(new, &own)
            }
        }
    }

    /// Lets the system label all files anew at its first start if a label was guessed (selinux(8)). False:
    /// that is not needed.
    pub(in super::super) fn relabel(&self) -> io::Result<bool> {
        if !self.guessed.get() {
            return Ok(false);
        }
        self.open_at(".autorelabel", OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_NOFOLLOW)?;
        Ok(true)
    }
}
