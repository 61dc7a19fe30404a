//! The Debian package: what it has, and that a server with its configuration does nothing to anybody.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use flashmob::server::domain::config::Config;
use flashmob_testkit::child::{Guarded, command};
use flashmob_testkit::command::{run, run_command};

const SOURCE: &str = env!("CARGO_MANIFEST_DIR");

/// The folder of this build's programs.
fn programs() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_flashmob")).parent().unwrap()
}

/// What the package cannot be built without, and is not here.
fn missing() -> Vec<String> {
    let tools = ["flashmob-mkimage", "flashmob-initramfs"].map(|tool| programs().join(tool));
    let agent = Path::new(SOURCE).join("target/x86_64-unknown-linux-musl/agent/flashmob-agent");
    let files = tools.into_iter().chain([agent]).filter(|file| !file.exists());
    let mut missing: Vec<String> = files.map(|file| file.display().to_string()).collect();
    for (tool, option) in [("cargo-deb", "--version"), ("dpkg-deb", "--version")] {
        if Command::new(tool).arg(option).output().is_err() {
            missing.push(tool.into());
        }
    }
    missing
}

#[test]
fn the_package_has_all_that_the_service_and_the_builder_of_netboot_files_look_for() {
    let missing = missing();
    if !missing.is_empty() {
        eprintln!("SKIPPED: the package cannot be built without {}", missing.join(", "));
        return;
    }
    let script = Path::new(SOURCE).join("src/packaging/build-deb.sh");
    let built = run_command(Command::new(script).arg("--from").arg(programs()));
    let package = String::from_utf8(built.stdout).unwrap().trim().to_string();
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    run("dpkg-deb", &[&"-x", &Path::new(SOURCE).join(&package), &folder.path()]);
    run("dpkg-deb", &[&"-e", &Path::new(SOURCE).join(&package), &at("DEBIAN")]);

    for tool in ["usr/bin/flashmob", "usr/bin/flashmob-mkimage", "usr/bin/flashmob-initramfs"] {
        let said = run(at(tool), &[&"--version"]);
        assert!(String::from_utf8_lossy(&said.stdout).contains(env!("CARGO_PKG_VERSION")), "{tool}");
    }
    let help = run(at("usr/bin/flashmob-initramfs"), &[&"build", &"--help"]);
    let help = String::from_utf8_lossy(&help.stdout).into_owned();
    assert!(
        help.contains("/usr/lib/flashmob/flashmob-agent") && at("usr/lib/flashmob/flashmob-agent").exists()
    );
    for file in [
        "usr/lib/systemd/system/flashmob.service",
        "usr/lib/sysusers.d/flashmob.conf",
        "usr/share/man/man1/flashmob-serve.1.gz",
        "usr/share/man/man1/flashmob-mkimage-capture.1.gz",
        "usr/share/bash-completion/completions/flashmob",
        "usr/share/doc/flashmob/operations.md",
        "usr/share/doc/flashmob/netboot.md",
    ] {
        assert!(at(file).exists(), "{file}");
    }
    for script in ["postinst", "prerm", "postrm"] {
        run("sh", &[&"-n", &at("DEBIAN").join(script)]);
    }
    let kept = std::fs::read_to_string(at("DEBIAN/conffiles")).unwrap();
    assert_eq!(kept.lines().collect::<Vec<_>>(), ["/etc/flashmob/config.toml", "/etc/default/flashmob"]);
    let sample = std::fs::read_to_string(at("usr/share/doc/flashmob/examples/config.toml")).unwrap();
    let installed = std::fs::read_to_string(at("etc/flashmob/config.toml")).unwrap();
    assert!(sample.lines().all(|line| installed.contains(line)), "every key is explained in it");
    the_installed_configuration_does_nothing(&at("etc/flashmob/config.toml"), folder.path());
}

fn the_installed_configuration_does_nothing(config: &Path, folder: &Path) {
    let text = std::fs::read_to_string(config).unwrap();
    assert_eq!(Config::parse(&text).unwrap(), Config::default(), "only comments are in force");
    // The same server that the unit starts, with other ports and folders.
    std::fs::create_dir(folder.join("images")).unwrap();
    let mut serve = command(None, folder.join("usr/bin/flashmob"));
    serve.args(["serve", "--no-mdns", "--listen", "127.0.0.1:0", "--peer-listen", "127.0.0.1:0"]);
    serve.arg("--config").arg(config).arg("--images").arg(folder.join("images"));
    serve.arg("--state").arg(folder.join("state"));
    let log = folder.join("log");
    let mut server = Guarded::logged(&mut serve, &log).unwrap();
    flashmob_testkit::child::wait_until("the server starts", Duration::from_secs(30), || {
        server.check()?;
        Ok(std::fs::read_to_string(&log)?.contains("flashmob serves on"))
    })
    .unwrap();
}
