//! The last work of an attempt: the system on the disk becomes the terminal's own, and the server hears of
//! each step.
//!
//! Invariant: a server that is away stops nothing: what it does not hear now, a later run tells it, which
//! finds everything done. A problem leaves an image that starts, and where the terminal's own file is missing
//! the server sends the terminal here again at its next network boot.

use std::time::Duration;

use super::imager::Imager;
use crate::agent::imaging::Committed;
use crate::agent::status::Status;
use crate::api::{Assignment, PersonalReport};
use crate::event::Stage;
use crate::io::net::api_client::Api;
use crate::layout::personal::{OwnFile, Places, Told};

/// How long the server may take to hear of a step, and of the end.
const STEP: Duration = Duration::from_secs(3);
const END: Duration = Duration::from_secs(30);

/// Lets the filesystems of all disks grow, and personalises the system that starts if the job wants that.
pub(super) async fn run<I: Imager>(
    api: &Api,
    assignment: &Assignment,
    imager: &I,
    status: &Status,
    Committed { system, also, problems }: Committed,
) {
    let own = OwnFile::of(assignment, api.base());
    let larger = |places: &&Places| places.growing().next().is_some();
    let grows = system.iter().chain(&also).any(|places| larger(&places));
    // A server that waits for the growth hears also that nothing had to grow.
    if own.is_none() && !grows && !assignment.growth {
        return;
    }
    status.stage(Stage::Personalise);
    let mut report = PersonalReport { token: assignment.token.clone(), ..PersonalReport::default() };
    problems.iter().for_each(|why| status.note(format!("WARNING: {why}")));
    report.problems = problems;
    // Says that it has begun. A server whose job leaves the system as it is asks for no reports, unless the
    // image lets a partition grow.
    let heard = own.is_some() || assignment.growth;
    let mut reachable = heard && tell(api, assignment, &report, STEP).await;
    let finished = match system {
        Some(system) => {
            let mut told = async |what: Told| {
                match what {
                    Told::Step(what) => {
                        status.note(what.clone());
                        report.steps.push(what);
                    }
                    Told::Problem(why) => {
                        status.note(format!("WARNING: {why}"));
                        report.problems.push(why);
                    }
                }
                // One wait for a server that is away is enough before the end.
                reachable = reachable && tell(api, assignment, &report, STEP).await;
            };
            // The terminal's own file comes last: where it is, everything is done.
            let mut finished = true;
            for also in also.into_iter().filter(|also| larger(&also)) {
                finished &= imager.personalise(api.base(), also, None, &mut told).await;
            }
            imager.personalise(api.base(), system, own, told).await && finished
        }
        None => {
            report.problems.push("the attempt wrote no disk".into());
            true
        }
    };
    report.done = finished;
    if heard && !tell(api, assignment, &report, END).await {
        let what = if assignment.growth { "its growth is done" } else { "the system is personalised" };
        status.note(format!("the server does not hear that {what}; it asks again at the next start"));
    }
}

/// Finishes an attempt that was cut off after its image was on the disk.
pub(super) async fn finish<I: Imager>(api: &Api, assignment: &Assignment, imager: &I, status: &Status) {
    status.note(match assignment.growth {
        true => "the image is on the disk; going on to let its filesystems grow",
        false => "the image is on the disk; going on to make the system this terminal's own",
    });
    match imager.find(api.base(), assignment).await {
        Ok(found) => run(api, assignment, imager, status, found).await,
        // The server sends it here again a few times, and then to its disk.
        Err(failure) => {
            let what = if assignment.growth { "not grown" } else { "not personalised" };
            status.note(format!("WARNING: {what}: {failure}"));
            let problems = vec![failure.message];
            let report =
                PersonalReport { token: assignment.token.clone(), problems, ..PersonalReport::default() };
            tell(api, assignment, &report, STEP).await;
        }
    }
}

/// Whether the server has heard it.
async fn tell(api: &Api, assignment: &Assignment, report: &PersonalReport, within: Duration) -> bool {
    let told = api.personal(assignment.attempt, report);
    match tokio::time::timeout(within, told).await {
        Ok(Ok(())) => true,
        Ok(Err(e)) => {
            log::debug!("the server does not hear how far the terminal's own system is: {e}");
            false
        }
        Err(_) => false,
    }
}
