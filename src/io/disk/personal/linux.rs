//! The steps that make an installed Linux its terminal's own.
//!
//! Invariant: each step may be done again with the same result, even after it was cut off, and says what it
//! changed. Nothing is removed that the system cannot make again by itself.

use std::io;

use super::root::Root;
use crate::layout::personal::hosts;

/// What one step came to: what it changed, or nothing.
type Changed = Result<Option<String>, String>;

/// A step for people, and its work.
type Step = (&'static str, fn(&Root, &str) -> Changed);

/// All steps, in their order.
pub(super) const STEPS: [Step; 4] = [
    ("/etc/hostname", hostname),
    ("/etc/hosts", own_line),
    ("/etc/machine-id", machine_id),
    ("SSH host keys", ssh_keys),
];

/// Units and programs that make SSH host keys when there are none.
const MAKES_KEYS: [&str; 9] = [
    "usr/lib/flashmob/first-start",
    "usr/lib/systemd/system/sshd-keygen.target",
    "usr/lib/systemd/system/sshd-keygen@.service",
    "usr/lib/systemd/system/sshd-keygen.service",
    "usr/lib/systemd/system/sshdgenkeys.service",
    "lib/systemd/system/sshd-keygen.service",
    "etc/systemd/system/sshd-keygen.service",
    "etc/systemd/system/regenerate_ssh_host_keys.service",
    "lib/systemd/system/regenerate_ssh_host_keys.service",
];

fn said(path: &str) -> impl Fn(io::Error) -> String {
    move |e| format!("{path}: {e}")
}

fn hostname(root: &Root, name: &str) -> Changed {
    const PATH: &str = "etc/hostname";
    let changed = root.write(PATH, format!("{name}\n").as_bytes()).map_err(said(PATH))?;
    Ok(changed.then(|| format!("/etc/hostname is {name}")))
}

fn own_line(root: &Root, name: &str) -> Changed {
    const PATH: &str = "etc/hosts";
    let Some(text) = root.read(PATH).map_err(said(PATH))? else { return Ok(None) };
    let text = String::from_utf8(text).map_err(|_| "/etc/hosts is no text".to_string())?;
    let Some(new) = hosts(&text, name) else { return Ok(None) };
    let changed = root.write(PATH, new.as_bytes()).map_err(said(PATH))?;
    Ok(changed.then(|| format!("/etc/hosts names {name}")))
}

/// An empty file makes systemd write a new id at the first start (machine-id(5)).
fn machine_id(root: &Root, _: &str) -> Changed {
    const PATH: &str = "etc/machine-id";
    const DBUS: &str = "var/lib/dbus/machine-id";
    let mut changed = false;
    match root.read(PATH).map_err(said(PATH))? {
        None => {}
        Some(id) if id.is_empty() || id.trim_ascii() == b"uninitialized" => {}
        Some(_) => changed = root.write(PATH, b"").map_err(said(PATH))?,
    }
    // Most often it is a link to the former.
    if root.is_file(DBUS).map_err(said(DBUS))? {
        changed |= root.remove(DBUS).map_err(said(DBUS))?;
    }
    Ok(changed.then(|| "/etc/machine-id is made at the first start".into()))
}

fn ssh_keys(root: &Root, _: &str) -> Changed {
    const FOLDER: &str = "etc/ssh";
    let is_key = |name: &String| {
        let name = name.strip_suffix(".pub").unwrap_or(name);
        name.starts_with("ssh_host_") && name.ends_with("_key")
    };
    let keys: Vec<String> = root.names(FOLDER).map_err(said(FOLDER))?.into_iter().filter(is_key).collect();
    if keys.is_empty() {
        return Ok(None);
    }
    if !MAKES_KEYS.iter().any(|path| root.has(path)) {
        return Err(
            "the SSH host keys are those of the golden machine, because nothing in this system makes \
                    new ones: install flashmob-helper in the image"
                .into(),
        );
    }
    for key in keys {
        let path = format!("{FOLDER}/{key}");
        root.remove(&path).map_err(said(&path))?;
    }
    Ok(Some("SSH host keys are made at the first start".into()))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::path::Path;

    use super::*;

    /// A system as it was captured.
    fn golden(folder: &Path, makes_keys: bool) {
        let files = [
            ("etc/hostname", "golden\n"),
            ("etc/hosts", "127.0.0.1\tlocalhost\n127.0.1.1\tgolden.lab golden\n"),
            ("etc/machine-id", "0123456789abcdef0123456789abcdef\n"),
            ("etc/os-release", "ID=debian\n"),
            ("etc/ssh/ssh_host_ed25519_key", "secret"),
            ("etc/ssh/ssh_host_ed25519_key.pub", "public"),
            ("etc/ssh/sshd_config", "Port 22\n"),
            ("var/lib/dbus/machine-id", "0123456789abcdef0123456789abcdef\n"),
        ];
        let helper = [("usr/lib/flashmob/first-start", "#!/bin/sh\n")];
        for (path, content) in files.into_iter().chain(helper.into_iter().filter(|_| makes_keys)) {
            let path = folder.join(path);
            fs::create_dir_all(path.parent().expect("a folder")).expect("made");
            fs::write(path, content).expect("written");
        }
    }

    /// All files with their content.
    fn tree(folder: &Path) -> BTreeMap<String, String> {
        let mut found = BTreeMap::new();
        let mut todo = vec![folder.to_path_buf()];
        while let Some(next) = todo.pop() {
            for entry in fs::read_dir(next).expect("listed").flatten() {
                let path = entry.path();
                match path.is_dir() {
                    true => todo.push(path),
                    false => {
                        let name = path.strip_prefix(folder).expect("below").display().to_string();
                        found.insert(name, fs::read_to_string(&path).expect("text"));
                    }
                }
            }
        }
        found
    }

    fn run(folder: &Path, steps: &[Step]) -> Vec<Changed> {
        let root = Root::open(folder).expect("open");
        steps.iter().map(|(_, work)| work(&root, "lab-01")).collect()
    }

    #[test]
    fn a_debian_gets_its_name_and_makes_machine_id_and_host_keys_anew() {
        let dir = tempfile::tempdir().expect("temp");
        golden(dir.path(), true);
        let said = run(dir.path(), &STEPS);
        assert!(said.iter().all(|step| matches!(step, Ok(Some(_)))), "{said:?}");
        let now = tree(dir.path());
        let expected = [
            ("etc/hostname", "lab-01\n"),
            ("etc/hosts", "127.0.0.1\tlocalhost\n127.0.1.1\tlab-01\n"),
            ("etc/machine-id", ""),
            ("etc/os-release", "ID=debian\n"),
            ("etc/ssh/sshd_config", "Port 22\n"),
            ("usr/lib/flashmob/first-start", "#!/bin/sh\n"),
        ];
        assert_eq!(now, expected.map(|(name, text)| (name.to_string(), text.to_string())).into());
        assert!(run(dir.path(), &STEPS).iter().all(|step| *step == Ok(None)), "nothing is left to do");
    }

    #[test]
    fn steps_that_were_cut_off_anywhere_are_finished_with_the_same_result() {
        let whole = tempfile::tempdir().expect("temp");
        golden(whole.path(), true);
        run(whole.path(), &STEPS);
        for done in 0..=STEPS.len() {
            let dir = tempfile::tempdir().expect("temp");
            golden(dir.path(), true);
            run(dir.path(), &STEPS[..done]);
            // The next file is emptied when the power fails.
            for file in ["etc/hostname", "etc/machine-id"].iter().skip(usize::from(done > 0)).take(1) {
                fs::write(dir.path().join(file), "").expect("cut off");
            }
            run(dir.path(), &STEPS);
            assert_eq!(tree(dir.path()), tree(whole.path()), "cut off after {done} steps");
        }
    }

    #[test]
    fn host_keys_that_nothing_makes_again_stay_and_are_named() {
        let dir = tempfile::tempdir().expect("temp");
        golden(dir.path(), false);
        let said = run(dir.path(), &STEPS);
        assert!(said[3].as_ref().is_err_and(|why| why.contains("flashmob-helper")), "{said:?}");
        assert!(dir.path().join("etc/ssh/ssh_host_ed25519_key").exists());
    }

    #[test]
    fn what_is_a_link_stays_and_an_id_that_is_not_there_is_not_made() {
        let dir = tempfile::tempdir().expect("temp");
        golden(dir.path(), true);
        fs::remove_file(dir.path().join("var/lib/dbus/machine-id")).expect("removed");
        symlink("/etc/machine-id", dir.path().join("var/lib/dbus/machine-id")).expect("linked");
        fs::remove_file(dir.path().join("etc/hostname")).expect("removed");
        symlink("/nix/store/hostname", dir.path().join("etc/hostname")).expect("linked");
        fs::write(dir.path().join("etc/machine-id"), "uninitialized\n").expect("written");
        let said = run(dir.path(), &STEPS);
        assert!(said[0].as_ref().is_err_and(|why| why.contains("symbolic link")), "{said:?}");
        assert_eq!(said[2], Ok(None));
        assert!(dir.path().join("var/lib/dbus/machine-id").is_symlink());
        fs::remove_file(dir.path().join("etc/machine-id")).expect("removed");
        run(dir.path(), &STEPS);
        assert!(!dir.path().join("etc/machine-id").exists());
    }
}
