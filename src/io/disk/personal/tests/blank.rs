//! The blank in a Windows: bytes of a disk at a known place. `flashmob-mkimage` finds it in an NTFS.

use super::*;
use crate::layout::blank::{LENGTH, empty, filled};
use crate::testkit::disks::{noise, sector_sizes};

/// Where it lies on the disk.
const AT: usize = 40960;

/// A disk with `there` as its blank, among bytes of others.
fn disk_with(there: &[u8], sector: u32) -> (LoopDisk, Places) {
    let mut bytes = noise(3, 1 << 20);
    bytes[AT..AT + LENGTH].copy_from_slice(there);
    let disk = LoopDisk::of(&bytes, sector);
    let part =
        Part { number: 1, start: 0, size: MIB, room: MIB, filesystem: "ntfs".into(), role: Role::Data };
    let places = Places {
        info: disk.info(),
        layout: LayoutMode::WholeDisk,
        parts: vec![part],
        kept_esp: None,
        blank: Some(Blank { partition: 1, at: AT as u64 }),
        bare: true,
        loader: None,
        files: vec![],
        proved: true,
    };
    (disk, places)
}

/// What is in the blank, if all other bytes of the disk are as they were.
fn blank_on(disk: &LoopDisk) -> Vec<u8> {
    let (bytes, before) = (disk.bytes(), noise(3, 1 << 20));
    assert!(bytes[..AT] == before[..AT] && bytes[AT + LENGTH..] == before[AT + LENGTH..]);
    bytes[AT..AT + LENGTH].to_vec()
}

fn golden() -> Vec<u8> {
    filled(&OwnFile { attempt: 2, label: "x".repeat(900), ..own() }).expect("it fits")
}

#[test]
fn a_windows_that_starts_by_bios_has_its_file_in_the_blank_and_nothing_else_changes() {
    for sector in sector_sizes() {
        for there in [empty(), golden()] {
            let (disk, places) = disk_with(&there, sector);
            let (steps, problems) = all(&places, &own());
            assert_eq!(problems, Vec::<String>::new());
            assert_eq!(steps, ["ProgramData/flashmob/terminal.json of the Windows in partition 1 is filled"]);
            assert_eq!(blank_on(&disk), filled(&own()).expect("it fits"));
            let again = OwnFile { ticket: "7-01".into(), ..own() };
            assert_eq!(all(&places, &again), (vec!["it was done before".to_string()], Vec::new()));
            assert_eq!(blank_on(&disk), filled(&own()).expect("it fits"));
        }
    }
}

#[test]
fn where_something_else_lies_nothing_is_written_and_the_report_says_so() {
    for proved in [true, false] {
        let other = noise(8, LENGTH);
        let (disk, mut places) = disk_with(&other, 512);
        places.proved = proved;
        let mut problems = Vec::new();
        let done = make(&places, &own(), &mut |told| match told {
            Told::Problem(why) => problems.push(why),
            Told::Step(what) => panic!("{what}"),
        });
        assert!(done, "another try would find the same");
        assert!(
            problems.len() == 1 && problems[0].contains("partition 1 gets no ProgramData"),
            "{problems:?}"
        );
        assert_eq!(blank_on(&disk), other);
    }
}

#[test]
fn a_file_that_is_too_long_for_the_blank_is_told() {
    let (disk, places) = disk_with(&empty(), 512);
    let (_, problems) = all(&places, &OwnFile { label: "x".repeat(LENGTH), ..own() });
    assert!(problems[0].contains("more than the 4096 bytes"), "{problems:?}");
    assert_eq!(blank_on(&disk), empty());
}

#[test]
fn a_blank_that_was_cut_off_is_filled_by_the_next_run() {
    for there in [empty(), golden()] {
        let long = OwnFile { label: "y".repeat(1400), ..own() };
        for cut in 0.. {
            let (disk, mut places) = disk_with(&there, 512);
            power::test::fails_after(Some(cut));
            all(&places, &long);
            let failed = power::test::has_failed();
            power::test::fails_after(None);
            places.proved = false;
            // A second run has another ticket.
            let again = OwnFile { ticket: "7-01".into(), ..long.clone() };
            let (_, problems) = all(&places, &again);
            assert_eq!(problems, Vec::<String>::new(), "cut off before write {cut}");
            assert!(again.is_complete(&blank_on(&disk)), "cut off before write {cut}");
            if !failed {
                assert!(cut >= 2, "{cut} writes");
                break;
            }
        }
    }
}

#[test]
fn the_administrators_files_for_such_a_windows_are_left_out_and_named() {
    let (disk, mut places) = disk_with(&empty(), 512);
    places.files = vec![given(None, "lab/one", 0o644, b"1")];
    let (steps, problems) = all(&places, &own());
    assert_eq!(steps.len(), 1);
    assert!(problems[0].starts_with("1 files for Windows are left out"), "{problems:?}");
    assert_eq!(blank_on(&disk), filled(&own()).expect("it fits"));
}
