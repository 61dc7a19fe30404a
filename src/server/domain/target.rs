//! What a terminal should get: the terms of its job, or of a person at the terminal.
//!
//! Invariant: every image of a [`Target`] names an exact version.

use crate::api::Refusal;
use crate::image_id::{ImageId, ImageRef};
use crate::server::domain::catalog::{Catalog, Published};
use crate::server::domain::jobs::{Placement, Terms};

/// The name of the job of attempts that a person starts at the terminal.
pub(crate) const BY_HAND: &str = "by-hand";

/// What a terminal should get.
#[derive(Debug, Clone, PartialEq)]
pub struct Target {
    /// The job's name.
    pub job: String,
    pub terms: Terms,
}

impl Target {
    /// All of its images, the one that starts first.
    pub fn images(&self) -> impl Iterator<Item = &ImageId> {
        self.terms.ids()
    }

    /// The same for people.
    pub fn title(&self) -> String {
        self.terms.title()
    }
}

/// The target of a terminal that asks for images by name, for named disks. Uses the terms of its own job if
/// that job starts the same image, else the defaults. Only the requested images are given.
pub(crate) fn target_by_hand(
    own: Option<&Terms>,
    catalog: &Catalog,
    image: &ImageRef,
    further: &[(ImageRef, String)],
) -> Result<Target, Refusal> {
    let exactly = |image| catalog.resolve(image).map(Published::id);
    let first = exactly(image)?;
    let own = own.filter(|terms| terms.images.first().is_some_and(|own| own.id.name == first.name));
    let mut terms = own.cloned().unwrap_or_else(|| Terms::of(Placement::whole(first.clone())));
    // A person at the terminal who names an image wants it on the disk.
    terms.preflight = false;
    // The disk may be another machine's.
    (terms.hostname, terms.as_is) = (None, true);
    let known = std::mem::take(&mut terms.images);
    let own_of = |id: ImageId| {
        let own = known.iter().find(|own| own.id.name == id.name);
        Placement { id: id.clone(), ..own.cloned().unwrap_or_else(|| Placement::whole(id)) }
    };
    terms.images.push(own_of(first));
    for (image, disk) in further {
        terms.images.push(Placement { disk: disk.clone(), ..own_of(exactly(image)?) });
    }
    each_once(&terms).map_err(|error| Refusal { error, advice: "Name each image once.".into() })?;
    Ok(Target { job: BY_HAND.into(), terms })
}

/// Each image is in it once.
pub(crate) fn each_once(terms: &Terms) -> Result<(), String> {
    for (i, id) in terms.ids().enumerate() {
        if terms.ids().take(i).any(|other| other.name == id.name) {
            return Err(format!("image '{}' can be in it once only", id.name));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testkit::lab::published;

    #[test]
    fn further_images_by_hand_come_with_the_disks_that_were_named_and_the_terms_of_the_own_job() {
        let images = vec![
            published("debian", "1", 1),
            published("data", "7", 2),
            published("data", "8", 3),
            published("x", "1", 4),
        ];
        let catalog = Catalog { images, ..Catalog::default() };
        let mut own = Terms::of(Placement::whole(ImageId::new("debian", "1")));
        let data = ImageId::new("data", "7");
        own.images.push(Placement { partitions: Some(vec![1]), ..Placement::whole(data) });
        let ask = |further: &[(&str, &str)]| {
            let further: Vec<_> =
                further.iter().map(|(image, disk)| (image.parse().expect("valid"), (*disk).into())).collect();
            target_by_hand(Some(&own), &catalog, &"debian".parse().expect("valid"), &further)
        };
        assert_eq!(ask(&[]).expect("given").terms.images.len(), 1, "only what was asked for");
        let given = ask(&[("data@8", "/dev/sdb"), ("x", "/dev/sdc")]).expect("given");
        assert_eq!((given.title(), &*given.job), ("debian@1 + data@8 + x@1".into(), "by-hand"));
        let also = given.terms.images.iter().skip(1);
        let also: Vec<_> = also.map(|a| (a.disk.as_str(), a.partitions.clone())).collect();
        assert_eq!(also, [("/dev/sdb", Some(vec![1])), ("/dev/sdc", None)]);
        assert!(ask(&[("x", "/dev/sdb"), ("x", "/dev/sdc")]).expect_err("twice").error.contains("once"));
        assert!(ask(&[("y", "/dev/sdb")]).is_err());
    }
}
