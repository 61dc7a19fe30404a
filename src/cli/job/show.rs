//! Jobs as tables for people: the list, and the report of one.

use reqwest::Method;

use super::words::title;
use crate::cli::call::{ServerArg, ask, text_of, understand};
use crate::cli::table::{local, table};
use crate::event::Failure;
use crate::server::domain::jobs::{JobView, Phase, Report};
use crate::server::http::api::LabView;
use crate::units::show_bytes;

pub(super) async fn list(server: &ServerArg, json: bool) -> Result<(), Failure> {
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
            local(job.again_until.unwrap_or(job.closes)),
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

pub(super) fn report_text(report: &Report) -> String {
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
    if let Some(until) = job.again_until {
        text += &format!("\nRetried terminals may begin until {}", local(until));
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
    fn a_report_of_a_preflight_names_each_finding_with_its_remedy() {
        let text = r#"{"job":{"number":4,"images":"debian@1","preflight":true,"targets":["room:101"],
            "note":"","by":"administrator","created":"2026-11-28T10:00:00Z","phase":"over",
            "cancelled":false,"run":1,"opens":"2026-11-28T10:00:00Z","closes":"2026-11-28T22:00:00Z",
            "again_until":"2026-11-29T09:00:00Z",
            "next":null,"every":null,"follow":false,"wave":null,"attempts":3,"wake":false,
            "overrun":"finish","needs":150,"counts":{"done":1}},
            "terminals":[{"terminal":"02:00:00:00:00:0a","label":"lab-01","state":"done",
            "reason":"the link of eth0 has 100 Mbit/s","tries":1,"attempt":9,
            "since":"2026-11-28T10:05:00Z","findings":[{"severity":"warning",
            "what":"the link of eth0 has 100 Mbit/s","advice":"Replace the cable."}]}]}"#;
        let text = report_text(&understand(text).expect("a report"));
        assert!(text.starts_with("Job 4: preflight of debian@1 for room:101, over\n"), "{text}");
        for time in ["2026-11-28T10:00:00Z", "2026-11-28T22:00:00Z", "2026-11-28T10:05:00Z"] {
            let local = local(time.parse().expect("a time"));
            assert!(local.contains(" +") || local.contains(" -"), "its offset is there: {local}");
            assert!(text.contains(&local), "{local}: {text}");
        }
        let until = local("2026-11-29T09:00:00Z".parse().expect("a time"));
        assert!(text.contains(&format!("\nRetried terminals may begin until {until}\n")), "{text}");
        let finding = "\nlab-01: WARNING: the link of eth0 has 100 Mbit/s. Replace the cable.\n";
        assert!(text.ends_with(finding), "{text}");
    }
}
