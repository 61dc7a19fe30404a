//! The server's decisions and their subjects, without I/O: time, chance and the database's answers come in as
//! arguments.
//!
//! `config` is the administrator's configuration, `catalog` the images, `identity` tells terminals apart,
//! `target` is the system that a terminal should get, `attempt` one try, `course` the stages of one, `jobs`
//! the next step after an attempt, `coming` terminals that boot the agent, `lab` all terminals, `zones` their
//! places, `ties` which terminals need which others, `step` what one does that netboots, `scripts` says it in
//! the words of `ipxe` and `grub`, `tickets` lets those speak that the scripts boot, `doubts` ambiguous names
//! for people to check, `limits` bounds the calls of one address, `times` reads when jobs open and close,
//! `wake` says which terminals are woken when, and from where, `registry` is what people say of terminals,
//! `targets` the words by which they name them, `people` has the tokens of people, `audit` what they did,
//! `board` what changed for those who watch, `pxe` what dnsmasq is told; `logs` unpacks what attempts say of
//! themselves, `notices` is what webhooks deliver.
//!
//! Invariant: the same state and the same arguments give the same decision.

pub mod attempt;
pub mod audit;
pub(crate) mod board;
pub(crate) mod captures;
pub mod catalog;
pub(crate) mod coming;
pub mod config;
pub mod course;
pub(crate) mod doubts;
pub(crate) mod grub;
pub mod identity;
pub mod ipxe;
pub mod jobs;
pub mod lab;
pub mod limits;
pub mod logs;
pub(crate) mod notices;
pub mod people;
pub mod personal;
pub mod pxe;
pub mod registry;
pub(crate) mod scripts;
pub mod step;
pub mod target;
pub mod targets;
pub mod tickets;
pub(crate) mod ties;
pub mod times;
pub mod wake;
pub mod zones;
