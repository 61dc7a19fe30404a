//! The lab's server: images, tracker, seeder, netboot and the lab's page on one port.
pub mod catalog;
pub mod config;
pub mod identity;
pub mod ipxe;
pub mod jobs;
pub mod lab;
