//! Whole runs on loop devices, with filesystems that the running kernel mounts.

mod blank;
mod places;

use std::fs::{self, File};
use std::process::Command;
use std::sync::Arc;

use super::*;
use crate::api::LayoutMode;
use crate::manifest::Role;
use crate::manifest::after::System;
use crate::testkit::disks::{LoopDisk, MIB};
use crate::testkit::programs::{run, run_patiently, unmount};

fn own() -> OwnFile {
    OwnFile {
        format: 1,
        hostname: "lab-01".into(),
        attempt: 7,
        job: "1".into(),
        ticket: "7-00".into(),
        ..OwnFile::default()
    }
}

fn all(places: &Places, own: &OwnFile) -> (Vec<String>, Vec<String>) {
    let (mut steps, mut problems) = (Vec::new(), Vec::new());
    make(places, own, &mut |told| match told {
        Told::Step(what) => steps.push(what),
        Told::Problem(why) => problems.push(why),
    });
    (steps, problems)
}

/// A folder with a small system.
fn system() -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("temp");
    fs::create_dir_all(dir.path().join("etc")).expect("made");
    for (name, text) in [("os-release", "ID=debian\n"), ("hostname", "golden\n"), ("machine-id", "0123\n")] {
        fs::write(dir.path().join("etc").join(name), text).expect("written");
    }
    dir
}

/// A filesystem of `kind` with `content`, and the command that checks it.
fn filesystem(file: &Path, kind: &str, content: &Path) {
    let name = file.to_str().expect("text");
    let from = content.to_str().expect("text");
    let size = if kind == "xfs" { 320 } else { 128 } * MIB;
    File::create(file).and_then(|file| file.set_len(size)).expect("a file");
    match kind {
        "ext4" => drop(run("mkfs.ext4", &["-q", "-d", from, name])),
        "btrfs" => drop(run("mkfs.btrfs", &["-q", "--rootdir", from, name])),
        _ => {
            run("mkfs.xfs", &["-q", name]);
            let disk = LoopDisk::on(tempfile::tempdir().expect("temp"), file.into(), 512);
            let at = tempfile::tempdir().expect("temp");
            let place = at.path().to_str().expect("text");
            run_patiently("mount", &[&disk.path, place]);
            run("cp", &["-a", &format!("{from}/."), place]);
            unmount(place);
        }
    }
}

fn checked(path: &str, kind: &str) {
    match kind {
        "ext4" => run("fsck.ext4", &["-fn", path]),
        "btrfs" => run("btrfs", &["check", "--readonly", path]),
        _ => run("xfs_repair", &["-n", path]),
    };
}

/// The content of a file on a filesystem.
fn content(path: &str, file: &str) -> String {
    content_of(path, |at| fs::read_to_string(at.join(file)))
}

/// What `look` finds on a filesystem.
fn content_of<T>(path: &str, look: impl FnOnce(&Path) -> io::Result<T>) -> T {
    let at = tempfile::tempdir().expect("temp");
    let place = at.path().to_str().expect("text");
    run_patiently("mount", &["-o", "ro", path, place]);
    let found = look(at.path());
    unmount(place);
    found.expect("it is there")
}

/// A disk with an ESP, a data partition and a root on ext4.
fn whole_disk() -> (LoopDisk, Places) {
    let dir = tempfile::tempdir().expect("temp");
    let disk = dir.path().join("disk.img");
    File::create(&disk).and_then(|file| file.set_len(256 * MIB)).expect("a file");
    let name = disk.to_str().expect("text").to_string();
    let table = "label: gpt\nsize=48MiB,type=U\nsize=4MiB\nsize=128MiB\n";
    let mut sfdisk = Command::new("sfdisk")
        .args(["--quiet", &name])
        .stdin(std::process::Stdio::piped())
        .spawn()
        .expect("sfdisk");
    io::Write::write_all(&mut sfdisk.stdin.take().expect("piped"), table.as_bytes()).expect("written");
    assert!(sfdisk.wait().expect("ends").success());
    let (esp, root) = (dir.path().join("esp.img"), dir.path().join("root.img"));
    File::create(&esp).and_then(|file| file.set_len(48 * MIB)).expect("a file");
    run("mkfs.vfat", &["-F", "16", esp.to_str().expect("text")]);
    filesystem(&root, "ext4", system().path());
    for (file, at) in [(&esp, 1), (&root, 53)] {
        let from = format!("if={}", file.display());
        run(
            "dd",
            &[&from, &format!("of={name}"), "bs=1M", &format!("seek={at}"), "conv=notrunc", "status=none"],
        );
    }
    let disk = LoopDisk::on(dir, disk, 512);
    run("partx", &["--add", "--nr", "1:3", &disk.path]);
    let part = |number, start: u64, size: u64, filesystem: &str, role| Part {
        number,
        start: start * MIB,
        size: size * MIB,
        room: size * MIB,
        filesystem: filesystem.into(),
        role,
    };
    let parts = vec![part(1, 1, 48, "vfat", Role::Esp), part(3, 53, 128, "ext4", Role::Data)];
    let places = Places {
        info: disk.info(),
        layout: LayoutMode::WholeDisk,
        parts,
        kept_esp: None,
        blank: None,
        bare: false,
        loader: None,
        files: vec![],
        proved: true,
    };
    (disk, places)
}

#[test]
fn a_linux_with_an_esp_gets_its_name_first_and_the_file_last() {
    let (disk, places) = whole_disk();
    let (steps, problems) = all(&places, &own());
    disk.forget_partitions();
    assert_eq!(problems, Vec::<String>::new());
    assert_eq!(steps.first().map(String::as_str), Some("/etc/hostname is lab-01"));
    assert_eq!(
        steps.last().map(String::as_str),
        Some("EFI/flashmob/terminal.json is on the EFI system partition")
    );
    let esp = format!("{}@@1M", disk.file.display());
    let there = run("mtype", &["-i", &esp, "::EFI/flashmob/terminal.json"]);
    assert_eq!(there.as_bytes(), own().to_bytes());
}

#[test]
fn without_a_host_name_nothing_but_the_file_is_changed() {
    let (disk, places) = whole_disk();
    let before = disk.bytes();
    let own = OwnFile { hostname: String::new(), ..own() };
    let (steps, problems) = all(&places, &own);
    disk.forget_partitions();
    assert_eq!((steps.len(), problems), (1, Vec::new()));
    let after = disk.bytes();
    let rest = 49 * usize::try_from(MIB).expect("small");
    assert!(before[rest..] == after[rest..] && before[..rest] != after[..rest]);
}

fn given(partition: Option<u32>, path: &str, mode: u32, content: &[u8]) -> GivenFile {
    let sha256 = crate::digest::sha256(content);
    GivenFile {
        partition,
        system: None,
        path: path.into(),
        mode,
        sha256,
        content: Arc::new(content.to_vec()),
    }
}

fn given_to(system: System, path: &str, content: &[u8]) -> GivenFile {
    GivenFile { system: Some(system), ..given(None, path, 0o644, content) }
}

#[test]
fn the_administrators_files_are_on_the_root_before_the_own_file_is() {
    let (disk, mut places) = whole_disk();
    let large = vec![7; 300_000];
    places.files = vec![
        given(None, "etc/hosts", 0o644, b"127.0.1.1 golden\n"),
        given(None, "opt/lab/bin/join", 0o755, &large),
        given(Some(3), "top.txt", 0o600, b"secret"),
        given(Some(9), "x", 0o600, b"y"),
        given(None, "etc/os-release/x", 0o600, b"y"),
    ];
    let (steps, problems) = all(&places, &own());
    assert_eq!(problems.len(), 2, "{problems:?}");
    assert!(problems[0].contains("partition 9") && problems[1].contains("'os-release' on the way"));
    assert!(steps.last().is_some_and(|last| last.contains("terminal.json")), "{steps:?}");
    let root = format!("{}p3", disk.path);
    let root = if Path::new(&root).exists() { root } else { format!("{}3", disk.path) };
    assert_eq!(content(&root, "etc/hosts"), "127.0.1.1\tlab-01\n", "the host name comes after the files");
    assert_eq!(content(&root, "top.txt"), "secret");
    let listed = run("debugfs", &["-R", "stat /opt/lab/bin/join", &root]);
    assert!(listed.contains("Mode:  0755") && listed.contains("Size: 300000"), "{listed}");
    // Before the file was written the power failed: all is done again.
    places.files[0] = given(None, "etc/hosts", 0o644, b"127.0.1.1 new\n# new\n");
    all(&places, &OwnFile { attempt: 8, ..own() });
    assert_eq!(content(&root, "etc/hosts"), "127.0.1.1\tlab-01\n# new\n");
    checked(&root, "ext4");
    disk.forget_partitions();
}

#[test]
fn files_for_a_system_that_the_agent_cannot_write_wait_on_the_esp_with_their_list() {
    let (disk, mut places) = whole_disk();
    places.parts[1].filesystem = "ntfs".into();
    let large = vec![7; 300_000];
    places.files = vec![
        given(None, "ProgramData/lab/join me.ps1", 0o644, b"join"),
        given(None, "Windows/x.bin", 0o644, &large),
    ];
    let (steps, problems) = all(&places, &own());
    disk.forget_partitions();
    assert_eq!(problems, Vec::<String>::new());
    assert_eq!(steps[0], "2 files wait for the helper in Windows");
    let esp = format!("{}@@1M", disk.file.display());
    let list = run("mtype", &["-i", &esp, "::EFI/flashmob/after/files.txt"]);
    let expected = format!(
        "windows-0000.bin {} 0644 ProgramData/lab/join me.ps1\nwindows-0001.bin {} 0644 Windows/x.bin\n",
        places.files[0].sha256, places.files[1].sha256
    );
    assert_eq!(list, expected);
    assert_eq!(run("mtype", &["-i", &esp, "::EFI/flashmob/after/windows-0000.bin"]), "join");
    assert_eq!(run("mtype", &["-i", &esp, "::EFI/flashmob/after/windows-0001.bin"]).as_bytes(), large);
    places.files = vec![given(None, "too/large", 0o644, &vec![1; 60 << 20])];
    let (steps, problems) = all(&places, &OwnFile { attempt: 8, ..own() });
    assert!(problems[0].contains("EFI system partition"), "{problems:?}");
    assert!(steps[0].contains("old files") && steps.len() == 2, "{steps:?}");
}

/// The names and paths in the list of files that wait.
fn waiting(disk: &LoopDisk) -> Vec<String> {
    let esp = format!("{}@@1M", disk.file.display());
    let list = run("mtype", &["-i", &esp, "::EFI/flashmob/after/files.txt"]);
    let words = |line: &str| line.split(' ').map(String::from).collect::<Vec<_>>();
    list.lines().map(words).map(|line| format!("{} {}", line[0], line[3])).collect()
}

#[test]
fn of_a_windows_and_a_linux_on_one_disk_each_gets_its_own_files() {
    let (disk, mut places) = whole_disk();
    places.parts.push(Part { number: 2, filesystem: "ntfs".into(), ..places.parts[1].clone() });
    places.files = vec![
        given_to(System::Windows, "a", b"for Windows"),
        given_to(System::Linux, "a", b"for Linux"),
        given(None, "etc/a", 0o644, b"as usual"),
    ];
    let (steps, problems) = all(&places, &own());
    assert_eq!(problems, Vec::<String>::new());
    assert!(steps.contains(&"1 files wait for the helper in Windows".into()), "{steps:?}");
    assert_eq!(waiting(&disk), ["windows-0000.bin a"]);
    let root = format!("{}p3", disk.path);
    assert_eq!([content(&root, "a"), content(&root, "etc/a")], ["for Linux", "as usual"]);
    // The Linux is one that the agent cannot write.
    places.parts[1].filesystem = "lvm".into();
    let (_, problems) = all(&places, &OwnFile { attempt: 8, ..own() });
    assert_eq!(problems, Vec::<String>::new());
    assert_eq!(waiting(&disk), ["linux-0000.bin a", "linux-0001.bin etc/a", "windows-0002.bin a"]);
    // There is no Linux, and then no Windows.
    places.parts.remove(1);
    places.files.remove(1);
    let (_, problems) = all(&places, &OwnFile { attempt: 9, ..own() });
    assert_eq!(problems, Vec::<String>::new());
    assert_eq!(waiting(&disk), ["windows-0000.bin a", "windows-0001.bin etc/a"]);
    places.parts[1].filesystem = "lvm".into();
    let (_, problems) = all(&places, &OwnFile { attempt: 10, ..own() });
    disk.forget_partitions();
    assert!(problems.iter().any(|why| why.contains("files for Windows are left out")), "{problems:?}");
    assert_eq!(waiting(&disk), ["linux-0000.bin etc/a"]);
}

#[test]
fn a_later_rule_without_a_system_replaces_the_file_of_an_earlier_one_with() {
    let (disk, mut places) = whole_disk();
    places.parts[1].filesystem = "lvm".into();
    places.files = vec![given_to(System::Linux, "a", b"early"), given(None, "a", 0o644, b"late")];
    let own = OwnFile { hostname: String::new(), ..own() };
    assert_eq!(all(&places, &own).1, Vec::<String>::new());
    disk.forget_partitions();
    assert_eq!(waiting(&disk), ["linux-0000.bin a"]);
    let esp = format!("{}@@1M", disk.file.display());
    assert_eq!(run("mtype", &["-i", &esp, "::EFI/flashmob/after/linux-0000.bin"]), "late");
}

#[test]
fn two_linux_systems_get_nothing_and_the_report_says_so() {
    let (disk, mut places) = whole_disk();
    let before = disk.bytes();
    places.files = vec![given(None, "etc/a", 0o644, b"x"), given_to(System::Linux, "b", b"y")];
    // One that is listed twice is as good as two.
    places.parts.push(places.parts[1].clone());
    let (steps, problems) = all(&places, &own());
    disk.forget_partitions();
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert!(problems[0].contains("several Linux systems") && problems[0].contains("nothing is written"));
    assert_eq!(steps, ["EFI/flashmob/terminal.json is on the EFI system partition"]);
    let after = disk.bytes();
    let rest = 49 * usize::try_from(MIB).expect("small");
    assert!(before[rest..] == after[rest..], "neither of them is changed");
    let esp = format!("{}@@1M", disk.file.display());
    assert!(!run("mdir", &["-i", &esp, "::EFI/flashmob"]).to_lowercase().contains("after"));
}

#[test]
fn the_loader_that_the_firmware_keeps_no_entry_for_is_copied_before_the_own_file_is_written() {
    let (disk, mut places) = whole_disk();
    places.loader = Some("/EFI/debian/shimx64.efi".into());
    let (steps, problems) = all(&places, &OwnFile { hostname: String::new(), ..own() });
    assert!(problems[0].contains("there is no /EFI/debian/shimx64.efi"), "{problems:?}");
    assert_eq!(steps.len(), 1, "the file is written all the same: {steps:?}");
    let mut program = vec![0; 4096];
    program[0x3c] = 0x80;
    program[0x80..0x86].copy_from_slice(&[b'P', b'E', 0, 0, 0x64, 0x86]);
    on_esp(&places, &places.parts[0], |disk, at| {
        fat::write(disk, at, &["EFI", "debian", "shimx64.efi"], &program)
    })
    .expect("written");
    let (steps, problems) = all(&places, &OwnFile { attempt: 8, hostname: String::new(), ..own() });
    disk.forget_partitions();
    assert_eq!(problems, Vec::<String>::new());
    assert!(steps[0].contains("/EFI/debian/shimx64.efi is copied to /EFI/BOOT/BOOTX64.EFI"), "{steps:?}");
    assert_eq!(steps.len(), 2, "{steps:?}");
}

/// All that a run changes, as the system finds it.
fn result(disk: &LoopDisk) -> Vec<String> {
    let root = format!("{}p3", disk.path);
    checked(&root, "ext4");
    let esp = format!("{}@@1M", disk.file.display());
    let own = run("mtype", &["-i", &esp, "::EFI/flashmob/terminal.json"]);
    let files = ["etc/hostname", "etc/machine-id", "etc/hosts", "opt/lab/join", "srv/data"];
    files.map(|file| content(&root, file)).into_iter().chain([own]).collect()
}

#[test]
fn a_power_cut_at_each_change_is_made_good_by_the_next_run() {
    let (golden, mut places) = whole_disk();
    golden.forget_partitions();
    places.files = vec![
        given(None, "etc/hosts", 0o644, b"127.0.1.1 golden\n"),
        given(None, "opt/lab/join", 0o755, b"join"),
        given(Some(3), "srv/data", 0o600, b"data"),
    ];
    let fresh = || {
        let dir = tempfile::tempdir().expect("temp");
        let file = dir.path().join("disk.img");
        let [from, to] = [&golden.file, &file].map(|path| path.to_str().expect("text").to_string());
        run("cp", &["--sparse=always", &from, &to]);
        let disk = LoopDisk::on(dir, file, 512);
        run("partx", &["--add", "--nr", "1:3", &disk.path]);
        let places = Places { info: disk.info(), ..places.clone() };
        (disk, places)
    };
    let (disk, there) = fresh();
    assert_eq!(all(&there, &own()).1, Vec::<String>::new());
    let expected = result(&disk);
    disk.forget_partitions();
    let mut cut = 0;
    loop {
        let (disk, there) = fresh();
        power::test::fails_after(Some(cut));
        all(&there, &own());
        let failed = power::test::has_failed();
        power::test::fails_after(None);
        let (_, problems) = all(&there, &own());
        let now = result(&disk);
        disk.forget_partitions();
        assert_eq!((problems, &now), (Vec::new(), &expected), "cut off before change {cut}");
        if !failed {
            break;
        }
        cut += 1;
    }
    assert!(cut > 12, "{cut} changes");
}

#[test]
fn new_files_get_the_label_of_those_beside_them_and_others_let_the_system_label_anew() {
    let dir = tempfile::tempdir().expect("temp");
    let file = dir.path().join("root.img");
    let content = system();
    fs::create_dir_all(content.path().join("opt/lab")).expect("made");
    fs::write(content.path().join("opt/lab/one"), "").expect("written");
    filesystem(&file, "ext4", content.path());
    let disk = LoopDisk::on(dir, file, 512);
    let mounted = Mounted::new(Path::new(&disk.path), "ext4", MsFlags::empty()).expect("mounted");
    let at = |name: &str| File::open(mounted.mount.path().join(name)).expect(name);
    let label = |name: &str| crate::io::sys::label_of(&at(name)).expect("readable");
    let root = Root::open(mounted.mount.path()).expect("open");
    root.put("opt/lab/plain", b"x", 0o644).expect("written");
    assert_eq!(label("opt/lab/plain"), None, "a system without SELinux has none");
    root.remove("opt/lab/plain").expect("removed");
    for (name, of) in [
        ("etc", "etc_t"),
        ("etc/hostname", "hostname_etc_t"),
        ("etc/machine-id", "machineid_t"),
        ("opt/lab", "usr_t"),
        ("opt/lab/one", "lib_t"),
    ] {
        crate::io::sys::set_label(&at(name), format!("system_u:object_r:{of}:s0\0").as_bytes()).expect("set");
    }
    let is = |name: &str, of: &str| {
        assert_eq!(label(name), Some(format!("system_u:object_r:{of}:s0\0").into_bytes()), "{name}");
    };
    root.write("etc/hostname", b"lab-01\n").expect("written");
    is("etc/hostname", "hostname_etc_t");
    root.put("opt/lab/two", b"x", 0o644).expect("written");
    is("opt/lab/two", "lib_t");
    // Made by a run that was cut off before it had a label.
    fs::write(mounted.mount.path().join("opt/lab/three"), "").expect("written");
    root.put("opt/lab/three", b"x", 0o644).expect("written");
    is("opt/lab/three", "lib_t");
    crate::io::sys::set_label(&at("opt/lab/one"), b"system_u:object_r:other_t:s0\0").expect("set");
    root.put("opt/lab/two", b"y", 0o644).expect("written");
    is("opt/lab/two", "lib_t");
    root.make_folder("etc/flashmob").expect("made");
    root.write("etc/flashmob/terminal.json", b"{}").expect("written");
    is("etc/flashmob/terminal.json", "etc_t");
    assert!(!root.relabel().expect("looked"), "all is known");
    root.put("etc/new", b"x", 0o644).expect("written");
    is("etc/new", "etc_t");
    assert!(root.relabel().expect("written") && root.has(".autorelabel"));
    drop(root);
    mounted.mount.close().expect("unmounted");
}
