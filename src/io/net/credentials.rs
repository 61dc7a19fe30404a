//! What this terminal presents to servers: a ticket from its kernel command line, the secrets that it got, or
//! a person's token.
//!
//! Invariant: a server gets only the secret that it gave, and a ticket only the server that the ticket came
//! with. Secrets are kept in a file that the memory holds, because a worker that is started again needs them.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use crate::sync;

/// Shared by all calls of this program.
#[derive(Debug, Clone, Default)]
pub struct Credentials(Arc<Mutex<Known>>);

#[derive(Debug, Default)]
struct Known {
    /// The server's address, and its ticket.
    ticket: Option<(String, String)>,
    /// By the server's address.
    secrets: BTreeMap<String, String>,
    /// A person's token, for every server.
    token: Option<String>,
    file: Option<PathBuf>,
}

impl Credentials {
    /// Of a netbooted terminal: a ticket of the server at this address, and the file for secrets.
    pub fn of_terminal(ticket: Option<(String, String)>, file: Option<PathBuf>) -> Self {
        let text = file.as_ref().and_then(|file| fs::read_to_string(file).ok()).unwrap_or_default();
        // Without what a worker before this one knew, the ticket may still be good.
        let secrets = serde_json::from_str(&text).unwrap_or_default();
        Credentials(Arc::new(Mutex::new(Known { ticket, secrets, token: None, file })))
    }

    /// Of an administrator.
    pub fn of_person(token: Option<String>) -> Self {
        Credentials(Arc::new(Mutex::new(Known { token, ..Known::default() })))
    }

    /// Takes a ticket that the server at `base` gave.
    pub(crate) fn take(&self, base: &str, ticket: String) {
        sync::lock(&self.0).ticket = Some((base.to_owned(), ticket));
    }

    /// The values of `Authorization` for the server at `base`, the best one first. Without any there is one
    /// `None`.
    pub(crate) fn for_server(&self, base: &str) -> Vec<Option<String>> {
        let known = sync::lock(&self.0);
        if let Some(token) = &known.token {
            return vec![Some(format!("Bearer {token}"))];
        }
        let secret = known.secrets.get(base).map(|secret| format!("Bearer {secret}"));
        let ticket = known.ticket.as_ref().filter(|(server, _)| server == base);
        let ticket = ticket.map(|(_, ticket)| format!("Ticket {ticket}"));
        let all: Vec<_> = secret.into_iter().chain(ticket).map(Some).collect();
        if all.is_empty() { vec![None] } else { all }
    }

    /// Keeps the secret that the server at `base` gave.
    pub(super) fn keep(&self, base: &str, secret: String) {
        let mut known = sync::lock(&self.0);
        known.secrets.insert(base.to_owned(), secret);
        let Some(file) = &known.file else { return };
        let write = || -> std::io::Result<()> {
            let text = serde_json::to_string(&known.secrets)?;
            let mut file =
                fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(file)?;
            file.write_all(text.as_bytes())
        };
        if let Err(e) = write() {
            log::warn!("{}: {e}; after a crash this terminal has to be restarted", file.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERVER: &str = "http://10.0.0.1:6969";
    const OTHER: &str = "http://10.0.0.2:6969";

    fn some(text: &str) -> Option<String> {
        Some(text.into())
    }

    #[test]
    fn no_server_gets_the_ticket_or_the_secret_of_another() {
        let all = Credentials::of_terminal(Some((SERVER.into(), "0f".into())), None);
        assert_eq!(all.for_server(OTHER), [None]);
        assert_eq!(all.for_server(SERVER), [some("Ticket 0f")]);
        all.keep(OTHER, "s2".into());
        all.keep(SERVER, "s1".into());
        assert_eq!(all.for_server(SERVER), [some("Bearer s1"), some("Ticket 0f")]);
        assert_eq!(all.for_server(OTHER), [some("Bearer s2")]);
    }

    #[test]
    fn a_worker_that_is_started_again_has_the_secrets_of_the_one_before() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("secrets");
        Credentials::of_terminal(None, Some(file.clone())).keep(SERVER, "s1".into());
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(
            Credentials::of_terminal(None, Some(file.clone())).for_server(SERVER),
            [some("Bearer s1")]
        );
        fs::write(&file, "{").unwrap();
        assert_eq!(Credentials::of_terminal(None, Some(file)).for_server(SERVER), [None]);
    }

    #[test]
    fn a_person_presents_the_token() {
        assert_eq!(Credentials::of_person(some("t")).for_server(OTHER), [some("Bearer t")]);
        assert_eq!(Credentials::of_person(None).for_server(OTHER), [None]);
    }
}
