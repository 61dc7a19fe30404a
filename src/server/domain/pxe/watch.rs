//! What dnsmasq does, and terminals that fetched a first program and never came back.
//!
//! Firmware with Secure Boot refuses an unsigned program without a word to anybody. The server can only see
//! that a first program was fetched and that nothing followed it: no script, no second program.
//!
//! Invariant: bounded; a terminal is warned about once for each program that it fetched.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use super::plan::{SHIM, UNIFIED};
use crate::api::Refusal;
use crate::server::domain::catalog::Problem;
use crate::units::Mac;

/// The programs that firmware fetches first.
const FIRST_STAGES: [&str; 4] = ["undionly.kpxe", "snponly.efi", SHIM, UNIFIED];
/// A program that runs asks for more within this time: iPXE may wait 40 s for a switch port.
const ANSWER: Duration = Duration::from_secs(120);
/// A terminal stays a problem for so long, unless it comes.
const REMEMBER: Duration = Duration::from_secs(12 * 3600);
/// Terminals that are remembered.
const MOST: usize = 4096;

/// A first program on its way.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Fetched {
    file: String,
    way: Way,
    at: Duration,
    mac: Option<Mac>,
    warned: bool,
}

/// How a file travelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    Tftp,
    Http,
}

impl Way {
    fn word(self) -> &'static str {
        match self {
            Way::Tftp => "TFTP",
            Way::Http => "HTTP",
        }
    }
}

/// What people should know about netboot.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    /// Why dnsmasq does not run, or does not follow a change.
    pub trouble: Option<Refusal>,
    /// First programs that are missing.
    pub lacks: Option<Refusal>,
    /// Other servers that answer.
    pub others: Vec<Refusal>,
    fetched: HashMap<Ipv4Addr, Fetched>,
}

/// The file and the address of dnsmasq's line about a file that it has sent.
pub(crate) fn sent(line: &str) -> Option<(&str, Ipv4Addr)> {
    let (path, address) = line.split_once(": sent ")?.1.rsplit_once(" to ")?;
    Some((path.rsplit_once('/').map_or(path, |(_, name)| name), address.trim().parse().ok()?))
}

impl Watch {
    /// A terminal has fetched a file; `mac` if it is known which terminal has that address.
    pub(crate) fn fetched(
        &mut self,
        now: Duration,
        (file, way): (&str, Way),
        address: Ipv4Addr,
        mac: Option<Mac>,
    ) {
        if !FIRST_STAGES.contains(&file) {
            self.came(address.into(), &[]);
            return;
        }
        if self.fetched.len() >= MOST && !self.fetched.contains_key(&address) {
            let oldest = self.fetched.iter().min_by_key(|(_, one)| one.at).map(|(address, _)| *address);
            oldest.map(|oldest| self.fetched.remove(&oldest));
        }
        let warned = self.fetched.get(&address).is_some_and(|one| one.warned && one.file == file);
        self.fetched.insert(address, Fetched { file: file.to_string(), way, at: now, mac, warned });
    }

    /// A terminal speaks: its first program runs. iPXE may have another address than the firmware had.
    pub(crate) fn came(&mut self, address: IpAddr, macs: &[Mac]) {
        let came = |at: &Ipv4Addr, one: &Fetched| {
            IpAddr::V4(*at) == address.to_canonical() || one.mac.is_some_and(|mac| macs.contains(&mac))
        };
        self.fetched.retain(|at, one| !came(at, one));
    }

    /// The terminals that have been silent for too long since the last call of this function.
    pub(crate) fn overdue(&mut self, now: Duration) -> Vec<Problem> {
        self.fetched.retain(|_, one| now.saturating_sub(one.at) < REMEMBER);
        let late = |one: &Fetched| !one.warned && now.saturating_sub(one.at) >= ANSWER;
        let mut found = Vec::new();
        for (address, one) in self.fetched.iter_mut().filter(|(_, one)| late(one)) {
            one.warned = true;
            found.push(silent(now, *address, one));
        }
        found
    }

    /// All that a person should look at.
    pub(crate) fn problems(&self, now: Duration) -> Vec<Problem> {
        let mut late: Vec<_> = self.fetched.iter().filter(|(_, one)| one.warned).collect();
        late.sort_by_key(|(address, one)| (one.at, **address));
        let silent = late.into_iter().map(|(address, one)| silent(now, *address, one));
        let known = self.trouble.iter().chain(&self.lacks).chain(&self.others);
        let known = known.map(|Refusal { error, advice }| Problem {
            what: "netboot".into(),
            error: error.clone(),
            advice: advice.clone(),
        });
        known.chain(silent).collect()
    }
}

fn silent(now: Duration, address: Ipv4Addr, one: &Fetched) -> Problem {
    let who = one.mac.map(|mac| format!("{mac} at {address}")).unwrap_or_else(|| address.to_string());
    let ago = now.saturating_sub(one.at).as_secs();
    let (why, advice) = match one.file.as_str() {
        "undionly.kpxe" => (
            "it does not run there, or does not reach this server",
            "Look at the terminal's screen, and at the firewall of this machine (6969/tcp).",
        ),
        SHIM => (
            "its firmware may not trust Debian's key",
            "Look at the terminal's screen; Secure Boot must have Microsoft's 3rd party UEFI CA enrolled.",
        ),
        UNIFIED => (
            "its firmware may not know the key that signed it",
            "Look at the terminal's screen; enrol the certificate of --sign-cert where Secure Boot is on.",
        ),
        _ => (
            "Secure Boot may be on, which refuses it without a word",
            "Build the netboot files with --secure-boot debian, or look at its screen if it is off.",
        ),
    };
    Problem {
        what: "netboot".into(),
        error: format!(
            "{who} fetched {} by {} {ago} s ago and never came back: {why}",
            one.file,
            one.way.word()
        ),
        advice: advice.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 50);
    const MAC: Mac = Mac([2, 0, 0, 0, 0, 1]);

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn only_lines_about_files_that_were_sent_whole_count() {
        let line = "dnsmasq-tftp: sent /srv/the boot/snponly.efi to 10.0.0.50";
        assert_eq!(sent(line), Some(("snponly.efi", ADDRESS)));
        assert_eq!(sent("dnsmasq-tftp[77]: sent /srv/boot/a to 10.0.0.50"), Some(("a", ADDRESS)));
        for other in [
            "dnsmasq-tftp: failed sending /srv/boot/snponly.efi to 10.0.0.50",
            "dnsmasq-tftp: error 8 User aborted the transfer received from 10.0.0.50",
            "dnsmasq-dhcp: PXE(eth0) 52:54:00:00:00:09 proxy",
            "",
        ] {
            assert_eq!(sent(other), None, "{other}");
        }
    }

    #[test]
    fn a_terminal_that_never_comes_back_is_warned_about_once_and_stays_a_problem_until_it_comes() {
        let mut watch = Watch::default();
        watch.fetched(at(0), ("snponly.efi", Way::Tftp), ADDRESS, Some(MAC));
        assert_eq!((watch.overdue(at(119)), watch.problems(at(119))), (vec![], vec![]));
        let warned = watch.overdue(at(120));
        let says = "02:00:00:00:00:01 at 10.0.0.50 fetched snponly.efi by TFTP 120 s ago and never came back";
        assert!(warned[0].error.starts_with(says) && warned[0].error.contains("Secure Boot"), "{warned:?}");
        assert_eq!(watch.overdue(at(121)), []);
        watch.fetched(at(300), ("snponly.efi", Way::Tftp), ADDRESS, Some(MAC));
        assert_eq!(watch.overdue(at(500)), [], "the next try of the same machine is not news");
        assert_eq!(watch.problems(at(500)).len(), 1);
        watch.came("10.0.0.99".parse().expect("an address"), &[MAC]);
        assert_eq!(watch.problems(at(500)), [], "iPXE may have another address");
    }

    #[test]
    fn the_script_and_a_second_program_are_signs_of_life() {
        let mut watch = Watch::default();
        watch.fetched(at(0), ("undionly.kpxe", Way::Tftp), ADDRESS, None);
        watch.came("::ffff:10.0.0.50".parse().expect("an address"), &[]);
        assert_eq!(watch.overdue(at(500)), []);
        watch.fetched(at(500), (SHIM, Way::Tftp), ADDRESS, None);
        watch.fetched(at(501), ("grubx64.efi", Way::Tftp), ADDRESS, None);
        assert_eq!(watch.overdue(at(900)), []);
    }

    #[test]
    fn it_remembers_no_more_than_it_may() {
        let mut watch = Watch::default();
        for n in 0..5000u32 {
            watch.fetched(at(u64::from(n)), ("snponly.efi", Way::Tftp), Ipv4Addr::from(n), None);
        }
        assert_eq!(watch.fetched.len(), MOST);
        assert!(watch.fetched.contains_key(&Ipv4Addr::from(4999)));
        assert_eq!(watch.overdue(at(5000) + REMEMBER), []);
    }
}
