//! `flashmob serve`: the lab's server, until a signal stops it.

use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;
use tokio::signal::unix::{SignalKind, signal};

use super::logging::LogFormat;
use super::pxe_options::PxeOptions;
use super::systemd::Manager;
use crate::event::Failure;
use crate::server::Options;
use crate::server::Server;
use crate::server::domain::config;

/// Where the state is kept.
pub(super) const DEFAULT_STATE: &str = "/var/lib/flashmob";

/// Publish images, seed them, and direct terminals.
#[derive(Debug, Args)]
pub struct ServeArgs {
    /// Repository: folder of images, as flashmob-mkimage writes them.
    #[arg(long, value_name = "DIR", required_unless_present = "print_sample_config")]
    images: Option<PathBuf>,
    /// Netboot files (vmlinuz, initramfs.img, localboot.0, localboot.efi), as flashmob-initramfs makes them.
    #[arg(long, value_name = "DIR")]
    boot: Option<PathBuf>,
    /// What describes the lab: keys, labels, groups, zones, limits (TOML). It starts nothing.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The folder for state that must survive a restart.
    #[arg(long, value_name = "DIR", default_value = DEFAULT_STATE)]
    state: PathBuf,
    /// Public keys by which images are judged on the page.
    #[arg(long, value_name = "FILE")]
    keys: Option<PathBuf>,
    /// Address and port for everything but the swarm [default: all addresses, port 6969].
    #[arg(long, value_name = "ADDR:PORT")]
    listen: Option<SocketAddr>,
    /// Address and port of the server's own peer [default: all addresses, port 6881].
    #[arg(long, value_name = "ADDR:PORT")]
    peer_listen: Option<SocketAddr>,
    #[command(flatten)]
    pxe: PxeOptions,
    /// Do not announce the server by mDNS.
    #[arg(long)]
    no_mdns: bool,
    /// How the log is written.
    #[arg(long, value_name = "FORMAT", env = "FLASHMOB_LOG_FORMAT", default_value = "text")]
    pub log_format: LogFormat,
    /// Print a configuration file with every key explained, and end.
    #[arg(long)]
    print_sample_config: bool,
}

/// Runs the server until SIGTERM or SIGINT; SIGHUP reads the configuration again.
pub async fn run(args: ServeArgs) -> Result<(), Failure> {
    if args.print_sample_config {
        return std::io::stdout().write_all(config::SAMPLE.as_bytes()).map_err(|e| {
            Failure::retry(format!("writing to the standard output: {e}"), "Redirect it into a file.")
        });
    }
    let Some(images) = args.images else {
        return Err(Failure::usage("--images is missing", "Name the repository."));
    };
    let cannot_wait = |e: std::io::Error| {
        Failure::retry(format!("waiting for signals: {e}"), "Look at this machine's limits.")
    };
    let mut hangup = signal(SignalKind::hangup()).map_err(cannot_wait)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(cannot_wait)?;
    let mut manager = Manager::default();
    manager.starting();
    let server = Server::start(Options {
        images,
        boot: args.boot,
        state: args.state,
        config: args.config,
        keys: args.keys,
        listen: args.listen,
        peer_listen: args.peer_listen,
        mdns: !args.no_mdns,
        pxe: args.pxe.config(),
    })
    .await?;
    let address = server.local_addr();
    let host = if address.ip().is_unspecified() { "localhost".into() } else { address.ip().to_string() };
    let host = if address.is_ipv6() && host.contains(':') { format!("[{host}]") } else { host };
    let peers = server.peer_port();
    args.log_format.say(&format!(
        "flashmob serves on {address}, peers on port {peers}. The lab: http://{host}:{}/",
        address.port()
    ));
    manager.ready(&server.summary());
    let mut tick = tokio::time::interval(Manager::period());
    loop {
        tokio::select! {
            _ = hangup.recv() => {
                manager.reloading();
                server.reload().await;
                manager.ready(&server.summary());
            }
            // A server whose locks are stuck never gets here, and the watchdog starts it again.
            _ = tick.tick() => manager.alive(&server.summary()),
            _ = terminate.recv() => break,
            _ = tokio::signal::ctrl_c() => break,
        }
    }
    manager.stopping();
    args.log_format.say("flashmob stops.");
    server.stop().await;
    Ok(())
}
