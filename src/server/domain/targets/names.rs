//! Finds the one terminal that a person's input names, and compares names.
//!
//! Invariant: pure; nothing picks one of several.

use crate::api::Refusal;
use crate::server::domain::config::Config;
use crate::server::domain::identity::{TerminalKey, usable_uuid};
use crate::server::domain::lab::{Lab, Terminal, some_of};

/// How many letters differ.
pub(super) fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

/// Why a name does not name exactly one terminal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotOne {
    /// Nobody has it; these names are similar.
    Nobody(Vec<String>),
    /// The ids of those that it fits.
    Several(Vec<String>),
    /// It is a MAC that only the hellos of these terminals name.
    Claimed(Vec<String>),
}

impl NotOne {
    /// The same for the person who typed `name`.
    pub fn refusal(&self, name: &str) -> Refusal {
        let refuse = |error: String, advice: String| Refusal { error, advice };
        let list = |names: &[String]| some_of(&names.iter().map(String::as_str).collect::<Vec<_>>());
        match self {
            NotOne::Nobody(alike) => {
                let advice = match alike.is_empty() {
                    true => "See 'flashmob terminal list' for those that are.".to_string(),
                    false => format!("Is it {}? 'flashmob terminal list' shows all of them.", list(alike)),
                };
                refuse(format!("no terminal '{name}' is known here"), advice)
            }
            NotOne::Claimed(ids) => refuse(
                format!("nobody has listed {name} as a card of {}, whose hello named it", list(ids)),
                "Name the terminal by its label or its own MAC. If the card is its own, import a table with \
                 the card's MAC and the terminal's label: flashmob terminal import FILE.csv"
                    .into(),
            ),
            NotOne::Several(ids) => refuse(
                format!("'{name}' fits {} terminals: {}", ids.len(), list(ids)),
                "Name the one that is meant by its MAC: 'flashmob terminal list' shows them all.".into(),
            ),
        }
    }
}

/// The terminal that a person's input names: its name in calls, its label, any of its MACs, or its UUID with
/// or without `uuid:` before it.
pub fn one<'a>(lab: &'a Lab, config: &Config, typed: &str) -> Result<&'a Terminal, NotOne> {
    if let Some(terminal) = lab.get(typed) {
        return Ok(terminal);
    }
    let key = typed.parse::<TerminalKey>().ok().or_else(|| usable_uuid(typed).map(TerminalKey::Uuid));
    let fits = |t: &&Terminal| {
        lab.label(config, t) == Some(typed)
            || key.as_ref().is_some_and(|key| key.matches(&t.identity) && !claims(t, key))
    };
    let fitting: Vec<&Terminal> = lab.iter().filter(fits).collect();
    match fitting[..] {
        [] => match key.map(|key| claimants(lab, &key)).filter(|ids| !ids.is_empty()) {
            Some(ids) => Err(NotOne::Claimed(ids)),
            None => Err(NotOne::Nobody(alike(lab, config, typed))),
        },
        [one] => Ok(one),
        _ => Err(NotOne::Several(fitting.iter().map(|t| t.id.clone()).collect())),
    }
}

/// Has nobody listed this MAC as the terminal's own, though its hello named it?
fn claims(terminal: &Terminal, key: &TerminalKey) -> bool {
    matches!(key, TerminalKey::Mac(mac) if !terminal.own_macs.contains(mac))
}

fn claimants(lab: &Lab, key: &TerminalKey) -> Vec<String> {
    let claiming = |t: &&Terminal| key.matches(&t.identity) && claims(t, key);
    lab.iter().filter(claiming).map(|t| t.id.clone()).collect()
}

/// Labels and MACs that contain the input, or a part of it if none does.
fn alike(lab: &Lab, config: &Config, typed: &str) -> Vec<String> {
    let names = || {
        lab.iter().flat_map(|t| {
            let macs = t.identity.macs.iter().map(ToString::to_string);
            lab.label(config, t).map(str::to_owned).into_iter().chain(macs)
        })
    };
    let mut part = typed.strip_prefix("uuid:").unwrap_or(typed).to_lowercase().replace('-', ":");
    while !part.is_empty() {
        let found: Vec<String> =
            names().filter(|name| name.to_lowercase().replace('-', ":").contains(&part)).collect();
        if !found.is_empty() {
            return found;
        }
        // Shorter and shorter beginnings: lab-17, lab-1, lab.
        part.pop();
        if part.len() < 3 {
            break;
        }
    }
    Vec::new()
}
