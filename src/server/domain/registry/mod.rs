//! What people say of terminals: label, room, seat, groups and host name.
//!
//! `table` reads and writes them as CSV, `hostname` makes host names of them by rule; `lab` applies them and
//! holds that labels and seats are unique.
//!
//! Invariant: pure. Words that were checked are short, without control characters, and no label can be
//! mistaken for a MAC, a UUID or a word of the targets' grammar.

pub(crate) mod hostname;
pub mod table;

use std::cmp::Ordering;

use crate::server::domain::identity::{Mac, usable_uuid};

/// Longest word that a person may give.
const MAX_WORD: usize = 64;
/// Longest host name (RFC 1035).
const MAX_HOSTNAME: usize = 253;
/// Most groups of one terminal.
const MAX_GROUPS: usize = 32;

/// Where people find a terminal, and what they call it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Place {
    pub label: Option<String>,
    pub room: Option<String>,
    pub seat: Option<String>,
    /// In the order in which they were given, each once.
    pub groups: Vec<String>,
    pub hostname: Option<String>,
}

impl Place {
    /// No person has said anything.
    pub fn is_empty(&self) -> bool {
        *self == Place::default()
    }

    /// The place after an edit that was checked.
    pub fn with(&self, edit: &Edit) -> Place {
        let pick = |new: &Option<String>, old: &Option<String>| match new {
            None => old.clone(),
            Some(text) => Some(text.clone()).filter(|text| !text.is_empty()),
        };
        Place {
            label: pick(&edit.label, &self.label),
            room: pick(&edit.room, &self.room),
            seat: pick(&edit.seat, &self.seat),
            groups: edit.groups.clone().unwrap_or_else(|| self.groups.clone()),
            hostname: pick(&edit.hostname, &self.hostname),
        }
    }
}

/// A change of a place. `None` leaves a part as it is; an empty text clears it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Edit {
    pub label: Option<String>,
    pub room: Option<String>,
    pub seat: Option<String>,
    pub groups: Option<Vec<String>>,
    pub hostname: Option<String>,
}

impl Edit {
    /// Checks every word. The error has the column that is wrong.
    pub fn check(&self) -> Result<(), (Column, String)> {
        let words = [
            (Column::Label, &self.label),
            (Column::Room, &self.room),
            (Column::Seat, &self.seat),
            (Column::Hostname, &self.hostname),
        ];
        for (column, word) in words {
            if let Some(word) = word.as_ref().filter(|word| !word.is_empty()) {
                check(column, word).map_err(|why| (column, why))?;
            }
        }
        let groups = self.groups.as_deref().unwrap_or_default();
        groups
            .iter()
            .try_for_each(|group| check(Column::Groups, group).map_err(|why| (Column::Groups, why)))?;
        match groups.len() > MAX_GROUPS {
            true => Err((Column::Groups, format!("more than {MAX_GROUPS} groups"))),
            false => Ok(()),
        }
    }
}

/// A fact of a terminal that people enter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Column {
    Mac,
    Uuid,
    Label,
    Room,
    Seat,
    Groups,
    Hostname,
}

impl Column {
    pub const ALL: [Column; 7] = [
        Column::Mac,
        Column::Uuid,
        Column::Label,
        Column::Room,
        Column::Seat,
        Column::Groups,
        Column::Hostname,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Column::Mac => "mac",
            Column::Uuid => "uuid",
            Column::Label => "label",
            Column::Room => "room",
            Column::Seat => "seat",
            Column::Groups => "groups",
            Column::Hostname => "hostname",
        }
    }
}

fn check(column: Column, word: &str) -> Result<(), String> {
    if word.trim() != word || word.chars().any(char::is_control) {
        return Err(format!("'{}' has a control character, or a space at an end", word.escape_debug()));
    }
    let most = if column == Column::Hostname { MAX_HOSTNAME } else { MAX_WORD };
    if word.chars().count() > most {
        return Err(format!("a text of {} characters; at most {most} are possible", word.chars().count()));
    }
    match column {
        Column::Label => check_label(word),
        Column::Groups if word.is_empty() || word.contains(';') => {
            Err(format!("'{word}' cannot be a group: it is empty or has a ';', which separates groups"))
        }
        Column::Hostname => check_hostname(word),
        _ => Ok(()),
    }
}

/// A label stands where a MAC, `uuid:…`, `room:…`, `group:…`, `zone:…`, `new` or `all` could stand.
fn check_label(label: &str) -> Result<(), String> {
    let prefixed = ["uuid:", "room:", "group:", "zone:"].iter().any(|prefix| label.starts_with(prefix));
    let key = label.parse::<Mac>().is_ok() || usable_uuid(label).is_some();
    match prefixed || key || label == "all" || label == "new" {
        true => Err(format!("'{label}' cannot be a label, because commands understand it otherwise")),
        false => Ok(()),
    }
}

/// Letters, digits and hyphens in parts of at most 63 characters (RFC 1123).
fn check_hostname(name: &str) -> Result<(), String> {
    let fits = |part: &str| {
        (1..=63).contains(&part.len())
            && !part.starts_with('-')
            && !part.ends_with('-')
            && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    match name.split('.').all(fits) {
        true => Ok(()),
        false => Err(format!(
            "'{name}' is no host name: letters, digits and hyphens, in parts of at most 63 characters"
        )),
    }
}

/// The order in which people count: lab-2 before lab-10.
pub fn natural(a: &str, b: &str) -> Ordering {
    let (mut left, mut right) = (a, b);
    loop {
        let (x, y) = (digits(left), digits(right));
        let order = match (x.is_empty(), y.is_empty()) {
            (false, false) => {
                let (number, other) = (x.trim_start_matches('0'), y.trim_start_matches('0'));
                (left, right) = (&left[x.len()..], &right[y.len()..]);
                number.len().cmp(&other.len()).then_with(|| number.cmp(other))
            }
            _ => {
                let (mut rest, mut others) = (left.chars(), right.chars());
                let order = rest.next().cmp(&others.next());
                (left, right) = (rest.as_str(), others.as_str());
                order
            }
        };
        if order.is_ne() || (left.is_empty() && right.is_empty()) {
            return order.then_with(|| a.cmp(b));
        }
    }
}

/// The digits with which a text begins.
fn digits(text: &str) -> &str {
    &text[..text.bytes().take_while(u8::is_ascii_digit).count()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_in_the_order_in_which_people_count() {
        let sorted =
            ["", "1", "a", "lab", "lab-1", "lab-01", "lab-2", "lab-2b", "lab-10", "lab-10-3", "lab-x"];
        for (i, a) in sorted.iter().enumerate() {
            for (j, b) in sorted.iter().enumerate() {
                let expected = if (i, j) == (4, 5) || (i, j) == (5, 4) { j.cmp(&i) } else { i.cmp(&j) };
                assert_eq!(natural(a, b), expected, "{a} {b}");
            }
        }
    }

    #[test]
    fn a_label_that_commands_would_understand_otherwise_is_refused() {
        for good in ["lab-01", "Raum 101 / 3", "52:54", "allison", "101"] {
            assert_eq!(check(Column::Label, good), Ok(()), "{good}");
        }
        let long = "x".repeat(65);
        for bad in ["all", "new", "room:101", "group:x", "zone:x", "uuid:x", "52:54:00:00:00:01", &long, " a"]
        {
            assert!(check(Column::Label, bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn host_names_are_those_that_a_network_knows() {
        for good in ["lab-01", "lab-01.school.example", "7"] {
            assert_eq!(check(Column::Hostname, good), Ok(()), "{good}");
        }
        for bad in ["lab_01", "-a", "a-", "a..b", "räume", "a b", "a\u{1b}[31m"] {
            assert!(check(Column::Hostname, bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_edit_leaves_what_it_does_not_name_and_clears_what_is_empty() {
        let text = |text: &str| Some(text.to_string());
        let before = Place { label: text("a"), room: text("101"), ..Place::default() };
        let edit = Edit { room: text(""), seat: text("4"), ..Edit::default() };
        assert_eq!(before.with(&edit), Place { label: text("a"), seat: text("4"), ..Place::default() });
        assert_eq!(before.with(&Edit::default()), before);
    }
}
