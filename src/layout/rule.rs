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
            "'{term}' is not a disk rule: use internal, /dev/NAME, or one of name, serial, wwn, model, \
             path, bus, \
             size, rotational, sector with '='"
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
                    "Change the job's disk rule, or look whether the disk or its driver is missing.",
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
mod tests {
    use super::*;
    use crate::event::Class;
    use proptest::prelude::*;

    const GIB: u64 = 1 << 30;

    fn disk(name: &str, bus: &str, size: u64) -> DiskInfo {
        DiskInfo {
            name: name.into(),
            bus: bus.into(),
            size,
            sector_size: 512,
            serial: Some(format!("S-{name}")),
            path: format!("pci/{name}"),
            removable: bus == "usb",
            ..DiskInfo::default()
        }
    }

    fn choose(rule: &str, disks: &[DiskInfo]) -> Result<String, Failure> {
        rule.parse::<Rule>().expect("a rule").choose(disks, 10 * GIB).map(|disk| disk.name.clone())
    }

    #[test]
    fn the_only_internal_disk_is_taken_and_sticks_are_not_seen() {
        let disks = [disk("sda", "ata", 500 * GIB), disk("sdb", "usb", 64 * GIB)];
        assert_eq!(choose("internal", &disks).as_deref(), Ok("sda"));
        assert_eq!(choose("", &disks).as_deref(), Ok("sda"));
        assert_eq!(choose("bus=usb", &disks).as_deref(), Ok("sdb"));
        assert_eq!(choose("serial=s-SDB", &disks).as_deref(), Ok("sdb"));
        assert_eq!(choose("size=64GiB", &disks).expect_err("a stick is not named").class, Class::Refused);
    }

    #[test]
    fn two_candidates_are_a_refusal_that_lists_them() {
        let disks = [disk("sda", "ata", 500 * GIB), disk("nvme0n1", "nvme", 480 * GIB)];
        let failure = choose("internal", &disks).expect_err("two");
        assert_eq!(failure.class, Class::Refused);
        assert!(
            failure.message.contains("sda") && failure.message.contains("nvme0n1"),
            "{}",
            failure.message
        );
        assert!(choose("size=490GiB", &disks).is_err(), "within 5 % both");
        assert_eq!(choose("internal,bus=nvme", &disks).as_deref(), Ok("nvme0n1"));
        assert_eq!(choose("size=490GiB..", &disks).as_deref(), Ok("sda"));
        assert_eq!(choose("size=..490GiB", &disks).as_deref(), Ok("nvme0n1"));
        assert_eq!(choose("/dev/sda", &disks).as_deref(), Ok("sda"));
        assert_eq!(choose("path=pci/sda", &disks).as_deref(), Ok("sda"));
    }

    #[test]
    fn a_sector_size_tells_disks_apart_and_never_reaches_a_stick() {
        let native = DiskInfo { sector_size: 4096, ..disk("nvme0n1", "nvme", 500 * GIB) };
        let disks = [disk("sda", "ata", 500 * GIB), native.clone()];
        assert_eq!(choose("sector=4096", &disks).as_deref(), Ok("nvme0n1"));
        assert_eq!(choose("sector=512", &disks).as_deref(), Ok("sda"));
        let failure = choose("sector=4096", &disks[..1]).expect_err("the disk has another sector size");
        assert!(
            failure.message.contains("no disk is meant by the rule 'sector=4096'"),
            "{}",
            failure.message
        );
        assert!(choose("sector=4096", &[native.clone(), native]).is_err(), "two have it");
        let stick = DiskInfo { sector_size: 4096, ..disk("sdb", "usb", 64 * GIB) };
        let failure = choose("sector=4096", &[stick]).expect_err("a stick is not named");
        assert!(failure.message.contains("only removable or USB disks"), "{}", failure.message);
    }

    #[test]
    fn a_disk_is_never_chosen_because_another_one_is_too_small_worn_out_or_dead() {
        let (ssd, hdd) = (disk("nvme0n1", "nvme", 8 * GIB), disk("sda", "ata", 2048 * GIB));
        let worn_out = DiskInfo { read_only: true, size: 500 * GIB, ..ssd.clone() };
        let dead = DiskInfo { size: 0, ..ssd.clone() };
        for first in [ssd, worn_out, dead] {
            let failure = choose("internal", &[first.clone(), hdd.clone()]).expect_err("two internal disks");
            assert!(failure.message.contains("means 2 disks"), "{}", failure.message);
            let failure = choose("bus=nvme", &[first, hdd.clone()]).expect_err("the one that is meant");
            assert!(failure.message.contains("nvme0n1") && !failure.message.contains("sda"));
        }
        let (small, large) = (disk("sda", "ata", 8 * GIB), disk("sdb", "ata", 2048 * GIB));
        assert_eq!(choose("size=1TiB..", &[small, large]).as_deref(), Ok("sdb"), "the rule says which size");
    }

    #[test]
    fn a_kernel_name_never_reaches_a_stick() {
        let stick = [disk("sda", "usb", 64 * GIB)];
        for rule in ["/dev/sda", "name=sda", "name=sda,size=64GiB"] {
            let failure = choose(rule, &stick).expect_err("a stick took the name");
            assert!(failure.message.contains("only removable or USB disks"), "{}", failure.message);
            assert!(failure.advice.contains("bus=usb"), "{}", failure.advice);
        }
        assert_eq!(choose("name=sda,bus=usb", &stick).as_deref(), Ok("sda"));
        let card = DiskInfo { removable: true, ..disk("mmcblk1", "mmc", 64 * GIB) };
        assert!(choose("/dev/mmcblk1", std::slice::from_ref(&card)).is_err());
        assert_eq!(choose("serial=S-mmcblk1", &[card]).as_deref(), Ok("mmcblk1"));
        assert_eq!(choose("/dev/loop3", &[disk("loop3", "loop", 64 * GIB)]).as_deref(), Ok("loop3"));
    }

    #[test]
    fn a_refusal_about_sizes_says_the_difference_in_bytes() {
        let almost = [disk("sda", "ata", 10 * GIB - 512)];
        let failure = choose("internal", &almost).expect_err("one sector too small");
        for part in ["10737418240 bytes", "10737417728 bytes", "512 too few"] {
            assert!(failure.message.contains(part), "{}", failure.message);
        }
    }

    #[test]
    fn too_small_and_read_only_disks_are_told_apart_from_missing_ones() {
        let mut small = disk("sda", "ata", 5 * GIB);
        let failure = choose("internal", &[small.clone()]).expect_err("too small");
        assert!(
            failure.message.contains("10.0 GiB") && failure.message.contains("sda"),
            "{}",
            failure.message
        );
        small.size = 50 * GIB;
        small.read_only = true;
        assert!(choose("internal", &[small.clone()]).is_err());
        let failure = choose("name=sdx", &[small]).expect_err("missing");
        assert!(
            failure.message.contains("name=sdx") && failure.message.contains("sda"),
            "{}",
            failure.message
        );
        assert!(choose("internal", &[]).expect_err("none").message.contains("none at all"));
    }

    #[test]
    fn what_is_no_rule_is_said() {
        for bad in [
            "sda",
            "bus=scsy",
            "size=big",
            "size=2GiB..1GiB",
            "colour=red",
            "serial=",
            "rotational=maybe",
            "sector=4000",
        ] {
            assert!(bad.parse::<Rule>().is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn a_chosen_disk_is_the_only_one_that_the_rule_means_whatever_fits(
            sizes in proptest::collection::vec((0u64..100, 0usize..8, any::<bool>()), 0..6),
            from in 0u64..60, needed in 1u64..60
        ) {
            let disks: Vec<DiskInfo> = sizes.iter().enumerate().map(|(i, (size, bus, read_only))| {
                let mut disk = disk(&format!("d{i}"), BUSES[*bus], size * GIB);
                disk.read_only = *read_only;
                disk
            }).collect();
            let text = if from == 0 { "internal".into() } else { format!("size={from}GiB..") };
            let rule: Rule = text.parse().expect("a rule");
            let meant: Vec<&DiskInfo> =
                disks.iter().filter(|d| !is_external(d) && d.size >= from * GIB).collect();
            let fits = |d: &DiskInfo| d.size > 0 && d.size >= needed * GIB && !d.read_only;
            match rule.choose(&disks, needed * GIB) {
                Ok(disk) => {
                    prop_assert!(fits(disk));
                    prop_assert_eq!(meant, vec![disk]);
                }
                Err(failure) => {
                    prop_assert_eq!(failure.class, Class::Refused);
                    prop_assert!(meant.len() != 1 || !fits(meant[0]));
                }
            }
        }

        #[test]
        fn a_shown_rule_means_the_same(text
            in "(internal|bus=nvme|size=[1-9]GiB|name=sd[a-z]|rotational=no|sector=4096)\
                (,serial=[A-Z0-9]{3})?") {
            let rule: Rule = text.parse().expect("a rule");
            prop_assert_eq!(rule.to_string().parse::<Rule>(), Ok(rule));
        }
    }
}
