//! `flashmob job` and `flashmob terminals`: look at the lab and decide, through the server's API.

use clap::{Args, Subcommand};

use super::call::{ServerArg, ask, text_of, understand};
use crate::api::{Compare, TerminalState, TerminalView};
use crate::event::{Failure, Outcome};
use crate::server::http::api::LabView;
use crate::server::http::metrics::word;
use crate::units::show_bytes;

/// Look at jobs, try failed terminals again.
#[derive(Debug, Args)]
pub struct JobArgs {
    #[command(subcommand)]
    command: JobCommand,
}

#[derive(Debug, Subcommand)]
enum JobCommand {
    /// Show jobs, their images, and problems.
    List {
        #[command(flatten)]
        server: ServerArg,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Let a terminal image itself again at its next network boot. Only on the server itself.
    Retry {
        /// Label, MAC or UUID.
        terminal: String,
        /// How pieces already on the disk are found, this once: auto, full or trust [default: from the job]
        #[arg(long, value_name = "HOW")]
        compare: Option<Compare>,
        /// The disks that the terminal has now are the ones that it should have, although some that it had
        /// are gone.
        #[arg(long)]
        accept_disks: bool,
        #[command(flatten)]
        server: ServerArg,
    },
    /// Stop a terminal that images itself, or keep a waiting one from starting. Only on the server itself.
    Cancel {
        /// Label, MAC or UUID.
        terminal: String,
        #[command(flatten)]
        server: ServerArg,
    },
}

/// Show every terminal.
#[derive(Debug, Args)]
pub struct TerminalsArgs {
    #[command(flatten)]
    server: ServerArg,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub async fn run(args: JobArgs) -> Result<(), Failure> {
    match args.command {
        JobCommand::List { server, json } => list(&server, json).await,
        JobCommand::Retry { terminal, compare, accept_disks, server } => {
            let compare = compare.map(|compare| format!("compare={}", compare.word()));
            let accept = accept_disks.then(|| "accept_disks=true".to_string());
            let query: Vec<String> = compare.into_iter().chain(accept).collect();
            decide(&server, &terminal, "retry", &query.join("&")).await?;
            println!("{terminal} images itself again at its next network boot.");
            Ok(())
        }
        JobCommand::Cancel { terminal, server } => {
            decide(&server, &terminal, "cancel", "").await?;
            println!("{terminal} is told to stop. 'flashmob job retry {terminal}' starts it again.");
            Ok(())
        }
    }
}

pub async fn run_terminals(args: TerminalsArgs) -> Result<(), Failure> {
    let text = text_of(ask(&args.server, "GET", &["api", "v1", "terminals"], None).await?).await?;
    if args.json {
        println!("{text}");
        return Ok(());
    }
    let mut terminals: Vec<TerminalView> = understand(&text)?;
    terminals.sort_by(|a, b| (&a.label, &a.id).cmp(&(&b.label, &b.id)));
    print!("{}", terminal_table(&terminals));
    Ok(())
}

async fn list(server: &ServerArg, json: bool) -> Result<(), Failure> {
    let text = text_of(ask(server, "GET", &["api", "v1", "lab"], None).await?).await?;
    if json {
        println!("{text}");
        return Ok(());
    }
    print!("{}", lab_tables(&understand(&text)?));
    Ok(())
}

async fn decide(server: &ServerArg, terminal: &str, what: &str, query: &str) -> Result<(), Failure> {
    let path = ["api", "v1", "terminals", terminal, what];
    ask(server, "POST", &path, Some(query).filter(|query| !query.is_empty())).await.map(drop)
}

fn terminal_table(terminals: &[TerminalView]) -> String {
    let mut rows = vec![
        ["TERMINAL", "STATE", "DONE", "IN", "OUT", "PEERS", "IMAGE", "ADDRESS", "NOTE"].map(String::from),
    ];
    for t in terminals {
        let p = t.progress.as_ref().filter(|_| t.silent < 10);
        let dash = || "-".to_string();
        let note = match &t.outcome {
            Some(Outcome::Failed { failure, .. }) => failure.message.clone(),
            Some(Outcome::Done { seconds, disk, warnings, .. }) => {
                let warnings: String =
                    warnings.iter().map(|warning| format!("; WARNING: {warning}")).collect();
                format!("{seconds} s, {disk}{warnings}")
            }
            None => p.map(|p| p.stage.title().to_string()).unwrap_or_default(),
        };
        let note = [note].into_iter().chain(t.notes.iter().cloned()).filter(|part| !part.is_empty());
        let note = note.collect::<Vec<_>>().join("; ");
        rows.push([
            t.label.clone().unwrap_or_else(|| t.id.clone()),
            word(t.state).to_string(),
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

fn zone_table(lab: &LabView) -> String {
    let mut rows = vec![["ZONE", "TERMINALS", "IMAGING", "GATEWAYS"].map(String::from)];
    for zone in &lab.zones {
        let counts = [zone.terminals, zone.imaging].map(|count| count.to_string());
        let [terminals, imaging] = counts;
        rows.push([zone.name.clone(), terminals, imaging, zone.gateways.join(", ")]);
    }
    table(&rows)
}

fn lab_tables(lab: &LabView) -> String {
    let mut jobs = vec![["JOB", "IMAGE", "MEANS", "COMPARE", "TERMINALS"].map(String::from)];
    for job in &lab.jobs {
        let mut means = job.means.clone().unwrap_or_else(|| "not in the repository".into());
        if let Some(partitions) = &job.partitions {
            let numbers: Vec<String> = partitions.iter().map(u32::to_string).collect();
            means += &format!(", partitions {}", numbers.join(", "));
        }
        let compare = job.compare.word().to_string();
        jobs.push([job.name.clone(), job.image.clone(), means, compare, job.terminals.to_string()]);
    }
    let mut images = vec![["IMAGE", "PAYLOAD", "FETCHING", "COMPLETE"].map(String::from)];
    for view in &lab.images {
        let size = show_bytes(view.image.bytes);
        images.push([
            view.image.id().to_string(),
            size,
            view.incomplete.to_string(),
            view.complete.to_string(),
        ]);
    }
    let mut text = table(&jobs) + "\n" + &table(&images);
    if !lab.zones.is_empty() {
        text += &format!("\n{}", zone_table(lab));
    }
    for problem in &lab.problems {
        text += &format!("\n{}: {}\n  {}\n", problem.what, problem.error, problem.advice);
    }
    text
}

/// Columns as wide as their widest cell. Control characters, which may come from a terminal, are left out.
fn table<const N: usize>(rows: &[[String; N]]) -> String {
    let clean: Vec<Vec<String>> =
        rows.iter().map(|row| row.iter().map(|cell| cell.replace(char::is_control, " ")).collect()).collect();
    let widths: Vec<usize> =
        (0..N).map(|i| clean.iter().map(|row| row[i].chars().count()).max().unwrap_or(0)).collect();
    let line = |row: &Vec<String>| {
        let cells: Vec<String> =
            row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        cells.join("  ").trim_end().to_string() + "\n"
    };
    clean.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_control_characters_do_not_reach_the_terminal() {
        let rows = [["A", "B"], ["long\u{1b}[31m", "x"]].map(|row| row.map(String::from));
        assert_eq!(table(&rows), "A          B\nlong [31m  x\n");
    }

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
    fn zones_and_their_gateways_are_shown_where_there_are_any() {
        let lab = |zones: &str| {
            let text = format!(r#"{{"version":"1","images":[],"jobs":[],"zones":[{zones}],"problems":[]}}"#);
            lab_tables(&serde_json::from_str(&text).expect("a lab"))
        };
        let zone = r#"{"name":"room","terminals":9,"imaging":8,"gateways":["lab-01","lab-02"]}"#;
        assert!(lab(zone).ends_with("room  9          8        lab-01, lab-02\n"), "{}", lab(zone));
        assert!(!lab("").contains("ZONE"));
    }
}
