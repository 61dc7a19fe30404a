//! Who calls, and what they may do. Every handler that acts asks here.
//!
//! A person has a token in the header `Authorization`; a terminal has a secret or a ticket there (`hello`,
//! `take`). Programs on the server itself need none: they speak from one of its own addresses, and are no
//! page in a browser, because browsers name the page's origin with every such request.
//!
//! Invariant: a refused action is in the audit too, at a bounded rate.

use std::convert::Infallible;
use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};

use super::reply::{Error, error};
use crate::server::app::App;
use crate::server::domain::audit::Entry;
use crate::server::domain::lab::{Change, sentence};
use crate::server::domain::people::{Role, name_in};
use crate::server::http::listen::Ends;
use crate::sync;

/// What a caller presents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Presented {
    /// A secret of a terminal, or the token of a person.
    Bearer(String),
    /// A ticket from a boot script.
    Ticket(String),
    Nothing,
}

fn presented(headers: &HeaderMap) -> Presented {
    let text = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    match text.and_then(|text| text.split_once(' ')) {
        Some((scheme, it)) if scheme.eq_ignore_ascii_case("bearer") => Presented::Bearer(it.trim().into()),
        Some((scheme, it)) if scheme.eq_ignore_ascii_case("ticket") => Presented::Ticket(it.trim().into()),
        _ => Presented::Nothing,
    }
}

/// What the caller is.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Who {
    /// A program on the server itself.
    Server,
    Person {
        name: String,
        role: Role,
    },
    /// Anybody, and every terminal.
    Stranger,
}

/// The caller of a handler.
#[derive(Debug, Clone)]
pub struct Caller {
    who: Who,
    pub(super) presented: Presented,
    pub(super) ends: Ends,
}

impl FromRequestParts<Arc<App>> for Caller {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Infallible> {
        // Without both ends (it never happens behind `listen`) the caller is nobody.
        let nowhere = std::net::SocketAddr::from(([0, 0, 0, 0], 0));
        let there = std::net::SocketAddr::from(([255, 255, 255, 255], 0));
        let ends = parts.extensions.get().copied().unwrap_or(Ends { remote: there, local: nowhere });
        Ok(Caller::new(app, ends, &parts.headers))
    }
}

impl Caller {
    pub(crate) fn new(app: &App, ends: Ends, headers: &HeaderMap) -> Caller {
        let presented = presented(headers);
        let person = match &presented {
            Presented::Bearer(token) => sync::read(&app.people).of(token).cloned(),
            _ => None,
        };
        let who = match person {
            Some(person) => Who::Person { name: person.name, role: person.role },
            None if is_the_server_itself(ends, headers) => Who::Server,
            None => Who::Stranger,
        };
        Caller { who, presented, ends }
    }

    /// A program on the server itself.
    pub(super) fn is_the_server_itself(&self) -> bool {
        self.who == Who::Server
    }

    /// May the caller do everything?
    pub(crate) fn is_admin(&self) -> bool {
        matches!(self.who, Who::Server | Who::Person { role: Role::Admin, .. })
    }

    /// May the caller act on terminals of `room`?
    pub(crate) fn is_over(&self, room: Option<&str>) -> bool {
        let own = match &self.who {
            Who::Person { role: Role::Teacher { room }, .. } => Some(room.as_str()),
            _ => None,
        };
        self.is_admin() || own.is_some() && own == room
    }

    /// Is the caller a person, with any role?
    pub(crate) fn is_somebody(&self) -> bool {
        self.who != Who::Stranger
    }

    /// Is the caller the person that acted as `by`? The address may be another one now.
    pub(super) fn is_the_person(&self, by: &str) -> bool {
        matches!(&self.who, Who::Person { name, .. } if name_in(by) == Some(name))
    }

    /// Refuses `action` on `subject` unless the caller may do everything.
    pub(crate) fn admin(&self, app: &App, action: &str, subject: &str) -> Result<(), Error> {
        match self.is_admin() {
            true => Ok(()),
            false => Err(self.refuse(app, action, subject, None)),
        }
    }

    /// Refuses `action` on `subject`, which is in `room`, unless the caller may act there.
    pub(crate) fn over(
        &self,
        app: &App,
        room: Option<&str>,
        action: &str,
        subject: &str,
    ) -> Result<(), Error> {
        match self.is_over(room) {
            true => Ok(()),
            false => Err(self.refuse(app, action, subject, room)),
        }
    }

    /// Refuses `action` on `subject` to strangers, before anything is looked up for them.
    pub(super) fn somebody(&self, app: &App, action: &str, subject: &str) -> Result<(), Error> {
        match self.is_somebody() {
            true => Ok(()),
            false => Err(self.refuse(app, action, subject, None)),
        }
    }

    /// The entry of the audit that goes with the change.
    pub(crate) fn audit(&self, app: &App, action: &str, subject: &str, detail: &str) -> Change {
        Change::Audit(Entry::new(app.now(), self.name(), action, subject, detail))
    }

    /// The caller for people.
    pub(super) fn name(&self) -> String {
        let address = self.ends.remote.ip();
        match &self.who {
            Who::Server => "the server itself".into(),
            Who::Person { name, .. } => format!("{name} at {address}"),
            Who::Stranger => format!("a stranger at {address}"),
        }
    }

    fn refuse(&self, app: &App, action: &str, subject: &str, room: Option<&str>) -> Error {
        let address = self.ends.remote.ip();
        let (status, what, advice) = match (&self.who, &self.presented) {
            (Who::Person { name, role: Role::Teacher { room: own } }, _) => {
                let here = room.map_or_else(String::new, |room| format!(", and this is room {room}"));
                let what = format!("'{name}' may act on the terminals of room {own} only{here}");
                (StatusCode::FORBIDDEN, what, "Ask an administrator.")
            }
            (_, Presented::Bearer(_)) => (
                StatusCode::UNAUTHORIZED,
                "this token is not valid: it was revoked, or is another server's".into(),
                "Ask an administrator for a new one.",
            ),
            _ => (
                StatusCode::FORBIDDEN,
                format!("{address} may not do this ({action}) without a person's token"),
                "Run the command on the server itself, or with --token FILE.",
            ),
        };
        // Anybody can be refused again and again, with any words.
        if sync::lock(&app.limits).refused(app.now(), address) {
            let told = sentence(&format!("{} may not {action} '{subject}': {what}", self.name()));
            log::warn!("{told}");
            // Nobody waits for it: it is no change of the lab.
            drop(app.store.save(vec![self.audit(app, action, subject, &format!("refused: {what}"))]));
        }
        error(status, what, advice)
    }
}

/// Linux takes no packet from outside that has one of its own addresses as the source.
fn is_the_server_itself(ends: Ends, headers: &HeaderMap) -> bool {
    let own = ends.remote.ip().is_loopback() || ends.remote.ip() == ends.local.ip();
    own && !headers.contains_key(header::ORIGIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_servers_own_addresses_are_the_server_itself() {
        let ends = |remote: &str| Ends {
            remote: format!("{remote}:4711").parse().expect("an address"),
            local: "10.0.0.9:6969".parse().expect("an address"),
        };
        let answer = |remote| is_the_server_itself(ends(remote), &HeaderMap::new());
        for itself in ["127.0.0.1", "127.9.9.9", "[::1]", "10.0.0.9"] {
            assert!(answer(itself), "{itself}");
        }
        for other in ["10.0.0.1", "192.168.1.1", "[fe80::1]", "[::]", "0.0.0.0"] {
            assert!(!answer(other), "{other}");
        }
    }
}
