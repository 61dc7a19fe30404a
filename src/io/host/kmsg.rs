//! The kernel's log, record by record.
//!
//! Invariant: a thread of its own reads it, which ends with the process; records that were overwritten before
//! they were read are skipped. `agent::journal` chooses among them.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::time::Duration;

use nix::errno::Errno;
use nix::time::{ClockId, clock_gettime};

/// Longest record (`CONSOLE_EXT_LOG_MAX` in the kernel).
const LONGEST: usize = 8192;

/// Time since the machine's start, as the kernel's log counts it.
pub(crate) fn since_start() -> Duration {
    clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(Duration::ZERO, Duration::from)
}

/// Tells each record of the kernel's log: all since the machine's start, or those from now on.
pub(crate) fn follow(from_start: bool, mut tell: impl FnMut(&str) + Send + 'static) -> io::Result<()> {
    let mut log = File::open("/dev/kmsg")?;
    if !from_start {
        log.seek(SeekFrom::End(0))?;
    }
    std::thread::Builder::new().name("kernel-log".into()).spawn(move || read(log, &mut tell))?;
    Ok(())
}

/// Each read gives one record.
fn read(mut log: impl Read, tell: &mut impl FnMut(&str)) {
    let mut record = vec![0; LONGEST];
    loop {
        match log.read(&mut record) {
            Ok(0) => return,
            Ok(length) => tell(&String::from_utf8_lossy(&record[..length])),
            // EPIPE: the next record was overwritten, and the kernel goes on with the oldest one.
            Err(e) if [Some(Errno::EPIPE as i32), Some(Errno::EINTR as i32)].contains(&e.raw_os_error()) => {}
            Err(_) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Log(Vec<io::Result<&'static str>>);

    impl Read for Log {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            match self.0.pop() {
                None => Ok(0),
                Some(record) => record?.as_bytes().read(buffer),
            }
        }
    }

    #[test]
    fn records_that_were_overwritten_are_skipped() {
        let gone = || Err(io::Error::from_raw_os_error(Errno::EPIPE as i32));
        let mut heard = Vec::new();
        read(Log(vec![Ok("6,3,3,-;c"), gone(), Ok("6,1,1,-;a")]), &mut |record: &str| {
            heard.push(record.to_owned());
        });
        assert_eq!(heard, ["6,1,1,-;a", "6,3,3,-;c"]);
    }
}
