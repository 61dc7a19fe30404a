//! `flashmob job create`: the options of a new job, and what the server answers to them.

use std::str::FromStr;

use clap::Args;
use jiff::tz::TimeZone;
use reqwest::Method;

use super::words::{body, counted, title};
use crate::api::{After, Compare, LayoutMode, partition_numbers};
use crate::cli::call::{ServerArg, send, text_of, understand};
use crate::cli::table::table;
use crate::event::Failure;
use crate::server::domain::jobs::{Finding, JobOrder, JobPlan, Order, Overrun};
use crate::server::domain::lab::first_of;
use crate::server::domain::times::window;
use crate::units::parse_duration;

#[derive(Debug, Args)]
pub(super) struct CreateArgs {
    /// The image: NAME is the newest version as of now, NAME@VERSION exactly that one.
    image: String,
    /// The terminals: label, MAC, uuid:…, room:NAME, group:NAME, zone:NAME, new, all.
    #[arg(required = true)]
    targets: Vec<String>,
    /// When it opens: now, +2h, 22:00, "tomorrow 22:00", "2026-12-01 22:00" [default: now]
    #[arg(long, value_name = "TIME", conflicts_with = "every", allow_hyphen_values = true)]
    at: Option<String>,
    /// When it closes: 06:00, +8h, … Nobody begins when the rest is too short [default: 12 hours later]
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
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
    /// Image at most this many terminals at a time.
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
    /// Longest stay in the swarm after its own disk is done [default: 30min]
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

pub(super) async fn create(args: &CreateArgs) -> Result<(), Failure> {
    let order = body(&args.order()?)?;
    let answer = send(&args.server, Method::POST, &["api", "v1", "jobs"], order).await?;
    let text = text_of(answer).await?;
    match args.json {
        true => println!("{text}"),
        false => print!("{}", plan_text(&understand(&text)?, args.dry_run, &TimeZone::system())),
    }
    Ok(())
}

fn minutes(seconds: u64) -> String {
    match seconds.div_ceil(60) {
        min if min < 120 => format!("{min} min"),
        min => format!("{} h {} min", min / 60, min % 60),
    }
}

/// Terminals that a finding names.
const NAMED: usize = 5;

/// The findings, those that several terminals share once.
fn findings_text(findings: &[Finding]) -> String {
    let mut groups: Vec<(&Finding, Vec<&str>)> = Vec::new();
    for finding in findings {
        let same = |one: &Finding| one.error == finding.error && one.advice == finding.advice;
        let name = finding.terminal.as_deref().unwrap_or("job");
        match groups.iter_mut().find(|(first, _)| same(first)) {
            Some((_, names)) => names.push(name),
            None => groups.push((finding, vec![name])),
        }
    }
    let text = |(finding, names): (&Finding, Vec<&str>)| {
        let names = first_of(NAMED, &names);
        format!("\n{names}: {}\n  {}\n", finding.error, finding.advice)
    };
    groups.into_iter().map(text).collect()
}

fn plan_text(plan: &JobPlan, dry_run: bool, zone: &TimeZone) -> String {
    let mut text = String::new();
    let all = counted(plan.terminals.len());
    match plan.number {
        Some(number) => text += &format!("Job {number}: {} for {all}\n", title(&plan.images, plan.preflight)),
        None if plan.preflight => text += &format!("Would look at {all} for {}\n", plan.images),
        None => text += &format!("Would image {all} with {}\n", plan.images),
    }
    let here = window(plan.opens, plan.closes, zone);
    text += &format!("Window: {here}\n");
    if plan.window != here {
        text += &format!("  at the server: {}\n", plan.window);
    }
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
    text += &findings_text(&plan.findings);
    if dry_run {
        text += "\nNothing was created. Without --dry-run this creates the job.\n";
    } else {
        let number = plan.number.unwrap_or_default();
        text += "They begin when they boot from the network. ";
        text += &format!("'flashmob job show {number}' shows how far they are.\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn a_finding_that_terminals_share_is_printed_once() {
        let finding = |name: Option<&str>, error: &str| Finding {
            terminal: name.map(String::from),
            error: error.into(),
            advice: "Look.".into(),
        };
        let names: Vec<String> = (1..=7).map(|n| format!("pc{n}")).collect();
        let mut findings = vec![finding(None, "not signed")];
        findings.extend(names.iter().map(|name| finding(Some(name), "not known")));
        findings.push(finding(Some("pc8"), "too small"));
        let text = "\njob: not signed\n  Look.\n\npc1, pc2, pc3, pc4, pc5 and 2 more: not known\n  Look.\n\
                    \npc8: too small\n  Look.\n";
        assert_eq!(findings_text(&findings), text);
    }

    #[test]
    fn a_new_job_shows_its_window_by_the_clock_here_and_by_the_servers_where_they_differ() {
        let plan = r#"{"number":3,"images":"debian@1","opens":"2026-11-29T14:30:00Z",
            "closes":"2026-11-29T16:30:00Z",
            "window":"Sun 2026-11-29 15:30 +01:00 to Sun 2026-11-29 17:30 +01:00",
            "needs":60,"all":60,"terminals":[],"findings":[]}"#;
        let plan: JobPlan = understand(plan).expect("a plan");
        let shown = |zone: &str| plan_text(&plan, false, &TimeZone::get(zone).expect("a zone"));
        let berlin = "\nWindow: Sun 2026-11-29 15:30 +01:00 to Sun 2026-11-29 17:30 +01:00\nForecast";
        assert!(shown("Europe/Berlin").contains(berlin), "{}", shown("Europe/Berlin"));
        let utc =
            "\nWindow: Sun 2026-11-29 14:30 +00:00 to Sun 2026-11-29 16:30 +00:00\n  at the server: Sun";
        assert!(shown("UTC").contains(utc), "{}", shown("UTC"));
    }
}
