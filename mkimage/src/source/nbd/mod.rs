//! A disk that an NBD server lends over TCP, as a source.
//!
//! ```text
//! NBD server ◄──TCP── Client ◄── the capture's own reads
//!                       ▲
//!                       └─ a Unix socket ◄── QEMU's view (`view`) ◄── partclone, and readers of files
//! ```
//!
//! Invariant: one connection to the server serves both, so servers that take one client suffice, and its loss
//! is mended in one place.

pub(super) mod address;
mod client;

use std::io;
use std::os::unix::net::UnixListener;
use std::sync::Arc;

use flashmob::event::Failure;
use flashmob::io::net::nbd_server;
use flashmob::nbd::server::Export;

use crate::view::View;
use address::Address;
pub(super) use client::Client;

/// The export's name on the Unix socket.
const SHOWN: &str = "disk";

/// A lent disk.
#[derive(Debug)]
pub(super) struct Lent {
    /// Ends before its connection does.
    pub view: View,
    pub client: Arc<Client>,
}

impl Lent {
    /// Opens the export, and shows it as a file.
    pub(super) fn open(address: Address) -> Result<Self, Failure> {
        let client = Arc::new(Client::open(address)?);
        let cannot = |e: io::Error| {
            Failure::retry(
                format!("making a socket for the lent disk: {e}"),
                "Check the folder for temporary files.",
            )
        };
        let folder = tempfile::tempdir().map_err(cannot)?;
        let socket = folder.path().join("socket");
        let listener = UnixListener::bind(&socket).map_err(cannot)?;
        let served = Arc::clone(&client);
        std::thread::spawn(move || {
            let Ok((stream, _)) = listener.accept() else { return };
            let Ok(sender) = stream.try_clone() else { return };
            let exported = served.exported();
            let export = Export { name: SHOWN.into(), size: exported.size, sector_size: exported.minimum };
            if let Err(e) = nbd_server::serve(stream, sender, export, |at, into| served.read(at, into)) {
                log::debug!("QEMU's view of the lent disk: {e}");
            }
        });
        let view = View::show_export(&socket, SHOWN)?;
        Ok(Lent { view, client })
    }
}
