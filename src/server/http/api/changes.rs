//! The lab for viewers that follow it: what changed since they last looked.
//!
//! ```text
//!  lab, tracker ──looked at once a second, while somebody asks──► Board ──differences──► each viewer
//! ```
//!
//! Invariant: without viewers nothing is computed; with many, the lab is still written as JSON once a second.
//! A viewer that waits holds no lock.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};

use super::reply::{Error, Shared, error};
use super::views;
use crate::api::{Refusal, TerminalView};
use crate::event::Progress;
use crate::server::app::App;
use crate::server::domain::board::{Board, Fact, Kind};
use crate::sync;

/// Longest wait for news; below the time that a call may take.
const LONGEST_WAIT: u64 = 10;
/// The latest jobs that viewers follow.
const MOST_JOBS: usize = 200;

/// What a viewer knows.
#[derive(utoipa::IntoParams, Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct Since {
    /// The `version` of its last answer.
    since: Option<String>,
    /// Seconds that it waits for news.
    wait: u64,
}

/// The part of a terminal's row that changes each second.
#[derive(Serialize)]
struct Live<'a> {
    progress: &'a Option<Progress>,
    /// When it was last heard, by the clock of `now` in the answer.
    heard: Option<u64>,
}

/// `GET /api/v1/changes[?since=VERSION][&wait=SECONDS]`: terminals, jobs and the rest of the lab that changed
/// after `since`, or everything without it. The answer comes when there is news, or after `wait`.
#[utoipa::path(
    get,
    path = "/api/v1/changes",
    summary = "What changed in the lab since a version, as soon as there is something",
    tag = "views",
    params(Since),
    responses(
        (status = 200, description = "Done", body = Object),
        (status = "4XX", description = "Refused, with what to do", body = Refusal),
    )
)]
pub(crate) async fn changes(
    State(app): Shared,
    query: Result<Query<Since>, QueryRejection>,
) -> Result<Response, Error> {
    let advice = "since is the version of the last answer; wait is a number of seconds.";
    let Query(Since { since, wait }) = query.map_err(|e| error(e.status(), e.body_text(), advice))?;
    let until = app.now() + Duration::from_secs(wait.min(LONGEST_WAIT));
    let mut stopping = app.stopping.clone();
    loop {
        let pause = {
            let mut board = sync::lock(&app.board);
            refresh(&app, &mut board);
            let known = since.as_deref().and_then(|since| board.known(since));
            let now = app.now();
            if board.is_news(known) || now >= until || *stopping.borrow() {
                let body = board.changes(known).to_string();
                let headers =
                    [(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-store")];
                return Ok((headers, body).into_response());
            }
            board.stale_in(now).min(until.saturating_sub(now))
        };
        tokio::select! {
            () = tokio::time::sleep(pause.max(Duration::from_millis(10))) => {}
            // An error means that the server is gone.
            _ = stopping.wait_for(|stop| *stop) => {}
        }
    }
}

/// Looks at the lab, unless that was done within the last second.
fn refresh(app: &App, board: &mut Board) {
    let now = app.now();
    if board.is_stale(now) {
        board.update(now, facts(app));
    }
}

fn facts(app: &App) -> Vec<Fact> {
    let (rows, heard): (Vec<_>, Vec<_>) = views::heard_rows(app).into_iter().unzip();
    let mut lab = views::lab_of(app, &rows);
    let jobs = std::mem::take(&mut lab.jobs);
    let jobs = jobs.into_iter().take(MOST_JOBS).map(|job| Fact {
        kind: Kind::Job,
        key: job.number.to_string(),
        row: json(&job),
        live: String::new(),
    });
    let lab = Fact { kind: Kind::Lab, key: String::new(), row: json(&lab), live: String::new() };
    let mut facts: Vec<Fact> = jobs.chain([lab]).collect();
    facts.extend(rows.into_iter().zip(heard).map(|(row, heard)| terminal(row, heard)));
    facts
}

fn terminal(mut row: TerminalView, heard: Option<Duration>) -> Fact {
    let progress = row.progress.take();
    // `silent` changes each second, `heard` only when the terminal speaks.
    row.silent = None;
    let live = json(&Live { progress: &progress, heard: heard.map(|heard| heard.as_secs()) });
    Fact { kind: Kind::Terminal, key: row.id.clone(), row: json(&row), live }
}

/// These types have no keys or numbers that JSON lacks.
fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_else(|_| "null".into())
}

/// Gives a full list the board's version as its weak ETag, and answers 304 to those who have it: the list is
/// the same, but for how long each terminal has been silent.
pub(crate) async fn unless_known(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let tag = {
        let mut board = sync::lock(&app.board);
        refresh(&app, &mut board);
        format!("W/\"{}\"", board.version())
    };
    let known = request.headers().get_all(header::IF_NONE_MATCH).iter();
    let is_known = known.filter_map(|value| value.to_str().ok()).flat_map(|list| list.split(','));
    let is_known = is_known.map(str::trim).any(|known| known == tag);
    let mut response = match is_known {
        true => StatusCode::NOT_MODIFIED.into_response(),
        false => next.run(request).await,
    };
    if let (true, Ok(tag)) = (is_known || response.status().is_success(), HeaderValue::from_str(&tag)) {
        response.headers_mut().insert(header::ETAG, tag);
        response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    }
    response
}
