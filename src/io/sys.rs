//! Calls to the kernel that no library wraps: the only file with `unsafe`.
//!
//! Invariant: each function does one call, passes only memory that it owns or borrows, and returns the
//! kernel's result.

#![expect(
    unsafe_code,
    reason = "ioctl, sync_file_range, kexec_file_load, adjtimex, getnameinfo, fgetxattr, packet sockets' \
              groups and work between fork and exec have no safe wrapper in nix"
)]

use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

mod request {
    nix::ioctl_none_bad!(blkrrpart, nix::request_code_none!(0x12, 95));
    nix::ioctl_read_bad!(blksszget, nix::request_code_none!(0x12, 104), libc::c_int);
    nix::ioctl_write_ptr_bad!(blkdiscard, nix::request_code_none!(0x12, 119), [u64; 2]);
    nix::ioctl_write_ptr_bad!(blkzeroout, nix::request_code_none!(0x12, 127), [u64; 2]);
    nix::ioctl_write_ptr!(ficlonerange, 0x94, 13, [u64; 4]);
    nix::ioctl_read!(get_flags, b'f', 1, libc::c_long);
    nix::ioctl_write_ptr!(set_flags, b'f', 2, libc::c_long);
    nix::ioctl_write_ptr!(ext4_resize, b'f', 16, u64);
    nix::ioctl_read!(xfs_geometry, b'X', 100, [u64; 14]);
    nix::ioctl_write_ptr!(xfs_grow, b'X', 110, [u64; 2]);
    nix::ioctl_write_ptr!(btrfs_resize, 0x94, 3, [u8; 4096]);
    nix::ioctl_readwrite!(nvme_admin_cmd, b'N', 0x41, super::NvmeCommand);
    nix::ioctl_readwrite_bad!(sg_io, 0x2285, super::ScsiCommand);
}

/// `BLKSSZGET`: bytes of a logical sector of a block device.
pub(crate) fn logical_sector_size(device: &File) -> io::Result<u32> {
    let mut size: libc::c_int = 0;
    // SAFETY: the kernel writes one int to `size`, which outlives the call.
    unsafe { request::blksszget(device.as_raw_fd(), &raw mut size) }?;
    u32::try_from(size).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))
}

/// `BLKRRPART`: has the kernel read the partition table of a disk again.
pub(crate) fn reread_partitions(device: &File) -> io::Result<()> {
    // SAFETY: the request takes no argument.
    unsafe { request::blkrrpart(device.as_raw_fd()) }?;
    Ok(())
}

/// `BLKZEROOUT`: the device makes `length` bytes at `offset` zero, by itself where it can.
pub(crate) fn zero_out(device: &File, offset: u64, length: u64) -> io::Result<()> {
    let range = [offset, length];
    // SAFETY: the kernel reads two u64 from `range`, which outlives the call.
    unsafe { request::blkzeroout(device.as_raw_fd(), &raw const range) }?;
    Ok(())
}

/// `FS_IOC_GETFLAGS`, `FS_IOC_SETFLAGS` (ioctl_iflags(2)): lets a file be changed that may not be. A
/// filesystem without such flags has no such files.
pub(crate) fn clear_immutable(file: &File) -> io::Result<()> {
    const IMMUTABLE: libc::c_long = 0x10;
    let mut flags: libc::c_long = 0;
    // SAFETY: the kernel writes at most one long to `flags`, which outlives the call.
    match unsafe { request::get_flags(file.as_raw_fd(), &raw mut flags) } {
        Err(nix::errno::Errno::ENOTTY | nix::errno::Errno::EOPNOTSUPP) => return Ok(()),
        got => got?,
    };
    if flags & IMMUTABLE != 0 {
        flags &= !IMMUTABLE;
        // SAFETY: the kernel reads at most one long, which outlives the call.
        unsafe { request::set_flags(file.as_raw_fd(), &raw const flags) }?;
    }
    Ok(())
}

/// `EXT4_IOC_RESIZE_FS`: lets the mounted ext4 that holds `folder` grow to `blocks` of its blocks.
pub(crate) fn ext4_resize(folder: &File, blocks: u64) -> io::Result<()> {
    // SAFETY: the kernel reads one u64, which outlives the call.
    unsafe { request::ext4_resize(folder.as_raw_fd(), &raw const blocks) }?;
    Ok(())
}

/// `XFS_IOC_FSGROWFSDATA` (ioctl_xfs_fsgrowfs(2)): lets the mounted XFS that holds `folder` grow to `bytes`,
/// in whole blocks. Its share of inodes stays.
pub(crate) fn xfs_grow(folder: &File, bytes: u64) -> io::Result<()> {
    // struct xfs_fsop_geom_v1: the block size is the first u32, the most inodes in percent the eighth.
    let mut geometry = [0u64; 14];
    // SAFETY: the kernel writes 112 bytes, which `geometry` has, and which outlive the call.
    unsafe { request::xfs_geometry(folder.as_raw_fd(), &raw mut geometry) }?;
    let half = |index: usize| geometry[index].to_ne_bytes();
    let [a, b, c, d, ..] = half(0);
    let block = u64::from(u32::from_ne_bytes([a, b, c, d]));
    let [.., a, b, c, d] = half(3);
    let inodes = u32::from_ne_bytes([a, b, c, d]);
    let blocks = bytes.checked_div(block).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))?;
    // struct xfs_growfs_data: blocks, then percent of inodes as a u32 and four bytes of padding.
    let [a, b, c, d] = inodes.to_ne_bytes();
    let wish = [blocks, u64::from_ne_bytes([a, b, c, d, 0, 0, 0, 0])];
    // SAFETY: the kernel reads 16 bytes, which `wish` has, and which outlive the call.
    unsafe { request::xfs_grow(folder.as_raw_fd(), &raw const wish) }?;
    Ok(())
}

/// `BTRFS_IOC_RESIZE`: lets the only device of the mounted Btrfs that holds `folder` grow to its end.
pub(crate) fn btrfs_grow(folder: &File) -> io::Result<()> {
    // struct btrfs_ioctl_vol_args: a descriptor that this request does not use, then the text.
    let mut wish = [0u8; 4096];
    wish[8..11].copy_from_slice(b"max");
    // SAFETY: the kernel reads 4096 bytes, which `wish` has, and which outlive the call.
    unsafe { request::btrfs_resize(folder.as_raw_fd(), &raw const wish) }?;
    Ok(())
}

/// `FICLONERANGE` (ioctl_ficlonerange(2)): makes `length` bytes at `offset` of `from` appear at `at` of
/// `into`, shared until one copy is written to. Fails if the filesystem has no reflinks.
pub fn clone_range(from: &File, offset: u64, length: u64, into: &File, at: u64) -> io::Result<()> {
    // The descriptor as a signed number of 64 bits, then offset, length and target offset.
    let descriptor = u64::from(from.as_raw_fd().unsigned_abs());
    let range = [descriptor, offset, length, at];
    // SAFETY: both descriptors are open for the length of the call, and the kernel reads four u64 from
    // `range`, which outlives it.
    unsafe { request::ficlonerange(into.as_raw_fd(), &raw const range) }?;
    Ok(())
}

/// `sync_file_range(2)`: makes the kernel begin to write `length` bytes at `offset` of `file` to the medium,
/// without waiting. Only a later sync guarantees that they are there.
pub fn begin_writing(file: &File, offset: u64, length: u64) -> io::Result<()> {
    let signed = |value: u64| i64::try_from(value).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput));
    let (offset, length) = (signed(offset)?, signed(length)?);
    // SAFETY: the descriptor is open for the length of the call, and nothing else is passed but numbers.
    let result =
        unsafe { libc::sync_file_range(file.as_raw_fd(), offset, length, libc::SYNC_FILE_RANGE_WRITE) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// `BLKDISCARD`: the device may forget `length` bytes at `offset`; their later content is undefined.
pub fn discard(device: &File, offset: u64, length: u64) -> io::Result<()> {
    let range = [offset, length];
    // SAFETY: the kernel reads two u64 from `range`, which outlives the call.
    unsafe { request::blkdiscard(device.as_raw_fd(), &raw const range) }?;
    Ok(())
}

/// `struct nvme_admin_cmd` of `linux/nvme_ioctl.h`.
#[repr(C)]
#[derive(Debug, Default)]
struct NvmeCommand {
    opcode: u8,
    flags: u8,
    reserved: u16,
    namespace: u32,
    words_2_and_3: [u32; 2],
    metadata: u64,
    address: u64,
    metadata_length: u32,
    length: u32,
    words_10_to_15: [u32; 6],
    timeout: u32,
    result: u32,
}

/// `NVME_IOCTL_ADMIN_CMD`: reads the controller's SMART / Health Information log page. The command moves data
/// to the host only.
pub(crate) fn nvme_health_log(device: &File, into: &mut [u8; 512]) -> io::Result<()> {
    /// Get Log Page, the log page, and "of the whole controller".
    const OPCODE: u8 = 0x02;
    const HEALTH: u32 = 0x02;
    const ALL: u32 = u32::MAX;
    const TIMEOUT_MS: u32 = 5000;
    const _: () = assert!(size_of::<NvmeCommand>() == 72);
    let mut command = NvmeCommand {
        opcode: OPCODE,
        namespace: ALL,
        address: into.as_mut_ptr().expose_provenance() as u64,
        length: 512,
        timeout: TIMEOUT_MS,
        ..NvmeCommand::default()
    };
    // Number of 32-bit words, less one, above the page's number.
    command.words_10_to_15[0] = (512 / 4 - 1) << 16 | HEALTH;
    // SAFETY: the descriptor is open during the call. The kernel reads and writes one NvmeCommand, and writes
    // `length` bytes to `into`, which is borrowed for the call.
    let status = unsafe { request::nvme_admin_cmd(device.as_raw_fd(), &raw mut command) }?;
    if status == 0 { Ok(()) } else { Err(io::Error::other(format!("NVMe status {status:#x}"))) }
}

/// `struct sg_io_hdr` of `scsi/sg.h`.
#[repr(C)]
struct ScsiCommand {
    interface: libc::c_int,
    direction: libc::c_int,
    command_length: u8,
    sense_length: u8,
    parts: u16,
    data_length: u32,
    data: *mut u8,
    command: *const u8,
    sense: *mut u8,
    timeout: u32,
    flags: u32,
    id: libc::c_int,
    user: *mut u8,
    status: u8,
    masked_status: u8,
    message_status: u8,
    sense_written: u8,
    host_status: u16,
    driver_status: u16,
    left: libc::c_int,
    duration: u32,
    info: u32,
}

/// Bytes of sense data that are taken.
pub(crate) const SENSE: usize = 32;

/// `SG_IO`: has an ATA disk do SMART RETURN STATUS (ACS-4 §7.47.8), which moves no data. Returns the sense
/// data with the disk's registers.
pub(crate) fn ata_smart_status(device: &File) -> io::Result<[u8; SENSE]> {
    /// ATA PASS-THROUGH (16) (SAT-4 §12.2.3), "non-data", "give me the registers".
    const COMMAND: [u8; 16] = [0x85, 3 << 1, 0x20, 0, 0xda, 0, 0, 0, 0, 0, 0x4f, 0, 0xc2, 0, 0xb0, 0];
    const NO_DATA: libc::c_int = -1;
    const TIMEOUT_MS: u32 = 5000;
    let mut sense = [0; SENSE];
    let mut request = ScsiCommand {
        interface: libc::c_int::from(b'S'),
        direction: NO_DATA,
        command_length: 16,
        sense_length: 32,
        parts: 0,
        data_length: 0,
        data: std::ptr::null_mut(),
        command: COMMAND.as_ptr(),
        sense: sense.as_mut_ptr(),
        timeout: TIMEOUT_MS,
        flags: 0,
        id: 0,
        user: std::ptr::null_mut(),
        status: 0,
        masked_status: 0,
        message_status: 0,
        sense_written: 0,
        host_status: 0,
        driver_status: 0,
        left: 0,
        duration: 0,
        info: 0,
    };
    // SAFETY: the descriptor is open during the call. The kernel reads and writes one ScsiCommand, reads 16
    // bytes of COMMAND, and writes `sense_length` bytes to `sense`; both outlive the call.
    unsafe { request::sg_io(device.as_raw_fd(), &raw mut request) }?;
    Ok(sense)
}

/// `kexec_file_load(2)`: loads a kernel that `reboot(LINUX_REBOOT_CMD_KEXEC)` will start.
pub(crate) fn kexec_file_load(
    kernel: BorrowedFd<'_>,
    initrd: Option<BorrowedFd<'_>>,
    cmdline: &CStr,
) -> io::Result<()> {
    /// From `linux/kexec.h`.
    const KEXEC_FILE_NO_INITRAMFS: libc::c_ulong = 4;
    let flags = if initrd.is_some() { 0 } else { KEXEC_FILE_NO_INITRAMFS };
    let initrd = initrd.map_or(-1, |fd| fd.as_raw_fd());
    let bytes = cmdline.to_bytes_with_nul();
    // SAFETY: the descriptors are open for the length of the call, and the kernel reads `bytes.len()` bytes
    // from `bytes`, the last of which is 0, as it asks.
    let result = unsafe {
        libc::syscall(
            libc::SYS_kexec_file_load,
            kernel.as_raw_fd(),
            initrd,
            bytes.len(),
            bytes.as_ptr(),
            flags,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// `getnameinfo(3)`: the name of an address, by the machine's own resolver; `None` if it has none. Waits for
/// the resolver, which may take many seconds.
#[cfg(feature = "server")]
pub(crate) fn name_of_address(address: std::net::IpAddr) -> Result<Option<String>, String> {
    use nix::sys::socket::{SockaddrLike, SockaddrStorage};
    /// `NI_MAXHOST`.
    const LONGEST: libc::socklen_t = 1025;
    let address = SockaddrStorage::from(std::net::SocketAddr::new(address, 0));
    let mut name = [0u8; LONGEST as usize];
    // SAFETY: the address outlives the call and has the length that is given; the library writes at most
    // LONGEST bytes to the array, and nothing for the service, whose length is 0.
    let result = unsafe {
        libc::getnameinfo(
            address.as_ptr(),
            address.len(),
            name.as_mut_ptr().cast(),
            LONGEST,
            std::ptr::null_mut(),
            0,
            libc::NI_NAMEREQD,
        )
    };
    match result {
        0 => Ok(CStr::from_bytes_until_nul(&name).ok().map(|name| name.to_string_lossy().into_owned())),
        // musl says the same when no server answers.
        libc::EAI_NONAME if cfg!(target_env = "musl") => Err("no name, or no answer".into()),
        libc::EAI_NONAME => Ok(None),
        code => {
            // SAFETY: the library returns a text of its own that ends with a zero and stays.
            let why = unsafe { CStr::from_ptr(libc::gai_strerror(code)) };
            Err(why.to_string_lossy().into_owned())
        }
    }
}

/// Where SELinux keeps the label of a file.
const LABEL: &CStr = c"security.selinux";

/// `fgetxattr(2)`: the SELinux label of a file; `None` if it has none, or its filesystem keeps none.
pub(crate) fn label_of(file: &impl AsFd) -> io::Result<Option<Vec<u8>>> {
    let mut label = vec![0u8; 4096];
    // SAFETY: the descriptor is open during the call, the name ends with a zero, and the kernel writes at
    // most as many bytes as the vector has.
    let length = unsafe {
        let fd = file.as_fd().as_raw_fd();
        libc::fgetxattr(fd, LABEL.as_ptr(), label.as_mut_ptr().cast(), label.len())
    };
    match usize::try_from(length) {
        Ok(length) => {
            label.truncate(length);
            Ok(Some(label))
        }
        Err(_) => match io::Error::last_os_error() {
            e if [Some(libc::ENODATA), Some(libc::EOPNOTSUPP)].contains(&e.raw_os_error()) => Ok(None),
            e => Err(e),
        },
    }
}

/// `fsetxattr(2)`: gives a file this SELinux label.
pub(crate) fn set_label(file: &impl AsFd, label: &[u8]) -> io::Result<()> {
    // SAFETY: the descriptor is open during the call, the name ends with a zero, and the kernel reads as many
    // bytes as the label has.
    let result = unsafe {
        let fd = file.as_fd().as_raw_fd();
        libc::fsetxattr(fd, LABEL.as_ptr(), label.as_ptr().cast(), label.len(), 0)
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// `adjtimex(2)`: does something, such as NTP, keep the clock in step?
pub(crate) fn clock_is_synchronised() -> io::Result<bool> {
    // SAFETY: all fields are numbers, for which zero is a value; zero modes change nothing.
    let mut clock: libc::timex = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel reads and writes one timex, which outlives the call.
    let result = unsafe { libc::adjtimex(&raw mut clock) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(clock.status & libc::STA_UNSYNC == 0) }
}

/// Columns and rows of the terminal behind `fd` (ioctl_tty(2)); an error if it is not a terminal.
pub(crate) fn window_size(fd: impl AsFd) -> io::Result<(u16, u16)> {
    let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the descriptor is open for the length of the call, and the kernel writes one winsize to where
    // the pointer points, which is one winsize of ours.
    let result = unsafe { libc::ioctl(fd.as_fd().as_raw_fd(), libc::TIOCGWINSZ, &raw mut size) };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok((size.ws_col, size.ws_row))
}

/// `PACKET_ADD_MEMBERSHIP` (packet(7)): `interface` takes Ethernet frames sent to `group`, as long as the
/// packet socket behind `fd` is open.
pub(crate) fn join_packet_group(fd: impl AsFd, interface: u32, group: [u8; 6]) -> io::Result<()> {
    /// `PACKET_MR_MULTICAST` and the request's length in the types that the kernel takes them in.
    const MULTICAST: libc::c_ushort = 0;
    const LENGTH: libc::socklen_t = 16;
    const _: () = assert!(size_of::<libc::packet_mreq>() == 16 && libc::PACKET_MR_MULTICAST == 0);
    let mut address = [0; 8];
    address[..6].copy_from_slice(&group);
    let index = i32::try_from(interface).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    let request =
        libc::packet_mreq { mr_ifindex: index, mr_type: MULTICAST, mr_alen: 6, mr_address: address };
    // SAFETY: the descriptor is open during the call, and the pointer leads to the one packet_mreq that the
    // kernel reads.
    let result = unsafe {
        libc::setsockopt(
            fd.as_fd().as_raw_fd(),
            libc::SOL_PACKET,
            libc::PACKET_ADD_MEMBERSHIP,
            (&raw const request).cast(),
            LENGTH,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// `PR_SET_PDEATHSIG` (prctl(2)): the kernel kills the process that `command` starts when the thread that
/// starts it ends, however it ends. A process that changes its user or group
/// loses this.
pub(crate) fn end_with_this_thread(command: &mut Command) {
    let parent = nix::unistd::getpid();
    let work = move || {
        nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL)?;
        // A parent that ended before the call above is not noticed by it.
        if nix::unistd::getppid() == parent { Ok(()) } else { Err(io::ErrorKind::NotConnected.into()) }
    };
    // SAFETY: between fork and exec `work` makes two system calls, and neither allocates nor locks.
    unsafe { command.pre_exec(work) };
}
