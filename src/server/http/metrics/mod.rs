//! `/metrics` for Prometheus; `text` writes its format.
//!
//! Invariant: label values are bounded in number: states, results, images, routes and statuses.

mod text;

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;

use crate::api::{TerminalState, TerminalView};
use crate::event::Progress;
use crate::server::app::App;
use crate::server::domain::jobs::{self, Job, Jobs, Phase};
use crate::server::http::api::{self, ImageView};
use crate::server::meters::{Requests, Route};
use crate::server::store::Store;
use crate::sync;
use text::Text;

/// `GET /metrics`.
pub async fn metrics(State(app): State<Arc<App>>) -> impl IntoResponse {
    let history = app.meters.history(app.now(), || app.store.results()).await;
    let mut out = Text::default();
    let version = env!("CARGO_PKG_VERSION");
    out.head("flashmob_build_info", "gauge", "Always 1; the label says which version runs.");
    out.line("flashmob_build_info", &[("version", version)], 1);
    lab(&mut out, &api::rows(&app), &api::images(&app), app.problems().len());
    jobs(&mut out, sync::lock(&app.lab).jobs());
    attempts(&mut out, &app.meters.attempts(), &history);
    requests(&mut out, &app.meters.requests());
    database(&mut out, &app.store);
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], out.0)
}

fn lab(out: &mut Text, terminals: &[TerminalView], images: &[ImageView], problems: usize) {
    let mut states: BTreeMap<&str, u64> = BTreeMap::new();
    for state in TerminalState::ALL {
        states.insert(state.word(), 0);
    }
    terminals.iter().for_each(|t| *states.entry(t.state.word()).or_default() += 1);
    out.head("flashmob_terminals", "gauge", "Terminals by state.");
    states.iter().for_each(|(state, n)| out.line("flashmob_terminals", &[("state", state)], *n));

    let speaks = |t: &&TerminalView| t.silent.is_some_and(|silent| silent < 10);
    let live = || terminals.iter().filter(speaks).filter_map(|t| t.progress.as_ref());
    // Terminals may report any number, so the sum must not overflow.
    let sum = |rate: fn(&Progress) -> u64| live().map(rate).fold(0, u64::saturating_add);
    let (name, help) = ("flashmob_terminals_rate_in_bytes", "Bytes a second coming in, all terminals.");
    out.one(name, "gauge", help, sum(|p| p.rate_in));
    let (name, help) = ("flashmob_terminals_rate_out_bytes", "Bytes a second going out, all terminals.");
    out.one(name, "gauge", help, sum(|p| p.rate_out));
    out.one("flashmob_problems", "gauge", "Things a person should look at.", problems);

    let id = |image: &ImageView| image.image.id().to_string();
    out.head("flashmob_image_bytes", "gauge", "Payload of each image.");
    for image in images {
        out.line("flashmob_image_bytes", &[("image", &id(image))], image.image.bytes);
    }
    out.head("flashmob_swarm_peers", "gauge", "Peers of each swarm that the tracker knows.");
    for image in images {
        let id = id(image);
        out.line("flashmob_swarm_peers", &[("image", &id), ("role", "complete")], image.complete);
        out.line("flashmob_swarm_peers", &[("image", &id), ("role", "fetching")], image.incomplete);
    }
    let seeded = || images.iter().filter_map(|image| Some((id(image), image.seeding?)));
    out.head("flashmob_seeder_sent_bytes_total", "counter", "Bytes the server's own seeder has sent.");
    seeded().for_each(|(id, s)| out.line("flashmob_seeder_sent_bytes_total", &[("image", &id)], s.bytes_out));
    out.head("flashmob_seeder_peers", "gauge", "Peers connected to the server's own seeder.");
    seeded().for_each(|(id, s)| out.line("flashmob_seeder_peers", &[("image", &id)], s.peers));
}

/// The states of jobs.
const STATES: [&str; 5] = ["planned", "open", "between-runs", "over", "cancelled"];

fn state(job: &Job) -> &'static str {
    match job.run.phase {
        _ if job.cancelled => "cancelled",
        Phase::Planned => "planned",
        Phase::Open => "open",
        Phase::Over if job.next.is_some() => "between-runs",
        Phase::Over => "over",
    }
}

fn jobs(out: &mut Text, jobs: &Jobs) {
    let mut states = BTreeMap::from(STATES.map(|state| (state, 0u64)));
    jobs.iter().for_each(|job| *states.entry(state(job)).or_default() += 1);
    out.head("flashmob_jobs", "gauge", "Jobs that the server keeps, by state.");
    states.iter().for_each(|(state, n)| out.line("flashmob_jobs", &[("state", state)], *n));

    let mut members = BTreeMap::from(jobs::State::ALL.map(|state| (state.word(), 0u64)));
    for job in jobs.iter().filter(|job| job.run.phase == Phase::Open) {
        jobs.members(job.number)
            .for_each(|(_, member)| *members.entry(member.state.word()).or_default() += 1);
    }
    let name = "flashmob_job_terminals";
    out.head(name, "gauge", "Terminals of the jobs whose windows are open, by state.");
    members.iter().for_each(|(state, n)| out.line(name, &[("state", state)], *n));
}

fn attempts(out: &mut Text, ended: &BTreeMap<&'static str, u64>, history: &[(String, u64)]) {
    let name = "flashmob_attempts_ended_total";
    out.head(name, "counter", "Attempts that terminals ended since the server started, by result.");
    ended.iter().for_each(|(result, n)| out.line(name, &[("result", result)], *n));
    let name = "flashmob_history_attempts";
    out.head(name, "gauge", "Attempts that the database keeps, by result; at most a minute old.");
    history.iter().for_each(|(result, n)| out.line(name, &[("result", result)], *n));
}

fn requests(out: &mut Text, requests: &BTreeMap<Route, Requests>) {
    let name = "flashmob_http_requests_total";
    out.head(name, "counter", "Answered requests.");
    for (Route { method, path }, requests) in requests {
        for (status, n) in &requests.by_status {
            let status = status.to_string();
            out.line(name, &[("method", method), ("route", path), ("status", &status)], *n);
        }
    }
    let name = "flashmob_http_request_duration_seconds";
    out.head(name, "histogram", "Time from a request's head to its answer's head.");
    for (Route { method, path }, requests) in requests {
        out.histogram(name, &[("method", method), ("route", path)], &requests.took);
    }
}

fn database(out: &mut Text, store: &Store) {
    let (meter, health) = (store.meter(), store.health());
    let name = "flashmob_database_queue_length";
    out.one(name, "gauge", "Requests that wait for the database.", meter.waiting());
    let name = "flashmob_database_unwritten_changes";
    out.one(name, "gauge", "Changes that are not on the disk yet; 65536 at most.", health.unwritten());
    let name = "flashmob_database_lost_changes_total";
    out.one(name, "counter", "Changes that could not be stored: restart the server.", health.lost());
    let name = "flashmob_database_failures_total";
    out.one(name, "counter", "Transactions that failed.", meter.failed());
    let name = "flashmob_database_transaction_duration_seconds";
    out.head(name, "histogram", "Time of a transaction until it is synced to the disk.");
    out.histogram(name, &[], &meter.transactions());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Stage;
    use crate::testkit::lab::{job, moment};

    fn of(terminals: &[TerminalView], problems: usize) -> String {
        let mut out = Text::default();
        lab(&mut out, terminals, &[], problems);
        out.0
    }

    #[test]
    fn every_state_has_a_line_even_when_nobody_is_in_it() {
        let text = of(&[], 2);
        assert!(text.contains("# TYPE flashmob_terminals gauge\n"));
        assert!(text.contains("flashmob_terminals{state=\"interrupted\"} 0\n"));
        assert!(text.contains("flashmob_problems 2\n"));
    }

    #[test]
    fn a_job_counts_in_one_state_and_its_terminals_while_its_window_is_open() {
        let mut all = Jobs::default();
        let terminals = ["a".to_string(), "b".to_string()].into();
        all.add(job(1, 0, 1000), &terminals, &moment(0));
        all.add(job(2, 500, 1000), &terminals, &moment(0));
        all.add(job(3, 0, 1000), &terminals, &moment(0));
        all.cancel(3, &moment(1)).expect("open");
        all.cancel_terminals(&["a".to_string()], &moment(2));
        let mut out = Text::default();
        jobs(&mut out, &all);
        for line in [
            "flashmob_jobs{state=\"planned\"} 1",
            "flashmob_jobs{state=\"open\"} 1",
            "flashmob_jobs{state=\"between-runs\"} 0",
            "flashmob_jobs{state=\"over\"} 0",
            "flashmob_jobs{state=\"cancelled\"} 1",
            "flashmob_job_terminals{state=\"waiting\"} 1",
            "flashmob_job_terminals{state=\"cancelled\"} 1",
            "flashmob_job_terminals{state=\"asleep\"} 0",
        ] {
            assert!(out.0.lines().any(|shown| shown == line), "{line}\n{}", out.0);
        }
    }

    #[test]
    fn absurd_rates_of_terminals_do_not_overflow() {
        let terminal = TerminalView {
            zone: None,
            capture: None,
            gateway: false,
            switch: None,
            id: "a".into(),
            label: None,
            notes: Vec::new(),
            macs: Vec::new(),
            uuid: None,
            address: None,
            machine: String::new(),
            state: TerminalState::Imaging,
            image: None,
            progress: Some(Progress { rate_in: u64::MAX, ..Progress::at(Stage::Fetch) }),
            outcome: None,
            job: None,
            reason: None,
            system: None,
            silent: Some(0),
            new: false,
            room: None,
            seat: None,
            groups: Vec::new(),
            hostname: None,
        };
        let text = of(&[terminal.clone(), terminal], 0);
        assert!(text.contains(&format!("flashmob_terminals_rate_in_bytes {}\n", u64::MAX)), "{text}");
    }
}
