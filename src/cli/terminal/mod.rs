//! `flashmob terminal` and its short form `flashmob terminals`: look at terminals, wake and forget them.

pub(super) mod decide;
mod list;
mod log;
mod registry;
mod show;
mod wake;

use clap::{Args, Subcommand};
use reqwest::Method;

use crate::cli::call::{ServerArg, ask};
use crate::event::Failure;
use decide::{CancelArgs, ForgetArgs, RetryArgs};
pub use list::{TerminalsArgs, list};
use log::LogArgs;
use registry::{ExportArgs, ImportArgs, SetArgs};
use wake::WakeArgs;

/// Look at terminals, their hardware and their last attempt; wake them; forget those that are gone.
#[derive(Debug, Args)]
pub struct TerminalArgs {
    #[command(subcommand)]
    command: TerminalCommand,
}

#[derive(Debug, Subcommand)]
enum TerminalCommand {
    /// Show every terminal.
    List(TerminalsArgs),
    /// Show all that the server knows of one terminal: names, hardware, what is installed, the last attempts.
    Show {
        /// Label, MAC, or UUID as uuid:4c4c4544-….
        terminal: String,
        #[command(flatten)]
        server: ServerArg,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    Set(SetArgs),
    Import(ImportArgs),
    Export(ExportArgs),
    /// Let a terminal that starts from a stick speak to the server once more, within 15 minutes. One that
    /// starts from the network needs no such word.
    Admit {
        /// Label, MAC, or UUID as uuid:4c4c4544-….
        terminal: String,
        #[command(flatten)]
        server: ServerArg,
    },
    Log(LogArgs),
    Wake(WakeArgs),
    Retry(RetryArgs),
    Cancel(CancelArgs),
    Forget(ForgetArgs),
}

pub async fn run(args: TerminalArgs) -> Result<(), Failure> {
    match args.command {
        TerminalCommand::List(args) => list(args).await,
        TerminalCommand::Show { terminal, server, json } => show::run(&terminal, &server, json).await,
        TerminalCommand::Set(args) => registry::set(args).await,
        TerminalCommand::Import(args) => registry::import(args).await,
        TerminalCommand::Export(args) => registry::export(args).await,
        TerminalCommand::Admit { terminal, server } => {
            let path = ["api", "v1", "terminals", &terminal, "admit"];
            ask(&server, Method::POST, &path, None).await?;
            println!("{terminal} may introduce itself within 15 minutes, without a ticket.");
            Ok(())
        }
        TerminalCommand::Log(args) => log::run(args).await,
        TerminalCommand::Wake(args) => wake::run(args).await,
        TerminalCommand::Retry(args) => decide::retry(args).await,
        TerminalCommand::Cancel(args) => decide::cancel(args).await,
        TerminalCommand::Forget(args) => decide::forget(args).await,
    }
}
