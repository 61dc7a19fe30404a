//! How long a new job takes, for one terminal and for all.
//!
//! Invariant: pure.

use std::collections::BTreeSet;
use std::time::Duration;

use super::{JobOrder, Setting, Terms};
use crate::api::payload_rate;
use crate::forecast::plan::Plan;
use crate::image_id::ImageId;
use crate::server::domain::catalog::Catalog;
use crate::server::domain::lab::Terminal;

/// A link whose speed is not known, in Mbit/s.
const LINK: u32 = 1000;

/// What a disk writes and reads, in bytes a second, in forecasts.
const DISK: f64 = 250e6;

/// Firmware, netboot and the restart at the end.
const STARTING: Duration = Duration::from_secs(120);

/// What a preflight takes: the image's description, and a sample of the disk's speed.
const LOOKING: Duration = Duration::from_secs(30);

impl JobOrder {
    /// The forecast for one terminal among those of its wave, and for all.
    pub(super) fn forecast(
        &self,
        terms: &Terms,
        terminals: &BTreeSet<String>,
        place: &Setting<'_>,
    ) -> (Duration, Duration) {
        let image = bytes_of(terms, place.catalog);
        let known = terminals.iter().filter_map(|id| place.lab.get(id));
        let slowest = known.filter_map(speed).min().unwrap_or(LINK);
        let wave = self.wave.map_or(terminals.len(), |wave| usize::try_from(wave).unwrap_or(usize::MAX));
        let together = wave.min(terminals.len()).max(1);
        let link = u64::from(slowest) * 125_000;
        let limited = self.limit_mbit.map_or(link, |limit| payload_rate(limit).min(link));
        let (link, rate) = (link as f64, limited as f64);
        let plan = Plan {
            zones: vec![together],
            rate,
            server_rate: link,
            uplink: link,
            disk: DISK,
            image,
            piece_length: 4 << 20,
            arrive_over: Duration::ZERO,
            slow: 0,
            links: 2,
            seed: 1,
        };
        let proof = Duration::from_secs_f64(image as f64 / DISK);
        let one = match self.preflight {
            true => STARTING + LOOKING,
            false => plan.bound().0.mul_f64(1.1) + proof + STARTING,
        };
        let waves = u32::try_from(terminals.len().div_ceil(together)).unwrap_or(u32::MAX);
        (one, one.saturating_mul(waves.max(1)))
    }
}

/// Bytes of all images.
pub(super) fn bytes_of(terms: &Terms, catalog: &Catalog) -> u64 {
    let bytes = |id: &ImageId| catalog.resolve(&id.clone().into()).map_or(0, |found| found.bytes);
    terms.ids().map(bytes).sum::<u64>().max(1)
}

/// The speed of the card that a terminal speaks through, in Mbit/s.
fn speed(terminal: &Terminal) -> Option<u32> {
    terminal.inventory.nics.iter().filter(|nic| nic.link).filter_map(|nic| nic.speed).max()
}
