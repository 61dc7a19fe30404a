//! What people say of terminals: tables in and out, and one terminal described.
//!
//! Invariant: changes are taken only from administrators (`access`). `lab` checks and applies them; a
//! table is stored in one transaction.

use axum::Json;
use axum::extract::rejection::{JsonRejection, QueryRejection, StringRejection};
use axum::extract::{Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;

use super::access::Caller;
use super::named::meant;
use super::reply::{Error, Shared, conflict, error, keep};
use crate::api::{Describe, Imported, Refusal};
use crate::server::domain::registry::Edit;
use crate::server::domain::registry::table::{self, Mistake};
use crate::sync;

/// `POST /api/v1/terminals/import`.
#[utoipa::path(
    post,
    path = "/api/v1/terminals/import",
    summary = "Terminals from a table",
    tag = "decisions",
    request_body(content = String, content_type = "text/csv"),
    responses(
        (status = 200, description = "Done", body = Imported),
        (status = "4XX", description = "Refused, with what to do", body = Refusal),
        (status = 503, description = "The database cannot keep it now", body = Refusal),
    )
)]
pub async fn import(
    State(app): Shared,
    caller: Caller,
    body: Result<String, StringRejection>,
) -> Result<Json<Imported>, Error> {
    caller.admin(&app, "import", "")?;
    let text =
        body.map_err(|e| error(e.status(), e.body_text(), "Send the file as text in UTF-8, at most 4 MiB."))?;
    let entries = table::read(&text).map_err(|mistakes| refuse(&mistakes))?;
    let config = app.config();
    let (imported, saved) = {
        let mut lab = sync::lock(&app.lab);
        let (imported, mut changes) = lab.import(&entries, &config).map_err(|mistakes| refuse(&mistakes))?;
        log::info!("an administrator imports {} terminals", entries.len());
        let detail = format!("{} terminals", entries.len());
        changes.push(caller.audit(&app, "import", "", &detail));
        (imported, app.store.save(changes))
    };
    app.arrange();
    keep(saved).await?;
    Ok(Json(imported))
}

fn refuse(mistakes: &[Mistake]) -> Error {
    let advice = "Nothing was imported. Correct the file and import it again.";
    error(StatusCode::UNPROCESSABLE_ENTITY, table::describe(mistakes), advice)
}

/// Options of an export.
#[derive(utoipa::IntoParams, Debug, Clone, Copy, Deserialize)]
#[into_params(parameter_in = Query)]
pub struct ExportQuery {
    /// Also the terminals that are listed as new.
    #[serde(default)]
    new: bool,
}

/// `GET /api/v1/terminals/export[?new=true]`.
#[utoipa::path(
    get,
    path = "/api/v1/terminals/export",
    summary = "Terminals as a table",
    tag = "views",
    params(ExportQuery),
    responses(
        (status = 200, description = "The table", body = String, content_type = "text/csv"),
        (status = "4XX", description = "Refused, with what to do", body = Refusal),
    )
)]
pub async fn export(
    State(app): Shared,
    query: Result<Query<ExportQuery>, QueryRejection>,
) -> Result<Response, Error> {
    let Query(ExportQuery { new }) =
        query.map_err(|e| error(e.status(), e.body_text(), "new is true or false."))?;
    let text = sync::lock(&app.lab).export(&app.config(), new).map_err(|e| {
        error(StatusCode::INTERNAL_SERVER_ERROR, format!("writing the table: {e}"), "Look at the server.")
    })?;
    Ok(([(header::CONTENT_TYPE, "text/csv; charset=utf-8")], text).into_response())
}

/// `PATCH /api/v1/terminals/{id}`.
#[utoipa::path(
    patch,
    path = "/api/v1/terminals/{id}",
    summary = "A person describes a terminal",
    tag = "decisions",
    params(("id" = String, Path, description = "A name, label, MAC or UUID")),
    request_body = Describe,
    responses(
        (status = 204, description = "Done"),
        (status = "4XX", description = "Refused, with what to do", body = Refusal),
        (status = 503, description = "The database cannot keep it now", body = Refusal),
    )
)]
pub async fn describe(
    State(app): Shared,
    caller: Caller,
    Path(typed): Path<String>,
    body: Result<Json<Describe>, JsonRejection>,
) -> Result<StatusCode, Error> {
    caller.admin(&app, "set", &typed)?;
    let Json(Describe { label, room, seat, join, leave, hostname }) = body.map_err(|e| {
        error(e.status(), e.body_text(), "Send JSON with label, room, seat, join, leave, hostname.")
    })?;
    let config = app.config();
    let saved = {
        let mut lab = sync::lock(&app.lab);
        let terminal = meant(&lab, &config, &typed)?;
        let id = terminal.id.clone();
        let mut groups = terminal.place.groups.clone();
        groups.retain(|group| !leave.contains(group));
        let joined: Vec<String> = join.into_iter().filter(|group| !groups.contains(group)).collect();
        groups.extend(joined);
        let edit = Edit { label, room, seat, groups: Some(groups), hostname };
        let mut changes = lab.describe(&id, &edit, &config).map_err(conflict)?;
        log::info!("an administrator describes terminal {id}");
        changes.push(caller.audit(&app, "set", &id, &words_of(&edit)));
        app.store.save(changes)
    };
    app.arrange();
    keep(saved).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// What an edit changes, for people.
fn words_of(edit: &Edit) -> String {
    let Edit { label, room, seat, groups, hostname } = edit;
    let groups = groups.as_ref().map(|groups| groups.join(";"));
    let all = [("label", label), ("room", room), ("seat", seat), ("groups", &groups), ("hostname", hostname)];
    let changed = all.into_iter().filter_map(|(name, value)| Some(format!("{name}={}", value.as_ref()?)));
    changed.collect::<Vec<_>>().join(" ")
}
