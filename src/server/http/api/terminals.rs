//! Calls of terminals: hello, take, progress, outcome.
//!
//! Invariant: a report is accepted only with its attempt's token. `jobs` decides whether a job waits, `lab`
//! keeps the state.

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};

use super::reply::{Body, Error, Shared, conflict, error, keep, read, stranger};
use crate::api::{
    Assignment, Compare, Hello, LayoutMode, Orders, OutcomeReport, ProgressReport, Take, Task, Welcome,
};
use crate::image_id::{ImageId, ImageRef, NotAnImage};
use crate::server::domain::config::Register;
use crate::server::domain::identity::Identity;
use crate::server::domain::jobs;
use crate::server::domain::lab::{Change, MAX_TERMINALS, NotKnown, ReportError};
use crate::server::domain::target::{target_by_hand, target_for, target_of};
use crate::server::http::listen::Ends;
use crate::sync;

/// `POST /api/v1/hello`.
pub async fn hello(
    State(app): Shared,
    Extension(ends): Extension<Ends>,
    body: Body<Hello>,
) -> Result<Json<Welcome>, Error> {
    let hello = read(body)?;
    let (config, now) = (app.config(), app.now());
    let from = ends.remote.ip();
    let (id, label, saved) = {
        let mut lab = sync::lock(&app.lab);
        let who = Identity::new(&hello.macs, hello.uuid.as_deref());
        let first = lab.find(&who, now).is_none();
        if first {
            sync::lock(&app.limits).register(now, from, &config.limits).map_err(|wait| {
                let advice = "If a whole room is behind this address, raise new_terminals in [limits] of the \
                    server's configuration.";
                Error::too_much(format!("too many new terminals come from {from}"), wait, advice)
            })?;
        }
        let (id, mut changes) = lab.hello(now, from.to_string(), hello).map_err(unknown)?;
        if first && config.register == Register::Open {
            changes.extend(lab.accept(&id));
        }
        let label = lab.get(&id).and_then(|t| lab.label(&config, t)).map(str::to_string);
        log::info!("terminal {id} says hello from {from}");
        (id, label, app.store.save(changes))
    };
    app.arrange();
    keep(saved).await?;
    let version = env!("CARGO_PKG_VERSION").to_string();
    Ok(Json(Welcome { service: "flashmob".into(), version, terminal: id, label }))
}

fn unknown(why: NotKnown) -> Error {
    let (what, advice) = match why {
        NotKnown::Nameless => (
            "this terminal has neither a MAC nor a UUID".to_string(),
            "Give it a network card with an address of its own.",
        ),
        NotKnown::Full => (
            format!("the server knows {MAX_TERMINALS} terminals with an image"),
            "Remove those that are gone, on the server: 'flashmob terminal forget TERMINAL'.",
        ),
    };
    error(StatusCode::CONFLICT, what, advice)
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
    let (attempt, target, compare, (known_disks, chosen), saved) = {
        let mut lab = sync::lock(&app.lab);
        let terminal = lab.get(&id).ok_or_else(|| stranger(&id, &[]))?;
        let last = terminal.last.as_ref();
        let who = lab.named(&terminal.identity, Some(&id));
        let target = match (&wish.image, &wish.job) {
            (Some(image), _) => {
                let further = wish.also.iter().map(|one| Ok((named(&one.image)?, one.disk.clone())));
                let further = further.collect::<Result<_, Error>>()?;
                let image = named(image)?;
                let target = target_by_hand(&config, catalog, &who, &image, further);
                Some(target.map_err(conflict)?)
            }
            (None, Some(name)) => {
                let job = config.job(name).ok_or_else(|| {
                    let advice =
                        "Correct flashmob.job on the kernel command line, or the server's configuration.";
                    error(StatusCode::CONFLICT, format!("there is no job '{name}'"), advice)
                })?;
                Some(target_of(job, catalog).map_err(conflict)?)
            }
            (None, None) => target_for(&config, catalog, &who).map_err(conflict)?,
        };
        let wanted = target.filter(|target| wish.image.is_some() || jobs::waits(last, Some(target)));
        let Some(target) = wanted else { return Ok(StatusCode::NO_CONTENT.into_response()) };
        let compare = jobs::compare_of_next(last, &target);
        let (attempt, changes) = lab.take(now, &id, &target, token).ok_or_else(|| stranger(&id, &[]))?;
        let disks = lab.get(&id).map(|terminal| (terminal.known_disks.clone(), terminal.chosen.clone()));
        (attempt, target, compare, disks.unwrap_or_default(), app.store.save(changes))
    };
    keep(saved).await?;
    log::info!("terminal {id} takes {} as attempt {}", target.title(), attempt.number);
    let job = target.job;
    let task = task(target.image, &job.disk, (job.layout, job.partitions.as_deref()), compare);
    let further = target.also.into_iter().zip(&job.also);
    let further = further
        .map(|(id, also)| self::task(id, &also.disk, (also.layout, also.partitions.as_deref()), compare));
    let also = further.collect();
    let assignment = Assignment {
        job: job.name,
        attempt: attempt.number,
        token: attempt.token,
        task,
        also,
        installed: attempt.installed,
        known_disks,
        chosen,
        compress: config.compress,
        after: job.after,
        verify: job.verify,
        longest_stay: job.longest_stay.as_secs(),
    };
    Ok(Json(assignment).into_response())
}

/// An image that an agent's command line names.
fn named(image: &str) -> Result<ImageRef, Error> {
    let advice = "Name images as NAME or NAME@VERSION.";
    image.parse().map_err(|e: NotAnImage| error(StatusCode::CONFLICT, e.to_string(), advice))
}

/// One image for one disk.
fn task(
    id: ImageId,
    disk: &str,
    (layout, partitions): (LayoutMode, Option<&[u32]>),
    compare: Compare,
) -> Task {
    let folder = format!("/images/{}/{}/", id.name, id.version);
    let disk = disk.to_string();
    let mut task = Task { id, folder, disk, layout, partitions: None, compare };
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

/// `POST /api/v1/attempts/{attempt}/progress`. Progress may be lost, so the answer does not wait until it is
/// stored.
pub async fn progress(
    State(app): Shared,
    Path(attempt): Path<u64>,
    body: Body<ProgressReport>,
) -> Result<Json<Orders>, Error> {
    let report = read(body)?;
    let ties = app.ties();
    let mut lab = sync::lock(&app.lab);
    let (orders, change) =
        lab.progress(app.now(), attempt, &report.token, report.progress, &ties).map_err(not_taken)?;
    let chosen = lab.chosen(attempt, report.chosen);
    let changes: Vec<Change> = change.into_iter().chain(chosen).collect();
    if !changes.is_empty() {
        drop(app.store.save(changes));
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
    let ties = app.ties();
    let (orders, saved) = {
        let mut lab = sync::lock(&app.lab);
        let (orders, change) =
            lab.outcome(app.now(), attempt, &report.token, report.outcome, &ties).map_err(not_taken)?;
        if let Some(Change::Attempt(id, ended)) = &change {
            log::info!("terminal {id}, attempt {attempt}: {:?}", ended.outcome);
        }
        (orders, app.store.save(change.into_iter().collect()))
    };
    keep(saved).await?;
    Ok(Json(orders))
}
