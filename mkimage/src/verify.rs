//! `verify`: an image folder against its manifest, or a disk against an image.
//!
//! Invariant: success means that every byte the manifest answers for was read and is right. The first
//! mismatches are named by partition, piece and place; nothing is repaired here.

use std::fs;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::sync::OnceLock;

use flashmob::buf::is_zero;
use flashmob::event::Failure;
use flashmob::io::disk::table::{self, TablePartition};
use flashmob::io::hash::{sha1, sha256};
use flashmob::io::image::folder::ImageFolder;
use flashmob::layout::grid::{Cell, Grid, Span};
use flashmob::layout::plan::could_be;
use flashmob::manifest::{Manifest, Policy, Table};
use flashmob::units::{PieceIndex, Sha256, show_bytes};

use crate::capture::used;
use crate::format::Format;
use crate::inspect::SignatureState;
use crate::keys::{file_failure, read_public, require_hashes};
use crate::pipeline;
use crate::progress::Progress;
use crate::source::Source;

/// As many mismatches are named.
const NAMED: usize = 10;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The image's folder (REPOSITORY/NAME/VERSION).
    folder: PathBuf,
    /// Require a good signature by this public key.
    #[arg(long, value_name = "FILE")]
    public: Option<PathBuf>,
    /// Compare this disk (or partition, or raw image file) with the image instead of the image's own payload.
    #[arg(long, value_name = "DEVICE_OR_FILE")]
    disk: Option<PathBuf>,
    /// Format of the disk; decided by the name's ending if left out, never by the content.
    #[arg(long, value_enum, requires = "disk")]
    format: Option<Format>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let keys = arguments.public.as_deref().map(read_public).transpose()?;
    let image = ImageFolder::open(&arguments.folder)?;
    let state = SignatureState::of(&image, keys.as_ref());
    if keys.is_some() {
        state.require()?;
    }
    require_hashes(&image)?;
    let mut mismatches = Mismatches::default();
    let what = match &arguments.disk {
        None => {
            verify_payload(&image, &mut mismatches)?;
            verify_files(&image, &mut mismatches)?;
            format!("{} in {}", image.manifest().id(), arguments.folder.display())
        }
        Some(disk) => {
            let source = Source::look_at(disk, arguments.format)?;
            verify_disk(&image, &source, &mut mismatches)?;
            format!("{} against {}", disk.display(), image.manifest().id())
        }
    };
    mismatches.into_result(&what)?;
    println!("{what}: all right ({})", state.text());
    Ok(())
}

/// The pieces and areas that are wrong.
#[derive(Default)]
struct Mismatches {
    named: Vec<String>,
    count: u64,
}

impl Mismatches {
    fn add(&mut self, text: impl FnOnce() -> String) {
        self.count += 1;
        if self.named.len() < NAMED {
            self.named.push(text());
        }
    }

    fn into_result(self, what: &str) -> Result<(), Failure> {
        if self.count == 0 {
            return Ok(());
        }
        for line in &self.named {
            eprintln!("mismatch: {line}");
        }
        if self.count > self.named.len() as u64 {
            eprintln!("mismatch: and {} more", self.count - self.named.len() as u64);
        }
        let first = self.named.into_iter().next().unwrap_or_default();
        Err(Failure::untrusted(
            format!("{what}: {} mismatches; the first: {first}", self.count),
            "A folder: copy it again from where it was made. A disk: it was changed since, or was not \
             imaged.",
        ))
    }
}

/// The administrator's files for terminals.
fn verify_files(image: &ImageFolder, mismatches: &mut Mismatches) -> Result<(), Failure> {
    for hash in image.after().map(|after| after.blobs()).unwrap_or_default().into_keys() {
        let path = image.after_file(&hash);
        let bytes = fs::read(&path).map_err(|e| file_failure("reading", &path, &e))?;
        if sha256(&bytes).to_string() != hash {
            mismatches.add(|| format!("{} does not have the content of its name", path.display()));
        }
    }
    Ok(())
}

/// Where a piece lies, in words.
fn place(manifest: &Manifest, span: Span, piece: Option<PieceIndex>) -> String {
    let partition = manifest.partitions.get(span.partition).map_or(0, |p| p.number);
    let piece = piece.map_or(String::new(), |piece| format!(", {piece}"));
    format!("partition {partition}{piece}, byte {} of the partition", span.offset)
}

/// Every piece of the payload has the hashes that were published, and is zero where the extents say so.
fn verify_payload(image: &ImageFolder, mismatches: &mut Mismatches) -> Result<(), Failure> {
    let payload = image.payload()?;
    let (grid, length) = (image.grid(), image.manifest().piece_length);
    let buffer = usize::try_from(length.bytes()).unwrap_or(usize::MAX);
    let mut progress = Progress::new("verifying", grid.payload_len());
    let result = pipeline::run(
        buffer,
        (0..grid.pieces()).map(PieceIndex),
        |piece, buf| {
            let read = payload.read_at(u64::from(piece.0) * length.bytes(), buf);
            read.map(|()| true).map_err(|e| match e.source.kind() {
                // A payload in place proves its pieces itself.
                ErrorKind::InvalidData => {
                    Failure::untrusted(e.to_string(), "Capture the source again as a new version.")
                }
                _ => Failure::disk(e.to_string(), "Check the disk that the repository is on."),
            })
        },
        |piece, buf| buf.map(|buf| what_is_wrong(image, *piece, buf)),
        |piece, _, wrong| {
            if let Some(wrong) = wrong.flatten() {
                let span = grid.span(piece).unwrap_or(Span { partition: 0, offset: 0, len: 0 });
                mismatches.add(|| {
                    let at = u64::from(piece.0) * length.bytes();
                    format!(
                        "{} (byte {at} of the payload): {wrong}",
                        place(image.manifest(), span, Some(piece))
                    )
                });
            }
            progress.advance(length.bytes());
            Ok(())
        },
    );
    progress.finish();
    result
}

fn what_is_wrong(image: &ImageFolder, piece: PieceIndex, bytes: &[u8]) -> Option<&'static str> {
    if image.piece_hashes().get(piece.get()) != Some(&sha256(bytes)) {
        return Some("the payload does not have the SHA-256 of pieces.sha256");
    }
    // An image that was published without hashes keeps its torrent, so that its info-hash stays: no SHA-1 is
    // in there.
    let torrent = image.metainfo();
    if !torrent.unhashed && torrent.pieces.get(piece.get()) != Some(&sha1(bytes)) {
        return Some("the payload does not have the SHA-1 of image.torrent");
    }
    let mut end = 0;
    for range in image.grid().data_ranges(piece) {
        if !is_zero(bytes.get(end..range.start as usize)?) {
            return Some("the payload has data where extents.bin says zero");
        }
        end = range.end as usize;
    }
    (!is_zero(bytes.get(end..)?)).then_some("the payload has data where extents.bin says zero")
}

/// Table, boot areas, and every cell of every replaced partition.
fn verify_disk(image: &ImageFolder, source: &Source, mismatches: &mut Mismatches) -> Result<(), Failure> {
    let manifest = image.manifest();
    if source.size < manifest.disk.minimum_size {
        return Err(Failure::refused(
            format!(
                "{} has {} bytes ({}), the image needs {} ({}): {} too few",
                source.path.display(),
                source.size,
                show_bytes(source.size),
                manifest.disk.minimum_size,
                show_bytes(manifest.disk.minimum_size),
                manifest.disk.minimum_size - source.size
            ),
            "Is this the disk that you mean?",
        ));
    }
    let starts = compare_table(manifest, source, mismatches)?;
    for area in &manifest.disk.boot_areas {
        let mut bytes = vec![0; usize::try_from(area.length).unwrap_or(0)];
        source.read(area.offset.0, &mut bytes)?;
        let at = usize::try_from(area.at).unwrap_or(usize::MAX);
        if image.boot_bytes().get(at..).and_then(|rest| rest.get(..bytes.len())) != Some(&bytes[..]) {
            mismatches.add(|| format!("boot area {:?} at {} differs", area.kind, area.offset));
        }
    }
    compare_cells(image, source, &starts, mismatches)
}

/// The table's entries are the manifest's, kept partitions included, or what a terminal with a larger disk
/// makes of them. Returns the first byte of each partition.
fn compare_table(
    manifest: &Manifest,
    source: &Source,
    mismatches: &mut Mismatches,
) -> Result<Vec<u64>, Failure> {
    let disk = &manifest.disk;
    let byte = |first| disk.sector_size.offset_of(first).map_or(0, |offset| offset.0);
    let mut starts: Vec<u64> = manifest.partitions.iter().map(|p| byte(p.first)).collect();
    if disk.table == Table::None {
        return Ok(starts);
    }
    let Some(found) = table::read(&mut &source.file, source.size, disk.sector_size)? else {
        mismatches.add(|| "there is no partition table".into());
        return Ok(starts);
    };
    if found.table != disk.table {
        mismatches.add(|| format!("the table is {:?}, the image's is {:?}", found.table, disk.table));
    }
    for (p, start) in manifest.partitions.iter().zip(&mut starts) {
        let wanted =
            TablePartition { number: p.number, first: p.first, size: p.size, entry: p.entry.clone() };
        match found.partitions.iter().find(|there| there.number == p.number) {
            None => mismatches.add(|| format!("partition {} is not there", p.number)),
            Some(there) if there.entry == p.entry && could_be(manifest, p, there.first, there.size) => {
                *start = byte(there.first);
            }
            Some(there) if *there != wanted => {
                mismatches.add(|| format!("partition {} is {there:?}, the image's is {wanted:?}", p.number));
            }
            Some(_) => {}
        }
    }
    for there in &found.partitions {
        if manifest.partition(there.number).is_none() {
            mismatches.add(|| format!("partition {} is not in the image", there.number));
        }
    }
    Ok(starts)
}

/// A cell that has something to be compared.
struct Job {
    span: Span,
    start: u64,
    wanted: Wanted,
}

enum Wanted {
    Zeros,
    Piece(PieceIndex, Sha256),
}

impl Wanted {
    /// The first wrong byte of a cell; 0 if only the hash shows that it is wrong.
    fn differs(&self, bytes: &[u8]) -> Option<usize> {
        match self {
            Wanted::Zeros => bytes.iter().position(|byte| *byte != 0),
            Wanted::Piece(_, sum) => (sha256(bytes) != *sum).then_some(0),
        }
    }
}

fn jobs<'a>(
    image: &'a ImageFolder,
    grid: &'a Grid,
    starts: &'a [u64],
) -> impl Iterator<Item = Job> + Send + 'a {
    let manifest = image.manifest();
    let partitions = manifest.partitions.iter().zip(starts).enumerate();
    let replaced = partitions.filter(|(_, (p, _))| p.policy == Policy::Replace);
    replaced.flat_map(move |(i, (_, first))| {
        grid.cells(i).filter_map(move |(span, cell)| {
            let wanted = match cell {
                Cell::Free => return None,
                Cell::Zero => Wanted::Zeros,
                Cell::Data => {
                    let piece = grid.piece_at(i, span.offset)?;
                    Wanted::Piece(piece, *image.piece_hashes().get(piece.get())?)
                }
            };
            Some(Job { span, start: first + span.offset, wanted })
        })
    })
}

fn compare_cells(
    image: &ImageFolder,
    source: &Source,
    starts: &[u64],
    mismatches: &mut Mismatches,
) -> Result<(), Failure> {
    let manifest = image.manifest();
    let grid = image.grid();
    let used = OnceLock::new();
    let buffer = usize::try_from(manifest.piece_length.bytes()).unwrap_or(usize::MAX);
    let mut progress =
        Progress::new("comparing", jobs(image, grid, starts).map(|job| u64::from(job.span.len)).sum());
    let result = pipeline::run(
        buffer,
        jobs(image, grid, starts),
        |job, buf| {
            let (on_disk, beyond) = buf.split_at_mut(job.span.len as usize);
            beyond.fill(0);
            source.read(job.start, on_disk).map(|()| true)
        },
        |job, buf| {
            let buf: &[u8] = buf.map_or(&[], |buf| buf);
            job.wanted.differs(buf).and_then(|_| {
                // Unused ranges may hold anything: on the golden machine, deleted files.
                let mut bytes = buf.to_vec();
                let number = manifest.partitions.get(job.span.partition).map(|p| p.number);
                let used = used.get_or_init(|| used::known(source));
                if let Some((_, used)) = used.iter().find(|(of, _)| Some(*of) == number) {
                    used.mask(job.span.offset, &mut bytes[..job.span.len as usize]);
                }
                job.wanted.differs(&bytes)
            })
        },
        |job, _, wrong| {
            if let Some(at) = wrong {
                mismatches.add(|| match &job.wanted {
                    Wanted::Piece(piece, _) => format!(
                        "{} (byte {} of the disk): does not have the image's hash",
                        place(manifest, job.span, Some(*piece)),
                        job.start
                    ),
                    Wanted::Zeros => {
                        let span = Span { offset: job.span.offset + at as u64, ..job.span };
                        format!("{}: should be zero and is not", place(manifest, span, None))
                    }
                });
            }
            progress.advance(u64::from(job.span.len));
            Ok(())
        },
    );
    progress.finish();
    result
}
