//! A virtual terminal: its hardware, QEMU's arguments and the running machine.
//!
//! Invariant: arguments come from pure functions; a running machine is ended by dropping it. Its disk file,
//! its UEFI variables and its serial log stay, so that the same terminal can be switched on again.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use flashmob_testkit::child::{Guarded, command, tail, wait_until};
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::accel::Accel;
use crate::net::Network;
use crate::qmp::Qmp;

const OVMF_CODE: &str = "/usr/share/OVMF/OVMF_CODE_4M.fd";
const OVMF_VARS: &str = "/usr/share/OVMF/OVMF_VARS_4M.fd";
/// With Microsoft's keys, and Secure Boot on.
const OVMF_CODE_SECURE: &str = "/usr/share/OVMF/OVMF_CODE_4M.ms.fd";
const OVMF_VARS_SECURE: &str = "/usr/share/OVMF/OVMF_VARS_4M.ms.fd";
/// With the key of [`OWN_KEY`].
const OVMF_VARS_OWN_KEY: &str = "/usr/share/OVMF/OVMF_VARS_4M.snakeoil.fd";
/// A private key (its password is `snakeoil`) and its certificate, which Debian's ovmf has for tests.
pub const OWN_KEY: [&str; 2] =
    ["/usr/share/ovmf/PkKek-1-snakeoil.key", "/usr/share/ovmf/PkKek-1-snakeoil.pem"];
/// The initramfs with its drivers, the agent and its buffers fit; with 192 MB they are unpacked partly.
const MEMORY_MIB: u32 = 512;
/// shim, signed GRUB and their buffers need more.
const MEMORY_SECURE_MIB: u32 = 768;

/// The machine's firmware.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Firmware {
    /// SeaBIOS, with QEMU's iPXE in the card's ROM.
    Bios,
    /// OVMF, whose own PXE loads iPXE's snponly.efi.
    Uefi,
    /// OVMF that loads its first program by HTTP.
    UefiHttp,
    /// OVMF with Secure Boot on: it loads what Microsoft signed.
    UefiSecure,
    /// Secure Boot with the key of an organisation, and none of Microsoft's.
    UefiOwnKey,
    /// Secure Boot that has no keys yet and takes those of the first who writes some.
    UefiSetupMode,
}

impl Firmware {
    /// Code and empty variables, for UEFI.
    fn flash(self) -> Option<(&'static str, &'static str)> {
        match self {
            Firmware::Bios => None,
            Firmware::Uefi | Firmware::UefiHttp => Some((OVMF_CODE, OVMF_VARS)),
            Firmware::UefiSecure => Some((OVMF_CODE_SECURE, OVMF_VARS_SECURE)),
            Firmware::UefiOwnKey => Some((OVMF_CODE_SECURE, OVMF_VARS_OWN_KEY)),
            Firmware::UefiSetupMode => Some((OVMF_CODE_SECURE, OVMF_VARS)),
        }
    }
}

/// Where the disk hangs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bus {
    Virtio,
    Ahci,
    Nvme,
}

/// The firmware's boot order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Start {
    /// The network first, then the disk: how a lab's terminals are set up.
    Network,
    Disk,
    /// A CD with this image, then the disk. The network card is there, but not booted from.
    Cd(PathBuf),
}

/// A terminal that can be switched on.
#[derive(Debug, Clone)]
pub struct Terminal {
    /// Its name, in file names and messages.
    pub name: String,
    pub firmware: Firmware,
    /// Where its disk hangs.
    pub bus: Bus,
    /// MAC address of its card.
    pub mac: String,
    /// The folder with its files.
    pub folder: PathBuf,
    /// A sector of its disk that takes no writes.
    pub bad_sector: Option<u64>,
    /// Other disks of the machine.
    pub others: Vec<Other>,
    /// What its link carries towards the lab, in Mbit/s, if that is limited.
    pub megabits: Option<u32>,
}

/// A disk beside the imaged one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Other {
    /// A virtio disk inside the machine, which the firmware tries before the one that is imaged.
    Internal(PathBuf),
    /// A USB stick, which the firmware tries last.
    Stick(PathBuf),
}

/// The MAC address of the terminal with this number.
pub fn mac_of(number: u8) -> String {
    format!("52:54:00:fb:00:{number:02x}")
}

impl Terminal {
    /// A terminal with an empty disk of `size` bytes. `number` makes its MAC address.
    pub fn new(folder: &Path, number: u8, firmware: Firmware, bus: Bus, size: u64) -> Result<Self> {
        let name = format!("{firmware:?}-{bus:?}-{number}").to_lowercase();
        let folder = folder.join(&name);
        fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
        let mac = mac_of(number);
        let terminal = Terminal {
            name,
            firmware,
            bus,
            mac,
            folder,
            bad_sector: None,
            others: Vec::new(),
            megabits: None,
        };
        File::create(terminal.disk())?.set_len(size)?;
        fs::write(terminal.serial_port(), 0x3f8u16.to_le_bytes())?;
        if let Some((_, variables)) = firmware.flash() {
            fs::copy(variables, terminal.variables()).context("UEFI variables are in Debian's ovmf")?;
        }
        Ok(terminal)
    }

    /// The file that is its disk.
    pub fn disk(&self) -> PathBuf {
        self.folder.join("disk.img")
    }

    /// Everything it ever said on its serial line.
    pub fn serial(&self) -> PathBuf {
        self.folder.join("serial.log")
    }

    fn variables(&self) -> PathBuf {
        self.folder.join("variables.fd")
    }

    /// A file that tells SeaBIOS the port on which to repeat its own and iPXE's screen output.
    fn serial_port(&self) -> PathBuf {
        self.folder.join("serial-port")
    }

    fn control(&self) -> PathBuf {
        self.folder.join("qmp")
    }

    /// Copies `image` onto the disk, whose size stays.
    pub fn fill_disk(&self, image: &Path) -> Result<()> {
        let size = fs::metadata(self.disk())?.len();
        fs::copy(image, self.disk()).with_context(|| format!("copying {}", image.display()))?;
        Ok(File::options().write(true).open(self.disk())?.set_len(size)?)
    }

    /// The first sector of its disk.
    pub fn first_sector(&self) -> Result<[u8; 512]> {
        let mut sector = [0; 512];
        File::open(self.disk())?.read_exact(&mut sector)?;
        Ok(sector)
    }

    /// SHA-256 of the whole disk.
    pub fn disk_hash(&self) -> Result<String> {
        let mut file = File::open(self.disk())?;
        let mut hash = Sha256::new();
        let mut buffer = vec![0u8; 1 << 20];
        loop {
            let n = file.read(&mut buffer)?;
            if n == 0 {
                break;
            }
            hash.update(&buffer[..n]);
        }
        Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
    }

    fn arguments(&self, start: &Start, tap: &str, accel: Accel) -> Vec<String> {
        let mut args: Vec<String> =
            ["-nodefaults", "-display", "none", "-vga", "std"].map(str::to_string).to_vec();
        args.extend(accel.arguments().map(str::to_string));
        args.extend(["-smp", "1", "-name", &self.name].map(str::to_string));
        // Only code in system management mode may write the variables that hold the keys.
        let (machine, memory): (&[&str], _) = match self.firmware {
            Firmware::UefiSecure | Firmware::UefiOwnKey | Firmware::UefiSetupMode => (
                &["-machine", "q35,smm=on", "-global", "driver=cfi.pflash01,property=secure,value=on"],
                MEMORY_SECURE_MIB,
            ),
            Firmware::Bios | Firmware::Uefi | Firmware::UefiHttp => (&["-machine", "q35"], MEMORY_MIB),
        };
        args.extend(machine.iter().map(ToString::to_string));
        args.extend(["-m".into(), memory.to_string()]);
        args.extend([
            "-chardev".into(),
            format!("file,id=serial,append=on,path={}", self.serial().display()),
        ]);
        args.extend(["-serial", "chardev:serial"].map(str::to_string));
        args.extend(["-qmp".into(), format!("unix:{},server=on,wait=off", self.control().display())]);
        if let Some((code, _)) = self.firmware.flash() {
            let flash = |file: &str, extra: &str| format!("if=pflash,format=raw,file={file}{extra}");
            args.extend(["-drive".into(), flash(code, ",readonly=on")]);
            args.extend(["-drive".into(), flash(&self.variables().to_string_lossy(), "")]);
        }
        if self.firmware == Firmware::Bios {
            args.extend([
                "-fw_cfg".into(),
                format!("name=etc/sercon-port,file={}", self.serial_port().display()),
            ]);
        }
        if self.firmware == Firmware::UefiHttp {
            for off in ["IPv4PXESupport", "IPv6Support"] {
                args.extend(["-fw_cfg".into(), format!("name=opt/org.tianocore/{off},string=no")]);
            }
        }
        args.extend(disk_arguments(self.bus, &self.disk(), &self.name, self.bad_sector));
        args.extend(other_arguments(&self.others));
        args.extend(card_arguments(self.firmware, start, tap, &self.mac));
        if let Start::Cd(iso) = start {
            args.extend([
                "-drive".into(),
                format!("if=none,id=cd,media=cdrom,readonly=on,file={}", iso.display()),
            ]);
            args.extend(["-device".into(), "ide-cd,drive=cd,bus=ide.1,bootindex=0".into()]);
        }
        args
    }

    pub fn switch_on(&self, network: &Network, start: &Start) -> Result<Machine> {
        let tap = match self.megabits {
            None => network.tap()?,
            Some(megabits) => network.slow_tap(megabits)?,
        };
        let args = self.arguments(start, &tap, Accel::probed());
        let from = fs::metadata(self.serial()).map_or(0, |m| m.len());
        // A socket of the time before would be taken for the new one.
        let _ = fs::remove_file(self.control());
        let log = self.folder.join("qemu.log");
        let mut qemu = command(Some(network.namespace()), "qemu-system-x86_64");
        let process = Guarded::logged(qemu.args(args), &log)?;
        Ok(Machine { terminal: self.clone(), process, from })
    }
}

/// The disk. Host caching ignores flushes: the file outlives a killed QEMU anyway, and waiting for the host's
/// disk would test the host.
fn disk_arguments(bus: Bus, file: &Path, serial: &str, bad_sector: Option<u64>) -> Vec<String> {
    let device = match bus {
        Bus::Virtio => "virtio-blk-pci,drive=disk,",
        Bus::Ahci => "ide-hd,drive=disk,bus=ide.0,",
        Bus::Nvme => "nvme,drive=disk,",
    };
    // virtio-blk's serial number has room for 20 bytes.
    let serial: String = serial.chars().take(20).collect();
    let source = match bad_sector {
        None => format!("format=raw,file={}", file.display()),
        Some(sector) => format!(
            "driver=raw,werror=report,file.driver=blkdebug,file.image.driver=file,file.image.filename={},\
             file.inject-error.0.event=none,file.inject-error.0.iotype=write,\
             file.inject-error.0.sector={sector},\
             file.inject-error.0.errno=5",
            file.display()
        ),
    };
    let drive = format!("if=none,id=disk,cache=unsafe,discard=unmap,{source}");
    vec!["-drive".into(), drive, "-device".into(), format!("{device}serial={serial},bootindex=3")]
}

/// The other disks.
fn other_arguments(others: &[Other]) -> Vec<String> {
    let mut args = Vec::new();
    for (n, other) in others.iter().enumerate() {
        let (file, device) = match other {
            Other::Internal(file) => (file, format!("virtio-blk-pci,drive=other{n},bootindex=2")),
            Other::Stick(file) => {
                args.extend(["-device".into(), format!("qemu-xhci,id=usb{n}")]);
                (file, format!("usb-storage,drive=other{n},bus=usb{n}.0,removable=on,bootindex=4"))
            }
        };
        let drive = format!("if=none,id=other{n},format=raw,cache=unsafe,file={}", file.display());
        args.extend(["-drive".into(), drive, "-device".into(), device]);
    }
    args
}

/// The card. Without a ROM the firmware cannot boot from it; UEFI has its own driver, so there the ROM is
/// always left out and the boot index decides.
fn card_arguments(firmware: Firmware, start: &Start, tap: &str, mac: &str) -> Vec<String> {
    let mut card = format!("virtio-net-pci,netdev=lab,mac={mac}");
    if *start == Start::Network {
        card += ",bootindex=1";
    }
    if firmware != Firmware::Bios || *start != Start::Network {
        card += ",romfile=";
    }
    let tap = format!("tap,id=lab,ifname={tap},script=no,downscript=no");
    vec!["-netdev".into(), tap, "-device".into(), card]
}

/// A terminal that is switched on.
#[derive(Debug)]
pub struct Machine {
    pub terminal: Terminal,
    process: Guarded,
    /// Where this run's part of the serial log begins.
    from: u64,
}

impl Machine {
    /// The serial line's output since the machine was switched on.
    pub fn said(&self) -> String {
        let bytes = fs::read(self.terminal.serial()).unwrap_or_default();
        let from = usize::try_from(self.from).unwrap_or(usize::MAX).min(bytes.len());
        String::from_utf8_lossy(&bytes[from..]).into_owned()
    }

    /// Waits until it says `text` on the serial line.
    pub fn wait_for(&mut self, text: &str, deadline: Duration) -> Result<()> {
        self.wait_for_any(&[text], deadline).map(drop)
    }

    /// Waits until it says one of `texts`; the answer is which.
    pub fn wait_for_any(&mut self, texts: &[&str], deadline: Duration) -> Result<usize> {
        let mut found = None;
        let waited = wait_until(&format!("{} says {texts:?}", self.terminal.name), deadline, || {
            let said = self.said();
            found = texts.iter().position(|text| said.contains(text));
            if found.is_none() {
                self.process.check()?;
            }
            Ok(found.is_some())
        });
        match (waited, found) {
            (Ok(()), Some(which)) => Ok(which),
            (Err(error), _) => bail!("{error:#}{}", tail(&self.terminal.serial())),
            (Ok(()), None) => bail!("waiting ended without a reason"),
        }
    }

    /// Waits until it switches itself off.
    pub fn wait_for_power_off(&mut self, deadline: Duration) -> Result<()> {
        let name = self.terminal.name.clone();
        wait_until(&format!("{name} switches itself off"), deadline, || Ok(!self.process.is_running()))
            .map_err(|error| anyhow::anyhow!("{error:#}{}", tail(&self.terminal.serial())))
    }

    pub fn cut_power(mut self) -> Terminal {
        self.process.kill();
        self.terminal.clone()
    }

    /// Takes a picture of its screen (PNG).
    pub fn screenshot(&self, file: &Path) -> Result<()> {
        let mut qmp = Qmp::connect(&self.terminal.control())?;
        qmp.command("screendump", json!({ "filename": file, "format": "png" })).map(drop)
    }

    /// Presses the reset button.
    pub fn reset(&self) -> Result<()> {
        Qmp::connect(&self.terminal.control())?.command("system_reset", json!({})).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn terminal(firmware: Firmware, bus: Bus) -> Terminal {
        let folder = PathBuf::from("/lab/t");
        Terminal {
            name: "t".into(),
            firmware,
            bus,
            mac: "52:54:00:fb:00:01".into(),
            folder,
            bad_sector: None,
            others: Vec::new(),
            megabits: None,
        }
    }

    #[test]
    fn a_terminal_boots_from_the_network_first_unless_told_otherwise() {
        let args =
            terminal(Firmware::Bios, Bus::Virtio).arguments(&Start::Network, "tap0", Accel::Tcg).join(" ");
        assert!(args.contains("mac=52:54:00:fb:00:01,bootindex=1") && args.contains("bootindex=3"), "{args}");
        assert!(!args.contains("romfile"), "{args}");
        let args =
            terminal(Firmware::Bios, Bus::Virtio).arguments(&Start::Disk, "tap0", Accel::Tcg).join(" ");
        assert!(!args.contains("bootindex=1") && args.contains("romfile="), "{args}");
    }

    #[test]
    fn each_bus_and_firmware_has_its_devices() {
        let args = |f, b| terminal(f, b).arguments(&Start::Network, "tap0", Accel::Tcg).join(" ");
        assert!(args(Firmware::Uefi, Bus::Nvme).contains("pflash"));
        assert!(args(Firmware::Uefi, Bus::Nvme).contains("nvme,drive=disk"));
        assert!(args(Firmware::Bios, Bus::Ahci).contains("ide-hd,drive=disk,bus=ide.0"));
        assert!(!args(Firmware::Bios, Bus::Ahci).contains("pflash"));
        let secure = args(Firmware::UefiSecure, Bus::Nvme);
        assert!(secure.contains("OVMF_CODE_4M.ms.fd") && secure.contains("q35,smm=on"), "{secure}");
    }

    #[test]
    fn a_cd_comes_before_everything_else() {
        let start = Start::Cd("/x.iso".into());
        let args = terminal(Firmware::Uefi, Bus::Virtio).arguments(&start, "tap0", Accel::Tcg).join(" ");
        assert!(
            args.contains("ide-cd,drive=cd,bus=ide.1,bootindex=0") && args.contains("file=/x.iso"),
            "{args}"
        );
    }
}
