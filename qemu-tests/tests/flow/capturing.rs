//! A golden machine is captured where it stands, over a link that is slow and is cut, and another terminal
//! gets its system.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use flashmob::api::TerminalState;
use flashmob_testkit::child::{Guarded, command, wait_until};
use flashmob_testkit::command::try_run;
use qemu_tests::assets::{IMAGE, PIECE_LENGTH, capture};
use qemu_tests::lab::{Job, Lab, label};
use qemu_tests::machine::{Bus, Firmware, Machine, Start, Terminal};
use qemu_tests::slots::Slots;

use crate::own::partition;
use crate::{ASSETS, BOOTED, IMAGED, NEW_IS_UP, OLD_IS_UP};

/// From switching on to the end of a capture.
const CAPTURED: Duration = IMAGED;
/// The golden machine's link: half of the disk takes seconds, so that it can be cut meanwhile.
const MEGABITS: u32 = 60;
/// A file that comes to the golden system between two captures.
const ADDED: &str = "/usr/share/golden/added.bin";
const ADDED_SIZE: u64 = 3 << 20;

/// `flashmob capture` of terminal 1, to which the code is typed that the machine's screen shows.
struct Capture {
    process: Guarded,
    log: PathBuf,
    types: std::io::PipeWriter,
}

impl Capture {
    fn ask(lab: &Lab, repository: &Path, version: &str, more: &[&str]) -> Self {
        let log = lab.folder.join(format!("capture-{version}.log"));
        let (typed, types) = std::io::pipe().unwrap();
        let mut capture = command(Some(lab.network.namespace()), &ASSETS.programs.flashmob);
        capture.args([
            "capture",
            &label(1),
            "--server",
            &lab.address(),
            "--name",
            IMAGE,
            "--version",
            version,
        ]);
        capture.arg("--repository").arg(repository).arg("--key").arg(&ASSETS.secret).args(more);
        capture.args(["--", "--piece-length", PIECE_LENGTH]).stdin(typed);
        Capture { process: Guarded::logged(&mut capture, &log).unwrap(), log, types }
    }

    /// Types what the golden machine's screen shows.
    fn type_code(&mut self, golden: &mut Machine) {
        golden.wait_for("'flashmob capture' asks for it", CAPTURED).unwrap();
        let said = golden.said();
        let code =
            said.split("code ").find_map(|rest| rest.get(..6).filter(|code| code.parse::<u32>().is_ok()));
        writeln!(self.types, "{}", code.unwrap()).unwrap();
    }

    /// What it said until its end.
    fn end(mut self) -> String {
        let status = self.process.wait(CAPTURED).unwrap();
        let said = fs::read_to_string(&self.log).unwrap();
        assert!(status.success(), "{said}");
        said
    }
}

/// How much of terminal 1's disk is captured, in percent, as the page shows it.
fn percent(lab: &Lab) -> Option<u32> {
    let terminals = lab.terminals().unwrap();
    let words = terminals.into_iter().find(|view| view.label.as_deref() == Some(&label(1)))?.capture?;
    words.strip_suffix(" %")?.rsplit(' ').next()?.parse().ok()
}

/// Files of an image without its signature, and its manifest without name and time.
fn image(folder: &Path) -> (Vec<(PathBuf, Vec<u8>)>, serde_json::Value) {
    let mut files: Vec<(PathBuf, Vec<u8>)> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_file() && !path.to_string_lossy().contains("manifest"))
        .map(|path| (PathBuf::from(path.file_name().unwrap()), fs::read(&path).unwrap()))
        .collect();
    files.sort();
    let mut manifest: serde_json::Value =
        serde_json::from_slice(&fs::read(folder.join("manifest.json")).unwrap()).unwrap();
    assert!(manifest["created"].take().is_string());
    (files, manifest)
}

/// Bytes that a folder takes on the disk, files with several names counted once.
fn stored(folder: &Path) -> u64 {
    let text = try_run("du", ["-sB1", &folder.to_string_lossy()]).unwrap();
    text.split_whitespace().next().unwrap().parse().unwrap()
}

/// debugfs's name of the golden disk's root filesystem.
fn root_of(terminal: &Terminal) -> String {
    let disk = terminal.disk();
    format!("{}?offset={}", disk.display(), partition(&disk, 3).0)
}

#[test]
fn a_golden_machine_is_captured_where_it_stands_and_again_with_what_changed_for_another_terminal() {
    let _slots = Slots::take(1);
    let assets = &*ASSETS;
    let folder = tempfile::Builder::new().prefix("capturing").tempdir_in(&assets.folder).unwrap();
    let [lent, local] = ["lent", "local"].map(|name| folder.path().join(name));
    fs::create_dir(&lent).unwrap();
    let lab = Lab::without_job(assets, "capturing", &lent, &[]).unwrap();
    let table = lab.write_table(&[1, 2]).unwrap();
    lab.flashmob(&["terminal", "import", &table.to_string_lossy()]).unwrap();
    let mut golden = lab.terminal(1, Firmware::Bios, Bus::Virtio).unwrap();
    golden.megabits = Some(MEGABITS);
    golden.fill_disk(&assets.old).unwrap();
    let before = golden.disk_hash().unwrap();

    // The first version, over a connection that is cut in the middle.
    let mut first = Capture::ask(&lab, &lent, "1", &[]);
    let mut machine = golden.switch_on(&lab.network, &Start::Network).unwrap();
    first.type_code(&mut machine);
    // Early, because the percentage is some seconds old and the whole takes only some more.
    wait_until("a part of the disk is captured", CAPTURED, || Ok(percent(&lab) >= Some(15))).unwrap();
    assert!(lab.network.cut_connections(&[6969]).unwrap() > 0, "the connection was there to be cut");
    let said = first.end();
    assert!(said.contains("right: this is the machine") && said.contains("released"), "{said}");
    machine.wait_for(OLD_IS_UP, BOOTED).unwrap();
    let golden = machine.cut_power();
    assert_eq!(golden.disk_hash().unwrap(), before, "nothing was written to the golden disk");
    capture(&assets.programs, &golden.disk(), &local, &assets.secret, &[]).unwrap();
    assert!(image(&lent.join(IMAGE).join("1")) == image(&local.join(IMAGE).join("1")), "as captured here");

    // The second, with what changed.
    let added = folder.path().join("added.bin");
    let mut noise = vec![0; usize::try_from(ADDED_SIZE).unwrap()];
    File::open("/dev/urandom").unwrap().read_exact_at(&mut noise, 0).unwrap();
    fs::write(&added, &noise).unwrap();
    try_run("debugfs", ["-w", "-R", &format!("write {} {ADDED}", added.display()), &root_of(&golden)])
        .unwrap();
    let full = stored(&lent);
    let mut second = Capture::ask(&lab, &lent, "2", &["--parent", "1"]);
    let mut machine = golden.switch_on(&lab.network, &Start::Network).unwrap();
    second.type_code(&mut machine);
    second.end();
    drop(machine);
    let more = stored(&lent) - full;
    assert!(more < 4 * ADDED_SIZE && full > 8 * ADDED_SIZE, "{more} bytes more after {full}");

    // Another terminal gets it.
    let job = Job { targets: vec![label(2)], ..Job::for_all() };
    let newest = format!("{IMAGE}@2");
    let words: Vec<&str> =
        job.words().into_iter().map(|word| if word == IMAGE { newest.as_str() } else { word }).collect();
    // The server looks for new versions every few seconds.
    wait_until("the server knows the new version", CAPTURED, || Ok(lab.flashmob(&words).is_ok())).unwrap();
    let mut other = lab.netboot(2, Firmware::Uefi, Bus::Nvme).unwrap();
    lab.wait_for_state(&other, TerminalState::Done, IMAGED).unwrap();
    other.wait_for(OLD_IS_UP, BOOTED).unwrap();
    assert!(!other.said().contains(NEW_IS_UP));
    let other = other.cut_power();
    let got = folder.path().join("got.bin");
    try_run("debugfs", ["-R", &format!("dump {ADDED} {}", got.display()), &root_of(&other)]).unwrap();
    assert!(fs::read(&got).unwrap() == noise, "the added file arrived");
}
