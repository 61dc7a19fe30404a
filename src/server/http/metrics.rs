//! `/metrics` in Prometheus' text format.
//!
//! Invariant: label values are image names and state words, which need no escaping.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;

use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;

use crate::api::{TerminalState, TerminalView};
use crate::event::Progress;
use crate::server::app::App;
use crate::server::http::api::{self, ImageView};

/// `GET /metrics`.
pub async fn metrics(State(app): State<Arc<App>>) -> impl IntoResponse {
    let text = text(&api::rows(&app), &api::images(&app), app.problems().len());
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text)
}

fn text(terminals: &[TerminalView], images: &[ImageView], problems: usize) -> String {
    let mut out = String::new();
    let mut states: BTreeMap<&str, u64> = BTreeMap::new();
    for state in ["idle", "waiting", "imaging", "interrupted", "done", "failed"] {
        states.insert(state, 0);
    }
    terminals.iter().for_each(|t| *states.entry(word(t.state)).or_default() += 1);
    head(&mut out, "flashmob_terminals", "gauge", "Terminals by state.");
    states.iter().for_each(|(state, n)| line(&mut out, "flashmob_terminals", &[("state", state)], *n));

    let live = || {
        terminals
            .iter()
            .filter(|t| t.silent.is_some_and(|silent| silent < 10))
            .filter_map(|t| t.progress.as_ref())
    };
    // Terminals may report any number, so the sum must not overflow.
    let sum = |rate: fn(&Progress) -> u64| live().map(rate).fold(0, u64::saturating_add);
    for (name, help, value) in [
        ("flashmob_terminals_rate_in_bytes", "Bytes a second coming in, all terminals.", sum(|p| p.rate_in)),
        (
            "flashmob_terminals_rate_out_bytes",
            "Bytes a second going out, all terminals.",
            sum(|p| p.rate_out),
        ),
        ("flashmob_problems", "Things a person should look at.", u64::try_from(problems).unwrap_or(u64::MAX)),
    ] {
        head(&mut out, name, "gauge", help);
        line(&mut out, name, &[], value);
    }
    head(&mut out, "flashmob_image_bytes", "gauge", "Payload of each image.");
    images.iter().for_each(|i| {
        line(&mut out, "flashmob_image_bytes", &[("image", &i.image.id().to_string())], i.image.bytes)
    });
    head(&mut out, "flashmob_swarm_peers", "gauge", "Peers of each swarm that the tracker knows.");
    for image in images {
        let id = image.image.id().to_string();
        line(&mut out, "flashmob_swarm_peers", &[("image", &id), ("role", "complete")], image.complete);
        line(&mut out, "flashmob_swarm_peers", &[("image", &id), ("role", "fetching")], image.incomplete);
    }
    head(&mut out, "flashmob_seeder_sent_bytes_total", "counter", "Bytes the server's own seeder has sent.");
    for (image, seeding) in images.iter().filter_map(|i| Some((i.image.id().to_string(), i.seeding?))) {
        line(&mut out, "flashmob_seeder_sent_bytes_total", &[("image", &image)], seeding.bytes_out);
    }
    head(&mut out, "flashmob_seeder_peers", "gauge", "Peers connected to the server's own seeder.");
    for (image, seeding) in images.iter().filter_map(|i| Some((i.image.id().to_string(), i.seeding?))) {
        line(&mut out, "flashmob_seeder_peers", &[("image", &image)], seeding.peers);
    }
    out
}

/// The name of a state in all outputs.
pub fn word(state: TerminalState) -> &'static str {
    match state {
        TerminalState::Idle => "idle",
        TerminalState::Waiting => "waiting",
        TerminalState::Imaging => "imaging",
        TerminalState::Interrupted => "interrupted",
        TerminalState::Done => "done",
        TerminalState::Failed => "failed",
    }
}

fn head(out: &mut String, name: &str, kind: &str, help: &str) {
    // Writing to a String does not fail.
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

fn line(out: &mut String, name: &str, labels: &[(&str, &str)], value: impl std::fmt::Display) {
    let labels: Vec<String> = labels.iter().map(|(key, value)| format!("{key}=\"{value}\"")).collect();
    let braces = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
    let _ = writeln!(out, "{name}{braces} {value}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Stage;

    #[test]
    fn every_state_has_a_line_even_when_nobody_is_in_it() {
        let text = text(&[], &[], 2);
        assert!(text.contains("# TYPE flashmob_terminals gauge\n"));
        assert!(text.contains("flashmob_terminals{state=\"interrupted\"} 0\n"));
        assert!(text.contains("flashmob_problems 2\n"));
    }

    #[test]
    fn absurd_rates_of_terminals_do_not_overflow() {
        let terminal = TerminalView {
            zone: None,
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
            silent: Some(0),
            new: false,
            room: None,
            seat: None,
            groups: Vec::new(),
            hostname: None,
        };
        let text = text(&[terminal.clone(), terminal], &[], 0);
        assert!(text.contains(&format!("flashmob_terminals_rate_in_bytes {}\n", u64::MAX)), "{text}");
    }
}
