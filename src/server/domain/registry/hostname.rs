//! Rules by which a job gives each terminal its host name.
//!
//! Invariant: pure. A name that a rule makes is one that a network knows (RFC 1123), or the rule says what
//! the terminal lacks.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::{Place, check_hostname};

/// Longest name of a Windows computer (NetBIOS).
pub(crate) const WINDOWS: usize = 15;
/// Longest part of a host name.
const LONGEST: usize = 63;
/// Most digits that a rule asks for.
const MOST_DIGITS: usize = 9;

/// How a terminal gets its host name: `csv`, `{label}`, `{room}-{seat:02}`, or `{dns}|{label}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum HostnameRule {
    /// The registered one.
    Registered,
    /// Made of the terminal's own words.
    Pattern(Vec<Part>),
    /// The first one that gives a name.
    FirstOf(Vec<HostnameRule>),
}

/// A part of a pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    Text(String),
    /// A word of the terminal. A number is written with at least this many digits.
    Word(Word, usize),
}

/// What a pattern may name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Word {
    Room,
    Seat,
    Label,
    /// The terminal's first MAC address, without colons.
    Mac,
    /// The name that DNS has for the terminal's address.
    Dns,
}

impl Word {
    const ALL: [(&'static str, Word); 5] = [
        ("room", Word::Room),
        ("seat", Word::Seat),
        ("label", Word::Label),
        ("mac", Word::Mac),
        ("dns", Word::Dns),
    ];

    fn name(self) -> &'static str {
        Word::ALL.iter().find(|(_, word)| *word == self).map_or("", |(name, _)| name)
    }
}

/// What a rule needs to know of a terminal.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Named<'a> {
    pub(crate) place: &'a Place,
    /// Its label, also one that the configuration gives.
    pub(crate) label: Option<&'a str>,
    /// Its first MAC address.
    pub(crate) mac: Option<&'a str>,
    /// The name that DNS has for its address, or why there is none.
    pub(crate) dns: &'a Result<String, Lack>,
}

/// Why a rule gives a terminal no name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Lack {
    /// For people.
    pub(crate) why: String,
    /// DNS has not answered, and may have a name.
    pub(crate) open: bool,
}

impl From<String> for Lack {
    fn from(why: String) -> Self {
        Lack { why, open: false }
    }
}

impl HostnameRule {
    /// The name of a terminal, or why it has none. While DNS may have the name that a rule asks for, no later
    /// rule gives another one.
    pub(crate) fn name(&self, terminal: &Named<'_>) -> Result<String, Lack> {
        let name = match self {
            HostnameRule::Registered => {
                let registered = terminal.place.hostname.clone();
                registered.ok_or_else(|| "no host name is registered for it".to_owned())?
            }
            HostnameRule::Pattern(parts) => {
                parts.iter().map(|part| part.text(terminal)).collect::<Result<String, Lack>>()?
            }
            HostnameRule::FirstOf(rules) => {
                let mut lacks = Vec::new();
                for rule in rules {
                    match rule.name(terminal) {
                        Ok(name) => return Ok(name),
                        Err(lack) if lack.open => return Err(lack),
                        Err(lack) => lacks.push(lack.why),
                    }
                }
                return Err(lacks.join(", and ").into());
            }
        };
        check_hostname(&name)?;
        Ok(name)
    }

    /// Must the terminal's address be looked up in DNS?
    pub(crate) fn asks_dns(&self) -> bool {
        match self {
            HostnameRule::Registered => false,
            HostnameRule::Pattern(parts) => parts.iter().any(|part| matches!(part, Part::Word(Word::Dns, _))),
            HostnameRule::FirstOf(rules) => rules.iter().any(HostnameRule::asks_dns),
        }
    }
}

impl Part {
    fn text(&self, terminal: &Named<'_>) -> Result<String, Lack> {
        let (word, digits) = match self {
            Part::Text(text) => return Ok(text.clone()),
            Part::Word(word, digits) => (*word, *digits),
        };
        let text = match word {
            Word::Room => terminal.place.room.clone(),
            Word::Seat => terminal.place.seat.clone(),
            Word::Label => terminal.label.map(str::to_owned),
            Word::Mac => terminal.mac.map(|mac| mac.replace(':', "")),
            Word::Dns => Some(terminal.dns.clone()?),
        };
        let text = text.ok_or_else(|| format!("it has no {}", word.name()))?;
        Ok(match text.parse::<u64>() {
            Ok(number) if digits > 0 => format!("{number:0digits$}"),
            _ => text,
        })
    }
}

impl FromStr for HostnameRule {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.contains('|') {
            let rules = text.split('|').map(str::parse).collect::<Result<_, _>>()?;
            return Ok(HostnameRule::FirstOf(rules));
        }
        match text {
            "csv" => return Ok(HostnameRule::Registered),
            "dns" => return Err("names from DNS are written in braces: {dns}".into()),
            _ => {}
        }
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('{') {
            let (word, behind) =
                after.split_once('}').ok_or_else(|| format!("a '}}' is missing in '{text}'"))?;
            if !before.is_empty() {
                parts.push(Part::Text(before.into()));
            }
            parts.push(word_of(word)?);
            rest = behind;
        }
        if !rest.is_empty() {
            parts.push(Part::Text(rest.into()));
        }
        if !parts.iter().any(|part| matches!(part, Part::Word(..))) {
            return Err(format!(
                "'{text}' gives every terminal the same name; write for example {{room}}-{{seat:02}}"
            ));
        }
        // The words of terminals are checked when a name is made.
        let plain = |part: &Part| match part {
            Part::Text(text) => text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-'),
            Part::Word(..) => true,
        };
        match parts.iter().all(plain) && text.len() <= LONGEST {
            true => Ok(HostnameRule::Pattern(parts)),
            false => Err(format!("'{text}' makes no host names: letters, digits and hyphens, 63 at most")),
        }
    }
}

/// A word in braces: `seat`, or `seat:02` for two digits.
fn word_of(text: &str) -> Result<Part, String> {
    let (name, digits) = text.split_once(':').unwrap_or((text, "0"));
    let word = Word::ALL.iter().find(|(known, _)| *known == name).map(|(_, word)| *word);
    let word = word.ok_or_else(|| {
        let names: Vec<String> = Word::ALL.iter().map(|(name, _)| format!("{{{name}}}")).collect();
        format!("'{{{text}}}' is not one of {}", names.join(", "))
    })?;
    match digits.parse() {
        Ok(digits) if digits <= MOST_DIGITS => Ok(Part::Word(word, digits)),
        _ => Err(format!("'{digits}' in '{{{text}}}' is no number of digits such as 02")),
    }
}

impl fmt::Display for HostnameRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = match self {
            HostnameRule::Registered => return f.write_str("csv"),
            HostnameRule::FirstOf(rules) => {
                let words: Vec<String> = rules.iter().map(ToString::to_string).collect();
                return f.write_str(&words.join("|"));
            }
            HostnameRule::Pattern(parts) => parts,
        };
        parts.iter().try_for_each(|part| match part {
            Part::Text(text) => f.write_str(text),
            Part::Word(word, 0) => write!(f, "{{{}}}", word.name()),
            Part::Word(word, digits) => write!(f, "{{{}:{digits:02}}}", word.name()),
        })
    }
}

impl TryFrom<String> for HostnameRule {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<HostnameRule> for String {
    fn from(rule: HostnameRule) -> String {
        rule.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(room: &str, seat: &str) -> Place {
        let text = |text: &str| Some(text.to_string()).filter(|text| !text.is_empty());
        Place { room: text(room), seat: text(seat), hostname: text("pc7.school.example"), ..Place::default() }
    }

    fn name(rule: &str, place: &Place) -> Result<String, String> {
        let dns = Err("DNS has no name for 10.0.0.7".to_string().into());
        let named = Named { place, label: Some("lab-01"), mac: Some("52:54:00:00:00:0a"), dns: &dns };
        rule.parse::<HostnameRule>().expect("a rule").name(&named).map_err(|lack| lack.why)
    }

    #[test]
    fn a_rule_makes_names_of_room_seat_label_and_mac_and_takes_registered_ones() {
        for (rule, expected) in [
            ("{room}-{seat:02}", "101-04"),
            ("r{room}s{seat}", "r101s4"),
            ("{label}", "lab-01"),
            ("pc-{mac}", "pc-52540000000a"),
            ("csv", "pc7.school.example"),
        ] {
            assert_eq!(name(rule, &place("101", "4")).as_deref(), Ok(expected), "{rule}");
        }
        assert_eq!(name("{room}-{seat:02}", &place("a", "4b")).as_deref(), Ok("a-4b"), "no number");
        assert_eq!(name("{room}-{seat:02}", &place("101", "004")).as_deref(), Ok("101-04"));
    }

    #[test]
    fn a_terminal_without_what_the_rule_names_has_no_name() {
        assert_eq!(name("{room}-{seat}", &place("101", "")), Err("it has no seat".into()));
        assert!(
            name("{room}-{seat}", &place("Raum 101", "4")).expect_err("a space").contains("no host name")
        );
        let nowhere = Place::default();
        assert!(name("csv", &nowhere).expect_err("none").contains("registered"));
    }

    #[test]
    fn a_name_from_dns_is_taken_whole_and_without_one_the_next_rule_gives_it() {
        let place = place("101", "4");
        let of = |rule: &str, dns: &Result<String, Lack>| {
            let named = Named { place: &place, label: None, mac: None, dns };
            rule.parse::<HostnameRule>().expect("a rule").name(&named)
        };
        let known = Ok("pc4.school.example".to_string());
        assert_eq!(of("{dns}", &known), known);
        assert_eq!(of("{dns}|{room}-{seat}", &known), known);
        let unknown = Err("DNS has no name for 10.0.0.7".to_string().into());
        assert_eq!(of("{dns}", &unknown), unknown);
        assert_eq!(of("{dns}|{label}|{room}-{seat}", &unknown).as_deref(), Ok("101-4"));
        let lack = of("{dns}|{label}", &unknown).expect_err("none");
        assert_eq!(lack.why, "DNS has no name for 10.0.0.7, and it has no label");
        let silent = Err(Lack { why: "DNS did not answer".into(), open: true });
        assert_eq!(of("{dns}|{room}-{seat}", &silent), silent, "it may have a name");
        assert_eq!(of("{label}|{dns}|{room}-{seat}", &silent), silent);
        assert_eq!(of("{room}-{seat}|{dns}", &silent).as_deref(), Ok("101-4"), "it is not asked");
        let strange = Ok("pc_4.school".to_string());
        assert_eq!(of("{dns}|{room}-{seat}", &strange).as_deref(), Ok("101-4"), "no host name");
        let asks = |rule: &str| rule.parse::<HostnameRule>().expect("a rule").asks_dns();
        assert!(asks("{dns}") && asks("csv|{dns}") && !asks("csv|{label}"));
    }

    #[test]
    fn a_rule_is_written_as_it_is_read_and_a_wrong_one_says_what_to_write() {
        for rule in ["{room}-{seat:02}", "csv", "{label}", "x{mac}", "{dns}|csv|{room}-{seat:02}"] {
            assert_eq!(rule.parse::<HostnameRule>().expect("a rule").to_string(), rule);
        }
        for (bad, why) in [
            ("lab", "same name"),
            ("{rooom}", "{room}, {seat}"),
            ("{room", "'}'"),
            ("{seat:x}", "digits"),
            ("{seat:99}", "digits"),
            ("{room}_{seat}", "hyphens"),
            ("dns", "{dns}"),
            ("{dns}|lab", "same name"),
            ("{dns}|", "same name"),
            ("", "same name"),
        ] {
            let said = bad.parse::<HostnameRule>().expect_err(bad);
            assert!(said.contains(why), "{bad}: {said}");
        }
    }
}
