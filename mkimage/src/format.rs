//! The format of a source: raw, or a virtual disk.
//!
//! Invariant: the name or the command line decides it, never the content, because a machine could write the
//! header of a virtual disk to its raw disk and so have files of others read. For the same reason a virtual
//! disk that names other files (a backing file, a data file, extents) is refused.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, FileTypeExt};
use std::path::Path;

use flashmob::event::Failure;

use crate::keys::file_failure;

/// A format that a source can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// Raw bytes: disks, partitions, image files.
    Raw,
    /// QEMU.
    Qcow2,
    /// Hyper-V.
    Vhdx,
    /// VMware, in one file.
    Vmdk,
    /// VirtualBox.
    Vdi,
    /// Virtual PC.
    Vhd,
}

use Format::{Qcow2, Raw, Vdi, Vhd, Vhdx, Vmdk};

/// Offset, signature, format.
const MARKS: [(usize, &[u8], Format); 6] = [
    (0, b"QFI\xfb", Qcow2),
    (0, b"vhdxfile", Vhdx),
    (0, b"KDMV", Vmdk),
    (0, b"# Disk DescriptorFile", Vmdk),
    (0x40, b"\x7f\x10\xda\xbe", Vdi),
    (0, b"conectix", Vhd),
];
/// QEMU reads the description of a VMDK here.
const DESCRIPTION: usize = 20 * 512;

impl Format {
    /// As people and our options call it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Raw => "raw",
            Qcow2 => "qcow2",
            Vhdx => "vhdx",
            Vmdk => "vmdk",
            Vdi => "vdi",
            Vhd => "vhd",
        }
    }

    pub(crate) fn driver(self) -> &'static str {
        if self == Vhd { "vpc" } else { self.name() }
    }

    /// Can a disk of this format name one that it is laid over, so that QEMU has to be told not to look?
    pub(crate) fn has_backing(self) -> bool {
        matches!(self, Qcow2 | Vmdk)
    }

    /// The format of the source at `path`: `named`, else by its name. Otherwise a file that looks like a
    /// virtual disk is refused, because it could be either.
    pub(crate) fn of(path: &Path, named: Option<Format>) -> Result<Format, Failure> {
        let metadata = fs::metadata(path).map_err(|e| file_failure("opening", path, &e))?;
        if !metadata.is_file() {
            return match named {
                Some(format) if format != Raw && metadata.file_type().is_block_device() => {
                    Err(Failure::usage(
                        format!("{} is a block device, and these are read as they are", path.display()),
                        "Leave out --format.",
                    ))
                }
                _ => Ok(Raw),
            };
        }
        // VMware's flat disks are raw, and end like those that are not.
        let flat = path.to_string_lossy().to_ascii_lowercase().ends_with("-flat.vmdk");
        let extension = path.extension().map(|e| e.to_string_lossy().to_ascii_lowercase());
        let told = match extension.as_deref() {
            Some("raw" | "dd") => Some(Raw),
            Some("qcow2" | "qcow") => Some(Qcow2),
            Some("vhdx") => Some(Vhdx),
            Some("vmdk") => Some(if flat { Raw } else { Vmdk }),
            Some("vdi") => Some(Vdi),
            Some("vhd" | "vpc") => Some(Vhd),
            _ => None,
        };
        let start = start_of(path)?;
        let format = match (named.or(told), mark_of(&start)) {
            (Some(format), _) => format,
            (None, None) => Raw,
            (None, Some(looks)) => return Err(either(path, looks)),
        };
        match problem(format, path, &start)? {
            None => Ok(format),
            Some(problem) => Err(Failure::refused(
                format!("{} is a virtual disk ({}), and {problem}", path.display(), format.name()),
                "Make one file of it that needs no other: qemu-img convert -O qcow2 DISK WHOLE.qcow2, and \
                 capture that.",
            )),
        }
    }
}

fn either(path: &Path, looks: Format) -> Failure {
    let name = looks.name();
    Failure::refused(
        format!(
            "{} begins like a virtual disk ({name}), and its name does not say so: a machine that used it as \
             a raw disk could have written that",
            path.display()
        ),
        format!("Say what it is: --format {name} or --format raw; or name it *.{name} or *.raw."),
    )
}

fn mark_of(start: &[u8]) -> Option<Format> {
    let is = |at: usize, mark: &[u8]| start.get(at..).is_some_and(|rest| rest.starts_with(mark));
    MARKS.iter().find(|(at, mark, _)| is(*at, mark)).map(|(_, _, format)| *format)
}

/// The part of a file's beginning that is read.
fn start_of(path: &Path) -> Result<Vec<u8>, Failure> {
    let cannot = |e: std::io::Error| file_failure("reading", path, &e);
    let file = File::open(path).map_err(cannot)?;
    let mut start = vec![0; 512 + DESCRIPTION];
    let mut filled = 0;
    while let Some(rest) = start.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, filled as u64).map_err(cannot)? {
            0 => break,
            read => filled += read,
        }
    }
    start.truncate(filled);
    Ok(start)
}

/// Why a virtual disk is not read: it names other files. QEMU reports other problems.
fn problem(format: Format, path: &Path, start: &[u8]) -> Result<Option<&'static str>, Failure> {
    const BACKING: &str = "it is laid over another disk, which nobody named";
    let number = |bytes: &[u8], at: usize, len: usize| {
        let bytes = bytes.get(at..at + len).unwrap_or_default();
        bytes.iter().fold(0u64, |value, byte| value << 8 | u64::from(*byte))
    };
    let has = |text: &[u8]| start.windows(text.len()).any(|window| window.eq_ignore_ascii_case(text));
    Ok(match format {
        // backing_file_offset; incompatible_features of version 3 with the external data file (QEMU,
        // docs/interop/qcow2.txt).
        Qcow2 if number(start, 8, 8) != 0 => Some(BACKING),
        Qcow2 if number(start, 4, 4) >= 3 && number(start, 72, 8) & 0x4 != 0 => {
            Some("its data lies in another file, which nobody named")
        }
        // One that says it has no capacity has its extents in other files, like a text that describes some.
        Vmdk if !start.starts_with(b"KDMV") || number(start, 12, 8) == 0 => Some(
            "its data lies in other files, which nobody named (a flat one can be captured itself, with \
             --format raw)",
        ),
        Vmdk if has(b"parentFileNameHint") => Some(BACKING),
        Vhd => {
            // A dynamic disk begins with a copy of its footer. A fixed one may begin with the same bytes, if
            // a machine wrote them.
            let (copy, footer) = (start.starts_with(b"conectix"), end_of(path)?);
            match if copy { number(start, 60, 4) } else { number(&footer, 60, 4) } {
                4 => Some(BACKING),
                kind if copy && footer.starts_with(b"conectix") && number(&footer, 60, 4) != kind => {
                    Some("its beginning and its end do not say the same")
                }
                _ => None,
            }
        }
        Raw | Qcow2 | Vmdk | Vhdx | Vdi => None,
    })
}

fn end_of(path: &Path) -> Result<Vec<u8>, Failure> {
    let cannot = |e: std::io::Error| file_failure("reading", path, &e);
    let file = File::open(path).map_err(cannot)?;
    let size = file.metadata().map_err(cannot)?.len();
    let mut end = vec![0; 512];
    let Some(at) = size.checked_sub(512) else { return Ok(Vec::new()) };
    file.read_exact_at(&mut end, at).map_err(cannot)?;
    Ok(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The format of a file with this name and beginning.
    fn of(name: &str, start: &[u8], named: Option<Format>) -> Result<Format, String> {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join(name);
        fs::write(&path, [start, &[0; 2048]].concat()).expect("written");
        Format::of(&path, named).map_err(|failure| failure.message)
    }

    #[test]
    fn the_name_or_the_command_line_says_what_a_file_is_and_never_what_it_holds() {
        let marks: [(&str, Vec<u8>, Format); 5] = [
            ("qcow2", b"QFI\xfb\0\0\0\x03".to_vec(), Qcow2),
            ("VHDX", b"vhdxfile".to_vec(), Vhdx),
            ("vdi", [&[0; 0x40][..], &[0x7f, 0x10, 0xda, 0xbe]].concat(), Vdi),
            ("vmdk", [b"KDMV", &[1; 16][..]].concat(), Vmdk),
            ("vhd", b"conectix".to_vec(), Vhd),
        ];
        for (extension, start, format) in marks {
            assert_eq!(of(&format!("disk.{extension}"), &start, None), Ok(format));
            assert_eq!(of("disk.raw", &start, None), Ok(Raw));
            assert_eq!(of("disk.qcow2", &start, Some(Raw)), Ok(Raw));
            for name in ["disk", "disk.img"] {
                assert!(
                    of(name, &start, None).is_err_and(|said| said.contains("begins like a virtual disk"))
                );
                assert_eq!(of(name, &start, Some(format)), Ok(format));
                assert_eq!(of(name, &start, Some(Raw)), Ok(Raw));
            }
        }
        assert_eq!(of("disk-flat.vmdk", b"KDMV", None), Ok(Raw));
        assert_eq!(of("disk.img", &[0; 600], None), Ok(Raw));
        assert_eq!(of("disk", &[], None), Ok(Raw));
        assert_eq!(Format::of(Path::new("/dev/null"), None).ok(), Some(Raw));
    }

    #[test]
    fn a_virtual_disk_that_names_other_files_is_refused() {
        let mut qcow2 = b"QFI\xfb\0\0\0\x03".to_vec();
        qcow2.resize(104, 0);
        let with = |start: &[u8], at: usize, byte: u8| {
            let mut start = start.to_vec();
            start[at] = byte;
            start
        };
        let sparse = [b"KDMV", &[1; 500][..]].concat();
        let mut flat = sparse.clone();
        flat[12..20].fill(0);
        let mut over = sparse.clone();
        over.extend(b"\nparentFileNameHint=\"/etc/shadow\"\n");
        let text = b"# Disk DescriptorFile\nRW 63 FLAT \"/etc/shadow\" 0\n";
        let mut vhd = b"conectix".to_vec();
        vhd.resize(512, 0);
        for (name, start, words) in [
            ("a.qcow2", with(&qcow2, 15, 9), "laid over another disk"),
            ("a.qcow2", with(&qcow2, 79, 4), "its data lies in another file"),
            ("a.vmdk", text.to_vec(), "its data lies in other files"),
            ("a.vmdk", flat, "its data lies in other files"),
            ("a.vmdk", over, "laid over another disk"),
            ("a.vhd", with(&vhd, 63, 4), "laid over another disk"),
        ] {
            let said = of(name, &start, None).expect_err("it names others");
            assert!(said.contains(words), "{name}: {said}");
        }
        for (name, start) in [("a.qcow2", qcow2), ("a.vmdk", sparse), ("a.vhd", with(&vhd, 63, 3))] {
            of(name, &start, None).expect("it is alone");
        }
    }
}
