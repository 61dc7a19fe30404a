//! Page-aligned memory: single buffers, and piece buffers from one bounded pool.
//!
//! Invariant: at most `capacity` buffers of one length exist, whether lent or waiting; a buffer goes back to
//! its pool when it is dropped. An empty pool is not an error: it is how a full machine tells its peers to
//! wait. A pool's buffers are anonymous memory maps, so they are aligned for O_DIRECT without unsafe code,
//! and the kernel may back them with huge pages.

use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex};

use memmap2::MmapMut;

use crate::sync;

pub(crate) const PAGE: usize = 4096;

/// Zeros to compare with and to hash.
pub const ZEROS: [u8; PAGE] = [0; PAGE];

/// True when all of `bytes` are zero.
pub fn is_zero(bytes: &[u8]) -> bool {
    bytes.chunks(PAGE).all(|part| part == &ZEROS[..part.len()])
}

/// Page-aligned memory, which O_DIRECT reads and writes without a copy.
pub(crate) struct AlignedBuf {
    memory: Vec<u8>,
    from: usize,
    len: usize,
}

impl AlignedBuf {
    /// `len` zeros.
    pub(crate) fn zeroed(len: usize) -> Self {
        let memory = vec![0u8; len + PAGE];
        let from = memory.as_ptr().align_offset(PAGE).min(PAGE);
        AlignedBuf { memory, from, len }
    }
}

impl Deref for AlignedBuf {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.memory[self.from..self.from + self.len]
    }
}

impl DerefMut for AlignedBuf {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.memory[self.from..self.from + self.len]
    }
}

/// A bounded supply of equal buffers.
#[derive(Clone)]
pub struct BufPool {
    shared: Arc<Shared>,
}

struct Shared {
    len: usize,
    capacity: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    idle: Vec<MmapMut>,
    made: usize,
}

impl BufPool {
    /// A pool of at most `capacity` buffers of `len` bytes; memory is taken only as buffers are first asked
    /// for.
    pub fn new(len: usize, capacity: usize) -> Self {
        BufPool { shared: Arc::new(Shared { len, capacity, state: Mutex::default() }) }
    }

    /// Bytes in each buffer.
    pub(crate) fn buf_len(&self) -> usize {
        self.shared.len
    }

    /// How many buffers may exist.
    pub fn capacity(&self) -> usize {
        self.shared.capacity
    }

    /// How many buffers could be taken now.
    pub(crate) fn available(&self) -> usize {
        let state = self.shared.lock();
        self.shared.capacity - state.made + state.idle.len()
    }

    /// A buffer with unspecified contents, or `None` while all are lent (or the machine is out of memory).
    pub fn take(&self) -> Option<PieceBuf> {
        let mut state = self.shared.lock();
        let map = match state.idle.pop() {
            Some(map) => map,
            None if state.made < self.shared.capacity => {
                let map = MmapMut::map_anon(self.shared.len.max(1)).ok()?;
                // Fewer page faults, where the kernel has huge pages; it does without where it has none.
                let _ = map.advise(memmap2::Advice::HugePage);
                state.made += 1;
                map
            }
            None => return None,
        };
        Some(PieceBuf { map: Some(map), len: self.shared.len, shared: Arc::clone(&self.shared) })
    }
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        sync::lock(&self.state)
    }
}

/// One page-aligned buffer, lent by a pool.
pub struct PieceBuf {
    map: Option<MmapMut>,
    len: usize,
    shared: Arc<Shared>,
}

impl Deref for PieceBuf {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.map.as_ref().map_or(&[], |map| &map[..self.len])
    }
}

impl DerefMut for PieceBuf {
    fn deref_mut(&mut self) -> &mut [u8] {
        let len = self.len;
        self.map.as_mut().map_or(&mut [], |map| &mut map[..len])
    }
}

impl Drop for PieceBuf {
    fn drop(&mut self) {
        if let Some(map) = self.map.take() {
            self.shared.lock().idle.push(map);
        }
    }
}

impl std::fmt::Debug for PieceBuf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PieceBuf({} bytes)", self.len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_byte_makes_a_page_not_zero() {
        let mut bytes = vec![0; 3 * PAGE + 5];
        assert!(is_zero(&bytes) && is_zero(&[]));
        for at in [0, PAGE, 3 * PAGE + 4] {
            bytes[at] = 1;
            assert!(!is_zero(&bytes), "{at}");
            bytes[at] = 0;
        }
    }

    #[test]
    fn memory_begins_on_a_page() {
        let mut buffer = AlignedBuf::zeroed(5000);
        assert!(buffer.as_ptr().addr().is_multiple_of(PAGE) && buffer.len() == 5000 && is_zero(&buffer));
        buffer[4999] = 1;
        assert!(!is_zero(&buffer));
    }

    #[test]
    fn a_pool_lends_no_more_than_its_capacity_and_takes_back() {
        let pool = BufPool::new(8192, 2);
        let first = pool.take().expect("one");
        let _second = pool.take().expect("two");
        assert!(pool.take().is_none());
        assert_eq!(first.as_ptr() as usize % 4096, 0);
        drop(first);
        assert_eq!(pool.available(), 1);
        assert!(pool.take().is_some());
    }
}
