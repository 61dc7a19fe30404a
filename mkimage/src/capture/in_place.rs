//! `--payload reference`: the payload stays on its source, and the folder names the source.
//!
//! Invariant: the source was the same before and after it was read. `io::image::payload` later proves each
//! piece that it sends.

use std::fs;
use std::path::Path;

use flashmob::event::Failure;
use flashmob::io::image::payload::look;
use flashmob::layout::extents::UNIT;
use flashmob::manifest::names;
use flashmob::manifest::reference::{MAX_REFERENCE_BYTES, Reference, SourceReference};

use super::plan::Plan;
use crate::format::Format;
use crate::keys::{file_failure, write_new};

/// A source that is to be served from where it lies.
pub(super) struct Place {
    path: std::path::PathBuf,
    before: SourceReference,
}

impl Place {
    /// Looks at the source before it is read. Refuses one that will not be there when it is served.
    pub(super) fn of(path: &Path, format: Option<Format>) -> Result<Self, Failure> {
        let format = Format::of(path, format)?;
        if format != Format::Raw {
            return Err(Failure::refused(
                format!(
                    "{} is a virtual disk ({}): its bytes are there only while QEMU shows them, so it \
                     cannot be served in place",
                    path.display(),
                    format.name()
                ),
                "Leave out --payload reference, or convert the disk first: qemu-img convert -O raw.",
            ));
        }
        let before = look(path).map_err(|e| file_failure("looking at", path, &e))?;
        Ok(Place { path: path.to_path_buf(), before })
    }

    /// Writes down in `folder` where the payload is.
    pub(super) fn finish(self, folder: &Path, plan: &Plan) -> Result<String, Failure> {
        let path = &self.path;
        let after = look(path).map_err(|e| file_failure("looking at", path, &e))?;
        if after != self.before {
            return Err(Failure::retry(
                format!("{} changed while it was read", path.display()),
                "Capture it again while no other program writes to it.",
            ));
        }
        let masks = masks(plan);
        let name = after.path.clone();
        let bytes = Reference::Source(SourceReference { masks, ..after }).to_bytes();
        if bytes.len() > MAX_REFERENCE_BYTES {
            return Err(Failure::refused(
                format!("{} has too many small free ranges to be served in place", path.display()),
                "Leave out --payload reference.",
            ));
        }
        write_new(&folder.join(names::REFERENCE), 0o644, &bytes)?;
        let payload = folder.join(names::PAYLOAD);
        fs::remove_dir(&payload).map_err(|e| file_failure("removing", &payload, &e))?;
        Ok(name)
    }
}

/// The ranges on the source, inside units that have data, that the capture took as zeros.
fn masks(plan: &Plan) -> Vec<(u64, u64)> {
    let used = plan.partitions.iter().zip(&plan.used);
    let edges = used.filter_map(|(partition, used)| Some((partition, used.as_ref()?)));
    edges
        .flat_map(|(partition, used)| {
            let edges = used.edges(UNIT, partition.size).into_iter();
            edges.map(|edge| (partition.start + edge.start, edge.end - edge.start))
        })
        .collect()
}
