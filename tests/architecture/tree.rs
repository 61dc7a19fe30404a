//! The source tree as the tests of the tree see it: files, their code, and which file names which.
//!
//! Invariant: only names that resolve to a file of the same tree are edges. A folder's `mod.rs` that
//! re-exports its files is a facade: an import through it counts as an import of the file that has the name,
//! and the re-export itself counts only if `mod.rs` uses the name too.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The Rust files below `folder`.
pub(crate) fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// Lines of code without comments and without the `#[cfg(test)]` part at the end of a file.
pub(crate) fn code_lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let ends = ["\n#[cfg(test)]\nmod ", "\n#[cfg(test)]\npub mod ", "\n#[cfg(test)]\npub(crate) mod "];
    let end = ends.iter().filter_map(|mark| text.find(mark)).min().unwrap_or(text.len());
    (1..).zip(text[..end].lines()).filter(|(_, line)| !line.trim_start().starts_with("//"))
}

/// A file's place among modules: `io/disk/claim.rs` is `["io", "disk", "claim"]`, `mod.rs` its folder.
type Module = Vec<String>;

/// Which files of a crate import which.
pub(crate) struct Imports {
    edges: BTreeMap<Module, BTreeSet<Module>>,
}

/// One name that a file takes from elsewhere, and whether it is handed on (`pub use`).
struct Use {
    path: Vec<String>,
    public: bool,
}

impl Imports {
    /// The tree of the crate in `src`, without test files, which may import any file.
    pub(crate) fn of(src: &Path) -> Self {
        let texts: BTreeMap<Module, String> = rust_files(src)
            .iter()
            .filter_map(|file| {
                let module = module_of(file.strip_prefix(src).unwrap());
                let text = fs::read_to_string(file).unwrap();
                let code: Vec<&str> = code_lines(&text).map(|(_, line)| line).collect();
                (!is_test(&module)).then(|| (module, code.join("\n")))
            })
            .collect();
        Self::of_texts(&texts)
    }

    fn of_texts(texts: &BTreeMap<Module, String>) -> Self {
        let file_of = |path: &[String]| {
            (0..=path.len()).rev().map(|n| path[..n].to_vec()).find(|module| texts.contains_key(module))
        };
        let uses: BTreeMap<&Module, Vec<Use>> =
            texts.iter().map(|(module, text)| (module, uses_of(module, text, texts))).collect();
        let mut handed_on: BTreeMap<Vec<String>, Module> = BTreeMap::new();
        for (module, uses) in &uses {
            for one in uses.iter().filter(|one| one.public) {
                if let (Some(file), Some(name)) = (file_of(&one.path), one.path.last()) {
                    let known_as = module.iter().chain([name]).cloned().collect();
                    handed_on.insert(known_as, file);
                }
            }
        }
        let edges = uses
            .iter()
            .map(|(module, uses)| {
                let text = &texts[*module];
                let named = uses.iter().filter(|one| !one.public || is_used(text, one)).filter_map(|one| {
                    let file = file_of(&one.path)?;
                    let known_as = one.path.get(..file.len() + 1).unwrap_or(&one.path);
                    Some(handed_on.get(known_as).cloned().unwrap_or(file))
                });
                ((*module).clone(), named.filter(|other| other != *module).collect())
            })
            .collect();
        Imports { edges }
    }

    /// Pairs of an importing and an imported module.
    pub(crate) fn pairs(&self) -> impl Iterator<Item = (&Module, &Module)> {
        self.edges.iter().flat_map(|(from, to)| to.iter().map(move |to| (from, to)))
    }

    /// Files that can be reached from themselves, with their imports inside the circle.
    pub(crate) fn circles(&self) -> Vec<String> {
        let reached: BTreeMap<&Module, BTreeSet<&Module>> =
            self.edges.keys().map(|module| (module, self.reach(module))).collect();
        let in_circle = |module: &Module| reached.get(module).is_some_and(|all| all.contains(module));
        self.pairs()
            .filter(|(from, to)| in_circle(from) && reached[*to].contains(from))
            .map(|(from, to)| format!("{} imports {}", from.join("/"), to.join("/")))
            .collect()
    }

    fn reach<'a>(&'a self, from: &Module) -> BTreeSet<&'a Module> {
        let mut found = BTreeSet::new();
        let mut next: Vec<&Module> = self.edges[from].iter().collect();
        while let Some(module) = next.pop() {
            if found.insert(module) {
                next.extend(self.edges.get(module).into_iter().flatten());
            }
        }
        found
    }
}

fn module_of(file: &Path) -> Module {
    let mut parts: Module =
        file.with_extension("").components().map(|c| c.as_os_str().to_string_lossy().into_owned()).collect();
    if parts.last().is_some_and(|last| ["mod", "lib", "main"].contains(&last.as_str())) {
        parts.pop();
    }
    parts
}

fn is_test(module: &Module) -> bool {
    module.iter().any(|part| part == "testkit" || part.ends_with("tests"))
}

/// Is a name that is handed on used by the file that hands it on?
fn is_used(text: &str, one: &Use) -> bool {
    let Some(name) = one.path.last() else { return false };
    text.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| word == name).count() > 1
}

/// All files of its own crate that a file names: in `use` lines, and in paths that begin with `crate`,
/// `super`, `self` or a child.
fn uses_of(module: &Module, text: &str, all: &BTreeMap<Module, String>) -> Vec<Use> {
    let mut found = Vec::new();
    let mut rest = String::new();
    for statement in text.split_inclusive(';') {
        let (before, used) = match statement.rfind("use ").filter(|at| begins_line(statement, *at)) {
            Some(at) => (&statement[..at], Some(&statement[at + 4..statement.len() - 1])),
            None => (statement, None),
        };
        rest.push_str(before);
        let public = before.trim_end().rsplit('\n').next().is_some_and(|line| line.starts_with("pub"));
        for path in used.map(expand).unwrap_or_default() {
            found.extend(resolve(module, &path, all).map(|path| Use { path, public }));
        }
    }
    let words = rest.split(|c: char| !c.is_alphanumeric() && c != '_' && c != ':');
    for word in words.filter(|word| word.contains("::")) {
        found.extend(resolve(module, word, all).map(|path| Use { path, public: false }));
    }
    found
}

/// `use` counts where nothing but a visibility stands before it on its line.
fn begins_line(statement: &str, at: usize) -> bool {
    let line = statement[..at].rsplit('\n').next().unwrap_or_default().trim();
    statement.ends_with(';') && (line.is_empty() || line.starts_with("pub"))
}

/// `a::{b, c::{d, e}}` as `a::b`, `a::c::d`, `a::c::e`.
fn expand(tree: &str) -> Vec<String> {
    let tree: String = tree.split_whitespace().collect::<Vec<_>>().join(" ");
    let Some((head, inner)) = tree.split_once('{') else {
        return vec![tree.split(" as ").next().unwrap_or_default().trim().to_string()];
    };
    let inner = inner.strip_suffix('}').unwrap_or(inner);
    let (mut depth, mut parts) = (0, vec![String::new()]);
    for c in inner.chars() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(String::new());
                continue;
            }
            _ => {}
        }
        parts.last_mut().unwrap().push(c);
    }
    let parts = parts.iter().map(|part| part.trim()).filter(|part| !part.is_empty());
    parts.flat_map(|part| expand(&format!("{}{part}", head.trim()))).collect()
}

/// A path from the root of the crate; `None` if it leads out of it.
fn resolve(module: &Module, path: &str, all: &BTreeMap<Module, String>) -> Option<Vec<String>> {
    let mut parts = path.split("::").map(str::to_string).peekable();
    let first = parts.peek()?.clone();
    let mut base = match first.as_str() {
        "crate" => Vec::new(),
        "super" | "self" => module.clone(),
        child => {
            let own: Module = module.iter().cloned().chain([child.to_string()]).collect();
            all.contains_key(&own).then(|| module.clone())?
        }
    };
    while let Some(part) = parts.next_if(|part| ["crate", "super", "self"].contains(&part.as_str())) {
        if part == "super" {
            base.pop();
        }
    }
    base.extend(parts.filter(|part| !part.is_empty()));
    Some(base)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn imports(files: &[(&str, &str)]) -> Imports {
        let texts =
            files.iter().map(|(path, text)| (module_of(Path::new(path)), (*text).to_string())).collect();
        Imports::of_texts(&texts)
    }

    #[test]
    fn a_circle_of_two_files_and_one_over_a_folder_are_found() {
        let two = imports(&[("a.rs", "use crate::b::{self, B};"), ("b.rs", "fn f() { crate::a::g() }")]);
        assert_eq!(two.circles(), ["a imports b", "b imports a"]);
        let folder = imports(&[
            ("x/mod.rs", "mod child;\nfn f() { child::g(); }\nconst LEN: u8 = 1;"),
            ("x/child.rs", "use super::LEN;"),
        ]);
        assert_eq!(folder.circles(), ["x imports x/child", "x/child imports x"]);
    }

    #[test]
    fn a_facade_that_only_hands_names_on_is_no_part_of_a_circle() {
        let facade = [("x/mod.rs", "mod a;\nmod b;\npub use a::A;\npub use b::B;"), ("x/b.rs", "struct B;")];
        let through = imports(&[&facade[..], &[("x/a.rs", "use super::B;\nstruct A;")]].concat());
        assert_eq!(through.circles(), Vec::<String>::new());
        let used =
            [facade[1], ("x/mod.rs", "mod a;\nmod b;\npub use a::A;\nfn f() -> A {}\nconst N: u8 = 1;")];
        let used = imports(&[&used[..], &[("x/a.rs", "use super::N;\nstruct A;")]].concat());
        assert_eq!(used.circles(), ["x imports x/a", "x/a imports x"]);
    }
}
