//! Waking terminals at once, because a person asks.
//!
//! Invariant: a person who may act on all of them asks (`access`), and that is in the audit of each. The
//! answer says which ways the packets took; no answer can say that a terminal woke.

use std::time::Duration;

use axum::Json;
use axum::extract::{Path, State};

use super::access::Caller;
use super::decide::may_act;
use super::reply::{Body, Error, Shared, conflict, keep, read};
use crate::api::{Refusal, Targets, Woken};
use crate::server::app::App;
use crate::server::domain::targets::{self, resolve};
use crate::server::domain::wake::{Wanted, Way};
use crate::server::waking::{self, Round};
use crate::sync;

/// Packets are repeated for so long: three leave.
const REPEAT: Duration = Duration::from_secs(59);

/// `POST /api/v1/terminals/{target}/wake`.
#[utoipa::path(
    post,
    path = "/api/v1/terminals/{id}/wake",
    summary = "Switch terminals on by magic packets",
    tag = "decisions",
    params(("id" = String, Path, description = "A terminal, room:NAME, group:NAME, zone:NAME, new or all")),
    responses(
        (status = 200, description = "Done", body = Vec<Woken>),
        (status = "4XX", description = "Refused, with what to do", body = Refusal),
        (status = 503, description = "The database cannot keep it now", body = Refusal),
    )
)]
pub async fn wake(
    State(app): Shared,
    caller: Caller,
    Path(target): Path<String>,
) -> Result<Json<Vec<Woken>>, Error> {
    caller.somebody(&app, "wake", &target)?;
    wake_them(&app, &caller, &[target]).await.map(Json)
}

/// `POST /api/v1/decisions/wake`.
#[utoipa::path(
    post,
    path = "/api/v1/decisions/wake",
    summary = "Switch the terminals of several targets on by magic packets",
    tag = "decisions",
    request_body = Targets,
    responses(
        (status = 200, description = "Done", body = Vec<Woken>),
        (status = "4XX", description = "Refused, with what to do; no packet was sent", body = Refusal),
        (status = 503, description = "The database cannot keep it now", body = Refusal),
    )
)]
pub async fn wake_terminals(
    State(app): Shared,
    caller: Caller,
    body: Body<Targets>,
) -> Result<Json<Vec<Woken>>, Error> {
    caller.somebody(&app, "wake", "")?;
    let Targets { targets } = read(body)?;
    wake_them(&app, &caller, &targets).await.map(Json)
}

async fn wake_them(app: &App, caller: &Caller, targets: &[String]) -> Result<Vec<Woken>, Error> {
    let words = targets::words(targets).map_err(conflict)?;
    let title = targets::shortened(targets).join(" ");
    let (config, ties, until) = (app.config(), app.ties(), app.now() + REPEAT);
    let wanted: Vec<(Option<String>, Wanted)> = {
        let lab = sync::lock(&app.lab);
        let ids = resolve(&lab, &config, &ties.topology, &words).map_err(conflict)?;
        may_act(app, caller, &lab, &ids, "wake")?;
        let terminals = ids.iter().filter_map(|id| lab.get(id));
        let wanted = |t| (lab.label(&config, t).map(str::to_owned), waking::wanted(t, &ties, until));
        terminals.map(wanted).collect()
    };
    let entry = |(_, one): &(_, Wanted)| caller.audit(app, "wake", &one.terminal, &title);
    keep(app.store.save(wanted.iter().map(entry).collect())).await?;
    log::info!("{} wakes {title}: {} terminals", caller.name(), wanted.len());
    let now = app.now();
    for (_, wanted) in &wanted {
        sync::lock(&app.waking).urge(wanted.clone(), now);
    }
    let round = waking::send_due(app).await;
    Ok(wanted.into_iter().map(|(label, wanted)| woken(label, wanted, &round)).collect())
}

/// What happened for one terminal.
fn woken(label: Option<String>, wanted: Wanted, round: &Round) -> Woken {
    let mut woken = Woken {
        label,
        macs: wanted.macs.iter().map(ToString::to_string).collect(),
        terminal: wanted.terminal,
        ..Woken::default()
    };
    for packet in round.due.packets.iter().filter(|packet| packet.terminal == woken.terminal) {
        match &packet.way {
            Way::Server => {
                woken.interfaces.clone_from(&round.sent.interfaces);
                woken.problems.clone_from(&round.sent.problems);
            }
            Way::Router(network) => woken.networks.push(network.to_string()),
            Way::Relay(relay) => woken.relays.push(relay.clone()),
        }
    }
    woken.failure = if woken.macs.is_empty() {
        Some("it has no MAC address, and only that can be woken".into())
    } else if round.due.unreachable.contains(&woken.terminal) {
        Some("it is in another network, and no terminal there is at work".into())
    } else if !woken.problems.is_empty() && [&woken.interfaces, &woken.relays].iter().all(|w| w.is_empty()) {
        Some(woken.problems.join("; "))
    } else {
        None
    };
    woken
}
