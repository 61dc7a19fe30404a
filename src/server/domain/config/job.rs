//! `[[job]]`: which images go onto which terminals, and how.
//!
//! Invariant: names of images are plain; a job that was checked has rules for its disks that can be read and
//! each image once.

use std::time::Duration;

use serde::Deserialize;
use serde::de::{self, Deserializer, SeqAccess, Visitor};

use super::duration;
use crate::api::{After, Compare, LayoutMode, check_partitions};
use crate::image_id::ImageRef;
use crate::layout::rule::Rule;
use crate::server::domain::identity::{Identity, TerminalKey};

/// An image assigned to terminals.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Job {
    pub name: String,
    pub image: ImageRef,
    /// The terminals it is for.
    pub terminals: Terminals,
    /// Which disk (`layout::rule`).
    #[serde(default = "internal")]
    pub disk: String,
    /// New table, or the partitions that are there.
    #[serde(default)]
    pub layout: LayoutMode,
    /// Further images for further disks of the same terminals.
    #[serde(default)]
    pub also: Vec<Also>,
    /// Some partitions of the image only; the table and the others stay.
    #[serde(default)]
    pub partitions: Option<Vec<u32>>,
    /// How pieces already on the disk are found.
    #[serde(default)]
    pub compare: Compare,
    /// The action after the image is on the disk.
    #[serde(default)]
    pub after: After,
    /// Check pieces as they arrive.
    #[serde(default = "yes")]
    pub verify: bool,
    /// Longest stay in the swarm after the commit.
    #[serde(default = "half_an_hour", deserialize_with = "duration")]
    pub longest_stay: Duration,
}

impl Job {
    /// Checks the job's disks, partitions and images.
    pub(super) fn check(&self) -> Result<(), String> {
        let also = self.also.iter().map(|also| (&also.disk, &also.partitions));
        for (disk, partitions) in std::iter::once((&self.disk, &self.partitions)).chain(also) {
            disk.parse::<Rule>()?;
            partitions.as_deref().map_or(Ok(()), check_partitions)?;
        }
        self.check_images()
    }

    /// Each of its images is in it once.
    pub(crate) fn check_images(&self) -> Result<(), String> {
        let mut images = vec![&self.image.name];
        for also in &self.also {
            if images.contains(&&also.image.name) {
                return Err(format!("image '{}' can be in it once only", also.image.name));
            }
            images.push(&also.image.name);
        }
        Ok(())
    }

    /// The job of an administrator who names an image on the agent's command line, outside any configured
    /// job.
    pub(crate) fn by_hand(image: ImageRef) -> Self {
        Job {
            name: "by-hand".into(),
            image,
            terminals: Terminals::These(Vec::new()),
            disk: internal(),
            layout: LayoutMode::WholeDisk,
            also: Vec::new(),
            partitions: None,
            compare: Compare::Auto,
            after: After::Reboot,
            verify: true,
            longest_stay: half_an_hour(),
        }
    }
}

/// One more image of a job, for another disk of the terminal.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Also {
    pub image: ImageRef,
    /// Which disk: never left to chance.
    pub disk: String,
    /// New table, or the partitions that are there.
    #[serde(default)]
    pub layout: LayoutMode,
    /// Some partitions of the image only.
    #[serde(default)]
    pub partitions: Option<Vec<u32>>,
}

/// The terminals that a job is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Terminals {
    All,
    These(Vec<TerminalKey>),
}

impl Terminals {
    /// Whether this machine is one of them.
    pub(crate) fn contain(&self, who: &Identity) -> bool {
        match self {
            Terminals::All => true,
            Terminals::These(keys) => keys.iter().any(|key| key.matches(who)),
        }
    }
}

impl<'de> Deserialize<'de> for Terminals {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Terminals;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("\"all\" or a list of MAC addresses and uuid:…")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Terminals, E> {
                match text {
                    "all" => Ok(Terminals::All),
                    other => Err(E::custom(format!(
                        "'{other}' is neither \"all\" nor a list like [\"52:54:00:12:34:56\"]"
                    ))),
                }
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Terminals, A::Error> {
                let mut keys = Vec::new();
                while let Some(key) = seq.next_element()? {
                    keys.push(key);
                }
                Ok(Terminals::These(keys))
            }
        }
        d.deserialize_any(Either)
    }
}

fn internal() -> String {
    "internal".into()
}

fn yes() -> bool {
    true
}

fn half_an_hour() -> Duration {
    Duration::from_secs(30 * 60)
}
