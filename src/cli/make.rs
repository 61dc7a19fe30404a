//! `flashmob make`: a torrent of a file, a folder or a block device, hashed on all cores.
//!
//! Invariant: the torrent appears whole or not at all.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use clap::Args;
use tokio::time::interval;

use super::peers::Interrupts;
use super::show::Show;
use crate::event::{Class, Failure};
use crate::io::hash::{HashProgress, hash_pieces};
use crate::io::storage::{BlockStorage, FileStorage, FolderStorage, is_block_device};
use crate::metainfo::{FileEntry, MAX_FILES, MetainfoBuilder, Pieces};
use crate::storage::Storage;
use crate::units::{PieceLength, show_bytes};

/// Make a torrent of a file, a folder or a block device.
#[derive(Debug, Args)]
pub struct MakeArgs {
    /// The file or folder to describe.
    #[arg(value_name = "SOURCE")]
    source: PathBuf,
    /// The .torrent file to write.
    #[arg(value_name = "OUT.torrent")]
    out: PathBuf,
    /// Bytes in a piece: a power of two from 16KiB to 32MiB.
    #[arg(long, value_name = "SIZE", default_value = "4MiB")]
    piece_length: PieceLength,
    /// Announce URL (may be repeated).
    #[arg(long = "tracker", value_name = "URL")]
    trackers: Vec<String>,
    /// Peers are to be found by the tracker alone (BEP 27).
    #[arg(long)]
    private: bool,
}

/// Hashes the source and writes the torrent.
pub async fn run(args: MakeArgs) -> Result<(), Failure> {
    let mut interrupts = Interrupts::new()?;
    let (storage, files) = open(&args.source)?;
    let name = name_of(&args.source)?;
    let total = storage.len();
    if total == 0 {
        let message = format!("{} is empty", args.source.display());
        return Err(Failure::usage(message, "Name something that has bytes."));
    }
    let progress = Arc::new(HashProgress::default());
    let (counted, piece_length) = (Arc::clone(&progress), args.piece_length.get());
    let mut show = Show::new(false, total);
    let mut hashing =
        tokio::task::spawn_blocking(move || hash_pieces(&*storage, piece_length, |_| true, &counted));
    let mut ticks = interval(Duration::from_millis(200));
    let hashes = loop {
        tokio::select! {
            hashes = &mut hashing => break hashes,
            () = interrupts.wait() => progress.stop.store(true, Ordering::Relaxed),
            _ = ticks.tick() => show.bytes("hashing", progress.bytes.load(Ordering::Relaxed), total, ""),
        }
    };
    show.finish();
    let hashes = hashes.map_err(|error| Failure::retry(format!("hashing: {error}"), "Try again."))??;
    let hashes: Option<Vec<_>> = hashes.into_iter().collect();
    let Some(hashes) = hashes else {
        return Err(Failure::retry("stopped before everything was hashed", "Start again."));
    };
    let pieces = hashes.len();
    let builder =
        MetainfoBuilder { name, piece_length, files, pieces: Pieces::Hashed(hashes), private: args.private };
    let meta = builder.build().map_err(|error| {
        Failure::usage(format!("cannot make a torrent of {}: {error}", args.source.display()), "")
    })?;
    let meta = meta.with_trackers(args.trackers);
    write_atomically(&args.out, &meta.to_bytes())?;
    eprintln!(
        "{}: {} in {pieces} pieces, info-hash {}, {:.1} s",
        args.out.display(),
        show_bytes(total),
        meta.info_hash,
        show.seconds()
    );
    Ok(())
}

/// The source as a storage, with the torrent's list of files.
fn open(source: &Path) -> Result<(Box<dyn Storage>, Vec<FileEntry>), Failure> {
    let single = |length| vec![FileEntry::data(Vec::new(), length)];
    if is_block_device(source) {
        let storage = BlockStorage::open(source, None)?;
        let files = single(storage.len());
        return Ok((Box::new(storage), files));
    }
    if source.is_dir() {
        let mut files = Vec::new();
        list(source, &mut Vec::new(), &mut files)?;
        let storage = FolderStorage::open(source, &files)?;
        return Ok((Box::new(storage), files));
    }
    let storage = FileStorage::open(source)?;
    let files = single(storage.len());
    Ok((Box::new(storage), files))
}

/// All files below a folder, by name, so that equal folders make equal torrents.
fn list(folder: &Path, above: &mut Vec<String>, into: &mut Vec<FileEntry>) -> Result<(), Failure> {
    let cannot = |what: &str, path: &Path| {
        let message = format!("{}: {what}", path.display());
        Failure::usage(message, "A torrent holds regular files with UTF-8 names.")
    };
    let entries = std::fs::read_dir(folder).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let mut entries = entries.map_err(|error| cannot(&error.to_string(), folder))?;
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        let path = entry.path();
        let name = entry.file_name().into_string().map_err(|_| cannot("its name is not UTF-8", &path))?;
        let metadata = entry.metadata().map_err(|error| cannot(&error.to_string(), &path))?;
        above.push(name);
        if metadata.is_dir() {
            list(&path, above, into)?;
        } else if metadata.is_file() {
            into.push(FileEntry::data(above.clone(), metadata.len()));
        } else {
            return Err(cannot("it is neither a file nor a folder", &path));
        }
        above.pop();
        if into.len() > MAX_FILES {
            return Err(cannot(&format!("it holds more than {MAX_FILES} files"), folder));
        }
    }
    Ok(())
}

/// The torrent's name: the last element of the source's path.
fn name_of(source: &Path) -> Result<String, Failure> {
    let whole = source.canonicalize().unwrap_or_else(|_| source.to_owned());
    // A device keeps the name it was called by: /dev/disk/by-label/WIN rather than sda3.
    let path = if is_block_device(source) { source } else { &whole };
    path.file_name().and_then(|name| name.to_str()).map(str::to_owned).ok_or_else(|| {
        let message = format!("{} has no name that a torrent can carry", source.display());
        Failure::usage(message, "Rename it.")
    })
}

/// Writes beside `out`, syncs, then renames.
fn write_atomically(out: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let partial = out.with_file_name(format!(
        ".{}.{}.partial",
        out.file_name().unwrap_or_default().to_string_lossy(),
        std::process::id()
    ));
    let write = || {
        let mut file = File::create(&partial)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&partial, out)
    };
    write().map_err(|error: std::io::Error| {
        // Nothing can be done when this fails as well, and the first error says more.
        let _ = std::fs::remove_file(&partial);
        let class = if error.kind() == std::io::ErrorKind::StorageFull { Class::Disk } else { Class::Usage };
        Failure::new(class, format!("cannot write {}: {error}", out.display()), "Choose another place.")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metainfo::Metainfo;

    fn args(source: &Path, out: &Path) -> MakeArgs {
        let piece_length = PieceLength::new(16384).unwrap();
        MakeArgs {
            source: source.into(),
            out: out.into(),
            piece_length,
            trackers: vec!["http://t/a".into()],
            private: false,
        }
    }

    #[tokio::test]
    async fn equal_folders_make_equal_torrents_and_links_are_refused() {
        let temp = tempfile::tempdir().unwrap();
        let folder = temp.path().join("stuff");
        std::fs::create_dir_all(folder.join("b/c")).unwrap();
        std::fs::write(folder.join("z"), vec![1; 20000]).unwrap();
        std::fs::write(folder.join("b/c/a"), vec![2; 5]).unwrap();
        let out = temp.path().join("t.torrent");
        run(args(&folder, &out)).await.unwrap();
        let meta = Metainfo::parse(&std::fs::read(&out).unwrap()).unwrap();
        let paths: Vec<_> = meta.files.iter().map(|file| file.path.join("/")).collect();
        assert_eq!(paths, ["b/c/a", "z"]);
        assert_eq!((meta.name.as_str(), meta.trackers.len()), ("stuff", 1));
        std::os::unix::fs::symlink("z", folder.join("link")).unwrap();
        assert_eq!(run(args(&folder, &out)).await.unwrap_err().class, Class::Usage);
        let left: Vec<_> = std::fs::read_dir(temp.path()).unwrap().collect();
        assert_eq!(left.len(), 2, "no partial file stays: {left:?}");
    }

    #[tokio::test]
    async fn nothing_and_nowhere_are_errors_of_usage() {
        let temp = tempfile::tempdir().unwrap();
        let (source, out) = (temp.path().join("f"), temp.path().join("no/such/folder/t.torrent"));
        assert_eq!(run(args(&source, &out)).await.unwrap_err().class, Class::Usage);
        std::fs::write(&source, b"").unwrap();
        assert_eq!(run(args(&source, &out)).await.unwrap_err().class, Class::Usage);
        std::fs::write(&source, b"x").unwrap();
        assert_eq!(run(args(&source, &out)).await.unwrap_err().class, Class::Usage);
    }
}
