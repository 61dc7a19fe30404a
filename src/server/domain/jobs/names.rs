//! The host names that a new job gives its terminals, checked before any terminal is written.
//!
//! Invariant: pure. A rule that leaves a terminal without a name, or gives two the same one, is refused with
//! the terminals that are concerned. One that never came may have its name from DNS later.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::IpAddr;

use crate::api::Refusal;
use crate::server::domain::lab::{Lab, Terminal, some_of};
use crate::server::domain::registry::hostname::{HostnameRule, Lack, Named, WINDOWS};

/// Host names, by the terminals' names in calls.
pub(super) type Names = BTreeMap<String, String>;

/// What DNS knows of terminals' addresses.
#[derive(Debug, Default)]
pub(crate) struct DnsNames {
    /// The name of an address, or why there is none.
    pub(crate) names: HashMap<IpAddr, Result<String, String>>,
    /// Addresses for which DNS gave no answer.
    pub(crate) unanswered: HashSet<IpAddr>,
}

impl DnsNames {
    /// The name of a terminal's address, or why there is none. DNS may have one later if it did not answer.
    /// An address that was not looked up became necessary while the server asked for others.
    fn of(&self, terminal: &Terminal) -> Result<String, Lack> {
        let ip = terminal.ip().ok_or_else(|| "its address is not known".to_owned())?;
        match self.names.get(&ip) {
            Some(Ok(name)) => Ok(name.clone()),
            Some(Err(why)) => Err(Lack { why: why.clone(), open: self.unanswered.contains(&ip) }),
            None => Err(Lack { why: format!("{ip} was not looked up in DNS yet"), open: true }),
        }
    }
}

/// The host name of one terminal.
pub(crate) fn of_terminal(
    rule: &HostnameRule,
    terminal: &Terminal,
    label: Option<&str>,
    dns: &DnsNames,
) -> Result<String, Lack> {
    let mac = terminal.identity.macs.first().map(ToString::to_string);
    rule.name(&Named { place: &terminal.place, label, mac: mac.as_deref(), dns: &dns.of(terminal) })
}

/// The host names of all terminals of a job.
pub(super) fn of(
    rule: Option<&HostnameRule>,
    terminals: &BTreeSet<String>,
    lab: &Lab,
    label: &dyn Fn(&Terminal) -> Option<String>,
    dns: &DnsNames,
) -> Result<Names, Refusal> {
    let refused = |error, advice: &str| Refusal { error, advice: advice.into() };
    let Some(rule) = rule else { return Ok(Names::new()) };
    let (mut names, mut owners) = (Names::new(), BTreeMap::<String, Vec<String>>::new());
    let mut nameless: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for terminal in terminals.iter().filter_map(|id| lab.get(id)) {
        let label = label(terminal);
        let title = label.clone().unwrap_or_else(|| terminal.id.clone());
        match of_terminal(rule, terminal, label.as_deref(), dns) {
            Ok(name) => {
                owners.entry(name.to_ascii_lowercase()).or_default().push(title);
                names.insert(terminal.id.clone(), name);
            }
            // Its address is looked up when it comes.
            Err(_) if rule.asks_dns() && terminal.ip().is_none() => {}
            Err(lack) => nameless.entry(lack.why).or_default().push(title),
        }
    }
    let list = |titles: &Vec<String>| some_of(&titles.iter().map(String::as_str).collect::<Vec<_>>());
    if let Some((why, titles)) = nameless.iter().next() {
        let advice = "Describe these terminals (flashmob terminal set, or import a table), or choose another \
            rule.";
        let error = format!("--hostname {rule} gives no name to {}: {why}", list(titles));
        return Err(refused(error, advice));
    }
    if let Some((name, titles)) = owners.iter().find(|(_, titles)| titles.len() > 1) {
        let advice = "Choose a rule that tells them apart, for example {room}-{seat:02}.";
        let error = format!("--hostname {rule} gives the name '{name}' to {}", list(titles));
        return Err(refused(error, advice));
    }
    Ok(names)
}

/// Names that Windows would shorten, for people.
pub(super) fn too_long(names: &Names) -> Option<String> {
    let first = |name: &&String| name.split('.').next().is_some_and(|first| first.len() > WINDOWS);
    let long: Vec<&str> = names.values().filter(first).map(String::as_str).collect();
    (!long.is_empty()).then(|| format!("names of more than {WINDOWS} characters: {}", some_of(&long)))
}
