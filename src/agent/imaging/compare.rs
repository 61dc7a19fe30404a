//! Looks what of the image is on the disk already, and shows how far that is.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::download::Description;
use super::{ImagingContext, StopOnDrop, blocking};
use crate::event::{Failure, Stage};
use crate::io::claim::ClaimedDisk;
use crate::io::compare::{CompareProgress, compare};
use crate::layout::plan::LayoutPlan;
use crate::swarm::Bitfield;
use crate::units::Sha256;

/// How often the numbers are renewed.
const TICK: Duration = Duration::from_millis(500);

/// The pieces that need not travel; the disk and its plan come back.
pub(super) async fn look(
    ctx: &ImagingContext,
    claimed: ClaimedDisk,
    plan: LayoutPlan,
    image: &Description,
    hashes: Vec<Sha256>,
) -> Result<(ClaimedDisk, LayoutPlan, Bitfield), Failure> {
    ctx.status.stage(Stage::Compare);
    let (progress, begun) = (Arc::new(CompareProgress::default()), Instant::now());
    let watched = Arc::clone(&progress);
    let _stop = StopOnDrop(move || watched.stop.store(true, Ordering::Relaxed));
    let (grid, counted) = (Arc::clone(&image.grid), Arc::clone(&progress));
    let mut work = std::pin::pin!(blocking(move || {
        let kept = compare(claimed.disk(), &plan, &grid, &hashes, &counted);
        Ok((claimed, plan, kept))
    }));
    let total = u64::from(image.grid.pieces()) * image.grid.piece_length().bytes();
    let mut ticks = tokio::time::interval(TICK);
    let found = loop {
        tokio::select! {
            found = &mut work => break found?,
            _ = ticks.tick() => {
                let bytes = progress.bytes.load(Ordering::Relaxed);
                ctx.status.progress(|progress| {
                    progress.bytes_total = total;
                    progress.bytes_done = bytes;
                    progress.percent = 100.0 * bytes as f32 / total.max(1) as f32;
                });
            }
        }
    };
    let kept = found.2.count();
    let share = 100.0 * f64::from(kept) / f64::from(image.grid.pieces().max(1));
    if kept > 0 {
        let seconds = begun.elapsed().as_secs_f64();
        ctx.status
            .note(format!("{share:.0} % of the image is on the disk already (found in {seconds:.0} s)"));
    }
    ctx.status.progress(|progress| {
        progress.bytes_done = 0;
        progress.percent = 0.0;
    });
    Ok(found)
}
