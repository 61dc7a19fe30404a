//! `flashmob job`: create jobs, look at them, and decide, through the server's API. `create` has the options
//! of a new job, `show` the tables of jobs and reports.

mod create;
mod show;
mod words;

use clap::{Args, Subcommand};
use reqwest::Method;

use crate::api::{CancelJobs, Compare, JobDecided};
use crate::cli::call::{ServerArg, ask, send, text_of, understand};
use crate::cli::history;
use crate::cli::terminal::decide;
use crate::event::Failure;
use crate::server::http::api::jobs::{Retried, Retry};
use create::CreateArgs;
use words::body;

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
    /// End jobs: no terminal begins, and those under way stop.
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

pub async fn run(args: JobArgs) -> Result<(), Failure> {
    match args.command {
        JobCommand::Create(args) => create::create(&args).await,
        JobCommand::List { server, json } => show::list(&server, json).await,
        JobCommand::Report { job, server, json, run: Some(run), .. } => {
            history::print_run(&server, job, run, json).await
        }
        JobCommand::Show { job, server, json } | JobCommand::Report { job, server, json, csv: false, .. } => {
            let text = text_of(ask(&server, Method::GET, &path(job, &[]), None).await?).await?;
            match json {
                true => println!("{text}"),
                false => print!("{}", show::report_text(&understand(&text)?)),
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
            print!("{}", decide::lines(again.decided));
            print!("{}", words::begin_again(again.terminals.len(), again.until));
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
