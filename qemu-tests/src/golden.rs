//! The golden disk: a small, real, bootable Linux system made from Debian packages, without mounts or loop
//! devices.
//!
//! GPT with a BIOS boot partition, an EFI system partition and an ext4 root. It boots by BIOS and UEFI from
//! virtio, AHCI and NVMe, and its init prints `GOLDEN <mark> is up` on the serial console. Invariant: the
//! disk appears under its name only when it is complete. Which kernel is used is the caller's choice.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use flashmob_testkit::command::{tool, try_command, try_run};

pub(crate) const MIB: u64 = 1 << 20;
const SECTOR: u64 = 512;
/// Where each partition begins, in MiB, and the end of the disk's last one.
const BIOS_BOOT: u64 = 1;
pub(crate) const ESP: u64 = 2;
pub(crate) const ROOT: u64 = 36;
pub(crate) const END: u64 = 104;
/// Kernel arguments of the golden system, besides its root.
const SYSTEM_ARGUMENTS: &str = "ro console=tty0 console=ttyS0,115200 no_timer_check panic=5";
const ROOT_UUID: &str = "6f1a5b0e-0000-4000-8000-f1a5b0b00001";

/// Drivers in the small initrd; their dependencies are added.
const INITRD_DRIVERS: [&str; 6] = ["virtio_pci", "virtio_blk", "ahci", "sd_mod", "nvme", "ext4"];
/// Drivers of a system that calls the server: its card, DHCP, and the EFI system partition.
const CALL_DRIVERS: [&str; 4] = ["virtio_net", "vfat", "nls_cp437", "nls_ascii"];
/// Sends the one request that the helper makes. wget of Debian's busybox crashes with `--post-data`.
const CURL: &str = r#"#!/bin/sh
while [ $# -gt 1 ]; do
    [ "$1" != -d ] || body=$2
    shift
done
rest=${1#http://}
address=${rest%%/*}
{
    printf 'POST /%s HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json\r\n' "${rest#*/}" "$address"
    printf 'Content-Length: %s\r\nConnection: close\r\n\r\n%s' "${#body}" "$body"
    # A server may take the end of what it is sent for the end of the client.
    sleep 5
} | nc "${address%:*}" "${address#*:}" | awk 'NR == 1 { printf "%s", $2 }'
"#;
/// The helper that flashmob ships for installed systems.
const HELPER: &str = include_str!("../../src/packaging/helper/linux/first-start");

/// An unpacked Debian kernel package.
#[derive(Debug, Clone)]
pub struct Kernel {
    pub vmlinuz: PathBuf,
    /// The folder that holds `lib/modules/VERSION`.
    pub root: PathBuf,
    /// Its version, as `uname -r` says.
    pub version: String,
}

impl Kernel {
    /// The kernel unpacked by `dpkg -x` into `root`.
    pub fn unpacked(root: &Path) -> Result<Self> {
        let modules = root.join("lib/modules");
        let entry = fs::read_dir(&modules).with_context(|| format!("reading {}", modules.display()))?.next();
        let entry = entry.with_context(|| format!("{} is empty", modules.display()))??;
        let version = entry.file_name().to_string_lossy().into_owned();
        let vmlinuz = root.join(format!("boot/vmlinuz-{version}"));
        ensure!(vmlinuz.is_file(), "{} is missing", vmlinuz.display());
        Ok(Kernel { vmlinuz, root: root.to_owned(), version })
    }
}

/// What runs when a golden system has started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FirstStart {
    /// It says that it is up.
    Greeting,
    /// It runs flashmob's helper with the network first.
    Helper,
}

/// Writes a golden disk to `disk`; its system says `GOLDEN <mark> is up` when it runs.
pub fn make(disk: &Path, kernel: &Kernel, mark: &str, start: FirstStart) -> Result<()> {
    let work = tempfile::tempdir_in(disk.parent().context("the disk needs a folder")?)?;
    let work = work.path();
    let draft = work.join("disk.img");
    File::create(&draft)?.set_len((END + 1) * MIB)?;
    partition(&draft)?;
    let esp = make_esp(work)?;
    let root = make_root(work, kernel, mark, start)?;
    let target = File::options().write(true).open(&draft)?;
    copy_sparse(&esp, &target, ESP * MIB)?;
    copy_sparse(&root, &target, ROOT * MIB)?;
    install_bios_grub(work, &target, &early_config(work)?)?;
    target.sync_all()?;
    fs::rename(&draft, disk)?;
    Ok(())
}

/// Replaces the golden disk's own UEFI loader by Debian's signed chain, as an installed Debian has it, so
/// that it starts under Secure Boot. Its kernel is signed.
pub fn sign_chain(disk: &Path) -> Result<()> {
    const SHIM: &str = "/usr/lib/shim/shimx64.efi.signed";
    const GRUB: &str = "/usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed";
    let work = tempfile::tempdir_in(disk.parent().context("the disk needs a folder")?)?;
    let esp = PathBuf::from(format!("{}@@{}", disk.display(), ESP * MIB));
    let config = early_config(work.path())?;
    for folder in ["BOOT", "debian"] {
        put_into_esp(&esp, &format!("{folder}/grubx64.efi"), Path::new(GRUB))?;
    }
    put_into_esp(&esp, "BOOT/BOOTX64.EFI", Path::new(SHIM))?;
    put_into_esp(&esp, "debian/shimx64.efi", Path::new(SHIM))?;
    put_into_esp(&esp, "debian/grub.cfg", &config)
}

/// Replaces the golden disk's UEFI loader by one program with the system's kernel, initrd and command line,
/// signed with `key`: a firmware that trusts nobody else's starts it.
pub fn sign_unified(disk: &Path, key: &Path, certificate: &Path) -> Result<()> {
    const STUB: &str = "/usr/lib/systemd/boot/efi/linuxx64.efi.stub";
    let work = tempfile::tempdir_in(disk.parent().context("the disk needs a folder")?)?;
    let at = |name: &str| work.path().join(name);
    let root = format!("{}?offset={}", disk.display(), ROOT * MIB);
    for name in ["vmlinuz", "initrd.img"] {
        let dump = format!("dump /boot/{name} {}", at(name).display());
        try_run("debugfs", ["-R", &dump, &root])?;
        ensure!(at(name).is_file(), "the golden disk has no /boot/{name}");
    }
    fs::write(at("arguments"), format!("root=UUID={ROOT_UUID} {SYSTEM_ARGUMENTS}"))?;
    let mut objcopy = tool("objcopy");
    // Addresses that systemd's stub leaves free (systemd-stub(7)).
    let sections = [
        (".cmdline", "arguments", 0x3_0000),
        (".linux", "vmlinuz", 0x200_0000),
        (".initrd", "initrd.img", 0x300_0000),
    ];
    for (section, file, address) in sections {
        objcopy.arg(format!("--add-section={section}={}", at(file).display()));
        objcopy.arg(format!("--change-section-vma={section}={address:#x}"));
    }
    try_command(objcopy.arg(STUB).arg(at("plain.efi")))?;
    let mut sign = tool("sbsign");
    sign.arg("--key").arg(key).arg("--cert").arg(certificate).arg("--output").arg(at("signed.efi"));
    try_command(sign.arg(at("plain.efi")))?;
    put_into_esp(
        &PathBuf::from(format!("{}@@{}", disk.display(), ESP * MIB)),
        "BOOT/BOOTX64.EFI",
        &at("signed.efi"),
    )
}

pub(crate) fn partition(disk: &Path) -> Result<()> {
    let sector = |mib: u64| mib * MIB / SECTOR;
    let place = |n: u32, from: u64, to: u64| format!("{n}:{}:{}", sector(from), sector(to) - 1);
    let disk = disk.to_string_lossy().into_owned();
    let args = [
        "-n",
        &place(1, BIOS_BOOT, ESP),
        "-t",
        "1:ef02",
        "-c",
        "1:bios-boot",
        "-n",
        &place(2, ESP, ROOT),
        "-t",
        "2:ef00",
        "-c",
        "2:esp",
        "-n",
        &place(3, ROOT, END),
        "-t",
        "3:8304",
        "-c",
        "3:root",
        &disk,
    ];
    try_run("sgdisk", args).map(drop)
}

/// GRUB's first configuration, inside its image: find the root and continue there.
pub(crate) fn early_config(work: &Path) -> Result<PathBuf> {
    let path = work.join("early.cfg");
    let text = "search --no-floppy --file --set=root /boot/grub/grub.cfg\nset prefix=($root)/boot/grub\n\
                configfile ($root)/boot/grub/grub.cfg\n";
    fs::write(&path, text)?;
    Ok(path)
}

pub(crate) const GRUB_MODULES: [&str; 14] = [
    "part_gpt",
    "ext2",
    "fat",
    "normal",
    "linux",
    "search",
    "search_fs_file",
    "configfile",
    "echo",
    "test",
    "serial",
    "terminal",
    "sleep",
    "boot",
];

fn make_esp(work: &Path) -> Result<PathBuf> {
    let loader = efi_grub(work, &early_config(work)?)?;
    esp_with(work, &[("BOOT/BOOTX64.EFI", &loader)])
}

/// GRUB for UEFI with this configuration inside.
pub(crate) fn efi_grub(work: &Path, config: &Path) -> Result<PathBuf> {
    let loader = work.join("bootx64.efi");
    let mut args =
        vec!["-O", "x86_64-efi", "-p", "/EFI/BOOT", "-o"].into_iter().map(PathBuf::from).collect::<Vec<_>>();
    args.extend([loader.clone(), "-c".into(), config.to_owned()]);
    args.extend(GRUB_MODULES.iter().map(PathBuf::from));
    try_run("grub-mkimage", args)?;
    Ok(loader)
}

/// An EFI system partition with these files below `/EFI`.
pub(crate) fn esp_with(work: &Path, files: &[(&str, &Path)]) -> Result<PathBuf> {
    let esp = work.join("esp.img");
    File::create(&esp)?.set_len((ROOT - ESP) * MIB)?;
    try_run("mkfs.vfat", ["-F", "32", "-n", "ESP", "-i", "f1a5b0b2", &esp.to_string_lossy()])?;
    mtools("mmd", &esp, &["::/EFI"])?;
    for (path, from) in files {
        put_into_esp(&esp, path, from)?;
    }
    Ok(esp)
}

/// Puts a file below `/EFI` of the EFI system partition `esp` (a file, with `@@` and the offset where it is
/// part of a disk).
pub(crate) fn put_into_esp(esp: &Path, path: &str, from: &Path) -> Result<()> {
    let folders: Vec<&str> = path.split('/').collect();
    for depth in 1..folders.len() {
        // -D s: a folder that is there already is skipped.
        let folder = format!("::/EFI/{}", folders[..depth].join("/"));
        let _ = mtools("mmd", esp, &["-D", "s", &folder]);
    }
    mtools("mcopy", esp, &["-D", "o", "-o", &from.to_string_lossy(), &format!("::/EFI/{path}")])
}

fn mtools(program: &str, esp: &Path, args: &[&str]) -> Result<()> {
    try_command(tool(program).arg("-i").arg(esp).args(args)).map(drop)
}

fn make_root(work: &Path, kernel: &Kernel, mark: &str, start: FirstStart) -> Result<PathBuf> {
    let tree = work.join("root");
    for folder in ["bin", "sbin", "boot/grub", "dev", "proc", "sys", "run", "tmp", "etc", "usr/share/golden"]
    {
        fs::create_dir_all(tree.join(folder))?;
    }
    install_busybox(&tree)?;
    fs::write(tree.join("etc/golden"), format!("{mark}\n"))?;
    fs::write(tree.join("etc/hostname"), "golden\n")?;
    fs::write(tree.join("etc/os-release"), "PRETTY_NAME=\"Golden\"\n")?;
    let (first, drivers) = match start {
        FirstStart::Greeting => ("", vec![]),
        FirstStart::Helper => (install_helper(&tree)?, CALL_DRIVERS.to_vec()),
    };
    let drivers: Vec<&str> = INITRD_DRIVERS.into_iter().chain(drivers).collect();
    write_script(
        &tree.join("sbin/init"),
        &format!(
            "#!/bin/sh\n/bin/busybox mount -t proc proc /proc\n/bin/busybox mount -t devtmpfs dev /dev\n\
             {first}while :; do echo \"GOLDEN {mark} is up\" >/dev/console; /bin/busybox sleep 2; done\n"
        ),
    )?;
    fs::copy(&kernel.vmlinuz, tree.join("boot/vmlinuz"))?;
    make_initrd(work, kernel, &drivers, &tree.join("boot/initrd.img"))?;
    let config = format!(
        "set timeout=0\nset default=0\nserial --unit=0 --speed=115200\nterminal_output serial console\n\
         menuentry 'Golden {mark}' {{\n    linux /boot/vmlinuz root=UUID={ROOT_UUID} {SYSTEM_ARGUMENTS}\n    \
         initrd /boot/initrd.img\n}}\n"
    );
    fs::write(tree.join("boot/grub/grub.cfg"), config)?;
    fill(&tree.join("usr/share/golden/fill.bin"), mark)?;
    let image = work.join("root.img");
    File::create(&image)?.set_len((END - ROOT) * MIB)?;
    let args = ["-q", "-F", "-t", "ext4", "-L", "golden", "-U", ROOT_UUID, "-d"].map(PathBuf::from);
    try_run("mke2fs", args.into_iter().chain([tree, image.clone()]))?;
    Ok(image)
}

/// Content that neither compresses nor repeats, so that the payload is not only a kernel: 24 MiB of a
/// sequence that depends on the mark, so that the systems' disks differ.
fn fill(path: &Path, mark: &str) -> Result<()> {
    let seed = mark.bytes().fold(0u64, |sum, byte| sum.wrapping_mul(257).wrapping_add(u64::from(byte)));
    let mut state = 0x9e37_79b9_7f4a_7c15 ^ seed;
    let mut bytes = Vec::with_capacity(24 << 20);
    while bytes.len() < 24 << 20 {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    fs::write(path, bytes).with_context(|| format!("writing {}", path.display()))
}

/// Installs the helper as its package does, and returns the commands that bring up the network and run it.
/// The root is writable only meanwhile, so that it is clean when a test cuts the power.
fn install_helper(tree: &Path) -> Result<&'static str> {
    for folder in ["usr/lib/flashmob", "usr/share/udhcpc", "boot/efi", "var/lib/flashmob"] {
        fs::create_dir_all(tree.join(folder))?;
    }
    for applet in try_run("/bin/busybox", ["--list"])?.lines().filter(|name| *name != "busybox") {
        let link = tree.join("bin").join(applet);
        if !link.is_symlink() {
            symlink("busybox", link)?;
        }
    }
    // busybox has no programs like these.
    for program in ["/usr/bin/findmnt", "/usr/bin/lsblk"] {
        install_program(tree, Path::new(program))?;
    }
    write_script(&tree.join("usr/lib/flashmob/first-start"), HELPER)?;
    write_script(&tree.join("bin/curl"), CURL)?;
    write_script(
        &tree.join("usr/share/udhcpc/call.script"),
        "#!/bin/sh\n[ \"$1\" != bound ] || ip addr add $ip/$mask dev $interface\n",
    )?;
    Ok("PATH=/bin; export PATH FLASHMOB_PAUSE=2\nmount -t sysfs sys /sys\nmount -o remount,rw /\n\
        ip link set eth0 up\nudhcpc -q -n -t 10 -i eth0 -s /usr/share/udhcpc/call.script\n\
        mount -t vfat -o ro $(findfs LABEL=ESP) /boot/efi\n\
        /usr/lib/flashmob/first-start early >/dev/console 2>&1\n\
        /usr/lib/flashmob/first-start late >/dev/console 2>&1\n\
        umount /boot/efi\nmount -o remount,ro /\n")
}

/// Copies a program of this machine into `/bin`, and its libraries to their places.
fn install_program(tree: &Path, program: &Path) -> Result<()> {
    let name = program.file_name().context("a program has a name")?;
    fs::copy(program, tree.join("bin").join(name))
        .with_context(|| format!("copying {}", program.display()))?;
    let libraries = try_run("ldd", [program])?;
    for library in libraries.split_whitespace().filter_map(|word| word.strip_prefix('/')) {
        let (from, to) = (Path::new("/").join(library), tree.join(library));
        fs::create_dir_all(to.parent().context("a library has a folder")?)?;
        fs::copy(&from, &to).with_context(|| format!("copying {}", from.display()))?;
    }
    Ok(())
}

fn install_busybox(tree: &Path) -> Result<()> {
    let busybox = Path::new("/bin/busybox");
    ensure!(busybox.is_file(), "/bin/busybox is missing: install Debian's package busybox-static");
    fs::copy(busybox, tree.join("bin/busybox"))?;
    for applet in ["sh", "mount", "sleep", "modprobe", "findfs", "switch_root"] {
        symlink("busybox", tree.join("bin").join(applet))?;
    }
    Ok(())
}

fn write_script(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))?;
    Ok(())
}

/// A small initrd that loads the drivers, waits for the root by its UUID and continues there.
fn make_initrd(work: &Path, kernel: &Kernel, drivers: &[&str], into: &Path) -> Result<()> {
    let tree = work.join("initrd");
    for folder in ["bin", "dev", "proc", "sys", "root"] {
        fs::create_dir_all(tree.join(folder))?;
    }
    install_busybox(&tree)?;
    for module in modules_in_order(kernel, drivers)? {
        let inside = tree.join(module.strip_prefix(&kernel.root).unwrap_or(&module));
        fs::create_dir_all(inside.parent().context("a module lies in a folder")?)?;
        fs::copy(&module, inside)?;
    }
    try_run("depmod", ["-b", &tree.to_string_lossy(), &kernel.version])?;
    let drivers = drivers.join(" ");
    write_script(
        &tree.join("init"),
        &format!(
            "#!/bin/sh\nmount -t proc proc /proc\nmount -t sysfs sys /sys\nmount -t devtmpfs dev /dev\n\
             for d in crc32c_generic {drivers}; do modprobe $d; done\n\
             until root=$(findfs UUID={ROOT_UUID}); do sleep 1; done\n\
             mount -t ext4 -o ro $root /root && exec switch_root /root /sbin/init\n\
             echo 'the root does not mount' >/dev/console; sleep 5\n"
        ),
    )?;
    let pack = "cd \"$1\" && find . | LC_ALL=C sort | cpio --quiet -o -H newc | gzip -1 > \"$2\"";
    try_run("sh", ["-c", pack, "sh", &tree.to_string_lossy(), &into.to_string_lossy()]).map(drop)
}

/// Paths of the initrd's modules, as kmod orders them, soft dependencies included.
fn modules_in_order(kernel: &Kernel, drivers: &[&str]) -> Result<Vec<PathBuf>> {
    let root = kernel.root.to_string_lossy();
    if !kernel.root.join(format!("lib/modules/{}/modules.dep", kernel.version)).exists() {
        try_run("depmod", ["-b", &root, &kernel.version])?;
    }
    let mut paths = Vec::new();
    for driver in ["crc32c_generic"].iter().chain(drivers) {
        let listed = try_run("modprobe", ["-d", &root, "-S", &kernel.version, "--show-depends", driver])?;
        for line in listed.lines().filter_map(|line| line.strip_prefix("insmod ")) {
            let path = PathBuf::from(line.trim());
            if !paths.contains(&path) {
                paths.push(path);
            }
        }
    }
    Ok(paths)
}

/// GRUB for BIOS: boot code in the first sector, core image in the BIOS boot partition.
pub(crate) fn install_bios_grub(work: &Path, disk: &File, config: &Path) -> Result<()> {
    let core_path = work.join("core.img");
    let mut args =
        vec!["-O", "i386-pc", "-p", "/boot/grub", "-o"].into_iter().map(PathBuf::from).collect::<Vec<_>>();
    args.extend([core_path.clone(), "-c".into(), config.to_owned(), "biosdisk".into()]);
    args.extend(GRUB_MODULES.iter().map(PathBuf::from));
    try_run("grub-mkimage", args)?;
    let core_sector = BIOS_BOOT * MIB / SECTOR;
    let mut boot =
        fs::read("/usr/lib/grub/i386-pc/boot.img").context("boot.img is in Debian's package grub-pc-bin")?;
    boot[0x5c..0x64].copy_from_slice(&core_sector.to_le_bytes());
    disk.write_all_at(&boot[..440], 0)?;
    let mut core = fs::read(&core_path)?;
    ensure!(core.len() as u64 <= (ESP - BIOS_BOOT) * MIB, "GRUB's core image does not fit its partition");
    core[500..508].copy_from_slice(&(core_sector + 1).to_le_bytes());
    disk.write_all_at(&core, BIOS_BOOT * MIB)?;
    Ok(())
}

/// Copies a file into `disk` at `offset`, leaving out blocks of zeros.
pub(crate) fn copy_sparse(from: &Path, disk: &File, offset: u64) -> Result<()> {
    let source = File::open(from)?;
    let size = source.metadata()?.len();
    let mut buffer = vec![0u8; 64 << 10];
    let mut at = 0;
    while at < size {
        let len = usize::try_from((size - at).min(buffer.len() as u64))?;
        source.read_exact_at(&mut buffer[..len], at)?;
        if buffer[..len].iter().any(|byte| *byte != 0) {
            disk.write_all_at(&buffer[..len], offset + at)?;
        }
        at += len as u64;
    }
    Ok(())
}
