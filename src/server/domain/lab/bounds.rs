//! Limits on terminals' reports: none can fill the memory, the database or the page.
//!
//! Invariant: every result is short and has finite numbers; long words and lists are cut, never refused. No
//! sentence has control characters, because people read it in a terminal and in the log. The words by which
//! agents know a disk again stay as they are.

use crate::api::{DeviceInfo, Inventory};
use crate::boot::start;
use crate::event::{CheckFact, CheckFinding, Chosen, DiskIdentity, Failure, Installed, Outcome, Progress};
use crate::image_id::ImageId;

/// Longest word from a terminal (model, serial number).
pub(super) const MAX_WORD: usize = 200;
/// Longest sentence from a terminal (error, advice).
const MAX_SENTENCE: usize = 2000;
/// Most disks or interfaces of one terminal.
pub(super) const MAX_PARTS: usize = 64;
/// Most warnings of one attempt.
const MAX_WARNINGS: usize = 16;
/// Most partitions that one attempt names.
const MAX_PARTITIONS: usize = 256;

pub(super) fn word(text: String) -> String {
    cut(text, MAX_WORD)
}

/// Words that a stranger may have written: short, on one line.
pub(crate) fn line(text: String) -> String {
    word(text).trim().into()
}

/// A terminal's words, without what would look like more lines of a log, as long as a sentence at most.
pub(crate) fn sentence(text: &str) -> String {
    cut(text.into(), MAX_SENTENCE)
}

/// A list of sentences.
pub(super) fn sentences(mut list: Vec<String>) -> Vec<String> {
    list.truncate(MAX_WARNINGS);
    list.into_iter().map(|text| cut(text, MAX_SENTENCE)).collect()
}

/// On one line.
fn cut(text: String, limit: usize) -> String {
    shortened(if text.contains(char::is_control) { text.replace(char::is_control, " ") } else { text }, limit)
}

fn shortened(text: String, limit: usize) -> String {
    if text.len() <= limit { text } else { text.chars().take(limit).collect() }
}

/// A terminal's hardware, cut to the limits.
pub(super) fn inventory(mut inventory: Inventory) -> Inventory {
    inventory.disks.truncate(MAX_PARTS);
    inventory.nics.truncate(MAX_PARTS);
    inventory.devices.truncate(MAX_PARTS);
    let shorten = |text: &mut String| *text = cut(std::mem::take(text), MAX_WORD);
    let keep = |text: &mut String| *text = shortened(std::mem::take(text), MAX_WORD);
    [&mut inventory.machine, &mut inventory.cpu, &mut inventory.firmware].into_iter().for_each(shorten);
    inventory.serial.iter_mut().for_each(shorten);
    for disk in &mut inventory.disks {
        [&mut disk.name, &mut disk.bus, &mut disk.path].into_iter().for_each(keep);
        [&mut disk.model, &mut disk.serial, &mut disk.wwn].into_iter().flatten().for_each(keep);
    }
    for DeviceInfo { bus, address, id, class, driver, modalias } in &mut inventory.devices {
        [bus, address, id, class, modalias].into_iter().chain(driver).for_each(shorten);
    }
    for nic in &mut inventory.nics {
        [&mut nic.name, &mut nic.mac].into_iter().for_each(shorten);
        [&mut nic.driver, &mut nic.address].into_iter().flatten().for_each(shorten);
        if let Some(switch) = &mut nic.neighbour {
            [&mut switch.chassis, &mut switch.port].into_iter().chain(&mut switch.name).for_each(shorten);
        }
    }
    inventory
}

/// How far an attempt is.
pub(super) fn progress(mut progress: Progress) -> Progress {
    progress.percent = if progress.percent.is_finite() { progress.percent.clamp(0.0, 100.0) } else { 0.0 };
    progress
}

/// Which disks rules chose.
pub(super) fn chosen(mut chosen: Vec<Chosen>) -> Vec<Chosen> {
    chosen.truncate(MAX_PARTS);
    let shorten = |text: &mut String| *text = shortened(std::mem::take(text), MAX_WORD);
    for Chosen { rule, disk, identity: DiskIdentity { serial, wwn, path, size: _ } } in &mut chosen {
        [rule, disk, path].into_iter().chain(serial).chain(wwn).for_each(shorten);
    }
    chosen
}

/// How an attempt ended.
pub(super) fn outcome(outcome: Outcome) -> Outcome {
    match outcome {
        Outcome::Done { seconds, bytes_in, bytes_out, disk, mut installed, mut warnings } => {
            installed.truncate(MAX_PARTS);
            for Installed { id: ImageId { name, version }, disk, partitions, starts, personalised: _ } in
                &mut installed
            {
                *starts = start::checked(std::mem::take(starts));
                partitions.iter_mut().for_each(|partitions| partitions.truncate(MAX_PARTITIONS));
                [name, version, disk]
                    .into_iter()
                    .for_each(|text| *text = cut(std::mem::take(text), MAX_WORD));
            }
            warnings.truncate(MAX_WARNINGS);
            warnings.iter_mut().for_each(|text| *text = cut(std::mem::take(text), MAX_SENTENCE));
            Outcome::Done { seconds, bytes_in, bytes_out, disk: cut(disk, MAX_WORD), installed, warnings }
        }
        Outcome::Checked { seconds, mut findings, mut facts } => {
            findings.sort_by_key(|finding| finding.severity);
            findings.truncate(MAX_WARNINGS);
            for CheckFinding { what, advice, .. } in &mut findings {
                [what, advice].into_iter().for_each(|text| *text = cut(std::mem::take(text), MAX_SENTENCE));
            }
            facts.truncate(MAX_PARTS);
            for CheckFact { name, value } in &mut facts {
                [name, value].into_iter().for_each(|text| *text = cut(std::mem::take(text), MAX_WORD));
            }
            Outcome::Checked { seconds, findings, facts }
        }
        Outcome::Failed { stage, failure: Failure { class, message, advice }, disk_touched } => {
            let failure =
                Failure { class, message: cut(message, MAX_SENTENCE), advice: cut(advice, MAX_SENTENCE) };
            Outcome::Failed { stage, failure, disk_touched }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::DiskInfo;
    use crate::event::{Class, Stage};

    #[test]
    fn no_sentence_of_a_terminal_moves_a_cursor_or_begins_a_line() {
        let nasty = || "a\u{1b}[2J\nb\u{9b}1m".to_string();
        let calm = "a [2J b 1m";
        let failure = Failure::new(Class::Disk, nasty(), nasty());
        let failed = Outcome::Failed { stage: Stage::Fetch, failure, disk_touched: true };
        let Outcome::Failed { failure, .. } = outcome(failed) else { panic!("it failed") };
        assert_eq!((failure.message.as_str(), failure.advice.as_str()), (calm, calm));
        assert_eq!((sentence(&nasty()).as_str(), line(nasty()).as_str()), (calm, calm));
        assert_eq!(sentences(vec![nasty()]), [calm]);
        let disk = DiskInfo { serial: Some(nasty()), ..DiskInfo::default() };
        let said = Inventory { machine: nasty(), disks: vec![disk], ..Inventory::default() };
        let kept = inventory(said);
        assert_eq!(kept.machine, calm);
        assert_eq!(kept.disks[0].serial, Some(nasty()), "the agent compares it");
    }
}
