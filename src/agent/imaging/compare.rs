//! Finds the image's pieces that are on the disk already, by reading or by the server's record, and shows the
//! progress.
//!
//! Invariant: if a record is missing, untrusted, forbidden or does not fit the disk, the disk is read
//! instead. The outcome counts the pieces that were believed without being read.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::bounds::on_disk;
use super::context::{ImagingContext, StopOnDrop};
use super::download;
use super::target::Target;
use crate::api::{Assignment, Compare};
use crate::event::{Failure, Installed, Stage};
use crate::io::disk::compare::{Believed, CompareProgress, Whole, believe, compare};
use crate::layout::present::{Present, wanted};
use crate::layout::rule::describe;
use crate::rng::Rng;

/// How often the numbers are renewed.
const TICK: Duration = Duration::from_millis(500);
const NOT_THE_IMAGE: &str = "the server's record of this disk cannot be used: the system was made this \
    terminal's own after it was imaged; reading the disk instead";
const FORBIDDEN: &str = "the job says compare = \"trust\", and this terminal's netboot files forbid it \
    (--no-trust): looking what is on the disk";

/// A target, and the pieces of its image that are on it.
pub(super) struct Looked {
    pub(super) target: Target,
    pub(super) present: Present,
    /// It is all there, and committed.
    pub(super) whole: Option<Whole>,
    /// Pieces were believed without being read, and are never read; for people.
    pub(super) warning: Option<String>,
}

impl Looked {
    /// Will all of the image have been read from the disk when this attempt commits it?
    pub(super) fn will_be_proved(&self) -> bool {
        self.warning.is_none()
    }
}

/// Finds the pieces that need not travel; returns the target.
pub(super) async fn look(
    ctx: &ImagingContext,
    target: Target,
    assignment: &Assignment,
) -> Result<Looked, Failure> {
    let records = &assignment.installed;
    let disk = describe(&target.info);
    let personalised = records.iter().any(|record| record.disk == disk && record.personalised);
    if target.task.compare == Compare::Full || target.image.hashes.is_none() {
        let nothing = Present::nothing(&target.plan, &target.image.grid);
        return Ok(Looked { target, present: nothing, whole: None, warning: None });
    }
    ctx.status.stage(Stage::Compare);
    let begun = Instant::now();
    let (target, believed) = match target.task.compare {
        Compare::Trust if personalised => {
            ctx.status.note(NOT_THE_IMAGE);
            (target, None)
        }
        Compare::Trust if ctx.may_trust => by_record(ctx, target, records).await?,
        Compare::Trust => {
            ctx.status.note(FORBIDDEN);
            (target, None)
        }
        Compare::Auto | Compare::Full => (target, None),
    };
    let how = if believed.is_some() { "by the server's record" } else { "already" };
    let looked = match believed {
        Some(Believed { present, unread }) => {
            let warning = not_read(&target, unread);
            warning.iter().for_each(|warning| ctx.status.note(warning.clone()));
            Looked { target, present, whole: None, warning }
        }
        None => by_reading(ctx, target).await?,
    };
    let Looked { target, present, .. } = &looked;
    let pieces = wanted(&target.plan, &target.image.grid).count();
    let found = present.kept.count().saturating_add(u32::try_from(present.moves.len()).unwrap_or(u32::MAX));
    if found > 0 {
        let share = 100.0 * f64::from(found) / f64::from(pieces.max(1));
        let seconds = begun.elapsed().as_secs_f64();
        ctx.status.note(format!("{share:.0} % of the image is on the disk {how} (found in {seconds:.0} s)"));
    }
    if personalised {
        let differ = pieces.saturating_sub(found);
        ctx.status.note(match assignment.personal {
            Some(_) => {
                format!("{differ} pieces differ: what made the system this terminal's own is made anew")
            }
            None => format!("{differ} pieces differ"),
        });
    }
    ctx.status.progress(|progress| {
        progress.bytes_done = 0;
        progress.percent = 0.0;
    });
    Ok(looked)
}

/// A warning about pieces that are never read: the read-back reads only written pieces.
fn not_read(target: &Target, unread: u32) -> Option<String> {
    let pieces = wanted(&target.plan, &target.image.grid).count();
    (unread > 0).then(|| {
        format!(
            "{unread} of the {pieces} pieces on {} are right by the server's record, not read (compare = \
             \"trust\")",
            target.claimed.disk().name()
        )
    })
}

/// Believes the server's record of the disk, if it fits.
async fn by_record(
    ctx: &ImagingContext,
    target: Target,
    records: &[Installed],
) -> Result<(Target, Option<Believed>), Failure> {
    let disk = describe(&target.info);
    let (target, result) = match records.iter().find(|record| record.disk == disk) {
        None => (target, Err("the server knows of no image on it".into())),
        Some(installed) => match download::older(ctx, installed).await {
            Err(failure) => (target, Err(failure.message)),
            Ok(older) => {
                on_disk(ctx, target.claimed.disk().pulse(), move || {
                    let Target { claimed, plan, image, .. } = &target;
                    let hashes = image.hashes.as_deref().unwrap_or(&[]);
                    let table = &claimed.facts().table;
                    let image = (&*image.grid, hashes);
                    let result = chance().and_then(|mut chance| {
                        believe(claimed.disk(), plan, table, image, &older.version(), &mut chance)
                    });
                    Ok((target, result))
                })
                .await?
            }
        },
    };
    let believed = result.map_err(|why: String| {
        ctx.status.note(format!(
            "the server's record of this disk cannot be used: {why}; reading the disk instead"
        ));
    });
    Ok((target, believed.ok()))
}

/// Random, so that nobody can predict which pieces are read.
fn chance() -> Result<Rng, String> {
    getrandom::u64().map(Rng::new).map_err(|error| format!("the kernel has no random numbers: {error}"))
}

/// Finds pieces on the disk by their hashes.
async fn by_reading(ctx: &ImagingContext, target: Target) -> Result<Looked, Failure> {
    let progress = Arc::new(CompareProgress::default());
    let watched = Arc::clone(&progress);
    let _stop = StopOnDrop(move || watched.stop.store(true, Ordering::Relaxed));
    let counted = Arc::clone(&progress);
    let pulse = target.claimed.disk().pulse();
    let mut work = std::pin::pin!(on_disk(ctx, pulse, move || {
        let Target { claimed, plan, image, .. } = &target;
        let hashes = image.hashes.as_deref().unwrap_or(&[]);
        let table = claimed.facts().table.as_ref().ok();
        let (present, whole) = compare(claimed.disk(), plan, table, &image.grid, hashes, &counted);
        Ok(Looked { target, present, whole, warning: None })
    }));
    let mut ticks = tokio::time::interval(TICK);
    loop {
        tokio::select! {
            found = &mut work => return found,
            _ = ticks.tick() => {
                let total = progress.total.load(Ordering::Relaxed);
                let bytes = progress.bytes.load(Ordering::Relaxed);
                ctx.status.progress(|progress| {
                    progress.bytes_total = total;
                    progress.bytes_done = bytes;
                    progress.percent = 100.0 * bytes as f32 / total.max(1) as f32;
                });
            }
        }
    }
}
