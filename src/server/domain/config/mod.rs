//! The configuration file: TOML → checked values.
//!
//! Invariant: it describes the lab and starts nothing; jobs are in the database (`former` answers earlier
//! configurations that have some). Every key in the file is known: an unknown one is an error that names its
//! line. `watch` reads the file.

mod former;
mod group;
mod hook;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::de::{self, Deserializer};
use serde::{Deserialize, Serialize};

use crate::api::Compress;
use crate::server::domain::identity::{Identity, TerminalKey};
use crate::server::domain::pxe::PxeConfig;
use crate::tracker::{Topology, Zone};
use crate::units::parse_duration;
pub use group::GroupConfig;
pub(crate) use hook::HookConfig;

/// A configuration with every key explained.
pub(crate) const SAMPLE: &str = include_str!("sample.toml");

/// Everything the file can say.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// File of public keys by which images are judged.
    pub keys: Option<PathBuf>,
    /// Whether terminals that nobody listed register themselves.
    #[serde(default)]
    pub register: Register,
    /// Images whose payload anybody may have.
    #[serde(default)]
    pub open_images: OpenImages,
    /// Whether pieces travel compressed, from the server and between terminals.
    #[serde(default)]
    pub compress: Compress,
    /// Labels of terminals.
    #[serde(default)]
    pub terminals: HashMap<TerminalKey, Note>,
    #[serde(default)]
    pub boot: BootConfig,
    /// How often peers announce.
    #[serde(default)]
    pub tracker: TrackerConfig,
    #[serde(default)]
    pub history: HistoryConfig,
    /// Limits on the calls of one address.
    #[serde(default)]
    pub limits: LimitsConfig,
    /// Where netbooting machines are answered; read at the start only.
    #[serde(default)]
    pub pxe: PxeConfig,
    /// Terminals that are named together.
    #[serde(default, rename = "group")]
    pub groups: Vec<GroupConfig>,
    /// Terminals behind one switch or in one subnet.
    #[serde(default, rename = "zone")]
    pub zones: Vec<Zone>,
    /// Terminals that fetch from named ones only.
    #[serde(default, rename = "pin")]
    pub pins: Vec<PinConfig>,
    /// Who is told what happens.
    #[serde(default, rename = "webhook")]
    pub(crate) webhooks: Vec<HookConfig>,
}

/// Who decides that a terminal is one of the lab's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Register {
    /// A person. Until then it is listed as new.
    #[default]
    Ask,
    /// The terminal, by its first hello.
    Open,
}

/// Images whose payload anybody may have.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum OpenImages {
    /// All of them, or none.
    All(bool),
    /// By their names.
    Named(Vec<String>),
}

impl Default for OpenImages {
    fn default() -> Self {
        OpenImages::All(false)
    }
}

impl OpenImages {
    pub fn contains(&self, name: &str) -> bool {
        match self {
            OpenImages::All(all) => *all,
            OpenImages::Named(names) => names.iter().any(|open| open == name),
        }
    }
}

/// The configured facts about a terminal.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Note {
    /// The terminal's name for people.
    pub label: String,
}

/// A terminal that fetches from named ones only, across zones too.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PinConfig {
    pub terminal: Who,
    /// The terminals it fetches from.
    pub from: Vec<Who>,
}

/// A terminal as people name it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(from = "String")]
pub enum Who {
    Address(IpAddr),
    /// By a MAC address or UUID.
    Key(TerminalKey),
    /// By its label.
    Label(String),
}

impl From<String> for Who {
    fn from(text: String) -> Self {
        let address = text.parse().map(Who::Address).ok();
        address.or_else(|| text.parse().map(Who::Key).ok()).unwrap_or(Who::Label(text))
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BootConfig {
    /// Added to the kernel's command line.
    #[serde(default)]
    pub arguments: String,
}

/// How often peers announce.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TrackerConfig {
    /// The usual interval.
    #[serde(deserialize_with = "duration")]
    pub interval: Duration,
    /// In their first two minutes.
    #[serde(deserialize_with = "duration")]
    pub young_interval: Duration,
    /// Each switch that terminals hear is a zone.
    pub zones_by_switch: bool,
}

impl Default for TrackerConfig {
    fn default() -> Self {
        let (interval, young_interval) = (Duration::from_secs(30), Duration::from_secs(10));
        TrackerConfig { interval, young_interval, zones_by_switch: false }
    }
}

/// How long the server remembers.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HistoryConfig {
    /// Finished attempts are kept for so long, and terminals that never took anything.
    pub keep_days: u32,
}

impl HistoryConfig {
    /// A hundred years.
    const MOST_DAYS: u32 = 36_500;

    /// The same as a time.
    pub fn keep(&self) -> Duration {
        Duration::from_secs(u64::from(self.keep_days) * 24 * 3600)
    }
}

impl Default for HistoryConfig {
    fn default() -> Self {
        HistoryConfig { keep_days: 365 }
    }
}

/// Limits on the calls of one address. Calls of known terminals do not count.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LimitsConfig {
    /// Unknown terminals that one address may register at once.
    pub new_terminals: u32,
    /// Further ones a minute.
    pub new_terminals_per_minute: u32,
    /// Requests a second that no known terminal sends.
    pub requests_per_second: u32,
}

impl Default for LimitsConfig {
    fn default() -> Self {
        LimitsConfig { new_terminals: 200, new_terminals_per_minute: 12, requests_per_second: 50 }
    }
}

impl Config {
    /// Reads the text of a configuration file. Errors name line and column.
    pub fn parse(text: &str) -> Result<Self, String> {
        if let Some(error) = former::error_for(text) {
            return Err(error);
        }
        let config: Config = toml::from_str(text).map_err(|e| e.to_string().trim_end().to_string())?;
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<(), String> {
        if self.boot.arguments.chars().any(|c| c.is_control()) {
            return Err("boot.arguments must be one line".into());
        }
        let tracker = &self.tracker;
        if tracker.young_interval < Duration::from_secs(1) || tracker.interval < tracker.young_interval {
            return Err("tracker: young_interval must be 1s or more, and interval not below it".into());
        }
        if tracker.interval > Duration::from_secs(3600) {
            return Err("tracker: interval must not be more than 1h, peers believe no longer one".into());
        }
        if !(1..=HistoryConfig::MOST_DAYS).contains(&self.history.keep_days) {
            return Err(format!(
                "history: keep_days must be 1 to {}; the highest keeps everything for a hundred years",
                HistoryConfig::MOST_DAYS
            ));
        }
        let limits = &self.limits;
        let values = [limits.new_terminals, limits.new_terminals_per_minute, limits.requests_per_second];
        if values.iter().any(|value| !(1..=10_000).contains(value)) {
            return Err("limits: each value must be from 1 to 10000".into());
        }
        self.pxe.check().map_err(|why| format!("pxe: {why}"))?;
        self.check_labels()?;
        self.check_pins()?;
        hook::check(&self.webhooks)?;
        group::check(&self.groups, &self.zones, tracker.zones_by_switch)?;
        Topology { zones: self.zones.clone(), ..Topology::default() }.check()
    }

    /// A label names one terminal, or a command that names it would take whichever comes first.
    fn check_labels(&self) -> Result<(), String> {
        for (key, note) in &self.terminals {
            let twin = self.terminals.iter().find(|(other, twin)| *other != key && twin.label == note.label);
            if let Some((other, _)) = twin {
                return Err(format!("the label '{}' is given to both {key} and {other}", note.label));
            }
        }
        Ok(())
    }

    fn check_pins(&self) -> Result<(), String> {
        for (i, pin) in self.pins.iter().enumerate() {
            if pin.from.is_empty() || pin.from.len() > 16 || pin.from.contains(&pin.terminal) {
                return Err("a pin needs 1 to 16 other terminals to fetch from".into());
            }
            if self.pins[..i].iter().any(|other| other.terminal == pin.terminal) {
                return Err(format!("{:?} is pinned twice", pin.terminal));
            }
        }
        Ok(())
    }

    /// This machine's label.
    pub fn label(&self, who: &Identity) -> Option<&str> {
        let by_mac = who.macs.iter().find_map(|mac| self.terminals.get(&TerminalKey::Mac(*mac)));
        let by_uuid = || self.terminals.iter().find(|(key, _)| key.matches(who)).map(|(_, note)| note);
        by_mac.or_else(by_uuid).map(|note| note.label.as_str())
    }
}

fn duration<'de, D: Deserializer<'de>>(d: D) -> Result<Duration, D::Error> {
    parse_duration(&String::deserialize(d)?).map_err(de::Error::custom)
}
