//! The cost of an image: bytes in use, in the payload and on the wire, for filesystems of real files, fresh
//! and aged; how fast a capture is, here and over a link, and how fast a disk becomes the next version.
//!
//!     cargo build --release --workspace --bins
//!     cargo bench -p flashmob-mkimage --bench images -- bytes --tree /usr --size 1GiB
//!     cargo bench -p flashmob-mkimage --bench images -- speed --tree /usr --size 2GiB
//!     cargo bench -p flashmob-mkimage --bench images -- difference --size 4GiB
//!     cargo bench -p flashmob-mkimage --bench images -- lending --size 4GiB
//!
//! Needs root, to mount in a private namespace. Filesystems that this kernel cannot mount are left out,
//! except FAT, which mtools fills.

#![expect(clippy::panic, clippy::unwrap_used, reason = "a bench that cannot run ends")]

mod bytes;
mod difference;
mod lending;
mod speed;
mod volume;

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use clap::{Parser, Subcommand};
use flashmob::units::parse_bytes;
use flashmob_testkit::command::run;

#[derive(Debug, Parser)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
    #[arg(long, hide = true, global = true)]
    bench: bool,
}

#[derive(Debug, Clone, clap::Args)]
struct Content {
    /// Files are taken from there.
    #[arg(long, default_value = "/usr")]
    tree: PathBuf,
    /// Total size of the files
    #[arg(long, default_value = "1GiB", value_parser = parse_bytes)]
    size: u64,
    /// Room for all that is made: about four times the size.
    #[arg(long)]
    folder: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Bytes in use, in the payload, and on the wire.
    Bytes(bytes::Arguments),
    /// Captures beside `cat` and partclone, in turn.
    Speed(speed::Arguments),
    /// A disk that becomes the next version, beside reading it once, in turn.
    Difference(difference::Arguments),
    /// A capture over a link, beside a plain TCP connection, in turn.
    Lending(lending::Arguments),
}

fn main() {
    let arguments = Arguments::parse();
    volume::own_mounts();
    match arguments.verb {
        Verb::Bytes(arguments) => bytes::run(&arguments),
        Verb::Speed(arguments) => speed::run(&arguments),
        Verb::Difference(arguments) => difference::run_all(&arguments),
        Verb::Lending(arguments) => lending::run(&arguments),
    }
}

/// The folder for everything, removed at the end.
fn folder(content: &Content) -> tempfile::TempDir {
    let base = content.folder.clone().unwrap_or_else(std::env::temp_dir);
    tempfile::tempdir_in(base).unwrap()
}

/// `flashmob-mkimage`, as built for this bench.
fn mkimage() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_flashmob-mkimage"))
}

/// A program of another package, from the folder of this one.
fn beside(name: &str) -> PathBuf {
    let path = mkimage().with_file_name(name);
    assert!(path.exists(), "{} is missing: cargo build --release --workspace --bins", path.display());
    path
}

/// Captures, and returns the image's folder.
fn capture(source: &Path, repository: &Path, version: &str, more: &[&str]) -> PathBuf {
    let mut arguments: Vec<&dyn AsRef<OsStr>> =
        vec![&"capture", &source, &"--repository", &repository, &"--name", &"bench", &"--version", &version];
    more.iter().for_each(|argument| arguments.push(argument));
    run(mkimage(), &arguments);
    repository.join("bench").join(version)
}

/// A small random number generator: figures can be had again.
struct Chance(u64);

impl Chance {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % n.max(1)
    }
}
