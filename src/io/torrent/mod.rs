//! Sockets, clock and disk threads around the swarm engine: a session serves any number of torrents.
//!
//! ```text
//!  listener task ──accepts──► handshake tasks (≤ 256, 10 s each) ┐ by info-hash
//!                                                               ▼ incoming (16)
//!  tracker tasks ─candidates (16)─►┌──────────────────────────────────────┐
//!  dial tasks ────dialled (16)────►│ owner task, one for each torrent:     │
//!                                  │ the only one that touches its Engine  │
//!  reader task of each peer        │ and its cache of pieces               │
//!        ──messages (64, all)─────►│                                      │──queue (4096 each)─► writer task
//!  disk threads ──done────────────►│                                      │     of each peer
//!                                  └──────────────────────────────────────┘──jobs (≤ buffers)──► disk threads
//! ```
//!
//! How tasks wait: readers and dialers wait for the owner, so a busy owner slows the network down; the owner
//! waits for no task. A writer whose queue is full belongs to a peer that does not read: it is closed. Disk
//! jobs are bounded by the buffers they carry, and threads that compress get no more than the engine asks for
//! ahead. How tasks stop: `stop` ends the owner; when it ends, it ends its readers, writers, dialers and
//! trackers (which announce `stopped`), and waits for the disk threads.
//!
//! Invariant: no action of a peer or tracker ends a torrent, but a failing storage does. `swarm` chooses
//! pieces and peers.

mod announcing;
mod cache;
mod check;
pub mod codec;
mod compressed_store;
mod compression_policy;
mod compressor;
mod connection;
mod dial;
mod disk_threads;
mod handle;
mod handshake;
mod limits;
mod listen;
mod memory_budget;
mod owner;
mod reader;
mod receive_window;
mod report;
mod session;
mod shared;
mod spec;
mod writer;

pub use handle::{Phase, Swarm};
pub use session::Session;
pub use spec::{Have, SessionConfig, TorrentSpec};
