//! `capture`: a disk becomes an image.
//!
//! All refusals come before the first piece is read. One pass over the source follows, then the image appears
//! in the repository in one step.

mod ahead;
mod backing;
mod blank;
mod blocks;
mod boot;
mod boot_areas;
mod btrfs;
mod filesystem;
mod grow;
mod grub;
mod in_place;
mod parent;
mod payload;
mod plan;
mod publish;
pub(crate) mod ranges;
mod rehearsal;
mod share;
mod shrink;
mod soundness;
pub(crate) mod used;
mod volumes;
mod windows;
mod writer;

use std::path::PathBuf;

use flashmob::event::Failure;
use flashmob::image_id::is_plain_name;
use flashmob::layout::extents::Extents;
use flashmob::manifest::{Boot, Disk};
use flashmob::units::{PieceLength, SectorSize, parse_bytes, show_bytes};
use minisign::SecretKey;

use crate::format::Format;
use crate::keys::read_secret;
use crate::progress::Progress;
use crate::source::Source;
use in_place::Place;
use parent::Parent;
use payload::Terms;
use plan::Plan;
use share::Shared;

/// Bytes of each payload file by default.
const FILE_SIZE: u64 = 64 << 30;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// A disk (/dev/sda), a partition (/dev/sda2), a raw image file of either, a virtual disk (qcow2, vhdx,
    /// vmdk, vdi, vhd), or a disk that an NBD server lends: nbd://HOST[:PORT]/EXPORT. No part of it may be
    /// mounted or running.
    source: PathBuf,
    /// Format of the source; decided by the name's ending if left out, never by the content.
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// Bytes of a sector of a file or of a disk on the network, if it has no GPT, which tells them: 512 or
    /// 4096.
    #[arg(long, value_name = "BYTES", value_parser = sectors)]
    sector_size: Option<SectorSize>,
    /// The folder with one folder for each image; made if it is not there.
    #[arg(long, value_name = "DIR")]
    repository: PathBuf,
    #[arg(long)]
    name: String,
    /// The version; today's date (UTC) with a number if left out.
    #[arg(long)]
    version: Option<String>,
    /// Length of a piece: 1, 2, 4, 8, 16 or 32 MiB (smaller powers of two from 16 KiB for small tests); 4
    /// MiB, or the parent's, if left out.
    #[arg(long)]
    piece_length: Option<PieceLength>,
    /// Bytes of each payload file: a multiple of the piece length; 64 GiB, or the parent's, if left out.
    #[arg(long, value_parser = parse_bytes)]
    file_size: Option<u64>,
    /// "reference" leaves the payload on the source, which must stay unchanged where `flashmob serve` can
    /// read it; no copy is made.
    #[arg(long, value_enum, default_value_t = Keeping::Copy)]
    payload: Keeping,
    /// Share unchanged pieces with this version of the image instead of storing them again.
    #[arg(long, value_name = "VERSION")]
    parent: Option<String>,
    /// With --parent: make payload files that any BitTorrent client can seed, even if unchanged pieces have
    /// to be copied for that.
    #[arg(long, requires = "parent")]
    whole_files: bool,
    /// Read zeros where the source cannot be read, and list these ranges in the manifest.
    #[arg(long)]
    rescue: bool,
    /// "none" publishes without hashing; `flashmob-mkimage hash` adds the hashes while terminals write
    /// already.
    #[arg(long, value_enum, default_value_t = PieceHashes::Make)]
    piece_hashes: PieceHashes,
    /// Sign the manifest with this secret key.
    #[arg(long, value_name = "SECRET")]
    key: Option<PathBuf>,
    /// Keep this partition of the terminal, which must exist there already; may be repeated.
    #[arg(long, value_name = "N")]
    keep: Vec<u32>,
    /// Let a partition and its filesystem (ext4, XFS, Btrfs, NTFS), or its volume of LVM by the helper in the
    /// system, grow to the end of larger disks; partitions behind it move there. The last one that can, or
    /// the one with this number. Terminals need netboot files of this version or later.
    #[arg(long, value_name = "N", num_args = 0..=1, require_equals = true, default_missing_value = "last")]
    grow: Option<grow::Choice>,
    /// Take this partition without looking into its filesystem: everything except zeros, including deleted
    /// files. May be repeated.
    #[arg(long, value_name = "N")]
    raw: Vec<u32>,
    /// Make an image that fits smaller disks: the last partition that can be (ext2, ext3, ext4, NTFS or
    /// Btrfs) is shrunk to what its files need and SIZE of free room, a tenth of that if left out. Data and
    /// swap partitions of a GPT behind it move towards it. It happens on a temporary overlay, never on the
    /// source. TMPDIR needs room for what has to move.
    #[arg(
        long,
        value_name = "SIZE",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "",
    )]
    shrink: Option<shrink::Room>,
    /// The loader that terminals start, if the disk has several systems: a path on the EFI system partition,
    /// for example /EFI/debian/shimx64.efi. If left out, a system's own boot menu goes before Windows, with a
    /// remark.
    #[arg(long, value_name = "PATH")]
    loader: Option<String>,
    /// The kernel for kexec, a path on one of the partitions (read from GRUB's configuration if left out).
    #[arg(long, value_name = "PATH", requires = "cmdline")]
    kernel: Option<String>,
    /// Its initrd, on the same partition.
    #[arg(long, value_name = "PATH", requires = "kernel")]
    initrd: Option<String>,
    /// Its command line.
    #[arg(long, value_name = "TEXT", requires = "kernel")]
    cmdline: Option<String>,
    /// Print "percent N" on stdout now and then, for programs.
    #[arg(long, hide = true)]
    percent: bool,
    /// Text that is signed with the manifest and shown by `minisign -V`.
    #[arg(long, value_name = "TEXT", requires = "key")]
    trusted_comment: Option<String>,
}

fn sectors(text: &str) -> Result<SectorSize, String> {
    let bytes = text.parse().ok().and_then(SectorSize::new);
    bytes.ok_or_else(|| "sectors have 512 or 4096 bytes".into())
}

/// Whether a capture hashes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum PieceHashes {
    /// For each piece, on all cores, while reading.
    Make,
    /// Later.
    None,
}

/// Where the payload is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Keeping {
    /// In the version's folder.
    Copy,
    /// On the source.
    Reference,
}

impl Arguments {
    fn named_kernel(&self) -> Option<boot::Named> {
        let (kernel, cmdline) = self.kernel.clone().zip(self.cmdline.clone())?;
        Some(boot::Named { kernel, initrd: self.initrd.clone(), cmdline })
    }

    /// Opens the parent, if there is one.
    fn open_parent(&self) -> Result<Option<Parent>, Failure> {
        let Some(version) = &self.parent else { return Ok(None) };
        let parent = Parent::open(&self.repository.join(&self.name).join(version))?;
        if let Some(length) = self.piece_length {
            parent::refuse_other_length(&parent, length)?;
        }
        Ok(Some(parent))
    }

    /// How the payload is made.
    fn terms<'a>(&self, parent: Option<&'a Parent>) -> Result<Terms<'a>, Failure> {
        let theirs = parent.map(Parent::lengths);
        let piece_length = match (self.piece_length, theirs) {
            (Some(length), _) | (None, Some((length, _))) => length,
            (None, None) => PieceLength::DEFAULT,
        };
        let file_size = self.file_size.or(theirs.map(|(_, size)| size)).unwrap_or(FILE_SIZE);
        if file_size == 0 || !file_size.is_multiple_of(piece_length.bytes()) {
            return Err(Failure::usage(
                format!("payload files of {file_size} bytes are not a multiple of the piece length"),
                "Give --file-size as a multiple of --piece-length, for example 64GiB.",
            ));
        }
        Ok(Terms {
            piece_length,
            file_size,
            hashed: self.piece_hashes == PieceHashes::Make,
            rescue: self.rescue,
            copy: self.payload == Keeping::Copy,
            parent,
            whole_files: self.whole_files,
        })
    }
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    check(arguments)?;
    let key = arguments.key.as_deref().map(read_secret).transpose()?;
    let parent = arguments.open_parent()?;
    let place = (arguments.payload == Keeping::Reference)
        .then(|| Place::of(&arguments.source, arguments.format))
        .transpose()?;
    let terms = arguments.terms(parent.as_ref())?;
    let source = Source::claim(&arguments.source, arguments.format)?.with_sectors(arguments.sector_size);
    let source = match arguments.shrink {
        Some(room) => shrink::shrink(source, room, &arguments.keep, &arguments.raw)?,
        None => source,
    };
    let captured = capture(arguments, &source, key.as_ref(), &terms, place);
    // A lost connection shows first as a disk or a filesystem that cannot be read.
    captured.map_err(|failure| source.gone().unwrap_or(failure))
}

fn capture(
    arguments: &Arguments,
    source: &Source,
    key: Option<&SecretKey>,
    terms: &Terms<'_>,
    place: Option<Place>,
) -> Result<(), Failure> {
    let mut plan = plan::make(source, &arguments.keep)?;
    grow::mark(&mut plan, arguments.grow)?;
    used::look(source, &mut plan, &arguments.raw)?;
    blank::find(source, &mut plan);
    payload::refuse_too_many(&plan, terms.piece_length)?;
    let named = arguments.named_kernel();
    let starts = boot::look(&source.file, &plan.partitions, named.as_ref(), arguments.loader.as_deref())?;
    let areas = boot_areas::read(source, &plan)?;
    for remark in plan.remarks.iter().chain(&starts.remarks).chain(&areas.remarks) {
        eprintln!("note: {remark}");
    }
    let disk = Disk {
        sector_size: source.sector_size,
        minimum_size: plan.minimum_size,
        table: plan.table.clone(),
        boot_areas: areas.areas,
    };
    let starts = Boot { bios: areas.boot_code, uefi: starts.uefi, linux: starts.linux };
    let golden = rehearsal::Golden {
        name: &arguments.name,
        disk: disk.clone(),
        partitions: &plan.partitions,
        boot: starts.clone(),
        boot_bytes: &areas.bytes,
        size: source.size,
    };
    rehearsal::check_early(golden, terms)?;
    let partial =
        publish::Partial::create(&arguments.repository, &arguments.name, arguments.version.as_deref())?;
    let mut progress = Progress::new("capturing", plan.bytes).told(arguments.percent);
    let taken = payload::take(source, &plan, terms, partial.path(), &mut progress);
    progress.finish();
    let taken = taken?;
    if taken.pieces == 0 {
        return Err(Failure::refused(
            format!("{} has only zeros: there is nothing to make an image of", source.path.display()),
            "Check that it is the disk that you mean.",
        ));
    }
    source.refuse_changed()?;
    let place = place.map(|place| place.finish(partial.path(), &plan)).transpose()?;
    tell_used(&plan);
    let image = publish::Content {
        disk,
        source_size: source.size,
        partitions: plan.partitions,
        extents: Extents { partitions: taken.runs },
        boot: starts,
        boot_bytes: areas.bytes,
        piece_length: terms.piece_length,
        file_size: terms.file_size,
        pieces: taken.pieces,
        hashes: taken.hashes,
        lost: taken.lost,
    };
    let comment = arguments.trusted_comment.as_deref();
    let published = partial.publish(image, key, comment)?;
    tell(&published, plan.bytes, &progress);
    if let Some(received) = source.received() {
        println!("  {} came over the network", show_bytes(received));
    }
    if let Some(place) = place {
        println!(
            "  the payload stays on {place}: keep it as it is, there, as long as this version is served"
        );
    }
    taken.shared.iter().for_each(tell_shared);
    Ok(())
}

fn tell_used(plan: &Plan) {
    for (partition, used) in plan.partitions.iter().zip(&plan.used) {
        if let Some(used) = used {
            let (number, name) = (partition.number, partition.filesystem.unwrap_or("data"));
            let (used, size) = (show_bytes(used.bytes()), show_bytes(partition.size));
            println!("  partition {number} ({name}): {used} of {size} in use");
        }
    }
}

fn tell_shared(shared: &Shared) {
    println!("  {}", shared.text());
    if shared.damaged > 0 {
        println!(
            "  {} pieces of {} are DAMAGED on the disk, and stored anew here",
            shared.damaged, shared.version
        );
    }
}

/// Prints a summary of the new image.
fn tell(published: &publish::Published, read: u64, progress: &Progress) {
    let manifest = &published.manifest;
    println!("{} (sequence {}) is in {}", manifest.id(), manifest.sequence, published.path.display());
    println!(
        "  {} of data in {} pieces of {}; {} read in {:.1} s ({}/s)",
        show_bytes(published.data_bytes),
        manifest.payload.pieces,
        show_bytes(manifest.piece_length.bytes()),
        show_bytes(read),
        progress.seconds(),
        show_bytes(progress.rate()),
    );
    println!("  info-hash {}", manifest.payload.info_hash);
    for lost in &manifest.lost {
        println!("  LOST: {} bytes at byte {} could not be read and are zeros", lost.length, lost.offset.0);
    }
    if manifest.payload.sha256.is_none() {
        println!("  NOT hashed: terminals write it and wait with the last step until somebody runs");
        println!("  flashmob-mkimage hash {} --key SECRET", published.path.display());
    }
    if !published.signed {
        println!("  NOT signed: terminals refuse it until somebody runs");
        println!("  flashmob-mkimage sign {} --key SECRET", published.path.display());
    }
}

/// Checks the command line, without looking at the source.
fn check(arguments: &Arguments) -> Result<(), Failure> {
    let usage = |message: String, advice: &str| Err(Failure::usage(message, advice));
    for text in std::iter::once(&arguments.name).chain(&arguments.version).chain(&arguments.parent) {
        if !is_plain_name(text) {
            return usage(
                format!("'{text}' cannot be the name of an image or a version"),
                "Use letters, digits, '.', '_' and '-' only, and do not begin with '.'.",
            );
        }
    }
    if arguments.payload == Keeping::Reference && arguments.piece_hashes == PieceHashes::None {
        return usage(
            "without hashes nobody can prove that a source that is served in place is still the same".into(),
            "Leave out --payload reference or --piece-hashes none.",
        );
    }
    if arguments.payload == Keeping::Reference && arguments.shrink.is_some() {
        return usage(
            "a payload that stays on its source cannot have a partition that is shrunk in the image only"
                .into(),
            "Leave out --shrink or --payload reference.",
        );
    }
    if arguments.payload == Keeping::Reference && arguments.parent.is_some() {
        return usage(
            "a payload that stays on its source shares nothing with a parent".into(),
            "Leave out --parent or --payload reference.",
        );
    }
    if arguments.payload == Keeping::Reference && arguments.source.to_string_lossy().starts_with("nbd://") {
        return usage(
            "a payload cannot stay on a disk on the network".into(),
            "Leave out --payload reference.",
        );
    }
    if arguments.parent.is_some() && arguments.piece_hashes == PieceHashes::None {
        return usage(
            "without hashes nobody knows what is unchanged since the parent".into(),
            "Leave out --parent or --piece-hashes none.",
        );
    }
    Ok(())
}
