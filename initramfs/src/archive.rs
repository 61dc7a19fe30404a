//! The initramfs as an archive: cpio (newc) of a sorted tree, compressed with zstd.
//!
//! Invariant: the bytes depend only on names, modes and contents: order is by path, times, owners and inode
//! numbers are fixed. The kernel unpacks it (Documentation/driver-api/early-userspace/buffer-format.rst).

use std::collections::BTreeMap;
use std::io::Write;

use anyhow::{Context, Result, bail};

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Node {
    /// A folder, mode 755.
    Folder,
    /// A file with its content.
    File { executable: bool, content: Vec<u8> },
    /// A character device with mode 600.
    Device { major: u32, minor: u32 },
    /// A symbolic link and where it points.
    Link(String),
}

const FOLDER: u32 = 0o040_755;
const FILE: u32 = 0o100_644;
const PROGRAM: u32 = 0o100_755;
const DEVICE: u32 = 0o020_600;
const LINK: u32 = 0o120_777;

/// The files of an initramfs by path, without a leading slash.
#[derive(Debug, Default)]
pub(crate) struct Tree {
    nodes: BTreeMap<String, Node>,
}

impl Tree {
    /// Puts `node` at `path` and makes the folders above it.
    pub(crate) fn put(&mut self, path: &str, node: Node) {
        let path = path.trim_start_matches('/');
        for (at, _) in path.match_indices('/') {
            self.nodes.entry(path[..at].to_string()).or_insert(Node::Folder);
        }
        self.nodes.insert(path.to_string(), node);
    }

    /// Puts a plain file at `path`.
    pub(crate) fn file(&mut self, path: &str, content: impl Into<Vec<u8>>) {
        self.put(path, Node::File { executable: false, content: content.into() });
    }

    /// Puts a program at `path`.
    pub(crate) fn program(&mut self, path: &str, content: impl Into<Vec<u8>>) {
        self.put(path, Node::File { executable: true, content: content.into() });
    }

    /// `SIZE  /PATH` for each file. The agent compares this list with the unpacked files, because a kernel
    /// that runs out of memory while unpacking starts `/init` all the same.
    pub(crate) fn contents(&self) -> String {
        self.nodes
            .iter()
            .filter_map(|(path, node)| match node {
                Node::File { content, .. } => Some(format!("{}  /{path}\n", content.len())),
                _ => None,
            })
            .collect()
    }

    pub(crate) fn to_cpio(&self) -> Result<Vec<u8>> {
        let mut out = Vec::new();
        for (inode, (path, node)) in (1u32..).zip(&self.nodes) {
            let (mode, content): (u32, &[u8]) = match node {
                Node::Folder => (FOLDER, &[]),
                Node::File { executable: false, content } => (FILE, content),
                Node::File { executable: true, content } => (PROGRAM, content),
                Node::Device { .. } => (DEVICE, &[]),
                Node::Link(target) => (LINK, target.as_bytes()),
            };
            let mut head = cpio::newc::Builder::new(path).ino(inode).mode(mode).nlink(1).mtime(0);
            if let Node::Device { major, minor } = node {
                head = head.rdev_major(*major).rdev_minor(*minor);
            }
            let Ok(size) = u32::try_from(content.len()) else {
                bail!("/{path} has {} bytes; an initramfs can hold files up to 4 GiB", content.len());
            };
            let mut entry = head.write(out, size);
            entry.write_all(content).with_context(|| format!("archiving /{path}"))?;
            out = entry.finish().with_context(|| format!("archiving /{path}"))?;
        }
        cpio::newc::trailer(out).context("ending the archive")
    }

    /// The archive, compressed with zstd at `level` on all cores. zstd's output does not depend on their
    /// number.
    pub(crate) fn to_image(&self, level: i32) -> Result<Vec<u8>> {
        let cpio = self.to_cpio()?;
        let cores = std::thread::available_parallelism().map_or(1, |n| u32::try_from(n.get()).unwrap_or(1));
        let mut encoder = zstd::Encoder::new(Vec::new(), level).context("starting zstd")?;
        encoder.multithread(cores).context("starting zstd's threads")?;
        encoder.include_checksum(true).context("setting up zstd")?;
        encoder.write_all(&cpio).context("compressing the initramfs")?;
        encoder.finish().context("compressing the initramfs")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Tree {
        let mut tree = Tree::default();
        tree.program("/init", b"program".to_vec());
        tree.file("/etc/flashmob/server", b"http://10.0.0.1:6969\n".to_vec());
        tree.put("/dev/console", Node::Device { major: 5, minor: 1 });
        tree.put("/bin/sh", Node::Link("busybox".into()));
        tree
    }

    #[test]
    fn folders_come_before_what_they_hold_and_everything_is_read_back() {
        let bytes = sample().to_cpio().unwrap();
        let mut rest: &[u8] = &bytes;
        let mut seen = Vec::new();
        loop {
            let reader = cpio::newc::Reader::new(rest).unwrap();
            if reader.entry().is_trailer() {
                break;
            }
            let entry = reader.entry();
            seen.push((entry.name().to_string(), entry.mode(), entry.rdev_major()));
            assert_eq!((entry.mtime(), entry.uid(), entry.gid()), (0, 0, 0));
            rest = reader.finish().unwrap();
        }
        let expected = [
            ("bin", FOLDER, 0),
            ("bin/sh", LINK, 0),
            ("dev", FOLDER, 0),
            ("dev/console", DEVICE, 5),
            ("etc", FOLDER, 0),
            ("etc/flashmob", FOLDER, 0),
            ("etc/flashmob/server", FILE, 0),
            ("init", PROGRAM, 0),
        ];
        assert_eq!(seen, expected.map(|(n, m, r)| (n.to_string(), m, r)));
    }

    #[test]
    fn the_same_tree_makes_the_same_bytes_in_any_order() {
        let mut turned = Tree::default();
        turned.put("/bin/sh", Node::Link("busybox".into()));
        turned.put("/dev/console", Node::Device { major: 5, minor: 1 });
        turned.file("/etc/flashmob/server", b"http://10.0.0.1:6969\n".to_vec());
        turned.program("/init", b"program".to_vec());
        assert_eq!(sample().to_image(9).unwrap(), turned.to_image(9).unwrap());
    }

    #[test]
    fn the_list_of_contents_has_sizes_and_absolute_paths_of_files_only() {
        assert_eq!(sample().contents(), "21  /etc/flashmob/server\n7  /init\n");
    }
}
