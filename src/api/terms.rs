//! An administrator's choices for a job: the same words in the configuration, on command lines and between
//! server and terminal.
//!
//! Invariant: every word is read as it is written, and an older program refuses a new word. `agent` acts on
//! them.

use serde::{Deserialize, Serialize};

/// Reads a list of partition numbers as people write it: `1,3`.
pub fn partition_numbers(text: &str) -> Result<Vec<u32>, String> {
    let numbers: Result<Vec<u32>, _> = text.split(',').map(|number| number.trim().parse()).collect();
    let numbers = numbers.map_err(|_| format!("'{text}' is not a list of partition numbers such as 1,3"))?;
    check_partitions(&numbers)?;
    Ok(numbers)
}

/// A choice of partitions must name at least one, and each only once.
pub fn check_partitions(numbers: &[u32]) -> Result<(), String> {
    let twice = numbers.iter().enumerate().find(|(i, number)| numbers[..*i].contains(number));
    match (numbers.is_empty(), twice) {
        (true, _) => Err("a choice of partitions must name one at least".into()),
        (_, Some((_, number))) => Err(format!("partition {number} is named twice")),
        _ => Ok(()),
    }
}

/// The choice whose word `text` is.
fn one_of<T: Copy>(text: &str, all: &[(&str, T)]) -> Result<T, String> {
    let found = all.iter().find(|(word, _)| *word == text).map(|(_, choice)| *choice);
    found.ok_or_else(|| {
        let words: Vec<&str> = all.iter().map(|(word, _)| *word).collect();
        format!("'{text}' is not one of {}", words.join(", "))
    })
}

/// How pieces already on a disk are found.
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Compare {
    /// Pieces of the image that are on the disk are found by their hashes and not fetched again.
    #[default]
    Auto,
    /// Everything is fetched and written.
    Full,
    /// The server's record of the disk is believed, and only differing pieces are fetched.
    Trust,
}

impl Compare {
    /// As people write it.
    pub fn word(self) -> &'static str {
        match self {
            Compare::Auto => "auto",
            Compare::Full => "full",
            Compare::Trust => "trust",
        }
    }
}

impl std::str::FromStr for Compare {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        one_of(text, &[Compare::Auto, Compare::Full, Compare::Trust].map(|mode| (mode.word(), mode)))
    }
}

/// Whether pieces travel compressed between flashmob peers.
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Compress {
    /// If the processor is fast enough for the link.
    #[default]
    Auto,
    /// Always.
    On,
    /// Never.
    Off,
}

impl std::str::FromStr for Compress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        one_of(text, &[("auto", Compress::Auto), ("on", Compress::On), ("off", Compress::Off)])
    }
}

/// Whether the disk's table is written.
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LayoutMode {
    /// The disk gets the image's table.
    #[default]
    WholeDisk,
    /// The table stays; partitions match by number, start, size and type.
    Keep,
}

/// A terminal's action when it has finished.
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum After {
    /// Restart by the firmware.
    #[default]
    Reboot,
    /// Switch off.
    Poweroff,
    /// Start the image's kernel directly; restart where that is refused.
    Kexec,
    /// Stay with a shell on the console.
    Shell,
}

impl std::str::FromStr for After {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let all = [
            ("reboot", After::Reboot),
            ("poweroff", After::Poweroff),
            ("kexec", After::Kexec),
            ("shell", After::Shell),
        ];
        one_of(text, &all)
    }
}
