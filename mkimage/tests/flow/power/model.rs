//! Disks that lose unflushed writes: nbdkit with `model.py`, nbdfuse, and loop devices.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use flashmob_testkit::child::{Guarded, command, of_package};
use flashmob_testkit::loops::LoopDevice;
use nix::sys::signal::Signal;

/// None of the programs needs longer to start.
const START: Duration = Duration::from_secs(20);
const LOOK: Duration = Duration::from_millis(2);

/// When the power is cut: at this write of this epoch, or at the flush that ends it. See `model.py`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cut {
    pub epoch: usize,
    pub write: usize,
    pub seed: u64,
}

/// Model disks of one machine, switched on.
pub(super) struct Disks {
    loops: Vec<LoopDevice>,
    mounts: Vec<PathBuf>,
    programs: Vec<Guarded>,
    folder: tempfile::TempDir,
}

impl Disks {
    /// Disks whose media hold `media`; their caches are empty.
    pub(super) fn switch_on(media: &[Vec<u8>], cut: Option<Cut>) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let mut disks = Disks { loops: Vec::new(), mounts: Vec::new(), programs: Vec::new(), folder };
        for (i, bytes) in media.iter().enumerate() {
            fs::write(disks.medium(i), bytes).expect("a medium");
        }
        let (socket, ready) = (disks.path("socket"), disks.path("ready"));
        let plugin = disks.path("model.py");
        fs::write(&plugin, include_str!("model.py")).expect("the plugin");
        let mut nbdkit = command(None, of_package("nbdkit", "nbdkit"));
        nbdkit.arg("--foreground").arg("--pidfile").arg(&ready).arg("--unix").arg(&socket);
        nbdkit.arg("python").arg(plugin);
        nbdkit.arg(format!("folder={}", disks.folder.path().display()));
        if let Some(Cut { epoch, write, seed }) = cut {
            nbdkit.arg(format!("cut={epoch},{write},{seed}"));
        }
        disks.start(&mut nbdkit, &ready);
        for i in 0..media.len() {
            let (mount, ready) = (disks.path(&format!("mount{i}")), disks.path(&format!("ready{i}")));
            fs::write(&mount, "").expect("a file to mount on");
            let mut nbdfuse = command(None, of_package("nbdfuse", "libnbd-bin"));
            nbdfuse.arg("--pidfile").arg(&ready).arg(&mount);
            nbdfuse.arg(format!("nbd+unix:///{i}?socket={}", socket.display()));
            disks.mounts.push(mount.clone());
            disks.start(&mut nbdfuse, &ready);
            disks.loops.push(LoopDevice::over(&mount, &["--direct-io=on"]));
        }
        disks
    }

    /// Starts a program, and waits until it has written the file that says it is ready.
    fn start(&mut self, command: &mut Command, ready: &Path) {
        let said = self.path("said");
        self.programs.push(Guarded::logged(command, &said).expect("it starts"));
        let begun = Instant::now();
        while !fs::metadata(ready).is_ok_and(|file| file.len() > 0) {
            let said = || fs::read_to_string(&said).unwrap_or_default();
            assert!(begun.elapsed() < START, "{command:?} is not ready: {}", said());
            std::thread::sleep(LOOK);
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn medium(&self, i: usize) -> PathBuf {
        self.path(&format!("{i}.img"))
    }

    pub(super) fn devices(&self) -> Vec<&str> {
        self.loops.iter().map(|device| device.name()).collect()
    }

    /// Runs `writer` until it ends, or until the power is cut, which kills it. True: it ended well.
    pub(super) fn attempt(&self, writer: &mut Command) -> Result<bool, String> {
        let said = self.path("said");
        let file = fs::File::create(&said).expect("a file");
        let mut child = Guarded::start(writer.stdout(Stdio::null()).stderr(file));
        let begun = Instant::now();
        let ended = loop {
            if self.path("off").exists() {
                child.signal(Signal::SIGKILL);
                // It cannot die while it waits for the disk.
                fs::write(self.path("dead"), "").expect("a file");
                child.kill();
                return Ok(false);
            }
            if let Some(status) = child.status().expect("its state") {
                break status;
            }
            if begun.elapsed() > super::ATTEMPT {
                return Err(format!("it does not end: {}", fs::read_to_string(said).unwrap_or_default()));
            }
            std::thread::sleep(LOOK);
        };
        if ended.success() {
            return Ok(true);
        }
        Err(format!("{ended}: {}", fs::read_to_string(said).unwrap_or_default()))
    }

    /// The number of writes in each epoch so far.
    pub(super) fn epochs(&self) -> Vec<usize> {
        let text = fs::read_to_string(self.path("epochs")).unwrap_or_default();
        text.lines().map(|line| line.parse().expect("a number")).collect()
    }

    /// Switches the disks off and returns the content of their media, without writes that were never flushed.
    pub(super) fn switch_off(mut self) -> Vec<Vec<u8>> {
        let media = self.mounts.len();
        self.end();
        (0..media).map(|i| fs::read(self.medium(i)).expect("the medium")).collect()
    }

    fn end(&mut self) {
        self.loops.clear();
        for mount in self.mounts.drain(..) {
            let begun = Instant::now();
            // The kernel detaches the loop device from its file some time later.
            while is_mounted(&mount) && begun.elapsed() < START {
                let _ = Command::new("umount").arg(&mount).stderr(Stdio::null()).status();
                std::thread::sleep(LOOK);
            }
        }
        self.programs.drain(..).rev().for_each(drop);
    }
}

impl Drop for Disks {
    fn drop(&mut self) {
        self.end();
    }
}

fn is_mounted(path: &Path) -> bool {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    mounts.lines().any(|line| line.split(' ').nth(1).is_some_and(|at| Path::new(at) == path))
}
