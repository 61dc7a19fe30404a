//! The image in its repository, complete or not at all.
//!
//! Invariant: until the last step all files are in a folder that no reader takes for an image
//! ([`PARTIAL_PREFIX`]). The last step is one rename that replaces nothing. A capture that fails removes its
//! folder; one that was killed leaves it, and the next capture into the same image removes it (a lock on the
//! folder tells dead from alive).

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use flashmob::event::Failure;
use flashmob::image_id::is_plain_name;
use flashmob::io::hash::{self, sha256_of_hashes};
use flashmob::io::image::folder::{ImageFolder, PARTIAL_PREFIX};
use flashmob::layout::extents::{Extents, MAX_EXTENTS_BYTES};
use flashmob::layout::grid::{classify, count};
use flashmob::layout::image::payload_files;
use flashmob::manifest::{
    Boot, Disk, FORMAT, Lost, MAX_MANIFEST_BYTES, Manifest, Partition, Payload, Policy, names,
};
use flashmob::metainfo::{Metainfo, MetainfoBuilder, Pieces};
use flashmob::units::{PieceLength, Sha256};
use jiff::{Timestamp, Unit};
use minisign::SecretKey;
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};

use super::payload::Hashes;
use super::plan::PartitionPlan;
use super::rehearsal;
use crate::keys::{file_failure, sync_folder, write_new};
use crate::sign::write_signature;

/// Everything of an image but the payload files, which are there already.
pub(super) struct Content {
    pub disk: Disk,
    /// Bytes of the source.
    pub source_size: u64,
    pub partitions: Vec<PartitionPlan>,
    pub extents: Extents,
    pub boot: Boot,
    pub boot_bytes: Vec<u8>,
    pub piece_length: PieceLength,
    pub file_size: u64,
    pub pieces: u32,
    pub hashes: Option<Hashes>,
    pub lost: Vec<Lost>,
}

/// An image that is there.
pub(super) struct Published {
    pub path: PathBuf,
    pub manifest: Manifest,
    /// Bytes of the payload that are not zero.
    pub data_bytes: u64,
    pub signed: bool,
}

/// An image in the making. Dropped unpublished, it is removed.
pub(super) struct Partial {
    image: PathBuf,
    path: PathBuf,
    name: String,
    version: Option<String>,
    published: bool,
    /// Held as long as this capture lives.
    _lock: Option<File>,
}

impl Partial {
    /// Makes the folder in `<repository>/<name>`. Refused if `version` exists.
    pub(super) fn create(repository: &Path, name: &str, version: Option<&str>) -> Result<Self, Failure> {
        let image = repository.join(name);
        fs::create_dir_all(&image).map_err(|e| file_failure("making", &image, &e))?;
        if let Some(version) = version {
            refuse_existing(&image.join(version))?;
        }
        // One at a time makes its folder and locks it: between the two it would look like one that a dead
        // capture left.
        let _lock = lock_folder(&image);
        remove_dead(&image)?;
        let path = make_partial(&image)?;
        let lock = lock_folder(&path);
        let (name, version) = (name.to_string(), version.map(str::to_string));
        let partial = Partial { image, path, name, version, published: false, _lock: lock };
        let payload = partial.path.join(names::PAYLOAD);
        fs::create_dir(&payload).map_err(|e| file_failure("making", &payload, &e))?;
        Ok(partial)
    }

    /// Where the payload is made.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Writes the remaining files, checks the folder as a reader would, and makes it an image.
    pub(super) fn publish(
        mut self,
        content: Content,
        key: Option<&SecretKey>,
        comment: Option<&str>,
    ) -> Result<Published, Failure> {
        // One at a time chooses a version and a sequence number.
        let _lock = lock_folder(&self.image);
        let now = Timestamp::now();
        let version = match &self.version {
            Some(version) => version.clone(),
            None => free_version(&self.image, now),
        };
        let sequence = next_sequence(&self.image)?;
        let manifest = self.write(content, version, sequence, now)?;
        let bytes = manifest.to_bytes();
        if let Some(key) = key {
            write_signature(&self.path, &manifest, &bytes, key, comment)?;
        }
        for folder in [names::PAYLOAD, names::PARTS].map(|name| self.path.join(name)) {
            if folder.exists() {
                sync_folder(&folder)?;
            }
        }
        sync_folder(&self.path)?;
        let data_bytes = ImageFolder::open(&self.path)?.grid().data_bytes();
        let target = self.image.join(&manifest.version);
        refuse_existing(&target)?;
        rename_new(&self.path, &target)
            .map_err(|e| file_failure("renaming the finished image to", &target, &e))?;
        self.published = true;
        sync_folder(&self.image)?;
        // The image's own folder may be new as well.
        self.image.parent().map_or(Ok(()), sync_folder)?;
        Ok(Published { path: target, manifest, data_bytes, signed: key.is_some() })
    }

    /// Writes sidecars, torrent and manifest.
    fn write(
        &self,
        content: Content,
        version: String,
        sequence: u64,
        now: Timestamp,
    ) -> Result<Manifest, Failure> {
        let torrent = make_torrent(&content, &version)?;
        let extents = content.extents.encode();
        if extents.len() > MAX_EXTENTS_BYTES {
            return Err(Failure::refused(
                format!("the source is too fragmented: its ranges take {} bytes", extents.len()),
                "Capture its partitions one by one.",
            ));
        }
        let sha256 = content.hashes.as_ref().map(|hashes| hashes.sha256.as_slice());
        let hashes = sha256.map(|all| (names::PIECES, all.iter().flat_map(|hash| hash.0).collect()));
        let sidecars = [
            (names::EXTENTS, extents),
            (names::BOOT, content.boot_bytes.clone()),
            (names::TORRENT, torrent.to_bytes()),
        ];
        let mut sums = std::collections::BTreeMap::new();
        for (name, bytes) in sidecars.iter().chain(&hashes) {
            write_new(&self.path.join(name), 0o644, bytes)?;
            sums.insert((*name).to_string(), hash::sha256(bytes));
        }
        let created = now.round(Unit::Second).unwrap_or(now).to_string();
        let manifest = Manifest {
            format: FORMAT,
            name: self.name.clone(),
            version,
            sequence,
            created,
            piece_length: content.piece_length,
            disk: content.disk,
            partitions: describe(content.partitions, &content.extents, content.piece_length, sha256),
            boot: content.boot,
            payload: Payload {
                pieces: torrent.piece_count(),
                file_size: content.file_size,
                info_hash: torrent.info_hash,
                sha256: sha256.map(sha256_of_hashes),
            },
            sidecars: sums,
            lost: content.lost,
        };
        rehearsal::check(&manifest, &content.boot_bytes, content.source_size)?;
        let bytes = manifest.to_bytes();
        if bytes.len() > MAX_MANIFEST_BYTES {
            return Err(Failure::refused(
                format!(
                    "the manifest would have {} bytes, with {} ranges that could not be read; at most \
                     {MAX_MANIFEST_BYTES} are read",
                    bytes.len(),
                    manifest.lost.len()
                ),
                "Copy the source with ddrescue to a sound disk, and capture that.",
            ));
        }
        write_new(&self.path.join(names::MANIFEST), 0o644, &bytes)?;
        Ok(manifest)
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        if !self.published
            && let Err(e) = fs::remove_dir_all(&self.path)
        {
            eprintln!("note: {} could not be removed: {e}", self.path.display());
        }
    }
}

/// Makes a folder with a unique name: captures on other machines may have the same process number.
fn make_partial(image: &Path) -> Result<PathBuf, Failure> {
    let own = format!("{PARTIAL_PREFIX}{}", std::process::id());
    let mut path = image.join(&own);
    let mut number = 1u64;
    loop {
        match fs::create_dir(&path) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                number += 1;
                path = image.join(format!("{own}-{number}"));
            }
            made => return made.map(|()| path.clone()).map_err(|e| file_failure("making", &path, &e)),
        }
    }
}

/// Waits for a folder's lock. Some network filesystems cannot lock folders: there, captures of one image must
/// not run at the same time, and an administrator has to remove the leftovers of killed captures.
fn lock_folder(path: &Path) -> Option<File> {
    let locked = File::open(path).and_then(|folder| folder.lock().map(|()| folder));
    locked.inspect_err(|e| log::warn!("{} cannot be locked: {e}", path.display())).ok()
}

/// Renames a folder to a name that must be free.
fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    match renameat2(AT_FDCWD, from, AT_FDCWD, to, RenameFlags::RENAME_NOREPLACE) {
        // Network filesystems know only plain `rename`, which does not replace a folder that is not empty.
        Err(Errno::EINVAL | Errno::ENOSYS) => fs::rename(from, to),
        other => other.map_err(io::Error::from),
    }
}

fn make_torrent(content: &Content, version: &str) -> Result<Metainfo, Failure> {
    let length = u64::from(content.pieces) * content.piece_length.bytes();
    let builder = MetainfoBuilder {
        name: version.to_string(),
        piece_length: content.piece_length.get(),
        files: payload_files(length, content.file_size),
        pieces: match &content.hashes {
            Some(hashes) => Pieces::Hashed(hashes.sha1.clone()),
            // Or images of one size would be one swarm.
            None => Pieces::Unhashed { nonce: *uuid::Uuid::new_v4().as_bytes() },
        },
        private: true,
    };
    builder.build().map_err(|e| {
        Failure::refused(format!("making the torrent: {e}"), "Use a larger --piece-length or --file-size.")
    })
}

/// The manifest's partitions: places and entries from the plan, counts and hashes from the pass.
fn describe(
    plans: Vec<PartitionPlan>,
    extents: &Extents,
    piece_length: PieceLength,
    hashes: Option<&[Sha256]>,
) -> Vec<Partition> {
    let mut rest = hashes.unwrap_or_default();
    let partition = |(plan, runs): (PartitionPlan, &Vec<_>)| {
        let pieces = count(&classify(runs, plan.size, piece_length));
        let own = if plan.policy == Policy::Replace { pieces.data as usize } else { 0 };
        let (own, after) = rest.split_at(own.min(rest.len()));
        rest = after;
        Partition {
            number: plan.number,
            first: plan.first,
            size: plan.size,
            entry: plan.entry,
            role: plan.role,
            filesystem: plan.filesystem.map(str::to_string),
            policy: plan.policy,
            grow: plan.grow,
            blank: plan.blank,
            pieces,
            sha256: (plan.policy == Policy::Replace && hashes.is_some()).then(|| sha256_of_hashes(own)),
        }
    };
    plans.into_iter().zip(&extents.partitions).map(partition).collect()
}

fn refuse_existing(version: &Path) -> Result<(), Failure> {
    if version.symlink_metadata().is_err() {
        return Ok(());
    }
    Err(Failure::refused(
        format!("{} exists", version.display()),
        "A version is never overwritten: give another --version, or leave it out for the next free one.",
    ))
}

/// Today's date with the first number that is free.
fn free_version(image: &Path, now: Timestamp) -> String {
    let day = now.strftime("%Y-%m-%d").to_string();
    let taken = |version: &String| image.join(version).symlink_metadata().is_ok();
    (1u64..).map(|n| format!("{day}.{n}")).find(|version| !taken(version)).unwrap_or(day)
}

/// One more than the highest sequence number of all versions.
fn next_sequence(image: &Path) -> Result<u64, Failure> {
    let mut highest = 0;
    for entry in fs::read_dir(image).map_err(|e| file_failure("listing", image, &e))? {
        let entry = entry.map_err(|e| file_failure("listing", image, &e))?;
        let path = entry.path().join(names::MANIFEST);
        if !entry.file_name().to_str().is_some_and(is_plain_name) || !path.exists() {
            continue;
        }
        let bytes = fs::read(&path).map_err(|e| file_failure("reading", &path, &e))?;
        let manifest = Manifest::parse(&bytes).map_err(|e| {
            Failure::refused(
                format!("{}: {e}, so the next sequence number is not known", path.display()),
                "Repair or remove that version first.",
            )
        })?;
        highest = highest.max(manifest.sequence);
    }
    Ok(highest + 1)
}

/// Removes the folders of killed captures.
fn remove_dead(image: &Path) -> Result<(), Failure> {
    for entry in fs::read_dir(image).map_err(|e| file_failure("listing", image, &e))? {
        let path = entry.map_err(|e| file_failure("listing", image, &e))?.path();
        let partial = path.file_name().and_then(|name| name.to_str());
        if !partial.is_some_and(|name| name.starts_with(PARTIAL_PREFIX)) {
            continue;
        }
        // A capture that still works on it holds its lock.
        if File::open(&path).is_ok_and(|folder| folder.try_lock().is_ok()) {
            match fs::remove_dir_all(&path) {
                // It was at its end, and removed or renamed the folder itself.
                Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                removed => removed.map_err(|e| file_failure("removing", &path, &e))?,
            }
            eprintln!("note: removed {}, which an interrupted capture had left", path.display());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_free_number_of_the_day_is_taken() {
        let dir = tempfile::tempdir().expect("a folder");
        let now: Timestamp = "2026-11-23T23:59:59Z".parse().expect("a time");
        assert_eq!(free_version(dir.path(), now), "2026-11-23.1");
        fs::create_dir(dir.path().join("2026-11-23.1")).expect("a folder");
        assert_eq!(free_version(dir.path(), now), "2026-11-23.2");
    }

    #[test]
    fn what_a_dead_capture_left_is_removed_and_what_a_living_one_makes_is_not() {
        let dir = tempfile::tempdir().expect("a folder");
        let image = dir.path().join("lab");
        let alive = Partial::create(dir.path(), "lab", None).expect("a partial image");
        let dead = image.join(".partial-0");
        fs::create_dir(&dead).expect("a folder");
        remove_dead(&image).expect("removed");
        assert!(!dead.exists());
        assert!(alive.path().exists());
        let path = alive.path().to_path_buf();
        drop(alive);
        assert!(!path.exists());
    }
    #[test]
    fn captures_that_begin_at_the_same_moment_leave_each_others_folders_alone() {
        let dir = tempfile::tempdir().expect("a folder");
        let begin = || {
            for _ in 0..100 {
                let partial = Partial::create(dir.path(), "lab", None).expect("a partial image");
                fs::write(partial.path().join(names::PAYLOAD).join("0000.bin"), b"x")
                    .expect("its own folder");
            }
        };
        std::thread::scope(|scope| (0..8).for_each(|_| drop(scope.spawn(begin))));
        assert_eq!(fs::read_dir(dir.path().join("lab")).expect("a folder").count(), 0);
    }
}
