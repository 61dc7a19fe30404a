//! `flashmob job`: create jobs, look at them, and decide, through the server's API.

use std::str::FromStr;

use clap::{Args, Subcommand};
use reqwest::Method;

use super::call::{Content, ServerArg, ask, json_of, send, text_of, understand};
use super::history;
use super::table::{local, table};
use super::terminal_decide;
use crate::api::{After, CancelJobs, Compare, JobDecided, LayoutMode, partition_numbers};
use crate::event::Failure;
use crate::server::domain::jobs::{JobOrder, JobPlan, JobView, Order, Overrun, Phase, Report};
use crate::server::http::api::LabView;
use crate::server::http::api::jobs::{Retried, Retry};
use crate::units::{parse_duration, show_bytes};

/// Image terminals: create jobs, look at them, cancel and retry.
#[derive(Debug, Args)]
pub struct JobArgs {
    #[command(subcommand)]
    command: JobCommand,
}

#[derive(Debug, Subcommand)]
enum JobCommand {
    /// Image terminals with an image, now or in a window. What is on their disks is lost.
    Create(Box<CreateArgs>),
    /// Show jobs, images, and problems.
    List {
        #[command(flatten)]
        server: ServerArg,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Show one job and its terminals, those that need a person first.
    Show {
        job: u64,
        #[command(flatten)]
        server: ServerArg,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Print how each terminal of a job ended.
    Report {
        job: u64,
        /// Print CSV.
        #[arg(long, conflicts_with = "json")]
        csv: bool,
        /// Print JSON.
        #[arg(long)]
        json: bool,
        /// An earlier run of a job with --every, counted from 1 [default: the latest].
        #[arg(long, value_name = "K", conflicts_with = "csv")]
        run: Option<u32>,
        #[command(flatten)]
        server: ServerArg,
    },
    /// End jobs: nobody begins any more, and those under way stop.
    Cancel {
        #[arg(required = true, value_name = "JOB")]
        jobs: Vec<u64>,
        #[command(flatten)]
        server: ServerArg,
    },
    /// Let terminals of a job begin again: those that have not succeeded, or the ones that are named.
    Retry {
        job: u64,
        /// Label, MAC, uuid:…, room:NAME, group:NAME, zone:NAME, new, all. A terminal that is done must be
        /// named by its label or MAC.
        #[arg(value_name = "TARGET")]
        targets: Vec<String>,
        /// How pieces already on the disk are found, this once: auto, full or trust [default: from the job]
        #[arg(long, value_name = "HOW")]
        compare: Option<Compare>,
        #[command(flatten)]
        server: ServerArg,
    },
}

#[derive(Debug, Args)]
struct CreateArgs {
    /// The image: NAME is the newest version as of now, NAME@VERSION exactly that one.
    image: String,
    /// The terminals: label, MAC, uuid:…, room:NAME, group:NAME, zone:NAME, new, all.
    #[arg(required = true)]
    targets: Vec<String>,
    /// When it opens: now, +2h, 22:00, "tomorrow 22:00", "2026-12-01 22:00" [default: now]
    #[arg(long, value_name = "TIME", conflicts_with = "every")]
    at: Option<String>,
    /// When it closes: 06:00, +8h, … Nobody begins when the rest is too short [default: 12 hours later]
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// Open again and again: "mon-fri 22:00", "daily 3:00". Needs --until.
    #[arg(long, value_name = "WHEN", requires = "until")]
    every: Option<String>,
    /// With --every: each run takes the newest version of the image.
    #[arg(long, requires = "every")]
    follow: bool,
    /// Switch the terminals on (Wake-on-LAN) when the job opens.
    #[arg(long)]
    wake: bool,
    /// Image at most so many terminals at a time.
    #[arg(long, value_name = "N")]
    wave: Option<u32>,
    /// Attempts of a terminal before it has failed [default: 3]
    #[arg(long, value_name = "N")]
    attempts: Option<u32>,
    /// What the end of the window does to terminals under way: finish, or stop.
    #[arg(long, value_name = "HOW", default_value = "finish", value_parser = Overrun::from_str)]
    overrun: Overrun,
    /// Which disk: a rule that exactly one disk of a terminal fits [default: internal]
    #[arg(long, value_name = "RULE")]
    disk: Option<String>,
    /// whole-disk, or keep: the table stays, and partitions must match.
    #[arg(long, value_name = "HOW", default_value = "whole-disk", value_parser = layout)]
    layout: LayoutMode,
    /// Only these partitions of the image, for example 1,3. The table and the others stay.
    #[arg(long, value_name = "LIST")]
    partitions: Option<String>,
    /// A further image for a further disk of the same terminals: IMAGE=RULE. IMAGE:keep=RULE is --layout keep
    /// for that disk, IMAGE:1,3=RULE is --partitions 1,3. All or nothing.
    #[arg(long, value_name = "IMAGE[:keep|:PARTITIONS]=RULE", value_parser = also)]
    also: Vec<Order>,
    /// How pieces already on the disk are found: auto, full or trust.
    #[arg(long, value_name = "HOW", default_value = "auto")]
    compare: Compare,
    /// Afterwards: reboot, poweroff, kexec or shell.
    #[arg(long, value_name = "WHAT", default_value = "reboot")]
    after: After,
    /// Do not check pieces as they arrive; the proof from the disk stays.
    #[arg(long)]
    no_verify: bool,
    /// Longest stay in the swarm after the own disk is done [default: 30min]
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    longest_stay: Option<std::time::Duration>,
    /// Use at most N Mbit/s of each terminal's link, each way, so that a class beside the job has a network
    /// [default: all of it]
    #[arg(long, value_name = "N", conflicts_with = "preflight")]
    limit_mbit: Option<u32>,
    /// Host names by rule: csv (the registered ones), or a pattern such as {room}-{seat:02}, {label}, {mac},
    /// {dns} (what DNS has for the terminal's address). A|B: B where A gives no name.
    #[arg(long, value_name = "RULE", conflicts_with_all = ["as_is", "preflight"])]
    hostname: Option<String>,
    /// Leave the image as it was captured: no file with the terminal's own name, room and ticket.
    #[arg(long)]
    as_is: bool,
    /// A word for people.
    #[arg(long, value_name = "TEXT", default_value = "")]
    note: String,
    /// Write nothing: the terminals are looked at (disk, link, firmware, clock, health) and boot back.
    #[arg(long)]
    preflight: bool,
    /// Create nothing: say what would happen, what would be lost and what is missing.
    #[arg(long)]
    dry_run: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: ServerArg,
}

fn layout(text: &str) -> Result<LayoutMode, String> {
    match text {
        "whole-disk" => Ok(LayoutMode::WholeDisk),
        "keep" => Ok(LayoutMode::Keep),
        _ => Err(format!("'{text}' is not one of whole-disk, keep")),
    }
}

fn also(text: &str) -> Result<Order, String> {
    let (image, disk) = text.split_once('=').ok_or("write IMAGE=RULE, for example data=bus=ata")?;
    let (image, how) = image.split_once(':').map_or((image, None), |(image, how)| (image, Some(how)));
    let (layout, partitions) = match how {
        None => (LayoutMode::WholeDisk, None),
        Some("keep") => (LayoutMode::Keep, None),
        Some(list) if list.starts_with(|c: char| c.is_ascii_digit()) => {
            (LayoutMode::Keep, Some(partition_numbers(list)?))
        }
        Some(how) => {
            return Err(format!(
                "'{how}' is neither keep nor a list of partitions, as in data:keep=bus=ata, data:1,3=bus=ata"
            ));
        }
    };
    Ok(Order { image: image.into(), disk: disk.into(), layout, partitions })
}

impl CreateArgs {
    fn order(&self) -> Result<JobOrder, Failure> {
        let partitions = self.partitions.as_deref().map(partition_numbers).transpose();
        let partitions = partitions.map_err(|e| Failure::usage(e, "For example --partitions 1,3."))?;
        Ok(JobOrder {
            image: self.image.clone(),
            targets: self.targets.clone(),
            at: self.at.clone(),
            until: self.until.clone(),
            every: self.every.clone(),
            follow: self.follow,
            wake: self.wake,
            wave: self.wave,
            attempts: self.attempts,
            overrun: self.overrun,
            disk: self.disk.clone(),
            layout: self.layout,
            partitions,
            also: self.also.clone(),
            compare: self.compare,
            after: self.after,
            verify: Some(!self.no_verify),
            longest_stay: self.longest_stay.map(|stay| stay.as_secs()),
            limit_mbit: self.limit_mbit,
            preflight: self.preflight,
            hostname: self.hostname.clone(),
            as_is: self.as_is,
            note: self.note.clone(),
            dry_run: self.dry_run,
        })
    }
}

pub async fn run(args: JobArgs) -> Result<(), Failure> {
    match args.command {
        JobCommand::Create(args) => create(&args).await,
        JobCommand::List { server, json } => list(&server, json).await,
        JobCommand::Report { job, server, json, run: Some(run), .. } => {
            history::print_run(&server, job, run, json).await
        }
        JobCommand::Show { job, server, json } | JobCommand::Report { job, server, json, csv: false, .. } => {
            let text = text_of(ask(&server, Method::GET, &path(job, &[]), None).await?).await?;
            match json {
                true => println!("{text}"),
                false => print!("{}", report_text(&understand(&text)?)),
            }
            Ok(())
        }
        JobCommand::Report { job, server, .. } => {
            let path = path(job, &["report.csv"]);
            print!("{}", text_of(ask(&server, Method::GET, &path, None).await?).await?);
            Ok(())
        }
        JobCommand::Cancel { jobs, server } => cancel(jobs, &server).await,
        JobCommand::Retry { job, targets, compare, server } => {
            let wish = Retry { targets, compare };
            let answer = send(&server, Method::POST, &path(job, &["retry"]), body(&wish)?).await?;
            let again: Retried = understand(&text_of(answer).await?)?;
            print!("{}", terminal_decide::lines(again.decided));
            println!("{} begin again when they boot from the network.", counted(again.terminals.len()));
            Ok(())
        }
    }
}

async fn cancel(jobs: Vec<u64>, server: &ServerArg) -> Result<(), Failure> {
    let path = ["api", "v1", "decisions", "cancel-jobs"];
    let answer = send(server, Method::POST, &path, body(&CancelJobs { jobs })?).await?;
    for JobDecided { job, changed, result, .. } in understand::<Vec<JobDecided>>(&text_of(answer).await?)? {
        let shows = format!("'flashmob job show {job}' shows where its terminals stand");
        match changed {
            true => println!("Job {job} {result}. {shows}."),
            false => println!("Job {job} is left as it is: {result}."),
        }
    }
    Ok(())
}

/// The address of a call about a job.
fn path(job: u64, more: &[&str]) -> Vec<String> {
    let job = job.to_string();
    ["api", "v1", "jobs", &job].iter().chain(more).map(ToString::to_string).collect()
}

fn body(value: &impl serde::Serialize) -> Result<(Content, Vec<u8>), Failure> {
    Ok((Content::Json, json_of(value)?))
}

fn counted(terminals: usize) -> String {
    match terminals {
        1 => "1 terminal".into(),
        n => format!("{n} terminals"),
    }
}

async fn create(args: &CreateArgs) -> Result<(), Failure> {
    let order = body(&args.order()?)?;
    let answer = send(&args.server, Method::POST, &["api", "v1", "jobs"], order).await?;
    let text = text_of(answer).await?;
    match args.json {
        true => println!("{text}"),
        false => print!("{}", plan_text(&understand(&text)?, args.dry_run)),
    }
    Ok(())
}

fn minutes(seconds: u64) -> String {
    match seconds.div_ceil(60) {
        min if min < 120 => format!("{min} min"),
        min => format!("{} h {} min", min / 60, min % 60),
    }
}

fn plan_text(plan: &JobPlan, dry_run: bool) -> String {
    let mut text = String::new();
    let all = counted(plan.terminals.len());
    match plan.number {
        Some(number) => text += &format!("Job {number}: {} for {all}\n", title(&plan.images, plan.preflight)),
        None if plan.preflight => text += &format!("Would look at {all} for {}\n", plan.images),
        None => text += &format!("Would image {all} with {}\n", plan.images),
    }
    text += &format!("Window: {}\n", plan.window);
    text += &format!("Forecast: {} for one, {} for all\n", minutes(plan.needs), minutes(plan.all));
    if dry_run {
        let mut rows = vec![["TERMINAL", "LOSES"].map(String::from)];
        for terminal in &plan.terminals {
            let name = terminal.label.clone().unwrap_or_else(|| terminal.id.clone());
            let named = terminal.hostname.as_ref().map(|name| format!(" (becomes {name})"));
            rows.push([name, format!("{}{}", terminal.loses, named.unwrap_or_default())]);
        }
        text += &format!("\n{}", table(&rows));
        for terminal in plan.terminals.iter().filter(|terminal| !terminal.files.is_empty()) {
            let name = terminal.label.as_ref().unwrap_or(&terminal.id);
            text += &format!("\n{name} gets {}\n", terminal.files.join(", "));
        }
    }
    for finding in &plan.findings {
        let what = finding.terminal.as_deref().unwrap_or("job");
        text += &format!("\n{what}: {}\n  {}\n", finding.error, finding.advice);
    }
    if dry_run {
        text += "\nNothing was created. Without --dry-run this creates the job.\n";
    } else {
        let number = plan.number.unwrap_or_default();
        text += "They begin when they boot from the network. ";
        text += &format!("'flashmob job show {number}' shows how far they are.\n");
    }
    text
}

async fn list(server: &ServerArg, json: bool) -> Result<(), Failure> {
    if json {
        println!("{}", text_of(ask(server, Method::GET, &["api", "v1", "jobs"], None).await?).await?);
        return Ok(());
    }
    let text = text_of(ask(server, Method::GET, &["api", "v1", "lab"], None).await?).await?;
    print!("{}", lab_tables(&understand(&text)?));
    Ok(())
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

/// The phase of a job in a word.
fn phase(job: &JobView) -> &'static str {
    match job.phase {
        _ if job.cancelled => "cancelled",
        Phase::Planned => "planned",
        Phase::Open => "open",
        Phase::Over if job.next.is_some() => "waits for the next run",
        Phase::Over => "over",
    }
}

fn counts(job: &JobView) -> String {
    let counts: Vec<String> = job.counts.iter().map(|(state, n)| format!("{n} {state}")).collect();
    counts.join(", ")
}

fn lab_tables(lab: &LabView) -> String {
    let mut jobs = vec![["JOB", "IMAGE", "FOR", "STATE", "OPENS", "CLOSES", "TERMINALS"].map(String::from)];
    for job in &lab.jobs {
        let every = job.every.as_ref().map(|every| format!(" ({every})")).unwrap_or_default();
        let state = format!("{}{every}", phase(job));
        let opens = local(job.next.filter(|_| job.phase == Phase::Over).unwrap_or(job.opens));
        let targets = job.targets.join(" ");
        let row = [
            job.number.to_string(),
            title(&job.images, job.preflight),
            targets,
            state,
            opens,
            local(job.closes),
            counts(job),
        ];
        jobs.push(row);
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

fn report_text(report: &Report) -> String {
    let job = &report.job;
    let (images, targets) = (title(&job.images, job.preflight), job.targets.join(" "));
    let mut text = format!("Job {}: {images} for {targets}, {}\n", job.number, phase(job));
    if !job.note.is_empty() {
        text += &format!("{}\n", job.note);
    }
    text += &format!("Window: {} to {}", local(job.opens), local(job.closes));
    if let Some(every) = &job.every {
        text += &format!(", run {} of {every}", job.run);
    }
    if let Some(limit) = job.limit_mbit {
        text += &format!("\nLimit: {limit} Mbit/s of each terminal's link, each way");
    }
    text += &format!("\nTerminals: {}\n\n", counts(job));
    let mut rows = vec![["TERMINAL", "STATE", "TRIES", "SINCE", "WHY"].map(String::from)];
    for row in &report.terminals {
        let name = row.label.clone().unwrap_or_else(|| row.terminal.clone());
        let state = row.state.word().to_string();
        let why = match &row.system {
            Some(system) if row.reason.is_empty() => system.clone(),
            _ => row.reason.clone(),
        };
        rows.push([name, state, row.tries.to_string(), local(row.since), why]);
    }
    text += &table(&rows);
    for row in &report.terminals {
        let name = row.label.as_ref().unwrap_or(&row.terminal);
        text.extend(row.findings.iter().map(|finding| format!("\n{name}: {finding}")));
    }
    if !text.ends_with('\n') {
        text.push('\n');
    }
    text
}

/// The images of a job, and that they are only for a preflight.
fn title(images: &str, preflight: bool) -> String {
    if preflight { format!("preflight of {images}") } else { images.into() }
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

    #[test]
    fn a_further_image_has_a_layout_or_partitions_of_its_own() {
        let read =
            |text: &str| also(text).map(|order| (order.image, order.layout, order.partitions, order.disk));
        let all = |image: &str, layout, partitions| Ok((image.into(), layout, partitions, "wwn=a:1".into()));
        assert_eq!(read("data=wwn=a:1"), all("data", LayoutMode::WholeDisk, None));
        assert_eq!(read("data@2:keep=wwn=a:1"), all("data@2", LayoutMode::Keep, None));
        assert_eq!(read("data:1,3=wwn=a:1"), all("data", LayoutMode::Keep, Some(vec![1, 3])));
        for (wrong, word) in [
            ("data", "IMAGE=RULE"),
            ("data:kept=bus=ata", "'kept' is neither keep"),
            ("data:=bus=ata", "neither keep"),
            ("data:1,1=bus=ata", "named twice"),
            ("data:1;3=bus=ata", "not a list"),
        ] {
            let error = read(wrong).expect_err(wrong);
            assert!(error.contains(word), "{wrong}: {error}");
        }
    }

    #[test]
    fn a_report_of_a_preflight_names_each_finding_with_its_remedy() {
        let text = r#"{"job":{"number":4,"images":"debian@1","preflight":true,"targets":["room:101"],
            "note":"","by":"administrator","created":"2026-11-28T10:00:00Z","phase":"over",
            "cancelled":false,"run":1,"opens":"2026-11-28T10:00:00Z","closes":"2026-11-28T22:00:00Z",
            "next":null,"every":null,"follow":false,"wave":null,"attempts":3,"wake":false,
            "overrun":"finish","needs":150,"counts":{"done":1}},
            "terminals":[{"terminal":"02:00:00:00:00:0a","label":"lab-01","state":"done",
            "reason":"the link of eth0 has 100 Mbit/s","tries":1,"attempt":9,
            "since":"2026-11-28T10:05:00Z","findings":[{"severity":"warning",
            "what":"the link of eth0 has 100 Mbit/s","advice":"Replace the cable."}]}]}"#;
        let text = report_text(&understand(text).expect("a report"));
        assert!(text.starts_with("Job 4: preflight of debian@1 for room:101, over\n"), "{text}");
        let finding = "\nlab-01: WARNING: the link of eth0 has 100 Mbit/s. Replace the cable.\n";
        assert!(text.ends_with(finding), "{text}");
    }
}
