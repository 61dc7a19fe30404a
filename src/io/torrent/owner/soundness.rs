//! Which pieces are known to be right, the hashes that check the others, and which are damaged.
//!
//! Invariant: a piece with a known hash is written only if it has that hash, and served only after it was
//! written or read with it. A damaged piece is read again only after [`REST`], so that requests for it cannot
//! keep the disk busy.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crate::bitfield::Bitfield;
use crate::io::hash::PieceHash;
use crate::io::torrent::spec::{Have, TorrentSpec};
use crate::metainfo::Metainfo;
use crate::units::{Now, PieceIndex, Sha256};

/// How long a damaged piece is refused before it is read again.
const REST: Duration = Duration::from_secs(5);
/// Most damaged pieces that are named.
const NAMED: usize = 3;

/// The knowledge about the pieces' content.
pub(super) struct Soundness {
    meta: Arc<Metainfo>,
    /// Whether arriving pieces are checked by the torrent's hashes.
    verify: bool,
    hashes: Option<Arc<Vec<Sha256>>>,
    /// Written or read with the right hash, or known by the caller that started the torrent.
    sound: Bitfield,
    /// Being written or read, and checked by the hash that there was when that began.
    checked: BTreeSet<PieceIndex>,
    /// When it was found so, and why it is not served.
    damaged: BTreeMap<PieceIndex, (Now, String)>,
    /// How often a piece that is still missing came with wrong content.
    came_wrong: BTreeMap<PieceIndex, u32>,
}

impl Soundness {
    /// At the start of a torrent that has the pieces `have`.
    pub(super) fn new(spec: &TorrentSpec, have: &Bitfield) -> Self {
        // A caller that says "everything" has not checked. Without signed hashes the receivers check by the
        // torrent's hashes; checking here as well would cost a seeder on a fast network half of its rate.
        let sound = match spec.have {
            Have::Everything if spec.hashes.is_some() => Bitfield::none(have.pieces()),
            _ => have.clone(),
        };
        Soundness {
            meta: Arc::clone(&spec.meta),
            verify: spec.verify,
            hashes: spec.hashes.clone(),
            sound,
            checked: BTreeSet::new(),
            damaged: BTreeMap::new(),
            came_wrong: BTreeMap::new(),
        }
    }

    /// Pieces are checked by these from now on.
    pub(super) fn learn(&mut self, hashes: Arc<Vec<Sha256>>) {
        self.hashes = Some(hashes);
    }

    fn hash(&self, piece: PieceIndex) -> Option<PieceHash> {
        let signed = self.hashes.as_ref().and_then(|hashes| hashes.get(piece.get()));
        signed.map(|hash| PieceHash::Sha256(*hash)).or_else(|| {
            let hash = self.meta.pieces.get(piece.get()).filter(|_| !self.meta.unhashed);
            hash.map(|hash| PieceHash::Sha1(*hash))
        })
    }

    /// The hash that a piece must have to be written now.
    pub(super) fn begin_write(&mut self, piece: PieceIndex) -> Option<PieceHash> {
        let hash = self.hash(piece).filter(|_| self.verify || self.hashes.is_some());
        self.begin(piece, hash)
    }

    /// The hash that a piece must have if it is read now to be served.
    pub(super) fn begin_read(&mut self, piece: PieceIndex) -> Option<PieceHash> {
        let hash = self.unproved(piece);
        self.begin(piece, hash)
    }

    fn begin(&mut self, piece: PieceIndex, hash: Option<PieceHash>) -> Option<PieceHash> {
        if hash.is_some() {
            self.checked.insert(piece);
        } else {
            self.checked.remove(&piece);
        }
        hash
    }

    /// The hash that a piece must have before it is served; `None` if it was checked already, or cannot be.
    pub(super) fn unproved(&self, piece: PieceIndex) -> Option<PieceHash> {
        self.hash(piece).filter(|_| !self.sound.has(piece))
    }

    /// The piece was written or read, with the right hash if one was required at the start. Returns false if
    /// it must not be served yet, because its hash came meanwhile.
    pub(super) fn is_done(&mut self, piece: PieceIndex) -> bool {
        if self.checked.remove(&piece) {
            self.sound.insert(piece);
        }
        self.unproved(piece).is_none()
    }

    /// The piece is in order. True if it was damaged before.
    pub(super) fn is_mended(&mut self, piece: PieceIndex) -> bool {
        self.damaged.remove(&piece).is_some()
    }

    /// The piece cannot be served. True if that is news.
    pub(super) fn failed(&mut self, piece: PieceIndex, now: Now, why: String) -> bool {
        self.damaged.insert(piece, (now, why)).is_none()
    }

    /// The piece came with wrong content.
    pub(super) fn came_wrong(&mut self, piece: PieceIndex) {
        self.checked.remove(&piece);
        *self.came_wrong.entry(piece).or_insert(0) += 1;
    }

    /// The piece is here. True if it had come with wrong content before.
    pub(super) fn has_come(&mut self, piece: PieceIndex) -> bool {
        self.came_wrong.remove(&piece).is_some()
    }

    /// Whether the piece was found damaged a moment ago.
    pub(super) fn rests(&self, piece: PieceIndex, now: Now) -> bool {
        self.damaged.get(&piece).is_some_and(|(at, _)| now.since(*at) < REST)
    }

    /// Damaged pieces and pieces that arrive wrong, for people.
    pub(super) fn trouble(&self) -> Option<String> {
        let damaged = self.damaged.values().map(|(_, why)| why.clone());
        let wrong = self.came_wrong.iter().map(|(piece, times)| {
            format!("{piece} came with wrong content ({times} times) and is still missing")
        });
        let all: Vec<String> = damaged.chain(wrong).collect();
        let more = all.len().saturating_sub(NAMED);
        let more = if more > 0 { format!("; and {more} more pieces") } else { String::new() };
        (!all.is_empty()).then(|| format!("{}{more}", all[..all.len().min(NAMED)].join("; ")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::hash::{sha1, sha256};
    use crate::metainfo::{FileEntry, MetainfoBuilder, Pieces};
    use crate::swarm::WholePieces;

    const PIECE: PieceIndex = PieceIndex(0);

    fn at(seconds: u64) -> Now {
        Now(Duration::from_secs(seconds))
    }

    fn soundness(pieces: Pieces, have: Have, verify: bool) -> Soundness {
        with(pieces, have, verify, None)
    }

    fn signed(pieces: Pieces, have: Have) -> Soundness {
        with(pieces, have, true, Some(Arc::new(vec![sha256(&[0; 16384])])))
    }

    fn with(pieces: Pieces, have: Have, verify: bool, hashes: Option<Arc<Vec<Sha256>>>) -> Soundness {
        let files = vec![FileEntry::data(Vec::new(), 16384)];
        let builder = MetainfoBuilder { name: "t".into(), piece_length: 16384, files, pieces, private: true };
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("f");
        let storage =
            crate::io::storage::FileStorage::create(&path, 16384, crate::io::storage::Resize::Refuse);
        let spec = TorrentSpec {
            shape: Arc::new(WholePieces),
            verify,
            hashes,
            ..TorrentSpec::new(
                Arc::new(builder.build().expect("a torrent")),
                Arc::new(storage.expect("a file").storage),
                have.clone(),
                0,
            )
        };
        let have = if matches!(have, Have::Nothing) { Bitfield::none(1) } else { Bitfield::all(1) };
        Soundness::new(&spec, &have)
    }

    fn unhashed(have: Have) -> Soundness {
        soundness(Pieces::Unhashed { nonce: [1; 16] }, have, true)
    }

    #[test]
    fn what_was_not_looked_at_is_checked_once_before_it_is_served() {
        let hashes = Pieces::Hashed(vec![sha1(&[0; 16384])]);
        let mut believed = soundness(hashes.clone(), Have::Everything, true);
        assert!(believed.begin_read(PIECE).is_none(), "those who fetch check it");
        let mut all = signed(hashes.clone(), Have::Everything);
        assert!(all.begin_read(PIECE).is_some());
        assert!(all.is_done(PIECE));
        assert!(all.begin_read(PIECE).is_none(), "once");
        let mut known = soundness(hashes.clone(), Have::Pieces(Bitfield::all(1)), true);
        assert!(known.begin_read(PIECE).is_none());
        let mut trusting = soundness(hashes, Have::Nothing, false);
        assert!(trusting.begin_write(PIECE).is_none() && !trusting.is_done(PIECE));
        assert!(trusting.begin_read(PIECE).is_some(), "it came unchecked");
    }

    #[test]
    fn signed_hashes_count_from_the_moment_they_are_known_also_for_what_is_under_way() {
        let mut late = unhashed(Have::Nothing);
        assert!(late.begin_write(PIECE).is_none() && late.unproved(PIECE).is_none());
        late.learn(Arc::new(vec![sha256(b"x")]));
        assert!(!late.is_done(PIECE), "it was being written unchecked");
        assert!(matches!(late.begin_read(PIECE), Some(PieceHash::Sha256(_))));
        assert!(late.is_done(PIECE) && late.unproved(PIECE).is_none());
        assert!(matches!(late.begin_write(PIECE), Some(PieceHash::Sha256(_))));
    }

    #[test]
    fn a_damaged_piece_rests_is_named_and_is_forgotten_when_it_is_mended() {
        let mut bad = unhashed(Have::Everything);
        assert!(bad.failed(PIECE, at(10), "piece 0 is damaged".into()));
        assert!(!bad.failed(PIECE, at(11), "piece 0 is damaged".into()), "no news");
        assert!(bad.rests(PIECE, at(15)) && !bad.rests(PIECE, at(16)));
        assert_eq!(bad.trouble().as_deref(), Some("piece 0 is damaged"));
        assert!(bad.is_mended(PIECE));
        assert_eq!(bad.trouble(), None);
        bad.came_wrong(PIECE);
        bad.came_wrong(PIECE);
        assert!(bad.trouble().is_some_and(|said| said.contains("(2 times)")));
        assert!(bad.has_come(PIECE) && bad.trouble().is_none());
    }
}
