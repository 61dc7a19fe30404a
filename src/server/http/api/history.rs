//! What was: attempts of the past, and earlier runs of standing jobs.
//!
//! Invariant: a view changes nothing, has no token in it, and its length is bounded.

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use serde::Deserialize;

use super::named::meant;
use super::reply::{Error, Shared, error, unkept};
use crate::api::{AttemptView, PastAttempt, Refusal};
use crate::server::domain::jobs::{MemberView, PastRun};
use crate::server::domain::lab::{date, stages};
use crate::server::domain::personal::Personal;
use crate::server::store::{Past, WhichAttempts};
use crate::sync;

/// Most attempts in one answer.
const MOST: u32 = 1000;
/// Attempts in an answer if the caller names no number.
const SOME: u32 = 100;

/// Which attempts are wanted: those that fit all that is named.
#[derive(utoipa::IntoParams, Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct AttemptsQuery {
    /// A name, label, MAC or UUID.
    terminal: Option<String>,
    /// A job's number, or `by-hand`.
    job: Option<String>,
    /// At most 1000; 100 if it is left out.
    limit: Option<u32>,
}

/// `GET /api/v1/attempts[?terminal=ID&job=N&limit=N]`.
#[utoipa::path(
    get,
    path = "/api/v1/attempts",
    summary = "Attempts, the newest first",
    tag = "views",
    params(AttemptsQuery),
    responses(
        (status = 200, description = "Attempts", body = Vec<PastAttempt>),
        (status = "4XX", description = "Refused, with what to do", body = Refusal),
        (status = 503, description = "The database cannot be read now", body = Refusal),
    )
)]
pub async fn attempts(
    State(app): Shared,
    query: Result<Query<AttemptsQuery>, QueryRejection>,
) -> Result<Json<Vec<PastAttempt>>, Error> {
    let advice = "terminal is a label, a MAC or a UUID; job is a number; limit is at most 1000.";
    let Query(AttemptsQuery { terminal, job, limit }) =
        query.map_err(|e| error(e.status(), e.body_text(), advice))?;
    let most = limit.unwrap_or(SOME);
    if !(1..=MOST).contains(&most) {
        let what = format!("limit is {most}, and an answer has 1 to {MOST} attempts");
        return Err(error(StatusCode::BAD_REQUEST, what, advice));
    }
    let config = app.config();
    let id =
        |typed: String| meant(&sync::lock(&app.lab), &config, &typed).map(|terminal| terminal.id.clone());
    let terminal = terminal.map(id).transpose()?;
    let found = app.store.attempts(WhichAttempts { terminal, job, most }).await.map_err(|e| unkept(&e))?;
    Ok(Json(found.into_iter().map(shown).collect()))
}

fn shown(past: Past) -> PastAttempt {
    PastAttempt {
        terminal: past.terminal,
        attempt: AttemptView {
            number: past.number,
            job: past.job,
            images: past.images,
            started: date(past.started),
            heard: date(past.heard),
            ended: past.ended.map(date),
            tries: past.tries,
            cancelled: past.cancelled,
            personal: past.personal.as_ref().map(Personal::view),
            stages: stages(&past.course, past.heard),
        },
        outcome: past.outcome,
    }
}

/// `GET /api/v1/jobs/{number}/runs/{run}`.
#[utoipa::path(
    get,
    operation_id = "job_run",
    path = "/api/v1/jobs/{number}/runs/{run}",
    summary = "The terminals of one run of a job",
    tag = "jobs",
    params(
        ("number" = u64, Path, description = "The job's number"),
        ("run" = u32, Path, description = "Counted from 1; only standing jobs have more"),
    ),
    responses(
        (status = 200, description = "The run", body = PastRun),
        (status = "4XX", description = "Refused, with what to do", body = Refusal),
        (status = 503, description = "The database cannot be read now", body = Refusal),
    )
)]
pub async fn run(State(app): Shared, Path((number, run)): Path<(u64, u32)>) -> Result<Json<PastRun>, Error> {
    let latest = {
        let lab = sync::lock(&app.lab);
        super::jobs::found(&lab, number)?.run.number
    };
    let members = app.store.run_of_job(number, run).await.map_err(|e| unkept(&e))?;
    if members.is_empty() {
        let advice = format!("It has had runs 1 to {latest}; old ones go by [history] keep_days.");
        let what = format!("nothing is known of run {run} of job {number}");
        return Err(error(StatusCode::NOT_FOUND, what, advice));
    }
    let config = app.config();
    let lab = sync::lock(&app.lab);
    let label = |id: &str| lab.get(id).and_then(|terminal| lab.label(&config, terminal)).map(str::to_owned);
    let rows = members.iter().map(|(id, member)| MemberView::of(id, member, label(id)));
    Ok(Json(PastRun::of(number, run, rows.collect())))
}
