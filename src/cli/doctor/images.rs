//! The repository: readable, its images sound, their newest versions signed?

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::finding::Finding;
use crate::event::Failure;
use crate::manifest::names;
use crate::server::domain::catalog::{Catalog, Published, Signature};
use crate::server::repository::Scanner;

const CHECK: &str = "images";

pub(super) struct Facts {
    repository: PathBuf,
    keys: Option<PathBuf>,
    found: Result<Catalog, Failure>,
    /// Other users than root may read the folder.
    for_all: bool,
}

/// Reads the repository as the server does.
pub(super) fn facts(repository: &Path, keys: Option<PathBuf>) -> Facts {
    let mut scanner = Scanner::new(repository.to_path_buf());
    scanner.judge_by(keys.clone());
    let found = scanner.scan().map(|scan| scan.catalog);
    let mode = std::fs::metadata(repository).map_or(0, |folder| folder.permissions().mode());
    Facts { repository: repository.to_path_buf(), keys, found, for_all: mode & 0o005 == 0o005 }
}

impl Facts {
    /// A file of an image's payload, if one lies in the repository.
    pub(super) fn payload(&self) -> Option<PathBuf> {
        let images = &self.found.as_ref().ok()?.images;
        let file = |image: &Published| {
            self.repository.join(&image.name).join(&image.version).join(names::PAYLOAD).join("0000.bin")
        };
        images.iter().map(file).find(|file| file.is_file())
    }
}

pub(super) fn findings(facts: &Facts) -> Vec<Finding> {
    let catalog = match &facts.found {
        Ok(catalog) => catalog,
        Err(failure) => return vec![Finding::error(CHECK, &failure.message, &failure.advice)],
    };
    let folder = facts.repository.display();
    let mut found: Vec<Finding> = catalog
        .problems
        .iter()
        .map(|problem| {
            Finding::warning(CHECK, format!("{}: {}", problem.what, problem.error), &problem.advice)
        })
        .collect();
    if !facts.for_all {
        let what = format!("{folder} can be read by its owner only, and the service runs as flashmob");
        found.push(Finding::warning(CHECK, what, format!("'chmod o+rx {folder}'.")));
    }
    if facts.keys.is_none() && !catalog.images.is_empty() {
        found.push(Finding::warning(
            CHECK,
            "no public keys are configured, so nobody notices an unsigned image before the night",
            "Set keys = \"/etc/flashmob/lab.pub\" in the configuration.",
        ));
    }
    let mut newest: BTreeMap<&str, &Published> = BTreeMap::new();
    for image in &catalog.images {
        let known = newest.entry(&image.name).or_insert(image);
        if image.sequence > known.sequence {
            *known = image;
        }
    }
    found.extend(newest.into_values().map(signature));
    found
}

fn signature(image: &Published) -> Finding {
    let id = image.id();
    let sign = "Terminals refuse it: 'flashmob-mkimage sign' with the lab's secret key.";
    match image.signature {
        Signature::Good => Finding::ok(CHECK, format!("{id}, the newest version, is well signed")),
        Signature::Unjudged => Finding::ok(CHECK, format!("{id}, the newest version, has a signature")),
        Signature::Bad => {
            Finding::error(CHECK, format!("{id}, the newest version, is signed by no configured key"), sign)
        }
        Signature::Missing => Finding::error(CHECK, format!("{id}, the newest version, is not signed"), sign),
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::Level;
    use super::*;
    use crate::testkit::lab::published;

    #[test]
    fn only_the_newest_version_of_an_image_must_be_signed() {
        let signed = |version: &str, sequence, signature| Published {
            signature,
            ..published("debian", version, sequence)
        };
        let judge = |images| {
            let found = Ok(Catalog { images, ..Catalog::default() });
            let keys = Some("lab.pub".into());
            let facts = Facts { repository: "/srv/images".into(), keys, found, for_all: true };
            findings(&facts).iter().map(|finding| finding.level).collect::<Vec<_>>()
        };
        let (old, new) = (signed("1", 1, Signature::Missing), signed("2", 2, Signature::Good));
        assert_eq!(judge(vec![old.clone(), new.clone()]), [Level::Ok]);
        assert_eq!(judge(vec![new, Published { sequence: 3, ..old }]), [Level::Error]);
    }

    #[test]
    fn a_repository_that_cannot_be_read_is_an_error() {
        let facts = facts(Path::new("/nowhere/at/all"), None);
        assert_eq!(findings(&facts)[0].level, Level::Error);
    }
}
