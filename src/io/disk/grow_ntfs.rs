//! Lets an NTFS fill its partition by ntfsresize (Debian's package ntfs-3g), where the initramfs has it.
//!
//! Invariant: a run that writes nothing has succeeded before one that writes begins. ntfsresize refuses a
//! volume that is marked for a check by Windows, and knows nothing of a hibernated Windows: so it runs only
//! on a volume that this attempt has proved. It marks the volume before any other write, and Windows checks
//! it at its next start. A run that writes is never killed, because ntfsresize itself cannot repair a volume
//! whose table of clusters is longer than its boot sector says.

use std::fs::File;
use std::io::{self, BufRead, BufReader, PipeReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::layout::traces::ntfs::Table;
use crate::layout::traces::number;

/// Folders that may have the program.
const FOLDERS: [&str; 4] = ["/sbin", "/usr/sbin", "/bin", "/usr/bin"];
/// How long the run that writes nothing may take. It reads the whole file table: a minute for a million files
/// on a rotating disk. The run that writes reads as much, and writes a journal and a bitmap beside it.
const TRIAL: Duration = Duration::from_secs(180);
/// How many of them write now.
static WRITING: AtomicU32 = AtomicU32::new(0);

/// Does an ntfsresize write now? The machine must not be restarted then.
pub(crate) fn is_writing() -> bool {
    WRITING.load(Ordering::SeqCst) > 0
}

/// Counts a run that writes, until it is dropped.
struct Writing;

impl Writing {
    fn begin() -> Self {
        WRITING.fetch_add(1, Ordering::SeqCst);
        Writing
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        WRITING.fetch_sub(1, Ordering::SeqCst);
    }
}

const PAUSE: Duration = Duration::from_millis(20);

/// What became of a volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ntfs {
    /// It filled its partition already.
    Full,
    /// There is no program that lets it grow.
    NoProgram,
    /// Its bytes before and after.
    Grown(u64, u64),
}

/// Where ntfsresize is; `None`: Windows lets its volume grow.
pub(super) fn program() -> Option<PathBuf> {
    FOLDERS.iter().map(|folder| Path::new(folder).join("ntfsresize")).find(|path| path.is_file())
}

/// Lets the volume on `node`, a device of `size` bytes, grow to the device's end.
pub(super) fn grow(node: &Path, size: u64, program: Option<&Path>) -> Result<Ntfs, String> {
    grow_after(TRIAL, node, size, program)
}

/// The same with another limit for the run that writes nothing.
fn grow_after(trial: Duration, node: &Path, size: u64, program: Option<&Path>) -> Result<Ntfs, String> {
    let before = Volume::on(node)?;
    if before.fills(size) {
        return Ok(Ntfs::Full);
    }
    let Some(program) = program else { return Ok(Ntfs::NoProgram) };
    run(program, &["--no-action"], node, Some(trial))
        .map_err(|why| format!("{why}; nothing was changed, and Windows may let it grow"))?;
    let writing = Writing::begin();
    run(program, &[], node, None)?;
    drop(writing);
    let after = Volume::on(node)?;
    if !after.fills(size) {
        return Err("ntfsresize has ended, and the volume does not fill its partition".into());
    }
    Ok(Ntfs::Grown(before.bytes(), after.bytes()))
}

/// The size of an NTFS as its boot sector says.
struct Volume {
    cluster: u64,
    clusters: u64,
    sector: u64,
}

impl Volume {
    fn on(node: &Path) -> Result<Self, String> {
        let mut boot = [0; 512];
        let read = File::open(node).and_then(|mut device| device.read_exact(&mut boot));
        read.map_err(|e| format!("the boot sector on {}: {e}", node.display()))?;
        Self::of(&boot).ok_or_else(|| format!("there is no NTFS on {}", node.display()))
    }

    fn of(boot: &[u8]) -> Option<Self> {
        let table = Table::of(boot).filter(|_| boot.get(3..11) == Some(b"NTFS    "))?;
        let sector = number(boot, 11, 2)?;
        let clusters = number(boot, 40, 8)?.checked_mul(sector)?.checked_div(table.cluster)?;
        Some(Volume { cluster: table.cluster, clusters, sector })
    }

    fn bytes(&self) -> u64 {
        self.clusters.saturating_mul(self.cluster)
    }

    /// Is a device of `size` bytes full? Its last sector is the copy of the boot sector.
    fn fills(&self, size: u64) -> bool {
        let possible = size.saturating_sub(self.sector).checked_div(self.cluster);
        possible.is_none_or(|possible| self.clusters >= possible)
    }
}

/// Runs ntfsresize on `node`; its lines go to the log. One that may take `at_most` is killed after that.
fn run(program: &Path, options: &[&str], node: &Path, at_most: Option<Duration>) -> Result<(), String> {
    let name = program.display();
    let failed = |e: io::Error| format!("{name} cannot be run: {e}");
    let (said, out) = io::pipe().map_err(failed)?;
    let mut command = Command::new(program);
    command.args(options).arg("--no-progress-bar").arg(node).env("LC_ALL", "C");
    command.stdin(Stdio::piped()).stderr(out.try_clone().map_err(failed)?).stdout(out);
    // Before the program runs: without a reader its next line would kill it.
    let listener = thread::Builder::new().name("ntfsresize".into()).spawn(move || listen(said));
    let listener = listener.map_err(failed)?;
    let mut child = command.spawn().map_err(failed)?;
    // The command holds the pipe's other end.
    drop(command);
    // It asks whether it may begin. It may have ended, and then it says why.
    if let Some(mut input) = child.stdin.take() {
        let _ = input.write_all(b"y\n");
    }
    let ended = wait(&mut child, at_most);
    let last = listener.join().unwrap_or_default();
    match ended.map_err(failed)? {
        Some(true) => Ok(()),
        Some(false) => Err(format!("ntfsresize says: {last}")),
        None => {
            let seconds = at_most.unwrap_or_default().as_secs();
            Err(format!("ntfsresize did not end within {seconds} s; its last words: {last}"))
        }
    }
}

/// Logs every line, and returns what tells the problem: the line of the error, or the last one.
fn listen(said: PipeReader) -> String {
    let mut telling = String::new();
    for line in BufReader::new(said).lines().map_while(Result::ok) {
        let line = line.trim();
        if line.is_empty() {
            continue;
        }
        log::info!("ntfsresize: {line}");
        if !telling.starts_with("ERROR") {
            line.clone_into(&mut telling);
        }
    }
    telling
}

/// Whether the program succeeded; `None`: it was killed because it took too long.
fn wait(child: &mut Child, at_most: Option<Duration>) -> io::Result<Option<bool>> {
    let begun = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status.success()));
        }
        if at_most.is_some_and(|at_most| begun.elapsed() > at_most) {
            child.kill()?;
            child.wait()?;
            return Ok(None);
        }
        thread::sleep(PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::testkit::disks::{LoopDisk, MIB, noise, sector_sizes};
    use crate::testkit::programs::write_script;

    /// A volume of 64 MiB with a file of noise, on a device of 160 MiB.
    fn volume(sector: u32) -> LoopDisk {
        let dir = tempfile::tempdir().expect("temp");
        let (path, file) = (dir.path().join("disk.img"), dir.path().join("file"));
        File::create(&path).and_then(|file| file.set_len(64 * MIB)).expect("made");
        fs::write(&file, noise(1, 3_000_000)).expect("a file");
        let text = |path: &Path| path.to_str().expect("text").to_string();
        tool("mkntfs", &["-q", "-F", "-Q", "-s", &sector.to_string(), &text(&path)]);
        tool("ntfscp", &["-q", &text(&path), &text(&file), "file"]);
        File::options().write(true).open(&path).and_then(|file| file.set_len(160 * MIB)).expect("longer");
        LoopDisk::on(dir, path, sector)
    }

    fn tool(name: &str, arguments: &[&str]) -> Vec<u8> {
        let path = "/usr/sbin:/usr/bin:/sbin:/bin";
        let output = Command::new(name).args(arguments).env("PATH", path).output().expect(name);
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{name}: {said} {}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    }

    fn node(disk: &LoopDisk) -> &Path {
        Path::new(&disk.path)
    }

    /// A program that writes down that it was called, and then runs `script`.
    fn stand_in(folder: &Path, script: &str) -> PathBuf {
        let path = folder.join("stand-in");
        let calls = folder.join("calls");
        write_script(&path, &format!("echo \"$1\" >> {}\n{script}", calls.display()));
        path
    }

    #[test]
    fn ntfs_grows_is_sound_marked_for_a_check_and_keeps_its_files() {
        for sector in sector_sizes() {
            let disk = volume(sector);
            let program = super::program().expect("ntfsresize of package ntfs-3g");
            let Ok(Ntfs::Grown(before, after)) = grow(node(&disk), 160 * MIB, Some(&program)) else {
                panic!("it did not grow");
            };
            assert!(before < 65 * MIB && after > 159 * MIB, "{before} to {after}");
            assert_eq!(grow(node(&disk), 160 * MIB, Some(&program)), Ok(Ntfs::Full), "nothing is left to do");
            tool("ntfsresize", &["--info", "--force", "--no-progress-bar", &disk.path]);
            tool("ntfsfix", &["-n", &disk.path]);
            assert!(tool("ntfscat", &["-f", &disk.path, "file"]) == noise(1, 3_000_000));
            let said = Command::new("/sbin/ntfsresize").args(["--info", &disk.path]).output().expect("runs");
            let said = String::from_utf8_lossy(&[said.stdout, said.stderr].concat()).into_owned();
            assert!(said.contains("scheduled for check"), "Windows checks what has grown: {said}");
        }
    }

    #[test]
    fn without_the_program_windows_does_it_and_nothing_is_written() {
        let disk = volume(512);
        let before = disk.bytes();
        assert_eq!(grow(node(&disk), 160 * MIB, None), Ok(Ntfs::NoProgram));
        assert!(disk.bytes() == before);
    }

    #[test]
    fn a_volume_that_is_marked_for_a_check_is_left_to_windows() {
        let disk = volume(512);
        let program = program().expect("ntfsresize of package ntfs-3g");
        tool("ntfsfix", &[&disk.path]);
        let before = disk.bytes();
        let why = grow(node(&disk), 160 * MIB, Some(&program)).expect_err("refused");
        assert!(why.contains("scheduled for check") && why.contains("nothing was changed"), "{why}");
        assert!(disk.bytes() == before);
    }

    #[test]
    fn nothing_is_written_after_a_failed_trial_and_a_program_that_hangs_is_ended() {
        let disk = volume(512);
        let folder = tempfile::tempdir().expect("a folder");
        let calls = || fs::read_to_string(folder.path().join("calls")).expect("called");
        let program = stand_in(folder.path(), "echo 'ERROR: Bad sectors.'; echo 'See the manual.'; exit 1");
        let why = grow(node(&disk), 160 * MIB, Some(&program)).expect_err("failed");
        assert!(why.starts_with("ntfsresize says: ERROR: Bad sectors.; nothing was changed"), "{why}");
        assert_eq!(calls(), "--no-action\n");
        let program = stand_in(folder.path(), "exit 0");
        let why = grow(node(&disk), 160 * MIB, Some(&program)).expect_err("it did nothing");
        assert!(why.contains("does not fill its partition"), "{why}");
        assert_eq!(calls(), "--no-action\n--no-action\n--no-progress-bar\n");
        let program = stand_in(folder.path(), "echo begun; exec sleep 600");
        let limit = Duration::from_secs(5);
        let why = grow_after(limit, node(&disk), 160 * MIB, Some(&program)).expect_err("it hangs");
        assert!(why.contains("did not end within 5 s") && why.contains("begun"), "{why}");
        assert!(why.contains("nothing was changed"), "{why}");
    }

    #[test]
    fn a_run_that_writes_is_waited_for_however_long_it_takes() {
        let disk = volume(512);
        let folder = tempfile::tempdir().expect("a folder");
        let script = "[ \"$1\" = --no-action ] || sleep 6; exit 0";
        let program = stand_in(folder.path(), script);
        let limit = Duration::from_secs(5);
        let why = grow_after(limit, node(&disk), 160 * MIB, Some(&program)).expect_err("it did nothing");
        assert!(why.contains("does not fill its partition"), "{why}");
    }

    #[test]
    fn only_an_ntfs_has_a_size() {
        assert!(Volume::of(&[0; 512]).is_none());
        let mut boot = [0; 512];
        boot[3..11].copy_from_slice(b"NTFS    ");
        (boot[12], boot[13], boot[48], boot[64]) = (2, 8, 4, 246);
        boot[40..48].copy_from_slice(&8191u64.to_le_bytes());
        let volume = Volume::of(&boot).expect("a volume");
        assert_eq!(volume.bytes(), 1023 * 4096);
        assert!(volume.fills(4 * MIB) && !volume.fills(4 * MIB + 512));
    }
}
