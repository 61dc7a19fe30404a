//! Swarms on the loopback interface: flashmob with itself, by its command line, and with aria2 and libtorrent.
//!
//! `tracker` is the tracker of these tests, `world` what they share; `loopback` drives sessions in this process,
//! `command` runs the program, `clients` runs the others.

mod clients;
mod command;
mod loopback;
mod tracker;
mod world;
