//! The bytes that one connection may have under way to us on a slow link: the receive buffer of its socket.
//!
//! Two senders often overlap on our downlink, at the end of one piece and the beginning of the next. With the
//! kernel's limits they would fill the queue before a slow link and lose packets, and every answer would wait
//! behind them. So each may have as much under way as the link carries in [`QUEUED`], which is longer than a
//! LAN's round trip.
//!
//! Invariant: a buffer is never set below [`NARROWEST`]. If more than [`WIDEST`] would be right, the kernel
//! decides and lets it grow as the connection needs.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use socket2::SockRef;
use tokio::net::TcpStream;

/// How long one connection's bytes may keep the link busy.
const QUEUED: Duration = Duration::from_millis(10);
/// Enough for 1 Gbit/s over half a millisecond.
const NARROWEST: usize = 64 * 1024;
/// Bytes that Linux allows to every socket (`net.core.rmem_max`); it uses twice that for data and its own
/// records (socket(7)).
const WIDEST: usize = 208 * 1024;
/// Left to the kernel.
const FREE: usize = 0;

/// The limit for connections of one torrent; shared by its owner and its readers.
#[derive(Debug, Clone, Default)]
pub(super) struct ReceiveWindow(Arc<AtomicUsize>);

impl ReceiveWindow {
    /// Follows the link's rate in bytes a second; 0 if that is not known.
    pub(super) fn follow(&self, carries: u64) {
        // Once it was set the kernel does not let it grow again: a link that looks faster for a moment has
        // the widest.
        let fast = if self.0.load(Ordering::Relaxed) == FREE { FREE } else { WIDEST };
        self.0.store(buffer_for(carries).unwrap_or(fast), Ordering::Relaxed);
    }

    /// Gives `stream` the buffer that is right now; `set` is the one that it was given last, 0 at first.
    pub(super) fn keep(&self, stream: &TcpStream, set: &mut usize) -> io::Result<()> {
        let buffer = self.0.load(Ordering::Relaxed);
        if buffer != *set {
            SockRef::from(stream).set_recv_buffer_size(buffer)?;
            *set = buffer;
        }
        Ok(())
    }
}

/// Bytes; `None` if the kernel decides.
fn buffer_for(carries: u64) -> Option<usize> {
    let bytes = usize::try_from(u128::from(carries) * QUEUED.as_millis() / 1000).ok()?;
    (carries > 0 && bytes <= WIDEST).then(|| bytes.max(NARROWEST))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slow_links_get_narrow_buffers_and_those_of_fast_ones_are_left_alone() {
        let narrowest = Some(64 * 1024);
        assert_eq!(
            [0, 1, 5_000_000, 12_500_000, 125_000_000, u64::MAX].map(buffer_for),
            [None, narrowest, narrowest, Some(125_000), None, None]
        );
    }

    #[tokio::test]
    async fn a_socket_has_the_buffer_that_the_link_asks_for() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let stream = TcpStream::connect(listener.local_addr().expect("bound")).await.expect("connected");
        let buffer = || SockRef::from(&stream).recv_buffer_size().expect("known");
        let (window, mut set, before) = (ReceiveWindow::default(), FREE, buffer());
        for carries in [0, 125_000_000] {
            window.follow(carries);
            window.keep(&stream, &mut set).expect("kept");
            assert_eq!(buffer(), before, "left to the kernel");
        }
        for (carries, bytes) in [(12_500_000, 125_000), (1, 65_536), (125_000_000, 212_992)] {
            window.follow(carries);
            window.keep(&stream, &mut set).expect("kept");
            // The kernel doubles it for its own records.
            assert!((bytes..=2 * bytes).contains(&buffer()), "{}", buffer());
        }
    }
}
