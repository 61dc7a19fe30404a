//! The netboot files: all there, readable, and not older than the agent?

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::finding::Finding;

const CHECK: &str = "netboot";
/// Where the Debian package has the agent.
const AGENT: &str = "/usr/lib/flashmob/flashmob-agent";
/// Without these no terminal starts.
const NEEDED: [&str; 2] = ["vmlinuz", "initramfs.img"];
/// Without these some do not.
const USEFUL: [&str; 4] = ["undionly.kpxe", "snponly.efi", "localboot.0", "localboot.efi"];
/// A unified kernel image, which has an agent and keys of its own.
const UNIFIED: &str = "flashmob.efi";
/// Files of one build are written within this time.
const ONE_BUILD: Duration = Duration::from_secs(600);

pub(super) struct Facts {
    folder: PathBuf,
    /// When each file was written, or why it cannot be read.
    files: Vec<(&'static str, Result<SystemTime, String>)>,
    agent: Option<SystemTime>,
    unified: Option<SystemTime>,
}

pub(super) fn facts(folder: &Path) -> Facts {
    let written = |path: &Path| std::fs::File::open(path)?.metadata()?.modified();
    let files = NEEDED.into_iter().chain(USEFUL);
    let files = files.map(|name| (name, written(&folder.join(name)).map_err(|e| e.to_string()))).collect();
    let unified = written(&folder.join(UNIFIED)).ok();
    Facts { folder: folder.to_path_buf(), files, agent: written(Path::new(AGENT)).ok(), unified }
}

pub(super) fn findings(facts: &Facts) -> Vec<Finding> {
    let folder = facts.folder.display();
    let make = format!("Make them: 'flashmob-initramfs build --out {folder} --keys lab.pub'.");
    let missing = |names: &[&str]| -> Vec<String> {
        let bad = facts.files.iter().filter(|(name, file)| names.contains(name) && file.is_err());
        bad.map(|(name, file)| format!("{name} ({})", file.as_ref().err().map_or("", String::as_str)))
            .collect()
    };
    let (needed, useful) = (missing(&NEEDED), missing(&USEFUL));
    let mut found = Vec::new();
    if !needed.is_empty() {
        let what = format!("{folder} has no {}: no terminal can start", needed.join(", "));
        found.push(Finding::error(CHECK, what, make));
    } else if !useful.is_empty() {
        let what = format!("{folder} has no {}: some terminals cannot start", useful.join(", "));
        found.push(Finding::warning(CHECK, what, make));
    } else {
        found.push(Finding::ok(CHECK, format!("{folder} has all netboot files")));
    }
    let initramfs =
        facts.files.iter().find(|(name, _)| *name == NEEDED[1]).and_then(|(_, file)| file.clone().ok());
    match (initramfs, facts.agent) {
        (Some(initramfs), Some(agent)) if initramfs < agent => found.push(Finding::warning(
            CHECK,
            format!("{folder}/initramfs.img is older than the installed agent"),
            "Build the netboot files again, so that terminals have the agent of this server.",
        )),
        _ => {}
    }
    if let (Some(initramfs), Some(unified)) = (initramfs, facts.unified)
        && initramfs > unified + ONE_BUILD
    {
        found.push(Finding::warning(
            CHECK,
            format!(
                "{folder}/{UNIFIED} is older than initramfs.img: terminals that start it have older keys"
            ),
            "Build it again with --uki, or remove it.",
        ));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::super::finding::Level;
    use super::*;

    fn at(day: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(day * 86_400)
    }

    fn with(missing: &[&str], agent: u64) -> Vec<Finding> {
        let file =
            |name| (name, if missing.contains(&name) { Err("No such file".into()) } else { Ok(at(10)) });
        let files = NEEDED.into_iter().chain(USEFUL).map(file).collect();
        findings(&Facts { folder: "/srv/boot".into(), files, agent: Some(at(agent)), unified: Some(at(10)) })
    }

    #[test]
    fn a_unified_kernel_image_of_an_earlier_build_is_a_warning() {
        let files = vec![("vmlinuz", Ok(at(10))), ("initramfs.img", Ok(at(10)))];
        let all = |unified| {
            let facts = Facts { folder: "/b".into(), files: files.clone(), agent: None, unified };
            findings(&facts).iter().filter(|f| f.what.contains("flashmob.efi is older")).count()
        };
        assert_eq!([all(None), all(Some(at(10))), all(Some(at(9)))], [0, 0, 1]);
    }

    #[test]
    fn what_no_terminal_starts_without_is_an_error_and_an_old_agent_a_warning() {
        assert_eq!(with(&[], 9).iter().map(|f| f.level).collect::<Vec<_>>(), [Level::Ok]);
        assert_eq!(with(&["vmlinuz"], 9)[0].level, Level::Error);
        let one = with(&["snponly.efi"], 9);
        assert!(one[0].level == Level::Warning && one[0].what.contains("snponly.efi"), "{one:?}");
        assert!(with(&[], 11).last().is_some_and(|f| f.what.contains("older than the installed agent")));
    }
}
