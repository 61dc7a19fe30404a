//! `payload.reference`: where a version's payload lies if its folder lacks the torrent's files.
//!
//! Invariant: a [`Reference`] gives each piece exactly one place. It is for the machine that has the folder:
//! no signature covers it, no terminal sees it, and the manifest's hashes prove the payload that it leads to.
//! `io::image::payload` opens the places.

use serde::{Deserialize, Serialize};

use crate::image_id::is_plain_name;

/// Larger ones are not read: a million runs fit.
pub const MAX_REFERENCE_BYTES: usize = 32 << 20;
/// The most files, because each is held open.
pub const MAX_PARTS: usize = 1024;

/// Where the payload lies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
pub enum Reference {
    /// In files of the folder `parts`, most of which are hard links to those of other versions.
    Parts(PartList),
    /// On the disk, partition or file that was captured.
    Source(SourceReference),
}

/// The captured source, and the facts that tell it from other or changed sources.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceReference {
    pub path: String,
    /// Its size in bytes.
    pub size: u64,
    /// As it was, if it is a file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<FileState>,
    /// The disk's own identity, if it is a block device that has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// Free ranges inside 4 KiB units that are partly data, as first byte on the source and length: zeros in
    /// the payload. In order, never touching.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub masks: Vec<(u64, u64)>,
}

/// The facts that change when a file is written to or replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileState {
    /// Its number on its filesystem.
    pub inode: u64,
    /// When it was last written to, since 1970.
    pub seconds: i64,
    /// Nanoseconds after that second.
    pub nanoseconds: i64,
}

impl SourceReference {
    /// Fills the masked ranges of `bytes`, which begin at `start` of the source, with zeros.
    pub fn mask(&self, start: u64, bytes: &mut [u8]) {
        let end = start.saturating_add(bytes.len() as u64);
        let first = self.masks.partition_point(|(at, length)| at.saturating_add(*length) <= start);
        let inside = |at: u64| usize::try_from(at.clamp(start, end) - start).unwrap_or(bytes.len());
        let here = self.masks[first..].iter().take_while(|(at, _)| *at < end);
        let ranges: Vec<_> =
            here.map(|(at, length)| inside(*at)..inside(at.saturating_add(*length))).collect();
        ranges.into_iter().for_each(|range| bytes[range].fill(0));
    }

    fn check(&self) -> Result<(), String> {
        let mut end = 0;
        for (at, length) in &self.masks {
            let after = at.checked_add(*length).filter(|after| *after <= self.size && *length > 0);
            end = after.filter(|_| *at >= end).ok_or(format!("the mask at {at} lies wrong"))?;
        }
        Ok(())
    }
}

/// Files that have pieces, and which piece is where.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PartList {
    pub files: Vec<Part>,
    /// Runs of the payload's pieces in their order.
    pub runs: Vec<PieceRun>,
}

/// A file of pieces, one after another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Part {
    /// Its name in the folder `parts`.
    pub name: String,
    /// The version whose capture wrote it, if it was another one, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
}

/// Pieces that lie one after another in one file; `[file, first, count]` in JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "(u32, u32, u32)", into = "(u32, u32, u32)")]
pub struct PieceRun {
    /// Which of the files.
    pub file: u32,
    /// The first piece's index in the file.
    pub first: u32,
    /// How many; never 0.
    pub count: u32,
}

impl From<(u32, u32, u32)> for PieceRun {
    fn from((file, first, count): (u32, u32, u32)) -> Self {
        PieceRun { file, first, count }
    }
}

impl From<PieceRun> for (u32, u32, u32) {
    fn from(run: PieceRun) -> Self {
        (run.file, run.first, run.count)
    }
}

impl PieceRun {
    /// The place behind the last; one that no file has if it overflows.
    pub fn end(&self) -> u32 {
        self.first.saturating_add(self.count)
    }
}

/// The run of `runs` that has the payload's piece `piece`, and which of its pieces that is. `starts` has the
/// number of each run's first piece.
pub fn find_run(runs: &[PieceRun], starts: &[u32], piece: u32) -> Option<(PieceRun, u32)> {
    let at = starts.partition_point(|start| *start <= piece).checked_sub(1)?;
    let run = *runs.get(at)?;
    let inside = piece - starts.get(at)?;
    (inside < run.count).then_some((run, inside))
}

/// The number of the first piece of each run.
pub fn starts_of(runs: &[PieceRun]) -> Vec<u32> {
    let next = |at: &mut u32, run: &PieceRun| {
        let start = *at;
        *at = at.saturating_add(run.count);
        Some(start)
    };
    runs.iter().scan(0, next).collect()
}

/// Adds one piece to runs that are made from the first piece to the last.
pub fn push_piece(runs: &mut Vec<PieceRun>, file: u32, place: u32) {
    match runs.last_mut() {
        Some(last) if last.file == file && last.end() == place => last.count += 1,
        _ => runs.push(PieceRun { file, first: place, count: 1 }),
    }
}

impl Reference {
    /// Reads and checks the reference of a payload of `pieces`. The error is for people.
    pub fn parse(bytes: &[u8], pieces: u32) -> Result<Self, String> {
        let reference: Reference = serde_json::from_slice(bytes).map_err(|e| e.to_string())?;
        match &reference {
            Reference::Parts(parts) => parts.check(pieces)?,
            Reference::Source(source) => source.check()?,
        }
        Ok(reference)
    }

    /// Its bytes, with a final newline.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = serde_json::to_vec(self).unwrap_or_default();
        bytes.push(b'\n');
        bytes
    }
}

impl PartList {
    fn check(&self, pieces: u32) -> Result<(), String> {
        if self.files.len() > MAX_PARTS {
            return Err(format!("{} files; at most {MAX_PARTS} are opened", self.files.len()));
        }
        if let Some(part) = self.files.iter().find(|part| !is_plain_name(&part.name)) {
            return Err(format!("'{}' cannot be the name of a file of pieces", part.name));
        }
        let known = |run: &PieceRun| (run.file as usize) < self.files.len() && run.count > 0;
        if let Some(run) = self.runs.iter().find(|run| !known(run)) {
            return Err(format!("there is no file {} or nothing of it is meant", run.file));
        }
        let total: u64 = self.runs.iter().map(|run| u64::from(run.count)).sum();
        if total != u64::from(pieces) {
            return Err(format!("it places {total} pieces, and the payload has {pieces}"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(runs: &[(u32, u32, u32)]) -> PartList {
        let files = ["0000.bin", "0001.bin"].map(|name| Part { name: name.into(), from: None });
        PartList { files: files.into(), runs: runs.iter().map(|run| PieceRun::from(*run)).collect() }
    }

    #[test]
    fn a_reference_comes_back_as_it_was_written_and_is_short() {
        let mut list = parts(&[(0, 0, 3), (1, 7, 2)]);
        list.files[1].from = Some("2026-11-23.1".into());
        let reference = Reference::Parts(list);
        let bytes = reference.to_bytes();
        assert_eq!(Reference::parse(&bytes, 5), Ok(reference));
        let text = String::from_utf8(bytes).unwrap();
        assert!(text.contains(r#""kind":"parts""#) && text.contains("[[0,0,3],[1,7,2]]"), "{text}");
    }

    #[test]
    fn what_does_not_place_every_piece_is_refused() {
        let check = |runs: &[(u32, u32, u32)]| {
            Reference::parse(&Reference::Parts(parts(runs)).to_bytes(), 5).map(|_| ())
        };
        assert_eq!(check(&[(0, 0, 5)]), Ok(()));
        for wrong in [&[(0, 0, 4)][..], &[(2, 0, 5)], &[(0, 0, 5), (1, 0, 0)], &[(0, 0, u32::MAX); 3]] {
            assert!(check(wrong).is_err(), "{wrong:?}");
        }
        let mut list = parts(&[(0, 0, 5)]);
        list.files[0].name = "../0000.bin".into();
        assert!(Reference::parse(&Reference::Parts(list).to_bytes(), 5).is_err());
        assert!(Reference::parse(br#"{"kind":"elsewhere"}"#, 5).is_err());
        assert!(Reference::parse(br#"{"kind":"parts","files":[],"runs":[],"more":1}"#, 0).is_err());
    }

    #[test]
    fn masks_are_zeros_wherever_a_read_begins_and_must_lie_in_order() {
        let state = FileState { inode: 7, seconds: 1, nanoseconds: 2 };
        let masks = vec![(10, 5), (20, 1), (30, 10)];
        let (path, device) = ("/srv/disk.img".into(), None);
        let source = SourceReference { path, size: 40, file: Some(state), device, masks };
        let reference = Reference::Source(source.clone());
        assert_eq!(Reference::parse(&reference.to_bytes(), 1), Ok(reference));
        for (start, len) in [(0, 40), (12, 3), (14, 20), (15, 5), (35, 20)] {
            let mut bytes = vec![1; len];
            source.mask(start, &mut bytes);
            for (at, byte) in (start..).zip(&bytes) {
                let masked =
                    source.masks.iter().any(|(first, length)| (*first..first + length).contains(&at));
                assert_eq!(*byte == 0, masked, "{at} of {start}");
            }
        }
        for wrong in [vec![(39, 2)], vec![(5, 0)], vec![(10, 5), (14, 2)], vec![(u64::MAX, 2)]] {
            let other = Reference::Source(SourceReference { masks: wrong.clone(), ..source.clone() });
            assert!(Reference::parse(&other.to_bytes(), 1).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn pieces_are_found_in_their_runs() {
        let mut runs = Vec::new();
        for (file, place) in [(0, 0), (0, 1), (1, 9), (1, 10), (1, 4), (0, 5)] {
            push_piece(&mut runs, file, place);
        }
        assert_eq!(runs, parts(&[(0, 0, 2), (1, 9, 2), (1, 4, 1), (0, 5, 1)]).runs);
        let starts = starts_of(&runs);
        assert_eq!(starts, [0, 2, 4, 5]);
        let places: Vec<_> = (0..7)
            .map(|piece| find_run(&runs, &starts, piece).map(|(run, inside)| (run.file, run.first + inside)))
            .collect();
        let expected = [(0, 0), (0, 1), (1, 9), (1, 10), (1, 4), (0, 5)].map(Some);
        assert_eq!(places, [&expected[..], &[None]].concat());
    }
}
