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

use super::{Change, Lab};
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
    /// A teacher, for a terminal of the own room.
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
        let known = holder.clone().or_else(|| self.find(who, now).map(|terminal| terminal.id.clone()));
        let vouched = match voucher {
            Voucher::Ticket(Ticket { subject: Subject::Mac(mac), .. }) => Some(mac),
            _ => None,
        };
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
        if !listed && !ticket.subject.names(&terminal.identity) {
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
    /// made for, because one dock is at many laptops.
    fn own_names(&self, id: Option<&str>, who: &Identity, vouched: Option<Mac>) -> Identity {
        let own = id.and_then(|id| self.get(id)).map(|terminal| &terminal.identity.macs);
        let may = |mac: &Mac| {
            vouched == Some(*mac) || own.is_some_and(|own| own.contains(mac)) || !self.has_owner(*mac)
        };
        Identity { macs: who.macs.iter().copied().filter(may).collect(), uuid: who.uuid }
    }

    fn has_owner(&self, mac: Mac) -> bool {
        self.namesakes.sharing(&Identity { macs: vec![mac], uuid: None }).next().is_some()
    }

    fn owner_of_any(&self, who: &Identity) -> Option<String> {
        self.namesakes.sharing(who).next().map(str::to_owned)
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
mod tests {
    use super::*;
    use crate::api::LendReport;
    use crate::server::domain::captures::OfferSecrets;
    use crate::server::domain::tickets::{self, Key};
    use crate::server::domain::ties::Ties;
    use crate::testkit::lab::{at, done, hello_of, target};

    const KEY: Key = Key([7; 32]);
    const A: &str = "52:54:00:00:00:0a";
    const B: &str = "52:54:00:00:00:0b";
    const START: u64 = 1_800_000_000;

    fn who(macs: &[&str]) -> Identity {
        Identity::new(macs, None)
    }

    /// The ticket of a machine that asked for its boot script at this time.
    fn ticket(mac: &str, made: u64) -> Voucher<'static> {
        let subject = Subject::of(&who(&[mac])).expect("a MAC");
        let text = tickets::issue(&KEY, subject, at(START + made));
        Voucher::Ticket(tickets::check(&KEY, &text, &who(&[mac]), at(START + made)).expect("good"))
    }

    fn nothing(mac: &str) -> NotAdmitted {
        NotAdmitted::Known(mac.into())
    }

    /// Says hello with what it presents, and keeps the secret that it is given.
    fn hello(
        lab: &mut Lab,
        now: u64,
        macs: &[&str],
        voucher: Voucher<'_>,
        secret: &str,
    ) -> Result<String, NotAdmitted> {
        let admitted = lab.admit(at(START + now), &who(macs), voucher)?;
        let said = hello_of(macs[0]);
        let (id, _) =
            lab.hello_as(at(START + now), String::new(), said, admitted.known, admitted.who).expect("room");
        if let Some(made) = admitted.new_secret {
            lab.give_secret(&id, secret, made);
        }
        Ok(id)
    }

    fn speaks(lab: &mut Lab, now: u64, secret: &str) -> bool {
        lab.speaks_for(at(START + now), A, secret).is_some()
    }

    #[test]
    fn a_terminal_speaks_by_its_ticket_once_and_then_by_its_secret() {
        let mut lab = Lab::default();
        assert_eq!(hello(&mut lab, 1, &[A], ticket(A, 0), "one"), Ok(A.into()));
        assert!(speaks(&mut lab, 2, "one") && !speaks(&mut lab, 2, "two"));
        assert_eq!(hello(&mut lab, 3, &[A], Voucher::Secret("one"), "none"), Ok(A.into()));
        assert!(speaks(&mut lab, 4, "one"), "it stays good");
        for refused in [Voucher::Nothing, Voucher::Secret("guess")] {
            assert_eq!(hello(&mut lab, 100, &[A], refused, "no"), Err(nothing(A)));
        }
        assert_eq!(hello(&mut lab, 100, &[A], ticket(A, 0), "no"), Err(NotAdmitted::Used(A.into())));
        assert_eq!(hello(&mut lab, 100, &[A], ticket(B, 99), "no"), Err(NotAdmitted::Foreign(A.into())));
        assert!(speaks(&mut lab, 101, "one") && !speaks(&mut lab, 101, "no"));
    }

    #[test]
    fn a_listed_terminal_that_never_came_comes_by_the_ticket_of_its_boot_script() {
        const U: &str = "8a95d198-7f46-11e5-bf8b-08002704d48e";
        let mut lab = Lab::default();
        let table = format!("mac,uuid\n{A},\n,{U}\n");
        let entries = crate::server::domain::registry::table::read(&table).expect("a table");
        lab.import(&entries, &Default::default()).expect("imported");
        assert_eq!(hello(&mut lab, 1, &[A], Voucher::Nothing, "no"), Err(nothing(A)));
        assert_eq!(hello(&mut lab, 1, &[A], ticket(A, 0), "one"), Ok(A.into()));
        let by_uuid = Identity::new(&[B], Some(U));
        let admitted = lab.admit(at(START + 1), &by_uuid, ticket(B, 0)).expect("admitted");
        assert_eq!((admitted.known.as_deref(), admitted.who), (Some(U), by_uuid));
    }

    #[test]
    fn each_boot_brings_a_new_secret_and_the_old_one_ends_when_the_ticket_is_used() {
        let mut lab = Lab::default();
        hello(&mut lab, 1, &[A], ticket(A, 0), "one").expect("admitted");
        assert!(speaks(&mut lab, 60, "one"), "a script that was sent changes nothing");
        assert_eq!(hello(&mut lab, 80, &[A], ticket(A, 60), "two"), Ok(A.into()));
        assert!(speaks(&mut lab, 81, "two") && !speaks(&mut lab, 81, "one"));
    }

    #[test]
    fn a_terminal_that_never_got_the_answer_may_use_its_ticket_again() {
        let mut lab = Lab::default();
        hello(&mut lab, 1, &[A], ticket(A, 0), "lost").expect("admitted");
        assert_eq!(hello(&mut lab, 2, &[A], ticket(A, 0), "two"), Ok(A.into()));
        assert!(speaks(&mut lab, 3, "two") && !speaks(&mut lab, 3, "lost"));
        assert_eq!(hello(&mut lab, 60, &[A], ticket(A, 0), "no"), Err(NotAdmitted::Used(A.into())));
    }

    #[test]
    fn nobody_takes_the_place_of_a_terminal_that_speaks() {
        let mut lab = Lab::default();
        hello(&mut lab, 1, &[A], ticket(A, 0), "one").expect("admitted");
        assert!(speaks(&mut lab, 10, "one"));
        let busy = |wait: u64| Err(NotAdmitted::Speaks(A.into(), at(wait)));
        assert_eq!(hello(&mut lab, 12, &[A], ticket(A, 12), "two"), busy(13));
        let number = lab.take(at(START + 20), A, &target(), "t".into()).expect("known").0.number;
        assert_eq!(hello(&mut lab, 30, &[A], ticket(A, 30), "two"), busy(5));
        let fetching = crate::event::Progress::at(Stage::Fetch);
        lab.progress(at(START + 50), number, "t", fetching, &Ties::default()).expect("taken");
        assert_eq!(hello(&mut lab, 60, &[A], ticket(A, 60), "two"), busy(5));
        lab.outcome(at(START + 61), number, "t", done(), &Ties::default()).expect("taken");
        assert_eq!(hello(&mut lab, 62, &[A], ticket(A, 62), "two"), Ok(A.into()), "it ended");
        let number = lab.take(at(START + 70), A, &target(), "t".into()).expect("known").0.number;
        lab.outcome(at(START + 71), number, "t", done(), &Ties::default()).expect("taken");
        for time in [72, 90] {
            let own = crate::event::Progress::at(Stage::Personalise);
            lab.progress(at(START + time), number, "t", own, &Ties::default()).expect("taken");
        }
        assert_eq!(
            hello(&mut lab, 100, &[A], ticket(A, 100), "three"),
            busy(5),
            "its system becomes its own"
        );
        assert_eq!(hello(&mut lab, 106, &[A], ticket(A, 106), "three"), Ok(A.into()));
    }

    #[test]
    fn nobody_takes_the_place_of_a_terminal_that_lends_its_disk() {
        let mut lab = Lab::default();
        hello(&mut lab, 1, &[A], ticket(A, 0), "one").expect("admitted");
        let number = lab.captures.open(A, ("golden", "internal"), "anna".into(), at(START + 1));
        let secrets = OfferSecrets { token: "token".into(), code: "123456".into() };
        lab.captures.offer(A, secrets, at(START + 2)).expect("an offer");
        let report = LendReport {
            token: "token".into(),
            port: 4711,
            export: "abc".into(),
            disk: "sda".into(),
            size: 512,
            sector_size: 512,
            read: 0,
            failure: None,
        };
        let from = std::net::IpAddr::from([10, 0, 0, 9]);
        lab.captures.report(number, from, report, at(START + 60)).expect("it lends");
        let busy = Err(NotAdmitted::Speaks(A.into(), at(10)));
        assert_eq!(hello(&mut lab, 65, &[A], ticket(A, 65), "stranger"), busy);
        assert_eq!(hello(&mut lab, 80, &[A], ticket(A, 80), "again"), Ok(A.into()), "it was silent");
    }

    #[test]
    fn a_machine_without_a_ticket_is_new_and_cannot_claim_what_another_has() {
        let mut lab = Lab::default();
        hello(&mut lab, 1, &[A], ticket(A, 0), "one").expect("admitted");
        assert_eq!(hello(&mut lab, 2, &[B, A], Voucher::Nothing, "two"), Err(nothing(A)));
        let (c, d) = ("52:54:00:00:00:0c", "52:54:00:00:00:0d");
        hello(&mut lab, 3, &[B, c], Voucher::Nothing, "two").expect("new");
        hello(&mut lab, 4, &[d, c, A], Voucher::Nothing, "three").expect_err("part of it is another's");
        let claims = lab.admit(at(START + 5), &who(&[d, c]), Voucher::Nothing).expect("another machine");
        assert_eq!((claims.known, claims.who), (None, who(&[d])));
        assert!(lab.speaks_for(at(START + 6), B, "two").is_some(), "it got a secret at once");
        assert_eq!(hello(&mut lab, 7, &[B, c], Voucher::Nothing, "no"), Err(nothing(B)));
        // Whoever came first without a ticket does not keep out the one that has it.
        assert_eq!(hello(&mut lab, 7, &[B], ticket(B, 7), "four"), Ok(B.into()));
        assert!(lab.speaks_for(at(START + 8), B, "two").is_none());
    }

    #[test]
    fn a_teacher_gives_a_terminal_no_name_of_another_and_an_administrator_any() {
        let mut lab = Lab::default();
        hello(&mut lab, 1, &[A], ticket(A, 0), "one").expect("admitted");
        hello(&mut lab, 2, &[B], ticket(B, 1), "two").expect("admitted");
        let both = who(&[A, B]);
        let names = |voucher| lab.admit(at(START + 3), &both, voucher).expect("admitted").who;
        assert_eq!(names(Voucher::Teacher), who(&[B]), "it is the one that spoke last");
        assert_eq!(names(Voucher::Person), both);
    }

    #[test]
    fn a_person_lets_a_terminal_in_once_that_has_no_ticket() {
        let mut lab = Lab::default();
        hello(&mut lab, 1, &[A], ticket(A, 0), "one").expect("admitted");
        lab.let_in(at(START + 100), A);
        assert!(speaks(&mut lab, 101, "one"), "until then nothing changes");
        assert_eq!(hello(&mut lab, 102, &[A], Voucher::Nothing, "two"), Ok(A.into()));
        assert_eq!(hello(&mut lab, 103, &[A], Voucher::Nothing, "no"), Err(nothing(A)));
        assert!(speaks(&mut lab, 104, "two"));
        lab.let_in(at(START + 200), A);
        assert_eq!(hello(&mut lab, 1100, &[A], Voucher::Nothing, "no"), Err(nothing(A)), "too late");
    }

    #[test]
    fn secrets_survive_a_restart_also_at_an_earlier_date() {
        let mut lab = Lab::default();
        hello(&mut lab, 1, &[A], ticket(A, 0), "one").expect("admitted");
        let held = lab.secrets.held.iter().map(|(id, held)| (id.clone(), *held)).collect::<Vec<_>>();
        let terminals: Vec<_> = lab.iter().cloned().collect();
        let early = at(START - 5000);
        let (mut lab, _) = Lab::restore(early, terminals, 0);
        lab.restore_secrets(early, held);
        assert!(lab.speaks_for(early, A, "one").is_some());
        let made = at(START - 4000);
        let fresh =
            Voucher::Ticket(tickets::Ticket { made, subject: Subject::of(&who(&[A])).expect("a MAC") });
        assert!(lab.admit(made, &who(&[A]), fresh).is_ok());
        lab.forget(made, &[A.to_owned()]).expect("idle");
        assert!(lab.speaks_for(made, A, "one").is_none());
    }
}
