//! Shared by the unit tests of several rooms: programs, loop devices, sample images and manifests, a
//! pretended imager, an HTTP server.
//!
//! Invariant: only tests are built with it; nothing here decides what a test asserts.

#[cfg(feature = "agent")]
pub(crate) mod attempts;
pub(crate) mod disks;
pub(crate) mod http;
pub(crate) mod images;
#[cfg(feature = "server")]
pub(crate) mod lab;
pub(crate) mod manifests;
pub(crate) mod programs;
