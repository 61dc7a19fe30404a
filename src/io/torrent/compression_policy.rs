//! Whether this machine accepts compressed pieces, from one measurement of its core and link.
//!
//! Invariant: only facts of this machine decide, never a peer's messages.

use std::io;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use super::codec::{Packer, Unpacker};
use crate::api::Compress;

/// Frames made ahead of offers: by a seeder, and by a terminal, which mostly passes on received frames.
const AHEAD: [usize; 2] = [4, 1];
/// A core must decompress at this multiple of the link's rate: 2 because compressed bytes become more, times
/// 1.5 because the core also hashes and serves the network.
const MARGIN: u64 = 3;
/// The link's rate where it is not known, as in virtual machines: 1 Gbit/s.
const USUAL_LINK: u64 = 125_000_000;
/// Bytes of the sample, and the time for measuring it.
const SAMPLE: usize = 512 << 10;
const MEASURING: Duration = Duration::from_millis(8);

/// This machine's part in compression.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Part {
    /// It accepts frames.
    pub takes: bool,
    /// So many are made ahead.
    pub ahead: usize,
}

/// The part of this machine, for a swarm that only seeds or one that also fetches.
pub(super) fn part(compress: Compress, only_seeds: bool) -> Part {
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

/// Bytes of pieces a second that one core decompresses, measured once with this program's code.
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
    // The best of several runs, because other work on the machine slows some down.
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

#[cfg(test)]
mod tests {
    use super::*;

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
