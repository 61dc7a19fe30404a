//! `/api/v1/…`: terminals say hello, take a job, report; people look and decide.
//!
//! Invariant: what a person decides is taken only from the server itself (a loopback address, no browser); what an
//! attempt says is taken only with its token. Every error is a [`Refusal`] with advice. An answer that promises
//! something is sent only when the database has it.

use std::sync::Arc;

use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde::{Deserialize, Serialize};

use super::app::{App, lock, target_by_hand, target_for, target_of};
use super::catalog::{Problem, Published};
use super::config::{Config, ImageRef, Job};
use super::jobs;
use super::lab::{Change, Lab, ReportError, Terminal};
use super::listen::Ends;
use super::zones::{self, Ties, ZoneView};
use crate::api::{
    Assignment, Compare, Hello, LayoutMode, Orders, OutcomeReport, ProgressReport, Refusal, Take, Task,
    TerminalView, Welcome,
};
use crate::swarm::SwarmStats;

type Shared = State<Arc<App>>;
type Body<T> = Result<Json<T>, JsonRejection>;

/// A refusal with its status.
pub struct Error(StatusCode, Refusal);

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        (self.0, Json(self.1)).into_response()
    }
}

fn error(status: StatusCode, error: impl Into<String>, advice: impl Into<String>) -> Error {
    Error(status, Refusal { error: error.into(), advice: advice.into() })
}

fn conflict(refusal: Refusal) -> Error {
    Error(StatusCode::CONFLICT, refusal)
}

fn read<T>(body: Body<T>) -> Result<T, Error> {
    let advice = "Use an agent of the same version as the server.";
    body.map(|Json(value)| value).map_err(|e| error(e.status(), e.body_text(), advice))
}

async fn keep(
    app: &App,
    saved: impl Future<Output = Result<(), super::store::StoreError>>,
) -> Result<(), Error> {
    saved.await.map_err(|e| {
        let advice =
            format!("Look at the server's disk and log; it has {} terminals.", lock(&app.lab).iter().count());
        error(StatusCode::SERVICE_UNAVAILABLE, e.to_string(), advice)
    })
}

/// `POST /api/v1/hello`.
pub async fn hello(
    State(app): Shared,
    Extension(ends): Extension<Ends>,
    body: Body<Hello>,
) -> Result<Json<Welcome>, Error> {
    let hello = read(body)?;
    let (config, now) = (app.config(), app.now());
    let (id, label, saved) = {
        let mut lab = lock(&app.lab);
        let Some((id, change)) = lab.hello(now, ends.remote.ip().to_string(), hello) else {
            return Err(error(
                StatusCode::CONFLICT,
                "this terminal has neither a MAC nor a UUID, or the server knows too many terminals",
                "Remove old terminals: stop the server, delete its state, start it again.",
            ));
        };
        let label = lab.get(&id).and_then(|t| config.label(&t.identity)).map(str::to_string);
        log::info!("terminal {id} says hello from {}", ends.remote.ip());
        (id, label, app.store.save(vec![change]))
    };
    zones::arrange(&app);
    keep(&app, saved).await?;
    let version = env!("CARGO_PKG_VERSION").to_string();
    Ok(Json(Welcome { service: "flashmob".into(), version, terminal: id, label }))
}

fn stranger(id: &str) -> Error {
    error(
        StatusCode::NOT_FOUND,
        format!("no terminal '{id}' is known here"),
        "See 'flashmob terminals' for those that are.",
    )
}

/// `POST /api/v1/terminals/{id}/take`.
pub async fn take(State(app): Shared, Path(id): Path<String>, body: Body<Take>) -> Result<Response, Error> {
    let wish = read(body)?;
    let (config, repository, now) = (app.config(), app.repository(), app.now());
    let catalog = &repository.catalog;
    let mut token = [0u8; 16];
    getrandom::fill(&mut token).map_err(|e| {
        error(StatusCode::INTERNAL_SERVER_ERROR, format!("no random number: {e}"), "Look at the server.")
    })?;
    let token: String = token.iter().map(|byte| format!("{byte:02x}")).collect();
    let (attempt, target, compare, saved) = {
        let mut lab = lock(&app.lab);
        let terminal = lab.get(&id).ok_or_else(|| stranger(&id))?;
        let last = terminal.last.as_ref();
        let target = match (&wish.image, &wish.job) {
            (Some(image), _) => {
                let advice = "Use --image NAME or --image NAME@VERSION.";
                let image: ImageRef =
                    image.parse().map_err(|e: String| error(StatusCode::CONFLICT, e, advice))?;
                Some(target_by_hand(&config, catalog, &terminal.identity, &image).map_err(conflict)?)
            }
            (None, Some(name)) => {
                let job = config.job(name).ok_or_else(|| {
                    let advice =
                        "Correct flashmob.job on the kernel command line, or the server's configuration.";
                    error(StatusCode::CONFLICT, format!("there is no job '{name}'"), advice)
                })?;
                Some(target_of(job, catalog).map_err(conflict)?)
            }
            (None, None) => target_for(&config, catalog, &terminal.identity).map_err(conflict)?,
        };
        let wanted = target.filter(|target| wish.image.is_some() || jobs::waits(last, Some(target)));
        let Some(target) = wanted else { return Ok(StatusCode::NO_CONTENT.into_response()) };
        let compare = jobs::compare_of_next(last, &target);
        let (attempt, changes) = lab.take(now, &id, &target, token).ok_or_else(|| stranger(&id))?;
        (attempt, target, compare, app.store.save(changes))
    };
    keep(&app, saved).await?;
    log::info!("terminal {id} takes {} as attempt {}", target.title(), attempt.number);
    let job = target.job;
    let first = ImageRef { name: target.image, version: Some(target.version) };
    let task = task(&first, &job.disk, (job.layout, job.partitions.as_deref()), compare);
    let further = job.also.iter().zip(&target.also);
    let further = further.map(|(also, image)| {
        self::task(image, &also.disk, (also.layout, also.partitions.as_deref()), compare)
    });
    let also = further.collect();
    let assignment = Assignment {
        job: job.name,
        attempt: attempt.number,
        token: attempt.token,
        task,
        also,
        installed: attempt.installed,
        compress: config.compress,
        after: job.after,
        verify: job.verify,
        longest_stay: job.longest_stay.as_secs(),
    };
    Ok(Json(assignment).into_response())
}

/// `image`, whose version is known, for one disk.
fn task(
    image: &ImageRef,
    disk: &str,
    (layout, partitions): (LayoutMode, Option<&[u32]>),
    compare: Compare,
) -> Task {
    let (name, version) = (image.name.clone(), image.version.clone().unwrap_or_default());
    let folder = format!("/images/{name}/{version}/");
    let disk = disk.to_string();
    let mut task = Task { image: name, version, folder, disk, layout, partitions: None, compare };
    if let Some(partitions) = partitions {
        task.only(partitions.to_vec());
    }
    task
}

fn not_taken(why: ReportError) -> Error {
    let status = match why {
        ReportError::Unknown => StatusCode::NOT_FOUND,
        ReportError::WrongToken => StatusCode::FORBIDDEN,
    };
    error(status, why.to_string(), "Restart the terminal: it will ask for its job again.")
}

/// `POST /api/v1/attempts/{attempt}/progress`. Progress may be lost, so nobody waits until it is written.
pub async fn progress(
    State(app): Shared,
    Path(attempt): Path<u64>,
    body: Body<ProgressReport>,
) -> Result<Json<Orders>, Error> {
    let report = read(body)?;
    let ties = Ties::of(&app);
    let mut lab = lock(&app.lab);
    let (orders, change) =
        lab.progress(app.now(), attempt, &report.token, report.progress, &ties).map_err(not_taken)?;
    if let Some(change) = change {
        drop(app.store.save(vec![change]));
    }
    Ok(Json(orders))
}

/// `POST /api/v1/attempts/{attempt}/outcome`.
pub async fn outcome(
    State(app): Shared,
    Path(attempt): Path<u64>,
    body: Body<OutcomeReport>,
) -> Result<Json<Orders>, Error> {
    let report = read(body)?;
    let ties = Ties::of(&app);
    let (orders, saved) = {
        let mut lab = lock(&app.lab);
        let (orders, change) =
            lab.outcome(app.now(), attempt, &report.token, report.outcome, &ties).map_err(not_taken)?;
        if let Some(Change::Attempt(id, ended)) = &change {
            log::info!("terminal {id}, attempt {attempt}: {:?}", ended.outcome);
        }
        (orders, app.store.save(change.into_iter().collect()))
    };
    keep(&app, saved).await?;
    Ok(Json(orders))
}

/// `GET /api/v1/terminals`.
pub async fn terminals(State(app): Shared) -> Json<Vec<TerminalView>> {
    Json(views(&app))
}

/// All rows of the lab.
pub fn views(app: &App) -> Vec<TerminalView> {
    let (config, repository, now) = (app.config(), app.repository(), app.now());
    let ties = Ties::of(app);
    let lab = lock(&app.lab);
    let view = |terminal: &Terminal| {
        let target = target_for(&config, &repository.catalog, &terminal.identity).ok().flatten();
        terminal.view(config.label(&terminal.identity), target.as_ref(), &ties, now)
    };
    lab.iter().map(view).collect()
}

/// An image as the page shows it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ImageView {
    /// What it is.
    #[serde(flatten)]
    pub image: Published,
    /// What the server's own peer does in its swarm; `None` when it is not seeded.
    pub seeding: Option<SeedingView>,
    /// Peers that have all of it, as the tracker knows.
    pub complete: usize,
    /// Peers that fetch it.
    pub incomplete: usize,
}

/// What the server's own peer does in a swarm.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct SeedingView {
    /// Bytes sent.
    pub bytes_out: u64,
    /// Bytes a second going out.
    pub rate_out: u64,
    /// Peers connected.
    pub peers: usize,
}

impl From<SwarmStats> for SeedingView {
    fn from(stats: SwarmStats) -> Self {
        SeedingView { bytes_out: stats.bytes_out, rate_out: stats.rate_out, peers: stats.peers }
    }
}

/// A job as the configuration has it now.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct JobView {
    /// Its name.
    pub name: String,
    /// Image as configured.
    pub image: String,
    /// `name@version` that this means now.
    pub means: Option<String>,
    /// Some of its partitions, if not all.
    #[serde(default)]
    pub partitions: Option<Vec<u32>>,
    /// What becomes of what is on the disk.
    #[serde(default)]
    pub compare: Compare,
    /// How many of the known terminals it is for.
    pub terminals: usize,
}

/// Everything but the terminals: `GET /api/v1/lab`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LabView {
    /// Version of the server.
    pub version: String,
    /// Images that can be had.
    pub images: Vec<ImageView>,
    /// Jobs in order.
    pub jobs: Vec<JobView>,
    /// Zones, if there are any.
    pub zones: Vec<ZoneView>,
    /// What a person should look at.
    pub problems: Vec<Problem>,
}

/// `GET /api/v1/lab`.
pub async fn lab(State(app): Shared) -> Json<LabView> {
    let (config, repository) = (app.config(), app.repository());
    let images = image_views(&app);
    let jobs = {
        let lab = lock(&app.lab);
        config.jobs.iter().map(|job| job_view(&config, &job.name, &repository.catalog, &lab)).collect()
    };
    let version = env!("CARGO_PKG_VERSION").to_string();
    let zones = zones::views(&Ties::of(&app).topology, &views(&app));
    Json(LabView { version, images, jobs, zones, problems: app.problems() })
}

/// All images with their swarms.
pub fn image_views(app: &App) -> Vec<ImageView> {
    let repository = app.repository();
    let now = app.now();
    let mut tracker = lock(&app.tracker);
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

/// The images of a job as configured.
fn images_of(job: &Job) -> String {
    let also = job.also.iter().map(|also| also.image.to_string());
    std::iter::once(job.image.to_string()).chain(also).collect::<Vec<_>>().join(" + ")
}

fn job_view(config: &Config, name: &str, catalog: &super::catalog::Catalog, lab: &Lab) -> JobView {
    let job = config.job(name);
    JobView {
        name: name.to_string(),
        image: job.map(images_of).unwrap_or_default(),
        means: job.and_then(|job| target_of(job, catalog).ok()).map(|target| target.title()),
        partitions: job.and_then(|job| job.partitions.clone()),
        compare: job.map(|job| job.compare).unwrap_or_default(),
        terminals: lab.iter().filter(|t| config.job_for(&t.identity).is_some_and(|j| j.name == name)).count(),
    }
}

/// Decisions are taken from this machine alone, and not from a page that a browser on it shows: browsers name the
/// page's origin with every such request.
fn from_the_server_itself(ends: Ends, headers: &HeaderMap) -> Result<(), Error> {
    if ends.remote.ip().is_loopback() && !headers.contains_key(header::ORIGIN) {
        return Ok(());
    }
    let advice = "Run 'flashmob job …' on the server itself.";
    Err(error(StatusCode::FORBIDDEN, format!("{} may not decide this", ends.remote.ip()), advice))
}

/// The terminal meant by what a person typed: its name, any of its MACs, its UUID, or its label.
fn meant(lab: &Lab, config: &Config, typed: &str) -> Option<String> {
    let key = typed.parse::<super::identity::TerminalKey>();
    let by_uuid = super::identity::usable_uuid(typed).map(super::identity::TerminalKey::Uuid);
    let fits = |t: &&Terminal| {
        t.id == typed
            || config.label(&t.identity) == Some(typed)
            || key.as_ref().is_ok_and(|key| key.matches(&t.identity))
            || by_uuid.is_some_and(|key| key.matches(&t.identity))
    };
    lab.iter().find(fits).map(|t| t.id.clone())
}

async fn decide(
    app: &App,
    ends: Ends,
    headers: &HeaderMap,
    typed: &str,
    what: &str,
    change: impl FnOnce(&mut Lab, &str, Option<&jobs::Target>) -> Result<Vec<Change>, Refusal>,
) -> Result<StatusCode, Error> {
    from_the_server_itself(ends, headers)?;
    let (config, repository) = (app.config(), app.repository());
    let saved = {
        let mut lab = lock(&app.lab);
        let id = meant(&lab, &config, typed).ok_or_else(|| stranger(typed))?;
        let terminal = lab.get(&id).ok_or_else(|| stranger(typed))?;
        let target = target_for(&config, &repository.catalog, &terminal.identity).ok().flatten();
        let changes = change(&mut lab, &id, target.as_ref()).map_err(conflict)?;
        log::info!("a person decides for terminal {id}: {what}");
        app.store.save(changes)
    };
    keep(app, saved).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// What a person may add to a retry.
#[derive(Debug, Clone, Copy, Deserialize)]
pub struct RetryQuery {
    /// What becomes of what is on the disk, instead of what the job says.
    compare: Option<Compare>,
}

/// `POST /api/v1/terminals/{id}/retry[?compare=auto|full|trust]`.
pub async fn retry(
    State(app): Shared,
    Extension(ends): Extension<Ends>,
    Path(id): Path<String>,
    query: Result<Query<RetryQuery>, QueryRejection>,
    headers: HeaderMap,
) -> Result<StatusCode, Error> {
    let advice = "compare is auto, full or trust.";
    let Query(RetryQuery { compare }) = query.map_err(|e| error(e.status(), e.body_text(), advice))?;
    let now = app.now();
    let retry = |lab: &mut Lab, id: &str, _: Option<&jobs::Target>| {
        Ok(lab.retry(now, id, compare)?.into_iter().collect())
    };
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
