//! Pieces already on a disk are not fetched: in place, elsewhere, by a record.

use std::os::unix::fs::FileExt;

use super::*;
use crate::image_id::ImageId;
use crate::layout::grid::Span;
use crate::testkit::disks::{MIB, noise};
use crate::testkit::programs::run as run_program;
use crate::units::PieceIndex;

/// Sectors that the kernel has read from a disk, in bytes.
fn bytes_read(disk: &LoopDisk) -> u64 {
    let name = disk.path.trim_start_matches("/dev/");
    let stat = std::fs::read_to_string(format!("/sys/block/{name}/stat")).expect("its numbers");
    512 * stat.split_whitespace().nth(2).and_then(|field| field.parse::<u64>().ok()).expect("a number")
}

/// A version of the small image's disk, changed by `change`.
fn version(number: &str, change: impl FnOnce(&mut Vec<u8>)) -> (Vec<u8>, TestImage) {
    let mut source = gpt_source(512);
    change(&mut source);
    let image = image_of(&source, 512, PIECE, |manifest| manifest.version = number.into());
    (source, image)
}

fn assignment_of(lab: &Lab, image: &TestImage, disk: &LoopDisk, compare: Compare) -> Assignment {
    let mut assignment = lab.assignment(disk);
    let version = image.manifest.version.clone();
    assignment.task.folder = format!("/images/lab/{version}/");
    assignment.task.id.version = version;
    assignment.task.compare = compare;
    assignment
}

/// The server's record of `disk`.
fn record(image: &TestImage, disk: &LoopDisk) -> Installed {
    let disk = crate::layout::rule::describe(&disk.info());
    Installed { id: ImageId::new("lab", image.manifest.version.clone()), disk, ..Installed::default() }
}

fn place(image: &TestImage, span: Span) -> usize {
    usize::try_from(image.manifest.partitions[span.partition].first.0 * 512 + span.offset).expect("small")
}

/// Bytes of the pieces that `new` has and `old` has nowhere.
fn changed(new: &TestImage, old: &TestImage) -> u64 {
    let is_new = |piece: &u32| !old.hashes.contains(&new.hashes[*piece as usize]);
    let pieces = (0..new.grid.pieces()).filter(is_new);
    let data = pieces.flat_map(|piece| new.grid.data_ranges(PieceIndex(piece)));
    data.map(|range| u64::from(range.end - range.start)).sum()
}

/// A few bytes in three pieces.
fn with_changes(source: &mut [u8]) {
    for at in [21 * MIB + 5000, 7 * MIB + 100, 3 * MIB] {
        let at = usize::try_from(at).expect("small");
        source[at..at + 700].copy_from_slice(&noise(99, 700));
    }
}

#[tokio::test]
async fn of_a_new_version_only_what_changed_leaves_the_seeder_heads_included() {
    let ((old_source, old), (source, new)) = (version("1", |_| ()), version("2", |s| with_changes(s)));
    let lab = Lab::new(&new).await;
    let disk = LoopDisk::of(&old_source, 512);
    let (received, notes) = fetched(&lab, assignment_of(&lab, &new, &disk, Compare::Auto)).await;
    new.assert_on(&disk.bytes(), &source);
    let changed = changed(&new, &old);
    assert!(changed > 0 && changed * 8 < new.grid.data_bytes(), "{changed}");
    assert_eq!(received, changed);
    // Counted where it leaves; the numbers there are half a second old.
    let counted = async {
        while lab.seeded()[0].bytes_out < changed {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(DEADLINE, counted).await.expect("in time");
    assert_eq!(lab.seeded()[0].bytes_out, changed);
    assert!(notes.iter().any(|note| note.contains("% of the image is on the disk already")), "{notes:?}");
}

#[tokio::test]
async fn what_is_damaged_is_mended_and_full_fetches_everything() {
    let (source, image) = small_image();
    let lab = Lab::new(&image).await;
    let disk = LoopDisk::used(40 << 20, 512);
    let (everything, _) = fetched(&lab, lab.assignment(&disk)).await;
    assert_eq!(everything, image.grid.data_bytes(), "a disk that never had the image has nothing of it");
    // One byte in the middle of the last piece of data.
    let last = image.grid.span(PieceIndex(image.grid.pieces() - 1)).expect("a piece");
    disk.corrupt(place(&image, last) as u64 + 5);
    let (again, _) = fetched(&lab, lab.assignment(&disk)).await;
    image.assert_on(&disk.bytes(), &source);
    let data = image.grid.data_ranges(PieceIndex(image.grid.pieces() - 1));
    assert_eq!(again, data.iter().map(|range| u64::from(range.end - range.start)).sum::<u64>());
    let mut full = lab.assignment(&disk);
    full.task.compare = Compare::Full;
    assert_eq!(fetched(&lab, full).await.0, everything);
    image.assert_on(&disk.bytes(), &source);
}

#[tokio::test]
async fn pieces_that_lie_elsewhere_on_the_disk_are_copied_also_where_they_swapped_places() {
    let (old_source, old) = version("1", |_| ());
    let (source, new) = version("2", |source| {
        // A swap of 2 MiB inside the ESP and the data partition, and a shift by one piece within the latter.
        let (a, b, len) = (3 << 20, 21 << 20, 1 << 20);
        let (first, second) = (source[a..a + len].to_vec(), source[b..b + len].to_vec());
        source[a..a + len].copy_from_slice(&second);
        source[b..b + len].copy_from_slice(&first);
        let shift = PIECE as usize;
        source.copy_within((6 << 20) + (1 << 20)..(8 << 20), (7 << 20) + shift);
    });
    let lab = Lab::new(&new).await;
    let disk = LoopDisk::of(&old_source, 512);
    let (received, notes) = fetched(&lab, assignment_of(&lab, &new, &disk, Compare::Auto)).await;
    new.assert_on(&disk.bytes(), &source);
    assert_eq!(received, changed(&new, &old));
    assert!(received < 2 * u64::from(PIECE), "{received}: only the edge of what was shifted is new");
    assert!(notes.iter().any(|note| note.contains("elsewhere and are copied")), "{notes:?}");
}

#[tokio::test]
async fn a_partition_that_lay_elsewhere_is_found_there() {
    let (_, old) = version("1", |_| ());
    let source = gpt_source(512);
    // The same data partition, 100 KiB further, as another installer would have it.
    let disk = LoopDisk::of(&source, 512);
    let start = (6 * MIB + 100 * 1024) / 512;
    crate::testkit::programs::run(
        "sgdisk",
        &["--set-alignment=1", "--delete=4", &format!("--new=4:{start}:{}", 23 * 2048 - 3), &disk.path],
    );
    crate::testkit::programs::run("blockdev", &["--flushbufs", &disk.path]);
    let file = std::fs::File::options().write(true).open(&disk.path).expect("the disk");
    file.write_all_at(&source[6 << 20..(22 << 20)], start * 512).expect("written");
    file.sync_all().expect("synced");
    drop(file);
    let lab = Lab::new(&old).await;
    let (received, _) = fetched(&lab, assignment_of(&lab, &old, &disk, Compare::Auto)).await;
    old.assert_on(&disk.bytes(), &source);
    assert!(received <= MIB + u64::from(PIECE), "{received}: what was cut off at the end");
}

#[tokio::test]
async fn a_disk_that_never_had_the_image_is_not_read_but_for_a_sample() {
    let (source, image) = small_image();
    let lab = Lab::new(&image).await;
    for fresh in [LoopDisk::used(24 << 20, 512), LoopDisk::of(&vec![0; 24 << 20], 512)] {
        let mut assignment = lab.assignment(&fresh);
        let sample = bytes_read(&fresh);
        let (received, _) = fetched(&lab, assignment.clone()).await;
        let automatic = bytes_read(&fresh) - sample;
        assert_eq!(received, image.grid.data_bytes());
        image.assert_on(&fresh.bytes(), &source);
        // Again without reading the disk; `auto` additionally reads the sample.
        let again = LoopDisk::used(24 << 20, 512);
        assignment.task.disk = again.path.clone();
        assignment.task.compare = Compare::Full;
        let before = bytes_read(&again);
        fetched(&lab, assignment).await;
        let full = bytes_read(&again) - before;
        let cells: u64 = 24 * MIB / u64::from(PIECE);
        assert!(cells > 64, "there is something not to read");
        assert!(automatic <= full + 64 * u64::from(PIECE), "{automatic} read, {full} without looking");
    }
}

#[tokio::test]
async fn an_interrupted_attempt_goes_on_where_it_was_and_full_does_not_begin_again() {
    let (source, image) = small_image();
    let lab = Lab::new(&image).await;
    let disk = LoopDisk::used(24 << 20, 512);
    // A disk after a power cut: no table, no heads, most of the pieces.
    let mut half = source.clone();
    half[..1 << 20].fill(0);
    half[23 << 20..].fill(0);
    for partition in &image.manifest.partitions {
        let start = usize::try_from(partition.first.0 * 512).expect("small");
        half[start..start + (1 << 20)].fill(0);
    }
    let lost = image.grid.span(PieceIndex(image.grid.pieces() - 2)).expect("a piece");
    half[place(&image, lost)..][..lost.len as usize].fill(0x11);
    std::fs::write(&disk.file, &half).expect("written");
    let (received, _) = fetched(&lab, lab.assignment(&disk)).await;
    image.assert_on(&disk.bytes(), &source);
    let heads = 3 * MIB;
    assert!(received <= heads + u64::from(PIECE) && received > 0, "{received}");
}

/// One partition of 64 MiB with an unknown filesystem, with more pieces than are read.
fn large(number: &str, change: impl FnOnce(&mut Vec<u8>)) -> (Vec<u8>, TestImage) {
    let disk = LoopDisk::of(&vec![0; 66 << 20], 512);
    run_program("sgdisk", &["--new=1:2048:+64M", &disk.path]);
    run_program("blockdev", &["--flushbufs", &disk.path]);
    let mut source = disk.bytes();
    source[1 << 20..65 << 20].copy_from_slice(&noise(5, 64 << 20));
    change(&mut source);
    let image = image_of(&source, 512, PIECE / 4, |manifest| manifest.version = number.into());
    (source, image)
}

#[tokio::test]
async fn trust_reads_some_pieces_only_and_what_it_writes_and_the_outcome_says_so() {
    let ((old_source, old), (source, new)) = (large("1", |_| ()), large("2", |s| with_changes(s)));
    let lab = Lab::new(&new).await;
    lab.publish(&old);
    let disk = LoopDisk::of(&old_source, 512);
    let mut assignment = assignment_of(&lab, &new, &disk, Compare::Trust);
    assignment.installed = vec![record(&old, &disk)];
    let before = bytes_read(&disk);
    let imaged =
        tokio::time::timeout(DEADLINE, run(lab.context(), assignment.clone())).await.expect("in time");
    let imaged = imaged.expect("imaged");
    let read = bytes_read(&disk) - before;
    new.assert_on(&disk.bytes(), &source);
    assert_eq!(imaged.traffic().0, changed(&new, &old));
    let said = imaged.warnings.iter().find(|warning| warning.contains("by the server's record, not read"));
    let said = said.expect("the outcome says so").clone();
    assert!(said.contains(&format!("of the {} pieces on {}", new.grid.pieces(), disk.path)), "{said}");
    let unread: u32 = said.split(' ').next().and_then(|word| word.parse().ok()).expect("a number");
    assert!((900..new.grid.pieces() - 48).contains(&unread), "{said}");
    let proved = |imaged: &Imaged| imaged.system.as_ref().expect("a system").proved;
    assert!(!proved(&imaged), "a system may have been started since the record");
    imaged.stop().await;
    // Head and tail of the partition, table and backup are wiped. They are read before and after, and written
    // again.
    let wiped = 4 * MIB;
    let looked_at = 100 * u64::from(PIECE / 4);
    let bound = 4 * wiped + looked_at + 2 * (changed(&new, &old) + 6 * u64::from(PIECE));
    assert!(read <= bound && bound < 40 * MIB, "{read} bytes read, at most {bound}");

    // Random reads find changed pieces, the sooner the more there are.
    for piece in (1..1024).step_by(2) {
        disk.corrupt(MIB + piece * u64::from(PIECE / 4));
    }
    assignment.installed = vec![record(&new, &disk)];
    let (received, notes) = fetched(&lab, assignment).await;
    assert!(notes.iter().any(|note| note.contains("the disk was changed at byte")), "{notes:?}");
    assert!(received > 0);
    new.assert_on(&disk.bytes(), &source);
}

#[tokio::test]
async fn netboot_files_that_forbid_trust_have_the_disk_read() {
    let (source, image) = small_image();
    let lab = Lab::new(&image).await;
    let disk = LoopDisk::of(&source, 512);
    let last = image.grid.span(PieceIndex(image.grid.pieces() / 2)).expect("a piece");
    disk.corrupt(place(&image, last) as u64 + 5);
    let mut assignment = assignment_of(&lab, &image, &disk, Compare::Trust);
    assignment.installed = vec![record(&image, &disk)];
    let ctx = ImagingContext { may_trust: false, ..lab.context() };
    let status = ctx.status.clone();
    let imaged =
        tokio::time::timeout(DEADLINE, run(ctx, assignment)).await.expect("in time").expect("imaged");
    assert!(imaged.traffic().0 > 0);
    assert!(!imaged.warnings.iter().any(|warning| warning.contains("record")), "{:?}", imaged.warnings);
    assert!(imaged.system.as_ref().expect("a system").proved);
    imaged.stop().await;
    image.assert_on(&disk.bytes(), &source);
    let notes = status.view().notes;
    assert!(notes.iter().any(|note| note.contains("forbid it")), "{notes:?}");
    assert!(!notes.iter().any(|note| note.contains("by the server's record")), "{notes:?}");
}

/// The disk of [`version`] with an NTFS in its data partition.
fn with_windows(source: &mut [u8]) {
    let start = 6 << 20;
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("ntfs");
    std::fs::File::create(&file).and_then(|file| file.set_len(16 * MIB)).expect("a file");
    let options = ["-q", "-Q", "-F", "-p", "0", "-s", "512", "-H", "16", "-S", "63"];
    run_program("mkntfs", &[&options[..], &[file.to_str().expect("text")]].concat());
    source[start..start + (16 << 20)].copy_from_slice(&std::fs::read(&file).expect("its bytes"));
}

#[tokio::test]
async fn a_windows_that_was_started_is_noticed_although_no_first_piece_has_changed() {
    let (old_source, old) = version("1", |source| with_windows(source));
    let (source, new) = version("2", |source| {
        with_windows(source);
        with_changes(source);
    });
    let lab = Lab::new(&new).await;
    lab.publish(&old);
    // As Windows does when it mounts: the two restart pages of $LogFile, which a new volume has filled with
    // ones.
    let log = (6 << 20..22 << 20).step_by(4096).find(|at| old_source[*at..].starts_with(&[0xff; 1 << 20]));
    let log = log.expect("the log");
    assert!(log - (6 << 20) > PIECE as usize, "not in the first piece");
    let mut used = old_source;
    for page in [log, log + 4096] {
        used[page..page + 4].copy_from_slice(b"RSTR");
    }
    let disk = LoopDisk::of(&used, 512);
    let mut assignment = assignment_of(&lab, &new, &disk, Compare::Trust);
    assignment.installed = vec![record(&old, &disk)];
    let (received, notes) = fetched(&lab, assignment).await;
    let piece = log as u64 / u64::from(PIECE) * u64::from(PIECE);
    let why = format!("cannot be used: the disk was changed at byte {piece}");
    assert!(notes.iter().any(|note| note.contains(&why)), "{why}: {notes:?}");
    assert!(received > 0);
    new.assert_on(&disk.bytes(), &source);
}

#[tokio::test]
async fn a_record_that_does_not_fit_the_disk_is_a_reason_to_look() {
    let ((old_source, old), (source, new)) = (version("1", |_| ()), version("2", |s| with_changes(s)));
    let lab = Lab::new(&new).await;
    lab.publish(&old);
    let other = |disk: &LoopDisk| Installed { disk: "another".into(), ..record(&old, disk) };
    let unknown = |disk: &LoopDisk| Installed { id: ImageId::new("lab", "0"), ..record(&old, disk) };
    let mut used = old_source.clone();
    used[(2 << 20) + 700] ^= 1;
    let mut retabled = old_source.clone();
    retabled[..34 * 512].fill(0);
    retabled[23 << 20..].fill(0);
    type Record<'a> = Box<dyn Fn(&LoopDisk) -> Vec<Installed> + 'a>;
    let cases: [(&[u8], Record<'_>, &str); 5] = [
        (&old_source, Box::new(|_| vec![]), "knows of no image"),
        (&old_source, Box::new(|disk| vec![other(disk)]), "knows of no image"),
        (&old_source, Box::new(|disk| vec![unknown(disk)]), "has no http"),
        (&used, Box::new(|disk| vec![record(&old, disk)]), "was changed at byte 2097152"),
        (&retabled, Box::new(|disk| vec![record(&old, disk)]), "no partition table"),
    ];
    for (content, installed, why) in cases {
        let disk = LoopDisk::of(content, 512);
        let mut assignment = assignment_of(&lab, &new, &disk, Compare::Trust);
        assignment.installed = installed(&disk);
        let (received, notes) = fetched(&lab, assignment).await;
        assert!(notes.iter().any(|note| note.contains(why)), "{why}: {notes:?}");
        assert!(received <= changed(&new, &old) + 4 * u64::from(PIECE), "{why}: {received}");
        new.assert_on(&disk.bytes(), &source);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_personalised_disk_is_read_and_what_was_changed_for_it_is_written_again_and_said() {
    let (source, image) = version("1", |_| ());
    let lab = Lab::new(&image).await;
    let mut there = source.clone();
    with_changes(&mut there);
    let disk = LoopDisk::of(&there, 512);
    let mut assignment = assignment_of(&lab, &image, &disk, Compare::Trust);
    assignment.installed = vec![Installed { personalised: true, ..record(&image, &disk) }];
    let ctx = lab.context();
    let status = ctx.status.clone();
    let imaged =
        tokio::time::timeout(DEADLINE, run(ctx, assignment)).await.expect("in time").expect("imaged");
    assert!(imaged.warnings.iter().any(|w| w.contains("loses its own host name")), "{:?}", imaged.warnings);
    imaged.stop().await;
    let notes = status.view().notes;
    assert!(notes.iter().any(|note| note.contains("this terminal's own after it was imaged")), "{notes:?}");
    assert!(notes.iter().any(|note| note.ends_with("pieces differ")), "{notes:?}");
    assert_eq!(status.view().progress.stage, Stage::Serve);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_disk_of_an_attempt_that_was_cut_off_is_found_and_nothing_is_written() {
    let (source, image) = version("1", |_| ());
    let lab = Lab::new(&image).await;
    let disk = LoopDisk::of(&source, 512);
    let assignment = Assignment { finish: true, ..assignment_of(&lab, &image, &disk, Compare::Auto) };
    let before = disk.bytes();
    let places =
        personal::find_committed(&lab.context(), &assignment).await.expect("found").system.expect("a system");
    assert_eq!((places.info.name, places.bare), (disk.info().name, false));
    assert!(!places.parts.is_empty() && disk.bytes() == before);
    assert!(!places.proved, "its system may have been started since");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_system_that_hibernates_on_the_disk_of_an_attempt_that_was_cut_off_is_left_alone() {
    let (mut source, image) = version("1", |_| ());
    let lab = Lab::new(&image).await;
    // The end of the first page of the partition at 6 MiB.
    let at = usize::try_from(6 * MIB).expect("small") + 4086;
    source[at..at + 9].copy_from_slice(b"S1SUSPEND");
    let disk = LoopDisk::of(&source, 512);
    let assignment = Assignment { finish: true, ..assignment_of(&lab, &image, &disk, Compare::Auto) };
    let failure = personal::find_committed(&lab.context(), &assignment).await.expect_err("it is asleep");
    assert!(failure.message.contains("hibernated in partition 4"), "{failure:?}");
    assert!(disk.bytes() == source);
}
