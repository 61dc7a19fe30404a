//! Views for people: the terminals' rows, one terminal in full, images with their swarms, jobs, zones. The
//! page, the metrics and the command line show them.
//!
//! Invariant: a view changes no state, except that the tracker forgets peers that are gone.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};

use super::named::meant;
use super::reply::{Error, Shared, error};
use crate::api::{Refusal, TerminalDetails, TerminalState, TerminalView};
use crate::server::app::App;
use crate::server::domain::catalog::{Problem, Published};
use crate::server::domain::config::Config;
use crate::server::domain::jobs::JobView;
use crate::server::domain::lab::{Lab, Terminal};
use crate::server::domain::targets::{TargetExpr, resolve};
use crate::server::domain::ties::Ties;
use crate::server::domain::zones::{self, ZoneView};
use crate::swarm::SwarmStats;
use crate::sync;

/// Which terminals are wanted: those that fit all that is named.
#[derive(utoipa::IntoParams, Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Wanted {
    room: Option<String>,
    group: Option<String>,
    /// Only those that no person has registered.
    new: bool,
}

/// `GET /api/v1/terminals[?room=NAME&group=NAME&new=true]`.
#[utoipa::path(
    get,
    path = "/api/v1/terminals",
    summary = "A row for each terminal",
    tag = "views",
    params(Wanted),
    responses(
        (status = 200, description = "Done", body = Vec<TerminalView>),
        (status = "4XX", description = "Refused, with what to do", body = Refusal),
    )
)]
pub async fn terminals(
    State(app): Shared,
    query: Result<Query<Wanted>, QueryRejection>,
) -> Result<Json<Vec<TerminalView>>, Error> {
    let advice = "room and group are names; new is true or false.";
    let Query(wanted) = query.map_err(|e| error(e.status(), e.body_text(), advice))?;
    let view = Rows::of(&app);
    let lab = sync::lock(&app.lab);
    let (room, group) = (wanted.room.map(TargetExpr::Room), wanted.group.map(TargetExpr::Group));
    let named = room.into_iter().chain(group).map(|target| {
        let ids = resolve(&lab, &view.config, &view.ties.topology, &[target]).map_err(unknown)?;
        Ok(ids.into_iter().collect::<HashSet<String>>())
    });
    let named: Vec<HashSet<String>> = named.collect::<Result<_, Error>>()?;
    let fits = |t: &&Terminal| (!wanted.new || !t.accepted) && named.iter().all(|ids| ids.contains(&t.id));
    Ok(Json(lab.iter().filter(fits).map(|terminal| view.row(&lab, terminal)).collect()))
}

fn unknown(refusal: Refusal) -> Error {
    error(StatusCode::NOT_FOUND, refusal.error, refusal.advice)
}

/// All rows of the lab.
pub fn rows(app: &App) -> Vec<TerminalView> {
    heard_rows(app).into_iter().map(|(row, _)| row).collect()
}

/// All rows of the lab, and when each terminal was last heard.
pub(super) fn heard_rows(app: &App) -> Vec<(TerminalView, Option<Duration>)> {
    let view = Rows::of(app);
    let lab = sync::lock(&app.lab);
    lab.iter().map(|terminal| (view.row(&lab, terminal), terminal.heard)).collect()
}

/// `GET /api/v1/terminals/{id}`, where `id` may also be a label, a MAC or a UUID.
#[utoipa::path(
    get,
    path = "/api/v1/terminals/{id}",
    summary = "One terminal in full",
    tag = "views",
    params(("id" = String, Path, description = "A name, label, MAC or UUID")),
    responses(
        (status = 200, description = "Done", body = TerminalDetails),
        (status = "4XX", description = "Refused, with what to do", body = Refusal),
    )
)]
pub async fn terminal(State(app): Shared, Path(typed): Path<String>) -> Result<Json<TerminalDetails>, Error> {
    let view = Rows::of(&app);
    let lab = sync::lock(&app.lab);
    let terminal = meant(&lab, &view.config, &typed)?;
    Ok(Json(terminal.details(view.row(&lab, terminal), lab.netboot_of(&terminal.id))))
}

/// The facts that rows need, as of one moment.
struct Rows {
    config: Arc<Config>,
    ties: Ties,
    now: Duration,
}

impl Rows {
    fn of(app: &App) -> Self {
        Rows { config: app.config(), ties: app.ties(), now: app.now() }
    }

    fn row(&self, lab: &Lab, terminal: &Terminal) -> TerminalView {
        let label = lab.label(&self.config, terminal);
        let place = lab.jobs().current(&terminal.id);
        let mut row = terminal.view(label, lab.notes(terminal), place, &self.ties, self.now);
        if let (TerminalState::Waiting, Some(job)) = (row.state, row.job) {
            row.reason = lab.jobs().why_not_yet(&terminal.id, job).or(row.reason);
        }
        row.capture = lab.captures.of(&terminal.id, self.now).map(|capture| capture.text(self.now));
        row
    }
}

/// An image as the page shows it.
#[derive(utoipa::ToSchema, Debug, Clone, Serialize, Deserialize)]
pub struct ImageView {
    #[serde(flatten)]
    pub image: Published,
    /// Counters of the server's own peer in its swarm; `None` if it is not seeded.
    pub seeding: Option<SeedingView>,
    /// Peers that have all pieces, as the tracker knows.
    pub complete: usize,
    /// Peers that fetch it.
    pub incomplete: usize,
}

/// Counters of the server's own peer in a swarm.
#[derive(utoipa::ToSchema, Debug, Clone, Copy, Serialize, Deserialize)]
pub struct SeedingView {
    pub bytes_out: u64,
    /// Bytes a second going out.
    pub rate_out: u64,
    pub peers: usize,
}

impl From<SwarmStats> for SeedingView {
    fn from(stats: SwarmStats) -> Self {
        SeedingView { bytes_out: stats.bytes_out, rate_out: stats.rate_out, peers: stats.peers }
    }
}

/// Everything but the terminals: `GET /api/v1/lab`.
#[derive(utoipa::ToSchema, Debug, Clone, Serialize, Deserialize)]
pub struct LabView {
    /// Version of the server.
    pub version: String,
    /// Images that can be had.
    pub images: Vec<ImageView>,
    /// The latest first.
    pub jobs: Vec<JobView>,
    /// Zones, if there are any.
    pub zones: Vec<ZoneView>,
    /// Problems for an administrator to solve.
    pub problems: Vec<Problem>,
}

/// `GET /api/v1/lab`.
#[utoipa::path(
    get,
    path = "/api/v1/lab",
    summary = "Images, jobs, zones and problems",
    tag = "views",
    responses(
        (status = 200, description = "Done", body = LabView),
        (status = "4XX", description = "Refused, with what to do", body = Refusal),
    )
)]
pub async fn lab(State(app): Shared) -> Json<LabView> {
    Json(lab_of(&app, &rows(&app)))
}

/// Everything but the terminals, whose rows are `rows`.
pub(super) fn lab_of(app: &App, rows: &[TerminalView]) -> LabView {
    let images = images(app);
    let jobs = {
        let lab = sync::lock(&app.lab);
        lab.jobs().iter().rev().map(|job| lab.jobs().view(job)).collect()
    };
    let version = env!("CARGO_PKG_VERSION").to_string();
    let zones = zones::views(&app.ties().topology, rows);
    LabView { version, images, jobs, zones, problems: app.problems() }
}

/// All images with their swarms.
pub fn images(app: &App) -> Vec<ImageView> {
    let repository = app.repository();
    let now = app.now();
    let mut tracker = sync::lock(&app.tracker);
    tracker.expire(now);
    let view = |image: &Published| {
        let counts =
            tracker.scrape(&[image.info_hash]).first().map(|(_, counts)| *counts).unwrap_or_default();
        ImageView {
            image: image.clone(),
            seeding: app.seeding(&image.info_hash).map(SeedingView::from),
            complete: counts.complete,
            incomplete: counts.incomplete,
        }
    };
    repository.catalog.images.iter().map(view).collect()
}
