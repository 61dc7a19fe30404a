//! `after`: gives an image the administrator's files for terminals, or takes them away.
//!
//! Invariant: the payload and its torrent stay as they are. The old signature is gone before the list of
//! files changes, so no terminal takes files that nobody signed. A run that was cut off is made good by
//! another one.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use flashmob::event::Failure;
use flashmob::image_id::is_plain_name;
use flashmob::io::hash::sha256;
use flashmob::io::image::folder::ImageFolder;
use flashmob::manifest::after::{self, After, AfterFile, MAX_FILE_BYTES, Rule, System};
use flashmob::manifest::{MAX_MANIFEST_BYTES, Manifest, names};
use flashmob::units::show_bytes;
use serde::Deserialize;

use crate::keys::{file_failure, read_secret, sync_folder, write_new};
use crate::sign::write_signature;

/// The file of the rules, in the administrator's folder.
const RULES: &str = "rules.toml";

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The image's folder (REPOSITORY/NAME/VERSION).
    image: PathBuf,
    /// The folder with the files. Without rules.toml in it, every terminal gets all of them, at the same
    /// places below the root of its system (docs/identity.md).
    #[arg(required_unless_present = "remove")]
    files: Option<PathBuf>,
    /// Take the image's files away.
    #[arg(long, conflicts_with = "files")]
    remove: bool,
    /// Sign the image again with this secret key; without one it is unsigned, and terminals refuse it.
    #[arg(long, value_name = "SECRET")]
    key: Option<PathBuf>,
    /// Text that is signed with the manifest and shown by `minisign -V`.
    #[arg(long, value_name = "TEXT", requires = "key")]
    trusted_comment: Option<String>,
}

/// The content of `rules.toml`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Rules {
    rule: Vec<RuleText>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RuleText {
    /// The folder with the rule's files, beside `rules.toml`.
    folder: String,
    rooms: Option<Vec<String>>,
    groups: Option<Vec<String>>,
    models: Option<Vec<String>>,
    #[serde(default)]
    partition: Option<u32>,
    #[serde(default)]
    system: Option<System>,
    /// The folder on the terminal that the files go to.
    #[serde(default)]
    to: String,
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let key = arguments.key.as_deref().map(read_secret).transpose()?;
    let folder = &arguments.image;
    // A run that was cut off may have left a list that the manifest does not name yet.
    let mut manifest = read_manifest(folder)?;
    let (after, contents) = match &arguments.files {
        Some(files) => collect(files, &manifest)?,
        None => (After { format: after::FORMAT, rules: Vec::new() }, BTreeMap::new()),
    };
    let held = folder.join(names::AFTER);
    put_contents(&held, &contents)?;
    match fs::remove_file(folder.join(names::SIGNATURE)) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            return Err(file_failure("removing", &folder.join(names::SIGNATURE), &e));
        }
        _ => sync_folder(folder)?,
    }
    let list = after.to_bytes();
    match arguments.remove {
        true => drop(manifest.sidecars.remove(names::AFTER_LIST)),
        false => {
            manifest.sidecars.insert(names::AFTER_LIST.into(), sha256(&list));
            replace(folder, names::AFTER_LIST, &list)?;
        }
    }
    let text = manifest.to_bytes();
    replace(folder, names::MANIFEST, &text)?;
    if arguments.remove {
        let _ = fs::remove_file(folder.join(names::AFTER_LIST));
    }
    clear(&held, &contents)?;
    sync_folder(folder)?;
    ImageFolder::open(folder)?;
    if let Some(key) = &key {
        write_signature(folder, &manifest, &text, key, arguments.trusted_comment.as_deref())?;
    }
    report(&manifest, &after, key.is_some(), folder);
    Ok(())
}

fn report(manifest: &Manifest, after: &After, signed: bool, folder: &Path) {
    let count: usize = after.rules.iter().map(|rule| rule.files.len()).sum();
    let bytes = after.blobs().values().sum();
    println!("{} has {count} files for terminals ({})", manifest.id(), show_bytes(bytes));
    for rule in &after.rules {
        println!("  {}: {} files for {}", rule.name, rule.files.len(), whom(rule));
    }
    if !signed {
        println!("it is not signed now, and terminals refuse it: run");
        println!("  flashmob-mkimage sign {} --key SECRET", folder.display());
    }
}

/// The terminals and the system of a rule, for people.
pub(crate) fn whom(rule: &Rule) -> String {
    let kinds = [("room", &rule.rooms), ("group", &rule.groups), ("model", &rule.models)];
    let kinds = kinds.iter().filter(|(_, named)| !named.is_empty());
    let words: Vec<String> = kinds.map(|(kind, named)| format!("{kind} {}", named.join(" or "))).collect();
    let whom = match words.is_empty() {
        true => "all terminals".into(),
        false => words.join(", "),
    };
    match rule.system {
        Some(system) => format!("{whom}, their {system}"),
        None => whom,
    }
}

fn read_manifest(folder: &Path) -> Result<Manifest, Failure> {
    let path = folder.join(names::MANIFEST);
    let size = fs::metadata(&path).map_err(|e| file_failure("reading", &path, &e))?.len();
    if size > MAX_MANIFEST_BYTES as u64 {
        return Err(refused(format!("{} has {}", path.display(), show_bytes(size))));
    }
    let bytes = fs::read(&path).map_err(|e| file_failure("reading", &path, &e))?;
    Manifest::parse(&bytes).map_err(|e| refused(format!("{}: {e}", path.display())))
}

fn refused(why: impl Into<String>) -> Failure {
    Failure::refused(why, "The image is as it was. docs/identity.md describes the folder of files.")
}

/// Contents by their hash.
type Contents = BTreeMap<String, Vec<u8>>;

/// The list of the administrator's files, checked for this image, and their contents.
fn collect(folder: &Path, manifest: &Manifest) -> Result<(After, Contents), Failure> {
    let rules = folder.join(RULES);
    let texts = match fs::read_to_string(&rules) {
        Ok(text) => {
            let rules: Rules =
                toml::from_str(&text).map_err(|e| refused(format!("{}: {e}", rules.display())))?;
            rules.rule
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => vec![RuleText {
            folder: ".".into(),
            rooms: None,
            groups: None,
            models: None,
            partition: None,
            system: None,
            to: String::new(),
        }],
        Err(e) => return Err(file_failure("reading", &rules, &e)),
    };
    let mut contents = Contents::new();
    let mut after = After { format: after::FORMAT, rules: Vec::new() };
    for text in texts {
        let RuleText { folder: from, rooms, groups, models, partition, system, to } = text;
        if rules.exists() && !is_plain_name(&from) {
            let where_ = rules.display();
            return Err(refused(format!("{where_}: '{from}' is no plain name of a folder beside it")));
        }
        // An empty list would name nobody, and to terminals it means everybody.
        for (word, named) in [("rooms", &rooms), ("groups", &groups), ("models", &models)] {
            if named.as_ref().is_some_and(Vec::is_empty) {
                return Err(refused(format!(
                    "{}: the rule for '{from}' has an empty list of {word}, which names nobody; leave \
                     the line out for all terminals, or the rule",
                    rules.display()
                )));
            }
        }
        let [rooms, groups, models] = [rooms, groups, models].map(Option::unwrap_or_default);
        let to = to.trim_matches('/').to_string();
        let mut files = Vec::new();
        walk(&folder.join(&from), &to, &mut files, &mut contents)?;
        if files.is_empty() {
            return Err(refused(format!("{} has no files", folder.join(&from).display())));
        }
        let name = if from == "." { "all".into() } else { from };
        after.rules.push(Rule { name, rooms, groups, models, partition, system, files });
    }
    after.check(manifest).map_err(refused)?;
    if after.to_bytes().len() > after::MAX_LIST_BYTES {
        return Err(refused("the list of files is longer than terminals read"));
    }
    Ok((after, contents))
}

/// Adds all files below `folder`, which go to `to`.
fn walk(folder: &Path, to: &str, files: &mut Vec<AfterFile>, contents: &mut Contents) -> Result<(), Failure> {
    let said = |e: std::io::Error| file_failure("reading", folder, &e);
    let mut entries: Vec<_> = fs::read_dir(folder).map_err(said)?.collect::<Result<_, _>>().map_err(said)?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let path = entry.path();
        let name = entry.file_name();
        let name =
            name.to_str().ok_or_else(|| refused(format!("{}: the name is no text", path.display())))?;
        let goes = if to.is_empty() { name.to_string() } else { format!("{to}/{name}") };
        let metadata = fs::symlink_metadata(&path).map_err(|e| file_failure("reading", &path, &e))?;
        if metadata.is_dir() {
            walk(&path, &goes, files, contents)?;
            continue;
        }
        if !metadata.is_file() {
            return Err(refused(format!("{} is neither a file nor a folder", path.display())));
        }
        after::check_path(&goes).map_err(refused)?;
        if metadata.len() > MAX_FILE_BYTES {
            let (has, most) = (show_bytes(metadata.len()), show_bytes(MAX_FILE_BYTES));
            return Err(refused(format!("{} has {has}; a file may have {most}", path.display())));
        }
        if contents.values().map(|one| one.len() as u64).sum::<u64>() > after::MAX_BYTES {
            return Err(refused(format!("all files may have {} together", show_bytes(after::MAX_BYTES))));
        }
        let bytes = fs::read(&path).map_err(|e| file_failure("reading", &path, &e))?;
        let mode = format!("{:04o}", metadata.permissions().mode() & 0o777);
        let sha256 = sha256(&bytes);
        files.push(AfterFile { path: goes, mode, size: bytes.len() as u64, sha256 });
        contents.insert(sha256.to_string(), bytes);
    }
    Ok(())
}

/// Has the contents in the image's folder, each under its hash.
fn put_contents(held: &Path, contents: &Contents) -> Result<(), Failure> {
    if contents.is_empty() {
        return Ok(());
    }
    fs::create_dir_all(held).map_err(|e| file_failure("making", held, &e))?;
    for (hash, bytes) in contents {
        if fs::read(held.join(hash)).is_ok_and(|there| there == *bytes) {
            continue;
        }
        replace(held, hash, bytes)?;
    }
    sync_folder(held)
}

/// Removes the contents that no rule names now.
fn clear(held: &Path, contents: &Contents) -> Result<(), Failure> {
    let Ok(entries) = fs::read_dir(held) else { return Ok(()) };
    for entry in entries.flatten() {
        if entry.file_name().to_str().is_none_or(|name| !contents.contains_key(name)) {
            fs::remove_file(entry.path()).map_err(|e| file_failure("removing", &entry.path(), &e))?;
        }
    }
    if contents.is_empty() {
        let _ = fs::remove_dir(held);
    }
    Ok(())
}

/// Replaces a file in one step.
fn replace(folder: &Path, name: &str, bytes: &[u8]) -> Result<(), Failure> {
    let (path, fresh) = (folder.join(name), folder.join(format!(".{name}.new-{}", std::process::id())));
    write_new(&fresh, 0o644, bytes)?;
    fs::rename(&fresh, &path).map_err(|e| file_failure("writing", &path, &e))
}
