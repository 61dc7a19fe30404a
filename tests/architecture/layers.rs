//! Layers (docs/architecture.md): words < formats < stages < io < programs. A file may use its own layer and
//! those below, and only `io` and the programs may touch the world.

use std::fs;
use std::path::Path;

use crate::tree::{Imports, code_lines, rust_files};

/// Modules of `src/` from the lowest layer to the highest. Every module is in exactly one.
const LAYERS: [(&str, &[&str]); 5] = [
    ("words", &["units", "bitfield", "digest", "rng", "slots", "storage", "buf", "sync"]),
    ("formats", &["bencode", "metainfo", "image_id", "manifest", "event", "nbd", "peer_policy", "api"]),
    ("stages", &["layout", "lan", "tracker", "swarm", "boot", "sim", "forecast"]),
    ("adapters", &["io"]),
    ("programs", &["agent", "server", "cli", "manual", "bin"]),
];

/// Rooms of `src/swarm`, `src/io` and `src/server`, each folder or file from the lowest to the highest. A
/// room may use itself and those before it.
const ROOMS: [(&str, &[&str]); 3] = [
    (
        "swarm",
        &[
            "geometry",
            "wire",
            "limit",
            "interface",
            "ratio",
            "rate",
            "pieces",
            "peers",
            "context",
            "download",
            "upload",
            "engine",
        ],
    ),
    ("io", &["sys", "sysfs", "hash", "storage", "net", "disk", "image", "host", "torrent"]),
    (
        "server",
        &[
            "clock",
            "meters",
            "domain",
            "store",
            "ports",
            "app",
            "repository",
            "mdns",
            "waking",
            "pxe",
            "http",
            "tftp",
            "webhooks",
            "seeder",
            "watch",
            "start",
        ],
    ),
];

/// Packages of the workspace, each a crate of its own.
const CRATES: [&str; 5] = ["src", "mkimage/src", "initramfs/src", "qemu-tests/src", "tests/support/src"];

/// Only adapters and programs may name these: time, chance, the file system, sockets, the kernel.
const WORLD: [&str; 12] = [
    "tokio::",
    "nix::",
    "libc::",
    "reqwest::",
    "rtnetlink::",
    "getrandom::",
    "mdns_sd::",
    "std::fs",
    "std::thread",
    "std::process",
    "Instant::now",
    "SystemTime::now",
];

fn layer_of(module: &str) -> Option<usize> {
    LAYERS.iter().position(|(_, modules)| modules.contains(&module))
}

/// The first folder or file stem below `src/`.
fn module_of(path: &Path, src: &Path) -> String {
    let first = path.strip_prefix(src).unwrap().components().next().unwrap();
    Path::new(first.as_os_str()).file_stem().unwrap().to_string_lossy().into_owned()
}

/// Crate modules named on a line: `crate::x`, `flashmob::x` and `use crate::{x, y::z}`.
fn modules_named(line: &str) -> Vec<String> {
    let mut found = Vec::new();
    for prefix in ["crate::", "flashmob::"] {
        for (at, _) in line.match_indices(prefix) {
            let rest = &line[at + prefix.len()..];
            let list = rest.strip_prefix('{').map_or_else(|| vec![rest], split_list);
            let name =
                |text: &str| text.trim().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            found.extend(list.into_iter().map(name));
        }
    }
    found
}

/// `a, b::{c, d}, e}` at depth 0: `a`, ` b::{c, d}`, ` e`.
fn split_list(inner: &str) -> Vec<&str> {
    let (mut depth, mut from, mut parts) = (0i32, 0, Vec::new());
    for (i, c) in inner.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => {
                parts.push(&inner[from..i]);
                return parts;
            }
            '}' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&inner[from..i]);
                from = i + 1;
            }
            _ => {}
        }
    }
    parts.push(&inner[from..]);
    parts
}

/// All broken rules in one file's text.
fn violations(module: &str, text: &str) -> Vec<(usize, String)> {
    let layer = layer_of(module).unwrap();
    let mut broken = Vec::new();
    for (number, line) in code_lines(text) {
        for named in modules_named(line) {
            if layer_of(&named).is_some_and(|other| other > layer) {
                broken.push((
                    number,
                    format!("{} `{module}` uses `{named}` of a layer above", LAYERS[layer].0),
                ));
            }
        }
        if layer < 3 {
            for world in WORLD.iter().filter(|world| line.contains(**world)) {
                broken.push((number, format!("{} `{module}` touches the world: {world}", LAYERS[layer].0)));
            }
        }
    }
    broken
}

#[test]
fn imports_point_down_and_only_adapters_touch_the_world() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let files = rust_files(&src);
    assert!(files.len() > 10, "the tree was found");
    let mut broken = Vec::new();
    let tests = |file: &Path| file.starts_with(src.join("testkit"));
    for file in files.iter().filter(|f| !f.ends_with("src/lib.rs") && !tests(f)) {
        let module = module_of(file, &src);
        assert!(layer_of(&module).is_some(), "module `{module}` is in no layer: add it to LAYERS");
        for (line, what) in violations(&module, &fs::read_to_string(file).unwrap()) {
            broken.push(format!("{}:{line}: {what}", file.display()));
        }
    }
    assert!(broken.is_empty(), "imports that point up:\n{}", broken.join("\n"));
}

#[test]
fn rooms_import_only_rooms_below_them() {
    let imports = Imports::of(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"));
    let mut broken = Vec::new();
    for (layer, rooms) in ROOMS {
        let floor = |module: &[String]| match module {
            [first, room, ..] if first == layer && !room.ends_with("testing") => {
                let floor = rooms.iter().position(|name| name == room);
                assert!(floor.is_some(), "`{layer}::{room}` is in no room: add it to ROOMS");
                floor
            }
            _ => None,
        };
        let pairs = imports
            .pairs()
            .filter(|(from, to)| matches!((floor(from), floor(to)), (Some(a), Some(b)) if b > a));
        broken.extend(pairs.map(|(from, to)| format!("{} imports {}", from.join("/"), to.join("/"))));
    }
    assert!(broken.is_empty(), "imports of a room above:\n{}", broken.join("\n"));
}

#[test]
fn no_file_can_be_reached_from_itself() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let circles: Vec<String> = CRATES.iter().flat_map(|src| Imports::of(&root.join(src)).circles()).collect();
    assert!(circles.is_empty(), "files that import each other in a circle:\n{}", circles.join("\n"));
}

#[test]
fn every_file_says_what_it_is_for() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let files = ["src", "mkimage", "initramfs", "qemu-tests", "tests"]
        .into_iter()
        .flat_map(|part| rust_files(&root.join(part)));
    let silent: Vec<_> = files.filter(|f| !fs::read_to_string(f).unwrap().starts_with("//!")).collect();
    assert!(silent.is_empty(), "files that do not begin with `//!`: {silent:#?}");
}

/// Comments and texts wrap where code does; rustfmt leaves them alone. Drawings have no words to wrap.
const COLUMNS: usize = 110;

fn too_long(line: &str) -> bool {
    line.chars().count() > COLUMNS && !(line.trim_start().starts_with("//") && line.contains(['─', '|']))
}

#[test]
fn every_line_wraps_at_110_columns() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let files = ["src", "mkimage", "initramfs", "qemu-tests", "tests", "benches"]
        .into_iter()
        .flat_map(|part| rust_files(&root.join(part)));
    let mut broken = Vec::new();
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        let long = (1..).zip(text.lines()).filter(|(_, line)| too_long(line));
        broken.extend(long.map(|(number, _)| format!("{}:{number}", file.display())));
    }
    assert!(broken.is_empty(), "lines of more than {COLUMNS} columns:\n{}", broken.join("\n"));
    assert!(
        too_long(&format!("    // {}", "x".repeat(110))) && !too_long(&format!("// {}", "x".repeat(100)))
    );
}

#[test]
fn the_rules_notice_what_they_forbid() {
    assert_eq!(violations("swarm", "use crate::io::torrent::Session;\n").len(), 1);
    assert_eq!(violations("layout", "use crate::{units, io::disk::device, agent};\n").len(), 2);
    assert_eq!(violations("tracker", "let now = std::time::Instant::now();\n").len(), 1);
    assert_eq!(violations("io", "use crate::layout::plan; use std::fs::File;\n"), vec![]);
    assert_eq!(
        violations("swarm", "// crate::io is above\n#[cfg(test)]\nmod tests { use std::fs; }\n"),
        vec![]
    );
}

#[test]
fn nothing_is_logged_in_the_words_of_the_program() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut broken = Vec::new();
    for file in ["src", "mkimage/src", "initramfs/src"].iter().flat_map(|src| rust_files(&root.join(src))) {
        let text = fs::read_to_string(&file).unwrap();
        let calls = text.match_indices("log::").filter_map(|(at, _)| text[at..].split(");").next());
        broken.extend(
            calls.filter(|call| call.contains(":?}")).map(|call| format!("{}: {call}", file.display())),
        );
    }
    assert!(broken.is_empty(), "people read the log, so no Debug output: {broken:#?}");
}

#[test]
fn only_the_store_names_the_library_of_the_database() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let store = src.join("server/store");
    let names = |file: &&std::path::PathBuf| fs::read_to_string(file).unwrap().contains("rusqlite");
    let (inside, outside): (Vec<_>, Vec<_>) =
        rust_files(&src).iter().filter(names).cloned().partition(|file| file.starts_with(&store));
    assert!(!inside.is_empty() && outside.is_empty(), "another database must fit behind it: {outside:#?}");
}
