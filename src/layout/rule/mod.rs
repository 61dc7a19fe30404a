//! The choice of a disk, by a job's rule and never by accident.
//!
//! Invariant: a rule chooses exactly one disk or none. All disks that the rule could mean are counted first;
//! only then is the remaining one checked for size and write protection. So a disk is never chosen because
//! another one is too small, worn out or dead. Two candidates are a refusal that lists them. Removable and
//! USB disks are chosen only if the rule has a term that no other disk can meet (serial number, WWN, path) or
//! says `bus=usb`.
//!
//! A rule is a list of terms with commas, all of which must hold:
//!
//! | term | holds for |
//! |---|---|
//! | `internal` | the default: neither removable nor USB |
//! | `name=sda`, `/dev/sda` | the kernel's name, which may be another disk's at the next start |
//! | `serial=…`, `wwn=…`, `model=…`, `path=…` | exactly that text (case does not count) |
//! | `bus=nvme` | `virtio`, `ata`, `nvme`, `scsi`, `usb`, `mmc`, `loop` |
//! | `size=500GiB` | within 5 % of it; `size=200GiB..1TiB`, `size=200GiB..`, `size=..1TiB` |
//! | `rotational=yes`, `rotational=no` | seeks slowly or not |
//! | `sector=512`, `sector=4096` | the bytes of a logical sector; also 1024 and 2048 |

use std::fmt;
use std::str::FromStr;

use crate::api::DiskInfo;
use crate::event::Failure;
use crate::units::{SectorSize, parse_bytes, show_bytes};

/// A rule, read from text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    terms: Vec<Term>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Term {
    Internal,
    Name(String),
    Serial(String),
    Wwn(String),
    Model(String),
    Path(String),
    Bus(String),
    Size { from: u64, to: u64 },
    Rotational(bool),
    Sector(SectorSize),
}

const BUSES: [&str; 8] = ["virtio", "ata", "nvme", "scsi", "usb", "mmc", "loop", "other"];

impl FromStr for Rule {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let terms = text.split(',').map(str::trim).filter(|term| !term.is_empty());
        let terms = terms.map(parse_term).collect::<Result<Vec<_>, _>>()?;
        Ok(Rule { terms: if terms.is_empty() { vec![Term::Internal] } else { terms } })
    }
}

fn parse_term(term: &str) -> Result<Term, String> {
    if term == "internal" {
        return Ok(Term::Internal);
    }
    if let Some(name) = term.strip_prefix("/dev/") {
        return Ok(Term::Name(name.to_string()));
    }
    let Some((key, value)) = term.split_once('=').map(|(k, v)| (k.trim(), v.trim())) else {
        return Err(format!(
            "'{term}' is not a disk rule: use internal, /dev/NAME, or one of name, serial, wwn, model, path, \
             bus, size, rotational, sector with '='"
        ));
    };
    if value.is_empty() {
        return Err(format!("'{term}' names nothing"));
    }
    let text = value.to_string();
    match key {
        "name" => Ok(Term::Name(value.strip_prefix("/dev/").unwrap_or(value).to_string())),
        "serial" => Ok(Term::Serial(text)),
        "wwn" => Ok(Term::Wwn(text)),
        "model" => Ok(Term::Model(text)),
        "path" => Ok(Term::Path(text)),
        "bus" if BUSES.contains(&value) => Ok(Term::Bus(text)),
        "bus" => Err(format!("'{value}' is not one of the buses {}", BUSES.join(", "))),
        "size" => parse_size(value),
        "rotational" => match value {
            "yes" | "1" | "true" => Ok(Term::Rotational(true)),
            "no" | "0" | "false" => Ok(Term::Rotational(false)),
            _ => Err(format!("'{value}' is neither yes nor no")),
        },
        "sector" => match value.parse().ok().and_then(SectorSize::new) {
            Some(sector) => Ok(Term::Sector(sector)),
            None => Err(format!("sector size '{value}' is not 512, 1024, 2048 or 4096")),
        },
        _ => Err(format!("disks have no '{key}' to choose by")),
    }
}

fn parse_size(text: &str) -> Result<Term, String> {
    let Some((from, to)) = text.split_once("..") else {
        // Disks that are sold as one size differ a little.
        let size = parse_bytes(text)?;
        return Ok(Term::Size { from: size - size / 20, to: size.saturating_add(size / 20) });
    };
    let from = if from.is_empty() { 0 } else { parse_bytes(from)? };
    let to = if to.is_empty() { u64::MAX } else { parse_bytes(to)? };
    if from > to {
        return Err(format!("no size lies in '{text}'"));
    }
    Ok(Term::Size { from, to })
}

impl Term {
    fn holds(&self, disk: &DiskInfo) -> bool {
        let same = |have: &Option<String>, want: &str| {
            have.as_deref().is_some_and(|have| have.trim().eq_ignore_ascii_case(want))
        };
        match self {
            Term::Internal => !is_external(disk),
            Term::Name(name) => disk.name == *name,
            Term::Serial(serial) => same(&disk.serial, serial),
            Term::Wwn(wwn) => same(&disk.wwn, wwn),
            Term::Model(model) => same(&disk.model, model),
            Term::Path(path) => disk.path.eq_ignore_ascii_case(path),
            Term::Bus(bus) => disk.bus == *bus,
            Term::Size { from, to } => (*from..=*to).contains(&disk.size),
            Term::Rotational(rotational) => disk.rotational == *rotational,
            Term::Sector(sector) => disk.sector_size == sector.get(),
        }
    }

    /// Whether a removable or USB disk can be meant. A kernel name cannot: the stick that a pupil left in may
    /// have it.
    fn reaches_external(&self) -> bool {
        match self {
            Term::Serial(_) | Term::Wwn(_) | Term::Path(_) => true,
            Term::Bus(bus) => matches!(bus.as_str(), "usb" | "loop"),
            // Loop devices are not in the list of disks: a program on a running Linux made them and named
            // them.
            Term::Name(name) => name.starts_with("loop"),
            Term::Internal | Term::Model(_) | Term::Size { .. } | Term::Rotational(_) | Term::Sector(_) => {
                false
            }
        }
    }

    /// Whether the term can hold for one piece of hardware only.
    fn identifies(&self) -> bool {
        matches!(self, Term::Serial(_) | Term::Wwn(_))
    }
}

/// Whether a disk is one that people plug in and pull out.
pub(crate) fn is_external(disk: &DiskInfo) -> bool {
    disk.removable || matches!(disk.bus.as_str(), "usb" | "loop")
}

/// A disk for people: name, model, serial number, size.
pub fn describe(disk: &DiskInfo) -> String {
    let mut text = disk.name.clone();
    for part in [&disk.model, &disk.serial].into_iter().flatten() {
        text.push_str(", ");
        text.push_str(part);
    }
    format!("{text}, {} ({})", show_bytes(disk.size), disk.bus)
}

impl Rule {
    /// The name in a `name=` or `/dev/` term, for looking up devices that are not in the list of disks (loop
    /// devices, partitions).
    pub fn name(&self) -> Option<&str> {
        self.terms.iter().find_map(|term| match term {
            Term::Name(name) => Some(name.as_str()),
            _ => None,
        })
    }

    /// Whether the rule names one piece of hardware, by its serial number or WWN, so that another one never
    /// fits it.
    pub(crate) fn identifies(&self) -> bool {
        self.terms.iter().any(Term::identifies)
    }

    /// The one disk of `disks` that the rule means, if it takes writes and has at least `needed` bytes.
    pub fn choose<'a>(&self, disks: &'a [DiskInfo], needed: u64) -> Result<&'a DiskInfo, Failure> {
        let external = self.terms.iter().any(Term::reaches_external);
        let holds = |disk: &&DiskInfo| self.terms.iter().all(|term| term.holds(disk));
        let (meant, passed_over): (Vec<&DiskInfo>, Vec<&DiskInfo>) =
            disks.iter().filter(holds).partition(|disk| external || !is_external(disk));
        match meant[..] {
            [one] => usable(one, needed),
            [] if !passed_over.is_empty() => Err(Failure::refused(
                format!("the rule '{self}' fits only removable or USB disks: {}", list(&passed_over)),
                "If such a disk is meant, add bus=usb to the rule, or name it by serial=….",
            )),
            [] => {
                let all: Vec<&DiskInfo> = disks.iter().collect();
                let there = if all.is_empty() { "none at all".to_string() } else { list(&all) };
                Err(Failure::refused(
                    format!("no disk is meant by the rule '{self}'; disks here: {there}"),
                    "Change the job's disk rule, or check whether the disk or its driver is missing.",
                ))
            }
            _ => Err(Failure::refused(
                format!("the rule '{self}' means {} disks: {}", meant.len(), list(&meant)),
                "Name one of them in the job's disk rule, for example by serial=…, size=… or bus=….",
            )),
        }
    }
}

fn list(disks: &[&DiskInfo]) -> String {
    disks.iter().map(|disk| describe(disk)).collect::<Vec<_>>().join("; ")
}

/// The only disk that a rule means, if an image of `needed` bytes fits on it.
pub(crate) fn usable(disk: &DiskInfo, needed: u64) -> Result<&DiskInfo, Failure> {
    if disk.size == 0 {
        return Err(Failure::refused(
            format!("{} does not tell its size", describe(disk)),
            "Replace the disk: it is there and does not answer.",
        ));
    }
    if disk.read_only {
        return Err(Failure::refused(
            format!("{} refuses writes", describe(disk)),
            "Look for a write-protect switch, or replace the disk: worn-out SSDs end like this.",
        ));
    }
    if disk.size < needed {
        return Err(Failure::refused(
            format!(
                "the image needs {needed} bytes ({}), and {} has {} bytes: {} too few",
                show_bytes(needed),
                describe(disk),
                disk.size,
                needed - disk.size
            ),
            "Use a larger disk, or capture an image whose partitions end earlier.",
        ));
    }
    Ok(disk)
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, term) in self.terms.iter().enumerate() {
            if i > 0 {
                f.write_str(",")?;
            }
            match term {
                Term::Internal => f.write_str("internal")?,
                Term::Name(name) => write!(f, "name={name}")?,
                Term::Serial(text) => write!(f, "serial={text}")?,
                Term::Wwn(text) => write!(f, "wwn={text}")?,
                Term::Model(text) => write!(f, "model={text}")?,
                Term::Path(text) => write!(f, "path={text}")?,
                Term::Bus(text) => write!(f, "bus={text}")?,
                Term::Size { from, to: u64::MAX } => write!(f, "size={from}..")?,
                Term::Size { from, to } => write!(f, "size={from}..{to}")?,
                Term::Rotational(yes) => write!(f, "rotational={}", if *yes { "yes" } else { "no" })?,
                Term::Sector(sector) => write!(f, "sector={}", sector.get())?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
