//! Administrators' decisions: retry and cancel.
//!
//! Invariant: a decision is taken only from the server itself (`local`). `lab` carries it out.

use axum::Extension;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use serde::Deserialize;

use super::local::from_the_server_itself;
use super::reply::{Error, Shared, conflict, error, keep, stranger};
use crate::api::{Compare, Refusal};
use crate::server::app::App;
use crate::server::domain::config::Config;
use crate::server::domain::identity::{TerminalKey, usable_uuid};
use crate::server::domain::lab::{Change, Lab, Terminal, some_of};
use crate::server::domain::target::{Target, target_for};
use crate::server::http::listen::Ends;
use crate::sync;

/// The terminal that a person's input names: its name, any of its MACs, its UUID, or its label. An ambiguous
/// input names no terminal.
fn meant(lab: &Lab, config: &Config, typed: &str) -> Result<String, Error> {
    if let Some(terminal) = lab.get(typed) {
        return Ok(terminal.id.clone());
    }
    let key = typed.parse::<TerminalKey>();
    let by_uuid = usable_uuid(typed).map(TerminalKey::Uuid);
    let fits = |t: &&Terminal| {
        config.label(&lab.named(&t.identity, Some(&t.id))) == Some(typed)
            || key.as_ref().is_ok_and(|key| key.matches(&t.identity))
            || by_uuid.is_some_and(|key| key.matches(&t.identity))
    };
    let fitting: Vec<&str> = lab.iter().filter(fits).map(|t| t.id.as_str()).collect();
    match fitting[..] {
        [] => Err(stranger(typed)),
        [one] => Ok(one.to_owned()),
        _ => Err(conflict(Refusal {
            error: format!("'{typed}' fits {} terminals: {}", fitting.len(), some_of(&fitting)),
            advice: "Name the one that is meant by its own name: 'flashmob terminals' shows them all.".into(),
        })),
    }
}

async fn decide(
    app: &App,
    ends: Ends,
    headers: &HeaderMap,
    typed: &str,
    what: &str,
    change: impl FnOnce(&mut Lab, &str, Option<&Target>) -> Result<Vec<Change>, Refusal>,
) -> Result<StatusCode, Error> {
    let advice = "Run 'flashmob job …' on the server itself.";
    from_the_server_itself(ends, headers, "decide this", advice)?;
    let (config, repository) = (app.config(), app.repository());
    let saved = {
        let mut lab = sync::lock(&app.lab);
        let id = meant(&lab, &config, typed)?;
        let terminal = lab.get(&id).ok_or_else(|| stranger(typed))?;
        let who = lab.named(&terminal.identity, Some(&id));
        let target = target_for(&config, &repository.catalog, &who).ok().flatten();
        let changes = change(&mut lab, &id, target.as_ref()).map_err(conflict)?;
        log::info!("an administrator decides for terminal {id}: {what}");
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
