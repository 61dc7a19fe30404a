//! Where the file and the files that wait are written, on each kind of disk.

use std::os::unix::fs::PermissionsExt;

use super::*;

#[test]
fn a_linux_without_an_esp_gets_name_and_file_on_each_filesystem() {
    for kind in ["ext4", "xfs", "btrfs"] {
        let dir = tempfile::tempdir().expect("temp");
        let file = dir.path().join("disk.img");
        filesystem(&file, kind, system().path());
        let disk = LoopDisk::on(dir, file, 512);
        let part = Part { number: 1, start: 0, size: 0, room: 0, filesystem: kind.into(), role: Role::Data };
        let places = Places {
            info: disk.info(),
            layout: LayoutMode::WholeDisk,
            parts: vec![part],
            kept_esp: None,
            blank: None,
            bare: true,
            loader: None,
            files: vec![],
            proved: true,
        };
        let (steps, problems) = all(&places, &own());
        assert_eq!(problems, Vec::<String>::new(), "{kind}");
        assert_eq!(steps.last().map(String::as_str), Some("/etc/flashmob/terminal.json is written"));
        checked(&disk.path, kind);
        assert_eq!(content(&disk.path, "etc/hostname"), "lab-01\n", "{kind}");
        assert_eq!(content(&disk.path, "etc/machine-id"), "", "{kind}");
        let there = content(&disk.path, "etc/flashmob/terminal.json");
        assert_eq!(there.as_bytes(), own().to_bytes());
        let mode = content_of(&disk.path, |at| {
            fs::metadata(at.join("etc/flashmob/terminal.json")).map(|file| file.permissions().mode() & 0o777)
        });
        assert_eq!(mode, 0o600, "{kind}: not everybody on the system has the ticket");
        // The system has started meanwhile: its new id stays, because the file says that all was done.
        let again = OwnFile { ticket: "7-01".into(), ..own() };
        assert_eq!(all(&places, &again).0, ["it was done before"]);
        assert_eq!(content(&disk.path, "etc/flashmob/terminal.json"), there);
    }
}

/// The file on the EFI system partition.
fn on_esp_now(disk: &LoopDisk) -> String {
    run("mtype", &["-i", &format!("{}@@1M", disk.file.display()), "::EFI/flashmob/terminal.json"])
}

#[test]
fn a_partial_attempt_replaces_the_old_file_on_an_esp_that_it_leaves_as_it_is() {
    for kind in ["ext4", "ntfs"] {
        let (disk, mut places) = whole_disk();
        all(&places, &OwnFile { attempt: 3, hostname: String::new(), ..own() });
        places.kept_esp = Some(places.parts.remove(0));
        places.parts[0].filesystem = kind.into();
        places.loader = Some("/EFI/debian/shimx64.efi".into());
        let (steps, problems) = all(&places, &own());
        assert_eq!(problems, Vec::<String>::new(), "{kind}");
        assert!(steps.last().is_some_and(|last| last.contains("EFI system partition")), "{steps:?}");
        assert_eq!(on_esp_now(&disk).as_bytes(), own().to_bytes(), "{kind}");
        assert_eq!(all(&places, &own()).0, ["it was done before"], "{kind}");
        disk.forget_partitions();
    }
}

#[test]
fn a_partial_attempt_leaves_an_esp_without_the_file_as_it_is() {
    let (disk, mut places) = whole_disk();
    places.kept_esp = Some(places.parts.remove(0));
    let before = disk.bytes();
    let (steps, problems) = all(&places, &own());
    disk.forget_partitions();
    assert_eq!(problems, Vec::<String>::new());
    assert_eq!(steps.last().map(String::as_str), Some("/etc/flashmob/terminal.json is written"));
    let esp = 49 * usize::try_from(MIB).expect("small");
    assert!(before[..esp] == disk.bytes()[..esp]);
}

#[test]
fn the_golden_machines_own_file_does_not_stay_on_the_root_beside_that_on_the_esp() {
    let (disk, mut places) = whole_disk();
    let golden = OwnFile { attempt: 900, ..own() };
    let esp = places.parts.remove(0);
    all(&places, &golden);
    let root = format!("{}p3", disk.path);
    assert_eq!(content(&root, "etc/flashmob/terminal.json").as_bytes(), golden.to_bytes());
    places.parts.insert(0, esp);
    assert_eq!(all(&places, &own()).1, Vec::<String>::new());
    let listed = run("debugfs", &["-R", "ls /etc/flashmob", &root]);
    disk.forget_partitions();
    assert!(!listed.contains("terminal.json"), "{listed}");
}

#[test]
fn a_root_that_is_not_there_is_a_problem_and_the_file_is_written_all_the_same() {
    let (disk, mut places) = whole_disk();
    places.parts[1].filesystem = "lvm".into();
    let (steps, problems) = all(&places, &own());
    assert!(problems[0].contains("partition 3 has lvm") && steps.len() == 1, "{problems:?} {steps:?}");
    places.parts[1].filesystem = "ntfs".into();
    let (_, problems) = all(&places, &OwnFile { attempt: 8, ..own() });
    assert_eq!(problems, Vec::<String>::new(), "Windows names itself");
    places.parts.remove(0);
    assert!(all(&places, &own()).1[0].contains("no place for etc/flashmob/terminal.json"));
    disk.forget_partitions();
}

#[test]
fn a_linux_on_lvm_that_starts_by_bios_has_file_and_files_on_its_own_boot_filesystem() {
    for kind in ["ext4", "xfs"] {
        let (dir, boot) = (tempfile::tempdir().expect("temp"), tempfile::tempdir().expect("temp"));
        fs::create_dir(boot.path().join("grub2")).expect("made");
        fs::write(boot.path().join("vmlinuz-6.1"), "kernel").expect("written");
        let file = dir.path().join("disk.img");
        filesystem(&file, kind, boot.path());
        let disk = LoopDisk::on(dir, file, 512);
        let boot = Part { number: 1, start: 0, size: 0, room: 0, filesystem: kind.into(), role: Role::Data };
        let mut places = Places {
            info: disk.info(),
            layout: LayoutMode::WholeDisk,
            parts: vec![boot.clone(), Part { number: 2, filesystem: "lvm".into(), ..boot }],
            kept_esp: None,
            blank: None,
            bare: true,
            loader: None,
            files: vec![given(None, "etc/a", 0o755, b"1"), given(None, "etc/b", 0o600, b"2")],
            proved: true,
        };
        // The node of the second is not looked for.
        let (steps, problems) = all(&places, &OwnFile { attempt: 3, ..own() });
        assert!(problems.len() == 1 && problems[0].contains("left to the system"), "{problems:?}");
        assert_eq!(
            steps,
            ["2 files wait for the helper in Linux", "/boot/flashmob/terminal.json is written"]
        );
        let list = content(&disk.path, "flashmob/after/files.txt");
        assert!(list.starts_with("linux-0000.bin ") && list.ends_with(" 0600 etc/b\n"), "{list}");
        assert_eq!(content(&disk.path, "flashmob/after/linux-0001.bin"), "2");
        places.files.clear();
        all(&places, &own());
        assert_eq!(content(&disk.path, "flashmob/terminal.json").as_bytes(), own().to_bytes());
        let left = content_of(&disk.path, |at| Ok(fs::read_dir(at.join("flashmob/after"))?.count()));
        assert_eq!(left, 0, "{kind}");
        assert_eq!(all(&places, &own()).0, ["it was done before"]);
        checked(&disk.path, kind);
    }
}

#[test]
fn files_that_waited_on_the_golden_machine_are_not_copied_by_its_copies() {
    let (disk, mut places) = whole_disk();
    places.parts[1].filesystem = "lvm".into();
    places.files = vec![given(None, "etc/a", 0o600, b"1"), given(None, "etc/b", 0o600, b"2")];
    all(&places, &OwnFile { attempt: 3, ..own() });
    assert_eq!(waiting(&disk), ["linux-0000.bin etc/a", "linux-0001.bin etc/b"]);
    places.files.truncate(1);
    all(&places, &OwnFile { attempt: 4, ..own() });
    let esp = format!("{}@@1M", disk.file.display());
    let listed = run("mdir", &["-b", "-i", &esp, "::EFI/flashmob/after"]);
    assert_eq!(listed.lines().count(), 2, "{listed}");
    places.files.clear();
    let (steps, _) = all(&places, &own());
    disk.forget_partitions();
    assert_eq!(steps[0], "old files that waited for a helper are removed");
    assert!(!run("mdir", &["-b", "-i", &esp, "::EFI/flashmob"]).contains("after"));
}
