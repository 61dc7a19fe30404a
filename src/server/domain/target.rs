//! A terminal's configured target, with the present versions of its images.
//!
//! Invariant: pure functions of the configuration, the catalog and a machine's identity; every image of a
//! [`Target`] is in the catalog. `jobs` decides whether the terminal still needs it.

use crate::api::Refusal;
use crate::image_id::{self, ImageId, ImageRef};
use crate::server::domain::catalog::{Catalog, Published};
use crate::server::domain::config::{Also, Config, Job};
use crate::server::domain::identity::Identity;

/// A terminal's configured target.
#[derive(Debug, Clone, PartialEq)]
pub struct Target {
    pub job: Job,
    /// The version that the job's image means now; it starts from the first disk.
    pub image: ImageId,
    /// Those that its further images mean now, in the job's order.
    pub also: Vec<ImageId>,
}

impl Target {
    /// All of its images, the one that starts first.
    pub fn images(&self) -> impl Iterator<Item = &ImageId> {
        std::iter::once(&self.image).chain(&self.also)
    }

    /// The same for people.
    pub fn title(&self) -> String {
        image_id::title(self.images())
    }
}

/// The target of `job`: which version it means now.
pub(crate) fn target_of(job: &Job, catalog: &Catalog) -> Result<Target, Refusal> {
    let exactly = |image| catalog.resolve(image).map(Published::id);
    let image = exactly(&job.image)?;
    let also = job.also.iter().map(|also| exactly(&also.image)).collect::<Result<_, Refusal>>()?;
    Ok(Target { job: job.clone(), image, also })
}

/// A machine's configured target; `Ok(None)` if no job names it.
pub(crate) fn target_for(
    config: &Config,
    catalog: &Catalog,
    who: &Identity,
) -> Result<Option<Target>, Refusal> {
    config.job_for(who).map(|job| target_of(job, catalog)).transpose()
}

/// The target of a terminal that asks for images by name, for named disks. Uses the settings of its own job
/// if that job starts the same image, else the defaults. Only the requested images are given.
pub(crate) fn target_by_hand(
    config: &Config,
    catalog: &Catalog,
    who: &Identity,
    image: &ImageRef,
    further: Vec<(ImageRef, String)>,
) -> Result<Target, Refusal> {
    let job = config.job_for(who).filter(|job| job.image.name == image.name);
    let mut job = job.cloned().unwrap_or_else(|| Job::by_hand(image.clone()));
    job.image = image.clone();
    let terms = |(image, disk): (ImageRef, String)| {
        let known = job.also.iter().find(|also| also.image.name == image.name);
        let (layout, partitions) =
            known.map_or_else(Default::default, |also| (also.layout, also.partitions.clone()));
        Also { image, disk, layout, partitions }
    };
    job.also = further.into_iter().map(terms).collect();
    job.check_images().map_err(|error| Refusal { error, advice: "Name each image once.".into() })?;
    target_of(&job, catalog)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testkit::lab::published;

    #[test]
    fn further_images_by_hand_come_with_the_disks_that_were_named_and_the_terms_of_the_own_job() {
        let text = "[[job]]\nname='lab'\nimage='debian'\nterminals='all'\n\
            [[job.also]]\nimage='data'\ndisk='bus=ata'\npartitions=[1]\n";
        let config = Config::parse(text).expect("valid");
        let images = vec![
            published("debian", "1", 1),
            published("data", "7", 2),
            published("data", "8", 3),
            published("x", "1", 4),
        ];
        let catalog = Catalog { images, ..Catalog::default() };
        let who = Identity::new(&["52:54:00:00:00:0a"], None);
        let ask = |further: &[(&str, &str)]| {
            let further = further.iter().map(|(image, disk)| (image.parse().expect("valid"), (*disk).into()));
            target_by_hand(&config, &catalog, &who, &"debian".parse().expect("valid"), further.collect())
        };
        assert!(ask(&[]).expect("given").job.also.is_empty(), "only what was asked for");
        let given = ask(&[("data@7", "/dev/sdb"), ("x", "/dev/sdc")]).expect("given");
        assert_eq!(given.title(), "debian@1 + data@7 + x@1");
        let also: Vec<_> = given.job.also.iter().map(|a| (a.disk.as_str(), a.partitions.clone())).collect();
        assert_eq!(also, [("/dev/sdb", Some(vec![1])), ("/dev/sdc", None)]);
        assert!(ask(&[("x", "/dev/sdb"), ("x", "/dev/sdc")]).expect_err("twice").error.contains("once"));
        assert!(ask(&[("y", "/dev/sdb")]).is_err());
    }
}
