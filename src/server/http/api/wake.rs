//! Waking one terminal at once, because a person asks.
//!
//! Invariant: only from the server itself, as all decisions. The answer says which ways the packets took; no
//! answer can say that the terminal woke.

use std::time::Duration;

use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::{Extension, Json};

use super::local::from_the_server_itself;
use super::named::meant;
use super::reply::{Error, Shared, conflict, error};
use crate::api::{Refusal, Woken};
use crate::server::domain::wake::Way;
use crate::server::http::listen::Ends;
use crate::server::waking;
use crate::sync;

/// Packets are repeated for so long: three leave.
const REPEAT: Duration = Duration::from_secs(59);

/// `POST /api/v1/terminals/{id}/wake`.
pub async fn wake(
    State(app): Shared,
    Extension(ends): Extension<Ends>,
    Path(typed): Path<String>,
    headers: HeaderMap,
) -> Result<Json<Woken>, Error> {
    from_the_server_itself(ends, &headers, "wake terminals", "Run the command on the server itself.")?;
    let (config, ties, now) = (app.config(), app.ties(), app.now());
    let (wanted, title) = {
        let lab = sync::lock(&app.lab);
        let terminal = meant(&lab, &config, &typed)?;
        (waking::wanted(terminal, &ties, now + REPEAT), lab.title(&config, &terminal.id))
    };
    let id = wanted.terminal.clone();
    if wanted.macs.is_empty() {
        return Err(conflict(Refusal {
            error: format!("{title} has no MAC address, and only that can be woken"),
            advice: "Switch it on by hand.".into(),
        }));
    }
    log::info!(terminal = id; "an administrator wakes {title}");
    let macs = wanted.macs.iter().map(ToString::to_string).collect();
    sync::lock(&app.waking).urge(wanted, now);
    let round = waking::send_due(&app).await;
    let mut woken = Woken { terminal: id.clone(), macs, problems: round.sent.problems, ..Woken::default() };
    for packet in round.due.packets.into_iter().filter(|packet| packet.terminal == id) {
        match packet.way {
            Way::Server => woken.interfaces.clone_from(&round.sent.interfaces),
            Way::Router(network) => woken.networks.push(network.to_string()),
            Way::Relay(relay) => woken.relays.push(relay),
        }
    }
    let unreachable = round.due.unreachable.contains(&id);
    let nothing_left = woken.interfaces.is_empty() && woken.networks.is_empty() && woken.relays.is_empty();
    if unreachable || nothing_left && !woken.problems.is_empty() {
        let why = match unreachable {
            true => "it is in another network, and no terminal there is at work".into(),
            false => woken.problems.join("; "),
        };
        let advice = "The server tries again for a minute. Compare the terminal's address in \
                      'flashmob terminal show' with the server's, or switch the terminal on by hand.";
        let what = format!("{title} cannot be woken: {why}");
        return Err(error(StatusCode::SERVICE_UNAVAILABLE, what, advice));
    }
    Ok(Json(woken))
}
