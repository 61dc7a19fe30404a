//! `flashmob job`: look at the lab's jobs and decide, through the server's API.

use clap::{Args, Subcommand};
use reqwest::Method;

use super::call::{ServerArg, ask, text_of, understand};
use super::table::table;
use crate::api::Compare;
use crate::event::Failure;
use crate::server::http::api::LabView;
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
    /// Let a terminal image itself again at its next network boot.
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
    /// Stop a terminal that images itself, or keep a waiting one from starting.
    Cancel {
        /// Label, MAC or UUID.
        terminal: String,
        #[command(flatten)]
        server: ServerArg,
    },
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

async fn list(server: &ServerArg, json: bool) -> Result<(), Failure> {
    let text = text_of(ask(server, Method::GET, &["api", "v1", "lab"], None).await?).await?;
    if json {
        println!("{text}");
        return Ok(());
    }
    print!("{}", lab_tables(&understand(&text)?));
    Ok(())
}

async fn decide(server: &ServerArg, terminal: &str, what: &str, query: &str) -> Result<(), Failure> {
    let path = ["api", "v1", "terminals", terminal, what];
    ask(server, Method::POST, &path, Some(query).filter(|query| !query.is_empty())).await.map(drop)
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

#[cfg(test)]
mod tests {
    use super::*;

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
