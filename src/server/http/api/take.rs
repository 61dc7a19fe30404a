//! A terminal asks for its job.
//!
//! Invariant: a terminal that is known speaks only with its secret or a ticket (`lab::secrets`). `jobs`
//! decides whether a job waits, `lab` keeps the state.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};

use super::access::{Caller, Presented};
use super::captures;
use super::hello::{count, not_admitted};
use super::personal::{self, task};
use super::reply::{Body, Error, Shared, conflict, error, keep, random_secret, read, stranger};
use crate::api::{Assignment, Compress, DiskInfo, Further, Refusal, Take};
use crate::event::Chosen;
use crate::image_id::{ImageId, ImageRef, NotAnImage};
use crate::server::app::App;
use crate::server::domain::catalog::Catalog;
use crate::server::domain::jobs::{Moment, Offer, Terms};
use crate::server::domain::lab::{Begun, Change, Lab, NotAdmitted};
use crate::server::domain::target::{Target, target_by_hand};
use crate::server::domain::targets::NotOne;
use crate::server::domain::tickets;
use crate::sync;

/// When a terminal asks again that waits for a place of a wave.
const TURN: Duration = Duration::from_secs(15);

/// Whether the caller may speak for the terminal `id`; with what is to be stored about that.
fn speaks_for(lab: &mut Lab, app: &App, caller: &Caller, id: &str) -> Result<Vec<Change>, Error> {
    let room = lab.get(id).and_then(|terminal| terminal.place.room.as_deref());
    let by_person = caller.is_over(room);
    let by_secret = match &caller.presented {
        Presented::Bearer(secret) => lab.speaks_for(app.now(), id, secret),
        _ => None,
    };
    match by_secret {
        Some(changes) => Ok(changes),
        None if by_person => Ok(Vec::new()),
        None => Err(not_admitted(NotAdmitted::Known(id.into()))),
    }
}

/// Refuses a caller that may not take work for the terminal `id`. Returns the address whose name in DNS the
/// work needs.
fn hear(app: &App, caller: &Caller, (id, wish): (&str, &Take), at: &Moment) -> Result<Option<IpAddr>, Error> {
    let mut lab = sync::lock(&app.lab);
    lab.get(id).ok_or_else(|| stranger(id, &NotOne::Nobody(Vec::new())))?;
    let heard = speaks_for(&mut lab, app, caller, id)?;
    if lab.is_strange(id, app.config().register) && !caller.is_somebody() {
        count(app, caller.ends.remote.ip())?;
    }
    if !heard.is_empty() {
        // Until it is stored, the ticket is good once more.
        drop(app.store.save(heard));
    }
    Ok(personal::to_look_up(&lab, (id, wish), at))
}

/// `POST /api/v1/terminals/{id}/take`.
#[utoipa::path(
    post,
    path = "/api/v1/terminals/{id}/take",
    summary = "A terminal asks for its job",
    tag = "terminals",
    params(("id" = String, Path, description = "The terminal's name in calls")),
    request_body = Take,
    responses(
        (status = 200, description = "Done", body = Assignment),
        (status = 204, description = "Nothing to do"),
        (status = "4XX", description = "Refused, with what to do", body = Refusal),
        (status = 503, description = "The database cannot keep it now", body = Refusal),
    )
)]
pub async fn take(
    State(app): Shared,
    caller: Caller,
    Path(id): Path<String>,
    body: Body<Take>,
) -> Result<Response, Error> {
    let wish = read(body)?;
    let (config, repository, at) = (app.config(), app.repository(), app.moment());
    let token = random_secret()?;
    // Before the question to DNS, because a stranger must not make the server ask.
    let address = hear(&app, &caller, (&id, &wish), &at)?;
    let dns = personal::look_up(address).await;
    let shape = Arc::clone(&sync::read(&app.topology));
    let (title, begun, disks, saved) = {
        let mut lab = sync::lock(&app.lab);
        lab.get(&id).ok_or_else(|| stranger(&id, &NotOne::Nobody(Vec::new())))?;
        if let Some(lent) = captures::offer(&mut lab, &app, (&id, &wish), caller.ends)? {
            return Ok(lent);
        }
        if wish.only_lend {
            return Ok(StatusCode::NO_CONTENT.into_response());
        }
        if let Some(image) = &wish.image {
            // What waits for a terminal was decided by a person; what it asks for by itself was not.
            let room = lab.get(&id).and_then(|terminal| terminal.place.room.as_deref());
            caller.over(&app, room, &format!("take {image}"), &id)?;
        }
        if wish.image.is_none() && wish.personal && lab.is_to_finish(&id, &lab.offer(&id, &at), at.now) {
            personal::may_finish(&lab, (&config, &shape), &repository, (&id, &wish))?;
            let finished = personal::finish(&mut lab, &app, (&config, &shape), &id);
            return Ok(finished.map_or(StatusCode::NO_CONTENT.into_response(), |it| Json(it).into_response()));
        }
        let wanted = match &wish.image {
            Some(image) => Some(by_hand(&lab, &id, image, &wish.also, &repository.catalog)?),
            None => offered(&lab, &id, wish.job.as_deref(), &at)?,
        };
        if let Some(target) = &wanted {
            repository.catalog.has(target.images()).map_err(conflict)?;
        }
        let Some(target) = wanted else { return Ok(StatusCode::NO_CONTENT.into_response()) };
        // A person who names an image at the terminal did not order a limit.
        if let Some(why) = too_old(&target.terms, &wish, &repository.catalog).filter(|_| wish.image.is_none())
        {
            let changes = lab.unable(&id, &target.job, why, at.now);
            drop(app.store.save(changes));
            return Err(error(StatusCode::CONFLICT, why, REBUILD));
        }
        personal::knows_files(&mut lab, &app, &repository, (&id, &wish), &target)?;
        let hostname = personal::hostname(&mut lab, &app, &config, (&id, &wish), &target, &dns)?;
        let nobody = || stranger(&id, &NotOne::Nobody(Vec::new()));
        let mut begun = lab.begin(&id, target, token, at.now).ok_or_else(nobody)?;
        // At an image by hand stands a person, who sees what becomes of it.
        let tells = wish.growth && wish.image.is_none();
        match (begun.target.terms.as_is, begun.attempt.preflight) {
            (false, false) if wish.personal => lab.personalise(&id, &mut begun, hostname),
            (true, false) if tells && repository.catalog.grows(begun.target.images()) => {
                lab.grow(&id, &mut begun);
            }
            _ => {}
        }
        begun.changes.extend(wish.image.as_ref().map(|image| caller.audit(&app, "take", &id, image)));
        let disks = lab.get(&id).map(|terminal| (terminal.known_disks.clone(), terminal.chosen.clone()));
        let saved = app.store.save(begun.changes.clone());
        (lab.title(&config, &id), begun, disks.unwrap_or_default(), saved)
    };
    keep(saved).await?;
    let (number, preflight) = (begun.attempt.number, begun.attempt.preflight);
    log::info!(terminal = id, attempt = number; "{title} takes {} as attempt {number}", begun.target.title());
    let mut assignment = assignment(begun, disks, config.compress)?;
    personal::give(&sync::lock(&app.lab), &app, (&config, &shape), &id, &mut assignment);
    assignment.date = Some(at.date.timestamp().as_second());
    // A preflight fetches no payload.
    let tasks = assignment.tasks_mut().filter(|_| !preflight);
    for task in tasks.filter(|task| !config.open_images.contains(&task.id.name)) {
        task.ticket = Some(tickets::issue_for_image(&app.ticket_key, (number, &task.id), at.now));
    }
    Ok(Json(assignment).into_response())
}

/// Why an agent does not get work of which it would do more than was ordered.
fn too_old(terms: &Terms, wish: &Take, catalog: &Catalog) -> Option<&'static str> {
    if terms.preflight && !wish.preflight {
        return Some(
            "this terminal's agent is too old for a preflight: it would write the image to the disk",
        );
    }
    let has_blank = |id: &ImageId| catalog.resolve(&id.clone().into()).is_ok_and(|image| image.blank);
    if !wish.blank && terms.ids().any(has_blank) {
        return Some("this terminal's agent is too old for this image of a Windows that starts by BIOS");
    }
    (terms.limit_mbit.is_some() && !wish.limit)
        .then_some("this terminal's agent is too old for --limit-mbit: it would use its whole link")
}

const REBUILD: &str = "Nothing was written. Make new netboot files with flashmob-initramfs, restart the \
    terminal, and run on the server: flashmob job retry.";

/// The images that a person named at the terminal.
fn by_hand(lab: &Lab, id: &str, image: &str, also: &[Further], catalog: &Catalog) -> Result<Target, Error> {
    let further = also.iter().map(|one| Ok((named(&one.image)?, one.disk.clone())));
    let further = further.collect::<Result<Vec<_>, Error>>()?;
    let own = lab.job_of(id).map(|job| &job.terms);
    target_by_hand(own, catalog, &named(image)?, &further).map_err(conflict)
}

/// The work that waits for a terminal; `job` is the only one that it wants.
fn offered(lab: &Lab, id: &str, job: Option<&str>, at: &Moment) -> Result<Option<Target>, Error> {
    match lab.offer(id, at) {
        Offer::Now(target) if job.is_none_or(|job| job == target.job) => Ok(Some(target)),
        Offer::Now(target) => {
            let what = format!("this terminal's job is {}, not {}", target.job, job.unwrap_or_default());
            Err(error(StatusCode::CONFLICT, what, "Correct flashmob.job on the kernel command line."))
        }
        Offer::Queued(why) => Err(Error::too_much(why, TURN, "")),
        Offer::Later(why) => {
            log::debug!("terminal {id} does not begin: {why}");
            Ok(None)
        }
        Offer::Nothing => match job {
            None => Ok(None),
            Some(job) => {
                let what = format!("job {job} has nothing for this terminal now");
                Err(error(StatusCode::CONFLICT, what, "Correct flashmob.job on the kernel command line."))
            }
        },
    }
}

/// The answer to a terminal that begins.
fn assignment(
    begun: Begun,
    (known_disks, chosen): (Vec<DiskInfo>, Vec<Chosen>),
    compress: Compress,
) -> Result<Assignment, Error> {
    let Begun { attempt, target, compare, .. } = begun;
    let Terms { images, after, verify, longest_stay, limit_mbit, preflight, .. } = target.terms;
    let mut tasks = images.into_iter().map(|image| task(image, compare));
    let task = tasks.next().ok_or_else(|| {
        error(StatusCode::INTERNAL_SERVER_ERROR, "a job without an image", "Cancel it and create it again.")
    })?;
    Ok(Assignment {
        job: target.job,
        attempt: attempt.number,
        token: attempt.token,
        task,
        also: tasks.collect(),
        installed: attempt.installed,
        known_disks,
        chosen,
        compress,
        after,
        verify,
        longest_stay,
        limit_mbit,
        preflight,
        personal: None,
        growth: false,
        finish: false,
        date: None,
    })
}

/// An image that an agent's command line names.
fn named(image: &str) -> Result<ImageRef, Error> {
    let advice = "Name images as NAME or NAME@VERSION.";
    image.parse().map_err(|e: NotAnImage| error(StatusCode::CONFLICT, e.to_string(), advice))
}
