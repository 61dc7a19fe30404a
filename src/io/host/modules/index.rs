//! The kernel modules for a device, from the tables that `depmod` writes next to the modules.
//!
//! Invariant: a module's load order has all its dependencies before it (`modules.dep`, and `pre:` of
//! `modules.softdep`) and nothing twice, even if the tables have cycles. `super` reads files and loads
//! modules.

use std::collections::{HashMap, HashSet};

/// The tables of one kernel's module tree.
#[derive(Debug, Default)]
pub(crate) struct Index {
    /// Patterns by the part before the first `:`, each with its module.
    aliases: HashMap<String, Vec<(String, String)>>,
    /// Module name to its file and the files it needs (nearest first), as paths below the tree.
    deps: HashMap<String, (String, Vec<String>)>,
    soft: HashMap<String, Soft>,
}

#[derive(Debug, Default, Clone)]
struct Soft {
    pre: Vec<String>,
    post: Vec<String>,
}

impl Index {
    /// Reads the texts of `modules.alias`, `modules.dep` and `modules.softdep`. Lines that are not understood
    /// are skipped: they are for other programs.
    pub(crate) fn parse(alias: &str, dep: &str, softdep: &str) -> Self {
        let mut index = Index::default();
        for line in alias.lines() {
            let mut words = line.split_whitespace();
            if let (Some("alias"), Some(pattern), Some(module)) = (words.next(), words.next(), words.next()) {
                let bus = pattern.split(':').next().unwrap_or(pattern).to_owned();
                index.aliases.entry(bus).or_default().push((pattern.to_owned(), name_of(module)));
            }
        }
        for line in dep.lines() {
            if let Some((file, needs)) = line.split_once(':') {
                let needs = needs.split_whitespace().map(str::to_owned).collect();
                index.deps.insert(name_of(file), (file.to_owned(), needs));
            }
        }
        for line in softdep.lines() {
            let mut words = line.split_whitespace();
            let (Some("softdep"), Some(module)) = (words.next(), words.next()) else { continue };
            let soft = index.soft.entry(name_of(module)).or_default();
            let mut list = None;
            for word in words {
                match word {
                    "pre:" => list = Some(&mut soft.pre),
                    "post:" => list = Some(&mut soft.post),
                    _ => {
                        if let Some(list) = &mut list {
                            list.push(word.to_owned());
                        }
                    }
                }
            }
        }
        index
    }

    /// True when there is nothing to load from.
    pub(crate) fn is_empty(&self) -> bool {
        self.deps.is_empty()
    }

    /// Modules that say they drive a device with this modalias.
    pub(crate) fn matching(&self, modalias: &str) -> Vec<&str> {
        let bus = modalias.split(':').next().unwrap_or(modalias);
        let of = |bus: &str| self.aliases.get(bus).into_iter().flatten();
        let mut found: Vec<&str> = Vec::new();
        for (pattern, module) in of(bus).chain(of("*")) {
            if !found.contains(&module.as_str()) && glob(pattern.as_bytes(), modalias.as_bytes()) {
                found.push(module);
            }
        }
        found
    }

    /// Files to load for `module`, in this order. Empty if it is not in the tree (or built into the kernel).
    pub(crate) fn load_order(&self, module: &str) -> Vec<&str> {
        let mut order = Vec::new();
        let mut seen = HashSet::new();
        self.visit(&name_of(module), &mut seen, &mut order);
        order
    }

    fn visit<'a>(&'a self, module: &str, seen: &mut HashSet<String>, order: &mut Vec<&'a str>) {
        if !seen.insert(module.to_owned()) {
            return;
        }
        let Some((file, needs)) = self.deps.get(module) else { return };
        let soft = self.soft.get(module).cloned().unwrap_or_default();
        for before in &soft.pre {
            self.visit_named(before, seen, order);
        }
        for need in needs.iter().rev() {
            self.visit(&name_of(need), seen, order);
        }
        order.push(file);
        for after in &soft.post {
            self.visit_named(after, seen, order);
        }
    }

    /// A soft dependency names a module or an alias of several: ext4 wants `crypto-crc32c`, which a module
    /// for newer processors and one for all provide.
    fn visit_named<'a>(&'a self, word: &str, seen: &mut HashSet<String>, order: &mut Vec<&'a str>) {
        let name = name_of(word);
        if self.deps.contains_key(&name) {
            return self.visit(&name, seen, order);
        }
        for module in self.matching(word) {
            self.visit(module, seen, order);
        }
    }
}

/// A module's name from its file or alias: without folder and ending, `-` as `_`.
pub(crate) fn name_of(file: &str) -> String {
    let name = file.rsplit('/').next().unwrap_or(file);
    let name = name.find(".ko").map_or(name, |end| &name[..end]);
    name.replace('-', "_")
}

/// Shell patterns as `depmod` writes them: `*`, `?` and `[a-f0-9]`.
fn glob(mut pattern: &[u8], mut text: &[u8]) -> bool {
    // Where to continue when the text after the last star did not fit.
    let mut star: Option<(&[u8], &[u8])> = None;
    loop {
        let step = match (pattern, text) {
            ([], []) => return true,
            ([b'*', rest @ ..], _) => {
                star = Some((rest, text));
                Some((rest, text))
            }
            ([b'?', p @ ..], [_, t @ ..]) => Some((p, t)),
            ([b'[', p @ ..], [c, t @ ..]) => class(p, *c).map(|p| (p, t)),
            ([a, p @ ..], [b, t @ ..]) if a == b => Some((p, t)),
            _ => None,
        };
        (pattern, text) = match (step, star) {
            (Some(next), _) => next,
            (None, Some((after, [_, later @ ..]))) => {
                star = Some((after, later));
                (after, later)
            }
            (None, _) => return false,
        };
    }
}

/// The rest after a `[…]` that contains `c`; `None` if it does not.
fn class(pattern: &[u8], c: u8) -> Option<&[u8]> {
    let end = pattern.iter().position(|b| *b == b']')?;
    let (mut set, rest) = (&pattern[..end], &pattern[end + 1..]);
    while let Some((first, tail)) = set.split_first() {
        match tail {
            [b'-', last, after @ ..] => {
                if (*first..=*last).contains(&c) {
                    return Some(rest);
                }
                set = after;
            }
            _ => {
                if *first == c {
                    return Some(rest);
                }
                set = tail;
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ALIAS: &str = "# comment\n\
        alias virtio:d00000001v* virtio_net\n\
        alias pci:v00001AF4d*sv*sd*bc*sc*i* virtio_pci\n\
        alias pci:v*d*sv*sd*bc01sc06i01* ahci\n\
        alias usb:v0BDAp81[5-6][0-9a-f]d*dc*dsc*dp*ic*isc*ip*in* r8152\n\
        alias symbol:foo bar\n";
    const DEP: &str = "kernel/drivers/net/virtio-net.ko: kernel/net/failover/net_failover.ko \
        kernel/core/failover.ko\n\
        kernel/net/failover/net_failover.ko: kernel/core/failover.ko\n\
        kernel/core/failover.ko:\n\
        kernel/fs/ext4/ext4.ko.xz: kernel/fs/jbd2/jbd2.ko\n\
        kernel/fs/jbd2/jbd2.ko:\n\
        kernel/lib/crc32c-intel.ko:\n\
        kernel/a.ko:\nkernel/b.ko:\n";
    const SOFT: &str =
        "# comment\nsoftdep ext4 pre: crc32c-intel missing\nsoftdep a post: b\nsoftdep b pre: a\n";

    fn index() -> Index {
        Index::parse(ALIAS, DEP, SOFT)
    }

    #[test]
    fn devices_find_their_drivers() {
        let index = index();
        assert_eq!(index.matching("virtio:d00000001v00001AF4"), ["virtio_net"]);
        assert_eq!(index.matching("pci:v00001AF4d00001000sv00001AF4sd00000001bc02sc00i00"), ["virtio_pci"]);
        assert_eq!(index.matching("pci:v00008086d00002922sv00001AF4sd00001100bc01sc06i01"), ["ahci"]);
        assert_eq!(index.matching("usb:v0BDAp8153d3000dc00dsc00dp00icFFiscFFip00in00"), ["r8152"]);
        assert!(index.matching("usb:v0BDAp8173d3000dc00dsc00dp00icFFiscFFip00in00").is_empty());
        assert!(index.matching("acpi:PNP0501:").is_empty());
    }

    #[test]
    fn what_a_module_needs_comes_before_it_and_once() {
        assert_eq!(
            index().load_order("virtio_net"),
            [
                "kernel/core/failover.ko",
                "kernel/net/failover/net_failover.ko",
                "kernel/drivers/net/virtio-net.ko"
            ]
        );
    }

    #[test]
    fn soft_dependencies_are_loaded_too() {
        assert_eq!(
            index().load_order("ext4"),
            ["kernel/lib/crc32c-intel.ko", "kernel/fs/jbd2/jbd2.ko", "kernel/fs/ext4/ext4.ko.xz"]
        );
        assert_eq!(index().load_order("a"), ["kernel/a.ko", "kernel/b.ko"], "a cycle ends");
        assert!(index().load_order("built-in").is_empty());
    }

    #[test]
    fn a_soft_dependency_on_an_alias_loads_all_that_provide_it() {
        let alias = "alias crypto-crc32c crc32c_intel\nalias crypto-crc32c crc32c_generic\n";
        let deps = "ext4.ko:\ncrc32c-intel.ko:\ncrc32c_generic.ko:\n";
        let index = Index::parse(alias, deps, "softdep ext4 pre: crypto-crc32c\n");
        assert_eq!(index.load_order("ext4"), ["crc32c-intel.ko", "crc32c_generic.ko", "ext4.ko"]);
    }

    /// The obvious recursive matcher.
    fn model(p: &[u8], t: &[u8]) -> bool {
        match (p, t) {
            ([], []) => true,
            ([b'*', rest @ ..], _) => model(rest, t) || (!t.is_empty() && model(p, &t[1..])),
            ([b'?', p @ ..], [_, t @ ..]) => model(p, t),
            ([a, p @ ..], [b, t @ ..]) => a == b && model(p, t),
            _ => false,
        }
    }

    proptest! {
        #[test]
        fn patterns_match_as_the_obvious_matcher_says(p in "[ab*?]{0,8}", t in "[ab]{0,8}") {
            prop_assert_eq!(glob(p.as_bytes(), t.as_bytes()), model(p.as_bytes(), t.as_bytes()));
        }

        #[test]
        fn no_tables_make_it_panic(a in ".{0,60}", d in ".{0,60}", s in ".{0,60}", m in ".{0,30}") {
            let index = Index::parse(&format!("alias {a}"), &format!("{d}:{a}"), &format!("softdep {s}"));
            let _ = index.matching(&m);
            let _ = index.load_order(&m);
        }
    }
}
