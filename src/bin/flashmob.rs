//! `flashmob`: the server and the administrator's tool. The sub-commands are in `flashmob::cli`.

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};
use flashmob::cli::logging::{self, LogFormat};
use flashmob::cli::{
    audit, backup, capture, doctor, get, helper, job, make, plan, pxe, seed, serve, terminal, token,
};
use flashmob::io::host::stdout;
use flashmob::manual;

/// Re-images a whole computer lab at once.
#[derive(Debug, Parser)]
#[command(version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Make(make::MakeArgs),
    Get(get::GetArgs),
    Seed(seed::SeedArgs),
    Serve(serve::ServeArgs),
    Job(job::JobArgs),
    Capture(capture::CaptureArgs),
    Terminal(terminal::TerminalArgs),
    Terminals(terminal::TerminalsArgs),
    Plan(plan::PlanArgs),
    Pxe(pxe::PxeArgs),
    Backup(backup::BackupArgs),
    Doctor(doctor::DoctorArgs),
    Token(token::TokenArgs),
    Audit(audit::AuditArgs),
    Helper(helper::HelperArgs),
    Manual(manual::ManualArgs),
}

#[tokio::main]
async fn main() -> ExitCode {
    stdout::end_quietly_when_closed();
    let cli = Cli::parse();
    let (format, level) = match &cli.command {
        Command::Serve(args) => (args.log_format, "info"),
        // What it would log, its findings say.
        Command::Doctor(_) => (LogFormat::Text, "off"),
        _ => (LogFormat::Text, "info"),
    };
    logging::start(format, level);
    let result = match cli.command {
        Command::Make(args) => make::run(args).await,
        Command::Get(args) => get::run(args).await,
        Command::Seed(args) => seed::run(args).await,
        Command::Serve(args) => serve::run(args).await,
        Command::Job(args) => job::run(args).await,
        Command::Capture(args) => capture::run(args).await,
        Command::Terminal(args) => terminal::run(args).await,
        Command::Terminals(args) => terminal::list(args).await,
        Command::Plan(args) => plan::run(&args),
        Command::Pxe(args) => pxe::run(args),
        Command::Backup(args) => backup::run(args).await,
        Command::Doctor(args) => doctor::run(args).await,
        Command::Token(args) => token::run(args).await,
        Command::Audit(args) => audit::run(args).await,
        Command::Helper(args) => helper::run(&args),
        Command::Manual(args) => manual::write(Cli::command(), &args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            match format {
                LogFormat::Text => eprintln!("error: {}\n{}", failure.message, failure.advice),
                LogFormat::Json => log::error!("{}. {}", failure.message, failure.advice),
            }
            ExitCode::from(failure.class.exit_code())
        }
    }
}
