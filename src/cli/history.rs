//! What was: the attempts of a terminal, and one run of a job.

use std::collections::BTreeMap;

use reqwest::Method;

use super::call::{ServerArg, ask, query_of, text_of, understand};
use super::table::{local, local_second, table};
use crate::api::{AttemptView, PastAttempt, StageView};
use crate::event::Failure;
use crate::server::domain::jobs::PastRun;

/// Attempts that are shown of a terminal.
const SHOWN: &str = "10";

/// The latest attempts of the terminal with this name in calls.
pub(super) async fn attempts_of(server: &ServerArg, id: &str) -> Result<String, Failure> {
    let query = query_of([("terminal", id), ("limit", SHOWN)].into_iter());
    let answer = ask(server, Method::GET, &["api", "v1", "attempts"], query.as_deref()).await?;
    Ok(attempts_table(&understand::<Vec<PastAttempt>>(&text_of(answer).await?)?))
}

fn attempts_table(attempts: &[PastAttempt]) -> String {
    if attempts.is_empty() {
        return String::new();
    }
    let mut rows = vec![["ATTEMPT", "JOB", "IMAGE", "BEGAN", "ENDED", "RESULT"].map(String::from)];
    for PastAttempt { attempt, outcome, .. } in attempts {
        let result = match (outcome, attempt.cancelled) {
            (_, true) => "cancelled".into(),
            (Some(outcome), _) => outcome.title(),
            (None, _) => "no outcome".into(),
        };
        rows.push([
            attempt.number.to_string(),
            attempt.job.clone(),
            attempt.images.clone(),
            local_second(&attempt.started),
            attempt.ended.as_deref().map_or_else(|| "-".into(), local_second),
            result,
        ]);
    }
    let newest = attempts.first().map(|newest| stages_table(&newest.attempt));
    format!("\n{}{}", table(&rows), newest.unwrap_or_default())
}

/// When the stages of an attempt began, and how long each took.
fn stages_table(attempt: &AttemptView) -> String {
    if attempt.stages.is_empty() {
        return String::new();
    }
    let mut rows = vec![["STAGE", "BEGAN", "SECONDS"].map(String::from)];
    for StageView { stage, began, seconds } in &attempt.stages {
        rows.push([stage.title().into(), local_second(began), seconds.to_string()]);
    }
    format!("\nStages of attempt {}:\n{}", attempt.number, table(&rows))
}

/// Prints one run of a job.
pub(super) async fn print_run(server: &ServerArg, job: u64, run: u32, json: bool) -> Result<(), Failure> {
    let path = ["api", "v1", "jobs", &job.to_string(), "runs", &run.to_string()];
    let text = text_of(ask(server, Method::GET, &path, None).await?).await?;
    match json {
        true => println!("{text}"),
        false => print!("{}", run_text(&understand(&text)?)),
    }
    Ok(())
}

fn run_text(run: &PastRun) -> String {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    let mut rows = vec![["TERMINAL", "STATE", "TRIES", "SINCE", "WHY"].map(String::from)];
    for row in &run.terminals {
        *counts.entry(row.state.word()).or_default() += 1;
        let name = row.label.clone().unwrap_or_else(|| row.terminal.clone());
        let state = row.state.word().to_string();
        rows.push([name, state, row.tries.to_string(), local(row.since), row.reason.clone()]);
    }
    let counts: Vec<String> = counts.iter().map(|(state, n)| format!("{n} {state}")).collect();
    format!("Run {} of job {}: {}\n\n{}", run.run, run.job, counts.join(", "), table(&rows))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempts_are_shown_with_their_results_and_none_without_any() {
        let text = r#"[{"terminal":"a","number":7,"job":"3","images":"debian@2","started":"S","heard":"H",
            "ended":null,"tries":1,"cancelled":false,"outcome":null,
            "stages":[{"stage":"manifest","began":"S","seconds":2},
                {"stage":"fetch","began":"T","seconds":240}]},
            {"terminal":"a","number":6,"job":"by-hand","images":"debian@1","started":"S","heard":"H",
            "ended":"E","tries":1,"cancelled":true,"outcome":null}]"#;
        let text = attempts_table(&understand::<Vec<PastAttempt>>(text).expect("attempts"));
        let lines: Vec<&str> = text.lines().skip(2).collect();
        assert_eq!(
            lines,
            [
                "7        3        debian@2  S      -      no outcome",
                "6        by-hand  debian@1  S      E      cancelled",
                "",
                "Stages of attempt 7:",
                "STAGE                 BEGAN  SECONDS",
                "reading the manifest  S      2",
                "fetching the image    T      240",
            ]
        );
        assert_eq!(attempts_table(&[]), "");
    }
}
