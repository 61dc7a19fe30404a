//! Administrators' decisions: retry, cancel, admit and forget. `together` takes them for several terminals.
//!
//! Invariant: a decision is taken only from a person who may act there (`access`), and is in the audit. `lab`
//! carries it out.

use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use serde::Deserialize;

use super::access::Caller;
use super::decide::{Said, Whom, decide};
use super::reply::{Error, Shared, error};
use super::together::{cancel_them, forget_them, retry_them, words_of_retry};
use crate::api::{Compare, Refusal};
use crate::server::domain::lab::Lab;
use crate::server::domain::targets::Meant;

/// Options of a retry.
#[derive(utoipa::IntoParams, Debug, Clone, Copy, Deserialize)]
#[into_params(parameter_in = Query)]
pub struct RetryQuery {
    /// How pieces on the disk are found, instead of the job's choice.
    compare: Option<Compare>,
    /// The disks that the terminal has now are the ones that it should have.
    #[serde(default)]
    accept_disks: bool,
}

/// `POST /api/v1/terminals/{id}/retry[?compare=auto|full|trust&accept_disks=true]`.
#[utoipa::path(
    post,
    path = "/api/v1/terminals/{id}/retry",
    summary = "Another attempt",
    tag = "decisions",
    params(("id" = String, Path, description = "A name, label, MAC or UUID"), RetryQuery),
    responses(
        (status = 204, description = "Done"),
        (status = "4XX", description = "Refused, with what to do", body = Refusal),
        (status = 503, description = "The database cannot keep it now", body = Refusal),
    )
)]
pub async fn retry(
    State(app): Shared,
    caller: Caller,
    Path(id): Path<String>,
    query: Result<Query<RetryQuery>, QueryRejection>,
) -> Result<StatusCode, Error> {
    let advice = "compare is auto, full or trust; accept_disks is true or false.";
    let Query(RetryQuery { compare, accept_disks }) =
        query.map_err(|e| error(e.status(), e.body_text(), advice))?;
    let (at, detail) = (app.moment(), words_of_retry(compare, accept_disks));
    let retry = |lab: &mut Lab, meant: &Meant| Ok(retry_them(lab, meant, (compare, accept_disks), &at));
    decide(&app, &caller, Whom::One(&id), ("retry", &detail), retry).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `POST /api/v1/terminals/{id}/cancel`.
#[utoipa::path(
    post,
    path = "/api/v1/terminals/{id}/cancel",
    summary = "Stop an attempt, or keep a waiting one from starting",
    tag = "decisions",
    params(("id" = String, Path, description = "A name, label, MAC or UUID")),
    responses(
        (status = 204, description = "Done"),
        (status = "4XX", description = "Refused, with what to do", body = Refusal),
        (status = 503, description = "The database cannot keep it now", body = Refusal),
    )
)]
pub async fn cancel(State(app): Shared, caller: Caller, Path(id): Path<String>) -> Result<StatusCode, Error> {
    let at = app.moment();
    let cancel = |lab: &mut Lab, meant: &Meant| Ok(cancel_them(lab, meant, &at));
    decide(&app, &caller, Whom::One(&id), ("cancel", ""), cancel).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `POST /api/v1/terminals/{id}/admit`: the terminal may introduce itself without a ticket.
#[utoipa::path(
    post,
    path = "/api/v1/terminals/{id}/admit",
    summary = "The terminal may introduce itself without a ticket",
    tag = "decisions",
    params(("id" = String, Path, description = "A name, label, MAC or UUID")),
    responses(
        (status = 204, description = "Done"),
        (status = "4XX", description = "Refused, with what to do", body = Refusal),
        (status = 503, description = "The database cannot keep it now", body = Refusal),
    )
)]
pub async fn admit(State(app): Shared, caller: Caller, Path(id): Path<String>) -> Result<StatusCode, Error> {
    let now = app.now();
    let admit = |lab: &mut Lab, meant: &Meant| {
        let let_in = |id: &String| {
            lab.let_in(now, id);
            (id.clone(), Ok(Said::default()))
        };
        Ok((meant.ids.iter().map(let_in).collect(), Vec::new()))
    };
    decide(&app, &caller, Whom::One(&id), ("admit", ""), admit).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `DELETE /api/v1/terminals/{id}`.
#[utoipa::path(
    delete,
    path = "/api/v1/terminals/{id}",
    summary = "Forget a terminal and its attempts",
    tag = "decisions",
    params(("id" = String, Path, description = "A name, label, MAC or UUID")),
    responses(
        (status = 204, description = "Done"),
        (status = "4XX", description = "Refused, with what to do", body = Refusal),
        (status = 503, description = "The database cannot keep it now", body = Refusal),
    )
)]
pub async fn forget(State(app): Shared, caller: Caller, Path(id): Path<String>) -> Result<StatusCode, Error> {
    caller.admin(&app, "forget", &id)?;
    let now = app.now();
    let forget = |lab: &mut Lab, meant: &Meant| forget_them(lab, meant, now);
    let done = decide(&app, &caller, Whom::One(&id), ("forget", ""), forget).await;
    app.arrange();
    done.map(|_| StatusCode::NO_CONTENT)
}
