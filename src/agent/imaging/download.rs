//! Fetching an image's description from the server, and trusting it.
//!
//! Invariant: the manifest of a [`Description`] is signed (or unsigned ones are allowed) and names the
//! assigned image, and `layout::image` has checked its sidecars. A file for the terminal has its signed
//! hash. No file larger than its limit is read into memory.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use reqwest::StatusCode;

use crate::agent::imaging::context::ImagingContext;
use crate::api::{Assignment, Task};
use crate::digest::sha256;
use crate::event::{Class, Failure, Installed};
use crate::image_id::ImageId;
use crate::io::net::tracker_client::why;
use crate::layout::extents::MAX_EXTENTS_BYTES;
use crate::layout::grid::Grid;
use crate::layout::image::{self, ImageDescription, SidecarFault, Sidecars, WrongSidecar};
use crate::layout::personal::GivenFile;
use crate::layout::present::Version;
use crate::manifest::after::{After, Rule, Traits};
use crate::manifest::{MAX_MANIFEST_BYTES, Manifest, ManifestError, TrustedManifest, names};
use crate::metainfo::Metainfo;
use crate::units::Sha256;

/// A signature has a few hundred bytes.
const MAX_SIGNATURE_BYTES: usize = 16 << 10;
/// A server that sends nothing for this time is away.
const SILENCE: Duration = Duration::from_secs(20);
/// No file of a description takes longer: they have some MiB, and a thousand terminals may fetch them at
/// once.
const WHOLE_FILE: Duration = Duration::from_secs(600);
/// Attempts to fetch a file, with pauses between, because a thousand terminals may ask at once.
const TRIES: u32 = 4;
const PAUSE: Duration = Duration::from_millis(500);
/// Time between requests for hashes that are still being made, and how often these may come with a wrong
/// signature.
const ASK_FOR_HASHES: Duration = Duration::from_secs(5);
const DOUBTS: u32 = 6;

/// An image before its first piece.
pub(super) struct Description {
    pub(super) trusted: TrustedManifest,
    pub(super) grid: Arc<Grid>,
    pub(super) boot: Vec<u8>,
    /// Of each piece; `None` while the image is published without them.
    pub(super) hashes: Option<Vec<Sha256>>,
    pub(super) torrent: Arc<Metainfo>,
    /// The administrator's files for terminals.
    pub(super) after: Option<Arc<After>>,
}

impl Description {
    pub(super) fn manifest(&self) -> &Manifest {
        self.trusted.manifest()
    }
}

fn untrusted(message: String) -> Failure {
    Failure::untrusted(
        message,
        "Nothing was written. Sign the image with a key that this terminal's netboot files know, or look who \
         changed it on the server.",
    )
}

/// Fetches and checks everything.
pub(super) async fn describe(ctx: &ImagingContext, task: &Task) -> Result<Description, Failure> {
    let files = Files::of(ctx, task);
    let trusted = files.manifest().await?;
    let mut sidecars = Sidecars::new();
    for (name, limit) in image::needed(trusted.manifest()) {
        sidecars.insert(name, files.need(name, limit).await?);
    }
    let image = ImageDescription::assemble(trusted.manifest(), sidecars);
    let image = image.map_err(|wrong| wrong_sidecar(trusted.manifest(), wrong))?;
    let ImageDescription { grid, hashes, boot, torrent, after } = image;
    Ok(Description { trusted, grid, boot, hashes: hashes.map(Arc::unwrap_or_clone), torrent, after })
}

/// Fetches the administrator's files for this terminal, so that an attempt that lacks one begins no write.
/// At most `after::MAX_BYTES`, and each with the hash that the signed list names.
pub(super) async fn files(
    ctx: &ImagingContext,
    assignment: &Assignment,
    image: &Description,
) -> Result<Vec<GivenFile>, Failure> {
    let (Some(after), Some(own)) = (&image.after, &assignment.personal) else { return Ok(Vec::new()) };
    let traits = Traits { room: own.room.as_deref(), groups: &own.groups, model: &own.model };
    let files = Files::ticketed(ctx, &assignment.task);
    let mut contents: BTreeMap<String, Arc<Vec<u8>>> = BTreeMap::new();
    let mut given = Vec::new();
    for (rule, file) in after.of(&traits) {
        let hash = file.sha256.to_string();
        let content = match contents.get(&hash) {
            Some(content) => Arc::clone(content),
            None => {
                let limit = usize::try_from(file.size).unwrap_or(0);
                let bytes = files.need(&format!("{}/{hash}", names::AFTER), limit).await?;
                if sha256(&bytes) != file.sha256 {
                    let id = image.manifest().id();
                    return Err(untrusted(format!(
                        "the file for /{} of {id} is not the signed one",
                        file.path
                    )));
                }
                Arc::new(bytes)
            }
        };
        contents.insert(hash, Arc::clone(&content));
        let (path, mode, sha256) = (file.path.clone(), file.permissions(), file.sha256);
        let Rule { partition, system, .. } = *rule;
        given.push(GivenFile { partition, system, path, mode, sha256, content });
    }
    Ok(given)
}

/// A version that may be on the disk, as far as its pieces must be known.
pub(super) struct Older {
    manifest: TrustedManifest,
    grid: Arc<Grid>,
    hashes: Vec<Sha256>,
    only: Option<Vec<u32>>,
}

impl Older {
    pub(super) fn version(&self) -> Version<'_> {
        let only = self.only.as_deref();
        Version { manifest: self.manifest.manifest(), grid: &self.grid, hashes: &self.hashes, only }
    }
}

/// Fetches and checks the description of an older version, signed like any other.
pub(super) async fn older(ctx: &ImagingContext, installed: &Installed) -> Result<Older, Failure> {
    let Installed { id, partitions, .. } = installed;
    let files = Files::named(ctx, id);
    let manifest = files.manifest().await?;
    let m = manifest.manifest();
    let extents = files.need(names::EXTENTS, MAX_EXTENTS_BYTES).await?;
    let grid = image::grid(m, &extents).map_err(|wrong| wrong_sidecar(m, wrong))?;
    let hashes = files.hashes(m, &grid).await?;
    let hashes = hashes.ok_or_else(|| {
        Failure::refused(format!("{} has no hashes", m.id()), "Add them with mkimage hash.")
    })?;
    Ok(Older { grid, hashes, manifest, only: partitions.clone() })
}

fn wrong_sidecar(manifest: &Manifest, WrongSidecar { file, fault }: WrongSidecar) -> Failure {
    let id = manifest.id();
    match fault {
        SidecarFault::Hash => untrusted(format!("{file} of {id} is not the one that its manifest names")),
        SidecarFault::Content(why) if file == names::BOOT => {
            Failure::refused(format!("{file} of {id} is not usable: {why}"), "Capture the image again.")
        }
        SidecarFault::Content(why) => untrusted(format!("{file} of {id} is not usable: {why}")),
    }
}

/// Waits until the image that is written without hashes has some, and gives them. The manifest that names
/// them must be signed like the first one, and say the same in everything else.
pub(super) async fn hashes(
    ctx: &ImagingContext,
    first: &Manifest,
    grid: &Grid,
) -> Result<Vec<Sha256>, Failure> {
    let at_most = ctx.bounds.hashes;
    tokio::time::timeout(at_most, hashes_some_time(ctx, first, grid)).await.unwrap_or_else(|_| {
        Err(Failure::retry(
            format!(
                "{} has had no hashes for {} s; what was written is not proved",
                first.id(),
                at_most.as_secs()
            ),
            "Add the hashes on the server with 'flashmob-mkimage hash'; the terminal goes on with what it \
             has.",
        ))
    })
}

async fn hashes_some_time(
    ctx: &ImagingContext,
    first: &Manifest,
    grid: &Grid,
) -> Result<Vec<Sha256>, Failure> {
    let id = first.id();
    let files = Files::named(ctx, &id);
    let mut doubts = 0;
    loop {
        let found = match files.manifest().await {
            Ok(manifest) if without_hashes(manifest.manifest()) != without_hashes(first) => {
                return Err(untrusted(format!("{} changed while it was being written", first.id())));
            }
            Ok(manifest) => files.hashes(manifest.manifest(), grid).await,
            Err(failure) => Err(failure),
        };
        match found {
            Ok(Some(hashes)) => return Ok(hashes),
            Ok(None) => doubts = 0,
            Err(failure) if failure.class == Class::Retry => ctx.status.note(failure.message),
            // Manifest and signature do not appear in the same moment.
            Err(failure) if failure.class == Class::Untrusted && doubts < DOUBTS => doubts += 1,
            Err(failure) => return Err(failure),
        }
        tokio::time::sleep(ASK_FOR_HASHES).await;
    }
}

/// The parts of a manifest that stay when hashes are added.
fn without_hashes(manifest: &Manifest) -> Manifest {
    let mut rest = manifest.clone();
    rest.payload.sha256 = None;
    rest.partitions.iter_mut().for_each(|partition| partition.sha256 = None);
    rest.sidecars.remove(names::PIECES);
    rest
}

/// The image's folder on the server.
///
/// Invariant: no message names a URL with a ticket, because everybody may read a terminal's problems.
struct Files<'a> {
    ctx: &'a ImagingContext,
    /// Its path without a ticket.
    folder: String,
    /// For what is not for everybody. Only [`Files::url`] reads it.
    ticket: Option<&'a str>,
    id: &'a ImageId,
}

impl<'a> Files<'a> {
    fn of(ctx: &'a ImagingContext, task: &'a Task) -> Self {
        Files { ctx, folder: task.folder.clone(), ticket: None, id: &task.id }
    }

    fn ticketed(ctx: &'a ImagingContext, task: &'a Task) -> Self {
        Files { ticket: task.ticket.as_deref(), ..Files::of(ctx, task) }
    }

    /// Where every server has it.
    fn named(ctx: &'a ImagingContext, id: &'a ImageId) -> Self {
        Files { ctx, folder: format!("/images/{}/{}/", id.name, id.version), ticket: None, id }
    }

    /// Where the file `name` is fetched.
    fn url(&self, name: &str) -> String {
        match (self.ticket, self.folder.strip_prefix("/images/")) {
            (Some(ticket), Some(rest)) => format!("{}/images/t={ticket}/{rest}{name}", self.ctx.server),
            _ => self.shown(name),
        }
    }

    /// The address of the file `name`, for people.
    fn shown(&self, name: &str) -> String {
        format!("{}{}{name}", self.ctx.server, self.folder)
    }

    async fn manifest(&self) -> Result<TrustedManifest, Failure> {
        let bytes = self.need(names::MANIFEST, MAX_MANIFEST_BYTES).await?;
        let signature = self.get(names::SIGNATURE, MAX_SIGNATURE_BYTES).await?;
        let id = self.id;
        let signed = match &signature {
            Some(signature) => {
                let signature = String::from_utf8_lossy(signature);
                TrustedManifest::verify(&bytes, &signature, &self.ctx.keys)
            }
            None => Err(ManifestError::Untrusted {
                keys: self.ctx.keys.len(),
                why: format!("there is no {}", names::SIGNATURE),
            }),
        };
        let manifest = match signed {
            Err(ManifestError::Untrusted { why, .. }) if self.ctx.allow_insecure => {
                self.ctx.status.note(format!("{id} is used although its signature is not trusted: {why}"));
                TrustedManifest::insecure(&bytes)
            }
            other => other,
        };
        let manifest = manifest.map_err(|e| match e {
            ManifestError::Format(_) => Failure::refused(
                format!("{id}: {e}"),
                "Build the netboot files again with the server's version of flashmob.",
            ),
            other => untrusted(format!("{id}: {other}")),
        })?;
        let named = manifest.manifest();
        if named.id() != *id {
            return Err(untrusted(format!("the server gave the manifest of {} for {id}", named.id())));
        }
        Ok(manifest)
    }

    /// The pieces' hashes, if the manifest has them.
    async fn hashes(&self, manifest: &Manifest, grid: &Grid) -> Result<Option<Vec<Sha256>>, Failure> {
        if manifest.payload.sha256.is_none() {
            return Ok(None);
        }
        let bytes = self.need(names::PIECES, image::pieces_limit(manifest)).await?;
        let hashes = image::piece_hashes(manifest, grid, &bytes);
        hashes.map(Some).map_err(|wrong| wrong_sidecar(manifest, wrong))
    }

    async fn need(&self, name: &str, limit: usize) -> Result<Vec<u8>, Failure> {
        self.get(name, limit).await?.ok_or_else(|| {
            Failure::retry(
                format!("the server has no {}", self.shown(name)),
                "Look whether the image is complete in the server's repository.",
            )
        })
    }

    /// A file, or `None` if there is none. Retries if the server is away for a moment.
    async fn get(&self, name: &str, limit: usize) -> Result<Option<Vec<u8>>, Failure> {
        let mut tried = 0;
        loop {
            tried += 1;
            match self.try_get(name, limit).await {
                Err(failure) if failure.class == Class::Retry && tried < TRIES => {
                    self.ctx.status.note(failure.message);
                    tokio::time::sleep(PAUSE * tried).await;
                }
                result => return result,
            }
        }
    }

    async fn try_get(&self, name: &str, limit: usize) -> Result<Option<Vec<u8>>, Failure> {
        let shown = self.shown(name);
        let away = |why: String| {
            Failure::retry(
                format!("fetching {shown}: {why}"),
                "Look whether the server runs and the network reaches it.",
            )
        };
        let silent = |_| away(format!("nothing came for {} s", SILENCE.as_secs()));
        let sent =
            tokio::time::timeout(SILENCE, self.ctx.http.get(self.url(name)).send()).await.map_err(silent)?;
        let mut response = sent.map_err(|e| away(why(&e)))?;
        match response.status() {
            StatusCode::NOT_FOUND => return Ok(None),
            status if !status.is_success() => return Err(away(format!("the server says {status}"))),
            _ => {}
        }
        let mut bytes = Vec::new();
        let begun = Instant::now();
        loop {
            // A server that sends a byte now and then is away as well.
            if begun.elapsed() >= WHOLE_FILE {
                return Err(away(format!("it has not come within {} s", WHOLE_FILE.as_secs())));
            }
            let next = tokio::time::timeout(SILENCE, response.chunk()).await.map_err(silent)?;
            let Some(more) = next.map_err(|e| away(why(&e)))? else { return Ok(Some(bytes)) };
            if bytes.len() + more.len() > limit {
                return Err(untrusted(format!("{shown} is longer than the {limit} bytes that are read")));
            }
            bytes.extend_from_slice(&more);
        }
    }
}
