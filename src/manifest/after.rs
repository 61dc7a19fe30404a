//! `after.json`: the administrator's files for imaged terminals, and which terminal gets which.
//!
//! Invariant: the manifest names the hash of this list, and the list that of each file, so the image's
//! signature covers them. [`After::parse`] accepts no path that leads out of the system, and no more bytes
//! than a terminal holds in memory.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::Manifest;
use super::model::is_model;
use super::{Partition, Policy, Role};
use crate::units::{Sha256, show_bytes};

/// The version of the list.
pub const FORMAT: u32 = 1;
/// A longer list is not read.
pub const MAX_LIST_BYTES: usize = 1 << 20;
/// Bytes of one file, because a terminal holds it in memory.
pub const MAX_FILE_BYTES: u64 = 16 << 20;
/// Bytes of all files of an image, for the same reason.
pub const MAX_BYTES: u64 = 64 << 20;
pub const MAX_FILES: usize = 2000;
/// Bytes of a path, and of one name in it (the kernel's NAME_MAX).
const MAX_PATH: usize = 1000;
const MAX_NAME: usize = 255;
/// The agent's own file says that everything else is done.
const OWN_FILE: &str = "etc/flashmob/terminal.json";
/// Filesystems of a Windows.
const WINDOWS: [&str; 2] = ["ntfs", "bitlocker"];
/// Filesystems of a named partition that the agent writes.
const WRITABLE: [&str; 5] = ["ext4", "ext3", "ext2", "xfs", "btrfs"];

/// All files that an image has for terminals, by rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct After {
    /// `FORMAT`.
    pub format: u32,
    /// A file of a later rule replaces one of an earlier rule with the same path.
    pub rules: Vec<Rule>,
}

/// A kind of system that files are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum System {
    Windows,
    /// A Linux, and any other that is no Windows.
    Linux,
}

impl System {
    /// Is it a Windows that has this filesystem?
    pub fn is_windows(filesystem: &str) -> bool {
        WINDOWS.contains(&filesystem)
    }

    /// As rules and lists name it.
    pub fn word(self) -> &'static str {
        match self {
            System::Windows => "windows",
            System::Linux => "linux",
        }
    }
}

impl std::fmt::Display for System {
    /// For people.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            System::Windows => "Windows",
            System::Linux => "Linux",
        })
    }
}

/// Which terminals get these files. Each kind of condition that is named must hold, by one of its values.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// For people.
    pub name: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rooms: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<String>,
    /// Patterns ([`is_model`]).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub models: Vec<String>,
    /// Number of the partition; `None`: the root filesystem of the system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partition: Option<u32>,
    /// The system whose root the files go below; `None`: the disk's Linux if it has one, else its Windows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system: Option<System>,
    pub files: Vec<AfterFile>,
}

/// A file for terminals.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AfterFile {
    /// Where it goes, from the filesystem's root, without a slash at the beginning.
    pub path: String,
    /// Permissions in octal digits, for example `0644`. The file belongs to root.
    pub mode: String,
    pub size: u64,
    pub sha256: Sha256,
}

impl AfterFile {
    pub fn permissions(&self) -> u32 {
        u32::from_str_radix(&self.mode, 8).unwrap_or(0o600)
    }
}

/// What rules ask of a terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Traits<'a> {
    pub room: Option<&'a str>,
    pub groups: &'a [String],
    /// Maker and product.
    pub model: &'a str,
}

impl Rule {
    pub fn is_for(&self, terminal: &Traits<'_>) -> bool {
        let any =
            |named: &[String], holds: &dyn Fn(&String) -> bool| named.is_empty() || named.iter().any(holds);
        any(&self.rooms, &|room| terminal.room == Some(room))
            && any(&self.groups, &|group| terminal.groups.contains(group))
            && any(&self.models, &|model| is_model(model, terminal.model))
    }

    fn check(&self, manifest: &Manifest) -> Result<(), String> {
        let words = || self.rooms.iter().chain(&self.groups).chain(&self.models).chain([&self.name]);
        if words().any(|word| word.trim().is_empty() || word.chars().any(char::is_control)) {
            return Err("a name, room, group or model is empty or has control characters".into());
        }
        if let Some(number) = self.partition {
            let partition = manifest.partition(number).filter(|p| p.policy == Policy::Replace);
            let partition = partition.ok_or(format!("the image does not write a partition {number}"))?;
            let kind = partition.filesystem.as_deref().unwrap_or("no known filesystem");
            if partition.role == Role::Esp || !WRITABLE.contains(&kind) {
                return Err(format!(
                    "partition {number} has {kind}, and terminals write files to {} only; leave the \
                     partition out for the system's own drive, and name the system (windows or linux) if the \
                     disk has two",
                    WRITABLE.join(", ")
                ));
            }
            if self.system.is_some() {
                return Err("it names a partition and a system; files go to one of them".into());
            }
        }
        let is_windows = |partition: &Partition| {
            let kind = partition.filesystem.as_deref().unwrap_or_default();
            partition.policy == Policy::Replace && System::is_windows(kind)
        };
        if self.system == Some(System::Windows) && !manifest.partitions.iter().any(is_windows) {
            return Err("it is for windows, and the image writes no partition of one".into());
        }
        let mut paths = BTreeSet::new();
        for file in &self.files {
            check_path(&file.path)?;
            let mode = &file.mode;
            let is_octal = (3..=4).contains(&mode.len()) && mode.bytes().all(|b| (b'0'..=b'7').contains(&b));
            if !is_octal || file.permissions() > 0o777 {
                return Err(format!("'{}' has the mode '{mode}'; modes are 0000 to 0777", file.path));
            }
            if file.size > MAX_FILE_BYTES {
                let (has, most) = (show_bytes(file.size), show_bytes(MAX_FILE_BYTES));
                return Err(format!("'{}' has {has}; a file may have {most}", file.path));
            }
            if !paths.insert(&file.path) {
                return Err(format!("'{}' is there twice", file.path));
            }
        }
        Ok(())
    }
}

/// Refuses a path that leads out of the filesystem, or means something else on another system.
pub fn check_path(path: &str) -> Result<(), String> {
    let wrong = |why: &str| Err(format!("'{path}' cannot be the path of a file: {why}"));
    if path.is_empty() || path.len() > MAX_PATH {
        return wrong("it is empty or has more than 1000 bytes");
    }
    if path.chars().any(|c| c.is_control() || matches!(c, '\\' | ':')) {
        return wrong("it has control characters, a backslash or a colon");
    }
    for name in path.split('/') {
        match name {
            "" => return wrong("it begins or ends with a slash, or has two together"),
            "." | ".." => return wrong("it has '.' or '..'"),
            _ if name.len() > MAX_NAME => return wrong("a name in it has more than 255 bytes"),
            // Windows leaves them out.
            _ if name.ends_with([' ', '.']) || name.starts_with(' ') => {
                return wrong("a name in it begins with a space, or ends with one or a dot");
            }
            _ => {}
        }
    }
    if path.eq_ignore_ascii_case(OWN_FILE) {
        return wrong("it is the file that flashmob writes");
    }
    Ok(())
}

impl After {
    /// Reads and checks the list of an image. The caller has checked its hash.
    pub fn parse(bytes: &[u8], manifest: &Manifest) -> Result<Self, String> {
        let after: After = serde_json::from_slice(bytes).map_err(|e| e.to_string())?;
        after.check(manifest)?;
        Ok(after)
    }

    /// The rules of consistency with the image's manifest.
    pub fn check(&self, manifest: &Manifest) -> Result<(), String> {
        if self.format != FORMAT {
            return Err(format!("it has format {}, this program reads format {FORMAT}", self.format));
        }
        for rule in &self.rules {
            rule.check(manifest).map_err(|why| format!("rule '{}': {why}", rule.name))?;
        }
        let files: usize = self.rules.iter().map(|rule| rule.files.len()).sum();
        if files > MAX_FILES {
            return Err(format!("there are {files} files; an image may have {MAX_FILES}"));
        }
        let bytes: u64 = self.blobs().values().sum();
        if bytes > MAX_BYTES {
            let (has, most) = (show_bytes(bytes), show_bytes(MAX_BYTES));
            return Err(format!("all files together have {has}; they may have {most}"));
        }
        // The content that a hash names has one size.
        let sizes: BTreeSet<_> = self.files().map(|file| (file.sha256.0, file.size)).collect();
        match sizes.len() == self.blobs().len() {
            true => Ok(()),
            false => Err("one content is listed with two sizes".into()),
        }
    }

    fn files(&self) -> impl Iterator<Item = &AfterFile> {
        self.rules.iter().flat_map(|rule| &rule.files)
    }

    /// Hash and size of each different content. Its file in the folder `after` has the hash as its name.
    pub fn blobs(&self) -> BTreeMap<String, u64> {
        self.files().map(|file| (file.sha256.to_string(), file.size)).collect()
    }

    /// Has a rule that is for this terminal a file with this hash?
    pub fn has(&self, terminal: &Traits<'_>, hash: &str) -> bool {
        let Ok(hash) = hash.parse::<Sha256>() else { return false };
        let its = self.rules.iter().filter(|rule| rule.files.iter().any(|file| file.sha256 == hash));
        its.into_iter().any(|rule| rule.is_for(terminal))
    }

    /// The files for one terminal, each with its rule, in the order of their paths. Of two with one path, of
    /// which one names a system and the other none, the later rule's comes last.
    pub fn of(&self, terminal: &Traits<'_>) -> Vec<(&Rule, &AfterFile)> {
        let mut chosen = BTreeMap::new();
        for (number, rule) in self.rules.iter().enumerate().filter(|(_, rule)| rule.is_for(terminal)) {
            let key = |file| (rule.partition, file, rule.system);
            chosen.extend(rule.files.iter().map(|file| (key(&file.path), (number, rule, file))));
        }
        let mut chosen: Vec<_> = chosen.into_values().collect();
        chosen.sort_by_key(|(number, rule, file)| (rule.partition, &file.path, *number));
        chosen.into_iter().map(|(_, rule, file)| (rule, file)).collect()
    }

    /// The canonical bytes, as those of a manifest.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = serde_json::to_vec_pretty(self).unwrap_or_default();
        bytes.push(b'\n');
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testkit::manifests::{gpt_manifest, manifest_with};
    use crate::units::PieceLength;

    fn manifest() -> Manifest {
        manifest_with(PieceLength::new(1 << 20).expect("a length"), 1 << 30, Vec::new())
    }

    fn file(path: &str, content: u8) -> AfterFile {
        AfterFile { path: path.into(), mode: "0644".into(), size: 1, sha256: Sha256([content; 32]) }
    }

    fn of_all(files: Vec<AfterFile>) -> After {
        After { format: FORMAT, rules: vec![Rule { name: "all".into(), files, ..Rule::default() }] }
    }

    #[test]
    fn a_rule_is_for_terminals_of_a_room_a_group_and_a_model_and_a_later_one_replaces_files() {
        let groups = ["cad".to_string()];
        let terminal = Traits { room: Some("101"), groups: &groups, model: "Dell OptiPlex 7090" };
        let words = |text: &str| vec![text.to_string()];
        let rule = |rooms: &str, groups: &str, models: &str| Rule {
            rooms: if rooms.is_empty() { vec![] } else { words(rooms) },
            groups: if groups.is_empty() { vec![] } else { words(groups) },
            models: if models.is_empty() { vec![] } else { words(models) },
            files: vec![file("etc/motd", 2), file("opt/x", 3)],
            name: "one".into(),
            ..Rule::default()
        };
        for (rooms, groups, models, is) in [
            ("", "", "", true),
            ("101", "cad", "optiplex", true),
            ("102", "", "", false),
            ("101", "office", "", false),
            ("", "", "Dell*7?90", true),
            ("", "", "Latitude", false),
        ] {
            assert_eq!(rule(rooms, groups, models).is_for(&terminal), is, "{rooms} {groups} {models}");
        }
        assert!(!rule("101", "", "").is_for(&Traits::default()), "a terminal without a room");
        let mut after = of_all(vec![file("etc/motd", 1), file("etc/a", 1)]);
        after.rules.push(rule("101", "", ""));
        after.rules.push(rule("102", "", ""));
        let got: Vec<_> =
            after.of(&terminal).into_iter().map(|(_, f)| (f.path.as_str(), f.sha256.0[0])).collect();
        assert_eq!(got, [("etc/a", 1), ("etc/motd", 2), ("opt/x", 3)]);
        let has = |terminal: &Traits<'_>, content| after.has(terminal, &Sha256([content; 32]).to_string());
        assert!(has(&terminal, 1) && has(&terminal, 3) && !has(&terminal, 4));
        assert!(has(&Traits::default(), 1) && !has(&Traits::default(), 3), "no rule for it has this");
        assert!(!after.has(&terminal, "") && !after.has(&terminal, "01"));
    }

    #[test]
    fn a_rule_for_one_system_replaces_no_file_of_the_other_and_the_later_rule_comes_last() {
        let rule = |system, content| Rule {
            name: "one".into(),
            system,
            files: vec![file("a", content)],
            ..Rule::default()
        };
        let rules = vec![
            rule(Some(System::Linux), 1),
            rule(Some(System::Windows), 2),
            rule(Some(System::Linux), 3),
            rule(None, 4),
        ];
        let after = After { format: FORMAT, rules };
        let traits = Traits::default();
        let got: Vec<_> =
            after.of(&traits).into_iter().map(|(rule, file)| (rule.system, file.sha256.0[0])).collect();
        assert_eq!(got, [(Some(System::Windows), 2), (Some(System::Linux), 3), (None, 4)]);
    }

    #[test]
    fn a_rule_is_for_a_system_that_the_image_has_and_names_no_partition_then() {
        let mut manifest = gpt_manifest();
        let mut after = of_all(vec![file("x", 1)]);
        let list = String::from_utf8(after.to_bytes()).expect("text");
        assert!(!list.contains("system"), "older programs read a list that names none");
        after.rules[0].system = Some(System::Windows);
        assert!(after.check(&manifest).expect_err("no Windows").contains("no partition of one"));
        let number = manifest.partitions[0].number;
        manifest.partitions[0].filesystem = Some("ntfs".into());
        manifest.partitions[0].policy = Policy::Replace;
        assert_eq!(After::parse(&after.to_bytes(), &manifest), Ok(after.clone()));
        assert!(String::from_utf8(after.to_bytes()).expect("text").contains("\"system\": \"windows\""));
        manifest.partitions[0].filesystem = Some("ext4".into());
        after.rules[0].system = Some(System::Linux);
        assert_eq!(after.check(&manifest), Ok(()));
        after.rules[0].partition = Some(number);
        assert!(after.check(&manifest).expect_err("two places").contains("a partition and a system"));
    }

    #[test]
    fn no_path_leads_out_of_the_system_and_no_file_is_larger_than_terminals_hold() {
        let manifest = manifest();
        let good = of_all(vec![file("etc/a b/ü.conf", 1), file("opt/...x", 1)]);
        assert_eq!(After::parse(&good.to_bytes(), &manifest), Ok(good));
        for path in [
            "",
            "/etc/x",
            "etc/",
            "etc//x",
            "../x",
            "etc/../../x",
            "./x",
            "C:/x",
            "a\\b",
            "a\nb",
            "x.",
            "x ",
            "etc/flashmob/terminal.json",
        ] {
            assert!(of_all(vec![file(path, 1)]).check(&manifest).is_err(), "{path}");
        }
        for mode in ["4755", "0888", "7", "-644", "00644"] {
            let file = AfterFile { mode: mode.into(), ..file("x", 1) };
            assert!(of_all(vec![file]).check(&manifest).is_err(), "{mode}");
        }
        let sized = |size, content| AfterFile { size, ..file(&format!("f{content}"), content) };
        assert!(of_all(vec![sized(MAX_FILE_BYTES + 1, 1)]).check(&manifest).is_err());
        let many: Vec<_> = (1..=5).map(|n| sized(MAX_FILE_BYTES, n)).collect();
        assert!(of_all(many[..4].to_vec()).check(&manifest).is_ok());
        assert!(of_all(many).check(&manifest).expect_err("80 MiB").contains("64"));
        assert!(of_all(vec![file("x", 1), file("x", 2)]).check(&manifest).is_err(), "twice");
        let two_sizes = of_all(vec![sized(1, 1), AfterFile { size: 2, ..file("y", 1) }]);
        assert!(two_sizes.check(&manifest).is_err());
        assert!(After { format: 2, ..of_all(vec![]) }.check(&manifest).is_err());
        let mut elsewhere = of_all(vec![file("x", 1)]);
        elsewhere.rules[0].partition = Some(77);
        assert!(elsewhere.check(&manifest).expect_err("no such partition").contains("77"));
    }
}
