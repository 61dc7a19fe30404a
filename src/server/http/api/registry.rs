//! What people say of terminals: tables in and out, and one terminal described.
//!
//! Invariant: changes are taken only from the server itself (`local`). `lab` checks and applies them; a
//! table is stored in one transaction.

use axum::extract::rejection::{JsonRejection, QueryRejection, StringRejection};
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde::Deserialize;

use super::local::from_the_server_itself;
use super::named::meant;
use super::reply::{Error, Shared, conflict, error, keep};
use crate::api::{Describe, Imported};
use crate::server::domain::registry::Edit;
use crate::server::domain::registry::table::{self, Mistake};
use crate::server::http::listen::Ends;
use crate::sync;

const ON_THE_SERVER: &str = "Run the command on the server itself.";

/// `POST /api/v1/terminals/import`.
pub async fn import(
    State(app): Shared,
    Extension(ends): Extension<Ends>,
    headers: HeaderMap,
    body: Result<String, StringRejection>,
) -> Result<Json<Imported>, Error> {
    from_the_server_itself(ends, &headers, "import terminals", ON_THE_SERVER)?;
    let text =
        body.map_err(|e| error(e.status(), e.body_text(), "Send the file as text in UTF-8, at most 4 MiB."))?;
    let entries = table::read(&text).map_err(|mistakes| refuse(&mistakes))?;
    let config = app.config();
    let (imported, saved) = {
        let mut lab = sync::lock(&app.lab);
        let (imported, changes) = lab.import(&entries, &config).map_err(|mistakes| refuse(&mistakes))?;
        log::info!("an administrator imports {} terminals", entries.len());
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
#[derive(Debug, Clone, Copy, Deserialize)]
pub struct ExportQuery {
    /// Also the terminals that are listed as new.
    #[serde(default)]
    new: bool,
}

/// `GET /api/v1/terminals/export[?new=true]`.
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
pub async fn describe(
    State(app): Shared,
    Extension(ends): Extension<Ends>,
    Path(typed): Path<String>,
    headers: HeaderMap,
    body: Result<Json<Describe>, JsonRejection>,
) -> Result<StatusCode, Error> {
    from_the_server_itself(ends, &headers, "describe terminals", ON_THE_SERVER)?;
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
        let changes = lab.describe(&id, &edit, &config).map_err(conflict)?;
        log::info!("an administrator describes terminal {id}");
        app.store.save(changes)
    };
    app.arrange();
    keep(saved).await?;
    Ok(StatusCode::NO_CONTENT)
}
