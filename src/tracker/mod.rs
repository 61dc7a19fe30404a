//! The tracker: the peers of each swarm, and the choice of peers for each answer (BEP 3, 7, 23, 48).
//!
//! [`announce`] reads a peer's announce, [`registry`] keeps it until it expires, [`policy`] chooses the peers
//! for an answer (by the lab's [`topology`] where it has zones: [`zoned`]), [`reply`] writes the answer.
//!
//! Invariant: pure and synchronous; only admitted swarms exist, and memory is bounded by the number of swarms
//! times the cap on their peers. `server` has the sockets, clock and randomness.

pub mod announce;
pub mod policy;
pub mod registry;
pub mod reply;
pub mod topology;
pub mod zoned;

pub use announce::{Announce, Event, Malformed};
pub use policy::{Candidate, FlatPolicy, Policy, Request, Selection};
pub use registry::{Answer, Seeder, Settings, SwarmCounts, Tracker, Unknown};
pub use topology::{Pin, REST, Topology, Zone, ZoneId};
pub use zoned::Zoned;
