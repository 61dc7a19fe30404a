//! The words that name terminals where people start and stop jobs: a label, a MAC, `uuid:…`, `room:NAME`,
//! `group:NAME`, `zone:NAME`, `new` and `all`. `names` finds one terminal by what a person types, and
//! compares names.
//!
//! Invariant: pure. A word that fits no terminal, or one name that fits several, is refused with names that
//! are known; nothing picks one. A terminal that no person has registered is meant only by its own name, by
//! `new`, or where the configuration lists it by name in a group.

mod names;
#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use crate::api::Refusal;
use crate::manifest::model::is_model;
use crate::server::domain::config::{Config, GroupConfig, Who};
use crate::server::domain::lab::{Lab, Terminal};
use crate::server::domain::registry::natural;
use crate::server::domain::zones::called;
use crate::tracker::{Topology, ZoneId};
use names::distance;
pub use names::{NotOne, one};

#[cfg(test)]
thread_local! {
    /// How often this thread has looked through all terminals for one name.
    static SEARCHES: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

/// How many known names a refusal shows.
const SHOWN: usize = 8;
const ADVICE: &str = "A target is a label, a MAC, uuid:…, room:NAME, group:NAME, zone:NAME, new or all.";

/// Words of one order.
const MOST: usize = 1000;
/// Characters of a word: a label has at most a few dozen.
const LONGEST: usize = 200;
/// Words of an order that are kept with its job.
const KEPT: usize = 20;

/// The words of an order, each once, in the order in which they came.
pub(crate) fn words(texts: &[String]) -> Result<Vec<TargetExpr>, Refusal> {
    if texts.len() > MOST {
        let error = format!("{} targets are named, and an order takes at most {MOST}", texts.len());
        return Err(refusal(error, "Name rooms or groups instead: room:NAME, group:NAME."));
    }
    let mut words = Vec::new();
    let mut seen = HashSet::new();
    for text in texts {
        if text.chars().count() > LONGEST {
            let start: String = text.chars().take(20).collect();
            let error = format!("the target '{start}…' has more than {LONGEST} characters");
            return Err(refusal(error, ADVICE));
        }
        let word: TargetExpr = text.parse().map_err(|error: String| refusal(error, ADVICE))?;
        if seen.insert(word.clone()) {
            words.push(word);
        }
    }
    Ok(words)
}

/// The first words and how many more there are, because lists show them with every job.
pub(crate) fn shortened(words: &[String]) -> Vec<String> {
    let mut short: Vec<String> = words.iter().take(KEPT).cloned().collect();
    let more = words.len().saturating_sub(KEPT);
    short.extend((more > 0).then(|| format!("and {more} more")));
    short
}

/// One word of a job's targets.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TargetExpr {
    /// A label, a MAC, or a UUID.
    One(String),
    Room(String),
    Group(String),
    Zone(String),
    /// Those that no person has registered.
    New,
    /// Those that a person has registered.
    All,
}

impl FromStr for TargetExpr {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let named = |name: &str, make: fn(String) -> TargetExpr| match name.trim() {
            "" => Err(format!("'{text}' lacks a name after the colon, as in room:101")),
            name => Ok(make(name.into())),
        };
        match text.split_once(':') {
            Some(("room", name)) => named(name, TargetExpr::Room),
            Some(("group", name)) => named(name, TargetExpr::Group),
            Some(("zone", name)) => named(name, TargetExpr::Zone),
            _ => match text {
                "" => {
                    Err("a target is empty; name a terminal, room:NAME, group:NAME, zone:NAME, new or all"
                        .into())
                }
                "new" => Ok(TargetExpr::New),
                "all" => Ok(TargetExpr::All),
                one => Ok(TargetExpr::One(one.into())),
            },
        }
    }
}

impl fmt::Display for TargetExpr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TargetExpr::One(name) => f.write_str(name),
            TargetExpr::Room(name) => write!(f, "room:{name}"),
            TargetExpr::Group(name) => write!(f, "group:{name}"),
            TargetExpr::Zone(name) => write!(f, "zone:{name}"),
            TargetExpr::New => f.write_str("new"),
            TargetExpr::All => f.write_str("all"),
        }
    }
}

/// The terminals that words mean together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Meant {
    /// Their ids, sorted, each once.
    pub ids: Vec<String>,
    /// Those of them that have a word of their own: a label, a MAC or a UUID.
    pub alone: BTreeSet<String>,
}

impl Meant {
    /// These terminals, each by a word of its own.
    pub fn each<I: IntoIterator<Item: Into<String>>>(ids: I) -> Meant {
        let alone: BTreeSet<String> = ids.into_iter().map(Into::into).collect();
        Meant { ids: alone.iter().cloned().collect(), alone }
    }

    /// Does a word name this terminal and no other?
    pub fn is_alone(&self, id: &str) -> bool {
        self.alone.contains(id)
    }

    /// Does every terminal have a word of its own?
    pub fn are_all_alone(&self) -> bool {
        self.ids.len() == self.alone.len()
    }

    /// The part of it that `keep` chooses.
    pub fn only(&self, keep: impl Fn(&str) -> bool) -> Meant {
        let kept = |id: &&String| keep(id);
        Meant {
            ids: self.ids.iter().filter(kept).cloned().collect(),
            alone: self.alone.iter().filter(kept).cloned().collect(),
        }
    }
}

/// The terminals that the words mean together: their ids, sorted, each once.
pub fn resolve(
    lab: &Lab,
    config: &Config,
    topology: &Topology,
    targets: &[TargetExpr],
) -> Result<Vec<String>, Refusal> {
    meant(lab, config, topology, targets).map(|meant| meant.ids)
}

/// The terminals that the words mean together, and which of them have a word of their own.
pub fn meant(
    lab: &Lab,
    config: &Config,
    topology: &Topology,
    targets: &[TargetExpr],
) -> Result<Meant, Refusal> {
    if targets.is_empty() {
        return Err(refusal(
            "no terminal is named",
            "Name terminals, room:NAME, group:NAME, zone:NAME, new or all.",
        ));
    }
    let known = Known { lab, config, topology };
    let (mut ids, mut alone) = (BTreeSet::new(), BTreeSet::new());
    for target in targets {
        let found = known.meant_by(target)?.into_iter().map(|terminal| terminal.id.clone());
        match target {
            TargetExpr::One(_) => alone.extend(found),
            _ => ids.extend(found),
        }
    }
    ids.extend(alone.iter().cloned());
    Ok(Meant { ids: ids.into_iter().collect(), alone })
}

/// The names of the groups that a terminal is in, sorted.
pub(crate) fn groups_of(lab: &Lab, config: &Config, topology: &Topology, terminal: &Terminal) -> Vec<String> {
    Groups::new(lab, config, topology).of(terminal)
}

/// The groups of the lab, looked up once for many terminals.
pub(crate) struct Groups<'a> {
    known: Known<'a>,
    /// Each group of the configuration, with the ids of the terminals that it lists by name.
    configured: Vec<(&'a GroupConfig, HashSet<&'a str>)>,
}

impl<'a> Groups<'a> {
    pub(crate) fn new(lab: &'a Lab, config: &'a Config, topology: &'a Topology) -> Self {
        let known = Known { lab, config, topology };
        let by_name = |group: &GroupConfig| group.terminals.iter().any(|who| matches!(who, Who::Label(_)));
        let mut labels: HashMap<&str, Vec<&Terminal>> = HashMap::new();
        // Each terminal that takes work asks for its groups, and few configurations list any by label.
        let by_name = config.groups.iter().any(by_name);
        for terminal in by_name.then(|| lab.iter()).into_iter().flatten() {
            if let Some(label) = lab.label(config, terminal) {
                labels.entry(label).or_default().push(terminal);
            }
        }
        let one = |who: &Who| match who {
            Who::Label(label) => labels.get(label.as_str()).and_then(|fitting| only(fitting)),
            _ => known.named(who),
        };
        let listed =
            |group: &GroupConfig| group.terminals.iter().filter_map(one).map(|t| t.id.as_str()).collect();
        Groups { known, configured: config.groups.iter().map(|group| (group, listed(group))).collect() }
    }

    /// The names of the groups that a terminal is in, sorted.
    pub(crate) fn of(&self, terminal: &Terminal) -> Vec<String> {
        let fits = |group: &GroupConfig| terminal.accepted && self.known.fits(group, terminal);
        let groups = self.configured.iter();
        let groups = groups.filter(|(group, ids)| ids.contains(terminal.id.as_str()) || fits(group));
        let configured = groups.map(|(group, _)| group.name.clone());
        let names: BTreeSet<String> = terminal.place.groups.iter().cloned().chain(configured).collect();
        names.into_iter().collect()
    }
}

fn only<'a>(fitting: &[&'a Terminal]) -> Option<&'a Terminal> {
    match fitting {
        [one] => Some(one),
        _ => None,
    }
}

fn refusal(error: impl Into<String>, advice: impl Into<String>) -> Refusal {
    Refusal { error: error.into(), advice: advice.into() }
}

/// What the words are looked up in.
#[derive(Clone, Copy)]
struct Known<'a> {
    lab: &'a Lab,
    config: &'a Config,
    topology: &'a Topology,
}

impl<'a> Known<'a> {
    fn meant_by(self, target: &TargetExpr) -> Result<Vec<&'a Terminal>, Refusal> {
        let lab = self.lab;
        match target {
            TargetExpr::One(name) => Ok(vec![one(lab, self.config, name).map_err(|e| e.refusal(name))?]),
            TargetExpr::Room(name) => {
                let here: Vec<_> = lab.iter().filter(|t| t.place.room.as_ref() == Some(name)).collect();
                let rooms = || lab.iter().filter_map(|t| t.place.room.clone()).collect();
                found(here).ok_or_else(|| unknown("room", name, rooms(), "'flashmob terminal import'"))
            }
            TargetExpr::Group(name) => self.group(name),
            TargetExpr::Zone(name) => self.zone(name),
            TargetExpr::New => found(lab.iter().filter(|t| !t.accepted).collect()).ok_or_else(|| {
                refusal("no terminal is new", "All that ever came are registered: 'all' means those.")
            }),
            TargetExpr::All => found(self.registered().collect()).ok_or_else(|| {
                refusal(
                    "no terminal is registered",
                    "List them with 'flashmob terminal import FILE.csv', or accept those that came with \
                     'flashmob terminal set TERMINAL --accept'.",
                )
            }),
        }
    }

    fn registered(self) -> impl Iterator<Item = &'a Terminal> {
        self.lab.iter().filter(|terminal| terminal.accepted)
    }

    fn group(self, name: &str) -> Result<Vec<&'a Terminal>, Refusal> {
        let configured = self.config.groups.iter().find(|group| group.name == name);
        let mut here: Vec<&Terminal> =
            self.lab.iter().filter(|t| t.place.groups.iter().any(|group| group == name)).collect();
        if let Some(group) = configured {
            here.extend(group.terminals.iter().flat_map(|who| self.named(who)));
            here.extend(self.registered().filter(|terminal| self.fits(group, terminal)));
        }
        match (found(here), configured) {
            (Some(here), _) => Ok(here),
            (None, Some(_)) => Err(refusal(
                format!("the group '{name}' has no terminal"),
                "Look at its [[group]] in the server's configuration. Its networks, zones and models count \
                 for registered terminals only.",
            )),
            (None, None) => {
                let own = self.lab.iter().flat_map(|t| t.place.groups.iter().cloned());
                let names = own.chain(self.config.groups.iter().map(|group| group.name.clone())).collect();
                Err(unknown("group", name, names, "'flashmob terminal set TERMINAL --group'"))
            }
        }
    }

    /// The terminal that the configuration names, if it is exactly one.
    fn named(self, who: &Who) -> Option<&'a Terminal> {
        #[cfg(test)]
        SEARCHES.set(SEARCHES.get() + 1);
        let fitting = match who {
            Who::Address(ip) => self.lab.iter().filter(|t| t.ip() == Some(*ip)).collect(),
            Who::Key(key) => self.lab.fitting(key),
            Who::Label(label) => called(self.config, self.lab, label),
        };
        only(&fitting)
    }

    fn fits(self, group: &GroupConfig, terminal: &Terminal) -> bool {
        let inside = |ip: IpAddr| group.networks.iter().any(|net| net.contains(&ip));
        let zone = || self.zone_of(terminal);
        terminal.ip().is_some_and(inside)
            || group.models.iter().any(|model| is_model(model, &terminal.inventory.machine))
            || !group.zones.is_empty()
                && zone().is_some_and(|zone| group.zones.iter().any(|name| name == zone))
    }

    fn zone_of(self, terminal: &Terminal) -> Option<&'a str> {
        Some(self.topology.name(self.topology.zone_of(terminal.ip()?)))
    }

    fn zone(self, name: &str) -> Result<Vec<&'a Terminal>, Refusal> {
        let here = self.registered().filter(|terminal| self.zone_of(terminal) == Some(name)).collect();
        let zones = || {
            let named = self.topology.zones.iter().map(|zone| zone.name.clone());
            named.chain([self.topology.name(ZoneId::Rest).to_string()]).collect::<BTreeSet<String>>()
        };
        found(here).ok_or_else(|| match zones().contains(name) {
            true => refusal(
                format!("no registered terminal was heard in zone '{name}'"),
                "'flashmob terminal list' shows each one's zone. A terminal that has yet to come is in none.",
            ),
            false => unknown("zone", name, zones(), "a [[zone]] in the server's configuration"),
        })
    }
}

fn found(terminals: Vec<&Terminal>) -> Option<Vec<&Terminal>> {
    Some(terminals).filter(|terminals| !terminals.is_empty())
}

/// There is no such room, group or zone. `maker` is how one comes to be.
fn unknown(what: &str, name: &str, known: BTreeSet<String>, maker: &str) -> Refusal {
    if known.is_empty() {
        return refusal(format!("no {what} '{name}'; there are no {what}s"), format!("{maker} makes one."));
    }
    let mut near: Vec<&String> = known.iter().collect();
    near.sort_by_key(|other| distance(name, other));
    near.truncate(SHOWN);
    near.sort_by(|a, b| natural(a, b));
    let names = near.into_iter().map(String::as_str).collect::<Vec<_>>().join(", ");
    let more = known.len().saturating_sub(SHOWN);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    refusal(
        format!("no {what} '{name}'; {what}s are {names}{more}"),
        format!("Name one of these, or make it: {maker}."),
    )
}
