//! The only place with syscalls, sockets, the clock and randomness.
//!
//! | room | subject |
//! |---|---|
//! | `torrent` | the BitTorrent session: sockets and disk threads around the swarm engine |
//! | `disk` | the terminal's disks: claim, plan into place, write, read back, commit |
//! | `image` | an image in its folder, and its payload in all its forms |
//! | `net` | network clients: tracker, server's API, DHCP, LLDP, discovery, links |
//! | `host` | the machine around it: PID 1's duties, drivers, console, inventory, limits |
//! | `storage` | the bytes of a payload: files, folders, block devices |
//! | `sysfs` | block devices and mounts as the kernel shows them |
//! | `hash`, `sys` | SHA-1 and SHA-256 of pieces; the few system calls that need `unsafe` |
//!
//! Rooms import the ground (`storage`, `hash`, `sys`, `sysfs`) and rooms below them; `tests/architecture`
//! holds the order.
//!
//! Invariant: every result of the kernel is checked, and short is an error. The pure stages decide, and this
//! part carries out their decisions.

pub mod disk;
pub mod hash;
pub mod host;
pub mod image;
pub mod net;
pub mod storage;
pub mod sys;
pub mod sysfs;
pub mod torrent;
