//! What people say of terminals: tables in and out, and terminals described.
//!
//! Invariant: changes are taken only from administrators (`access`). `lab` checks and applies them; a
//! table is stored in one transaction.

use std::collections::BTreeSet;

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, JsonRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;

use super::access::Caller;
use super::decide::{Said, Whom, decide};
use super::reply::{Body, Error, Shared, error, keep, read};
use crate::api::{Decided, Describe, DescribeTerminals, Imported, Refusal};
use crate::server::domain::config::Config;
use crate::server::domain::jobs::Each;
use crate::server::domain::lab::{Change, Lab};
use crate::server::domain::registry::Edit;
use crate::server::domain::registry::table::{self, Mistake};
use crate::server::domain::targets::Meant;
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
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Imported>, Error> {
    caller.admin(&app, "import", "")?;
    let bytes = body.map_err(|e| error(e.status(), e.body_text(), "A table has at most 4 MiB."))?;
    let text = table::text_of(&bytes).map_err(|mistake| refuse(&[mistake]))?;
    let entries = table::read(text).map_err(|mistakes| refuse(&mistakes))?;
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
    let Json(set) = body.map_err(|e| {
        error(e.status(), e.body_text(), "Send JSON with label, room, seat, join, leave, hostname.")
    })?;
    let (config, detail) = (app.config(), words_of(&set));
    let describe = |lab: &mut Lab, meant: &Meant| describe_them(lab, meant, &set, &config);
    let done = decide(&app, &caller, Whom::One(&typed), ("set", &detail), describe).await;
    app.arrange();
    done.map(|_| StatusCode::NO_CONTENT)
}

/// What `set` makes of a terminal that is in these groups.
fn edit(set: &Describe, mut groups: Vec<String>) -> Edit {
    let Describe { label, room, seat, join, leave, hostname } = set.clone();
    groups.retain(|group| !leave.contains(group));
    let joined: Vec<String> = join.into_iter().filter(|group| !groups.contains(group)).collect();
    groups.extend(joined);
    Edit { label, room, seat, groups: Some(groups), hostname }
}

/// Describes terminals alike. A label, a seat and a host name are one terminal's; several can only lose them.
fn describe_them(
    lab: &mut Lab,
    meant: &Meant,
    set: &Describe,
    config: &Config,
) -> Result<(Each<Said>, Vec<Change>), Refusal> {
    let own = [("label", &set.label), ("seat", &set.seat), ("host name", &set.hostname)];
    let given = own.iter().find(|(_, word)| word.as_ref().is_some_and(|word| !word.is_empty()));
    if let Some((name, word)) = given.filter(|_| meant.ids.len() > 1) {
        let (count, word) = (meant.ids.len(), word.as_deref().unwrap_or_default());
        return Err(Refusal {
            error: format!("{count} terminals cannot all have the {name} '{word}'"),
            advice: "Name one terminal, or describe each in a table: 'flashmob terminal import FILE.csv'."
                .into(),
        });
    }
    let terminals = meant.ids.iter().filter_map(|id| lab.get(id));
    let edits = terminals.map(|terminal| (terminal.id.clone(), edit(set, terminal.place.groups.clone())));
    let edits: Vec<(String, Edit)> = edits.collect();
    let changes = lab.describe(&edits, config)?;
    let changed: BTreeSet<&str> = changes
        .iter()
        .filter_map(|change| match change {
            Change::Terminal(terminal) => Some(terminal.id.as_str()),
            _ => None,
        })
        .collect();
    let words = words_of(set);
    let said = |(id, _): (String, Edit)| {
        let said = match changed.contains(id.as_str()) {
            true if words.is_empty() => Said::new("is registered"),
            true => Said::new(format!("is described: {words}")),
            false => Said { unchanged: true, ..Said::new("is so already") },
        };
        (id, Ok(said))
    };
    let each = edits.into_iter().map(said).collect();
    Ok((each, changes))
}

/// `POST /api/v1/decisions/set`.
#[utoipa::path(
    post,
    operation_id = "describe_terminals",
    path = "/api/v1/decisions/set",
    summary = "A person describes several terminals alike",
    tag = "decisions",
    request_body = DescribeTerminals,
    responses(
        (status = 200, description = "What becomes of each terminal", body = Vec<Decided>),
        (status = "4XX", description = "Refused, with what to do; nothing changed", body = Refusal),
        (status = 503, description = "The database cannot keep it now", body = Refusal),
    )
)]
pub async fn describe_terminals(
    State(app): Shared,
    caller: Caller,
    body: Body<DescribeTerminals>,
) -> Result<Json<Vec<Decided>>, Error> {
    caller.admin(&app, "set", "")?;
    let DescribeTerminals { targets, set } = read(body)?;
    let (config, detail) = (app.config(), words_of(&set));
    let describe = |lab: &mut Lab, meant: &Meant| describe_them(lab, meant, &set, &config);
    let done = decide(&app, &caller, Whom::Targets(&targets), ("set", &detail), describe).await;
    app.arrange();
    done.map(Json)
}

/// What a description changes, for people.
fn words_of(set: &Describe) -> String {
    let Describe { label, room, seat, join, leave, hostname } = set;
    let list = |groups: &Vec<String>| (!groups.is_empty()).then(|| groups.join(";"));
    let (join, leave) = (list(join), list(leave));
    let all = [
        ("label", label),
        ("room", room),
        ("seat", seat),
        ("join", &join),
        ("leave", &leave),
        ("hostname", hostname),
    ];
    let changed = all.into_iter().filter_map(|(name, value)| Some(format!("{name}={}", value.as_ref()?)));
    changed.collect::<Vec<_>>().join(" ")
}
