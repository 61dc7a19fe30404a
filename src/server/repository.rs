//! The repository: finds image folders, checks each when it appears or changes, and reports the problems of
//! others.
//!
//! Invariant: an image is published only after all of its sidecars had the hashes of its manifest. A folder
//! is read again only when one of its files changed, so that a scan of many images is cheap. The server
//! checks signatures for people only; terminals check them by their own keys.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use crate::event::Failure;
use crate::image_id::ImageId;
use crate::io::image::folder::{ImageFolder, Listed, list};
use crate::layout::personal;
use crate::layout::plan::Demands;
use crate::manifest::reference::Reference;
use crate::manifest::{TrustedKeys, names};
use crate::server::domain::catalog::{Catalog, Problem, Published, Signature};

/// Finds images again and again.
pub(crate) struct Scanner {
    root: PathBuf,
    keys: Option<PathBuf>,
    key_text: Option<String>,
    seen: BTreeMap<PathBuf, Seen>,
}

struct Seen {
    stamp: Stamp,
    /// Where its payload lies, if not in the folder.
    source: Option<PathBuf>,
    found: Result<(Published, Arc<ImageFolder>), Problem>,
}

type Stamp = Vec<(PathBuf, u64, Option<SystemTime>)>;

/// The result of one scan.
#[derive(Debug, Clone, Default)]
pub(crate) struct Scan {
    /// For people and terminals.
    pub catalog: Catalog,
    /// The folders of `catalog.images`, in the same order.
    pub folders: Vec<Arc<ImageFolder>>,
}

impl Scanner {
    /// For the images below `root`.
    pub(crate) fn new(root: PathBuf) -> Self {
        Scanner { root, keys: None, key_text: None, seen: BTreeMap::new() }
    }

    /// Judges signatures by the keys in this file from now on.
    pub(crate) fn judge_by(&mut self, keys: Option<PathBuf>) {
        self.keys = keys;
    }

    /// Looks at everything that is new or changed. Fails when the repository cannot be listed.
    pub(crate) fn scan(&mut self) -> Result<Scan, Failure> {
        let mut problems = Vec::new();
        let keys = self.read_keys(&mut problems);
        let listed = list(&self.root)?;
        self.seen.retain(|path, _| listed.iter().any(|one| one.path == *path));
        for one in &listed {
            let seen = self.seen.get(&one.path);
            let mut stamp = stamp(&one.path);
            let source = match seen {
                Some(seen) if seen.stamp.starts_with(&stamp) => seen.source.clone(),
                _ => source_of(&one.path),
            };
            stamp.extend(source.as_deref().and_then(look_at_source));
            if seen.is_none_or(|seen| seen.stamp != stamp) {
                let found = open(one, keys.as_ref());
                match &found {
                    Ok((image, _)) => log::info!("image {}: ready, {} bytes travel", image.id(), image.bytes),
                    Err(problem) => log::error!("{}: {}. {}", problem.what, problem.error, problem.advice),
                }
                self.seen.insert(one.path.clone(), Seen { stamp, source, found });
            }
        }
        let mut scan = Scan::default();
        for seen in self.seen.values() {
            match &seen.found {
                Ok((image, folder)) => {
                    problems.extend(doubt(image));
                    scan.catalog.images.push(image.clone());
                    scan.folders.push(Arc::clone(folder));
                }
                Err(problem) => problems.push(problem.clone()),
            }
        }
        if listed.is_empty() {
            problems.push(Problem {
                what: self.root.display().to_string(),
                error: "the repository has no image".into(),
                advice: "Make one with 'flashmob-mkimage capture', or name another folder with --images."
                    .into(),
            });
        }
        scan.catalog.problems = problems;
        scan.catalog.judged = self.keys.is_some();
        Ok(scan)
    }

    /// The present keys; after a change, every image's signature is checked again.
    fn read_keys(&mut self, problems: &mut Vec<Problem>) -> Option<TrustedKeys> {
        let path = self.keys.as_ref()?;
        let text = std::fs::read_to_string(path).map_err(|e| e.to_string());
        if self.key_text != text.as_ref().ok().cloned() {
            self.key_text = text.as_ref().ok().cloned();
            self.seen.clear();
        }
        text.and_then(|text| TrustedKeys::parse(&text).map_err(|e| e.to_string()))
            .map_err(|error| {
                let advice =
                    "The file has one public key a line, as 'flashmob-mkimage keygen' writes it.".into();
                problems.push(Problem { what: format!("keys {}", path.display()), error, advice });
            })
            .ok()
    }
}

/// All that can change of an image without its folder's name changing.
fn stamp(folder: &Path) -> Stamp {
    const FILES: [&str; 8] = [
        names::MANIFEST,
        names::SIGNATURE,
        names::EXTENTS,
        names::PIECES,
        names::BOOT,
        names::TORRENT,
        names::REFERENCE,
        names::AFTER_LIST,
    ];
    let mut files: Vec<PathBuf> = FILES.iter().map(|name| folder.join(name)).collect();
    for payload in [names::PAYLOAD, names::PARTS, names::AFTER] {
        if let Ok(entries) = std::fs::read_dir(folder.join(payload)) {
            files.extend(entries.flatten().map(|entry| entry.path()));
        }
    }
    files.sort();
    let look = |path: PathBuf| {
        let metadata = std::fs::metadata(&path).ok()?;
        Some((path, metadata.len(), metadata.modified().ok()))
    };
    files.into_iter().filter_map(look).collect()
}

/// The source of the payload in `folder`. An unreadable reference is reported when the image is opened.
fn source_of(folder: &Path) -> Option<PathBuf> {
    let bytes = std::fs::read(folder.join(names::REFERENCE)).ok()?;
    match serde_json::from_slice(&bytes) {
        Ok(Reference::Source(source)) => Some(PathBuf::from(source.path)),
        _ => None,
    }
}

/// The facts that change when a source is written to; of a block device only that it exists.
fn look_at_source(path: &Path) -> Option<(PathBuf, u64, Option<SystemTime>)> {
    let metadata = std::fs::metadata(path).ok()?;
    let modified = metadata.is_file().then(|| metadata.modified().ok()).flatten();
    Some((path.to_path_buf(), metadata.len(), modified))
}

fn open(one: &Listed, keys: Option<&TrustedKeys>) -> Result<(Published, Arc<ImageFolder>), Problem> {
    let what = one.path.display().to_string();
    let folder = ImageFolder::open(&one.path).map_err(|f| Problem {
        what: what.clone(),
        error: f.message,
        advice: f.advice,
    })?;
    let manifest = folder.manifest();
    let named = ImageId::new(&one.name, &one.version);
    if manifest.id() != named {
        return Err(Problem {
            what,
            error: format!("its manifest says {}, its folder {named}", manifest.id()),
            advice: "Give the folder back its name: REPOSITORY/IMAGE/VERSION.".into(),
        });
    }
    let image = Published {
        name: manifest.name.clone(),
        version: manifest.version.clone(),
        sequence: manifest.sequence,
        created: manifest.created.clone(),
        bytes: manifest.payload.length(manifest.piece_length),
        info_hash: manifest.payload.info_hash,
        signature: judge(&folder, keys),
        nameless: personal::is_nameless(manifest),
        demands: Demands::of(manifest),
        grows: manifest.partitions.iter().any(|partition| partition.grow),
        blank: manifest.partitions.iter().any(|partition| partition.blank.is_some()),
    };
    if manifest.payload.sha256.is_none() {
        log::warn!(
            "image {}: without hashes; terminals write it and wait for 'flashmob-mkimage hash'",
            image.id()
        );
    }
    Ok((image, Arc::new(folder)))
}

fn judge(folder: &ImageFolder, keys: Option<&TrustedKeys>) -> Signature {
    match (folder.signature(), keys) {
        (None, _) => Signature::Missing,
        (Some(_), None) => Signature::Unjudged,
        (Some(_), Some(keys)) if folder.trusted(keys).is_ok() => Signature::Good,
        (Some(_), Some(_)) => Signature::Bad,
    }
}

fn doubt(image: &Published) -> Option<Problem> {
    let error = match image.signature {
        Signature::Good | Signature::Unjudged => return None,
        Signature::Bad => "its signature is not by one of the configured keys",
        Signature::Missing => "it is not signed",
    };
    Some(Problem {
        what: format!("image {}", image.id()),
        error: error.into(),
        advice: "Terminals will refuse it. Where keys are configured, it does not count as the newest \
            version. Sign it with 'flashmob-mkimage sign'."
            .into(),
    })
}
