//! The other machines: connected peers, addresses to dial, measured rates, and what zones allow.

pub(super) mod access;
pub(super) mod address_book;
pub(super) mod availability;
pub(super) mod disk_rate;
pub(super) mod download;
pub(super) mod link;
pub(super) mod peer;
pub(super) mod reliance;
pub(super) mod resting;
pub(super) mod scheduling;
pub(super) mod upload;
pub(super) mod zone_policy;
