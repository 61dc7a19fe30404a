//! `flashmob terminal log`: what an attempt said of itself, and the kernel of its disks and network cards.

use clap::Args;
use reqwest::Method;

use crate::api::TerminalDetails;
use crate::cli::call::{ServerArg, ask, text_of, understand};
use crate::event::Failure;

/// Show the log of a terminal's attempt: the agent's lines, and the kernel's about disks and network cards. A
/// terminal at work sends its latest lines every minute, and all at the end.
#[derive(Debug, Args)]
pub(super) struct LogArgs {
    /// Label, MAC, or UUID as uuid:4c4c4544-….
    terminal: String,
    /// Number of the attempt [default: its last one].
    #[arg(long, value_name = "N")]
    attempt: Option<u64>,
    #[command(flatten)]
    server: ServerArg,
}

pub(super) async fn run(args: LogArgs) -> Result<(), Failure> {
    let path = ["api", "v1", "terminals", &args.terminal];
    let text = text_of(ask(&args.server, Method::GET, &path, None).await?).await?;
    let terminal: TerminalDetails = understand(&text)?;
    let number = args.attempt.or(terminal.attempt.map(|attempt| attempt.number)).ok_or_else(|| {
        Failure::usage(
            format!("{} has not begun any attempt", args.terminal),
            "'flashmob job list' shows the jobs that it waits for.",
        )
    })?;
    let path = ["api", "v1", "attempts", &number.to_string(), "log"];
    let query = format!("terminal={}", terminal.row.id);
    print!("{}", text_of(ask(&args.server, Method::GET, &path, Some(&query)).await?).await?);
    Ok(())
}
