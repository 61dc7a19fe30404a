//! `flashmob terminal list`: a line for each terminal.

use std::cmp::Ordering;

use clap::Args;
use reqwest::Method;

use crate::api::{TerminalState, TerminalView};
use crate::cli::call::{ServerArg, ask, query_of, text_of, understand};
use crate::cli::table::table;
use crate::event::{Failure, Outcome, worst};
use crate::server::domain::registry::natural;
use crate::units::show_bytes;

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

fn terminal_table(terminals: &[TerminalView]) -> String {
    let mut rows = vec![
        ["TERMINAL", "ROOM", "STATE", "DONE", "IN", "OUT", "PEERS", "IMAGE", "ADDRESS", "NOTE"]
            .map(String::from),
    ];
    for t in terminals {
        let p = t.progress.as_ref().filter(|_| t.silent.is_some_and(|silent| silent < 10));
        let dash = || "-".to_string();
        let note = match &t.outcome {
            // Its last attempt says less.
            _ if t.state == TerminalState::Waiting && t.reason.is_some() => {
                t.reason.clone().unwrap_or_default()
            }
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
pub(super) fn place(terminal: &TerminalView) -> String {
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
pub(super) fn state(terminal: &TerminalView) -> String {
    match (terminal.new, terminal.state) {
        (true, TerminalState::Idle) => "new".into(),
        (true, state) => format!("{} (new)", state.word()),
        (false, state) => state.word().into(),
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
        rows[0].state = TerminalState::Waiting;
        rows[0].reason = Some("DNS did not answer; asked again at 10:12:31".into());
        let text = terminal_table(&rows);
        assert!(text.lines().nth(1).is_some_and(|line| line.ends_with("asked again at 10:12:31")), "{text}");
        let words = |line: usize| {
            let words = text.lines().nth(line).unwrap_or_default().split_whitespace().take(3);
            words.collect::<Vec<_>>().join(" ")
        };
        assert_eq!((words(1), words(3)), ("lab-2 101/4 waiting".into(), "02:00:00:00:00:9f /4 new".into()));
    }
}
