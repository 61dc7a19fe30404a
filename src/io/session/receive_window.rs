//! How much one connection may have under way to us: the receive buffer of its socket.
//!
//! Two senders often overlap on our downlink, at the end of one piece and the beginning of the next. With all that the kernel would
//! let them have under way they fill the queue before the link and lose packets, and every answer waits behind them. So
//! each may have what the link carries in [`QUEUED`], which is more than round trips in a LAN take.
//!
//! Invariant: a buffer is never set below [`NARROWEST`], nor above what a program without privileges may ask for.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use socket2::SockRef;

/// What one connection may keep the link busy for.
const QUEUED: Duration = Duration::from_millis(10);
/// Enough for 1 Gbit/s over half a millisecond.
const NARROWEST: usize = 64 * 1024;
/// Linux allows so much to everybody (`net.core.rmem_max`), and uses twice that for data and its own records (socket(7)).
pub(super) const WIDEST: usize = 208 * 1024;

/// What connections of one torrent may have under way now; shared by its owner and its readers.
#[derive(Debug, Clone)]
pub(super) struct ReceiveWindow(Arc<AtomicUsize>);

impl ReceiveWindow {
    /// Nothing is known of the link.
    pub(super) fn new() -> Self {
        ReceiveWindow(Arc::new(AtomicUsize::new(WIDEST)))
    }

    /// The link carries so many bytes a second; 0 if that is not known.
    pub(super) fn follow(&self, carries: u64) {
        self.0.store(buffer_for(carries), Ordering::Relaxed);
    }

    /// Bytes now.
    pub(super) fn get(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

/// Gives `socket` a receive buffer of `bytes`. Before it is connected or listens, so that the window can be as wide (tcp(7)); a
/// narrower one may follow at any time.
pub(super) fn set<'s, S>(socket: &'s S, bytes: usize) -> io::Result<()>
where
    SockRef<'s>: From<&'s S>,
{
    SockRef::from(socket).set_recv_buffer_size(bytes)
}

fn buffer_for(carries: u64) -> usize {
    let bytes = u128::from(carries) * QUEUED.as_millis() / 1000;
    if carries == 0 { WIDEST } else { usize::try_from(bytes).unwrap_or(WIDEST).clamp(NARROWEST, WIDEST) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slow_links_get_narrow_buffers_and_what_is_unknown_or_fast_the_widest() {
        assert_eq!(
            [0, 5_000_000, 12_500_000, u64::MAX].map(buffer_for),
            [WIDEST, NARROWEST, 125_000, WIDEST]
        );
    }

    #[test]
    fn a_socket_has_the_buffer_that_it_was_given() {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let window = ReceiveWindow::new();
        for carries in [0, 1] {
            window.follow(carries);
            set(&socket, window.get()).expect("set");
            let buffer = SockRef::from(&socket).recv_buffer_size().expect("known");
            // The kernel doubles it for its own records.
            assert!((window.get()..=2 * window.get()).contains(&buffer), "{buffer}");
        }
    }
}
