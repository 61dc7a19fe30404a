//! Reads whole parts of a disk, and works on them on all cores meanwhile.
//!
//! Invariant: parts are begun in the order in which they are given. A rotating disk is read by one thread at
//! a time, so that its head moves in one direction and never waits for a processor; other disks get more
//! threads than there are cores. Memory is at most `room` bytes of buffers, or two of them.

use std::sync::Mutex;

use crate::buf::AlignedBuf;
use crate::io::storage::device::Disk;
use crate::storage::StorageError;
use crate::sync;

/// Threads for a rotating disk: one reads it, and slow processors may need two for the work.
const AT_ROTATING: usize = 3;
const MOST: usize = 16;

/// Limits of the buffers, in bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Buffers {
    /// Bytes of each: the longest part.
    pub length: usize,
    /// Bytes of all, if that is not less than two.
    pub room: usize,
}

/// For each of `parts`, lets `read` fill a buffer from its beginning (it returns the length), and `work`
/// process it, while `go_on` returns true.
pub(crate) fn scan<T: Sync>(
    disk: &Disk,
    buffers: Buffers,
    parts: &[T],
    go_on: impl Fn() -> bool + Sync,
    read: impl Fn(&T, &mut [u8]) -> Result<usize, StorageError> + Sync,
    work: impl Fn(&T, Result<&[u8], StorageError>) + Sync,
) {
    let next = Mutex::new(parts.iter());
    std::thread::scope(|scope| {
        for _ in 0..readers(disk.rotational(), buffers).min(parts.len()) {
            scope.spawn(|| {
                let mut buffer = AlignedBuf::zeroed(buffers.length);
                while go_on() {
                    let mut turn = sync::lock(&next);
                    let Some(part) = turn.next() else { return };
                    let turn = disk.rotational().then_some(turn);
                    let filled = read(part, &mut buffer);
                    drop(turn);
                    work(part, filled.map(|len| &buffer[..len.min(buffers.length)]));
                }
            });
        }
    });
}

/// So many threads read and work.
fn readers(rotational: bool, Buffers { length, room }: Buffers) -> usize {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let useful = if rotational { (cores + 1).min(AT_ROTATING) } else { (2 * cores).min(MOST) };
    useful.min(room / length.max(1)).max(2)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testkit::disks::LoopDisk;
    use std::sync::atomic::{AtomicBool, Ordering};

    #[test]
    fn every_part_is_read_once_whole_whatever_the_disk() {
        let bytes: Vec<u8> = (0..1u32 << 20).map(|i| (i / 512 % 251) as u8).collect();
        let loop_disk = LoopDisk::of(&bytes, 512);
        let parts: Vec<(u64, usize)> =
            (0..50).map(|i| (i * 20480, if i % 3 == 0 { 512 } else { 20480 })).collect();
        for rotational in [false, true] {
            let disk = Disk::open(&loop_disk.path, rotational).unwrap();
            let (begun, seen) = (Mutex::new(Vec::new()), Mutex::new(Vec::new()));
            let read = |(start, len): &(u64, usize), into: &mut [u8]| {
                begun.lock().unwrap().push((*start, *len));
                disk.read_at(*start, &mut into[..*len]).map(|()| *len)
            };
            let work = |part: &(u64, usize), read: Result<&[u8], StorageError>| {
                let start = usize::try_from(part.0).unwrap();
                assert!(read.unwrap() == &bytes[start..start + part.1], "{part:?}");
                seen.lock().unwrap().push(*part);
            };
            scan(&disk, Buffers { length: 20480, room: 1 << 20 }, &parts, || true, read, work);
            assert!(!rotational || begun.into_inner().unwrap() == parts, "in order");
            let mut seen = seen.into_inner().unwrap();
            seen.sort_unstable();
            assert_eq!(seen, parts);
        }
    }

    #[test]
    fn what_cannot_be_read_is_told_and_it_ends_when_it_shall() {
        let loop_disk = LoopDisk::of(&vec![1; 1 << 20], 512);
        let disk = Disk::open(&loop_disk.path, true).unwrap();
        let (stop, count) = (AtomicBool::new(false), Mutex::new((0, 0)));
        let read = |start: &u64, into: &mut [u8]| disk.read_at(*start, &mut into[..4096]).map(|()| 4096);
        let work = |_: &u64, read: Result<&[u8], StorageError>| {
            let mut count = count.lock().unwrap();
            match read {
                Ok(_) => {
                    count.0 += 1;
                    let many = count.0 > 100;
                    drop(count);
                    // The reader that has met the error says so as soon as it is scheduled.
                    while many && !stop.load(Ordering::SeqCst) {
                        std::thread::yield_now();
                    }
                }
                Err(_) => {
                    count.1 += 1;
                    stop.store(true, Ordering::SeqCst);
                }
            }
        };
        let starts = [vec![0, 4096, 2 << 20], vec![8192; 1000]].concat();
        let go_on = || !stop.load(Ordering::SeqCst);
        scan(&disk, Buffers { length: 4096, room: 1 << 20 }, &starts, go_on, read, work);
        let (good, bad) = count.into_inner().unwrap();
        assert_eq!(bad, 1);
        assert!(good < 1000, "it went on: {good}");
    }

    #[test]
    fn memory_is_bounded_and_two_can_always_work() {
        for length in [16 << 10, 4 << 20, 32 << 20, 100 << 20] {
            for rotational in [false, true] {
                let room = 64 << 20;
                let readers = readers(rotational, Buffers { length, room });
                assert!(readers >= 2 && (readers == 2 || readers * length <= room));
            }
        }
    }
}
