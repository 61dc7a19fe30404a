//! Tokens of people, and the audit of what they did: for administrators.
//!
//! Invariant: a token is in one answer only, that of the call that made it.

use axum::Json;
use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use serde::Deserialize;

use super::access::Caller;
use super::reply::{Error, Shared, conflict, error, keep, random_secret, unkept};
use crate::api::{AuditEntry, NewToken, Refusal, TokenMade, TokenView};
use crate::server::app::App;
use crate::server::domain::lab::date;
use crate::server::domain::people::{Person, Role};
use crate::sync;

/// Most entries of one answer.
const MOST: usize = 10_000;

fn view(person: &Person) -> TokenView {
    TokenView {
        name: person.name.clone(),
        role: person.role.word().into(),
        room: person.role.room().map(Into::into),
        created: date(person.created),
    }
}

/// `GET /api/v1/tokens`.
#[utoipa::path(
    get,
    path = "/api/v1/tokens",
    summary = "The tokens of people",
    tag = "people",
    responses(
        (status = 200, description = "All tokens", body = Vec<TokenView>),
        (status = "4XX", description = "Refused, with what to do", body = Refusal),
        (status = 503, description = "The database cannot keep it now", body = Refusal),
    )
)]
pub async fn tokens(State(app): Shared, caller: Caller) -> Result<Json<Vec<TokenView>>, Error> {
    caller.admin(&app, "token list", "")?;
    Ok(Json(sync::read(&app.people).iter().map(view).collect()))
}

/// `POST /api/v1/tokens`.
#[utoipa::path(
    post,
    path = "/api/v1/tokens",
    summary = "Make a token",
    request_body = NewToken,
    tag = "people",
    responses(
        (status = 200, description = "Made", body = TokenMade),
        (status = "4XX", description = "Refused, with what to do", body = Refusal),
        (status = 503, description = "The database cannot keep it now", body = Refusal),
    )
)]
pub async fn create_token(
    State(app): Shared,
    caller: Caller,
    body: Result<Json<NewToken>, JsonRejection>,
) -> Result<Json<TokenMade>, Error> {
    caller.admin(&app, "token create", "")?;
    let Json(NewToken { name, role, room }) =
        body.map_err(|e| error(e.status(), e.body_text(), "Send JSON with name, role, room."))?;
    let role = Role::read(&role, room).map_err(conflict)?;
    let token = random_secret()?;
    let (person, saved) = {
        let mut people = sync::write(&app.people);
        let (person, change) = people.create(app.now(), name.as_deref(), role, &token).map_err(conflict)?;
        let detail = person.role.room().map_or_else(|| "admin".into(), |room| format!("teacher of {room}"));
        log::info!("a token is made for '{}', {detail}", person.name);
        let entry = caller.audit(&app, "token create", &person.name, &detail);
        (person, app.store.save(vec![change, entry]))
    };
    keep(saved).await?;
    let warning = person.role.room().and_then(|room| empty_room(&app, room));
    Ok(Json(TokenMade { token, view: view(&person), warning }))
}

/// Says that no terminal has the room of a teacher.
fn empty_room(app: &App, room: &str) -> Option<String> {
    let lab = sync::lock(&app.lab);
    let empty = lab.iter().all(|terminal| terminal.place.room.as_deref() != Some(room));
    empty.then(|| format!("no terminal is in room {room} yet: 'flashmob terminal list' shows the rooms"))
}

/// `DELETE /api/v1/tokens/{name}`.
#[utoipa::path(
    delete,
    path = "/api/v1/tokens/{name}",
    summary = "Revoke a token",
    params(("name" = String, Path, description = "Whose token it is")),
    tag = "people",
    responses(
        (status = 204, description = "Done"),
        (status = "4XX", description = "Refused, with what to do", body = Refusal),
        (status = 503, description = "The database cannot keep it now", body = Refusal),
    )
)]
pub async fn revoke_token(
    State(app): Shared,
    caller: Caller,
    Path(name): Path<String>,
) -> Result<StatusCode, Error> {
    caller.admin(&app, "token revoke", &name)?;
    let saved = {
        let mut people = sync::write(&app.people);
        let change = people
            .revoke(&name)
            .map_err(|refusal| error(StatusCode::NOT_FOUND, refusal.error, refusal.advice))?;
        log::info!("the token of '{name}' is revoked");
        app.store.save(vec![change, caller.audit(&app, "token revoke", &name, "")])
    };
    keep(saved).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Options of a look at the audit.
#[derive(utoipa::IntoParams, Debug, Clone, Copy, Deserialize)]
#[into_params(parameter_in = Query)]
pub struct AuditQuery {
    /// Seconds since 1970; entries before it are left out.
    #[serde(default)]
    since: u64,
}

/// `GET /api/v1/audit[?since=SECONDS]`: the latest entries, the oldest of them first.
#[utoipa::path(
    get,
    path = "/api/v1/audit",
    summary = "What people did",
    params(AuditQuery),
    tag = "people",
    responses(
        (status = 200, description = "The latest entries", body = Vec<AuditEntry>),
        (status = "4XX", description = "Refused, with what to do", body = Refusal),
        (status = 503, description = "The database cannot keep it now", body = Refusal),
    )
)]
pub async fn audit(
    State(app): Shared,
    caller: Caller,
    query: Result<Query<AuditQuery>, QueryRejection>,
) -> Result<Json<Vec<AuditEntry>>, Error> {
    caller.admin(&app, "audit", "")?;
    let Query(AuditQuery { since }) =
        query.map_err(|e| error(e.status(), e.body_text(), "since is a number of seconds since 1970."))?;
    let entries =
        app.store.audit(std::time::Duration::from_secs(since), MOST).await.map_err(|e| unkept(&e))?;
    let view = |entry: crate::server::domain::audit::Entry| AuditEntry {
        at: date(entry.at),
        who: entry.who,
        action: entry.action,
        subject: entry.subject,
        detail: entry.detail,
    };
    Ok(Json(entries.into_iter().map(view).collect()))
}
