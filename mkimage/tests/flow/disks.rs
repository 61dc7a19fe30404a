//! Disks for the tests: GPT with everything, MBR with logical partitions, a bare filesystem.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use flashmob_testkit::command::{run_command, tool};

pub(crate) const MIB: u64 = 1 << 20;

pub(crate) fn run(program: &str, arguments: &[&str]) {
    run_command(tool(program).args(arguments));
}

fn path(path: &Path) -> &str {
    path.to_str().expect("a path of text")
}

/// Bytes that are never zero for long, the same each time.
pub(crate) fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed | 1;
    let mut step = || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        state.to_be_bytes()[0]
    };
    (0..len).map(|_| step()).collect()
}

fn put(disk: &Path, at: u64, bytes: &[u8]) {
    let file = File::options().write(true).open(disk).expect("the disk");
    file.write_all_at(bytes, at).expect("written");
}

fn file_of(folder: &Path, name: &str, size: u64) -> PathBuf {
    let file = folder.join(name);
    File::create(&file).and_then(|f| f.set_len(size)).expect("a file");
    file
}

/// An ext4 filesystem of 16 MiB with a kernel, an initrd and GRUB's configuration.
pub(crate) fn ext4(folder: &Path) -> PathBuf {
    ext4_of(folder, 0)
}

fn ext4_of(folder: &Path, salt: u64) -> PathBuf {
    let tree = folder.join("tree");
    fs::create_dir_all(tree.join("boot/grub")).expect("folders");
    fs::write(tree.join("boot/vmlinuz-6.1"), noise(1 + salt, 300_000)).expect("a kernel");
    fs::write(tree.join("boot/initrd-6.1"), noise(2 + salt, 200_000)).expect("an initrd");
    let config = "menuentry 'lab' {\n search --set=root --label root\n \
                  linux /boot/vmlinuz-6.1 root=LABEL=root ro quiet\n initrd /boot/initrd-6.1\n}\n";
    fs::write(tree.join("boot/grub/grub.cfg"), config).expect("a configuration");
    let file = file_of(folder, "root.ext4", 16 * MIB);
    run("mke2fs", &["-q", "-F", "-t", "ext4", "-L", "root", "-d", path(&tree), path(&file)]);
    file
}

fn esp(folder: &Path, salt: u64) -> PathBuf {
    let file = file_of(folder, "esp.vfat", 4 * MIB);
    run("mkfs.vfat", &["-n", "ESP", path(&file)]);
    let loader = folder.join("loader.efi");
    fs::write(&loader, noise(3 + salt, 50_000)).expect("a loader");
    for directory in ["EFI", "EFI/BOOT", "EFI/debian", "EFI/Microsoft", "EFI/Microsoft/Boot"] {
        run("mmd", &["-i", path(&file), &format!("::{directory}")]);
    }
    for target in ["EFI/BOOT/BOOTX64.EFI", "EFI/debian/shimx64.efi", "EFI/Microsoft/Boot/bootmgfw.efi"] {
        run("mcopy", &["-i", path(&file), path(&loader), &format!("::{target}")]);
    }
    file
}

/// 32 MiB: boot code; a BIOS boot partition of 1 MiB, an ESP of 4 MiB, an ext4 root of 16 MiB, 2 MiB of
/// nothing.
pub(crate) fn gpt(folder: &Path) -> PathBuf {
    gpt_of(folder, 0)
}

/// The same with other bytes in its partitions.
pub(crate) fn gpt_of(folder: &Path, salt: u64) -> PathBuf {
    let disk = file_of(folder, "gpt.img", 32 * MIB);
    run(
        "sgdisk",
        &[
            "--new=1:2048:+1M",
            "--typecode=1:ef02",
            "--new=2:4096:+4M",
            "--typecode=2:ef00",
            "--change-name=2:EFI",
            "--new=3:12288:+16M",
            "--typecode=3:8300",
            "--change-name=3:Wurzel ä",
            "--new=4:45056:+2M",
            "--typecode=4:8200",
            path(&disk),
        ],
    );
    put(&disk, 0, &noise(4, 440));
    put(&disk, MIB, &noise(5 + salt, 30_000));
    put(&disk, 2 * MIB, &fs::read(esp(folder, salt)).expect("the ESP"));
    put(&disk, 6 * MIB, &fs::read(ext4_of(folder, salt)).expect("the root"));
    disk
}

/// 32 MiB: boot code and a gap with data; an active primary partition, an extended one with two logical.
pub(crate) fn mbr(folder: &Path) -> PathBuf {
    mbr_of(folder, 0)
}

/// The same with other bytes in its partitions and before them.
pub(crate) fn mbr_of(folder: &Path, salt: u64) -> PathBuf {
    let disk = file_of(folder, "mbr.img", 32 * MIB);
    let mut child = Command::new("/usr/sbin/sfdisk")
        .args(["--quiet", "--no-reread", "--no-tell-kernel", path(&disk)])
        .stdin(Stdio::piped())
        .spawn()
        .expect("sfdisk");
    let script = "label: dos\nlabel-id: 0x04030201\nstart=2048, size=8192, type=83, bootable\n\
                  start=10240, size=49152, type=f\nstart=12288, size=32768, type=83\n\
                  start=47104, size=4096, type=82\n";
    child.stdin.take().expect("its input").write_all(script.as_bytes()).expect("the script");
    assert!(child.wait().expect("sfdisk").success());
    put(&disk, 0, &noise(6, 440));
    put(&disk, 3 * 512 + 17, &noise(7 + salt, 20_000));
    put(&disk, 2048 * 512 + 5000, &noise(8 + salt, 100_000));
    put(&disk, 12288 * 512, &fs::read(ext4_of(folder, salt)).expect("the root"));
    put(&disk, 47104 * 512 + 4086, b"SWAPSPACE2");
    disk
}
