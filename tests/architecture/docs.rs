//! The pages of `docs/`: links lead somewhere, and a page that code names exists.
//!
//! Invariant: headings become anchors as GitHub makes them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// All files that git knows or would add, with one of these endings.
fn files(root: &Path, endings: &[&str]) -> Vec<PathBuf> {
    let listed = Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard"])
        .current_dir(root)
        .output()
        .unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    let wanted = listed.lines().filter(|file| endings.iter().any(|ending| file.ends_with(ending)));
    // A file that was removed and not committed yet is still listed.
    wanted.map(|file| root.join(file)).filter(|file| file.exists()).collect()
}

/// `#larger-disks` for "## Larger disks".
fn anchors(page: &Path) -> Vec<String> {
    let text = fs::read_to_string(page).unwrap();
    let headings = text.lines().filter(|line| line.starts_with('#'));
    headings
        .map(|line| {
            let title = line.trim_start_matches('#').trim().to_lowercase();
            let kept = title.chars().filter(|c| c.is_alphanumeric() || [' ', '-', '_'].contains(c));
            kept.map(|c| if c == ' ' { '-' } else { c }).collect()
        })
        .collect()
}

/// The targets of a page's links, without those to other sites and those in indented code.
fn links(text: &str) -> Vec<String> {
    let prose = text.lines().filter(|line| !line.starts_with("    ")).collect::<Vec<_>>().join("\n");
    let targets = prose.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    targets.filter(|target| !target.contains("://")).map(str::to_string).collect()
}

#[test]
fn every_link_leads_to_a_file_and_a_heading() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut broken = Vec::new();
    for page in files(root, &[".md"]) {
        for link in links(&fs::read_to_string(&page).unwrap()) {
            let (file, anchor) = link.split_once('#').map_or((link.as_str(), None), |(f, a)| (f, Some(a)));
            let target = match file {
                "" => page.clone(),
                _ => page.parent().unwrap().join(file),
            };
            let leads = target.exists()
                && anchor.is_none_or(|anchor| anchors(&target).iter().any(|known| known == anchor));
            if !leads {
                broken.push(format!("{}: {link}", page.display()));
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn every_page_that_is_named_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut missing = Vec::new();
    for file in files(root, &[".rs", ".toml", ".md", ".service", ".sh", ".js", ".ps1", ".html"]) {
        let text = fs::read_to_string(&file).unwrap();
        for rest in text.split("docs/").skip(1) {
            let name: String = rest.chars().take_while(|c| c.is_ascii_lowercase() || *c == '-').collect();
            let is_page = !name.is_empty() && rest[name.len()..].starts_with(".md");
            if is_page && !root.join(format!("docs/{name}.md")).exists() {
                missing.push(format!("{}: docs/{name}.md", file.display()));
            }
        }
    }
    assert!(missing.is_empty(), "{}", missing.join("\n"));
}

#[test]
fn the_list_of_pages_names_every_page() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let listed = links(&fs::read_to_string(root.join("docs/operations.md")).unwrap());
    let pages = files(root, &[".md"]);
    let names = pages.iter().filter_map(|page| page.strip_prefix(root.join("docs")).ok()?.to_str());
    let unlisted: Vec<&str> =
        names.filter(|name| *name != "operations.md" && !listed.iter().any(|link| link == name)).collect();
    assert_eq!(unlisted, [""; 0], "docs/operations.md lists every page");
}
