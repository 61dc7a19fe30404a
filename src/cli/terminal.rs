//! `flashmob terminal` and its short form `flashmob terminals`: look at terminals, wake and forget them.

use std::cmp::Ordering;

use clap::{Args, Subcommand};
use reqwest::Method;

use super::call::{ServerArg, ask, query_of, text_of, understand};
use super::history;
use super::table::table;
use super::terminal_decide::{self, CancelArgs, ForgetArgs, RetryArgs};
use super::terminal_log::{self, LogArgs};
use super::terminal_registry::{self, ExportArgs, ImportArgs, SetArgs};
use super::terminal_wake::{self, WakeArgs};
use crate::api::{AttemptView, NicInfo, TerminalDetails, TerminalState, TerminalView};
use crate::event::{Failure, Installed, Outcome, worst};
use crate::layout::rule::describe;
use crate::server::domain::registry::natural;
use crate::units::show_bytes;

/// Look at terminals, their hardware and their last attempt; wake them; forget those that are gone.
#[derive(Debug, Args)]
pub struct TerminalArgs {
    #[command(subcommand)]
    command: TerminalCommand,
}

#[derive(Debug, Subcommand)]
enum TerminalCommand {
    /// Show every terminal.
    List(TerminalsArgs),
    /// Show all that the server knows of one terminal: names, hardware, what is installed, the last attempts.
    Show {
        /// Label, MAC, or UUID as uuid:4c4c4544-….
        terminal: String,
        #[command(flatten)]
        server: ServerArg,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    Set(SetArgs),
    Import(ImportArgs),
    Export(ExportArgs),
    /// Let a terminal that starts from a stick speak to the server once more, within 15 minutes. One that
    /// starts from the network needs no such word.
    Admit {
        /// Label, MAC, or UUID as uuid:4c4c4544-….
        terminal: String,
        #[command(flatten)]
        server: ServerArg,
    },
    Log(LogArgs),
    Wake(WakeArgs),
    Retry(RetryArgs),
    Cancel(CancelArgs),
    Forget(ForgetArgs),
}

/// Show every terminal: the same as 'flashmob terminal list'.
#[derive(Debug, Args)]
pub struct TerminalsArgs {
    /// Only those of this room.
    #[arg(long, value_name = "NAME")]
    room: Option<String>,
    /// Only those of this group, given to them or configured.
    #[arg(long, value_name = "NAME")]
    group: Option<String>,
    /// Only those that no person has registered.
    #[arg(long)]
    new: bool,
    #[command(flatten)]
    server: ServerArg,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub async fn run(args: TerminalArgs) -> Result<(), Failure> {
    match args.command {
        TerminalCommand::List(args) => list(args).await,
        TerminalCommand::Show { terminal, server, json } => {
            let text =
                text_of(ask(&server, Method::GET, &["api", "v1", "terminals", &terminal], None).await?)
                    .await?;
            match json {
                true => println!("{text}"),
                false => {
                    let details: TerminalDetails = understand(&text)?;
                    let attempts = history::attempts_of(&server, &details.row.id).await?;
                    print!("{}{attempts}", details_table(&details));
                }
            }
            Ok(())
        }
        TerminalCommand::Set(args) => terminal_registry::set(args).await,
        TerminalCommand::Import(args) => terminal_registry::import(args).await,
        TerminalCommand::Export(args) => terminal_registry::export(args).await,
        TerminalCommand::Admit { terminal, server } => {
            let path = ["api", "v1", "terminals", &terminal, "admit"];
            ask(&server, Method::POST, &path, None).await?;
            println!("{terminal} may introduce itself within 15 minutes, without a ticket.");
            Ok(())
        }
        TerminalCommand::Log(args) => terminal_log::run(args).await,
        TerminalCommand::Wake(args) => terminal_wake::run(args).await,
        TerminalCommand::Retry(args) => terminal_decide::retry(args).await,
        TerminalCommand::Cancel(args) => terminal_decide::cancel(args).await,
        TerminalCommand::Forget(args) => terminal_decide::forget(args).await,
    }
}

pub async fn list(args: TerminalsArgs) -> Result<(), Failure> {
    let named = [("room", args.room.as_deref()), ("group", args.group.as_deref())];
    let named = named.into_iter().chain([("new", args.new.then_some("true"))]);
    let query = query_of(named.filter_map(|(name, value)| Some((name, value?))));
    let path = ["api", "v1", "terminals"];
    let text = text_of(ask(&args.server, Method::GET, &path, query.as_deref()).await?).await?;
    if args.json {
        println!("{text}");
        return Ok(());
    }
    let mut terminals: Vec<TerminalView> = understand(&text)?;
    terminals.sort_by(as_people_count);
    print!("{}", terminal_table(&terminals));
    Ok(())
}

/// Labels first, lab-2 before lab-10; then MACs as numbers, which is the order of their texts.
fn as_people_count(a: &TerminalView, b: &TerminalView) -> Ordering {
    let labels = match (&a.label, &b.label) {
        (Some(a), Some(b)) => natural(a, b),
        (a, b) => a.is_none().cmp(&b.is_none()),
    };
    labels.then_with(|| (a.macs.first(), &a.id).cmp(&(b.macs.first(), &b.id)))
}

/// A terminal's label and its name in calls.
fn title(terminal: &TerminalView) -> String {
    match &terminal.label {
        Some(label) => format!("{label} ({})", terminal.id),
        None => terminal.id.clone(),
    }
}

fn terminal_table(terminals: &[TerminalView]) -> String {
    let mut rows = vec![
        ["TERMINAL", "ROOM", "STATE", "DONE", "IN", "OUT", "PEERS", "IMAGE", "ADDRESS", "NOTE"]
            .map(String::from),
    ];
    for t in terminals {
        let p = t.progress.as_ref().filter(|_| t.silent.is_some_and(|silent| silent < 10));
        let dash = || "-".to_string();
        let note = match &t.outcome {
            Some(Outcome::Failed { failure, .. }) => failure.message.clone(),
            Some(Outcome::Done { seconds, disk, warnings, .. }) => {
                let warnings: String =
                    warnings.iter().map(|warning| format!("; WARNING: {warning}")).collect();
                let system = t.system.as_ref().filter(|system| *system != "imaged");
                let system = system.map(|system| format!("{system}; ")).unwrap_or_default();
                format!("{system}{seconds} s, {disk}{warnings}")
            }
            Some(Outcome::Checked { findings, .. }) => match worst(findings) {
                Some(finding) => finding.to_string(),
                None => "checked".into(),
            },
            None => p.map(|p| p.stage.title().to_string()).unwrap_or_default(),
        };
        let note = t
            .capture
            .iter()
            .cloned()
            .chain([note])
            .chain(t.notes.iter().cloned())
            .filter(|part| !part.is_empty());
        let note = note.collect::<Vec<_>>().join("; ");
        rows.push([
            t.label.clone().unwrap_or_else(|| t.id.clone()),
            seat(t).unwrap_or_else(dash),
            state(t),
            match (t.state, &t.progress) {
                (TerminalState::Done, _) => "100 %".into(),
                (_, Some(p)) => format!("{:.0} %", p.percent),
                (_, None) => dash(),
            },
            p.map_or_else(dash, |p| format!("{}/s", show_bytes(p.rate_in))),
            p.map_or_else(dash, |p| format!("{}/s", show_bytes(p.rate_out))),
            p.map_or_else(dash, |p| p.peers.to_string()),
            t.image.clone().unwrap_or_else(dash),
            place(t),
            note,
        ]);
    }
    table(&rows)
}

/// Its address and zone.
fn place(terminal: &TerminalView) -> String {
    let address = terminal.address.as_deref().unwrap_or("-");
    match &terminal.zone {
        Some(zone) if terminal.gateway => format!("{address} (gateway of {zone})"),
        Some(zone) => format!("{address} ({zone})"),
        None => address.to_owned(),
    }
}

/// Its room and seat.
fn seat(terminal: &TerminalView) -> Option<String> {
    match (&terminal.room, &terminal.seat) {
        (Some(room), Some(seat)) => Some(format!("{room}/{seat}")),
        (Some(room), None) => Some(room.clone()),
        (None, seat) => seat.as_ref().map(|seat| format!("/{seat}")),
    }
}

/// Its state, and whether it is new.
fn state(terminal: &TerminalView) -> String {
    match (terminal.new, terminal.state) {
        (true, TerminalState::Idle) => "new".into(),
        (true, state) => format!("{} (new)", state.word()),
        (false, state) => state.word().into(),
    }
}

fn details_table(terminal: &TerminalDetails) -> String {
    let TerminalDetails { row, inventory, .. } = terminal;
    let mut rows: Vec<[String; 2]> = Vec::new();
    let mut add = |name: &str, value: String| {
        if !value.is_empty() {
            rows.push([name.into(), value]);
        }
    };
    add("terminal", title(row));
    row.notes.iter().for_each(|note| add("note", note.clone()));
    add("MACs", row.macs.join(", "));
    add("UUID", row.uuid.clone().unwrap_or_default());
    add("room", row.room.clone().unwrap_or_default());
    add("seat", row.seat.clone().unwrap_or_default());
    add("groups", row.groups.join(", "));
    add("host name", row.hostname.clone().unwrap_or_default());
    add("address", place(row));
    add("switch", row.switch.clone().unwrap_or_default());
    add("first heard", terminal.first_heard.clone().unwrap_or_else(|| first_heard(terminal).into()));
    let heard = terminal.last_heard.as_ref().zip(row.silent);
    add("last heard", heard.map_or_else(|| "never".into(), |(when, ago)| format!("{when}, {ago} s ago")));
    add("agent", terminal.agent.clone());
    let serial = inventory.serial.iter().map(|serial| format!(", serial number {serial}"));
    add("machine", inventory.machine.clone() + &serial.collect::<String>());
    add("processor", inventory.cpu.clone());
    add("memory", Some(inventory.memory).filter(|bytes| *bytes > 0).map(show_bytes).unwrap_or_default());
    add("firmware", inventory.firmware.clone());
    inventory.disks.iter().for_each(|disk| add("disk", describe(disk)));
    terminal.missing_disks.iter().for_each(|disk| add("missing disk", describe(disk)));
    inventory.nics.iter().for_each(|nic| add("network card", card(nic)));
    inventory.devices.iter().for_each(|device| add("device", device.to_string()));
    add("state", state(row));
    add("capture", row.capture.clone().unwrap_or_default());
    terminal.installed.iter().for_each(|one| add("installed", installed(one)));
    if terminal.half_written {
        add("installed", "half a system, because an attempt did not finish".into());
    }
    terminal.attempt.iter().for_each(|attempt| add("last attempt", attempt_line(attempt)));
    add("result", result(row));
    add("system", row.system.clone().unwrap_or_default());
    let personal = terminal.attempt.as_ref().and_then(|attempt| attempt.personal.as_ref());
    personal.iter().flat_map(|one| &one.steps).for_each(|step| add("personalised", step.clone()));
    personal.iter().flat_map(|one| &one.problems).for_each(|why| add("WARNING", why.clone()));
    if let Some(Outcome::Checked { facts, .. }) = &row.outcome {
        facts.iter().for_each(|fact| add("checked", format!("{}: {}", fact.name, fact.value)));
    }
    table(&rows)
}

/// Why there is no time at which it was first heard.
fn first_heard(terminal: &TerminalDetails) -> &'static str {
    if terminal.last_heard.is_some() { "not known" } else { "never" }
}

fn card(nic: &NicInfo) -> String {
    let link = match (nic.link, nic.speed) {
        (false, _) => "no link".to_string(),
        (true, None) => "link".into(),
        (true, Some(speed)) => format!("{speed} Mbit/s"),
    };
    let switch = nic.neighbour.as_ref().map(|switch| {
        format!("at {}, port {}", switch.name.as_ref().unwrap_or(&switch.chassis), switch.port)
    });
    let parts = [Some(nic.name.clone()), Some(nic.mac.clone()), Some(link), nic.driver.clone()];
    let parts = parts.into_iter().chain([nic.address.clone(), switch]).flatten();
    parts.collect::<Vec<_>>().join(", ")
}

fn installed(one: &Installed) -> String {
    let partitions = one.partitions.as_ref().map(|numbers| {
        let numbers: Vec<String> = numbers.iter().map(u32::to_string).collect();
        format!("partitions {} of ", numbers.join(", "))
    });
    format!("{}{} on {}", partitions.unwrap_or_default(), one.id, one.disk)
}

fn attempt_line(attempt: &AttemptView) -> String {
    let ended = attempt.ended.as_ref().map(|ended| format!(", ended {ended}"));
    let tries = (attempt.tries > 1).then(|| format!(", try {}", attempt.tries));
    format!(
        "number {}, job {}, {}, began {}{}{}{}",
        attempt.number,
        attempt.job,
        attempt.images,
        attempt.started,
        ended.unwrap_or_default(),
        tries.unwrap_or_default(),
        if attempt.cancelled { ", cancelled" } else { "" },
    )
}

fn result(row: &TerminalView) -> String {
    match (&row.outcome, &row.progress) {
        (Some(outcome), _) => outcome.title(),
        (None, Some(progress)) => format!("{}, {:.0} %", progress.stage.title(), progress.percent),
        (None, None) => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_that_shares_its_uuid_has_a_note() {
        let row = r#"[{"id":"02:00:00:00:00:0a","label":null,"macs":[],"uuid":null,"address":null,
            "machine":"",
            "state":"idle","image":null,"progress":null,"outcome":null,"silent":99,
            "notes":["shares its UUID with 02:00:00:00:00:0b; tell them apart by MAC"]}]"#;
        let text = terminal_table(&serde_json::from_str::<Vec<TerminalView>>(row).expect("a row"));
        assert!(text.contains("-        shares its UUID with 02:00:00:00:00:0b; tell"), "{text}");
    }

    #[test]
    fn terminals_are_in_the_order_in_which_people_count() {
        let row = |id: &str, label: Option<&str>| -> TerminalView {
            let row = serde_json::json!({
                "id": id, "label": label, "macs": [id], "uuid": null, "address": null, "machine": "",
                "state": "idle", "image": null, "progress": null, "outcome": null, "silent": null,
                "new": label.is_none(), "room": label.map(|_| "101"), "seat": "4"
            });
            serde_json::from_value(row).expect("a row")
        };
        let mut rows = vec![
            row("02:00:00:00:00:a0", None),
            row("02:00:00:00:00:9f", None),
            row("02:00:00:00:00:01", Some("lab-10")),
            row("02:00:00:00:00:02", Some("lab-2")),
        ];
        rows.sort_by(as_people_count);
        let order: Vec<&str> = rows.iter().map(|row| row.label.as_deref().unwrap_or(&row.id)).collect();
        assert_eq!(order, ["lab-2", "lab-10", "02:00:00:00:00:9f", "02:00:00:00:00:a0"]);
        let text = terminal_table(&rows);
        let words = |line: usize| {
            let words = text.lines().nth(line).unwrap_or_default().split_whitespace().take(3);
            words.collect::<Vec<_>>().join(" ")
        };
        assert_eq!((words(1), words(3)), ("lab-2 101/4 idle".into(), "02:00:00:00:00:9f /4 new".into()));
    }

    #[test]
    fn one_terminal_is_shown_with_its_hardware_its_images_and_its_last_attempt() {
        let text = r#"{"id":"02:00:00:00:00:0a","label":"lab-01","macs":["02:00:00:00:00:0a"],"uuid":null,
            "address":"10.0.0.9","machine":"Dell","state":"failed","image":"debian@2","progress":null,
            "outcome":{"result":"failed","stage":"fetch","disk_touched":true,
                "failure":{"class":"disk","message":"writing sdb failed","advice":"Replace the disk."}},
            "silent":99,"zone":"room","room":"101","seat":"4","groups":["east","win"],
            "hostname":"pc-1","agent":"0.2.0","first_heard":null,"last_heard":"2026-11-28T20:00:00Z",
            "inventory":{"machine":"Dell\u001b[31m","serial":"S1","cpu":"4 cores","memory":8589934592,
                "firmware":"uefi","disks":[{"name":"sda","size":1000000000,"sector_size":512,"model":"M",
                "serial":"A","wwn":null,"bus":"ata","path":"p","rotational":false,"removable":false,
                "read_only":false}],"nics":[{"name":"eth0","mac":"02:00:00:00:00:0a","driver":"e1000e",
                "link":true,"speed":1000,"address":"10.0.0.9/24",
                "neighbour":{"chassis":"c","port":"7","name":"sw-1"}}],
                "devices":[{"bus":"pci","address":"0000:00:0e.0","id":"8086:9a0b","class":"010400",
                "driver":null,"modalias":"pci:v00008086d00009A0B"}]},
            "missing_disks":[{"name":"sdb","size":1000000000,"sector_size":512,"model":null,"serial":"B",
                "wwn":null,"bus":"ata","path":"p","rotational":true,"removable":false,"read_only":false}],
            "installed":[{"image":"debian","version":"1","disk":"sda","partitions":[1,3]}],
            "half_written":false,"attempt":{"number":7,"job":"night","images":"debian@2",
                "started":"2026-11-28T19:00:00Z","heard":"2026-11-28T19:01:00Z","ended":null,"tries":2,
                "cancelled":false}}"#;
        let text = details_table(&understand(text).expect("details"));
        for line in [
            "terminal      lab-01 (02:00:00:00:00:0a)",
            "room          101",
            "seat          4",
            "groups        east, win",
            "host name     pc-1",
            "address       10.0.0.9 (room)",
            "first heard   not known",
            "last heard    2026-11-28T20:00:00Z, 99 s ago",
            "machine       Dell [31m, serial number S1",
            "memory        8.0 GiB",
            "disk          sda, M, A,",
            "missing disk  sdb, B,",
            "network card  eth0, 02:00:00:00:00:0a, 1000 Mbit/s, e1000e, 10.0.0.9/24, at sw-1, port 7",
            "device        RAID controller 8086:9a0b at pci 0000:00:0e.0, no driver",
            "installed     partitions 1, 3 of debian@1 on sda",
            "last attempt  number 7, job night, debian@2, began 2026-11-28T19:00:00Z, try 2",
            "result        failed while fetching the image: writing sdb failed. Replace the disk. The",
        ] {
            assert!(text.lines().any(|shown| shown.starts_with(line)), "{line}\n{text}");
        }
    }
}
