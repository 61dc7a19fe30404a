//! How a swarm's memory and the machine's cores are divided.
//!
//! Invariant: pieces, frames and the buffers in which disk threads decompress share the given memory. At
//! least six pieces have room beside those buffers.

use super::compression_policy::Part;

/// Fewest piece buffers: less would stop the flow between network and disk.
const FEWEST_BUFFERS: usize = 6;

/// How the memory is divided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shares {
    /// Buffers that the engine fills.
    pub(super) engine: usize,
    /// Buffers, of the same pool, in which disk threads decompress frames.
    pub(super) undoing: usize,
    /// Buffers that pieces are read into for peers.
    pub(super) loading: usize,
    /// Pieces that are kept in memory at most, in buffers of both pools.
    pub(super) cached: usize,
    /// Bytes for frames.
    pub(super) frames: usize,
    /// Threads that check, write and read.
    pub(super) disk_threads: usize,
    /// Threads that compress pieces.
    pub(super) frame_threads: usize,
}

impl Shares {
    /// Divides `memory` bytes for pieces of `piece` bytes on `cores` cores.
    pub(super) fn of(memory: u64, piece: u32, fetches: bool, part: Part, cores: usize) -> Self {
        let in_memory = usize::try_from(memory / u64::from(piece)).unwrap_or(usize::MAX);
        let all = in_memory.clamp(FEWEST_BUFFERS, 1 << 16);
        // A terminal has its hashes and its disk to look after; a seeder has nothing better to do.
        let frame_threads = part.ahead.min(if fetches { 1 } else { cores });
        // A quarter is for frames: those that are kept, and a piece and its frame for each thread that makes
        // one.
        let for_frames = if part.takes { all / 4 } else { 0 };
        let disk_threads = cores.clamp(2, 8);
        let undoing = if part.takes && fetches { disk_threads } else { 0 };
        let buffers = all.saturating_sub(for_frames + undoing).max(FEWEST_BUFFERS);
        // A seeder only reads; a leecher needs most buffers for pieces under way.
        let engine = if fetches { buffers - buffers / 4 } else { 1 };
        Shares {
            engine,
            undoing,
            loading: buffers - engine,
            cached: (buffers / 2).max(buffers - engine),
            frames: for_frames.saturating_sub(2 * frame_threads).max(usize::from(part.takes))
                * piece as usize,
            disk_threads,
            frame_threads,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PIECE: u32 = 4 << 20;
    const WITH: Part = Part { takes: true, ahead: 4 };
    const WITHOUT: Part = Part { takes: false, ahead: 0 };

    #[test]
    fn all_shares_together_are_what_was_given() {
        for (fetches, part) in [(true, WITH), (true, WITHOUT), (false, WITH), (false, WITHOUT)] {
            let shares = Shares::of(256 << 20, PIECE, fetches, part, 4);
            let buffers = (shares.engine + shares.undoing + shares.loading) * PIECE as usize;
            let making = 2 * shares.frame_threads * PIECE as usize;
            assert_eq!(buffers + shares.frames + making, 256 << 20, "{shares:?}");
            assert_eq!(shares.undoing, if fetches && part.takes { 4 } else { 0 });
            assert_eq!(shares.frames > 0, part.takes);
        }
    }

    #[test]
    fn however_little_there_is_six_pieces_and_a_frame_have_room() {
        let shares = Shares::of(0, PIECE, true, WITH, 64);
        assert_eq!((shares.engine + shares.loading, shares.undoing), (6, 8));
        assert!(shares.frames >= PIECE as usize);
        assert_eq!(shares.frame_threads, 1);
        assert_eq!(Shares::of(0, PIECE, false, WITH, 2).frame_threads, 2);
        assert_eq!(Shares::of(0, PIECE, false, WITHOUT, 2).frame_threads, 0);
    }
}
