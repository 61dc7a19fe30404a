//! `/boot/ipxe`: looks up the calling terminal and answers with the script for its next step.
//!
//! Invariant: decides nothing itself: `jobs` decides, `ipxe` writes the script. A machine that the server
//! does not know boots its disk.

use std::net::IpAddr;
use std::sync::Arc;

use axum::Extension;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;

use crate::api::{Hello, Inventory, Refusal};
use crate::boot::start;
use crate::server::app::App;
use crate::server::domain::attempt::Attempt;
use crate::server::domain::identity::Identity;
use crate::server::domain::ipxe::{self, Caller, Platform};
use crate::server::domain::jobs::AtBoot;
use crate::server::domain::lab::Lab;
use crate::server::domain::tickets::{self, Subject};
use crate::server::http::fairness::may_ask;
use crate::server::http::listen::Ends;
use crate::sync;

/// iPXE's facts about its machine.
#[derive(Debug, Default, Deserialize)]
pub struct Machine {
    mac: Option<String>,
    uuid: Option<String>,
    platform: Option<String>,
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
    let text = match (&machine.mac, &machine.uuid) {
        (None, None) => ipxe::introduce(&host),
        (mac, uuid) => {
            let identity = Identity::new(mac.as_slice(), uuid.as_deref());
            let platform = Platform::from_word(machine.platform.as_deref().unwrap_or_default());
            decide(&app, &Caller { host, identity, platform }, ends.remote.ip())
        }
    };
    ([(header::CONTENT_TYPE, "text/plain; charset=utf-8"), (header::CACHE_CONTROL, "no-store")], text)
        .into_response()
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
    log::info!("{mac} netboots: it is new here, and goes on with its firmware's next boot entry");
    let uuid = caller.identity.uuid.map(|uuid| uuid.to_string());
    let hello =
        Hello { uuid, macs: vec![mac.to_string()], inventory: Inventory::default(), agent: String::new() };
    if let Ok((_, changes)) = lab.hello(now, from.to_string(), hello) {
        // A record that is lost is made again at its next netboot.
        drop(app.store.save(changes));
    }
}

fn decide(app: &App, caller: &Caller, from: IpAddr) -> String {
    let (config, repository, can_netboot) = (app.config(), app.repository(), app.can_netboot());
    let at = app.moment();
    let mut lab = sync::lock(&app.lab);
    let Some(terminal) = lab.find(&caller.identity, at.now) else {
        notice(app, &mut lab, caller, from);
        return ipxe::disk(caller, None);
    };
    let (id, root_path) = (terminal.id.clone(), root_path(terminal.last.as_ref(), caller.platform));
    let title = lab.title(&config, &id);
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
        log::warn!(terminal = id; "{title} netboots, but {error}");
    }
    match (step, missing) {
        (AtBoot::Agent(target), None) => {
            log::info!(terminal = id; "{title} netboots: sent the agent for {}", target.title());
            // Others wait in the swarm for whoever is expected, and a place of the wave is kept for it.
            if may_ask(app, from).is_ok() {
                // A preflight fetches nothing from others.
                let fetched = target.images().filter(|_| !target.terms.preflight);
                lab.expect(at.now, &caller.identity, fetched.cloned().collect());
                lab.grant(&id, &target, &at);
            }
            let what = format!("imaging this terminal with {}", target.title());
            let subject = Subject::of(&caller.identity);
            let ticket = subject.map(|subject| tickets::issue(&app.ticket_key, subject, at.now));
            ipxe::agent(caller, &what, ticket.as_deref(), &config.boot.arguments)
        }
        (AtBoot::Finish, _) if can_netboot => {
            log::info!(terminal = id; "{title} netboots: sent the agent to finish its own system");
            let ticket = Subject::of(&caller.identity);
            let ticket = ticket.map(|subject| tickets::issue(&app.ticket_key, subject, at.now));
            let what = "finishing this terminal's own system";
            ipxe::agent(caller, what, ticket.as_deref(), &config.boot.arguments)
        }
        (AtBoot::Agent(_), Some(Refusal { error, advice })) if lab.is_half_written(&id) => {
            ipxe::hold(caller, &error, &advice)
        }
        (AtBoot::Queue { why }, _) => {
            log::info!(terminal = id; "{title} netboots: it waits, {why}");
            ipxe::queue(caller, &why)
        }
        (AtBoot::Hold { error, advice }, _) => {
            log::warn!(terminal = id; "{title} netboots: held, {error}");
            ipxe::hold(caller, &error, &advice)
        }
        (AtBoot::Agent(_) | AtBoot::Finish | AtBoot::Disk, _) => {
            let way = root_path.as_deref().unwrap_or("its firmware's next boot entry");
            log::info!(terminal = id; "{title} netboots: sent to {way}");
            ipxe::disk(caller, root_path.as_deref())
        }
    }
}
