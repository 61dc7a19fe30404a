//! A lab for one test: network, server and terminals in one folder, the administrator's commands, and
//! queries to the server.
//!
//! Invariant: dropping the lab ends every process; its logs stay until the next run of the same name.
//! Terminals and jobs come to the server by the commands that people type, on the server's own machine.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use flashmob::api::{TerminalState, TerminalView};
use flashmob_testkit::child::{Guarded, command, tail, wait_until};
use flashmob_testkit::command::try_command;

use crate::assets::{Assets, IMAGE, KERNEL_ARGUMENTS};
use crate::machine::{Bus, Firmware, Machine, Start, Terminal, mac_of};
use crate::net::{Dhcp, Network, SERVER};

pub const PORT: u16 = 6969;
/// The room in which all terminals are.
pub const ROOM: &str = "qemu";

/// A job as the administrator creates it.
#[derive(Debug, Clone)]
pub struct Job {
    /// Labels, MACs, `room:…`, `all`.
    pub targets: Vec<String>,
    /// `reboot`, `kexec`, `poweroff`.
    pub after: &'static str,
    /// `auto` or `full`: whether pieces already on the disk are looked for.
    pub compare: &'static str,
    pub disk: &'static str,
    /// The rule for host names. Without one the image is left as it was captured, so that the disk can be
    /// compared with it.
    pub hostname: Option<&'static str>,
}

impl Job {
    /// The image for all terminals, then reboot.
    pub fn for_all() -> Self {
        let targets = vec!["all".into()];
        Job { targets, after: "reboot", compare: "auto", disk: "internal", hostname: None }
    }

    /// The words of the command that creates it.
    pub fn words(&self) -> Vec<&str> {
        let mut words = vec!["job", "create", IMAGE];
        words.extend(self.targets.iter().map(String::as_str));
        words.extend(["--disk", self.disk, "--compare", self.compare, "--after", self.after]);
        words.extend(["--longest-stay", "60s"]);
        match self.hostname {
            Some(rule) => words.extend(["--hostname", rule]),
            None => words.push("--as-is"),
        }
        words
    }
}

/// The label of the terminal with this number.
pub fn label(number: u8) -> String {
    format!("lab-{number:02}")
}

/// Terminals by their numbers, as `flashmob terminal import` reads them.
fn table_of(numbers: &[u8]) -> String {
    let mut text = "mac,label,room,seat\n".to_string();
    for number in numbers {
        text += &format!("{},{},{ROOM},{number}\n", mac_of(*number), label(*number));
    }
    text
}

/// Messages of firmwares that find no bootable disk.
pub const NOTHING_BOOTS: [&str; 3] =
    ["No bootable device", "No bootable option or device was found", "UEFI Interactive Shell"];

#[derive(Debug)]
pub struct Lab {
    /// The administrator's program.
    flashmob: PathBuf,
    // Dropped in this order: processes before the namespace they live in.
    server: Guarded,
    dhcp: Guarded,
    pub network: Network,
    pub folder: PathBuf,
}

impl Lab {
    /// Starts network and server, imports the terminals with these numbers, and creates `job`. `name` is
    /// the folder's; `images` is the repository that is served.
    pub fn start(assets: &Assets, name: &str, terminals: &[u8], job: &Job, images: &Path) -> Result<Self> {
        let lab = Lab::without_job(assets, name, images, &[])?;
        lab.give(terminals, job)?;
        Ok(lab)
    }

    /// Imports the terminals with these numbers and creates `job`.
    pub fn give(&self, terminals: &[u8], job: &Job) -> Result<()> {
        let table = self.write_table(terminals)?;
        self.flashmob(&["terminal", "import", &table.to_string_lossy()])?;
        self.flashmob(&job.words()).map(drop)
    }

    /// Starts network and server, with `more` options. The server knows no terminal.
    pub fn without_job(assets: &Assets, name: &str, images: &Path, more: &[PathBuf]) -> Result<Self> {
        Lab::serve(assets, name, images, more, |network, log| {
            network.serve_dhcp(&assets.netboot, &Dhcp::default(), log)
        })
    }

    /// The same beside a DHCP server that knows nothing of flashmob: the server answers terminals itself.
    pub fn beside_dhcp(assets: &Assets, name: &str, images: &Path, more: &[&str]) -> Result<Self> {
        let more: Vec<PathBuf> = ["--pxe", "lab"].iter().chain(more).map(PathBuf::from).collect();
        Lab::serve(assets, name, images, &more, |network, log| network.existing_dhcp(log))
    }

    fn serve(
        assets: &Assets,
        name: &str,
        images: &Path,
        more: &[PathBuf],
        dhcp: impl FnOnce(&Network, &Path) -> Result<Guarded>,
    ) -> Result<Self> {
        let folder = assets.folder.join("labs").join(name);
        if folder.exists() {
            fs::remove_dir_all(&folder).with_context(|| format!("removing {}", folder.display()))?;
        }
        fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
        let network = Network::new()?;
        let dhcp = dhcp(&network, &folder.join("dnsmasq.log"))?;
        let configuration_file = folder.join("lab.toml");
        fs::write(&configuration_file, format!("[boot]\narguments = \"{KERNEL_ARGUMENTS}\"\n"))?;
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
        args.extend_from_slice(more);
        let log = folder.join("server.log");
        let flashmob = assets.programs.flashmob.clone();
        let mut serve = command(Some(network.namespace()), &flashmob);
        let server = Guarded::logged(serve.args(args), &log)?;
        let mut lab = Lab { flashmob, server, dhcp, network, folder };
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

    /// Writes the table of the terminals with these numbers.
    pub fn write_table(&self, numbers: &[u8]) -> Result<PathBuf> {
        let file = self.folder.join("room.csv");
        fs::write(&file, table_of(numbers)).with_context(|| format!("writing {}", file.display()))?;
        Ok(file)
    }

    /// Runs a command of the administrator on the server's machine; the answer is its output.
    pub fn flashmob(&self, words: &[&str]) -> Result<String> {
        let mut flashmob = command(Some(self.network.namespace()), &self.flashmob);
        try_command(flashmob.args(words).args(["--server", &self.address()]))
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
    fn a_job_is_created_by_the_command_that_people_type() {
        let job = Job { targets: vec![label(1), mac_of(2)], after: "kexec", ..Job::for_all() };
        assert_eq!(
            job.words().join(" "),
            "job create golden lab-01 52:54:00:fb:00:02 --disk internal --compare auto --after kexec \
             --longest-stay 60s --as-is"
        );
    }

    #[test]
    fn terminals_are_imported_with_label_room_and_seat() {
        assert_eq!(table_of(&[1]), "mac,label,room,seat\n52:54:00:fb:00:01,lab-01,qemu,1\n");
    }
}
