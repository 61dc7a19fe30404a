//! The programs' dependencies: licences that Apache-2.0 can use, one source, no crate twice without a reason,
//! no server in the terminal's agent.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde_json::Value;

/// Licences whose terms allow distribution under Apache-2.0.
const ALLOWED: [&str; 10] = [
    "Apache-2.0",
    "MIT",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "ISC",
    "Zlib",
    "Unicode-3.0",
    "Unlicense",
    "BSL-1.0",
    "CC0-1.0",
];

/// Crates that are there in two versions, and why that is borne.
const DOUBLED: [(&str, &str); 8] = [
    ("bitflags", "fatfs 0.3 (mkimage only) stays with 1.x"),
    ("block-buffer", "sha2 0.10 below minisign"),
    ("cpufeatures", "sha2 0.10 below minisign"),
    ("crypto-common", "sha2 0.10 below minisign"),
    ("digest", "sha2 0.10 below minisign"),
    ("heck", "ntfs 0.4 (mkimage only) builds with 0.4; build time only"),
    ("sha2", "minisign's scrypt (mkimage only) stays with 0.10"),
    ("syn", "derive macros move to 3.x one by one; build time only"),
];

fn metadata(extra: &[&str]) -> Value {
    let output = Command::new(env!("CARGO"))
        .args([
            "metadata",
            "--format-version",
            "1",
            "--locked",
            "--filter-platform",
            "x86_64-unknown-linux-musl",
        ])
        .args(extra)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Whether an SPDX expression can be met with allowed licences. Knows `AND`, `OR`, `WITH`, brackets and the
/// old `/`; anything else is not met.
fn is_allowed(expression: &str) -> bool {
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut at = 0;
    let met = any_of(&words, &mut at);
    met && at == words.len()
}

fn any_of(words: &[&str], at: &mut usize) -> bool {
    let mut met = all_of(words, at);
    while words.get(*at) == Some(&"OR") {
        *at += 1;
        met |= all_of(words, at);
    }
    met
}

fn all_of(words: &[&str], at: &mut usize) -> bool {
    let mut met = one_of(words, at);
    while words.get(*at) == Some(&"AND") {
        *at += 1;
        met &= one_of(words, at);
    }
    met
}

fn one_of(words: &[&str], at: &mut usize) -> bool {
    let Some(word) = words.get(*at) else { return false };
    *at += 1;
    if *word == "(" {
        let met = any_of(words, at);
        let closed = words.get(*at) == Some(&")");
        *at += 1;
        return met && closed;
    }
    if words.get(*at) == Some(&"WITH") {
        *at += 2; // An exception only ever permits more.
    }
    ALLOWED.contains(word)
}

#[test]
fn every_licence_is_one_that_apache_can_use() {
    let bad: Vec<String> = metadata(&[])["packages"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|p| !p["license"].as_str().is_some_and(is_allowed))
        .map(|p| format!("{} {}: {}", p["name"], p["version"], p["license"]))
        .collect();
    assert!(bad.is_empty(), "licences to look at: {bad:#?}");
}

#[test]
fn every_crate_comes_from_the_one_registry_or_this_tree() {
    let data = metadata(&[]);
    let sources: BTreeSet<&str> =
        data["packages"].as_array().unwrap().iter().filter_map(|p| p["source"].as_str()).collect();
    assert_eq!(sources.len(), 1, "one registry and paths in the workspace, nothing else: {sources:?}");
    assert!(
        sources.iter().all(|source| source.starts_with("registry+")),
        "no git or path sources: {sources:?}"
    );
}

#[test]
fn no_crate_is_doubled_without_a_reason() {
    let mut versions: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let data = metadata(&[]);
    let used: BTreeSet<&str> =
        data["resolve"]["nodes"].as_array().unwrap().iter().filter_map(|n| n["id"].as_str()).collect();
    for p in data["packages"].as_array().unwrap().iter().filter(|p| used.contains(p["id"].as_str().unwrap()))
    {
        let name = p["name"].as_str().unwrap().to_string();
        versions.entry(name).or_default().insert(p["version"].as_str().unwrap().to_string());
    }
    let doubled: BTreeMap<_, _> = versions.into_iter().filter(|(_, v)| v.len() > 1).collect();
    let surprising: Vec<_> =
        doubled.iter().filter(|(name, _)| !DOUBLED.iter().any(|(d, _)| d == name)).collect();
    assert!(surprising.is_empty(), "doubled crates: {surprising:?}");
    let stale: Vec<_> = DOUBLED.iter().filter(|(name, _)| !doubled.contains_key(*name)).collect();
    assert!(stale.is_empty(), "no longer doubled, so strike them: {stale:?}");
}

#[test]
fn the_terminals_agent_carries_no_server() {
    let output = Command::new(env!("CARGO"))
        .args([
            "tree",
            "--locked",
            "-p",
            "flashmob",
            "--no-default-features",
            "--features",
            "agent",
            "-e",
            "normal",
        ])
        .args(["--prefix", "none", "--target", "x86_64-unknown-linux-musl"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let tree = String::from_utf8(output.stdout).unwrap();
    assert!(tree.contains("tokio v"), "the tree was read");
    for unwanted in ["axum", "rusqlite", "libsqlite3-sys", "openssl", "indicatif"] {
        assert!(
            !tree.lines().any(|l| l.starts_with(&format!("{unwanted} v"))),
            "{unwanted} is in the agent's tree"
        );
    }
}

#[test]
fn licence_expressions_are_read_as_meant() {
    assert!(is_allowed("MIT OR Apache-2.0"));
    assert!(is_allowed("MIT/Apache-2.0"));
    assert!(is_allowed("(MIT OR Apache-2.0) AND Unicode-3.0"));
    assert!(is_allowed("Apache-2.0 WITH LLVM-exception OR GPL-3.0"));
    assert!(!is_allowed("GPL-3.0-only"));
    assert!(!is_allowed("MIT AND GPL-2.0"));
    assert!(!is_allowed("(MIT"));
    assert!(!is_allowed(""));
}
