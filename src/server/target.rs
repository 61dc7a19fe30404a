//! What the configuration wants of a terminal now, with the versions that its images mean now.
//!
//! Invariant: pure functions of the configuration, the catalog and a machine's identity; every image of a [`Target`] is in the
//! catalog. Whether it waits for the terminal is decided in `jobs`.

use super::catalog::Catalog;
use super::config::{Also, Config, ImageRef, Job};
use super::identity::Identity;
use crate::api::Refusal;

/// What the configuration wants of a terminal now.
#[derive(Debug, Clone, PartialEq)]
pub struct Target {
    /// The job.
    pub job: Job,
    /// Its image.
    pub image: String,
    /// The version that this means now.
    pub version: String,
    /// The versions that the job's further images mean now, in its order.
    pub also: Vec<ImageRef>,
}

impl Target {
    /// `name@version` of each image, the one that starts first.
    pub fn image_ids(&self) -> Vec<String> {
        let first = format!("{}@{}", self.image, self.version);
        std::iter::once(first).chain(self.also.iter().map(ImageRef::to_string)).collect()
    }

    /// The same for people.
    pub fn title(&self) -> String {
        self.image_ids().join(" + ")
    }
}

/// The target of `job`: which version it means now.
pub fn target_of(job: &Job, catalog: &Catalog) -> Result<Target, Refusal> {
    let image = catalog.resolve(&job.image)?;
    let exactly = |also: &Also| {
        let found = catalog.resolve(&also.image)?;
        Ok(ImageRef { name: found.name.clone(), version: Some(found.version.clone()) })
    };
    let also = job.also.iter().map(exactly).collect::<Result<_, Refusal>>()?;
    Ok(Target { job: job.clone(), image: image.name.clone(), version: image.version.clone(), also })
}

/// What the configuration wants of a machine now; `Ok(None)` when nothing.
pub fn target_for(config: &Config, catalog: &Catalog, who: &Identity) -> Result<Option<Target>, Refusal> {
    config.job_for(who).map(|job| target_of(job, catalog)).transpose()
}

/// The target of a terminal that asks for an image by name: its own job's terms if that is the image, and otherwise
/// the usual ones.
pub fn target_by_hand(
    config: &Config,
    catalog: &Catalog,
    who: &Identity,
    image: &ImageRef,
) -> Result<Target, Refusal> {
    let found = catalog.resolve(image)?;
    let job = config.job_for(who).filter(|job| job.image.name == image.name);
    let mut job = job.cloned().unwrap_or_else(|| Job::by_hand(image.clone()));
    // One image was asked for, and one disk named.
    job.also.clear();
    Ok(Target { job, image: found.name.clone(), version: found.version.clone(), also: Vec::new() })
}
