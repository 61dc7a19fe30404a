//! `/boot/ipxe`: looks up the calling terminal and answers with the script for its next step.
//!
//! Invariant: decides nothing itself: `jobs::at_boot` decides, `ipxe` writes the script.

use std::net::IpAddr;
use std::sync::Arc;

use axum::Extension;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;

use crate::boot::start;
use crate::server::app::App;
use crate::server::domain::attempt::Attempt;
use crate::server::domain::identity::Identity;
use crate::server::domain::ipxe::{self, Caller, Platform};
use crate::server::domain::jobs::{self, AtBoot};
use crate::server::domain::target::target_for;
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

fn decide(app: &App, caller: &Caller, from: IpAddr) -> String {
    let (config, repository, can_netboot) = (app.config(), app.repository(), app.can_netboot());
    let now = app.now();
    let mut lab = sync::lock(&app.lab);
    let name = caller.identity.to_string();
    let terminal = lab.find(&caller.identity, now);
    // The configuration may name the terminal by something that only its agent has told us.
    let who = terminal.map_or(&caller.identity, |t| &t.identity);
    let who = lab.named(who, terminal.map(|t| t.id.as_str()));
    let target = match target_for(&config, &repository.catalog, &who) {
        Ok(target) => target,
        Err(refusal) => {
            log::warn!("{name} netboots, but {}", refusal.error);
            None
        }
    };
    let id = terminal.map_or(name.as_str(), |t| t.id.as_str());
    let last = terminal.and_then(|t| t.last.as_ref());
    let known = terminal.is_some();
    let title = lab.title(&config, id);
    let half = last.is_some_and(Attempt::leaves_half_a_system);
    match (jobs::at_boot(id, last, target.as_ref()), target) {
        (AtBoot::Agent, Some(target)) if can_netboot => {
            log::info!(terminal = id; "{title} netboots: sent the agent for {}", target.title());
            // Others wait in the swarm for whoever is expected, and not for what one address invents.
            if known || may_ask(app, from).is_ok() {
                lab.expect(now, &caller.identity, target.images().cloned().collect());
            }
            let ticket =
                Subject::of(&caller.identity).map(|subject| tickets::issue(&app.ticket_key, subject, now));
            let what = format!("imaging this terminal with {}", target.title());
            ipxe::agent(caller, &what, ticket.as_deref(), &config.boot.arguments)
        }
        (AtBoot::Agent, _) if half => {
            ipxe::hold(caller, "the server has no netboot files", "Name their folder with --boot.")
        }
        (AtBoot::Hold { error, advice }, _) => {
            log::warn!(terminal = id; "{title} netboots: held, {error}");
            ipxe::hold(caller, &error, &advice)
        }
        (AtBoot::Agent | AtBoot::Disk, _) => {
            let root_path = root_path(last, caller.platform);
            let way = root_path.as_deref().unwrap_or("its firmware's next boot entry");
            log::info!(terminal = id; "{title} netboots: sent to {way}");
            ipxe::disk(caller, root_path.as_deref())
        }
    }
}
