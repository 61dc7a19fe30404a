//! Finds the server: asks every candidate, in the order of `lan::discovery`, whether it is flashmob.
//!
//! Invariant: a candidate that does not answer as flashmob is reported and the next one is tried; each gets
//! [`EACH`]. A server that is busy is asked again, because the next candidate may be another lab's. Trust is
//! not decided here.

use std::collections::VecDeque;
use std::time::Duration;

use reqwest::Client;
use tokio::time::Instant;

use crate::agent::status::Status;
use crate::api::{BootStep, Hello, Welcome};
use crate::io::net::api_client::{Api, CallError};
use crate::io::net::credentials::Credentials;
use crate::io::net::discovery;
use crate::lan::discovery::{Origin, Step};

/// Time for one candidate or one search.
pub(crate) const EACH: Duration = Duration::from_secs(5);
/// How long a search waits for a server that says that it is busy.
const BUSY: Duration = Duration::from_secs(300);
/// Candidates that one search asks, so that an answer with thousands does not hold up the next round.
const MOST: usize = 16;

/// A server that answered as flashmob.
#[derive(Debug, Clone)]
pub struct Found {
    pub api: Api,
    pub welcome: Welcome,
}

/// One round through all candidates.
pub(crate) struct Finder<'a> {
    http: Client,
    credentials: Credentials,
    hello: &'a Hello,
    status: &'a Status,
    each: Duration,
    steps: VecDeque<Step>,
    asked: Vec<String>,
    /// Whether candidates are asked first what this machine does at its start.
    direct: bool,
    /// A server sent this machine on to its disk.
    sent_on: bool,
    /// A server lets it wait, whatever others say: its disk may hold half a system.
    held: bool,
}

impl<'a> Finder<'a> {
    /// A round through `steps`.
    pub(crate) fn new(
        http: Client,
        hello: &'a Hello,
        status: &'a Status,
        steps: Vec<Step>,
        each: Duration,
    ) -> Self {
        let credentials = Credentials::default();
        Finder {
            http,
            credentials,
            hello,
            status,
            each,
            steps: steps.into(),
            asked: Vec::new(),
            direct: false,
            sent_on: false,
            held: false,
        }
    }

    /// The same for an agent that no boot script started, if `direct`.
    pub(crate) fn started_directly(self, direct: bool) -> Self {
        Finder { direct, ..self }
    }

    /// Has a server sent this machine on to its disk?
    pub(crate) fn sent_on(&self) -> bool {
        self.sent_on && !self.held
    }

    /// The same with what this terminal presents.
    pub(crate) fn with(self, credentials: Credentials) -> Self {
        Finder { credentials, ..self }
    }

    /// The next candidate that is flashmob; `None` at the end of the round.
    pub(crate) async fn next(&mut self) -> Option<Found> {
        while let Some(step) = self.steps.pop_front() {
            match step {
                Step::Unusable { why, origin } => self.status.note(format!("from {origin}: {why}")),
                Step::Ask { url, origin } => {
                    if let Some(found) = self.ask(url, origin).await {
                        return Some(found);
                    }
                }
                Step::Srv { servers, domain } => {
                    self.status.note(format!("asking DNS for flashmob servers in {domain}"));
                    match discovery::ask_dns(&servers, &domain, self.each).await {
                        Ok(services) => {
                            let hosts = services.into_iter().flat_map(|service| {
                                let hosts: Vec<String> = match service.addresses.is_empty() {
                                    true => vec![service.host],
                                    false => service.addresses.iter().map(ToString::to_string).collect(),
                                };
                                hosts.into_iter().map(move |host| format!("http://{host}:{}", service.port))
                            });
                            let urls: Vec<String> = hosts.collect();
                            self.ask_first(urls, Origin::Dns);
                        }
                        Err(e) => self.status.note(format!("DNS: {e}")),
                    }
                }
                Step::Browse => {
                    self.status.note("looking for flashmob servers by mDNS");
                    match discovery::browse_mdns(self.each).await {
                        Ok(found) => {
                            let urls = found.iter().map(|address| format!("http://{address}")).collect();
                            self.ask_first(urls, Origin::Mdns);
                        }
                        Err(e) => self.status.note(e.to_string()),
                    }
                }
            }
        }
        None
    }

    fn ask_first(&mut self, urls: Vec<String>, origin: Origin) {
        let urls: Vec<String> = urls.into_iter().take(MOST).collect();
        for url in urls.into_iter().rev() {
            self.steps.push_front(Step::Ask { url, origin });
        }
    }

    /// Asks the server at `url` as a boot script would, and takes the ticket that it gives.
    async fn has_work(&mut self, api: &Api, url: &str, origin: Origin) -> bool {
        match api.at_boot(self.hello, self.each).await {
            Ok(BootStep::Work { ticket }) => {
                if let Some(ticket) = ticket {
                    self.credentials.take(url, ticket);
                }
                return true;
            }
            Ok(BootStep::Disk) => {
                self.sent_on = true;
                self.status.note(format!("server {url} has nothing to do for this terminal"));
            }
            Ok(BootStep::Wait { why }) => {
                self.held = true;
                self.status.note(format!("server {url} lets this terminal wait: {why}"))
            }
            Err(e) => self.status.note(format!("from {origin}: {e}")),
        }
        false
    }

    async fn ask(&mut self, url: String, origin: Origin) -> Option<Found> {
        if self.asked.contains(&url) {
            return None;
        }
        self.asked.push(url.clone());
        let api = Api::new(self.http.clone(), url.clone()).with(self.credentials.clone());
        if self.direct && !self.has_work(&api, &url, origin).await {
            return None;
        }
        let end = Instant::now() + BUSY;
        loop {
            match api.hello(self.hello, self.each).await {
                Ok(welcome) => {
                    self.status.note(format!("server {url} found through {origin}"));
                    return Some(Found { api, welcome });
                }
                Err(CallError::Busy { rejected, wait }) if Instant::now() < end => {
                    let wait = wait.unwrap_or(self.each);
                    let again = format!("asking {url} again in {} s", wait.as_secs());
                    self.status.note(format!("{rejected}; {again}"));
                    tokio::time::sleep(wait).await;
                }
                Err(e) => {
                    self.status.note(format!("from {origin}: {e}"));
                    return None;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::net::api_client::client;
    use crate::testkit::http::serve;
    use std::sync::atomic::{AtomicUsize, Ordering};

    const GOOD: &str = r#"{"service":"flashmob","version":"1","terminal":"t","label":null}"#;

    #[test]
    fn a_search_that_finds_thousands_is_cut_short_at_the_first() {
        let status = Status::new();
        let hello = Hello { uuid: None, macs: vec![], inventory: Default::default(), agent: String::new() };
        let mut finder = Finder::new(client().unwrap(), &hello, &status, vec![Step::Browse], EACH);
        finder.ask_first((0..5000).map(|n| format!("http://s{n}:6969")).collect(), Origin::Mdns);
        assert_eq!(finder.steps.len(), MOST + 1);
        let first = Step::Ask { url: "http://s0:6969".into(), origin: Origin::Mdns };
        assert_eq!(finder.steps.front(), Some(&first));
    }

    #[tokio::test]
    async fn a_busy_server_is_asked_until_it_answers_and_not_given_up_for_the_next() {
        let asked = AtomicUsize::new(0);
        let busy = serve(move |_, _| match asked.fetch_add(1, Ordering::SeqCst) {
            0..3 => (429, r#"{"error":"too many new terminals","advice":"Try again in 5 s."}"#.into()),
            _ => (200, GOOD.into()),
        })
        .await;
        let other = serve(|_, _| (200, GOOD.into())).await;
        let steps = [(&busy, Origin::DhcpOption), (&other, Origin::Mdns)]
            .map(|(url, origin)| Step::Ask { url: url.clone(), origin });
        let status = Status::new();
        let hello = Hello { uuid: None, macs: vec![], inventory: Default::default(), agent: String::new() };
        let each = Duration::from_secs(20);
        let mut finder = Finder::new(client().unwrap(), &hello, &status, steps.into(), each);
        assert_eq!(finder.next().await.unwrap().api.base(), busy);
        assert!(status.view().notes[0].contains("too many new terminals"), "{:?}", status.view().notes);
    }

    #[tokio::test]
    async fn strangers_are_reported_and_the_next_is_asked_each_once() {
        let stranger = serve(|_, _| (200, "<html>".into())).await;
        let good = serve(|_, _| (200, GOOD.into())).await;
        let other = serve(|_, _| (200, GOOD.into())).await;
        let ask = |url: &str, origin| Step::Ask { url: url.into(), origin };
        let steps = vec![
            Step::Unusable { why: "'x y' is not an address".into(), origin: Origin::File },
            ask(&stranger, Origin::DhcpOption),
            ask(&good, Origin::NextServer),
            ask(&good, Origin::Dns),
            ask(&other, Origin::Mdns),
        ];
        let status = Status::new();
        let hello = Hello { uuid: None, macs: vec![], inventory: Default::default(), agent: String::new() };
        let mut finder = Finder::new(client().unwrap(), &hello, &status, steps, Duration::from_secs(20));
        assert_eq!(finder.next().await.unwrap().api.base(), good);
        assert_eq!(finder.next().await.unwrap().api.base(), other);
        assert!(finder.next().await.is_none());
        let notes = status.view().notes;
        assert!(notes[0].contains("'x y'"), "{notes:?}");
        assert!(
            notes[1].contains("DHCP option 224") && notes[1].contains("not a flashmob server"),
            "{notes:?}"
        );
    }
}
