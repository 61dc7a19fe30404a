//! `flashmob terminal retry`, `cancel` and `forget`: decisions for terminals, through the server's API.
//!
//! Invariant: one call takes a decision for all targets, so that a mistake in one of them changes nothing.

use clap::Args;
use reqwest::Method;

use crate::api::{Compare, Decided, ForgetTerminals, RetryTerminals, Targets};
use crate::cli::call::{Content, ServerArg, json_of, send, text_of, understand};
use crate::event::Failure;
use crate::server::domain::registry::natural;

/// Let terminals image themselves again at their next network boot, each with its latest job. A terminal that
/// is done must be named by its label or MAC; of a room or a group, only those that have not succeeded begin
/// again.
#[derive(Debug, Args)]
pub(super) struct RetryArgs {
    /// Label, MAC, uuid:4c4c4544-…, room:NAME, group:NAME, zone:NAME, new or all.
    #[arg(required = true, value_name = "TARGET")]
    targets: Vec<String>,
    /// How pieces already on the disk are found, this once: auto, full or trust [default: from the job]
    #[arg(long, value_name = "HOW")]
    compare: Option<Compare>,
    /// The disks that the terminal has now are the ones that it should have, although some that it had
    /// are gone. Each target must name one terminal.
    #[arg(long)]
    accept_disks: bool,
    #[command(flatten)]
    server: ServerArg,
}

/// Stop terminals that image themselves, and keep waiting ones from starting.
#[derive(Debug, Args)]
pub(super) struct CancelArgs {
    /// Label, MAC, uuid:4c4c4544-…, room:NAME, group:NAME, zone:NAME, new or all.
    #[arg(required = true, value_name = "TARGET")]
    targets: Vec<String>,
    #[command(flatten)]
    server: ServerArg,
}

/// Remove terminals and their attempts from the server. They are new when they come again.
#[derive(Debug, Args)]
pub(super) struct ForgetArgs {
    /// Label, MAC, uuid:4c4c4544-…; with --all-of-them also room:NAME, group:NAME, zone:NAME, new or all.
    #[arg(required = true, value_name = "TARGET")]
    targets: Vec<String>,
    /// Forget also all terminals of a room, a group or a zone, all new ones, or all.
    #[arg(long)]
    all_of_them: bool,
    #[command(flatten)]
    server: ServerArg,
}

pub(super) async fn retry(args: RetryArgs) -> Result<(), Failure> {
    let RetryArgs { targets, compare, accept_disks, server } = args;
    decide(&server, "retry", &RetryTerminals { targets, compare, accept_disks }).await
}

pub(super) async fn cancel(args: CancelArgs) -> Result<(), Failure> {
    decide(&args.server, "cancel", &Targets { targets: args.targets }).await?;
    println!("'flashmob terminal retry' starts them again.");
    Ok(())
}

pub(super) async fn forget(args: ForgetArgs) -> Result<(), Failure> {
    let ForgetArgs { targets, all_of_them, server } = args;
    decide(&server, "forget", &ForgetTerminals { targets, all_of_them }).await
}

/// Has the server take a decision, and prints what becomes of each terminal.
pub(super) async fn decide(
    server: &ServerArg,
    what: &str,
    decision: &impl serde::Serialize,
) -> Result<(), Failure> {
    let path = ["api", "v1", "decisions", what];
    let answer = send(server, Method::POST, &path, (Content::Json, json_of(decision)?)).await?;
    print!("{}", lines(understand(&text_of(answer).await?)?));
    Ok(())
}

/// A line for each terminal in the order in which people count, then each advice once.
pub(in crate::cli) fn lines(mut decided: Vec<Decided>) -> String {
    let name = |one: &Decided| one.label.clone().unwrap_or_else(|| one.terminal.clone());
    decided.sort_by(|a, b| natural(&name(a), &name(b)));
    let mut text = String::new();
    for one in &decided {
        let left = if one.changed { "" } else { "left as it is: " };
        text += &format!("{}: {left}{}\n", name(one), one.result.replace(char::is_control, " "));
    }
    let mut advice: Vec<&str> = Vec::new();
    for one in decided.iter().filter(|one| !one.advice.is_empty()) {
        if !advice.contains(&one.advice.as_str()) {
            advice.push(&one.advice);
        }
    }
    advice.iter().for_each(|advice| text += &format!("  {advice}\n"));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_terminal_has_a_line_in_the_order_in_which_people_count_and_each_advice_is_said_once() {
        let one = |label: Option<&str>, changed: bool, result: &str, advice: &str| Decided {
            terminal: "02:00:00:00:00:0a".into(),
            label: label.map(Into::into),
            changed,
            result: result.into(),
            advice: advice.into(),
        };
        let text = lines(vec![
            one(Some("lab-10"), false, "terminal a is done", "Name it."),
            one(Some("lab-2"), true, "begins again", ""),
            one(None, false, "terminal b is done", "Name it."),
        ]);
        let wanted = "02:00:00:00:00:0a: left as it is: terminal b is done\nlab-2: begins again\n\
            lab-10: left as it is: terminal a is done\n  Name it.\n";
        assert_eq!(text, wanted);
    }
}
