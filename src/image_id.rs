//! Which version of which image: `NAME@VERSION`, as people, folders and the API say it.
//!
//! Invariant: a parsed [`ImageId`] has plain names, so it can name a folder and a part of a URL.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Longest name of an image, a version or a file, in bytes.
const MAX_NAME: usize = 100;

/// Is `text` a name for an image or a version: ASCII letters, digits, `.`, `_` and `-`, not hidden, at most
/// 100 bytes? Such names are safe in paths and URLs.
pub fn is_plain_name(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= MAX_NAME
        && !text.starts_with('.')
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
}

/// One version of one image. In JSON it is two fields, `image` and `version`.
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct ImageId {
    #[serde(rename = "image")]
    pub name: String,
    pub version: String,
}

impl ImageId {
    pub fn new(name: impl Into<String>, version: impl Into<String>) -> Self {
        ImageId { name: name.into(), version: version.into() }
    }
}

impl fmt::Display for ImageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.name, self.version)
    }
}

impl FromStr for ImageId {
    type Err = NotAnImage;

    fn from_str(text: &str) -> Result<Self, NotAnImage> {
        match text.parse()? {
            ImageRef { name, version: Some(version) } => Ok(ImageId { name, version }),
            ImageRef { version: None, .. } => Err(NotAnImage { text: text.into(), use_: "NAME@VERSION" }),
        }
    }
}

/// The ids of the images of one job for people, in their order.
pub fn title<'a>(images: impl IntoIterator<Item = &'a ImageId>) -> String {
    let ids: Vec<String> = images.into_iter().map(ImageId::to_string).collect();
    ids.join(" + ")
}

/// `NAME` (the version with the highest sequence) or `NAME@VERSION`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct ImageRef {
    pub name: String,
    /// The version, or the newest.
    pub version: Option<String>,
}

impl From<ImageId> for ImageRef {
    fn from(id: ImageId) -> Self {
        ImageRef { name: id.name, version: Some(id.version) }
    }
}

impl FromStr for ImageRef {
    type Err = NotAnImage;

    fn from_str(text: &str) -> Result<Self, NotAnImage> {
        let (name, version) = match text.split_once('@') {
            Some((name, version)) => (name, Some(version)),
            None => (text, None),
        };
        if !is_plain_name(name) || !version.is_none_or(is_plain_name) {
            return Err(NotAnImage { text: text.into(), use_: "NAME or NAME@VERSION" });
        }
        Ok(ImageRef { name: name.into(), version: version.map(Into::into) })
    }
}

impl TryFrom<String> for ImageRef {
    type Error = NotAnImage;

    fn try_from(text: String) -> Result<Self, NotAnImage> {
        text.parse()
    }
}

impl fmt::Display for ImageRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.version {
            Some(version) => write!(f, "{}@{version}", self.name),
            None => f.write_str(&self.name),
        }
    }
}

/// A text that names no image.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{text}' is not an image: use {use_}")]
pub struct NotAnImage {
    text: String,
    use_: &'static str,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_parsed_as_they_are_shown_and_only_plain_names_are_ids() {
        let id: ImageId = "debian-12@2026-11-28.1".parse().expect("an id");
        assert_eq!(id, ImageId::new("debian-12", "2026-11-28.1"));
        assert_eq!(id.to_string().parse(), Ok(id.clone()));
        for wrong in ["", "debian", "debian@", "@1", "../x@1", ".x@1", "a@b@c", "a b@1"] {
            let error = wrong.parse::<ImageId>().expect_err(wrong);
            assert!(error.to_string().contains("NAME@VERSION"), "{error}");
        }
        assert_eq!(title([&id, &ImageId::new("data", "1")]), "debian-12@2026-11-28.1 + data@1");
    }

    #[test]
    fn in_json_an_id_is_two_fields() {
        let json = serde_json::to_string(&ImageId::new("a", "1")).expect("json");
        assert_eq!(json, r#"{"image":"a","version":"1"}"#);
        assert_eq!(serde_json::from_str::<ImageId>(&json).expect("an id"), ImageId::new("a", "1"));
    }
}
