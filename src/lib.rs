//! flashmob re-images a whole computer lab at once.
//!
//! The flow, and where each step lives:
//!
//! ```text
//! capture ─► publish ─► netboot ─► discover ─► claim the disk ─► swarm ─► verify ─► commit ─► boot
//! mkimage    server     initramfs  lan         layout, io        swarm    io        layout    boot
//! ```
//!
//! Each arrow is a value that only the stage before it can make: signed bytes become a
//! [`manifest::TrustedManifest`]; with the facts of a disk it becomes a `LayoutPlan` (every refusal happens
//! here, before the first write); an exclusively opened, unmounted device is a `ClaimedDisk`; an image read
//! back completely is `ImageVerified`, and only that can be committed for boot.
//!
//! Imports point down only: programs (`agent`, `server`) → adapters (`io`, the only place with syscalls,
//! sockets, clock and randomness) → stages (`layout`, `lan`, `tracker`, `swarm`, `boot`: pure) → formats
//! (`bencode`, `metainfo`, `manifest`, `event`, `nbd`, `peer_policy`, `api`) → words (`units`, `bitfield`,
//! `digest`, `rng`, `slots`, `storage`, `buf`, `sync`).

// A build of one program leaves out callers in the others; the build of both sees dead code.
#![cfg_attr(
    not(all(feature = "server", feature = "agent")),
    allow(dead_code, reason = "built for one program only")
)]

// words
pub mod bitfield;
pub mod buf;
pub mod digest;
pub mod rng;
pub mod slots;
pub mod storage;
pub mod sync;
pub mod units;

// formats
pub mod api;
pub mod bencode;
pub mod event;
pub mod image_id;
pub mod manifest;
pub mod metainfo;
pub mod nbd;
pub mod peer_policy;

// stages
pub mod boot;
#[cfg(feature = "server")]
pub mod forecast;
pub mod lan;
pub mod layout;
#[cfg(any(test, feature = "server"))]
pub mod sim;
pub mod swarm;
pub mod tracker;

// adapters
pub mod io;

// tests
#[cfg(test)]
mod testkit;

// programs
#[cfg(feature = "agent")]
pub mod agent;
#[cfg(feature = "server")]
pub mod cli;
#[cfg(feature = "manual")]
pub mod manual;
#[cfg(feature = "server")]
pub mod server;
