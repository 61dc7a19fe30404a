//! Preflights beside jobs with images.

use super::*;

#[test]
fn a_preflight_ends_by_its_worst_finding_and_never_as_an_image() {
    let (error, warning) = (CheckFinding::error("no disk", "Look."), CheckFinding::warning("slow", "Look."));
    for (findings, ends, reason) in [
        (vec![], State::Done, ""),
        (vec![warning.clone()], State::Done, "slow"),
        (vec![warning, error], State::Failed, "no disk"),
    ] {
        let mut jobs = jobs(1, |job| job.terms.preflight = true);
        jobs.take("t0", "1", 7, at(1));
        jobs.outcome("t0", 7, &checked(findings.clone()), at(2));
        let member = jobs.member(1, "t0").expect("in it");
        assert_eq!((member.state, member.reason.as_str()), (ends, reason));
        assert_eq!(member.findings.len(), findings.len());
        assert_eq!(jobs.offer("t0", false, &moment(3)), Offer::Nothing, "once is enough");
    }
    let mut jobs = jobs(1, |_| ());
    jobs.take("t0", "1", 7, at(1));
    jobs.outcome("t0", 7, &checked(vec![]), at(2));
    assert_eq!(state(&jobs, "t0"), State::Failed, "a job with images is not done by looking");
}

#[test]
fn a_preflight_and_a_job_with_images_do_not_exclude_each_other() {
    let jobs = jobs(1, |job| job.terms.preflight = true);
    let kind = |preflight| Kind { standing: false, preflight };
    assert!(jobs.free_for("t0", 2, kind(true)).is_err() && jobs.free_for("t0", 2, kind(false)).is_ok());
}

#[test]
fn a_half_written_terminal_gets_no_preflight_after_the_window() {
    let mut jobs = jobs(1, |job| job.terms.preflight = true);
    assert!(matches!(jobs.offer("t0", true, &moment(1)), Offer::Now(_)));
    jobs.take("t0", "1", 7, at(1));
    assert!(matches!(jobs.offer("t0", true, &moment(10 * HOUR)), Offer::Later(_)));
}
