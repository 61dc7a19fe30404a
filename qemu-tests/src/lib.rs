//! The virtual lab: a golden disk, a private network, machines with virtual disks, all owned by handle.
//!
//! ```text
//! assets (programs, netboot files, golden disk, image) ─► lab (namespace, DHCP, server) ─► machine (QEMU)
//! ```
//!
//! Invariant: every process ends with its test, and nothing outside its folder and namespace changes. Needs
//! root; `setup.sh` installs the Debian packages.

pub mod accel;
pub mod assets;
pub mod decoy;
pub mod golden;
pub mod lab;
pub mod machine;
pub mod net;
pub mod qmp;
pub mod slots;
