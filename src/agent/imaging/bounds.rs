//! How long an attempt waits for a disk that may not answer, or for hashes that may never be made.
//!
//! Invariant: every wait for a disk ends. A disk that completes no request within its limit has failed, and
//! the terminal says so instead of standing at 100 %. The thread that hangs in the kernel is left behind,
//! never waited for.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::Instant;

use super::context::{ImagingContext, blocking};
use crate::event::Failure;
use crate::io::storage::device::Pulse;

/// How often it is looked whether something was done.
const LOOK: Duration = Duration::from_millis(250);

/// Work with a disk, away from the network's threads; fails when the disk does nothing for too long.
pub(super) async fn on_disk<T: Send + 'static>(
    ctx: &ImagingContext,
    pulse: Pulse,
    work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    let requests = || Some(pulse.requests.load(Ordering::Relaxed));
    within(ctx, &pulse.name, requests, || (), blocking(work)).await
}

/// Waits for `work`. `done` counts the requests that disk `name` has completed, and is `None` while the work
/// waits for something else. If the count stands still for too long, `give_up` is called and the disk has
/// failed.
pub(super) async fn within<T>(
    ctx: &ImagingContext,
    name: &str,
    done: impl Fn() -> Option<u64>,
    give_up: impl FnOnce(),
    work: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    let mut work = std::pin::pin!(work);
    let mut looks = tokio::time::interval(LOOK);
    let (mut seen, mut since, mut said) = (None, Instant::now(), false);
    loop {
        tokio::select! {
            biased;
            result = &mut work => return result,
            _ = looks.tick() => {}
        }
        let now = done();
        if now.is_none() || now != seen {
            (seen, since, said) = (now, Instant::now(), false);
        }
        let silent = since.elapsed();
        if silent >= ctx.bounds.disk {
            give_up();
            let stage = ctx.status.view().progress.stage.title();
            return Err(Failure::disk(
                format!("{stage}: the disk {name} has done nothing for {} s", silent.as_secs()),
                "Replace the disk, or look at its cable and its health report (SMART); then run the job \
                 again.",
            ));
        }
        if silent >= ctx.bounds.disk / 20 && !std::mem::replace(&mut said, true) {
            let (seconds, most) = (silent.as_secs(), ctx.bounds.disk.as_secs());
            ctx.status
                .note(format!("the disk {name} has done nothing for {seconds} s; waiting {most} s at most"));
        }
    }
}

/// Waits at most `at_most` for `work`, which cannot report its progress.
pub(super) async fn timely<T>(
    at_most: Duration,
    what: &str,
    work: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    tokio::time::timeout(at_most, work).await.unwrap_or_else(|_| {
        Err(Failure::disk(
            format!("{what} has not ended after {} s", at_most.as_secs()),
            "Look which disk does not answer, at its cable and its health report (SMART); then run the job \
             again.",
        ))
    })
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::super::tests::context;
    use super::*;
    use crate::event::Class;
    use crate::event::Stage;

    #[tokio::test(start_paused = true)]
    async fn a_disk_that_hangs_at_a_hundred_percent_has_failed_after_ten_minutes_and_is_named_before() {
        let ctx = context();
        ctx.status.stage(Stage::Verify);
        let (began, gave_up) = (Instant::now(), Cell::new(false));
        let hangs = std::future::pending::<Result<(), Failure>>();
        let failure = within(&ctx, "/dev/sda", || Some(7), || gave_up.set(true), hangs).await.unwrap_err();
        assert_eq!((failure.class, gave_up.get()), (Class::Disk, true));
        assert_eq!(failure.message, "verifying from the disk: the disk /dev/sda has done nothing for 600 s");
        assert_eq!(began.elapsed().as_secs(), 600);
        let notes = ctx.status.view().notes;
        assert_eq!(notes, ["the disk /dev/sda has done nothing for 30 s; waiting 600 s at most"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_disk_and_a_swarm_without_pieces_are_waited_for() {
        let ctx = context();
        let hour = async {
            tokio::time::sleep(Duration::from_secs(3600)).await;
            Ok(5)
        };
        let began = Instant::now();
        let slow = || Some(began.elapsed().as_secs() / 500);
        assert_eq!(within(&ctx, "/dev/sda", slow, || panic!("it works"), hour).await, Ok(5));
        let hour = async {
            tokio::time::sleep(Duration::from_secs(3600)).await;
            Ok(6)
        };
        assert_eq!(within(&ctx, "/dev/sda", || None, || panic!("it is not waited for"), hour).await, Ok(6));
        assert_eq!(timely(Duration::from_secs(9), "claiming", async { Ok(7) }).await, Ok(7));
        let late = timely(Duration::from_secs(9), "claiming", std::future::pending::<Result<(), _>>()).await;
        assert_eq!(late.unwrap_err().message, "claiming has not ended after 9 s");
    }
}
