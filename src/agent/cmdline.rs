//! The kernel command line's `flashmob.*` keys.
//!
//! Invariant: an unknown key or a malformed value is an error, because a typing mistake must not image the
//! wrong disk. The machine that answers PXE writes this line, so it cannot make the agent trust anything
//! (`flashmob.insecure` has an effect only if the initramfs allows it). Its only secret is a ticket, which is
//! good once.

use crate::api::After;
use crate::lan::discovery::server_url;

/// The settings on the kernel's command line.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cmdline {
    pub server: Option<String>,
    pub job: Option<String>,
    /// `flashmob.ticket`: lets this terminal speak to the server that wrote the line.
    pub ticket: Option<String>,
    /// `flashmob.disk`: a rule that goes before the job's.
    pub disk: Option<String>,
    /// `flashmob.after`: goes before the job's.
    pub after: Option<After>,
    pub log: Option<log::LevelFilter>,
    pub insecure: bool,
    /// `flashmob.direct`: no script of a server started the agent, so it asks itself what there is to do.
    pub direct: bool,
    /// `BOOTIF`: MAC address of the interface that PXE used, `aa:bb:cc:dd:ee:ff`.
    pub boot_mac: Option<String>,
}

/// Reads `/proc/cmdline`. Keys of the kernel and of others are left alone. All mistakes are reported at once.
pub fn parse(text: &str) -> Result<Cmdline, Vec<String>> {
    let mut line = Cmdline::default();
    let mut wrong = Vec::new();
    for word in words(text) {
        let (key, value) = match word.split_once('=') {
            Some((key, value)) => (key, Some(value)),
            None => (word.as_str(), None),
        };
        if key == "BOOTIF" {
            line.boot_mac = value.and_then(boot_mac);
        } else if let Some(name) = key.strip_prefix("flashmob.")
            && let Err(why) = set(&mut line, name, value.unwrap_or_default())
        {
            wrong.push(format!("{word}: {why}"));
        }
    }
    if wrong.is_empty() { Ok(line) } else { Err(wrong) }
}

fn set(line: &mut Cmdline, name: &str, value: &str) -> Result<(), String> {
    let needed =
        || if value.is_empty() { Err("a value is missing".to_owned()) } else { Ok(value.to_owned()) };
    match name {
        "server" => line.server = Some(server_url(&needed()?)?),
        "job" => line.job = Some(needed()?),
        "ticket" => line.ticket = Some(needed()?),
        "disk" => line.disk = Some(needed()?),
        "after" => line.after = Some(needed()?.parse()?),
        "log" => {
            let level = needed()?.parse();
            line.log = Some(level.map_err(|_| "not one of off, error, warn, info, debug, trace".to_owned())?);
        }
        "insecure" => line.insecure = yes_or_no(value)?,
        "direct" => line.direct = yes_or_no(value)?,
        _ => {
            return Err(
                "not known; known are flashmob.server, .ticket, .job, .disk, .after, .log, .insecure and \
                 .direct"
                    .into(),
            );
        }
    }
    Ok(())
}

fn yes_or_no(value: &str) -> Result<bool, String> {
    match value {
        "1" => Ok(true),
        "0" => Ok(false),
        _ => Err("not 0 or 1".into()),
    }
}

/// The words of the line; double quotes hold blanks, as the kernel reads them.
fn words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut quoted = false;
    for c in text.chars() {
        match c {
            '"' => quoted = !quoted,
            c if c.is_whitespace() && !quoted => {
                if !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
            }
            c => word.push(c),
        }
    }
    if !word.is_empty() {
        words.push(word);
    }
    words
}

/// pxelinux writes `01-aa-bb-cc-dd-ee-ff`, iPXE scripts often `aa:bb:cc:dd:ee:ff`.
fn boot_mac(text: &str) -> Option<String> {
    let text = text.to_ascii_lowercase().replace('-', ":");
    let mac = if text.len() == 20 { text.strip_prefix("01:")? } else { &text };
    let bytes: Vec<&str> = mac.split(':').collect();
    let hex = |byte: &&str| byte.len() == 2 && byte.bytes().all(|b| b.is_ascii_hexdigit());
    (bytes.len() == 6 && bytes.iter().all(hex)).then(|| mac.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn all_keys_are_read_and_the_kernels_are_left_alone() {
        let text = "quiet console=ttyS0,115200 flashmob.server=10.0.0.1 flashmob.job=night \
            flashmob.ticket=0f flashmob.after=poweroff \"flashmob.disk=model=Disk 7\" flashmob.log=debug \
            flashmob.insecure=1 flashmob.direct=1 BOOTIF=01-52-54-00-AA-bb-01\n";
        let line = parse(text).unwrap();
        assert_eq!(
            line,
            Cmdline {
                server: Some("http://10.0.0.1:6969".into()),
                job: Some("night".into()),
                ticket: Some("0f".into()),
                disk: Some("model=Disk 7".into()),
                after: Some(After::Poweroff),
                log: Some(log::LevelFilter::Debug),
                insecure: true,
                direct: true,
                boot_mac: Some("52:54:00:aa:bb:01".into()),
            }
        );
        assert_eq!(parse("BOOT_IMAGE=/vmlinuz root=/dev/sda2 ro"), Ok(Cmdline::default()));
        assert_eq!(parse("BOOTIF=52:54:00:12:34:56").unwrap().boot_mac.as_deref(), Some("52:54:00:12:34:56"));
        assert_eq!(parse("BOOTIF=eth0").unwrap().boot_mac, None);
    }

    #[test]
    fn every_mistake_is_named() {
        let wrong =
            parse("flashmob.serve=x flashmob.after=halt flashmob.insecure flashmob.disk=").unwrap_err();
        assert_eq!(wrong.len(), 4);
        assert!(wrong[0].starts_with("flashmob.serve=x: not known"), "{wrong:?}");
        assert!(wrong[1].contains("'halt' is not one of reboot"), "{wrong:?}");
        assert!(wrong[3].contains("missing"), "{wrong:?}");
    }

    proptest! {
        #[test]
        fn no_line_makes_it_panic(text in "\\PC{0,200}") {
            let _ = parse(&text);
        }

        #[test]
        fn an_unknown_key_never_passes(key in "[a-z]{1,12}", before in "[a-z =]{0,20}") {
            let known = ["server", "ticket", "job", "disk", "after", "log", "insecure"];
            prop_assume!(!known.contains(&key.as_str()));
            let text = format!("{before} flashmob.{key}=1");
            prop_assert!(parse(&text).is_err());
        }

        #[test]
        fn values_without_quotes_come_through(job in "[!-~&&[^\"]]{1,20}") {
            let text = format!("a flashmob.job={job} b");
            prop_assert_eq!(parse(&text).unwrap().job, Some(job));
        }
    }
}
