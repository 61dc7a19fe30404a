//! A volume group on one physical volume: its logical volumes and their places.
//!
//! Invariant: a [`Group`] that exists is consistent: every extent is on the physical volume and belongs to at
//! most one volume. Kinds of volumes that this file does not know are [`Content::Opaque`]; a group in which
//! such a kind could hide extents is an error.

use std::collections::HashMap;
use std::ops::Range;

use super::text::{Section, Value};
use crate::layout::segments::{Segment, Segments};

/// LVM counts in these, whatever the disk's sectors are.
const SECTOR: u64 = 512;
/// Volumes of a group, and segments of a volume: many times what people have.
const MOST: usize = 1 << 16;
/// A volume with only these is an ordinary one.
const PLAIN: [&str; 3] = ["READ", "WRITE", "VISIBLE"];

#[derive(Debug, PartialEq, Eq)]
pub struct Group {
    pub name: String,
    /// Bytes of the physical volume that are cut into extents.
    pub extents: Range<u64>,
    pub volumes: Vec<LogicalVolume>,
}

#[derive(Debug, PartialEq, Eq)]
pub struct LogicalVolume {
    pub name: String,
    pub content: Content,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Content {
    /// A block device that lies at these bytes of the physical volume.
    Device(Segments),
    /// Why its content is not known, and the bytes of the physical volume that belong to it.
    Opaque(String, Vec<Range<u64>>),
}

/// The one physical volume.
struct Physical<'a> {
    name: &'a str,
    extent: u64,
    start: u64,
    count: u64,
}

impl Group {
    /// Reads the group's section on the physical volume `id` of `size` bytes. The error says why the places
    /// of its volumes are not known.
    pub(super) fn of(name: &str, group: &Section, id: &[u8], size: u64) -> Result<Group, String> {
        let physical = physical(group, id, size)?;
        let none = Section::default();
        let volumes: Vec<(&str, &Section)> =
            group.section("logical_volumes").unwrap_or(&none).sections().collect();
        if volumes.len() > MOST {
            return Err(format!("it has more than {MOST} volumes"));
        }
        let users = users(&volumes);
        let mut read = Vec::new();
        for (name, volume) in &volumes {
            let used_by = users.get(name).map(|user| format!("it is used by {user}"));
            let content = content(volume, &physical, used_by)?;
            read.push(LogicalVolume { name: (*name).to_string(), content });
        }
        let group = Group { name: name.into(), extents: physical.start..physical.end(), volumes: read };
        group.refuse_overlaps()?;
        Ok(group)
    }

    fn refuse_overlaps(&self) -> Result<(), String> {
        let mut owned: Vec<Range<u64>> = self.volumes.iter().flat_map(|v| v.content.ranges()).collect();
        owned.sort_unstable_by_key(|range| range.start);
        let overlap = owned.windows(2).any(|pair| pair[0].end > pair[1].start);
        if overlap { Err("two of its volumes share extents".into()) } else { Ok(()) }
    }
}

impl Content {
    /// All bytes of the physical volume that belong to it.
    fn ranges(&self) -> Vec<Range<u64>> {
        match self {
            Content::Device(segments) => segments.places(&(0..segments.size())),
            Content::Opaque(_, ranges) => ranges.clone(),
        }
    }
}

impl Physical<'_> {
    fn end(&self) -> u64 {
        self.start + self.count * self.extent
    }
}

fn physical<'a>(group: &'a Section, id: &[u8], size: u64) -> Result<Physical<'a>, String> {
    let status = group.words("status").ok_or("the state of its group is missing")?;
    if group.text("format").is_some_and(|format| format != "lvm2") {
        return Err("its group has another format than lvm2".into());
    }
    if let Some(other) = status.iter().find(|word| !["RESIZEABLE", "READ", "WRITE"].contains(word)) {
        return Err(format!("its group is marked {other}"));
    }
    let all: Vec<_> =
        group.section("physical_volumes").ok_or("its group has no devices")?.sections().collect();
    let [(name, own)] = all.as_slice() else {
        return Err(format!("its group lies on several devices ({})", all.len()));
    };
    if own.text("id").is_none_or(|text| !text.bytes().filter(|byte| *byte != b'-').eq(id.iter().copied())) {
        return Err("its group does not name this device".into());
    }
    if own.words("status").is_none_or(|words| words.iter().any(|word| *word != "ALLOCATABLE")) {
        return Err("its group marks this device as missing or exported".into());
    }
    let bytes = |section: &Section, name| section.number(name)?.checked_mul(SECTOR);
    let place = || {
        let (extent, start) = (bytes(group, "extent_size")?, bytes(own, "pe_start")?);
        let count = own.number("pe_count")?;
        let end = count.checked_mul(extent)?.checked_add(start)?;
        (extent > 0 && end <= size).then_some(Physical { name, extent, start, count })
    };
    place().ok_or_else(|| "the places of its extents are missing or beyond its end".into())
}

/// Names that a volume's segments mention, with the volume that mentions them: its origin, or its parts.
fn users<'a>(volumes: &[(&'a str, &'a Section)]) -> HashMap<&'a str, String> {
    let mut users = HashMap::new();
    for (name, volume) in volumes {
        for (_, segment) in volume.sections().filter(|(_, segment)| segment.text("type") != Some("striped")) {
            for mentioned in segment.texts() {
                users.entry(mentioned).or_insert_with(|| format!("{name} ({})", kind(volume)));
            }
        }
    }
    users
}

/// What a volume's segments are.
fn kind(volume: &Section) -> String {
    let kinds = volume.sections().filter_map(|(_, segment)| segment.text("type"));
    let strange = kinds.into_iter().find(|kind| *kind != "striped");
    strange.unwrap_or("striped").to_owned()
}

fn content(volume: &Section, physical: &Physical, used_by: Option<String>) -> Result<Content, String> {
    let damaged = || "the segments of a volume are damaged".to_string();
    let mut segments: Vec<(u64, &Section)> = Vec::new();
    for (name, segment) in volume.sections().filter(|(name, _)| name.starts_with("segment")) {
        segments.push((segment.number("start_extent").ok_or_else(damaged)?, segment));
        if segments.len() > MOST || name.len() == "segment".len() {
            return Err(damaged());
        }
    }
    if volume.number("segment_count") != Some(segments.len() as u64) {
        return Err(damaged());
    }
    segments.sort_unstable_by_key(|(start, _)| *start);
    let (mut places, mut next) = (Vec::new(), 0u64);
    let mut why = used_by;
    for (start, segment) in segments {
        let count = segment.number("extent_count").ok_or_else(damaged)?;
        if start != next {
            return Err(damaged());
        }
        next = next.checked_add(count).ok_or_else(damaged)?;
        if segment.text("type") == Some("striped") {
            places.push(striped(segment, count, physical)?);
        } else {
            // Its places are those of other volumes, or not known at all.
            if segment.texts().contains(&physical.name) {
                return Err(format!("a volume is of a kind that is not known ({})", kind(volume)));
            }
            why = Some(format!("volumes of the kind {} are not known", kind(volume)));
        }
    }
    let status = volume.words("status").ok_or_else(damaged)?;
    let strange = status.iter().find(|word| !PLAIN.contains(word));
    let flagged = volume.words("flags").is_none_or(|flags| !flags.is_empty());
    if why.is_none() && (strange.is_some() || flagged || !status.contains(&"VISIBLE")) {
        why = Some(match strange {
            Some(word) => format!("it is marked {word}"),
            None => "it is a part of something that is not known".into(),
        });
    }
    let all = Segments::new(places).ok_or_else(damaged)?;
    Ok(match why {
        Some(why) => Content::Opaque(why, all.places(&(0..all.size()))),
        None => Content::Device(all),
    })
}

/// A segment that lies on the physical volume itself; one with one stripe is linear.
fn striped(segment: &Section, count: u64, physical: &Physical) -> Result<Segment, String> {
    let read = || {
        let stripes = segment.list("stripes")?.chunks(2).map(|pair| match pair {
            [Value::Text(name), Value::Number(first)] if name == physical.name => Some(*first),
            _ => None,
        });
        let stripes: Vec<u64> = stripes.collect::<Option<_>>()?;
        let (number, len) = (stripes.len() as u64, count.checked_mul(physical.extent)?);
        if number == 0 || segment.number("stripe_count") != Some(number) || !count.is_multiple_of(number) {
            return None;
        }
        let inside = |first: &u64| first.checked_add(count / number).is_some_and(|end| end <= physical.count);
        let stripe_size = match number {
            1 => len,
            _ => segment.number("stripe_size")?.checked_mul(SECTOR)?,
        };
        stripes.iter().all(inside).then(|| Segment {
            len,
            stripe_size,
            stripes: stripes.iter().map(|first| physical.start + first * physical.extent).collect(),
        })
    };
    read().ok_or_else(|| "the stripes of a volume are damaged, or lie elsewhere".into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::lvm::text;

    const MIB: u64 = 1 << 20;
    const SIZE: u64 = 1 + 40 * 4;

    fn volume(name: &str, status: &str, segments: &[&str]) -> String {
        let numbered = (1..).zip(segments);
        let segments: String = numbered.map(|(i, inside)| format!("segment{i} {{ {inside} }}\n")).collect();
        let count = segments.lines().count();
        format!("{name} {{ status = [{status}] flags = [] segment_count = {count}\n{segments} }}\n")
    }

    fn linear(start: u64, count: u64, at: u64) -> String {
        format!(
            "start_extent = {start} extent_count = {count} type = \"striped\" stripe_count = 1 \
             stripes = [\"pv0\", {at}]"
        )
    }

    fn group_text(volumes: &str) -> String {
        format!(
            "lab {{ status = [\"RESIZEABLE\", \"READ\", \"WRITE\"] format = \"lvm2\" extent_size = 8192\n\
             physical_volumes {{ pv0 {{ id = \"ab-cd\" status = [\"ALLOCATABLE\"] pe_start = 2048 \
             pe_count = 40 }} }}\nlogical_volumes {{\n{volumes}}} }}"
        )
    }

    fn read(text: &str) -> Result<Group, String> {
        let text = text::parse(text.as_bytes())?;
        let (name, section) = text.sections().next().ok_or("nothing")?;
        Group::of(name, section, b"abcd", SIZE * MIB)
    }

    const VISIBLE: &str = r#""READ", "WRITE", "VISIBLE""#;

    /// A root of two segments, and data in two stripes.
    fn plain() -> String {
        let root = volume("root", VISIBLE, &[&linear(0, 2, 5), &linear(2, 3, 0)]);
        let stripes = "start_extent = 0 extent_count = 4 type = \"striped\" stripe_count = 2 \
                       stripe_size = 128 stripes = [\"pv0\", 10, \"pv0\", 20]";
        group_text(&format!("{root}{}", volume("data", VISIBLE, &[stripes])))
    }

    fn opaque(group: &Group, name: &str) -> Option<String> {
        let volume = group.volumes.iter().find(|volume| volume.name == name)?;
        match &volume.content {
            Content::Opaque(why, _) => Some(why.clone()),
            Content::Device(_) => None,
        }
    }

    #[test]
    fn linear_and_striped_volumes_have_the_places_that_the_metadata_says() {
        let group = read(&plain()).expect("a group");
        assert_eq!((group.name.as_str(), &group.extents), ("lab", &(MIB..161 * MIB)));
        let device = |name: &str| match &group.volumes.iter().find(|v| v.name == name)?.content {
            Content::Device(segments) => Some(segments),
            Content::Opaque(..) => None,
        };
        let root = device("root").expect("a device");
        assert_eq!(root.size(), 20 * MIB);
        assert_eq!(root.place(0), Some((21 * MIB, 8 * MIB)));
        assert_eq!(root.place(9 * MIB), Some((2 * MIB, 11 * MIB)));
        let data = device("data").expect("a device");
        assert_eq!(data.place(0), Some((41 * MIB, 65536)));
        assert_eq!(data.place(65536), Some((81 * MIB, 65536)));
        assert_eq!(data.places(&(0..16 * MIB)), [41 * MIB..49 * MIB, 81 * MIB..89 * MIB]);
    }

    #[test]
    fn volumes_of_kinds_that_are_not_known_are_opaque_with_all_that_they_use() {
        let snapshot = "start_extent = 0 extent_count = 2 type = \"snapshot\" origin = \"root\" \
                        cow_store = \"snap\"";
        let pool = "start_extent = 0 extent_count = 3 type = \"thin-pool\" pool = \"pool_tdata\"";
        let thin = "start_extent = 0 extent_count = 99 type = \"thin\" thin_pool = \"pool\"";
        let text = group_text(
            &[
                volume("root", VISIBLE, &[&linear(0, 2, 0)]),
                volume("snap", VISIBLE, &[&linear(0, 1, 2)]),
                volume("snapshot0", r#""READ", "WRITE""#, &[snapshot]),
                volume("pool", VISIBLE, &[pool]),
                volume("pool_tdata", r#""READ", "WRITE""#, &[&linear(0, 3, 3)]),
                volume("thin", VISIBLE, &[thin]),
                volume("hidden", r#""READ", "WRITE""#, &[&linear(0, 1, 6)]),
                volume("moving", r#""READ", "WRITE", "VISIBLE", "LOCKED""#, &[&linear(0, 1, 7)]),
                volume("home", VISIBLE, &[&linear(0, 1, 8)]),
            ]
            .concat(),
        );
        let group = read(&text).expect("a group");
        for (name, words) in [
            ("root", "used by snapshot0 (snapshot)"),
            ("snap", "used by snapshot0 (snapshot)"),
            ("pool", "volumes of the kind thin-pool are not known"),
            ("pool_tdata", "used by pool (thin-pool)"),
            ("thin", "volumes of the kind thin are not known"),
            ("hidden", "a part of something"),
            ("moving", "marked LOCKED"),
        ] {
            let why = opaque(&group, name).unwrap_or_default();
            assert!(why.contains(words), "{name}: {why}");
        }
        assert_eq!(opaque(&group, "home"), None);
        let all: u64 = group.volumes.iter().flat_map(|v| v.content.ranges()).map(|r| r.end - r.start).sum();
        assert_eq!(all, 9 * 4 * MIB);
    }

    #[test]
    fn a_group_whose_places_are_not_certain_is_an_error_that_says_why() {
        let with = |from: &str, to: &str| {
            assert!(plain().contains(from), "{from}");
            read(&plain().replace(from, to)).expect_err("not certain")
        };
        let direct = "type = \"mirror\" mirrors = ";
        for (from, to, words) in [
            ("\"RESIZEABLE\",", "\"RESIZEABLE\", \"EXPORTED\",", "marked EXPORTED"),
            ("\"ALLOCATABLE\"", "\"ALLOCATABLE\", \"MISSING\"", "missing or exported"),
            ("pv0 {", "pv1 { id = \"x\" } pv0 {", "several devices (2)"),
            ("ab-cd", "ab-ce", "does not name this device"),
            ("pe_count = 40", "pe_count = 41", "beyond its end"),
            ("extent_size = 8192", "extent_size = 0", "beyond its end"),
            ("\"pv0\", 5", "\"pv0\", 10", "share extents"),
            ("\"pv0\", 5", "\"pv0\", 39", "stripes of a volume"),
            ("\"pv0\", 5", "\"other\", 5", "stripes of a volume"),
            ("start_extent = 2", "start_extent = 3", "segments of a volume"),
            ("segment_count = 2", "segment_count = 3", "segments of a volume"),
            ("stripe_size = 128", "stripe_size = 100", "segments of a volume"),
            ("type = \"striped\" stripe_count = 1 stripes = ", direct, "a kind that is not known (mirror)"),
        ] {
            let why = with(from, to);
            assert!(why.contains(words), "{to}: {why}");
        }
    }

    #[test]
    fn damaged_texts_never_give_volumes_that_overlap_or_leave_their_extents() {
        let text = plain().into_bytes();
        let mut state = 7u64;
        let mut step = |below: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            usize::try_from(state >> 33).unwrap_or_default() % below
        };
        let letters = b"0123456789\"{}[]=, \nps";
        let mut read_well = 0;
        for _ in 0..20_000 {
            let mut bytes = text.clone();
            for _ in 0..=step(3) {
                let at = step(bytes.len());
                bytes[at] = letters[step(letters.len())];
            }
            let Ok(group) = read(&String::from_utf8_lossy(&bytes)) else { continue };
            read_well += 1;
            let mut ranges: Vec<_> = group.volumes.iter().flat_map(|v| v.content.ranges()).collect();
            ranges.sort_by_key(|range| range.start);
            assert!(ranges.windows(2).all(|pair| pair[0].end <= pair[1].start));
            let inside = |r: &Range<u64>| group.extents.start <= r.start && r.end <= group.extents.end;
            assert!(ranges.iter().all(inside) && group.extents.end <= SIZE * MIB);
        }
        assert!(read_well > 100, "{read_well}");
    }
}
