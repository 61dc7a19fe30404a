//! Administrators' decisions: retry, cancel, admit and forget.
//!
//! Invariant: a decision is taken only from the server itself (`local`). `lab` carries it out.

use axum::Extension;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use serde::Deserialize;

use super::local::from_the_server_itself;
use super::named::meant;
use super::reply::{Error, Shared, conflict, error, keep};
use crate::api::{Compare, Refusal};
use crate::server::app::App;
use crate::server::domain::lab::{Change, Lab};
use crate::server::domain::target::{Target, target_for};
use crate::server::http::listen::Ends;
use crate::sync;

async fn decide(
    app: &App,
    ends: Ends,
    headers: &HeaderMap,
    typed: &str,
    what: &str,
    change: impl FnOnce(&mut Lab, &str, Option<&Target>) -> Result<Vec<Change>, Refusal>,
) -> Result<StatusCode, Error> {
    let advice = "Run the command on the server itself.";
    from_the_server_itself(ends, headers, "decide this", advice)?;
    let (config, repository) = (app.config(), app.repository());
    let saved = {
        let mut lab = sync::lock(&app.lab);
        let terminal = meant(&lab, &config, typed)?;
        let id = terminal.id.clone();
        let who = lab.named(&terminal.identity, Some(&id));
        let target = target_for(&config, &repository.catalog, &who).ok().flatten();
        let changes = change(&mut lab, &id, target.as_ref()).map_err(conflict)?;
        let title = lab.title(&config, &id);
        log::info!(terminal = id; "an administrator decides for {title}: {what}");
        app.store.save(changes)
    };
    keep(saved).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Options of a retry.
#[derive(Debug, Clone, Copy, Deserialize)]
pub struct RetryQuery {
    /// How pieces on the disk are found, instead of the job's choice.
    compare: Option<Compare>,
    /// The disks that the terminal has now are the ones that it should have.
    #[serde(default)]
    accept_disks: bool,
}

/// `POST /api/v1/terminals/{id}/retry[?compare=auto|full|trust&accept_disks=true]`.
pub async fn retry(
    State(app): Shared,
    Extension(ends): Extension<Ends>,
    Path(id): Path<String>,
    query: Result<Query<RetryQuery>, QueryRejection>,
    headers: HeaderMap,
) -> Result<StatusCode, Error> {
    let advice = "compare is auto, full or trust; accept_disks is true or false.";
    let Query(RetryQuery { compare, accept_disks }) =
        query.map_err(|e| error(e.status(), e.body_text(), advice))?;
    let now = app.now();
    let retry = |lab: &mut Lab, id: &str, _: Option<&Target>| lab.retry(now, id, compare, accept_disks);
    decide(&app, ends, &headers, &id, "retry", retry).await
}

/// `POST /api/v1/terminals/{id}/cancel`.
pub async fn cancel(
    State(app): Shared,
    Extension(ends): Extension<Ends>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<StatusCode, Error> {
    let now = app.now();
    decide(&app, ends, &headers, &id, "cancel", |lab, id, target| lab.cancel(now, id, target)).await
}

/// `POST /api/v1/terminals/{id}/admit`: the terminal may introduce itself without a ticket.
pub async fn admit(
    State(app): Shared,
    Extension(ends): Extension<Ends>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<StatusCode, Error> {
    let now = app.now();
    let admit = |lab: &mut Lab, id: &str, _: Option<&Target>| {
        lab.let_in(now, id);
        Ok(Vec::new())
    };
    decide(&app, ends, &headers, &id, "admit", admit).await
}

/// `DELETE /api/v1/terminals/{id}`.
pub async fn forget(
    State(app): Shared,
    Extension(ends): Extension<Ends>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<StatusCode, Error> {
    let now = app.now();
    let done = decide(&app, ends, &headers, &id, "forget", |lab, id, _| lab.forget(now, id)).await;
    app.arrange();
    done
}
