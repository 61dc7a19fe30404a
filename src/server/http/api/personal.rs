//! A system of its own for each terminal: what `take` gives the agent, its reports, the started system's
//! call.
//!
//! Invariant: a report is taken only with its attempt's token, a call of a started system only with a ticket
//! that was not used; `lab` keeps both. A terminal that its job's rule gives no name is not imaged.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, State};
use axum::http::StatusCode;

use super::reply::{Body, Error, Shared, conflict, error, keep, not_taken, read};
use crate::api::{Assignment, Booted, Compare, PersonalReport, Refusal, Take, Task};
use crate::image_id::ImageId;
use crate::io::net::reverse_dns::{self, NoName};
use crate::manifest::after::{AfterFile, Rule, Traits};
use crate::server::app::{App, Repository};
use crate::server::domain::attempt::Attempt;
use crate::server::domain::config::Config;
use crate::server::domain::jobs::{
    DnsNames, Finding, JobOrder, JobPlan, Moment, Offer, Placement, Terms, hostname_of,
};
use crate::server::domain::lab::{Lab, NotBooted, Terminal};
use crate::server::domain::registry::hostname::{HostnameRule, Lack};
use crate::server::domain::target::Target;
use crate::server::domain::targets::{Groups, TargetExpr, groups_of, resolve, shortened};
use crate::server::domain::tickets;
use crate::sync;
use crate::tracker::Topology;

/// How long DNS may take for all terminals of an order. Tests wait for that.
const DNS: Duration = Duration::from_secs(8);
/// When a terminal asks again for which DNS gave no answer.
const DNS_AGAIN: Duration = Duration::from_secs(15);
/// Why a job with a rule for host names is not given to an agent that would leave the image's name.
const TOO_OLD: &str = "this terminal's agent is too old to set a host name";
const REBUILD: &str = "Nothing was written. Make new netboot files with flashmob-initramfs, restart the \
    terminal, and run on the server: flashmob job retry.";
/// The same of a job whose image has the administrator's files.
const NO_FILES: &str = "this terminal's agent is too old for the administrator's files of this image";
/// The same of a system that stays as it is, and has not grown yet.
const NO_GROWTH: &str = "this terminal's agent is too old to go on with the growth of an installed system";
const REBUILD_TO_FINISH: &str = "The image is on the disk, and this is left to do. Make new netboot files \
    with flashmob-initramfs, and restart the terminal: it goes on then.";

/// What DNS knows of the terminals of an order, if its rule asks for that.
pub(super) async fn look_up_all(
    app: &App,
    order: &JobOrder,
    words: &[TargetExpr],
) -> Result<DnsNames, Error> {
    if !order.hostname_rule().map_err(conflict)?.is_some_and(|rule| rule.asks_dns()) {
        return Ok(DnsNames::default());
    }
    let addresses: BTreeSet<IpAddr> = {
        let shape = Arc::clone(&sync::read(&app.topology));
        let lab = sync::lock(&app.lab);
        let wanted = resolve(&lab, &app.config(), &shape, words).map_err(conflict)?;
        wanted.iter().filter_map(|id| lab.get(id)?.ip()).collect()
    };
    Ok(ask_dns(addresses).await)
}

async fn ask_dns(addresses: impl IntoIterator<Item = IpAddr>) -> DnsNames {
    let answers = reverse_dns::names(addresses, DNS).await;
    let is_open = |name: &Result<_, NoName>| name.as_ref().is_err_and(|no| !no.is_answer);
    DnsNames {
        unanswered: answers.iter().filter(|(_, name)| is_open(name)).map(|(ip, _)| *ip).collect(),
        names: answers.into_iter().map(|(ip, name)| (ip, name.map_err(|no| no.why))).collect(),
    }
}

/// The address of the terminal `id`, if the job that waits for it takes a name from DNS.
pub(super) fn to_look_up(lab: &Lab, (id, wish): (&str, &Take), at: &Moment) -> Option<IpAddr> {
    if wish.image.is_some() || wish.only_lend {
        return None;
    }
    match lab.offer(id, at) {
        Offer::Now(target) if target.terms.hostname.as_ref().is_some_and(HostnameRule::asks_dns) => {
            lab.get(id).and_then(Terminal::ip)
        }
        _ => None,
    }
}

/// What DNS knows of one terminal's address.
pub(super) async fn look_up(address: Option<IpAddr>) -> DnsNames {
    match address {
        Some(address) => ask_dns([address]).await,
        None => DnsNames::default(),
    }
}

/// The host name that `target` gives the terminal `id`: none without a rule. While DNS does not answer, the
/// terminal waits. Any other error fails the terminal's place in the job, because a system under another
/// terminal's name is worse than none.
pub(super) fn hostname(
    lab: &mut Lab,
    app: &App,
    config: &Config,
    (id, wish): (&str, &Take),
    target: &Target,
    dns: &DnsNames,
) -> Result<Option<String>, Error> {
    let Some(rule) = &target.terms.hostname else { return Ok(None) };
    let Some(terminal) = lab.get(id) else { return Ok(None) };
    let (why, advice) = match hostname_of(rule, terminal, lab.label(config, terminal), dns) {
        _ if !wish.personal => (TOO_OLD.to_owned(), REBUILD),
        Ok(name) => match lab.holder_of(&name, id, &target.job) {
            None => return Ok(Some(name)),
            Some(other) => {
                let other = lab.title(config, other);
                let why =
                    format!("--hostname {rule} gives this terminal the name '{name}', which {other} has");
                (why, "Correct the name of one of the two, and run 'flashmob job retry'.")
            }
        },
        Err(Lack { why, open: true }) => {
            let why = format!("--hostname {rule} gives this terminal no name yet: {why}");
            lab.put_off(id, &target.job, &why, &app.moment().date.saturating_add(DNS_AGAIN));
            return Err(Error::too_much(why, DNS_AGAIN, "Look at the resolver of the server's machine."));
        }
        Err(Lack { why, open: false }) => {
            let advice = "Describe the terminal with 'flashmob terminal set', and run 'flashmob job retry'.";
            (format!("--hostname {rule} gives this terminal no name: {why}"), advice)
        }
    };
    let changes = lab.unable(id, &target.job, &why, app.now());
    drop(app.store.save(changes));
    Err(error(StatusCode::CONFLICT, why, advice))
}

/// Refuses an agent that would leave out the administrator's files of the image that `target` starts.
pub(super) fn knows_files(
    lab: &mut Lab,
    app: &App,
    repository: &Repository,
    (id, wish): (&str, &Take),
    target: &Target,
) -> Result<(), Error> {
    let Terms { images, as_is, preflight, .. } = &target.terms;
    let has_files = || images.first().is_some_and(|first| repository.after.contains_key(&first.id));
    if wish.image.is_some() || wish.files || *as_is || *preflight || !has_files() {
        return Ok(());
    }
    let changes = lab.unable(id, &target.job, NO_FILES, app.now());
    drop(app.store.save(changes));
    Err(error(StatusCode::CONFLICT, NO_FILES, REBUILD))
}

/// Refuses an agent that would finish the terminal's last attempt without what is left to do: growth of a
/// system that stays as it is, or the administrator's files that its image has for it.
pub(super) fn may_finish(
    lab: &Lab,
    (config, topology): (&Config, &Topology),
    repository: &Repository,
    (id, wish): (&str, &Take),
) -> Result<(), Error> {
    let last = lab.get(id).and_then(|terminal| terminal.last.as_ref());
    let is_as_is = last.and_then(|last| last.personal.as_ref()).is_some_and(|personal| personal.as_is);
    if is_as_is && !wish.growth {
        return Err(error(StatusCode::CONFLICT, NO_GROWTH, REBUILD_TO_FINISH));
    }
    let terminal = lab.get(id).filter(|_| !wish.files);
    let last = terminal.and_then(|terminal| terminal.last.as_ref());
    let last = last.filter(|last| last.personal.as_ref().is_some_and(|personal| !personal.as_is));
    let after = last.and_then(|last| repository.after.get(&last.image));
    let (Some(terminal), Some(after)) = (terminal, after) else { return Ok(()) };
    let groups = groups_of(lab, config, topology, terminal);
    match after.of(&traits(terminal, &groups)).is_empty() {
        true => Ok(()),
        false => Err(error(StatusCode::CONFLICT, NO_FILES, REBUILD_TO_FINISH)),
    }
}

fn traits<'a>(terminal: &'a Terminal, groups: &'a [String]) -> Traits<'a> {
    let (room, model) = (terminal.place.room.as_deref(), terminal.inventory.machine.as_str());
    Traits { room, groups, model }
}

/// Has `image` the file with this hash for the terminal that makes `attempt`?
pub(in super::super) fn is_for(app: &App, attempt: u64, image: &ImageId, hash: &str) -> bool {
    let (config, repository) = (app.config(), app.repository());
    let Some(after) = repository.after.get(image) else { return false };
    let shape = Arc::clone(&sync::read(&app.topology));
    let (room, model, groups) = {
        let lab = sync::lock(&app.lab);
        let Some(terminal) = lab.of_attempt(attempt).and_then(|id| lab.get(id)) else { return false };
        let groups = groups_of(&lab, &config, &shape, terminal);
        (terminal.place.room.clone(), terminal.inventory.machine.clone(), groups)
    };
    after.has(&Traits { room: room.as_deref(), groups: &groups, model: &model }, hash)
}

/// Names in `plan` the files that each terminal will get.
pub(super) fn list_files(
    plan: &mut JobPlan,
    terms: &Terms,
    lab: &Lab,
    (config, topology): (&Config, &Topology),
    repository: &Repository,
) {
    let after = terms.images.first().and_then(|first| repository.after.get(&first.id));
    let Some(after) = after.filter(|_| !terms.as_is && !terms.preflight) else { return };
    let groups_of_all = Groups::new(lab, config, topology);
    for affected in &mut plan.terminals {
        let Some(terminal) = lab.get(&affected.id) else { continue };
        let groups = groups_of_all.of(terminal);
        let files = after.of(&traits(terminal, &groups));
        let path = |(rule, file): &(&Rule, &AfterFile)| match (rule.partition, rule.system) {
            (Some(number), _) => format!("/{} (partition {number})", file.path),
            (None, Some(system)) => format!("/{} ({system})", file.path),
            (None, None) => format!("/{}", file.path),
        };
        affected.files = shortened(&files.iter().map(path).collect::<Vec<_>>());
    }
    let given = plan.terminals.iter().any(|affected| !affected.files.is_empty());
    let by_bios = |id: &&ImageId| {
        let image = repository.catalog.resolve(&(*id).clone().into());
        image.is_ok_and(|image| image.blank || image.nameless)
    };
    plan.findings.extend(terms.ids().next().filter(|_| given).filter(by_bios).map(|id| {
        Finding {
            terminal: None,
            error: format!("a Windows of {id} that starts by BIOS gets none of the administrator's files"),
            advice:
                "Put them into the golden system before its capture, or let a script in first-start.d fetch \
            them."
                    .into(),
        }
    }));
}

/// One image for one disk.
pub(super) fn task(image: Placement, compare: Compare) -> Task {
    let Placement { id, disk, layout, partitions } = image;
    let folder = format!("/images/{}/{}/", id.name, id.version);
    let mut task = Task { id, folder, disk, layout, partitions: None, compare, ticket: None };
    if let Some(partitions) = partitions {
        task.only(partitions);
    }
    task
}

/// Adds what makes the system the terminal's own, with a new ticket for its call; or that it only grows.
pub(super) fn give(
    lab: &Lab,
    app: &App,
    (config, topology): (&Config, &Topology),
    id: &str,
    assignment: &mut Assignment,
) {
    let terminal = lab.get(id);
    let last = terminal.and_then(|terminal| terminal.last.as_ref());
    assignment.growth = last.and_then(|last| last.personal.as_ref()).is_some_and(|personal| personal.as_is);
    let label = terminal.and_then(|terminal| lab.label(config, terminal));
    let groups = terminal.map(|terminal| groups_of(lab, config, topology, terminal));
    let ticket = tickets::issue_for_boot(&app.ticket_key, assignment.attempt, app.now());
    assignment.personal = lab.given(id, label, groups.unwrap_or_default(), ticket);
    if assignment.personal.is_some() {
        // For the administrator's files, which no image is open enough for.
        let task = &mut assignment.task;
        let what = (assignment.attempt, &task.id);
        task.ticket = Some(tickets::issue_for_image(&app.ticket_key, what, app.now()));
    }
}

/// The work of a terminal that was cut off after its image was on the disk.
pub(super) fn finish(
    lab: &mut Lab,
    app: &App,
    (config, topology): (&Config, &Topology),
    id: &str,
) -> Option<Assignment> {
    let (attempt, change) = lab.finish(id, app.now())?;
    let Attempt { number, ref token, ref job, ref personal, .. } = attempt;
    let personal = personal.as_ref()?;
    let terminal = lab.get(id)?;
    // Nothing is fetched, and the disk is not compared.
    let mut tasks = personal.images.iter().map(|image| task(image.clone(), Compare::Auto));
    let mut assignment = Assignment {
        job: job.clone(),
        attempt: number,
        token: token.clone(),
        task: tasks.next()?,
        also: tasks.collect(),
        installed: attempt.leaves_installed(),
        known_disks: terminal.known_disks.clone(),
        chosen: terminal.chosen.clone(),
        compress: config.compress,
        after: personal.after,
        verify: true,
        longest_stay: 0,
        preflight: false,
        limit_mbit: None,
        personal: None,
        growth: false,
        finish: true,
        date: None,
    };
    give(lab, app, (config, topology), id, &mut assignment);
    let title = lab.title(config, id);
    log::info!(terminal = id, attempt = number; "{title} goes on with the system on its disk");
    // A count that is lost does no harm.
    drop(app.store.save(vec![change]));
    Some(assignment)
}

/// `POST /api/v1/attempts/{attempt}/personal`.
#[utoipa::path(
    post,
    operation_id = "personal",
    path = "/api/v1/attempts/{attempt}/personal",
    summary = "An agent says how far the terminal's own system is",
    tag = "terminals",
    params(("attempt" = u64, Path, description = "From the assignment")),
    request_body = PersonalReport,
    responses(
        (status = 204, description = "Done"),
        (status = "4XX", description = "Refused, with what to do", body = Refusal),
        (status = 503, description = "The database cannot keep it now", body = Refusal),
    )
)]
pub async fn report(
    State(app): Shared,
    Path(attempt): Path<u64>,
    body: Body<PersonalReport>,
) -> Result<StatusCode, Error> {
    let report = read(body)?;
    let saved = {
        let mut lab = sync::lock(&app.lab);
        let changes = lab.personal(app.now(), attempt, report).map_err(not_taken)?;
        let id = lab.of_attempt(attempt).unwrap_or_default();
        let kept = lab.get(id).and_then(|terminal| terminal.last.as_ref()?.personal.as_ref());
        if let Some(personal) = kept.filter(|personal| !personal.problems.is_empty()) {
            let (title, problems) = (lab.title(&app.config(), id), personal.problems.join("; "));
            let what = if personal.as_is { "has not fully grown" } else { "is not fully personalised" };
            log::warn!(terminal = id, attempt; "{title} {what}: {problems}");
        }
        app.store.save(changes)
    };
    keep(saved).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `POST /api/v1/booted`: an installed system has started.
#[utoipa::path(
    post,
    path = "/api/v1/booted",
    summary = "An installed system has started",
    tag = "terminals",
    request_body = Booted,
    responses(
        (status = 204, description = "Done"),
        (status = "4XX", description = "Refused, with what to do", body = Refusal),
        (status = 503, description = "The database cannot keep it now", body = Refusal),
    )
)]
pub async fn booted(State(app): Shared, body: Body<Booted>) -> Result<StatusCode, Error> {
    let said = read(body)?;
    let refused = |why: String| {
        let advice = "A ticket is good for one start after imaging. Nothing is to be done on the terminal: \
            image it again for another one.";
        error(StatusCode::FORBIDDEN, why, advice)
    };
    let attempt =
        tickets::boot_of(&app.ticket_key, &said.ticket, app.now()).map_err(|why| refused(why.to_string()))?;
    let saved = {
        let mut lab = sync::lock(&app.lab);
        let (id, change) =
            lab.booted(app.now(), attempt, said).map_err(|why: NotBooted| refused(why.to_string()))?;
        let (title, system) = (lab.title(&app.config(), &id), lab.system(&id, Some(attempt)));
        log::info!(terminal = id, attempt; "{title} has {}", system.unwrap_or_default());
        app.store.save(vec![change])
    };
    keep(saved).await?;
    Ok(StatusCode::NO_CONTENT)
}
