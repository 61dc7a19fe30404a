//! `flashmob pxe`: netboot beside an existing DHCP server, what `flashmob serve --pxe` would do here, and the
//! service that does it.
//!
//! Invariant: `config` starts nothing and changes nothing; `enable` changes nothing if `config` would refuse.

use std::io::Write;
use std::net::{Ipv6Addr, SocketAddr};
use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::pxe_options::PxeOptions;
use super::pxe_service::{self, FOLDER};
use super::serve::DEFAULT_STATE;
use crate::api::Refusal;
use crate::event::Failure;
use crate::server::domain::config::Config;
use crate::server::pxe::Setup;
use crate::server::{DEFAULT_PORT, read_config};

/// The configuration that the service reads.
pub(super) const DEFAULT_CONFIG: &str = "/etc/flashmob/config.toml";

/// Netboot beside an existing DHCP server.
#[derive(Debug, Args)]
pub struct PxeArgs {
    #[command(subcommand)]
    command: PxeCommand,
}

#[derive(Debug, Subcommand)]
enum PxeCommand {
    /// Print the configuration with which 'flashmob serve --pxe' would run dnsmasq on this machine.
    Config(ConfigArgs),
    /// Let the service flashmob.service do so from now on: write its settings and restart it. Terminals at
    /// work go on. As root.
    Enable(ConfigArgs),
    /// Let the service do so no longer, and restart it. As root.
    Disable,
}

#[derive(Debug, Args)]
struct ConfigArgs {
    #[command(flatten)]
    pxe: PxeOptions,
    /// The netboot files.
    #[arg(long, value_name = "DIR", env = "FLASHMOB_BOOT", default_value = "/srv/boot")]
    boot: PathBuf,
    /// The server's configuration, for [pxe] [default: /etc/flashmob/config.toml].
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The folder for state.
    #[arg(long, value_name = "DIR", default_value = DEFAULT_STATE)]
    state: PathBuf,
    /// Where the server listens [default: all addresses, port 6969].
    #[arg(long, value_name = "ADDR:PORT")]
    listen: Option<SocketAddr>,
}

/// Every address of this machine, at the usual port.
pub(super) fn usual_address() -> SocketAddr {
    (Ipv6Addr::UNSPECIFIED, DEFAULT_PORT).into()
}

pub fn run(args: PxeArgs) -> Result<(), Failure> {
    match args.command {
        PxeCommand::Config(args) => {
            let text = planned(args)?;
            std::io::stdout().write_all(text.as_bytes()).map_err(|e| {
                Failure::retry(format!("writing to the standard output: {e}"), "Redirect it into a file.")
            })
        }
        PxeCommand::Enable(args) => {
            // Settings of the configuration need no options of the service.
            let options = args.pxe.clone().config().unwrap_or_default();
            planned(args)?;
            pxe_service::enable(&options, FOLDER.as_ref(), "systemctl")
        }
        PxeCommand::Disable => pxe_service::disable(FOLDER.as_ref(), "systemctl"),
    }
}

/// What dnsmasq would be told.
fn planned(args: ConfigArgs) -> Result<String, Failure> {
    let from_file = || -> Result<Config, Failure> {
        read_config(args.config.as_deref().unwrap_or(DEFAULT_CONFIG.as_ref()))
    };
    let config = match args.pxe.config() {
        Some(config) => config,
        None => from_file()?.pxe,
    };
    if !config.is_on() {
        return Err(Failure::usage(
            "no interface is named, neither by --pxe nor by [pxe] in the configuration",
            "Name the lab's: --pxe eth0. 'ip -4 addr' lists them.",
        ));
    }
    let listens = args.listen.unwrap_or_else(usual_address);
    let setup = Setup { config, listens, boot: args.boot, state: args.state };
    let plan = setup.plan().map_err(|Refusal { error, advice }| Failure::refused(error, advice))?;
    if let Some(Refusal { error, advice }) = plan.lacks() {
        eprintln!("warning: {error}. {advice}");
    }
    Ok(plan.text())
}
