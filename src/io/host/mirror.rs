//! A log in a file of the machine's memory, from which the next worker reads what the one before it did.
//!
//! Invariant: two files, together at most twice [`LIMIT`] and a line. No error stops the caller; without the
//! file, only a crash takes the log away.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// Bytes after which the file is put aside, and the one that lay there before is deleted.
const LIMIT: u64 = 128 << 10;

/// An attempt that is under way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Unfinished {
    /// The server's address.
    pub server: String,
    pub attempt: u64,
    pub token: String,
}

#[derive(Debug)]
pub(crate) struct Mirror {
    path: PathBuf,
    file: File,
    written: u64,
}

impl Mirror {
    /// Opens the file at `path`, and reads what is there.
    pub(crate) fn open(path: &Path) -> io::Result<(Self, String)> {
        let read = |path: &Path| fs::read(path).map(|text| String::from_utf8_lossy(&text).into_owned());
        let before = read(&aside(path)).unwrap_or_default() + &read(path).unwrap_or_default();
        let file = open(path)?;
        let written = file.metadata()?.len();
        Ok((Mirror { path: path.to_owned(), file, written }, before))
    }

    /// Adds text.
    pub(crate) fn append(&mut self, text: &str) {
        if self.written >= LIMIT
            && fs::rename(&self.path, aside(&self.path)).is_ok()
            && let Ok(file) = open(&self.path)
        {
            (self.file, self.written) = (file, 0);
        }
        // Memory that is full takes the log away first.
        if self.written < LIMIT && self.file.write_all(text.as_bytes()).is_ok() {
            self.written += text.len() as u64;
        }
    }

    /// Keeps the attempt that is under way, or forgets it.
    pub(crate) fn keep(&self, attempt: Option<&Unfinished>) -> io::Result<()> {
        let path = self.path.with_extension("attempt");
        let Some(attempt) = attempt else {
            return match fs::remove_file(path) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
                _ => Ok(()),
            };
        };
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
        file.write_all(&serde_json::to_vec(attempt)?)
    }

    /// The attempt that was under way when the last worker ended.
    pub(crate) fn unfinished(&self) -> Option<Unfinished> {
        serde_json::from_slice(&fs::read(self.path.with_extension("attempt")).ok()?).ok()
    }
}

/// Adds text from another process, when no worker runs.
pub(crate) fn append(path: &Path, text: &str) -> io::Result<()> {
    open(path)?.write_all(text.as_bytes())
}

fn aside(path: &Path) -> PathBuf {
    path.with_extension("old")
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o600).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_goes_on_where_it_ended_and_keeps_its_newest_lines() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let line = |n: u32| format!("{n:099}\n");
        for half in [0..4000, 4000..8000u32] {
            let (mut mirror, _) = Mirror::open(&path).unwrap();
            half.for_each(|n| mirror.append(&line(n)));
        }
        let (_, text) = Mirror::open(&path).unwrap();
        let all = text.len() as u64;
        assert!((LIMIT..=2 * LIMIT + 100).contains(&all), "{all}");
        let lines: Vec<&str> = text.lines().collect();
        let first: u32 = lines[0].parse().unwrap();
        assert!((first..8000).map(line).collect::<String>() == text, "the newest, without a gap");
    }

    #[test]
    fn only_this_user_may_read_the_attempts_token() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let (mirror, _) = Mirror::open(&folder.path().join("log")).unwrap();
        let attempt = Unfinished { server: "http://s".into(), attempt: 3, token: "t".into() };
        mirror.keep(Some(&attempt)).unwrap();
        let mode = fs::metadata(folder.path().join("log.attempt")).unwrap().permissions().mode();
        assert_eq!((mode & 0o777, mirror.unfinished()), (0o600, Some(attempt)));
        mirror.keep(None).unwrap();
        mirror.keep(None).unwrap();
        assert_eq!(mirror.unfinished(), None);
    }
}
