//! Frames: pieces compressed with zstd, made and undone.
//!
//! ```text
//!   owner task ──jobs (≤ frames_ahead)──► frame thread 0..n ──► storage (reads)
//!       ▲                                       │
//!       └────── Done::Framed (one for each) ◄───┘
//! ```
//!
//! Invariant: a frame is undone into exactly the bytes of its piece or not at all, in memory that is there
//! already: what a peer sends as a frame can make us allocate nothing. Threads that compress keep nobody
//! waiting: what they cannot do in time travels as it is.

use std::io;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use memmap2::MmapMut;
use tokio::sync::mpsc::UnboundedSender;
use zstd::bulk::{Compressor, Decompressor};

use super::diskio::Done;
use crate::api::Compress;
use crate::io::hash::PieceHash;
use crate::storage::Storage;
use crate::units::PieceIndex;

/// zstd's own default. Less is hardly faster, and more costs four times as much for one percent (measured on
/// /usr).
const LEVEL: i32 = 3;
/// Frames that a seeder has made ahead of its offers, and a terminal, which mostly passes on what it
/// received.
const AHEAD: [usize; 2] = [4, 1];
/// A core must undo frames at so many times the link's rate: twice, because what was compressed becomes more,
/// and half as much again because it has hashes and the network to look after as well.
const MARGIN: u64 = 3;
/// The link's rate where it is not known, as in virtual machines: 1 Gbit/s.
const USUAL_LINK: u64 = 125_000_000;
/// What is measured with, and for how long.
const SAMPLE: usize = 512 << 10;
const MEASURING: Duration = Duration::from_millis(8);

/// Makes frames.
pub struct Packer(Compressor<'static>);

impl Packer {
    /// Fails when there is no memory.
    pub fn new() -> io::Result<Self> {
        Compressor::new(LEVEL).map(Packer)
    }

    /// The frame of `piece`; `None` if it is longer than `at_most`.
    pub fn pack(&mut self, piece: &[u8], at_most: usize) -> Option<Bytes> {
        let mut frame = Vec::with_capacity(at_most);
        self.0.compress_to_buffer(piece, &mut frame).ok()?;
        frame.shrink_to_fit();
        Some(frame.into())
    }
}

/// Undoes frames.
pub struct Unpacker(Decompressor<'static>);

impl Unpacker {
    /// Fails when there is no memory.
    pub fn new() -> io::Result<Self> {
        Decompressor::new().map(Unpacker)
    }

    /// Fills `piece` from `frame`. False if that is no frame of exactly so many bytes; what `piece` holds
    /// then is unspecified.
    pub fn unpack(&mut self, frame: &[u8], piece: &mut [u8]) -> bool {
        self.0.decompress_to_buffer(frame, piece).is_ok_and(|len| len == piece.len())
    }
}

/// What this machine does about frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// It takes them.
    pub takes: bool,
    /// So many are made ahead.
    pub ahead: usize,
}

/// What to do about frames, for a swarm that only seeds or one that also fetches.
pub fn part(compress: Compress, only_seeds: bool) -> Part {
    let able = match compress {
        Compress::Off => false,
        Compress::On => true,
        Compress::Auto => {
            let (speed, link) = (speed(), link_rate());
            let able = is_able(speed, link);
            log::info!(
                "a core undoes {} MB/s of compressed pieces and the link carries {} MB/s: pieces travel {}",
                speed / 1_000_000,
                link / 1_000_000,
                if able { "compressed where that pays" } else { "as they are" }
            );
            able
        }
    };
    Part { takes: able, ahead: if able { AHEAD[usize::from(!only_seeds)] } else { 0 } }
}

/// `speed` in bytes of pieces, `link` in bytes, a second.
fn is_able(speed: u64, link: u64) -> bool {
    speed >= link.saturating_mul(MARGIN)
}

/// How many bytes of pieces a second one core undoes: measured once, on this program's own code.
fn speed() -> u64 {
    static SPEED: OnceLock<u64> = OnceLock::new();
    *SPEED.get_or_init(|| measure().unwrap_or(0))
}

fn measure() -> Option<u64> {
    let mut sample = vec![0; SAMPLE];
    let program = std::fs::File::open("/proc/self/exe").ok()?;
    let middle = program.metadata().ok()?.len().checked_sub(SAMPLE as u64)? / 2;
    std::os::unix::fs::FileExt::read_exact_at(&program, &mut sample, middle).ok()?;
    let frame = Packer::new().ok()?.pack(&sample, SAMPLE)?;
    let mut unpacker = Unpacker::new().ok()?;
    // The best of some: what else the machine does meanwhile is not its fault.
    let (begun, mut best) = (Instant::now(), Duration::MAX);
    while begun.elapsed() < MEASURING {
        let once = Instant::now();
        if !unpacker.unpack(&frame, &mut sample) {
            return None;
        }
        best = best.min(once.elapsed());
    }
    u64::try_from(SAMPLE as u128 * 1_000_000_000 / best.as_nanos().max(1)).ok()
}

/// Bytes a second of the fastest link that is up.
fn link_rate() -> u64 {
    let speed = |entry: io::Result<std::fs::DirEntry>| {
        let text = std::fs::read_to_string(entry.ok()?.path().join("speed")).ok()?;
        text.trim().parse::<u64>().ok().filter(|mbit| *mbit > 0)
    };
    let fastest = std::fs::read_dir("/sys/class/net").ok().and_then(|all| all.filter_map(speed).max());
    fastest.map_or(USUAL_LINK, |mbit| mbit * 125_000)
}

/// A piece to be compressed.
struct Job {
    piece: PieceIndex,
    offset: u64,
    len: usize,
    at_most: usize,
    /// Its bytes, where they are in memory.
    bytes: Option<Bytes>,
    /// What they must have, where that was not checked yet.
    hash: Option<PieceHash>,
}

/// The threads that compress for one swarm. They end when this is dropped.
pub struct FrameMaker {
    jobs: SyncSender<Job>,
    threads: Vec<JoinHandle<()>>,
}

impl FrameMaker {
    /// Starts `threads` threads that read from `storage`; at most `depth` jobs may be outstanding.
    pub fn start(
        storage: &Arc<dyn Storage>,
        threads: usize,
        depth: usize,
        done: &UnboundedSender<Done>,
    ) -> io::Result<Self> {
        let (jobs, receiver) = sync_channel(depth);
        let receiver = Arc::new(Mutex::new(receiver));
        let threads = (0..threads).map(|index| {
            let (storage, receiver, done) = (Arc::clone(storage), Arc::clone(&receiver), done.clone());
            let name = format!("frames-{index}");
            std::thread::Builder::new().name(name).spawn(move || work(&*storage, &receiver, &done))
        });
        Ok(FrameMaker { threads: threads.collect::<io::Result<_>>()?, jobs })
    }

    /// Compresses the `len` bytes at `offset`. False if too many jobs are outstanding.
    pub fn make(
        &self,
        piece: PieceIndex,
        offset: u64,
        len: usize,
        at_most: usize,
        bytes: Option<Bytes>,
        hash: Option<PieceHash>,
    ) -> bool {
        self.jobs.try_send(Job { piece, offset, len, at_most, bytes, hash }).is_ok()
    }

    /// Waits (blocking) until the threads have let go of the storage.
    pub fn finish(self) {
        drop(self.jobs);
        for thread in self.threads {
            if thread.join().is_err() {
                log::error!("a thread that compresses panicked");
            }
        }
    }
}

fn work(storage: &dyn Storage, jobs: &Mutex<Receiver<Job>>, done: &UnboundedSender<Done>) {
    let mut packer = Packer::new().ok();
    let mut buffer: Option<MmapMut> = None;
    loop {
        let job = jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(job) = job else { return };
        let frame = match (&mut packer, &job.bytes) {
            (Some(packer), Some(bytes)) => packer.pack(bytes, job.at_most),
            (Some(packer), None) => {
                read(storage, &job, &mut buffer).and_then(|bytes| packer.pack(bytes, job.at_most))
            }
            (None, _) => None,
        };
        // Fails only when the owner is gone.
        let _ = done.send(Done::Framed(job.piece, frame));
    }
}

/// The piece's bytes; `None` if they cannot be read or are wrong; the peer that asks for them will be
/// refused.
fn read<'a>(storage: &dyn Storage, job: &Job, buffer: &'a mut Option<MmapMut>) -> Option<&'a [u8]> {
    if buffer.as_ref().is_none_or(|buffer| buffer.len() < job.len) {
        *buffer = MmapMut::map_anon(job.len).ok();
    }
    let bytes = &mut buffer.as_mut()?[..job.len];
    storage.read_at(job.offset, bytes).ok()?;
    job.hash.is_none_or(|hash| hash.fits(bytes)).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text(len: usize) -> Vec<u8> {
        (0..len).flat_map(|n| format!("line {} of a file\n", n * n % 977).into_bytes()).take(len).collect()
    }

    proptest! {
        #[test]
        fn what_is_packed_is_unpacked(
            parts in proptest::collection::vec((any::<u8>(), 1usize..3000), 0..20),
            noise in proptest::collection::vec(any::<u8>(), 0..2000),
        ) {
            let mut piece: Vec<u8> = parts.iter().flat_map(|(byte, count)| vec![*byte; *count]).collect();
            piece.extend(noise);
            let frame = Packer::new().unwrap().pack(&piece, piece.len() + 1000).expect("room for anything");
            let mut out = vec![0xee; piece.len()];
            prop_assert!(Unpacker::new().unwrap().unpack(&frame, &mut out));
            prop_assert_eq!(out, piece);
        }

        #[test]
        fn garbage_and_damaged_frames_never_write_beyond_the_piece(
            mut bytes in proptest::collection::vec(any::<u8>(), 0..300), damage in any::<(usize, u8)>(), real in any::<bool>(),
        ) {
            if real {
                bytes = Packer::new().unwrap().pack(&text(5000), 5000).expect("text").to_vec();
                let at = damage.0 % bytes.len();
                bytes[at] ^= damage.1;
            }
            let mut out = vec![0xee; 6000];
            let right = Unpacker::new().unwrap().unpack(&bytes, &mut out[..5000]);
            prop_assert!(out[5000..].iter().all(|byte| *byte == 0xee));
            prop_assert!(!right || real, "noise is no frame of 5000 bytes");
        }
    }

    #[test]
    fn a_frame_of_another_length_is_none_however_short_it_is_itself() {
        let mut packer = Packer::new().unwrap();
        let bomb = packer.pack(&vec![0; 64 << 20], 1 << 20).expect("zeros");
        assert!(bomb.len() < 16 << 10, "64 MiB in {} bytes", bomb.len());
        let mut unpacker = Unpacker::new().unwrap();
        let mut piece = vec![0; 100_000];
        assert!(!unpacker.unpack(&bomb, &mut piece), "too long");
        let short = packer.pack(&vec![0; 99_999], 100_000).expect("zeros");
        assert!(!unpacker.unpack(&short, &mut piece), "too short");
        let right = packer.pack(&vec![0; 100_000], 100_000).expect("zeros");
        assert!(unpacker.unpack(&right, &mut piece), "and an error leaves nothing behind");
        assert!(!unpacker.unpack(&right[..right.len() - 1], &mut piece), "cut off");
        assert!(!unpacker.unpack(&[], &mut piece), "nothing at all");
    }

    #[test]
    fn what_cannot_be_compressed_has_no_frame() {
        let mut noise = vec![0; 100_000];
        getrandom::fill(&mut noise).unwrap();
        assert_eq!(Packer::new().unwrap().pack(&noise, 90_000), None);
        assert!(Packer::new().unwrap().pack(&text(100_000), 90_000).is_some());
    }

    #[test]
    fn weak_processors_and_fast_links_decline() {
        assert!(is_able(1_000_000_000, USUAL_LINK));
        assert!(!is_able(200_000_000, USUAL_LINK));
        assert!(!is_able(1_000_000_000, 10 * USUAL_LINK));
        assert!(is_able(200_000_000, USUAL_LINK / 10));
        assert_eq!(part(Compress::Off, true), Part { takes: false, ahead: 0 });
        assert_eq!(part(Compress::On, false), Part { takes: true, ahead: 1 });
        assert!(speed() > 1_000_000, "it was measured");
    }
}
