//! Decisions for several terminals at once: retry, cancel, forget. `registry` describes several.
//!
//! Invariant: an unknown target, or a terminal on which the caller may not act, refuses the whole decision
//! before anything changes (`decide`). The answer says for each terminal what becomes of it. A target that
//! means several terminals neither starts one that is done nor forgets one, unless the person says so.

use std::collections::BTreeSet;
use std::time::Duration;

use axum::Json;
use axum::extract::State;

use super::access::Caller;
use super::decide::{Said, Whom, decide};
use super::reply::{Body, Error, Shared, read};
use crate::api::{Compare, Decided, ForgetTerminals, Refusal, RetryTerminals, Targets};
use crate::server::domain::jobs::{Each, Left, Moment};
use crate::server::domain::lab::{Change, Lab, some_of};
use crate::server::domain::targets::Meant;

/// How a retry differs from the job's terms, for the audit.
pub(super) fn words_of_retry(compare: Option<Compare>, accept_disks: bool) -> String {
    let compare = compare.map(|compare| format!("compare={}", compare.word()));
    let accepted = accept_disks.then(|| "accept_disks".to_string());
    compare.into_iter().chain(accepted).collect::<Vec<_>>().join(" ")
}

pub(super) fn retry_them(
    lab: &mut Lab,
    meant: &Meant,
    (compare, accept_disks): (Option<Compare>, bool),
    at: &Moment,
) -> (Each<Said>, Vec<Change>) {
    let (each, changes) = lab.retry_terminals(at, meant, compare, accept_disks);
    let said = |number| Said::new(format!("begins again with job {number} when it boots from the network"));
    (each.into_iter().map(|(id, answer)| (id, answer.map(said))).collect(), changes)
}

/// `POST /api/v1/decisions/retry`.
#[utoipa::path(
    post,
    operation_id = "retry_terminals",
    path = "/api/v1/decisions/retry",
    summary = "Another attempt of several terminals, each with its latest job",
    tag = "decisions",
    request_body = RetryTerminals,
    responses(
        (status = 200, description = "What becomes of each terminal", body = Vec<Decided>),
        (status = "4XX", description = "Refused, with what to do; nothing changed", body = Refusal),
        (status = 503, description = "The database cannot keep it now", body = Refusal),
    )
)]
pub async fn retry_terminals(
    State(app): Shared,
    caller: Caller,
    body: Body<RetryTerminals>,
) -> Result<Json<Vec<Decided>>, Error> {
    caller.somebody(&app, "retry", "")?;
    let RetryTerminals { targets, compare, accept_disks } = read(body)?;
    let (at, detail) = (app.moment(), words_of_retry(compare, accept_disks));
    let retry = |lab: &mut Lab, meant: &Meant| match accept_disks && !meant.are_all_alone() {
        true => Err(Refusal {
            error: "disks are accepted only for terminals that are named one by one".into(),
            advice: "Look at the disks of each ('flashmob terminal show'), and name it by its label or MAC."
                .into(),
        }),
        false => Ok(retry_them(lab, meant, (compare, accept_disks), &at)),
    };
    decide(&app, &caller, Whom::Targets(&targets), ("retry", &detail), retry).await.map(Json)
}

pub(super) fn cancel_them(lab: &mut Lab, meant: &Meant, at: &Moment) -> (Each<Said>, Vec<Change>) {
    let (each, changes) = lab.cancel_terminals(at, &meant.ids);
    let said = |Left { jobs, running }| {
        let jobs: Vec<String> = jobs.iter().map(ToString::to_string).collect();
        let jobs = format!("{} {}", if jobs.len() == 1 { "job" } else { "jobs" }, jobs.join(", "));
        Said::new(match running {
            true => format!("is told to stop, and has left {jobs}"),
            false => format!("will not begin, and has left {jobs}"),
        })
    };
    (each.into_iter().map(|(id, answer)| (id, answer.map(said))).collect(), changes)
}

/// `POST /api/v1/decisions/cancel`.
#[utoipa::path(
    post,
    operation_id = "cancel_terminals",
    path = "/api/v1/decisions/cancel",
    summary = "Stop the attempts of several terminals, or keep waiting ones from starting",
    tag = "decisions",
    request_body = Targets,
    responses(
        (status = 200, description = "What becomes of each terminal", body = Vec<Decided>),
        (status = "4XX", description = "Refused, with what to do; nothing changed", body = Refusal),
        (status = 503, description = "The database cannot keep it now", body = Refusal),
    )
)]
pub async fn cancel_terminals(
    State(app): Shared,
    caller: Caller,
    body: Body<Targets>,
) -> Result<Json<Vec<Decided>>, Error> {
    caller.somebody(&app, "cancel", "")?;
    let Targets { targets } = read(body)?;
    let at = app.moment();
    let cancel = |lab: &mut Lab, meant: &Meant| Ok(cancel_them(lab, meant, &at));
    decide(&app, &caller, Whom::Targets(&targets), ("cancel", ""), cancel).await.map(Json)
}

pub(super) fn forget_them(
    lab: &mut Lab,
    meant: &Meant,
    now: Duration,
) -> Result<(Each<Said>, Vec<Change>), Refusal> {
    let half_written: BTreeSet<&String> = meant.ids.iter().filter(|id| lab.is_half_written(id)).collect();
    let changes = lab.forget(now, &meant.ids)?;
    let said = |id: &String| Said {
        advice: match half_written.contains(id) {
            true => "WARNING: one of its disks holds half a system, and the server no longer knows.".into(),
            false => String::new(),
        },
        ..Said::new("is forgotten with its attempts. It is new when it comes again")
    };
    Ok((meant.ids.iter().map(|id| (id.clone(), Ok(said(id)))).collect(), changes))
}

/// `POST /api/v1/decisions/forget`.
#[utoipa::path(
    post,
    operation_id = "forget_terminals",
    path = "/api/v1/decisions/forget",
    summary = "Forget several terminals and their attempts",
    tag = "decisions",
    request_body = ForgetTerminals,
    responses(
        (status = 200, description = "What becomes of each terminal", body = Vec<Decided>),
        (status = "4XX", description = "Refused, with what to do; nothing changed", body = Refusal),
        (status = 503, description = "The database cannot keep it now", body = Refusal),
    )
)]
pub async fn forget_terminals(
    State(app): Shared,
    caller: Caller,
    body: Body<ForgetTerminals>,
) -> Result<Json<Vec<Decided>>, Error> {
    caller.admin(&app, "forget", "")?;
    let ForgetTerminals { targets, all_of_them } = read(body)?;
    let (config, now) = (app.config(), app.now());
    let forget = |lab: &mut Lab, meant: &Meant| match all_of_them || meant.are_all_alone() {
        true => forget_them(lab, meant, now),
        false => {
            let titles: Vec<String> = meant.ids.iter().map(|id| lab.title(&config, id)).collect();
            let titles: Vec<&str> = titles.iter().map(String::as_str).collect();
            let half = meant.ids.iter().filter(|id| lab.is_half_written(id)).count();
            let half = match half {
                0 => String::new(),
                n => format!("; half a system is on a disk of {n} of them"),
            };
            let (count, some) = (titles.len(), some_of(&titles));
            Err(Refusal {
                error: format!("this would forget {count} terminals with their attempts: {some}{half}"),
                advice: "If all of them are gone, repeat it with --all-of-them; else name each one.".into(),
            })
        }
    };
    let done = decide(&app, &caller, Whom::Targets(&targets), ("forget", ""), forget).await;
    app.arrange();
    done.map(Json)
}
