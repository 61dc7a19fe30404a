//! Finds the terminal that a person names.
//!
//! Invariant: a name that fits no terminal or several is refused with the candidates; nothing picks one.

use super::reply::{Error, conflict, stranger};
use crate::api::Refusal;
use crate::server::domain::config::Config;
use crate::server::domain::identity::{TerminalKey, usable_uuid};
use crate::server::domain::lab::{Lab, Terminal, some_of};

/// The terminal that a person's input names: its name, its label, any of its MACs, or its UUID with or
/// without `uuid:` before it.
pub(super) fn meant<'a>(lab: &'a Lab, config: &Config, typed: &str) -> Result<&'a Terminal, Error> {
    if let Some(terminal) = lab.get(typed) {
        return Ok(terminal);
    }
    let key = typed.parse::<TerminalKey>().ok().or_else(|| usable_uuid(typed).map(TerminalKey::Uuid));
    let fits = |t: &&Terminal| {
        lab.label(config, t) == Some(typed) || key.as_ref().is_some_and(|key| key.matches(&t.identity))
    };
    let fitting: Vec<&Terminal> = lab.iter().filter(fits).collect();
    match fitting[..] {
        [] => Err(stranger(typed, &alike(lab, config, typed))),
        [one] => Ok(one),
        _ => {
            let ids: Vec<&str> = fitting.iter().map(|t| t.id.as_str()).collect();
            Err(conflict(Refusal {
                error: format!("'{typed}' fits {} terminals: {}", ids.len(), some_of(&ids)),
                advice: "Name the one that is meant by its MAC: 'flashmob terminal list' shows them all."
                    .into(),
            }))
        }
    }
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
