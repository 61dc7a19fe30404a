//! The whole flow with virtual disks. Needs root and the packages of `setup.sh`; run with two threads.

#![expect(clippy::unwrap_used, clippy::panic, reason = "this whole program is tests")]

mod beside_dhcp;
mod capturing;
mod imaging;
mod netboot_files;
mod on_to_the_disk;
mod own;
mod power;
mod refusals;
mod secure_boot;

use std::ffi::OsStr;
use std::io::Write;
use std::path::Path;
use std::sync::LazyLock;
use std::time::Duration;

use flashmob_testkit::command::try_run;
use qemu_tests::assets::{Assets, build_netboot};
use qemu_tests::machine::OWN_KEY;

/// Made once for all tests of this binary.
static ASSETS: LazyLock<Assets> = LazyLock::new(|| {
    // Not by `eprintln`, which the test runner keeps back: a person should see what is waited for.
    let say = |step: &str| drop(writeln!(std::io::stderr(), "prepare: {step}"));
    Assets::prepare(&say).expect("preparing the lab")
});

/// From switching on to the end of imaging, three machines side by side on two busy cores without KVM.
const IMAGED: Duration = Duration::from_secs(300);
/// From there (or from switching on) to the installed system.
const BOOTED: Duration = Duration::from_secs(240);

/// The same when the firmware continues by itself: OVMF tries IPv6 and HTTP for a minute each before the
/// disk.
const GONE_ON: Duration = Duration::from_secs(480);

/// The new system's greeting.
const NEW_IS_UP: &str = "GOLDEN new is up";
/// The old system's greeting.
const OLD_IS_UP: &str = "GOLDEN old is up";

/// Netboot files for a test of its own, with `more` options.
fn make_netboot(out: &Path, more: &[&OsStr]) {
    let (cache, key) = (ASSETS.folder.join("kernel"), ASSETS.folder.join("keys/lab.pub"));
    build_netboot(&ASSETS.programs, out, &cache, more, &key).unwrap();
}

/// Writes the private key of [`OWN_KEY`] without its password, as `flashmob-initramfs` takes it.
fn write_own_key(to: &Path) {
    let words = ["rsa", "-passin", "pass:snakeoil", "-in", OWN_KEY[0], "-out", &to.to_string_lossy()];
    try_run("openssl", words).unwrap();
}
