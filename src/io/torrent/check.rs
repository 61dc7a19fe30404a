//! Finds the pieces that are on a torrent's storage, before the swarm is joined.
//!
//! Invariant: only wanted pieces are read, each once. Checking ends early when the torrent is stopped.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::time::interval;

use super::handle::{Ends, Phase};
use super::shared::PUBLISH;
use super::spec::{Have, TorrentSpec};
use crate::bitfield::Bitfield;
use crate::event::Failure;
use crate::io::hash::{HashProgress, hash_pieces};
use crate::swarm::Geometry;
use crate::units::PieceIndex;

/// The pieces of `wanted` that are there; `None` if the torrent was stopped meanwhile.
pub(super) async fn check(
    spec: &TorrentSpec,
    geometry: Geometry,
    wanted: &Bitfield,
    ends: &mut Ends,
) -> Result<Option<Bitfield>, Failure> {
    match &spec.have {
        Have::Nothing => return Ok(Some(Bitfield::none(geometry.pieces()))),
        Have::Everything => return Ok(Some(wanted.clone())),
        Have::Pieces(have) => return Ok(Some(have.clone())),
        Have::Check if spec.meta.unhashed => return Ok(Some(Bitfield::none(geometry.pieces()))),
        Have::Check => {}
    }
    let progress = Arc::new(HashProgress::default());
    let (storage, which, counted) = (Arc::clone(&spec.storage), wanted.clone(), Arc::clone(&progress));
    let mut hashing = tokio::task::spawn_blocking(move || {
        hash_pieces(&*storage, geometry.piece_length(), |piece| which.has(piece), &counted)
    });
    let mut ticks = interval(PUBLISH);
    let hashes = loop {
        tokio::select! {
            hashes = &mut hashing => break hashes,
            _ = ticks.tick() => {
                let bytes = progress.bytes.load(Ordering::Relaxed);
                ends.phase.send_replace(Phase::Checking { bytes });
                if *ends.stop.borrow() || ends.stop.has_changed().is_err() {
                    progress.stop.store(true, Ordering::Relaxed);
                }
            }
        }
    };
    let hashes = hashes.map_err(|error| {
        Failure::disk(format!("checking the pieces on the storage: {error}"), "Start again.")
    })??;
    if *ends.stop.borrow() {
        return Ok(None);
    }
    let mut have = Bitfield::none(geometry.pieces());
    for ((found, expected), index) in hashes.iter().zip(&spec.meta.pieces).zip(0u32..) {
        if found.as_ref() == Some(expected) {
            have.insert(PieceIndex(index));
        }
    }
    Ok(Some(have))
}
