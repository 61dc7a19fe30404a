//! The machine's consoles.
//!
//! Invariant: a console that cannot be written to never stops the work. `agent` decides the content.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

use crate::io::sys;

#[derive(Debug)]
pub(crate) struct Console {
    file: File,
    /// Kernel name: `tty0`, `ttyS0`, `hvc0`.
    pub name: String,
}

impl Console {
    /// True for a screen, false for a line such as a serial port, which logs may be attached to.
    pub(crate) fn is_screen(&self) -> bool {
        self.name.strip_prefix("tty").is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
    }

    /// Columns and rows; 80 × 25 where the console does not know.
    pub(crate) fn size(&self) -> (usize, usize) {
        match sys::window_size(&self.file) {
            Ok((columns, rows)) if columns > 0 && rows > 0 => (columns.into(), rows.into()),
            _ => (80, 25),
        }
    }

    /// Writes all of `text`.
    pub(crate) fn write(&mut self, text: &str) -> io::Result<()> {
        self.file.write_all(text.as_bytes())
    }
}

/// All consoles that the kernel writes to (`console=` on its command line decides).
pub(crate) fn open_all() -> Vec<Console> {
    let active = fs::read_to_string("/sys/class/tty/console/active").unwrap_or_default();
    let mut consoles = open_below(Path::new("/dev"), &active);
    if consoles.is_empty()
        && let Ok(file) = OpenOptions::new().write(true).open("/dev/console")
    {
        consoles.push(Console { file, name: "console".into() });
    }
    consoles
}

fn open_below(dev: &Path, active: &str) -> Vec<Console> {
    let open = |name: &str| OpenOptions::new().write(true).open(dev.join(name));
    active
        .split_whitespace()
        .filter_map(|name| Some(Console { file: open(name).ok()?, name: name.to_owned() }))
        .collect()
}

/// Keeps the kernel's own messages below errors off the screens; the log still has them.
pub(crate) fn quiet_kernel() -> io::Result<()> {
    fs::write("/proc/sys/kernel/printk", "4")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn consoles_that_exist_are_opened_and_screens_are_told_from_lines() {
        let dev = tempfile::tempdir().unwrap();
        for name in ["tty0", "ttyS0", "hvc0"] {
            fs::write(dev.path().join(name), "").unwrap();
        }
        let mut consoles = open_below(dev.path(), "tty0 ttyS0 hvc0 ttyUSB0\n");
        let kinds: Vec<_> = consoles.iter().map(|c| (c.name.as_str(), c.is_screen())).collect();
        assert_eq!(kinds, [("tty0", true), ("ttyS0", false), ("hvc0", false)]);
        assert_eq!(consoles[0].size(), (80, 25));
        consoles[1].write("hello").unwrap();
        assert_eq!(fs::read_to_string(dev.path().join("ttyS0")).unwrap(), "hello");
    }
}
