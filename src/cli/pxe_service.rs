//! The settings with which the service flashmob.service answers netbooting machines: capabilities that its
//! unit does not have by itself, and the options of `flashmob serve`.
//!
//! Invariant: one file, written whole or not at all; no other setting of the service is touched.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use crate::event::Failure;
use crate::server::domain::pxe::PxeConfig;

/// Where systemd looks for additions to the unit.
pub(super) const FOLDER: &str = "/etc/systemd/system/flashmob.service.d";
const NAME: &str = "pxe.conf";
const CAPABILITIES: &str = include_str!("../packaging/pxe.conf");

/// Lets the service answer netbooting machines as `options` say, and restarts it.
pub(super) fn enable(options: &PxeConfig, folder: &Path, systemctl: &str) -> Result<(), Failure> {
    let file = folder.join(NAME);
    let text = addition(options)?;
    write(folder, &text).map_err(|e| not_written(&file, &e))?;
    restart(systemctl)?;
    println!("{} is written; the service answers netbooting machines from now on.", file.display());
    Ok(())
}

/// Takes the settings away, and restarts the service.
pub(super) fn disable(folder: &Path, systemctl: &str) -> Result<(), Failure> {
    let file = folder.join(NAME);
    match fs::remove_file(&file) {
        Ok(()) => {}
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            return Err(Failure::usage(
                format!("there is no {}, so nothing is changed", file.display()),
                "Options in /etc/default/flashmob and [pxe] in the configuration are yours to remove.",
            ));
        }
        Err(e) => return Err(not_written(&file, &e)),
    }
    restart(systemctl)?;
    println!("{} is removed; the service answers netbooting machines no longer.", file.display());
    Ok(())
}

fn not_written(file: &Path, e: &io::Error) -> Failure {
    Failure::refused(format!("changing {}: {e}", file.display()), "Run it as root.")
}

fn write(folder: &Path, text: &str) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    // systemd reads only names that end in ".conf".
    let draft = folder.join(format!("{NAME}.new"));
    fs::write(&draft, text)?;
    fs::set_permissions(&draft, fs::Permissions::from_mode(0o644))?;
    fs::File::open(&draft)?.sync_all()?;
    fs::rename(&draft, folder.join(NAME))
}

/// The addition to the unit (systemd.unit(5), systemd.exec(5)).
fn addition(options: &PxeConfig) -> Result<String, Failure> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-:".contains(c);
    if let Some(odd) = options.interfaces.iter().find(|name| !name.chars().all(plain)) {
        return Err(Failure::usage(
            format!("the interface's name '{odd}' cannot be in an option of a service"),
            "Name it under [pxe] in the configuration, and give this command no --pxe.",
        ));
    }
    let ranges = |option: &str, ranges: &[_]| {
        let word = |range: &crate::server::domain::pxe::Range| format!(" {option} {}", range.to_words());
        ranges.iter().map(word).collect::<String>()
    };
    let mut words = String::new();
    if options.is_on() {
        words = format!("--pxe {}", options.interfaces.join(","));
        words += &ranges("--pxe-range", &options.ranges);
        words += &ranges("--pxe-firmware", &options.firmware);
        words.extend(options.subnets.iter().map(|subnet| format!(" --pxe-subnet {subnet}")));
    }
    Ok(format!("{CAPABILITIES}Environment=\"FLASHMOB_PXE={words}\"\n"))
}

fn restart(systemctl: &str) -> Result<(), Failure> {
    for words in [&["daemon-reload"][..], &["restart", "flashmob.service"]] {
        let done = Command::new(systemctl).args(words).status();
        let why = match done {
            Ok(status) if status.success() => continue,
            Ok(status) => status.to_string(),
            Err(e) => e.to_string(),
        };
        return Err(Failure::retry(
            format!("'systemctl {}': {why}", words.join(" ")),
            "'journalctl -u flashmob' tells why. The settings are written; repeat the command afterwards.",
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testkit::programs::write_script;

    fn options() -> PxeConfig {
        PxeConfig {
            interfaces: vec!["eth0".into(), "eth1".into()],
            ranges: vec!["10.1.0.10,10.1.0.20,255.255.0.0".parse().expect("a range")],
            firmware: vec!["10.0.0.240,10.0.0.250".parse().expect("a range")],
            subnets: vec!["10.9.0.0/24".parse().expect("a network")],
        }
    }

    #[test]
    fn the_service_gets_its_capabilities_and_the_options_that_were_typed() {
        let text = addition(&options()).expect("plain");
        let options = "\nEnvironment=\"FLASHMOB_PXE=--pxe eth0,eth1 --pxe-range \
                       10.1.0.10,10.1.0.20,255.255.0.0 --pxe-firmware 10.0.0.240,10.0.0.250 --pxe-subnet \
                       10.9.0.0/24\"\n";
        assert!(text.ends_with(options), "{text}");
        assert!(text.contains("\nAmbientCapabilities=CAP_NET_ADMIN CAP_NET_BIND_SERVICE CAP_NET_RAW\n"));
        assert!(include_str!("../packaging/flashmob.service").contains("/var/lib/flashmob $FLASHMOB_PXE $"));
        let from_configuration = addition(&PxeConfig::default()).expect("nothing typed");
        assert!(from_configuration.ends_with("\nEnvironment=\"FLASHMOB_PXE=\"\n"), "{from_configuration}");
        let odd = PxeConfig { interfaces: vec!["a%\"".into()], ..PxeConfig::default() };
        assert!(addition(&odd).expect_err("odd").message.contains("a%"));
    }

    #[test]
    fn the_settings_come_and_go_and_each_time_the_service_restarts() {
        let work = tempfile::tempdir().expect("a folder");
        let [folder, systemctl, log] = ["service.d", "systemctl", "log"].map(|name| work.path().join(name));
        write_script(&systemctl, &format!("echo \"$@\" >>{}", log.display()));
        let systemctl = systemctl.to_str().expect("text");
        enable(&options(), &folder, systemctl).expect("enabled");
        assert!(fs::read_to_string(folder.join(NAME)).expect("there").contains("--pxe eth0,eth1"));
        assert_eq!(fs::read_dir(&folder).expect("there").count(), 1, "no draft is left");
        disable(&folder, systemctl).expect("disabled");
        assert!(!folder.join(NAME).exists());
        let said = fs::read_to_string(&log).expect("restarted");
        assert_eq!(said, "daemon-reload\nrestart flashmob.service\n".repeat(2));
        assert!(
            disable(&folder, systemctl).expect_err("nothing there").message.contains("nothing is changed")
        );
        let failed = enable(&options(), &folder, "/nowhere/systemctl").expect_err("no systemd");
        assert!(failed.message.contains("daemon-reload") && folder.join(NAME).exists(), "{failed:?}");
    }
}
