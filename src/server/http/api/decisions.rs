//! Administrators' decisions: retry, cancel, admit and forget.
//!
//! Invariant: a decision is taken only from a person who may act there (`access`), and is in the audit. `lab`
//! carries it out.

use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use serde::Deserialize;

use super::access::Caller;
use super::named::meant;
use super::reply::{Error, Shared, conflict, error, keep};
use crate::api::{Compare, Refusal};
use crate::server::app::App;
use crate::server::domain::lab::{Change, Lab};
use crate::sync;

async fn decide(
    app: &App,
    caller: &Caller,
    typed: &str,
    (what, detail): (&str, &str),
    change: impl FnOnce(&mut Lab, &str) -> Result<Vec<Change>, Refusal>,
) -> Result<StatusCode, Error> {
    caller.somebody(app, what, typed)?;
    let config = app.config();
    let saved = {
        let mut lab = sync::lock(&app.lab);
        let terminal = meant(&lab, &config, typed)?;
        let id = terminal.id.clone();
        caller.over(app, terminal.place.room.as_deref(), what, &id)?;
        let mut changes = change(&mut lab, &id).map_err(conflict)?;
        let title = lab.title(&config, &id);
        changes.push(caller.audit(app, what, &id, detail));
        log::info!(terminal = id; "an administrator decides for {title}: {what}");
        app.store.save(changes)
    };
    keep(saved).await?;
    Ok(StatusCode::NO_CONTENT)
}

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
    let at = app.moment();
    let compare_as = compare.map(|compare| format!("compare={}", compare.word()));
    let accepted = accept_disks.then(|| "accept_disks".to_string());
    let detail = compare_as.into_iter().chain(accepted).collect::<Vec<_>>().join(" ");
    let retry = |lab: &mut Lab, id: &str| lab.retry(&at, id, compare, accept_disks);
    decide(&app, &caller, &id, ("retry", &detail), retry).await
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
    decide(&app, &caller, &id, ("cancel", ""), |lab, id| lab.cancel(&at, id)).await
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
    let admit = |lab: &mut Lab, id: &str| {
        lab.let_in(now, id);
        Ok(Vec::new())
    };
    decide(&app, &caller, &id, ("admit", ""), admit).await
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
    let done = decide(&app, &caller, &id, ("forget", ""), |lab, id| lab.forget(now, id)).await;
    app.arrange();
    done
}
