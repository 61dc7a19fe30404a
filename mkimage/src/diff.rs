//! `diff`: the changes between two versions of an image by partition, and how much a terminal with the old
//! version fetches for the new one.
//!
//! Invariant: both folders are opened and checked as everywhere; hashes are compared, and payloads are not
//! read.

use std::collections::HashSet;
use std::path::PathBuf;

use flashmob::event::Failure;
use flashmob::io::image::folder::ImageFolder;
use flashmob::layout::grid::Cell;
use flashmob::units::{Sha256, show_bytes};
use serde_json::json;

use crate::keys::require_hashes;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The older version's folder (REPOSITORY/NAME/VERSION).
    old: PathBuf,
    /// The newer version's folder.
    new: PathBuf,
    /// One JSON document on stdout instead of text.
    #[arg(long)]
    json: bool,
}

/// The changes of one partition.
#[derive(Debug, Default, PartialEq, Eq)]
struct Change {
    number: u32,
    /// Pieces of data of the newer version.
    pieces: u64,
    /// Of these, those that differ from the older version's at the same place.
    changed: u64,
    /// Of these, those that the older one has somewhere else.
    moved: u64,
    /// Bytes of the changed pieces that travel.
    bytes: u64,
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let (old, new) = (ImageFolder::open(&arguments.old)?, ImageFolder::open(&arguments.new)?);
    require_hashes(&old)?;
    require_hashes(&new)?;
    let lengths = [&old, &new].map(|image| image.manifest().piece_length);
    if lengths[0] != lengths[1] {
        return Err(Failure::refused(
            format!(
                "the versions have pieces of {} and of {}, which share nothing",
                show_bytes(lengths[0].bytes()),
                show_bytes(lengths[1].bytes())
            ),
            "Capture the newer one again with the --piece-length of the older.",
        ));
    }
    let changes = changes(&old, &new);
    let gone: Vec<u32> = numbers(&old).into_iter().filter(|number| !numbers(&new).contains(number)).collect();
    let bytes: u64 = changes.iter().map(|change| change.bytes).sum();
    if arguments.json {
        let partitions: Vec<_> = changes
            .iter()
            .map(|c| {
                json!({"number": c.number, "pieces": c.pieces, "changed": c.changed, "moved": c.moved,
                "bytes": c.bytes})
            })
            .collect();
        println!("{:#}", json!({"partitions": partitions, "gone": gone, "bytes": bytes}));
        return Ok(());
    }
    println!("{} -> {}", old.manifest().id(), new.manifest().id());
    for change in &changes {
        let Change { number, pieces, changed, moved, bytes } = change;
        let bytes = show_bytes(*bytes);
        println!(
            "  partition {number}: {changed} of {pieces} pieces differ ({moved} of them moved), {bytes} \
             travel"
        );
    }
    for number in gone {
        println!("  partition {number}: gone");
    }
    println!("  all: {} of {} travel", show_bytes(bytes), show_bytes(new.grid().data_bytes()));
    Ok(())
}

fn numbers(image: &ImageFolder) -> Vec<u32> {
    image.manifest().partitions.iter().map(|partition| partition.number).collect()
}

fn changes(old: &ImageFolder, new: &ImageFolder) -> Vec<Change> {
    let known: HashSet<Sha256> = old.piece_hashes().iter().copied().collect();
    let before = numbers(old);
    let mut changes = Vec::new();
    for (position, number) in numbers(new).into_iter().enumerate() {
        let mut change = Change { number, ..Change::default() };
        let there = before.iter().position(|other| *other == number);
        for (span, _) in new.grid().cells(position).filter(|(_, cell)| *cell == Cell::Data) {
            let hash = hash_at(new, position, span.offset);
            let same = there.and_then(|position| hash_at(old, position, span.offset)) == hash;
            change.pieces += 1;
            if !same {
                change.changed += 1;
                change.moved += u64::from(hash.is_some_and(|hash| known.contains(&hash)));
                let end = span.offset + u64::from(span.len);
                let runs = new.grid().runs(position).iter();
                let inside = runs.filter(|run| run.start < end && run.end() > span.offset);
                let data = inside.filter(|run| run.kind == flashmob::layout::extents::RangeKind::Data);
                change.bytes += data.map(|run| run.end().min(end) - run.start.max(span.offset)).sum::<u64>();
            }
        }
        changes.push(change);
    }
    changes
}

/// The hash of the piece at `offset` of a partition, if one travels there.
fn hash_at(image: &ImageFolder, partition: usize, offset: u64) -> Option<Sha256> {
    let piece = image.grid().piece_at(partition, offset)?;
    image.piece_hashes().get(piece.get()).copied()
}
