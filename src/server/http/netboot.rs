//! `/boot/ipxe`, `/boot/grub` and `/boot/step`: looks up the calling terminal and answers with its next step,
//! as a script or as JSON.
//!
//! Invariant: decides nothing itself: `jobs` decides, `step` writes the script. A machine that the server
//! does not know boots its disk. GRUBs that speak no HTTP ask for `/boot/grub` by TFTP (see `tftp`).

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Query, Request, State};
use axum::http::{HeaderMap, Method, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use log::Level;
use serde::Deserialize;

use crate::api::{Hello, Inventory, Refusal};
use crate::boot::start;
use crate::server::app::App;
use crate::server::domain::attempt::Attempt;
use crate::server::domain::grub;
use crate::server::domain::identity::{Identity, Mac};
use crate::server::domain::ipxe::{self, Caller, Platform};
use crate::server::domain::jobs::AtBoot;
use crate::server::domain::lab::{Lab, Netboot};
use crate::server::domain::pxe::Way;
use crate::server::domain::scripts::{self, Language};
use crate::server::domain::step::Step;
use crate::server::domain::tickets::{self, Subject};
use crate::server::http::fairness::may_ask;
use crate::server::http::listen::Ends;
use crate::sync;

/// The facts of iPXE or GRUB about its machine.
#[derive(Debug, Default, Deserialize)]
pub struct Machine {
    mac: Option<String>,
    uuid: Option<String>,
    platform: Option<String>,
    /// Our address as the terminal wrote it, where no header says it.
    host: Option<String>,
    /// A ticket that was sent to the caller's address.
    proof: Option<String>,
}

/// The address at which the caller reached us, as it writes it: its `Host` header, or our end of the
/// connection.
pub(crate) fn host_of(headers: &HeaderMap, ends: Ends) -> String {
    let named = headers.get(header::HOST).and_then(|value| value.to_str().ok());
    named.and_then(ipxe::usable_host).map_or_else(|| ends.local.to_string(), str::to_string)
}

/// `GET /boot/ipxe`.
pub async fn script(
    State(app): State<Arc<App>>,
    Extension(ends): Extension<Ends>,
    Query(machine): Query<Machine>,
    headers: HeaderMap,
) -> Response {
    let host = host_of(&headers, ends);
    came(&app, &machine, ends.remote.ip());
    let text = match (&machine.mac, &machine.uuid) {
        (None, None) => ipxe::introduce(&host),
        (mac, uuid) => {
            let identity = Identity::new(mac.as_slice(), uuid.as_deref());
            let platform = Platform::from_word(machine.platform.as_deref().unwrap_or_default());
            let caller = Caller { host, identity, platform };
            scripts::script(&decide(&app, &caller, ends.remote.ip()), &caller, Language::Ipxe)
        }
    };
    as_text(text)
}

/// `GET /boot/grub`.
pub async fn grub_script(
    State(app): State<Arc<App>>,
    Extension(ends): Extension<Ends>,
    Query(machine): Query<Machine>,
    headers: HeaderMap,
) -> Response {
    as_text(grub_answer(&app, &machine, host_of(&headers, ends), ends.remote.ip()))
}

/// `GET /boot/step`: for an agent that no boot script started.
pub async fn step(
    State(app): State<Arc<App>>,
    Extension(ends): Extension<Ends>,
    Query(machine): Query<Machine>,
    headers: HeaderMap,
) -> Response {
    let identity = Identity::new(machine.mac.as_slice(), machine.uuid.as_deref());
    let caller = Caller { host: host_of(&headers, ends), identity, platform: Platform::Efi };
    let step = decide(&app, &caller, ends.remote.ip()).for_agent();
    ([(header::CACHE_CONTROL, "no-store")], Json(step)).into_response()
}

fn as_text(text: String) -> Response {
    ([(header::CONTENT_TYPE, "text/plain; charset=utf-8"), (header::CACHE_CONTROL, "no-store")], text)
        .into_response()
}

/// The answer to a GRUB that names its file by `/boot/grub?host=…&mac=…&uuid=…`, where `host` is our address
/// as the terminal wrote it, because TFTP has no such header. Anybody can write any sender into a UDP packet,
/// so a caller first gets a ticket at its address, and the server decides and notes nothing until the caller
/// presents it.
pub(crate) fn by_file_name(app: &App, name: &str, from: IpAddr) -> Option<String> {
    let uri: Uri = name.parse().ok()?;
    let Query(machine) = Query::<Machine>::try_from_uri(&uri).ok()?;
    if uri.path() != "/boot/grub" {
        return None;
    }
    let host = machine.host.as_deref().and_then(ipxe::usable_host)?.to_string();
    let is_proved = |proof: &String| tickets::is_for_address(&app.ticket_key, proof, from, app.now());
    if !machine.proof.as_ref().is_some_and(is_proved) {
        let proof = tickets::issue_for_address(&app.ticket_key, from, app.now());
        return Some(grub::prove(&signed_grub(&machine, host), &proof));
    }
    Some(grub_answer(app, &machine, host, from))
}

/// Signed GRUB runs by UEFI alone.
fn signed_grub(machine: &Machine, host: String) -> Caller {
    let identity = Identity::new(machine.mac.as_slice(), machine.uuid.as_deref());
    Caller { host, identity, platform: Platform::Efi }
}

fn grub_answer(app: &App, machine: &Machine, host: String, from: IpAddr) -> String {
    came(app, machine, from);
    let caller = signed_grub(machine, host);
    scripts::script(&decide(app, &caller, from), &caller, Language::Grub)
}

/// The terminal's first program runs.
fn came(app: &App, machine: &Machine, from: IpAddr) {
    let macs: Vec<_> = machine.mac.iter().filter_map(|mac| mac.parse().ok()).collect();
    sync::lock(&app.pxe).came(from, &macs);
}

/// Notes who fetched which netboot file whole: UEFI HTTP boot begins with one.
pub(crate) async fn noted(
    State(app): State<Arc<App>>,
    Extension(ends): Extension<Ends>,
    request: Request,
    next: Next,
) -> Response {
    let path = request.uri().path().to_string();
    let whole = request.method() == Method::GET;
    let response = next.run(request).await;
    if let (Some(file), IpAddr::V4(from)) = (path.strip_prefix("/boot/"), ends.remote.ip().to_canonical())
        && whole
        && response.status().is_success()
    {
        sync::lock(&app.pxe).fetched(app.now(), (file, Way::Http), from, None);
    }
    response
}

/// Where the system that was imaged last starts.
fn root_path(last: Option<&Attempt>, platform: Platform) -> Option<String> {
    let installed = last.map(Attempt::leaves_installed).unwrap_or_default();
    installed.iter().find_map(|one| match platform {
        Platform::Bios => start::by_bios(&one.starts),
        Platform::Efi => start::by_uefi(&one.starts),
    })
}

/// Lists a machine that was never here as new.
fn notice(app: &App, lab: &mut Lab, caller: &Caller, from: IpAddr) {
    let Some(mac) = caller.identity.macs.first() else { return };
    let now = app.now();
    if sync::lock(&app.limits).register(now, from, &app.config().limits).is_err() {
        return;
    }
    log::info!("{mac} netboots: it is new here, and goes on to its disk");
    let uuid = caller.identity.uuid.map(|uuid| uuid.to_string());
    let hello =
        Hello { uuid, macs: vec![mac.to_string()], inventory: Inventory::default(), agent: String::new() };
    if let Ok((_, changes)) = lab.hello(now, from.to_string(), hello) {
        // A record that is lost is made again at its next netboot.
        drop(app.store.save(changes));
    }
}

/// The agent, with a ticket that lets it speak.
fn agent(app: &App, caller: &Caller, now: Duration, what: String) -> Step {
    let ticket = Subject::of(&caller.identity);
    let ticket = ticket.map(|subject| tickets::issue(&app.ticket_key, subject, now));
    Step::Agent { what, ticket, arguments: app.config().boot.arguments.clone() }
}

/// The image that is made of the terminal's disk, which the terminal has not failed to lend.
fn to_lend(lab: &Lab, id: &str, now: Duration) -> Option<String> {
    lab.captures
        .of(id, now)
        .filter(|capture| capture.request.failure.is_none())
        .map(|capture| capture.request.image.clone())
}

/// A known terminal that netboots, or somebody in its name.
#[derive(Clone, Copy)]
struct Asks<'a> {
    now: Duration,
    id: &'a str,
    title: &'a str,
    from: IpAddr,
    /// The card that it comes by, if only a hello named that as its own.
    claimed: Option<Mac>,
}

/// Logs what a terminal is told, and keeps it for people. Anybody can ask in its name again and again, so a
/// step that it was told before is not logged as one.
fn tell(lab: &mut Lab, asks: Asks<'_>, (level, step): (Level, &str), text: &str) {
    let Asks { now, id, title, from, claimed } = asks;
    lab.netbooted(id, Netboot { at: now, from, claimed, told: text.into() });
    let level = if lab.is_news(id, step, now) { level } else { Level::Debug };
    log::log!(level, terminal = id; "{title} netboots{text}");
}

/// The step of a terminal that netboots by a card that only its hello named. Whoever has the ticket of a
/// terminal can name the card of any machine, so that machine is not written.
fn by_claimed_card(lab: &mut Lab, asks: Asks<'_>, mac: Mac, root_path: Option<String>) -> Step {
    let Asks { id, title, .. } = asks;
    let advice = format!("Start it by a card that 'flashmob terminal show {id}' lists, or list {mac} too.");
    let text = format!(" by the card {mac}, which nobody has listed as its own: it gets no agent. {advice}");
    tell(lab, asks, (Level::Warn, "claimed card"), &text);
    match lab.is_half_written(id) {
        true => {
            let error = format!("{title} is half written, and nobody has listed its card {mac} as its own");
            Step::Hold { error, advice }
        }
        false => Step::Disk(root_path),
    }
}

fn decide(app: &App, caller: &Caller, from: IpAddr) -> Step {
    let (config, repository, can_netboot) = (app.config(), app.repository(), app.can_netboot());
    let at = app.moment();
    let mut lab = sync::lock(&app.lab);
    let Some(terminal) = lab.find(&caller.identity, at.now) else {
        notice(app, &mut lab, caller, from);
        return Step::Disk(None);
    };
    let claimed = terminal.claimed_card(&caller.identity);
    let (id, root_path) = (terminal.id.clone(), root_path(terminal.last.as_ref(), caller.platform));
    let title = lab.title(&config, &id);
    let asks = Asks { now: at.now, id: &id, title: &title, from, claimed };
    if let Some(mac) = claimed {
        return by_claimed_card(&mut lab, asks, mac, root_path);
    }
    if let Some(image) = to_lend(&lab, &id, at.now).filter(|_| can_netboot) {
        let text = format!(": sent the agent to lend its disk for {image}");
        tell(&mut lab, asks, (Level::Info, "lend"), &text);
        let what = format!("lending the disk of this terminal for {image}, read-only");
        return agent(app, caller, at.now, what);
    }
    let step = lab.next_step(&id, &at);
    let missing = match &step {
        AtBoot::Agent(_) if !can_netboot => Some(Refusal {
            error: "the server has no netboot files".into(),
            advice: "Name their folder with --boot.".into(),
        }),
        AtBoot::Agent(target) => repository.catalog.has(target.images()).err(),
        _ => None,
    };
    if let Some(Refusal { error, .. }) = &missing {
        tell(&mut lab, asks, (Level::Warn, "no agent"), &format!(", but {error}"));
    }
    match (step, missing) {
        (AtBoot::Agent(target), None) => {
            let text = format!(": sent the agent for {}", target.title());
            tell(&mut lab, asks, (Level::Info, &format!("job {}", target.job)), &text);
            // Others wait in the swarm for whoever is expected, and a place of the wave is kept for it.
            if may_ask(app, from).is_ok() {
                // A preflight fetches nothing from others.
                let fetched = target.images().filter(|_| !target.terms.preflight);
                lab.expect(at.now, &id, from, fetched.cloned().collect());
                lab.grant(&id, &target, from, &at);
            }
            let what = format!("imaging this terminal with {}", target.title());
            agent(app, caller, at.now, what)
        }
        (AtBoot::Finish, _) if can_netboot => {
            let text = ": sent the agent to finish its own system";
            tell(&mut lab, asks, (Level::Info, "finish"), text);
            agent(app, caller, at.now, "finishing this terminal's own system".into())
        }
        (AtBoot::Agent(_), Some(Refusal { error, advice })) if lab.is_half_written(&id) => {
            Step::Hold { error, advice }
        }
        (AtBoot::Queue { why }, _) => {
            tell(&mut lab, asks, (Level::Info, "wait"), &format!(": it waits, {why}"));
            Step::Queue { why }
        }
        (AtBoot::Hold { error, advice }, _) => {
            tell(&mut lab, asks, (Level::Warn, "hold"), &format!(": held, {error}"));
            Step::Hold { error, advice }
        }
        (AtBoot::Agent(_) | AtBoot::Finish | AtBoot::Disk, missing) => {
            let way = root_path.as_deref().unwrap_or("its firmware's next boot entry");
            // Why there is no agent was told above.
            if missing.is_none() {
                tell(&mut lab, asks, (Level::Info, "disk"), &format!(": sent to {way}"));
            }
            Step::Disk(root_path)
        }
    }
}
