//! Jobs: create, show, cancel, retry, report.
//!
//! Invariant: people change jobs of terminals that they may act on, and each change is in the audit.
//! `domain::jobs` decides.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::access::Caller;
use super::decide::{Said, decided, each_by_label, may_act, refused_for_all};
use super::personal;
use super::reply::{Body, Error, Shared, conflict, error, keep, read};
use crate::api::{CancelJobs, Compare, Decided, JobDecided, Refusal};
use crate::server::app::App;
use crate::server::domain::config::Config;
use crate::server::domain::jobs::{Finding, Job, JobOrder, JobPlan, JobView, Report, Setting, Which};
use crate::server::domain::lab::{Lab, Terminal};
use crate::server::domain::targets::{self, Meant, resolve};
use crate::sync;

/// All terminals of a job.
fn members(lab: &Lab, number: u64) -> Vec<String> {
    lab.jobs().members(number).map(|(id, _)| id.to_owned()).collect()
}

/// Refuses callers that may not cancel this job: people may cancel their own jobs, even when
/// terminals of them have left their room, and otherwise jobs of terminals that they may act on.
fn may_cancel(app: &App, caller: &Caller, lab: &Lab, job: &Job) -> Result<(), Error> {
    if caller.is_the_person(&job.by) {
        return Ok(());
    }
    may_act(app, caller, lab, &members(lab, job.number), "cancel the job")
}

/// The image may have a version that the server has not seen.
fn not_looked() -> Finding {
    Finding {
        terminal: None,
        error:
            "the repository of images did not answer, so a version that was published in the last minutes \
                may be missing"
                .into(),
        advice: "Look at the disk or the network filesystem that holds the images.".into(),
    }
}

/// `POST /api/v1/jobs`.
#[utoipa::path(
    post,
    operation_id = "create_job",
    path = "/api/v1/jobs",
    summary = "Create a job, or say what it would do",
    request_body = JobOrder,
    tag = "jobs",
    responses(
        (status = 201, description = "Created", body = JobPlan),
        (status = 200, description = "What it would do", body = JobPlan),
        (status = "4XX", description = "Refused, with what to do", body = Refusal),
        (status = 503, description = "The database cannot keep it now", body = Refusal),
    )
)]
pub async fn create(
    State(app): Shared,
    caller: Caller,
    body: Body<JobOrder>,
) -> Result<(StatusCode, Json<JobPlan>), Error> {
    caller.somebody(&app, "create a job", "")?;
    let mut order = read(body)?;
    let words = targets::words(&order.targets).map_err(conflict)?;
    order.targets = words.iter().map(ToString::to_string).collect();
    let looked = app.look_at_images().await;
    let (config, repository, at) = (app.config(), app.repository(), app.moment());
    let can_netboot = app.can_netboot();
    let dns = personal::look_up_all(&app, &order, &words).await?;
    let (plan, saved) = {
        let shape = Arc::clone(&sync::read(&app.topology));
        let mut lab = sync::lock(&app.lab);
        let wanted = resolve(&lab, &config, &shape, &words).map_err(conflict)?;
        may_act(&app, &caller, &lab, &wanted, "create a job")?;
        let label = |terminal: &Terminal| lab.label(&config, terminal).map(str::to_owned);
        let place = Setting {
            lab: &lab,
            catalog: &repository.catalog,
            at: &at,
            label: &label,
            dns: &dns,
            can_netboot,
        };
        let drafted = order.draft(&caller.name(), wanted.into_iter().collect(), &place).map_err(conflict)?;
        let mut drafted = drafted;
        let (terms, plan) = (&drafted.job.terms, &mut drafted.plan);
        personal::list_files(plan, terms, &lab, (&config, &shape), &repository);
        plan.findings.extend((!looked).then(not_looked));
        if order.dry_run {
            return Ok((StatusCode::OK, Json(drafted.plan)));
        }
        let plan = JobPlan { number: Some(drafted.job.number), ..drafted.plan };
        let (number, title) = (drafted.job.number, drafted.job.terms.title());
        let count = drafted.terminals.len();
        log::info!(job = number; "job {number} is created: {title} for {count} terminals");
        let detail = format!("{title} for {}", drafted.job.targets.join(" "));
        let mut changes = lab.add_job(drafted.job, &drafted.terminals, &at);
        changes.push(caller.audit(&app, "create a job", &number.to_string(), &detail));
        (plan, app.store.save(changes))
    };
    keep(saved).await?;
    Ok((StatusCode::CREATED, Json(plan)))
}

/// `GET /api/v1/jobs`: the latest first.
#[utoipa::path(
    get,
    path = "/api/v1/jobs",
    summary = "All jobs, the latest first",
    tag = "jobs",
    responses(
        (status = 200, description = "Jobs", body = Vec<JobView>),
        (status = "4XX", description = "Refused, with what to do", body = Refusal),
    )
)]
pub async fn jobs(State(app): Shared) -> Json<Vec<JobView>> {
    let lab = sync::lock(&app.lab);
    Json(lab.jobs().iter().rev().map(|job| lab.jobs().view(job)).collect())
}

pub(super) fn found(lab: &Lab, number: u64) -> Result<&Job, Error> {
    let advice = "'flashmob job list' shows all jobs.";
    lab.jobs()
        .get(number)
        .ok_or_else(|| error(StatusCode::NOT_FOUND, format!("there is no job {number}"), advice))
}

fn report_of(app: &App, number: u64) -> Result<Report, Error> {
    let config = app.config();
    let lab = sync::lock(&app.lab);
    let job = found(&lab, number)?;
    let label = |id: &str| lab.get(id).and_then(|terminal| lab.label(&config, terminal)).map(str::to_owned);
    Ok(lab.jobs().report(job, label, |id, attempt| lab.system(id, attempt)))
}

/// `GET /api/v1/jobs/{number}`: the job and its terminals, those that need a person first.
#[utoipa::path(
    get,
    path = "/api/v1/jobs/{number}",
    summary = "A job and its terminals",
    params(("number" = u64, Path, description = "The job's number")),
    tag = "jobs",
    responses(
        (status = 200, description = "The job", body = Report),
        (status = "4XX", description = "Refused, with what to do", body = Refusal),
    )
)]
pub async fn job(State(app): Shared, Path(number): Path<u64>) -> Result<Json<Report>, Error> {
    report_of(&app, number).map(Json)
}

/// `GET /api/v1/jobs/{number}/report.csv`.
#[utoipa::path(
    get,
    operation_id = "job_report",
    path = "/api/v1/jobs/{number}/report.csv",
    summary = "The terminals of a job as a table",
    params(("number" = u64, Path, description = "The job's number")),
    tag = "jobs",
    responses(
        (status = 200, description = "The table", body = String, content_type = "text/csv"),
        (status = "4XX", description = "Refused, with what to do", body = Refusal),
    )
)]
pub async fn report(State(app): Shared, Path(number): Path<u64>) -> Result<Response, Error> {
    let report = report_of(&app, number)?;
    let table = table(&report).map_err(|e| {
        error(StatusCode::INTERNAL_SERVER_ERROR, format!("writing the table: {e}"), "Use --json instead.")
    })?;
    Ok(([(header::CONTENT_TYPE, "text/csv; charset=utf-8")], table).into_response())
}

fn table(report: &Report) -> csv::Result<Vec<u8>> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record(["label", "terminal", "state", "reason", "attempts", "since", "system"])?;
    for row in &report.terminals {
        let (tries, since) = (row.tries.to_string(), row.since.to_string());
        let cells = [
            row.label.as_deref().unwrap_or_default(),
            &row.terminal,
            row.state.word(),
            &row.reason,
            &tries,
            &since,
            row.system.as_deref().unwrap_or_default(),
        ];
        writer.write_record(cells.map(cell).map(|cell| cell.into_owned()))?;
    }
    writer.into_inner().map_err(|e| e.into_error().into())
}

/// A leading sign is kept from being a formula in a spreadsheet.
fn cell(text: &str) -> Cow<'_, str> {
    if text.starts_with(['=', '+', '-', '@']) { format!("'{text}").into() } else { text.into() }
}

/// `POST /api/v1/jobs/{number}/cancel`.
#[utoipa::path(
    post,
    operation_id = "cancel_job",
    path = "/api/v1/jobs/{number}/cancel",
    summary = "Cancel a job",
    params(("number" = u64, Path, description = "The job's number")),
    tag = "jobs",
    responses(
        (status = 204, description = "Done"),
        (status = "4XX", description = "Refused, with what to do", body = Refusal),
        (status = 503, description = "The database cannot keep it now", body = Refusal),
    )
)]
pub async fn cancel(
    State(app): Shared,
    caller: Caller,
    Path(number): Path<u64>,
) -> Result<StatusCode, Error> {
    let (at, subject) = (app.moment(), number.to_string());
    caller.somebody(&app, "cancel the job", &subject)?;
    let saved = {
        let mut lab = sync::lock(&app.lab);
        may_cancel(&app, &caller, &lab, found(&lab, number)?)?;
        let mut changes = lab.cancel_job(number, &at).map_err(conflict)?;
        log::info!(job = number; "job {number} is cancelled");
        changes.push(caller.audit(&app, "cancel the job", &subject, ""));
        app.store.save(changes)
    };
    keep(saved).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `POST /api/v1/decisions/cancel-jobs`.
#[utoipa::path(
    post,
    operation_id = "cancel_jobs",
    path = "/api/v1/decisions/cancel-jobs",
    summary = "Cancel several jobs",
    request_body = CancelJobs,
    tag = "jobs",
    responses(
        (status = 200, description = "What becomes of each job", body = Vec<JobDecided>),
        (status = "4XX", description = "Refused, with what to do; nothing changed", body = Refusal),
        (status = 503, description = "The database cannot keep it now", body = Refusal),
    )
)]
pub async fn cancel_several(
    State(app): Shared,
    caller: Caller,
    body: Body<CancelJobs>,
) -> Result<Json<Vec<JobDecided>>, Error> {
    caller.somebody(&app, "cancel the job", "")?;
    let numbers: BTreeSet<u64> = read(body)?.jobs.into_iter().collect();
    if numbers.is_empty() {
        let advice = "Name jobs by their numbers: 'flashmob job list' shows them.";
        return Err(error(StatusCode::CONFLICT, "no job is named", advice));
    }
    let at = app.moment();
    let (each, saved) = {
        let mut lab = sync::lock(&app.lab);
        for number in &numbers {
            may_cancel(&app, &caller, &lab, found(&lab, *number)?)?;
        }
        let (mut each, mut changes) = (Vec::new(), Vec::new());
        for number in numbers {
            let answer = lab.cancel_job(number, &at).map(|cancelled| {
                log::info!(job = number; "job {number} is cancelled");
                changes.extend(cancelled);
                changes.push(caller.audit(&app, "cancel the job", &number.to_string(), ""));
            });
            each.push((number, answer));
        }
        if let Some(refusal) = refused_for_all(each.iter().map(|(_, answer)| answer.as_ref().err())) {
            return Err(conflict(refusal));
        }
        (each, app.store.save(changes))
    };
    keep(saved).await?;
    let told = |(job, answer): (u64, Result<(), Refusal>)| match answer {
        Ok(()) => JobDecided { job, changed: true, result: "is cancelled".into(), advice: String::new() },
        Err(Refusal { error, advice }) => JobDecided { job, changed: false, result: error, advice },
    };
    Ok(Json(each.into_iter().map(told).collect()))
}

/// Which terminals of a job begin again.
#[derive(utoipa::ToSchema, Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Retry {
    /// All that have not succeeded, if there are none. One that is done begins again only if a target names
    /// it alone.
    #[serde(default)]
    pub targets: Vec<String>,
    /// How pieces on the disk are found, instead of the job's choice.
    #[serde(default)]
    pub compare: Option<Compare>,
}

/// The terminals that begin again.
#[derive(utoipa::ToSchema, Debug, Clone, Serialize, Deserialize)]
pub struct Retried {
    pub terminals: Vec<String>,
    /// The end of the window that they got of their own, where the rest of the job's was too short.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub until: Option<Timestamp>,
    /// What becomes of each terminal that the targets mean.
    #[serde(default)]
    pub decided: Vec<Decided>,
}

/// `POST /api/v1/jobs/{number}/retry`.
#[utoipa::path(
    post,
    operation_id = "retry_job",
    path = "/api/v1/jobs/{number}/retry",
    summary = "Terminals of a job begin again",
    params(("number" = u64, Path, description = "The job's number")),
    request_body = Retry,
    tag = "jobs",
    responses(
        (status = 200, description = "They begin again", body = Retried),
        (status = "4XX", description = "Refused, with what to do", body = Refusal),
        (status = 503, description = "The database cannot keep it now", body = Refusal),
    )
)]
pub async fn retry(
    State(app): Shared,
    caller: Caller,
    Path(number): Path<u64>,
    body: Body<Retry>,
) -> Result<Json<Retried>, Error> {
    let (config, at, subject) = (app.config(), app.moment(), number.to_string());
    caller.somebody(&app, "retry the job", &subject)?;
    let wish = read(body)?;
    let words = targets::words(&wish.targets).map_err(conflict)?;
    let (retried, saved) = {
        let shape = Arc::clone(&sync::read(&app.topology));
        let mut lab = sync::lock(&app.lab);
        found(&lab, number)?;
        let named = match words.as_slice() {
            [] => None,
            some => Some(targets::meant(&lab, &config, &shape, some).map_err(conflict)?),
        };
        let affected = named.as_ref().map_or_else(|| members(&lab, number), |meant| meant.ids.clone());
        may_act(&app, &caller, &lab, &affected, "retry the job")?;
        named.iter().try_for_each(|meant| are_in_it(&lab, &config, number, meant))?;
        let which = named.as_ref().map_or(Which::Unsuccessful, Which::Named);
        let (each, mut changes) = lab.retry_job(number, which, wish.compare, &at);
        let each = each_by_label(&lab, &config, each);
        let terminals: Vec<String> =
            each.iter().filter(|(_, answer)| answer.is_ok()).map(|(id, _)| id.clone()).collect();
        if terminals.is_empty() {
            // Silent attempts may have ended meanwhile.
            drop(app.store.save(changes));
            let refusal = refused_for_all(each.iter().map(|(_, answer)| answer.as_ref().err()));
            return Err(conflict(refusal.unwrap_or_else(|| all_succeeded(number))));
        }
        log::info!(job = number; "{} terminals of job {number} begin again", terminals.len());
        let titles: Vec<String> = terminals.iter().map(|id| lab.title(&config, id)).collect();
        let detail = targets::shortened(&titles).join(" ");
        changes.push(caller.audit(&app, "retry the job", &subject, &detail));
        let until = terminals.iter().filter_map(|id| lab.jobs().member(number, id)?.until).max();
        let label = |id: &str| lab.get(id).and_then(|t| lab.label(&config, t)).map(str::to_owned);
        let said = |()| Said::new("begins again when it boots from the network");
        let decided = each.into_iter().map(|(id, answer)| {
            let label = label(&id);
            decided(id, label, answer.map(said))
        });
        (Retried { until, decided: decided.collect(), terminals }, app.store.save(changes))
    };
    keep(saved).await?;
    Ok(Json(retried))
}

/// Refuses a terminal that has a word of its own and is not in the job: that word is a mistake.
fn are_in_it(lab: &Lab, config: &Config, number: u64, meant: &Meant) -> Result<(), Error> {
    let strangers = meant.ids.iter().filter(|id| meant.is_alone(id));
    match strangers.into_iter().find(|id| lab.jobs().member(number, id).is_none()) {
        None => Ok(()),
        Some(id) => Err(error(
            StatusCode::CONFLICT,
            format!("terminal {} is not in job {number}", lab.title(config, id)),
            "'flashmob job show' lists its terminals; 'flashmob job create' makes a new job.",
        )),
    }
}

fn all_succeeded(number: u64) -> Refusal {
    Refusal {
        error: format!("no terminal of job {number} failed, was cancelled or missed"),
        advice: "Name terminals that are done to image them again.".into(),
    }
}
