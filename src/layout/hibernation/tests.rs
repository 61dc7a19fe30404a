//! Systems asleep in each kind of swap, and damaged structures.

use super::*;
use crate::layout::lvm::physical_volume;
use crate::testkit::disks::ext_with;

fn find_in(bytes: &[u8]) -> Option<String> {
    let read = |at: u64, into: &mut [u8]| {
        let from = usize::try_from(at).ok().and_then(|at| bytes.get(at..at.checked_add(into.len())?));
        from.map(|from| into.copy_from_slice(from)).is_some()
    };
    find(bytes.len() as u64, &read)
}

#[test]
fn each_mark_is_known_and_a_swap_area_that_is_free_is_not_hibernated() {
    let with = |mark: &[u8]| {
        let mut start = [0; PAGE];
        start[AT..AT + mark.len()].copy_from_slice(mark);
        find_in(&start)
    };
    assert!(MARKS.into_iter().all(|mark| with(mark).as_deref() == Some("")));
    assert!(with(b"SWAPSPACE2").is_none() && find_in(&[0; 100]).is_none());
}

#[test]
fn a_swap_volume_of_lvm_is_looked_into_at_its_first_segment() {
    let volume = |name: &str, segments: &str, count: u8| {
        format!(
            "{name} {{ status = [\"READ\", \"WRITE\", \"VISIBLE\"] flags = [] segment_count = {count}\n\
             {segments} }}\n"
        )
    };
    let segment = |number: u8, start: u8, count: u8, at: u8| {
        format!(
            "segment{number} {{ start_extent = {start} extent_count = {count} type = \"striped\" \
             stripe_count = 1 stripes = [\"pv0\", {at}] }}\n"
        )
    };
    // Extents of 8 KiB from 16 KiB on; the swap volume's first segment is the third one.
    let swap = volume("swap", &[segment(1, 0, 1, 2), segment(2, 1, 1, 0)].concat(), 2);
    let id = "i".repeat(32);
    let text = format!(
        "lab {{ seqno = 1 status = [\"RESIZEABLE\", \"READ\", \"WRITE\"] format = \"lvm2\" extent_size = 16\n\
         physical_volumes {{ pv0 {{ id = \"{id}\" status = [\"ALLOCATABLE\"] pe_start = 32 \
         pe_count = 4 }} }}\n\
         logical_volumes {{\n{}{swap}}} }}\n",
        volume("root", &segment(1, 0, 1, 1), 1)
    );
    let with = |extent: usize| {
        let mut bytes = physical_volume(64 << 10, (512, text.as_bytes()), (512, b""));
        let at = (16 << 10) + extent * (8 << 10) + AT;
        bytes[at..at + 9].copy_from_slice(b"S1SUSPEND");
        find_in(&bytes)
    };
    assert_eq!(with(2).as_deref(), Some(", volume lab/swap"));
    // In the middle of the swap volume, and where no volume is.
    assert_eq!([with(0), with(3)], [None, None]);
}

/// A swap area of 12 pages, hibernated or not.
fn swap_area(mark: &[u8]) -> Vec<u8> {
    let mut area = vec![1; 12 * PAGE];
    area[AT..AT + mark.len()].copy_from_slice(mark);
    area
}

#[test]
fn a_swap_file_of_an_ext_with_a_usual_name_or_in_fstab_is_looked_into() {
    let kinds: [&[&str]; 5] = [
        &["-t", "ext4", "-b", "4096"],
        &["-t", "ext4", "-b", "1024", "-O", "^64bit"],
        &["-t", "ext4", "-b", "4096", "-I", "128"],
        &["-t", "ext3", "-b", "1024"],
        &["-t", "ext2", "-b", "4096"],
    ];
    let table = "UUID=1 / ext4 defaults 0 1\n/dev/sda2 none swap sw 0 0\n /srv/pages/area none swap sw\n";
    // Several blocks of names before it.
    let names: Vec<String> = (0..60).map(|i| format!("{i:0>150}")).collect();
    let free = swap_area(b"SWAPSPACE2");
    let asleep = swap_area(b"S1SUSPEND");
    for options in kinds {
        for (one, found) in [("", false), ("swap/swapfile", true), ("srv/pages/area", true), ("srv/b", false)]
        {
            let areas = ["swap/swapfile", "srv/pages/area", "srv/b"];
            let areas = areas.map(|path| (path, if path == one { &asleep[..] } else { &free }));
            let mut files: Vec<(&str, &[u8])> = names.iter().map(|name| (&**name, &b""[..])).collect();
            files.push(("etc/fstab", table.as_bytes()));
            files.extend(areas);
            let expected = found.then(|| format!(", file /{one}"));
            assert_eq!(find_in(&ext_with(&files, options)), expected, "{options:?}");
        }
    }
}

#[test]
fn damaged_filesystems_are_looked_into_without_harm() {
    let files: [(&str, &[u8]); 2] =
        [("etc/fstab", b"/swapfile none swap sw 0 0\n"), ("swapfile", &swap_area(b"S1SUSPEND"))];
    let sound = ext_with(&files, &["-t", "ext4", "-b", "1024"]);
    let used: Vec<usize> = (1024..sound.len()).filter(|at| sound[*at] != 0).collect();
    let mut state = 7u64;
    let mut step = |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(state >> 33).unwrap_or_default() % below
    };
    let mut bytes = sound.clone();
    for _ in 0..3000 {
        let changed: Vec<usize> = (0..=step(3)).map(|_| used[step(used.len().min(4000))]).collect();
        for at in &changed {
            bytes[*at] = [0, 1, 0x7f, 0xff, 0x80][step(5)];
        }
        let _ = find_in(&bytes);
        changed.iter().for_each(|at| bytes[*at] = sound[*at]);
    }
}
