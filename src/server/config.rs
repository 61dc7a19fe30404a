//! The configuration file: TOML → checked values.
//!
//! Invariant: a [`Config`] that exists has jobs with distinct valid names, and every key in the file was understood:
//! an unknown one is an error that names its line. Reading the file is left to `server::run`; what a job means
//! for a terminal, to `jobs`.

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::de::{self, Deserializer, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};

use super::identity::{Identity, TerminalKey};
use crate::api::{After, Compare, Compress, LayoutMode, check_partitions};
use crate::layout::rule::Rule;
use crate::manifest::is_plain_name;
use crate::tracker::{Topology, Zone};

/// A configuration with every key explained.
pub const SAMPLE: &str = include_str!("sample.toml");

/// Everything the file can say.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// File of public keys by which images are judged.
    pub keys: Option<PathBuf>,
    /// Whether pieces travel compressed, from the server and between terminals.
    #[serde(default)]
    pub compress: Compress,
    /// Jobs in the order of the file.
    #[serde(default, rename = "job")]
    pub jobs: Vec<Job>,
    /// What people call terminals.
    #[serde(default)]
    pub terminals: HashMap<TerminalKey, Note>,
    /// How terminals boot.
    #[serde(default)]
    pub boot: BootConfig,
    /// How often peers announce.
    #[serde(default)]
    pub tracker: TrackerConfig,
    /// Terminals behind one switch or in one subnet.
    #[serde(default, rename = "zone")]
    pub zones: Vec<Zone>,
    /// Terminals that fetch from named ones only.
    #[serde(default, rename = "pin")]
    pub pins: Vec<PinConfig>,
}

/// An image assigned to terminals.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Job {
    /// Its name.
    pub name: String,
    /// The image.
    pub image: ImageRef,
    /// Whom it is for.
    pub terminals: Terminals,
    /// Which disk (`layout::rule`).
    #[serde(default = "internal")]
    pub disk: String,
    /// New table, or the partitions that are there.
    #[serde(default)]
    pub layout: LayoutMode,
    /// Further images for further disks of the same terminals.
    #[serde(default)]
    pub also: Vec<Also>,
    /// Some partitions of the image only; the table and the others stay.
    #[serde(default)]
    pub partitions: Option<Vec<u32>>,
    /// What becomes of what is on the disk already.
    #[serde(default)]
    pub compare: Compare,
    /// What follows.
    #[serde(default)]
    pub after: After,
    /// Check pieces as they arrive.
    #[serde(default = "yes")]
    pub verify: bool,
    /// Longest stay in the swarm after the commit.
    #[serde(default = "half_an_hour", deserialize_with = "duration")]
    pub longest_stay: Duration,
}

impl Job {
    fn check_disks(&self) -> Result<(), String> {
        let also = self.also.iter().map(|also| (&also.disk, &also.partitions));
        for (disk, partitions) in std::iter::once((&self.disk, &self.partitions)).chain(also) {
            disk.parse::<Rule>()?;
            partitions.as_deref().map_or(Ok(()), check_partitions)?;
        }
        let mut images = vec![&self.image.name];
        for also in &self.also {
            if images.contains(&&also.image.name) {
                return Err(format!("image '{}' can be in it once only", also.image.name));
            }
            images.push(&also.image.name);
        }
        Ok(())
    }

    /// What a person gets who asks for an image on the agent's command line, outside any job.
    pub fn by_hand(image: ImageRef) -> Self {
        Job {
            name: "by-hand".into(),
            image,
            terminals: Terminals::These(Vec::new()),
            disk: internal(),
            layout: LayoutMode::WholeDisk,
            also: Vec::new(),
            partitions: None,
            compare: Compare::Auto,
            after: After::Reboot,
            verify: true,
            longest_stay: half_an_hour(),
        }
    }
}

/// One more image of a job, for another disk of the terminal.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Also {
    /// The image.
    pub image: ImageRef,
    /// Which disk: never left to chance.
    pub disk: String,
    /// New table, or the partitions that are there.
    #[serde(default)]
    pub layout: LayoutMode,
    /// Some partitions of the image only.
    #[serde(default)]
    pub partitions: Option<Vec<u32>>,
}

/// `NAME` (the version with the highest sequence) or `NAME@VERSION`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct ImageRef {
    /// The image.
    pub name: String,
    /// The version, or the newest.
    pub version: Option<String>,
}

impl std::str::FromStr for ImageRef {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, version) = match text.split_once('@') {
            Some((name, version)) => (name, Some(version)),
            None => (text, None),
        };
        if !is_plain_name(name) || !version.is_none_or(is_plain_name) {
            return Err(format!("'{text}' is not an image: use NAME or NAME@VERSION"));
        }
        Ok(ImageRef { name: name.into(), version: version.map(Into::into) })
    }
}

impl TryFrom<String> for ImageRef {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl std::fmt::Display for ImageRef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.version {
            Some(version) => write!(f, "{}@{version}", self.name),
            None => f.write_str(&self.name),
        }
    }
}

/// Whom a job is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Terminals {
    /// Every terminal.
    All,
    /// The ones named.
    These(Vec<TerminalKey>),
}

impl Terminals {
    /// Is this machine one of them?
    pub fn contain(&self, who: &Identity) -> bool {
        match self {
            Terminals::All => true,
            Terminals::These(keys) => keys.iter().any(|key| key.matches(who)),
        }
    }
}

impl<'de> Deserialize<'de> for Terminals {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Terminals;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("\"all\" or a list of MAC addresses and uuid:…")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Terminals, E> {
                match text {
                    "all" => Ok(Terminals::All),
                    other => Err(E::custom(format!(
                        "'{other}' is neither \"all\" nor a list like [\"52:54:00:12:34:56\"]"
                    ))),
                }
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Terminals, A::Error> {
                let mut keys = Vec::new();
                while let Some(key) = seq.next_element()? {
                    keys.push(key);
                }
                Ok(Terminals::These(keys))
            }
        }
        d.deserialize_any(Either)
    }
}

/// What is known of a terminal beforehand.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Note {
    /// What people call it.
    pub label: String,
}

/// A terminal that fetches from named ones only, across zones too.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PinConfig {
    /// Which one.
    pub terminal: Who,
    /// Whom it fetches from.
    pub from: Vec<Who>,
}

/// A terminal as people name it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(from = "String")]
pub enum Who {
    /// By its address.
    Address(IpAddr),
    /// By a MAC address or UUID.
    Key(TerminalKey),
    /// By what `[terminals]` calls it.
    Label(String),
}

impl From<String> for Who {
    fn from(text: String) -> Self {
        let address = text.parse().map(Who::Address).ok();
        address.or_else(|| text.parse().map(Who::Key).ok()).unwrap_or(Who::Label(text))
    }
}

/// How terminals boot.
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
    /// Usually.
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

impl Config {
    /// Reads the text of a configuration file. Errors name line and column.
    pub fn parse(text: &str) -> Result<Self, String> {
        let config: Config = toml::from_str(text).map_err(|e| e.to_string().trim_end().to_string())?;
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<(), String> {
        for (i, job) in self.jobs.iter().enumerate() {
            let name = &job.name;
            if !is_plain_name(name) {
                return Err(format!(
                    "job name '{name}' may have only letters, digits, '.', '_' and '-', and not begin with '.'"
                ));
            }
            if self.jobs[..i].iter().any(|other| other.name == *name) {
                return Err(format!("job '{name}' is there twice"));
            }
            job.check_disks().map_err(|e| format!("job '{name}': {e}"))?;
            if job.longest_stay > Duration::from_secs(24 * 3600) {
                return Err(format!("job '{name}' has a longest_stay of more than a day"));
            }
        }
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
        self.check_pins()?;
        Topology { zones: self.zones.clone(), ..Topology::default() }.check()
    }

    fn check_pins(&self) -> Result<(), String> {
        for (i, pin) in self.pins.iter().enumerate() {
            if pin.from.is_empty() || pin.from.len() > 16 || pin.from.contains(&pin.terminal) {
                return Err("a pin needs 1 to 16 other terminals to fetch from".into());
            }
            if self.pins[..i].iter().any(|other| other.terminal == pin.terminal) {
                return Err(format!("{:?} is pinned twice", pin.terminal));
            }
            for who in pin.from.iter().chain([&pin.terminal]) {
                if let Who::Label(label) = who
                    && !self.terminals.values().any(|note| note.label == *label)
                {
                    return Err(format!(
                        "a pin names '{label}', which is no address, no MAC address, no UUID and no label of a terminal"
                    ));
                }
            }
        }
        Ok(())
    }

    /// The job with this name.
    pub fn job(&self, name: &str) -> Option<&Job> {
        self.jobs.iter().find(|job| job.name == name)
    }

    /// The first job for this machine.
    pub fn job_for(&self, who: &Identity) -> Option<&Job> {
        self.jobs.iter().find(|job| job.terminals.contain(who))
    }

    /// What people call this machine.
    pub fn label(&self, who: &Identity) -> Option<&str> {
        let by_mac = who.macs.iter().find_map(|mac| self.terminals.get(&TerminalKey::Mac(*mac)));
        let by_uuid = || self.terminals.iter().find(|(key, _)| key.matches(who)).map(|(_, note)| note);
        by_mac.or_else(by_uuid).map(|note| note.label.as_str())
    }
}

/// Reads `90s`, `30min` or `2h`.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let unit = match text[digits..].trim() {
        "s" => 1,
        "min" => 60,
        "h" => 3600,
        _ => return Err(format!("'{text}' is not a duration: use 90s, 30min or 2h")),
    };
    let number: u64 = text[..digits].parse().map_err(|_| format!("'{text}' does not begin with a number"))?;
    number.checked_mul(unit).map(Duration::from_secs).ok_or_else(|| format!("'{text}' is too long"))
}

fn duration<'de, D: Deserializer<'de>>(d: D) -> Result<Duration, D::Error> {
    parse_duration(&String::deserialize(d)?).map_err(de::Error::custom)
}

fn internal() -> String {
    "internal".into()
}

fn yes() -> bool {
    true
}

fn half_an_hour() -> Duration {
    Duration::from_secs(30 * 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: &str = "52:54:00:12:34:56";

    #[test]
    fn the_printed_sample_is_a_configuration() {
        let config = Config::parse(SAMPLE).expect("sample");
        let who = Identity::new(&[MAC], None);
        assert_eq!(config.job_for(&who).map(|job| job.name.as_str()), Some("lab"));
        assert_eq!(config.label(&who), Some("lab-01"));
        assert_eq!(config.tracker, TrackerConfig::default());
        assert_eq!(config.compress, Compress::Auto);
        assert_eq!(Config::parse("compress = 'off'").expect("valid").compress, Compress::Off);
        assert_eq!((config.zones.len(), config.zones[0].links, config.pins.len()), (2, 2, 1));
        assert_eq!(config.jobs[0].longest_stay, Duration::from_secs(1800));
    }

    #[test]
    fn an_empty_file_assigns_nothing() {
        assert_eq!(Config::parse("").expect("empty"), Config::default());
    }

    #[test]
    fn the_first_job_that_names_a_terminal_counts() {
        let text = format!(
            "[[job]]\nname='one'\nimage='a@1'\nterminals=['{MAC}']\n[[job]]\nname='rest'\nimage='b'\nterminals='all'\n"
        );
        let config = Config::parse(&text).expect("valid");
        let name = |mac: &str| config.job_for(&Identity::new(&[mac], None)).map(|job| job.image.to_string());
        assert_eq!(name(MAC), Some("a@1".into()));
        assert_eq!(name("52:54:00:00:00:01"), Some("b".into()));
    }

    #[test]
    fn mistakes_are_named_with_their_line() {
        let job = |line: &str| format!("[[job]]\nname = 'x'\nimage = 'a'\nterminals = 'all'\n{line}\n");
        for (text, expected) in [
            (job("dsik = 'internal'"), "line 5"),
            (job("longest_stay = '30'"), "line 5"),
            (job("after = 'dance'"), "line 5"),
            (job("disk = 'the big one'"), "job 'x'"),
            (job("[[job.also]]\nimage = 'b'"), "missing field `disk`"),
            (job("[[job.also]]\nimage = 'b'\ndisk = 'the other one'"), "job 'x'"),
            (job("[[job.also]]\nimage = 'a'\ndisk = 'bus=nvme'"), "once only"),
            (job("partitions = []"), "job 'x'"),
            (job("partitions = [3, 1, 3]"), "partition 3 is named twice"),
            ("[[job]]\nname='x'\nimage='a'\nterminals='some'".into(), "line 4"),
            ("[[job]]\nname='x'\nimage='a/b'\nterminals='all'".into(), "line 3"),
            ("[[job]]\nname='x'\nimage='a'\nterminals=['12:34']".into(), "line 4"),
            ("colour = 'red'".into(), "line 1"),
            ("compress = 'a little'".into(), "line 1"),
            (job("") + &job(""), "twice"),
            ("[tracker]\ninterval='1s'\nyoung_interval='2s'".into(), "young_interval"),
            ("[tracker]\ninterval='999999999999999h'".into(), "not be more than 1h"),
            ("[terminals.'lab-01']\nlabel='x'".into(), "MAC"),
            ("[[zone]]\nname='a'\nnetworks=['10.0.0.0/33']".into(), "line 3"),
            ("[[pin]]\nterminal='10.0.0.1'\nfrom=['lab-09']".into(), "lab-09"),
            ("[[pin]]\nterminal='10.0.0.1'\nfrom=['10.0.0.1']".into(), "other terminals"),
            ("[[zone]]\nname='a'\nnetworks=['10.0.0.0/8']\nfrom=['b']".into(), "'b', which is no zone"),
        ] {
            let error = Config::parse(&text).expect_err(&text);
            assert!(error.contains(expected), "{text}\n{error}");
        }
    }

    #[test]
    fn durations_have_units() {
        assert_eq!(parse_duration("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(parse_duration("2 h"), Ok(Duration::from_secs(7200)));
        for bad in ["", "90", "s", "1d", "99999999999999999999h", "9999999999999999999h"] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
    }
}
