//! The systemd unit: it can be loaded, and it gives the server no right that it does not need.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const UNIT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/packaging/flashmob.service");

/// The unit with this build's program, because systemd looks for it.
fn unit_in(folder: &Path) -> PathBuf {
    let text = std::fs::read_to_string(UNIT).unwrap();
    let unit = folder.join("flashmob.service");
    std::fs::write(&unit, text.replace("/usr/bin/flashmob", env!("CARGO_BIN_EXE_flashmob"))).unwrap();
    unit
}

/// `None` where systemd is not installed, and the test says that it checked nothing.
fn analyze(arguments: &[&str], unit: &Path) -> Option<Output> {
    match Command::new("systemd-analyze").args(arguments).arg(unit).output() {
        Ok(output) => Some(output),
        Err(error) => {
            eprintln!("SKIPPED: systemd-analyze cannot be started ({error})");
            None
        }
    }
}

#[test]
fn systemd_loads_the_unit_without_a_complaint() {
    let folder = tempfile::tempdir().unwrap();
    let unit = unit_in(folder.path());
    let Some(output) = analyze(&["verify", "--man=no"], &unit) else { return };
    let words = String::from_utf8_lossy(&output.stderr);
    let ours: Vec<&str> = words.lines().filter(|line| line.contains("flashmob")).collect();
    assert!(output.status.success() && ours.is_empty(), "{words}");
}

#[test]
fn the_unit_is_exposed_as_little_as_a_network_service_can_be() {
    let folder = tempfile::tempdir().unwrap();
    let unit = unit_in(folder.path());
    let arguments = ["security", "--offline=true", "--no-pager", "--threshold=15"];
    let Some(output) = analyze(&arguments, &unit) else { return };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}
