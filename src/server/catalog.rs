//! The images that can be had now, and what is wrong with the others.
//!
//! Invariant: plain values; an image listed here was checked when it was found. Finding and checking is left to
//! `repository`.

use serde::{Deserialize, Serialize};

use super::config::ImageRef;
use crate::api::Refusal;
use crate::units::InfoHash;

/// What is known of an image's signature.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Signature {
    /// By one of the configured keys.
    Good,
    /// There is one, but not by a configured key.
    Bad,
    /// There is none.
    Missing,
    /// There is one; no keys are configured to judge it.
    Unjudged,
}

/// One version of one image, ready to be had.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Published {
    /// The image.
    pub name: String,
    /// The version.
    pub version: String,
    /// Grows with every version.
    pub sequence: u64,
    /// When it was captured (RFC 3339).
    pub created: String,
    /// Payload bytes.
    pub bytes: u64,
    /// Name of its swarm.
    pub info_hash: InfoHash,
    /// Who signed it.
    pub signature: Signature,
}

impl Published {
    /// `name@version`.
    pub fn id(&self) -> String {
        format!("{}@{}", self.name, self.version)
    }
}

/// Something a person should look at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// A path, a job, a file.
    pub what: String,
    /// What is wrong.
    pub error: String,
    /// What to do.
    pub advice: String,
}

/// All images.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Catalog {
    /// Those that can be had.
    pub images: Vec<Published>,
    /// What is wrong with the others.
    pub problems: Vec<Problem>,
}

impl Catalog {
    /// The version meant, or why there is none.
    pub fn resolve(&self, wanted: &ImageRef) -> Result<&Published, Refusal> {
        let versions = self.images.iter().filter(|image| image.name == wanted.name);
        let found = match &wanted.version {
            Some(version) => versions.clone().find(|image| image.version == *version),
            None => versions.clone().max_by_key(|image| (image.sequence, &image.version)),
        };
        found.ok_or_else(|| {
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
pub mod tests {
    use super::*;

    /// An image for tests.
    pub fn published(name: &str, version: &str, sequence: u64) -> Published {
        Published {
            name: name.into(),
            version: version.into(),
            sequence,
            created: "2025-01-01T00:00:00Z".into(),
            bytes: 1 << 20,
            info_hash: InfoHash([u8::try_from(sequence).unwrap_or(0); 20]),
            signature: Signature::Good,
        }
    }

    #[test]
    fn a_name_alone_means_the_highest_sequence() {
        let images = vec![published("a", "9", 1), published("a", "10", 2), published("b", "x", 7)];
        let catalog = Catalog { images, problems: Vec::new() };
        let version = |text: &str| {
            catalog.resolve(&text.parse().expect("valid")).map(|i| i.version.clone()).map_err(|r| r.advice)
        };
        assert_eq!(version("a"), Ok("10".into()));
        assert_eq!(version("a@9"), Ok("9".into()));
        assert!(version("a@3").expect_err("no such version").contains("9, 10"));
        assert!(version("c").is_err());
    }
}
