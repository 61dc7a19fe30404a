//! Where the helper looks for the terminal's file, and where never.

use std::fs;
use std::path::Path;

use super::{System, sha256, shells, succeeds};

/// The mounts of a system whose partitions are the folders of `on`.
fn with_partitions(system: &System, on: &Path) {
    let mount = format!(
        "for at; do device=$source source=$at; done\necho \"$device\" >>{0}/mounted\n\
         cp -r \"{0}/$device/.\" \"$at\"",
        on.display()
    );
    system.tool("mount", &mount);
    system.tool("umount", "for at; do :; done\nrm -rf \"$at\"/*");
}

#[test]
fn a_file_on_a_stick_that_somebody_plugged_in_is_never_obeyed() {
    let system = System::new("http://127.0.0.1:9");
    let on_esp = "EFI/flashmob/terminal.json";
    let own = system.text(&format!("boot/efi/{on_esp}"));
    let foreign = own.replace("lab-01.school", "foreign").replace("7-abc", "9-f");
    let disks = tempfile::tempdir().unwrap();
    with_partitions(&system, disks.path());
    let put = |device: &str, text: &str| {
        let path = disks.path().join(device).join(on_esp);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    put("dev/sdb1", &foreign);
    fs::create_dir_all(disks.path().join("dev/sda1")).unwrap();
    let early = |variables: &[(&str, &str)]| {
        let mut command = system.command(&["dash"], "early");
        command.envs(variables.iter().copied());
        succeeds(&command.output().unwrap());
        system.text("etc/hostname")
    };
    // The stick is mounted where the ESP should be, because it has the same name.
    system.put(&format!("boot/efi/{on_esp}"), &foreign);
    assert_eq!(early(&[("ESP", "/dev/sdb1")]), "golden\n", "the stick is where the ESP should be");
    fs::remove_dir_all(system.at("boot")).unwrap();
    assert_eq!(early(&[]), "golden\n");
    assert_eq!(early(&[("OF_ROOT", "overlay")]), "golden\n", "nothing is known of the root's disk");
    assert_eq!(
        early(&[("OF_ROOT", "/dev/mapper/vg-root")]),
        "golden\n",
        "a part of the root is on the stick"
    );
    let mounted = fs::read_to_string(disks.path().join("mounted")).unwrap();
    assert!(!mounted.contains("sdb"), "{mounted}");
    put("dev/sda1", &own);
    assert_eq!(early(&[]), "lab-01.school\n", "the ESP of the root's own disk is found");
}

#[test]
fn of_two_files_that_of_the_later_attempt_counts() {
    for shell in shells() {
        let system = System::new("http://127.0.0.1:9");
        let on_esp = system.text("boot/efi/EFI/flashmob/terminal.json");
        let of = |attempt: u32| {
            on_esp
                .replace("lab-01.school", "root")
                .replace("7,", &format!("{attempt},"))
                .replace("7-abc", "r")
        };
        for (attempt, name) in [(6, "lab-01.school\n"), (10, "root\n")] {
            system.put("etc/flashmob/terminal.json", &of(attempt));
            succeeds(&system.run(shell, "early"));
            assert_eq!(system.text("etc/hostname"), name, "{shell:?}");
        }
        // One without a number is a file all the same.
        fs::remove_dir_all(system.at("boot")).unwrap();
        let without = of(6).replace("  \"attempt\": 6,\n", "").replace("\"r\"", "\"s\"");
        system.put("etc/flashmob/terminal.json", &without.replace("\"root\"", "\"other\""));
        succeeds(&system.run(shell, "early"));
        assert_eq!(system.text("etc/hostname"), "other\n", "{shell:?}");
    }
}

#[test]
fn the_file_and_the_files_on_the_boot_filesystem_of_a_bios_machine_are_taken() {
    let system = System::new("http://127.0.0.1:9");
    system.put("boot/flashmob/terminal.json", &system.text("boot/efi/EFI/flashmob/terminal.json"));
    fs::remove_dir_all(system.at("boot/efi")).unwrap();
    system.put("boot/flashmob/after/linux-0000.bin", "x\n");
    let list = format!("linux-0000.bin {} 0600 etc/x\n", sha256("x\n"));
    system.put("boot/flashmob/after/files.txt", &list);
    let early = |of_boot: &str| {
        let mut command = system.command(&["dash"], "early");
        succeeds(&command.env("OF_BOOT", of_boot).output().unwrap());
        [system.text("etc/hostname"), system.text("etc/x")]
    };
    assert_eq!(early("/dev/sdb1"), ["golden\n", ""], "that is a stick");
    assert_eq!(early("/dev/sda3"), ["lab-01.school\n", "x\n"]);
    assert!(!system.at("boot/flashmob/after").exists());
}

#[test]
fn a_system_that_lies_on_a_stick_has_its_file_there() {
    let system = System::new("http://127.0.0.1:9");
    let mut command = system.command(&["dash"], "early");
    succeeds(&command.env("OF_ROOT", "/dev/sdb2").env("ESP", "/dev/sdb1").output().unwrap());
    assert_eq!(system.text("etc/hostname"), "lab-01.school\n");
}
