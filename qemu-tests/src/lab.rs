//! A lab for one test: network, server and terminals in one folder, and queries to the server.
//!
//! Invariant: dropping the lab ends every process; its logs stay until the next run of the same name.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use flashmob::api::{TerminalState, TerminalView};
use flashmob_testkit::child::{Guarded, command, tail, wait_until};

use crate::assets::{Assets, IMAGE, KERNEL_ARGUMENTS};
use crate::machine::{Bus, Firmware, Machine, Start, Terminal};
use crate::net::{Dhcp, Network, SERVER};

pub const PORT: u16 = 6969;

/// A job for the server's configuration.
#[derive(Debug, Clone)]
pub struct Job {
    /// MAC addresses; `None` means all terminals.
    pub terminals: Option<Vec<String>>,
    /// `reboot`, `kexec`, `poweroff`.
    pub after: &'static str,
    /// `auto` or `full`: whether pieces already on the disk are looked for.
    pub compare: &'static str,
    pub disk: &'static str,
}

impl Job {
    /// The image for all terminals, then reboot.
    pub fn for_all() -> Self {
        Job { terminals: None, after: "reboot", compare: "auto", disk: "internal" }
    }
}

/// The server's configuration file.
fn configuration(jobs: &[Job]) -> String {
    let mut text = String::new();
    for (number, job) in jobs.iter().enumerate() {
        let terminals = job.terminals.as_ref().map_or_else(|| "\"all\"".into(), |macs| format!("{macs:?}"));
        text += &format!(
            "[[job]]\nname = \"job-{number}\"\nimage = \"{IMAGE}\"\nterminals = {terminals}\nafter = \"{}\"\n\
             compare = \"{}\"\ndisk = \"{}\"\nlongest_stay = \"60s\"\n\n",
            job.after, job.compare, job.disk
        );
    }
    text + &format!("[boot]\narguments = \"{KERNEL_ARGUMENTS}\"\n")
}

/// Messages of firmwares that find no bootable disk.
pub const NOTHING_BOOTS: [&str; 3] =
    ["No bootable device", "No bootable option or device was found", "UEFI Interactive Shell"];

#[derive(Debug)]
pub struct Lab {
    // Dropped in this order: processes before the namespace they live in.
    server: Guarded,
    dhcp: Guarded,
    pub network: Network,
    pub folder: PathBuf,
}

impl Lab {
    /// Starts network and server. `name` is the folder's; `images` is the repository that is served.
    pub fn start(assets: &Assets, name: &str, jobs: &[Job], images: &Path) -> Result<Self> {
        let folder = assets.folder.join("labs").join(name);
        if folder.exists() {
            fs::remove_dir_all(&folder).with_context(|| format!("removing {}", folder.display()))?;
        }
        fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
        let network = Network::new()?;
        let dhcp = network.serve_dhcp(&assets.netboot, &Dhcp::default(), &folder.join("dnsmasq.log"))?;
        let configuration_file = folder.join("lab.toml");
        fs::write(&configuration_file, configuration(jobs))?;
        let mut args: Vec<PathBuf> = vec!["serve".into()];
        for (flag, value) in [
            ("--images", images.to_path_buf()),
            ("--boot", assets.netboot.clone()),
            ("--config", configuration_file),
            ("--state", folder.join("state")),
            ("--listen", format!("0.0.0.0:{PORT}").into()),
        ] {
            args.extend([flag.into(), value]);
        }
        let log = folder.join("server.log");
        let mut flashmob = command(Some(network.namespace()), &assets.programs.flashmob);
        let server = Guarded::logged(flashmob.args(args), &log)?;
        let mut lab = Lab { server, dhcp, network, folder };
        lab.wait_for_server()?;
        Ok(lab)
    }

    fn wait_for_server(&mut self) -> Result<()> {
        wait_until("the server answers", Duration::from_secs(30), || {
            self.check()?;
            Ok(self.get("/api/v1/terminals").is_ok())
        })
        .with_context(|| tail(&self.folder.join("server.log")))
    }

    /// The server's address as terminals see it.
    pub fn address(&self) -> String {
        format!("http://{SERVER}:{PORT}")
    }

    /// A page of the server.
    pub fn get(&self, path: &str) -> Result<String> {
        let url = format!("{}{path}", self.address());
        self.network.inside(|| {
            let client = reqwest::blocking::Client::builder().timeout(Duration::from_secs(10)).build()?;
            let answer = client.get(&url).send().with_context(|| format!("asking for {url}"))?;
            Ok(answer.error_for_status()?.text()?)
        })
    }

    /// All terminals as the API tells.
    pub fn terminals(&self) -> Result<Vec<TerminalView>> {
        serde_json::from_str(&self.get("/api/v1/terminals")?).context("reading the list of terminals")
    }

    /// The API's entry for `terminal`.
    pub fn view(&self, terminal: &Terminal) -> Result<Option<TerminalView>> {
        Ok(self.terminals()?.into_iter().find(|view| view.macs.contains(&terminal.mac)))
    }

    /// Waits until the API says that `machine`'s terminal is in `state`.
    pub fn wait_for_state(&self, machine: &Machine, state: TerminalState, deadline: Duration) -> Result<()> {
        let mut last = None;
        let what = format!("{} becomes {state:?} on the server", machine.terminal.name);
        let waited = wait_until(&what, deadline, || {
            last = self.view(&machine.terminal)?;
            Ok(last.as_ref().is_some_and(|view| view.state == state))
        });
        if let Err(error) = waited {
            let serial = tail(&machine.terminal.serial());
            bail!("{error:#}; last seen: {last:?}{serial}{}", tail(&self.folder.join("server.log")));
        }
        Ok(())
    }

    /// An error if the server or the DHCP server has ended.
    pub fn check(&mut self) -> Result<()> {
        self.dhcp.check()?;
        self.server.check()
    }

    /// A terminal with an empty disk in this lab's folder.
    pub fn terminal(&self, number: u8, firmware: Firmware, bus: Bus) -> Result<Terminal> {
        Terminal::new(&self.folder, number, firmware, bus, DISK_SIZE)
    }

    /// A terminal with an empty disk that is switched on.
    pub fn netboot(&self, number: u8, firmware: Firmware, bus: Bus) -> Result<Machine> {
        self.terminal(number, firmware, bus)?.switch_on(&self.network, &Start::Network)
    }
}

/// Larger than the golden disk, so that the backup table has to move.
pub const DISK_SIZE: u64 = 160 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_names_its_terminals_or_all() {
        let mac = "52:54:00:fb:00:01".to_string();
        let text = configuration(&[
            Job { terminals: Some(vec![mac]), after: "kexec", ..Job::for_all() },
            Job::for_all(),
        ]);
        assert!(text.contains("terminals = [\"52:54:00:fb:00:01\"]\nafter = \"kexec\""), "{text}");
        assert!(text.contains("terminals = \"all\"\nafter = \"reboot\""), "{text}");
    }
}
