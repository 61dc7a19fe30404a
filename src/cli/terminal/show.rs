//! `flashmob terminal show`: all that the server knows of one terminal.

use reqwest::Method;

use super::list::{place, state};
use crate::api::{AttemptView, NicInfo, TerminalDetails, TerminalView};
use crate::cli::call::{ServerArg, ask, text_of, understand};
use crate::cli::history;
use crate::cli::table::{local_second, table};
use crate::event::{Failure, Installed, Outcome};
use crate::layout::rule::describe;
use crate::units::show_bytes;

pub(super) async fn run(terminal: &str, server: &ServerArg, json: bool) -> Result<(), Failure> {
    let text = text_of(ask(server, Method::GET, &["api", "v1", "terminals", terminal], None).await?).await?;
    if json {
        println!("{text}");
        return Ok(());
    }
    let details: TerminalDetails = understand(&text)?;
    let attempts = history::attempts_of(server, &details.row.id).await?;
    print!("{}{attempts}", details_table(&details));
    Ok(())
}

/// A terminal's label and its name in calls.
fn title(terminal: &TerminalView) -> String {
    match &terminal.label {
        Some(label) => format!("{label} ({})", terminal.id),
        None => terminal.id.clone(),
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
    let own = row.macs.iter().filter(|mac| !terminal.claimed_macs.contains(mac)).map(String::as_str);
    add("MACs", own.collect::<Vec<_>>().join(", "));
    let claimed = terminal.claimed_macs.join(", ");
    add(
        "other MACs",
        claimed + if terminal.claimed_macs.is_empty() { "" } else { " (nobody has listed them)" },
    );
    add("UUID", row.uuid.clone().unwrap_or_default());
    add("room", row.room.clone().unwrap_or_default());
    add("seat", row.seat.clone().unwrap_or_default());
    add("groups", row.groups.join(", "));
    add("host name", row.hostname.clone().unwrap_or_default());
    add("address", place(row));
    add("switch", row.switch.clone().unwrap_or_default());
    let first = terminal.first_heard.as_deref().map(local_second);
    add("first heard", first.unwrap_or_else(|| first_heard(terminal).into()));
    let heard = terminal.last_heard.as_deref().zip(row.silent);
    add(
        "last heard",
        heard.map_or_else(|| "never".into(), |(when, ago)| format!("{}, {ago} s ago", local_second(when))),
    );
    add("netbooted", terminal.netbooted.as_deref().map(local_second).unwrap_or_default());
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
    add("reason", row.reason.clone().unwrap_or_default());
    add("capture", row.capture.clone().unwrap_or_default());
    terminal.installed.iter().for_each(|one| add("installed", installed(one)));
    if terminal.half_written {
        add("installed", "half a system, because an attempt did not finish".into());
    }
    terminal.attempt.iter().for_each(|attempt| add("last attempt", attempt_line(attempt)));
    add("result", result(row));
    add("system", row.system.clone().unwrap_or_default());
    let personal = terminal.attempt.as_ref().and_then(|attempt| attempt.personal.as_ref());
    let name = if personal.is_some_and(|one| one.as_is) { "growth" } else { "personalised" };
    personal.iter().flat_map(|one| &one.steps).for_each(|step| add(name, step.clone()));
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
    let ended = attempt.ended.as_deref().map(|ended| format!(", ended {}", local_second(ended)));
    let tries = (attempt.tries > 1).then(|| format!(", try {}", attempt.tries));
    format!(
        "number {}, job {}, {}, began {}{}{}{}",
        attempt.number,
        attempt.job,
        attempt.images,
        local_second(&attempt.started),
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
            "reason":"it failed 3 times",
            "half_written":false,"attempt":{"number":7,"job":"night","images":"debian@2",
                "started":"2026-11-28T19:00:00Z","heard":"2026-11-28T19:01:00Z","ended":null,"tries":2,
                "cancelled":false}}"#;
        let text = details_table(&understand(text).expect("details"));
        let began = local_second("2026-11-28T19:00:00Z");
        for line in [
            "terminal      lab-01 (02:00:00:00:00:0a)",
            "room          101",
            "seat          4",
            "groups        east, win",
            "host name     pc-1",
            "address       10.0.0.9 (room)",
            "first heard   not known",
            &format!("last heard    {}, 99 s ago", local_second("2026-11-28T20:00:00Z")),
            "machine       Dell [31m, serial number S1",
            "memory        8.0 GiB",
            "disk          sda, M, A,",
            "missing disk  sdb, B,",
            "network card  eth0, 02:00:00:00:00:0a, 1000 Mbit/s, e1000e, 10.0.0.9/24, at sw-1, port 7",
            "device        RAID controller 8086:9a0b at pci 0000:00:0e.0, no driver",
            "reason        it failed 3 times",
            "installed     partitions 1, 3 of debian@1 on sda",
            &format!("last attempt  number 7, job night, debian@2, began {began}, try 2"),
            "result        failed while fetching the image: writing sdb failed. Replace the disk. The",
        ] {
            assert!(text.lines().any(|shown| shown.starts_with(line)), "{line}\n{text}");
        }
    }
}
