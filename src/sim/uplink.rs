//! A zone's uplink, and the server's tracker that knows zones.

use crate::sim::spec::Zones;
use crate::tracker::{Settings, Tracker, Zoned, zoned};
use crate::units::{InfoHash, Now};

/// The torrent of every lab.
pub(super) const INFO_HASH: InfoHash = InfoHash([9; 20]);

/// A zone's connection to the others.
#[derive(Debug, Default)]
pub struct Uplink {
    pub(super) out_free: Now,
    pub(super) in_free: Now,
    /// Bytes that left the zone.
    pub sent: u64,
    /// Bytes that came into it.
    pub received: u64,
}

/// The server's tracker, with its times as the model's.
pub(super) fn tracker(zones: &Zones) -> Tracker {
    let usual = Settings::default();
    let settings = Settings {
        interval: usual.interval / zones.time_scale,
        young_interval: usual.young_interval / zones.time_scale,
        young_for: usual.young_for / zones.time_scale,
        ..usual
    };
    let policy = Zoned::new(zones.topology.clone()).with_heartbeat(zoned::HEARTBEAT / zones.time_scale);
    let mut tracker = Tracker::new(settings, Box::new(policy));
    tracker.admit(INFO_HASH, true);
    tracker
}
