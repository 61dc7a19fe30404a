//! The torrent's pieces: their sizes, which are here, which are the rarest, and those under way.

pub(super) mod active;
pub(super) mod completion;
pub(super) mod compressed;
pub(super) mod picker;
