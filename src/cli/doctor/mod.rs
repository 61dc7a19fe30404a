//! `flashmob doctor`: looks at the server's machine and its network, and says what to do.
//!
//! Each check is one file with two halves: facts come from the machine, findings from the facts.
//!
//! Invariant: nothing is changed. What cannot be looked at (no root, no such file) is a finding, not silence.

mod boot;
mod clock;
mod dhcp;
mod disk;
mod finding;
mod firewall;
mod images;
mod kernel;
mod ports;
mod pxe;

use std::path::PathBuf;

use clap::Args;

use self::finding::{Finding, Level};
use super::pxe_options::PxeOptions;
use super::serve::DEFAULT_STATE;
use crate::event::Failure;
use crate::server::domain::config::Config;

/// Look at this server and its network, and say what to do.
///
/// Looks at ports, DHCP servers, netboot files, keys and signatures, disks, clock, kernel settings and the
/// firewall. Some of it needs root. The exit code is 1 if there is an error among the findings.
#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// The repository.
    #[arg(long, value_name = "DIR", env = "FLASHMOB_IMAGES", default_value = "/srv/images")]
    images: PathBuf,
    /// The netboot files.
    #[arg(long, value_name = "DIR", env = "FLASHMOB_BOOT", default_value = "/srv/boot")]
    boot: PathBuf,
    /// The configuration.
    #[arg(long, value_name = "FILE", default_value = "/etc/flashmob/config.toml")]
    config: PathBuf,
    /// The folder for state.
    #[arg(long, value_name = "DIR", default_value = DEFAULT_STATE)]
    state: PathBuf,
    /// Public keys by which images are judged.
    #[arg(long, value_name = "FILE")]
    keys: Option<PathBuf>,
    #[command(flatten)]
    pxe: PxeOptions,
    /// Print the findings as JSON.
    #[arg(long)]
    json: bool,
}

/// Makes all checks and prints their findings.
pub async fn run(args: DoctorArgs) -> Result<(), Failure> {
    let (config, mut findings) = configuration(&args);
    let keys = args.keys.clone().or(config.keys);
    findings.extend(ports::findings(&ports::facts()));
    findings.extend(dhcp::findings(&dhcp::facts().await));
    findings.extend(boot::findings(&boot::facts(&args.boot)));
    let wanted = args.pxe.clone().config().unwrap_or(config.pxe);
    findings.extend(pxe::findings(pxe::facts(wanted, &args.boot, &args.state).as_ref()));
    let images = images::facts(&args.images, keys);
    findings.extend(images::findings(&images));
    findings.extend(disk::findings(&disk::facts(&args.images, &args.state, images.payload())));
    findings.extend(clock::findings(&clock::facts()));
    findings.extend(kernel::findings(&kernel::facts()));
    findings.extend(firewall::findings(&firewall::facts()));
    match args.json {
        true => println!("{}", serde_json::json!(findings)),
        false => print!("{}", finding::table(&findings)),
    }
    let errors = findings.iter().filter(|finding| finding.level == Level::Error).count();
    match errors {
        0 => Ok(()),
        1 => Err(Failure::retry("one finding is an error", "Begin with it.")),
        n => Err(Failure::retry(format!("{n} findings are errors"), "Begin with the first of them.")),
    }
}

fn configuration(args: &DoctorArgs) -> (Config, Vec<Finding>) {
    let shown = args.config.display();
    let advice = "Without it the server has no public keys, zones or groups: 'flashmob serve \
                  --print-sample-config' prints one.";
    match std::fs::read_to_string(&args.config).map(|text| Config::parse(&text)) {
        Ok(Ok(config)) => (config, vec![Finding::ok("configuration", format!("{shown} can be read"))]),
        Ok(Err(mistake)) => {
            let advice = "Correct it; a running server keeps the last good one in force.";
            let finding = Finding::error("configuration", format!("{shown}: {mistake}"), advice);
            (Config::default(), vec![finding])
        }
        Err(e) => {
            let finding = Finding::warning("configuration", format!("reading {shown}: {e}"), advice);
            (Config::default(), vec![finding])
        }
    }
}
