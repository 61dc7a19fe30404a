//! Who may speak for a terminal.
//!
//! A terminal that is not known introduces itself, and gets a secret. For one that is known only a caller
//! speaks that has its secret, or a ticket that was made for it since the one before was used. A ticket
//! brings a new secret, and ends the one before.
//!
//! Invariant: a call that is refused here changes nothing. Secrets are kept as hashes. While a terminal
//! speaks, no ticket takes its place, because whoever is on its network can ask for one in its name.

use std::collections::HashMap;
use std::time::Duration;

use super::{Change, Lab, Terminal};
use crate::event::Stage;
use crate::server::domain::identity::{Identity, Mac};
use crate::server::domain::tickets::{LIFE, Subject, Ticket, hash_of};
use crate::units::Sha256;

/// A terminal that spoke within this time is not replaced by a ticket. It reports each second, and a machine
/// that is switched off needs longer until its agent speaks again.
const SPEAKING: Duration = Duration::from_secs(15);

/// What is kept of a terminal's secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    pub hash: Sha256,
    /// When the ticket was made that brought it; zero without one.
    pub ticket: Duration,
    /// It was presented, so its terminal has it. Before that the ticket brings another one, because the
    /// answer with the first may be lost.
    pub used: bool,
}

/// All terminals' secrets.
#[derive(Debug, Default)]
pub(super) struct Secrets {
    held: HashMap<String, Held>,
    by_hash: HashMap<Sha256, String>,
    /// When a terminal last spoke with its secret.
    spoke: HashMap<String, Duration>,
    /// Terminals that a person lets in without a ticket, until when.
    admitted: HashMap<String, Duration>,
}

impl Secrets {
    fn set(&mut self, id: &str, held: Held) -> Change {
        if let Some(old) = self.held.insert(id.into(), held) {
            self.by_hash.remove(&old.hash);
        }
        self.by_hash.insert(held.hash, id.into());
        self.admitted.remove(id);
        Change::Secret(id.into(), held)
    }

    pub(super) fn forget(&mut self, id: &str) {
        if let Some(old) = self.held.remove(id) {
            self.by_hash.remove(&old.hash);
        }
        self.spoke.remove(id);
        self.admitted.remove(id);
    }
}

/// What a caller presents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Voucher<'a> {
    /// An administrator, or a program on the server itself: any names are good.
    Person,
    /// A teacher, for a terminal of their own room.
    Teacher,
    /// A terminal's secret.
    Secret(&'a str),
    /// A ticket that is good.
    Ticket(Ticket),
    Nothing,
}

/// Why a terminal may not introduce itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotAdmitted {
    /// The server knows this terminal, and the caller has neither its secret nor a ticket.
    Known(String),
    /// The ticket was used before.
    Used(String),
    /// The ticket is for a MAC that this terminal was never known by.
    Foreign(String),
    /// The terminal speaks now; another caller may take its place when it is silent.
    Speaks(String, Duration),
}

/// A terminal that may introduce itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admitted {
    /// The terminal that it is; `None` for a new one.
    pub known: Option<String>,
    /// Its names, without those that belong to others.
    pub who: Identity,
    /// It gets a secret, for which the ticket made at this time counts as used.
    pub new_secret: Option<Duration>,
}

impl Lab {
    /// The secrets as they were stored. Tickets that seem to be of the future were made before the machine's
    /// date was set back; later ones must be newer than them.
    pub fn restore_secrets(&mut self, now: Duration, stored: Vec<(String, Held)>) {
        for (id, held) in stored {
            self.secrets.set(&id, Held { ticket: held.ticket.min(now), ..held });
        }
    }

    /// May the caller introduce itself as `who`?
    pub fn admit(
        &self,
        now: Duration,
        who: &Identity,
        voucher: Voucher<'_>,
    ) -> Result<Admitted, NotAdmitted> {
        let holder = match voucher {
            Voucher::Secret(secret) => self.secrets.by_hash.get(&hash_of(secret)).cloned(),
            _ => None,
        };
        let vouched = match voucher {
            Voucher::Ticket(Ticket { subject: Subject::Mac(mac), .. }) => Some(mac),
            _ => None,
        };
        let found = || self.find_by(who, vouched, now).map(|terminal| terminal.id.clone());
        let known = holder.clone().or_else(found);
        let admitted = |new_secret| Admitted {
            who: self.own_names(known.as_deref(), who, vouched),
            known: known.clone(),
            new_secret,
        };
        match (&known, voucher) {
            (_, Voucher::Person) => Ok(Admitted { known, who: who.clone(), new_secret: None }),
            (Some(_), Voucher::Teacher) => Ok(admitted(None)),
            (Some(_), Voucher::Secret(_)) if holder.is_some() => Ok(admitted(None)),
            (Some(id), Voucher::Ticket(ticket)) => {
                self.check_ticket(now, id, ticket)?;
                Ok(admitted(Some(ticket.made)))
            }
            (None, Voucher::Ticket(ticket)) => Ok(admitted(Some(ticket.made))),
            (Some(id), _) if self.secrets.admitted.get(id).is_some_and(|until| now < *until) => {
                // Tickets that were made before count as used.
                Ok(admitted(Some(now)))
            }
            (Some(id), _) => Err(NotAdmitted::Known(id.clone())),
            (None, _) => {
                let new = admitted(Some(Duration::ZERO));
                match (self.owner_of_any(who), new.who == Identity::default()) {
                    (Some(owner), true) => Err(NotAdmitted::Known(owner)),
                    _ => Ok(new),
                }
            }
        }
    }

    fn check_ticket(&self, now: Duration, id: &str, ticket: Ticket) -> Result<(), NotAdmitted> {
        let Some(terminal) = self.get(id) else { return Ok(()) };
        // One that a person listed by its UUID has no MAC until it comes.
        let listed = terminal.heard.is_none() && terminal.identity.macs.is_empty();
        let own = Identity { macs: terminal.own_macs.clone(), uuid: terminal.identity.uuid };
        if !listed && !ticket.subject.names(&own) {
            return Err(NotAdmitted::Foreign(id.into()));
        }
        if let Some(held) = self.secrets.held.get(id) {
            let again = held.ticket == ticket.made && !held.used;
            if held.ticket >= ticket.made && !again {
                return Err(NotAdmitted::Used(id.into()));
            }
        }
        let reported = terminal.last.as_ref().filter(|last| {
            let stage = last.progress.as_ref().map(|progress| progress.stage);
            // It reports in these stages after its outcome as well.
            last.outcome.is_none() || matches!(stage, Some(Stage::Serve | Stage::Personalise))
        });
        // Without an attempt, whoever registered under this name without a ticket may be a stranger.
        let by_ticket = self.secrets.held.get(id).is_some_and(|held| !held.ticket.is_zero());
        let spoke = self.secrets.spoke.get(id).copied().filter(|_| by_ticket);
        let spoke = spoke.max(reported.map(|last| last.heard)).max(self.captures.heard(id));
        let silent = spoke.map_or(SPEAKING, |spoke| now.saturating_sub(spoke));
        match SPEAKING.checked_sub(silent).filter(|wait| !wait.is_zero()) {
            Some(wait) => Err(NotAdmitted::Speaks(id.into(), wait)),
            None => Ok(()),
        }
    }

    /// Names that the caller may have: all but those of other terminals. A ticket vouches for the MAC it was
    /// made for, because one dock is at many laptops. The card that it netbooted by may be one that others
    /// only claim, because a claim takes nothing from its owner.
    fn own_names(&self, id: Option<&str>, who: &Identity, vouched: Option<Mac>) -> Identity {
        let own = id.and_then(|id| self.get(id)).map(|terminal| &terminal.identity.macs);
        let has = |mac: &Mac| vouched == Some(*mac) || own.is_some_and(|own| own.contains(mac));
        let first = who.macs.iter().copied().find(|mac| has(mac) || !self.has_owner(*mac));
        let may = |mac: &Mac| has(mac) || first == Some(*mac) || !self.is_claimed(*mac);
        // The one that the terminal netbooted by is the first one, also where the hello has another order.
        let (mut macs, others): (Vec<Mac>, Vec<Mac>) =
            who.macs.iter().copied().filter(may).partition(|mac| vouched == Some(*mac));
        macs.extend(others);
        Identity { macs, uuid: who.uuid }
    }

    fn has_owner(&self, mac: Mac) -> bool {
        self.owner_of_any(&Identity { macs: vec![mac], uuid: None }).is_some()
    }

    fn is_claimed(&self, mac: Mac) -> bool {
        self.namesakes.sharing(&Identity { macs: vec![mac], uuid: None }).next().is_some()
    }

    /// The terminal of which one of the MACs is certainly its own.
    fn owner_of_any(&self, who: &Identity) -> Option<String> {
        let owns = |t: &&Terminal| who.macs.iter().any(|mac| t.own_macs.contains(mac));
        self.sharing(who).find(owns).map(|terminal| terminal.id.clone())
    }

    /// Keeps the secret that a terminal got, by the ticket made at `ticket`.
    pub fn give_secret(&mut self, id: &str, secret: &str, ticket: Duration) -> Change {
        // It speaks as soon as it presents the secret.
        self.secrets.spoke.remove(id);
        self.secrets.set(id, Held { hash: hash_of(secret), ticket, used: false })
    }

    /// Whether `secret` is the terminal's. The first time that it is presented is a change, to be stored.
    pub fn speaks_for(&mut self, now: Duration, id: &str, secret: &str) -> Option<Vec<Change>> {
        let hash = hash_of(secret);
        self.secrets.by_hash.get(&hash).filter(|holder| *holder == id)?;
        self.secrets.spoke.insert(id.into(), now);
        let held = self.secrets.held.get_mut(id).filter(|held| !held.used);
        Some(
            held.into_iter()
                .map(|held| {
                    held.used = true;
                    Change::Secret(id.into(), *held)
                })
                .collect(),
        )
    }

    /// A person lets a terminal in that comes without a ticket, for as long as a ticket would be good.
    pub fn let_in(&mut self, now: Duration, id: &str) {
        self.secrets.admitted.retain(|_, until| now < *until);
        self.secrets.admitted.insert(id.into(), now + LIFE);
    }
}

#[cfg(test)]
mod tests;
