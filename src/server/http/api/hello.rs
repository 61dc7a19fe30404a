//! A terminal introduces itself.
//!
//! Invariant: a terminal that is known speaks only with its secret or a ticket (`lab::secrets`). `lab` keeps
//! the state.

use std::net::IpAddr;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;

use super::access::{Caller, Presented};
use super::reply::{Body, Error, Shared, error, keep, random_secret, read};
use crate::api::{Hello, Refusal, Welcome};
use crate::server::app::App;
use crate::server::domain::config::Register;
use crate::server::domain::identity::Identity;
use crate::server::domain::lab::{Admitted, Lab, MAX_TERMINALS, NotAdmitted, NotKnown, Voucher};
use crate::server::domain::tickets;
use crate::server::http::fairness::may_ask;
use crate::sync;

/// `POST /api/v1/hello`.
#[utoipa::path(
    post,
    path = "/api/v1/hello",
    summary = "A terminal introduces itself",
    tag = "terminals",
    request_body = Hello,
    responses(
        (status = 200, description = "Done", body = Welcome),
        (status = "4XX", description = "Refused, with what to do", body = Refusal),
        (status = 503, description = "The database cannot keep it now", body = Refusal),
    )
)]
pub async fn hello(State(app): Shared, caller: Caller, body: Body<Hello>) -> Result<Json<Welcome>, Error> {
    let hello = read(body)?;
    let (config, now, secret) = (app.config(), app.now(), random_secret()?);
    let from = caller.ends.remote.ip();
    sync::lock(&app.pxe).came(from, &[]);
    let (id, label, secret, saved) = {
        let mut lab = sync::lock(&app.lab);
        let who = Identity::new(&hello.macs, hello.uuid.as_deref());
        let by_person = vouched_by_person(&app, &caller, &lab, &who)?;
        let voucher = by_person.unwrap_or_else(|| match &caller.presented {
            Presented::Bearer(secret) => Voucher::Secret(secret),
            Presented::Ticket(text) => match tickets::check(&app.ticket_key, text, &who, now) {
                Some(ticket) => Voucher::Ticket(ticket),
                None => Voucher::Nothing,
            },
            Presented::Nothing if caller.is_the_server_itself() => Voucher::Person,
            Presented::Nothing => Voucher::Nothing,
        });
        let admitted = lab.admit(now, &who, voucher).or_else(|why| match caller.is_the_server_itself() {
            true => lab.admit(now, &who, Voucher::Person),
            false => Err(why),
        });
        let Admitted { known, who, new_secret } = admitted.map_err(not_admitted)?;
        let first = known.is_none();
        let stranger = known.as_deref().is_some_and(|id| lab.is_strange(id, config.register));
        if stranger && !caller.is_somebody() {
            count(&app, from)?;
        }
        if first {
            sync::lock(&app.limits).register(now, from, &config.limits).map_err(|wait| {
                let advice = "If a whole room is behind this address, raise new_terminals in [limits] of the \
                    server's configuration.";
                Error::too_much(format!("too many new terminals come from {from}"), wait, advice)
            })?;
        }
        let (id, mut changes) = lab.hello_as(now, from.to_string(), hello, known, who).map_err(unknown)?;
        if let Voucher::Secret(secret) = voucher {
            changes.extend(lab.speaks_for(now, &id, secret).into_iter().flatten());
        }
        changes.extend(new_secret.map(|ticket| lab.give_secret(&id, &secret, ticket)));
        if first && config.register == Register::Open {
            changes.extend(lab.accept(&id));
        }
        let label = lab.get(&id).and_then(|t| lab.label(&config, t)).map(str::to_string);
        let title = lab.title(&config, &id);
        // A stranger may say it again and again.
        let level = if stranger { log::Level::Debug } else { log::Level::Info };
        log::log!(level, terminal = id; "{title} says hello from {from}");
        sync::lock(&app.waking).heard(&id);
        (id, label, new_secret.map(|_| secret), app.store.save(changes))
    };
    app.arrange();
    keep(saved).await?;
    let version = env!("CARGO_PKG_VERSION").to_string();
    Ok(Json(Welcome { service: "flashmob".into(), version, terminal: id, label, secret }))
}

/// What a person's token is worth for a terminal that says hello with these names. A teacher is refused whose
/// terminal has a name of one in another room, because that one would then take the work of the teacher's.
fn vouched_by_person(
    app: &App,
    caller: &Caller,
    lab: &Lab,
    who: &Identity,
) -> Result<Option<Voucher<'static>>, Error> {
    if caller.is_the_server_itself() {
        return Ok(None);
    }
    if caller.is_admin() {
        return Ok(Some(Voucher::Person));
    }
    let room = lab.find(who, app.now()).and_then(|terminal| terminal.place.room.as_deref());
    if !caller.is_over(room) {
        return Ok(None);
    }
    for other in lab.sharing(who) {
        caller.over(app, other.place.room.as_deref(), "say hello with the names of", &other.id)?;
    }
    Ok(Some(Voucher::Teacher))
}

/// Counts a call of a terminal with which no person has had to do: anybody registers one, and has its secret
/// then.
pub(super) fn count(app: &App, from: IpAddr) -> Result<(), Error> {
    may_ask(app, from).map_err(|wait| {
        let advice =
            "Register the terminals of the lab ('flashmob terminal list --new'): those are not counted.";
        Error::too_much(
            format!("terminals at {from} that nobody has registered call too often"),
            wait,
            advice,
        )
    })
}

pub(super) fn not_admitted(why: NotAdmitted) -> Error {
    let by_stick =
        |id: &str| format!("If it starts from a stick, run on the server: flashmob terminal admit {id}");
    let refused = |what: String, advice: String| error(StatusCode::UNAUTHORIZED, what, advice);
    match why {
        NotAdmitted::Known(id) => refused(
            format!(
                "the server knows terminal {id}, and this caller has neither its secret nor a ticket for it"
            ),
            format!(
                "Restart it from the network: the server's boot script brings a ticket. {}",
                by_stick(&id)
            ),
        ),
        NotAdmitted::Used(id) => refused(
            format!("this ticket for terminal {id} was used before"),
            format!("Restart it from the network, which brings another ticket. {}", by_stick(&id)),
        ),
        NotAdmitted::Foreign(id) => refused(
            format!("the ticket is for a network card that terminal {id} was not known by"),
            format!(
                "Start it by a card that 'flashmob terminal show {id}' lists. Otherwise run on the server: \
                 flashmob terminal admit {id}"
            ),
        ),
        NotAdmitted::Speaks(id, wait) => {
            let advice = "A machine that was restarted takes its place when it is silent.";
            Error::too_much(format!("terminal {id} speaks to the server now"), wait, advice)
        }
    }
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
