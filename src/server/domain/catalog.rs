//! The images that can be served now, and the problems of the others.
//!
//! Invariant: plain values; an image listed here was checked when it was found. `repository` finds and checks
//! images.

use serde::{Deserialize, Serialize};

use crate::api::Refusal;
use crate::image_id::{ImageId, ImageRef};
use crate::layout::plan::Demands;
use crate::units::InfoHash;

/// The state of an image's signature.
#[derive(utoipa::ToSchema, Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Signature {
    /// By one of the configured keys.
    Good,
    /// There is one, but not by a configured key.
    Bad,
    /// The signature is missing.
    Missing,
    /// There is one; no keys are configured to judge it.
    Unjudged,
}

/// One version of one image, ready to be had.
#[derive(utoipa::ToSchema, Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Published {
    pub name: String,
    pub version: String,
    /// Grows with every version.
    pub sequence: u64,
    /// When it was captured (RFC 3339).
    pub created: String,
    pub bytes: u64,
    /// Name of its swarm.
    #[schema(value_type = String)]
    pub info_hash: InfoHash,
    /// The key that signed it.
    pub signature: Signature,
    /// No partition of it can hold a terminal's host name: a Windows that starts by BIOS, for example.
    #[serde(default)]
    pub nameless: bool,
    /// A partition of it grows on a larger disk.
    #[serde(default)]
    pub grows: bool,
    /// What it asks of a disk.
    #[serde(default)]
    pub demands: Demands,
    /// It has a Windows that starts by BIOS and a blank for the terminal's own file in it.
    #[serde(default)]
    pub blank: bool,
}

impl Published {
    pub fn id(&self) -> ImageId {
        ImageId::new(&self.name, &self.version)
    }
}

/// Something a person should look at.
#[derive(utoipa::ToSchema, Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// A path, a job, a file.
    pub what: String,
    /// The problem.
    pub error: String,
    /// The remedy.
    pub advice: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Catalog {
    /// Those that can be had.
    pub images: Vec<Published>,
    /// The problems of the others.
    pub problems: Vec<Problem>,
    /// Keys are configured: only versions with a good signature count as the newest.
    pub judged: bool,
}

impl Catalog {
    /// Whether all of these can be had, or which one cannot.
    pub(crate) fn has<'a>(&self, images: impl Iterator<Item = &'a ImageId>) -> Result<(), Refusal> {
        for id in images {
            self.resolve(&id.clone().into())?;
        }
        Ok(())
    }

    /// Does one of these let a partition grow?
    pub(crate) fn grows<'a>(&self, mut images: impl Iterator<Item = &'a ImageId>) -> bool {
        images.any(|id| self.resolve(&id.clone().into()).is_ok_and(|found| found.grows))
    }

    /// The wanted version, or the reason why there is none.
    pub fn resolve(&self, wanted: &ImageRef) -> Result<&Published, Refusal> {
        let versions = self.images.iter().filter(|image| image.name == wanted.name);
        let found = match &wanted.version {
            Some(version) => versions.clone().find(|image| image.version == *version),
            None => versions
                .clone()
                .filter(|image| !self.judged || image.signature == Signature::Good)
                .max_by_key(|image| (image.sequence, &image.version)),
        };
        found.ok_or_else(|| {
            if wanted.version.is_none() && versions.clone().next().is_some() {
                return Refusal {
                    error: format!("no version of image {wanted} is signed by one of the configured keys"),
                    advice: "Sign it with 'flashmob-mkimage sign', or correct the file of public keys."
                        .into(),
                };
            }
            let others: Vec<&str> = versions.map(|image| image.version.as_str()).collect();
            let advice = match others.as_slice() {
                [] => "Publish it with 'flashmob-mkimage capture', or correct the image's name.".to_string(),
                some => format!("There is {}; or publish the version that is asked for.", some.join(", ")),
            };
            Refusal { error: format!("image {wanted} is not in the repository"), advice }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testkit::lab::published;

    #[test]
    fn a_name_alone_means_the_highest_sequence() {
        let images = vec![published("a", "9", 1), published("a", "10", 2), published("b", "x", 7)];
        let catalog = Catalog { images, ..Catalog::default() };
        let version = |text: &str| {
            catalog.resolve(&text.parse().expect("valid")).map(|i| i.version.clone()).map_err(|r| r.advice)
        };
        assert_eq!(version("a"), Ok("10".into()));
        assert_eq!(version("a@9"), Ok("9".into()));
        assert!(version("a@3").expect_err("no such version").contains("9, 10"));
        assert!(version("c").is_err());
    }

    #[test]
    fn with_keys_only_a_well_signed_version_is_the_newest() {
        let signed =
            |version: &str, sequence, signature| Published { signature, ..published("a", version, sequence) };
        let images = vec![
            signed("1", 1, Signature::Good),
            signed("2", 2, Signature::Bad),
            signed("3", 3, Signature::Missing),
            signed("4", 4, Signature::Unjudged),
        ];
        let newest = |images: &[Published], judged| {
            let catalog = Catalog { images: images.to_vec(), judged, ..Catalog::default() };
            catalog.resolve(&"a".parse().expect("valid")).map(|image| image.version.clone())
        };
        assert_eq!(newest(&images, true), Ok("1".into()));
        assert_eq!(newest(&images, false), Ok("4".into()));
        let refused = newest(&images[1..], true).expect_err("none is well signed");
        assert!(refused.error.contains("no version of image a is signed"), "{refused:?}");
    }
}
