//! `flashmob-agent lend`: a golden machine that runs from another disk, or a stick, lends its disk by hand.
//!
//! Invariant: the same lending as on a netbooted terminal.

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;

use super::{START_AGAIN, fail, failed_call};
use crate::agent::lending;
use crate::agent::network;
use crate::agent::status::Status;
use crate::api::Take;
use crate::event::Failure;
use crate::io::host::inventory;
use crate::io::net::api_client::{self, Api, Taken};
use crate::io::net::credentials::Credentials;
use crate::io::net::token_file;
use crate::lan::discovery::server_url;

/// Between two questions whether the server captures this machine.
const ASK: Duration = Duration::from_secs(2);

/// Lends a disk of this machine, read-only, to the server's `flashmob capture`. Nothing is written.
#[derive(Debug, Clone, Parser)]
#[command(name = "flashmob-agent lend", version)]
pub struct LendArgs {
    /// Address of the flashmob server, for example http://10.0.0.1:6969
    #[arg(long, value_name = "URL", value_parser = server_url)]
    server: String,
    /// The disk: a device, or a rule such as serial=WD-123 [default: as `flashmob capture` says]
    #[arg(long, value_name = "DISK")]
    disk: Option<String>,
    /// File with your token, on another machine than the server [default: the file that FLASHMOB_TOKEN_FILE
    /// names, else ~/.config/flashmob/token]
    #[arg(long, value_name = "FILE")]
    token: Option<std::path::PathBuf>,
}

/// Lends once; the result is the exit code.
pub fn run(args: LendArgs) -> ExitCode {
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("warn")).init();
    match start(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => fail(&failure, false),
    }
}

fn start(args: LendArgs) -> Result<(), Failure> {
    let local = |e: &dyn std::fmt::Display| Failure::retry(format!("cannot start: {e}"), START_AGAIN);
    let runtime = tokio::runtime::Runtime::new().map_err(|e| local(&e))?;
    let http = api_client::client().map_err(|e| local(&e))?;
    let credentials = Credentials::of_person(token_file::token(args.token.as_deref())?);
    let lent = runtime.block_on(async {
        let api = Api::new(http, args.server.clone()).with(credentials);
        let stop = tokio::signal::ctrl_c();
        tokio::select! {
            lent = lend(&api, args.disk.as_deref()) => lent,
            _ = stop => Ok(()),
        }
    });
    runtime.shutdown_timeout(Duration::from_secs(1));
    lent
}

async fn lend(api: &Api, disk: Option<&str>) -> Result<(), Failure> {
    let hello = inventory::hello(inventory::read(network::towards(api.base()).await), None);
    let welcome = api.hello(&hello, Duration::from_secs(10)).await.map_err(|e| failed_call(&e))?;
    let take = Take { lend: true, only_lend: true, ..Take::default() };
    eprintln!("flashmob-agent: waiting for 'flashmob capture {}' on the server", welcome.terminal);
    loop {
        match api.take(&welcome.terminal, &take).await.map_err(|e| failed_call(&e))? {
            Taken::Lend(offer) => {
                eprintln!("flashmob-agent: {}", lending::title(&offer));
                return lending::run(api, &offer, disk, &Status::new()).await;
            }
            Taken::Job(_) => {
                return Err(Failure::refused(
                    "the server gives this machine a job instead of a capture",
                    "Nothing was done. Use a server of the same version.",
                ));
            }
            Taken::Nothing => tokio::time::sleep(ASK).await,
        }
    }
}
