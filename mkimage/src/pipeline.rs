//! Pieces in order through all cores: one thread reads, each core works, the caller's thread takes the
//! results in the order of the requests.
//!
//! ```text
//! reader ──(tickets)──► workers (one a core) ──► sink (this thread; puts back in order)
//! ```
//!
//! Invariant: at most as many jobs are under way as there are tickets, and each ticket has one buffer, so the
//! pool bounds the memory even if one stage is slow. The oldest job always has a buffer, so waiting for it
//! cannot deadlock. The first failure ends all three.

use std::collections::BTreeMap;
use std::num::NonZero;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use flashmob::buf::{BufPool, PieceBuf};
use flashmob::event::Failure;

/// Most memory that buffers take.
const MEMORY: usize = 256 << 20;

/// Runs every job of `jobs` through `read` (one thread, in order; false: there is nothing in it and the
/// buffer is not used), `work` (many threads) and `sink` (this thread, in order).
pub(crate) fn run<J, R>(
    buffer: usize,
    jobs: impl Iterator<Item = J> + Send,
    read: impl FnMut(&J, &mut [u8]) -> Result<bool, Failure> + Send,
    work: impl Fn(&J, Option<&mut PieceBuf>) -> R + Sync,
    mut sink: impl FnMut(J, Option<PieceBuf>, R) -> Result<(), Failure>,
) -> Result<(), Failure>
where
    J: Send,
    R: Send,
{
    let cores = thread::available_parallelism().map_or(1, NonZero::get);
    let depth = (MEMORY / buffer.max(1)).clamp(3, 4 * cores + 4);
    let pool = BufPool::new(buffer, depth);
    let (ticket, tickets) = sync_channel::<()>(depth);
    let (asked, to_work) = sync_channel(depth);
    let (worked, results) = sync_channel(depth);
    let to_work = Mutex::new(to_work);
    thread::scope(|scope| {
        let reader = scope.spawn(move || read_all(jobs, read, &pool, &ticket, &asked));
        for _ in 0..cores {
            let (to_work, worked, work) = (&to_work, worked.clone(), &work);
            scope.spawn(move || {
                while let Some(Asked { at, job, mut buf }) = receive(to_work) {
                    // A panic must reach the sink as a result, or it would wait for this job for ever.
                    let result = catch_unwind(AssertUnwindSafe(|| work(&job, buf.as_mut()))).ok();
                    if worked.send((at, job, buf, result)).is_err() {
                        return;
                    }
                }
            });
        }
        drop(worked);
        let sunk = sink_all(results, &tickets, &mut sink);
        // A sink that failed no longer takes; without tickets and results the others end as well.
        drop(tickets);
        let read = reader.join().unwrap_or_else(|_| Err(crashed()));
        sunk.and(read)
    })
}

struct Asked<J> {
    at: u64,
    job: J,
    buf: Option<PieceBuf>,
}

fn read_all<J>(
    jobs: impl Iterator<Item = J>,
    mut read: impl FnMut(&J, &mut [u8]) -> Result<bool, Failure>,
    pool: &BufPool,
    ticket: &SyncSender<()>,
    asked: &SyncSender<Asked<J>>,
) -> Result<(), Failure> {
    for (at, job) in (0u64..).zip(jobs) {
        // Full as long as `depth` jobs are under way.
        if ticket.send(()).is_err() {
            return Ok(());
        }
        let mut buf = pool.take().ok_or_else(|| {
            Failure::retry("there is no memory for another buffer", "Close other programs.")
        })?;
        let buf = if read(&job, &mut buf)? { Some(buf) } else { None };
        if asked.send(Asked { at, job, buf }).is_err() {
            return Ok(());
        }
    }
    Ok(())
}

fn receive<J>(from: &Mutex<Receiver<Asked<J>>>) -> Option<Asked<J>> {
    from.lock().ok()?.recv().ok()
}

type Worked<J, R> = (u64, J, Option<PieceBuf>, Option<R>);

fn sink_all<J, R>(
    results: Receiver<Worked<J, R>>,
    tickets: &Receiver<()>,
    sink: &mut impl FnMut(J, Option<PieceBuf>, R) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut early = BTreeMap::new();
    let mut next = 0;
    for (at, job, buf, result) in results {
        early.insert(at, (job, buf, result));
        while let Some((job, buf, result)) = early.remove(&next) {
            sink(job, buf, result.ok_or_else(crashed)?)?;
            // The buffer went back before its ticket does.
            tickets.recv().map_err(|_| crashed())?;
            next += 1;
        }
    }
    if early.is_empty() { Ok(()) } else { Err(crashed()) }
}

fn crashed() -> Failure {
    Failure::retry("a part of this program crashed", "Please report it with the output above.")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stop() -> Failure {
        Failure::disk("stop", "")
    }

    #[test]
    fn results_come_in_the_order_of_the_jobs_whatever_takes_long() {
        let mut seen = Vec::new();
        run(
            16,
            0u8..200,
            |job, buf| {
                buf.fill(*job);
                Ok(job % 3 != 0)
            },
            |job, buf| {
                for _ in 0..u32::from(job % 7) * 1000 {
                    std::hint::spin_loop();
                }
                buf.map(|buf| u64::from(buf[15]))
            },
            |job, buf, result| {
                assert_eq!(buf.is_some(), job % 3 != 0);
                seen.push((job, result));
                Ok(())
            },
        )
        .expect("it runs");
        let expected: Vec<_> =
            (0u8..200).map(|job| (job, (job % 3 != 0).then_some(u64::from(job)))).collect();
        assert_eq!(seen, expected);
    }

    #[test]
    fn a_failing_sink_ends_it() {
        let ended = run(
            16,
            0..,
            |_: &u64, _| Ok(true),
            |_, _| (),
            |job, _, ()| if job == 50 { Err(stop()) } else { Ok(()) },
        );
        assert_eq!(ended, Err(stop()));
    }

    #[test]
    fn a_crash_of_a_worker_ends_it() {
        let ended = run(16, 0.., |_: &u64, _| Ok(true), |job, _| assert!(*job != 50), |_, _, ()| Ok(()));
        assert_eq!(ended, Err(crashed()));
    }

    #[test]
    fn a_failing_reader_ends_it_after_what_was_read_before() {
        let mut count = 0;
        let ended = run(
            16,
            0..,
            |job: &u64, _| if *job == 50 { Err(stop()) } else { Ok(true) },
            |_, _| (),
            |_, _, ()| {
                count += 1;
                Ok(())
            },
        );
        assert_eq!((ended, count), (Err(stop()), 50));
    }
}
