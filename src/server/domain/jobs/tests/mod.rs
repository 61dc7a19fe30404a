//! Jobs in events: terminals that take, report, are cut off and end; people and windows between them.

mod attempts;
mod people;
mod preflights;
mod standing;
mod windows;

use std::collections::BTreeSet;

use jiff::Timestamp;

use super::*;
use crate::event::{CheckFinding, Class};
use crate::image_id::{ImageId, ImageRef};
use crate::server::domain::targets::Meant;
use crate::testkit::lab::{at, checked, done, failed, job, moment};

const HOUR: u64 = 3600;

fn names(n: usize) -> BTreeSet<String> {
    (0..n).map(|i| format!("t{i}")).collect()
}

/// Job 1 of `n` terminals, open from 0 to ten hours, after `change`.
fn jobs(n: usize, change: impl FnOnce(&mut Job)) -> Jobs {
    let mut jobs = Jobs::default();
    let mut job = job(1, 0, 10 * HOUR);
    change(&mut job);
    jobs.add(job, &names(n), &moment(0));
    tick(&mut jobs, 0);
    jobs
}

fn tick(jobs: &mut Jobs, now: u64) -> Effects {
    jobs.tick(&moment(now), &|_| false, &|_| None)
}

fn state(jobs: &Jobs, id: &str) -> State {
    jobs.member(1, id).expect("in it").state
}

/// The address of a caller.
fn ip(last: u8) -> std::net::IpAddr {
    [10, 0, 0, last].into()
}

fn may(jobs: &Jobs, id: &str, now: u64) -> bool {
    matches!(jobs.offer(id, false, &moment(now)), Offer::Now(_))
}

fn why(jobs: &Jobs, id: &str, now: u64) -> String {
    match jobs.offer(id, false, &moment(now)) {
        Offer::Later(why) | Offer::Queued(why) => why,
        other => panic!("{other:?}"),
    }
}

/// A person retries terminals of job 1. Returns those that begin again.
fn again(jobs: &mut Jobs, which: Which<'_>, now: u64) -> Vec<String> {
    let (each, _) = jobs.retry(1, which, None, &moment(now));
    each.into_iter().filter(|(_, answer)| answer.is_ok()).map(|(id, _)| id).collect()
}

/// A person takes a terminal out. Has it left a job?
fn leaves(jobs: &mut Jobs, id: &str, now: u64) -> bool {
    jobs.cancel_terminals(&[id.to_owned()], &moment(now)).0[0].1.is_ok()
}

fn standing(follow: bool) -> impl FnOnce(&mut Job) {
    move |job| {
        let every = "daily 22:00".parse().expect("valid");
        job.standing = Some(Standing { every, closing: "06:00".parse().expect("valid"), follow });
        job.run.opens = stamp(at(22 * HOUR));
        job.run.closes = stamp(at(30 * HOUR));
        job.next = Some(stamp(at(46 * HOUR)));
    }
}
