//! Ranges of a source, one behind the other, as a read-only block device: a logical volume with several
//! segments or stripes.
//!
//! An NBD server in this process has the bytes, QEMU's storage daemon shows them as a file (`view`), and a
//! loop device makes that file a block device. Device mapper is not used, because it would need the volume
//! group active, or its own tools.

mod server;

use std::fs::File;
use std::path::Path;

use crate::loop_device::LoopDevice;
use crate::view::View;
use flashmob::layout::segments::Segments;
use server::{EXPORT, Server};

/// A device that is attached. The fields' order is the order in which its layers end.
pub(crate) struct Composed {
    device: LoopDevice,
    _view: View,
    _server: Server,
}

impl Composed {
    /// Attaches these segments of `file`. The error is for people.
    pub(crate) fn attach(file: &File, segments: Segments) -> Result<Self, String> {
        let size = segments.size();
        let file = file.try_clone().map_err(|e| format!("the source cannot be opened again: {e}"))?;
        let server = Server::start(file, segments).map_err(|e| format!("no socket for it: {e}"))?;
        let view = View::of_export(server.socket(), EXPORT)
            .map_err(|why| format!("it has several segments, and {why} (package qemu-system-common)"))?;
        let device = LoopDevice::attach(&view.path(), 0, size)?;
        Ok(Composed { device, _view: view, _server: server })
    }

    pub(crate) fn path(&self) -> &Path {
        self.device.path()
    }
}
