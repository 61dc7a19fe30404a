//! From a golden disk to terminals: ext4, NTFS and FAT with real and deleted files in one GPT, captured,
//! served, imaged through the swarm onto loop devices by two agents in network namespaces, and checked there
//! with the filesystems' own programs.
//!
//! The ignored test does the same with a Debian root and prints its cost. `flashmob` and `flashmob-agent` are
//! taken from beside `flashmob-mkimage`, where `cargo test --workspace` has built them.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use flashmob::io::image::folder::ImageFolder;
use flashmob_testkit::child::{Guarded, command};
use flashmob_testkit::command::run;
use flashmob_testkit::loops::LoopDevice;
use flashmob_testkit::net::{Namespaces, enter, ip};

use super::disks::{MIB, noise};
use super::used::{has_secret, image, secret};
use super::{capture_as, fail, mkimage, succeed};

/// A run that takes longer has failed.
const DEADLINE: Duration = Duration::from_secs(600);
const START: u64 = MIB;

/// The golden disk's parts.
struct Golden {
    /// Content of the ext4.
    root: PathBuf,
    root_size: u64,
    other_size: u64,
    /// Files of NTFS and FAT.
    files: Vec<(String, Vec<u8>)>,
}

impl Golden {
    fn parts(&self) -> [(u64, u64); 3] {
        let ntfs = START + self.root_size;
        [(START, self.root_size), (ntfs, self.other_size), (ntfs + self.other_size, self.other_size)]
    }

    /// Makes the disk: every filesystem had a file full of secrets.
    fn make(&self, folder: &Path) -> PathBuf {
        let gone = folder.join("gone");
        fs::write(&gone, secret(3 << 20)).expect("a file");
        let [ext4, ntfs, fat] = ["ext4", "ntfs", "fat"].map(|name| folder.join(name));
        for (path, (_, size)) in [&ext4, &ntfs, &fat].into_iter().zip(self.parts()) {
            File::create(path).and_then(|file| file.set_len(size)).expect("a file");
        }
        run("mke2fs", &[&"-q", &"-F", &"-t", &"ext4", &"-d", &self.root, &ext4]);
        run("debugfs", &[&"-w", &"-R", &format!("write {} gone", gone.display()), &ext4]);
        run("debugfs", &[&"-w", &"-R", &"rm gone", &ext4]);
        run("mkntfs", &[&"-q", &"-F", &"-Q", &ntfs]);
        run("mkfs.vfat", &[&"-F", &"32", &fat]);
        run("mcopy", &[&"-i", &fat, &gone, &"::gone"]);
        for (name, bytes) in &self.files {
            let file = folder.join(name);
            fs::write(&file, bytes).expect("a file");
            run("ntfscp", &[&"-q", &ntfs, &file, name]);
            run("mcopy", &[&"-i", &fat, &file, &format!("::{name}")]);
        }
        run("mdel", &[&"-i", &fat, &"::gone"]);
        // ntfs-3g's programs delete nothing without mounting: free clusters before the copy of the boot
        // sector.
        let file = File::options().write(true).open(&ntfs).expect("the volume");
        file.write_all_at(&secret(1 << 20), self.other_size - 2 * MIB).expect("written");

        let disk = image(folder, "golden.img", START + self.root_size + 2 * self.other_size + MIB);
        let sectors = |(start, size): (u64, u64)| format!("{}:{}", start / 512, (start + size) / 512 - 1);
        let new = self.parts().map(sectors);
        let options: [&dyn AsRef<std::ffi::OsStr>; 7] = [
            &format!("--new=1:{}", new[0]),
            &format!("--new=2:{}", new[1]),
            &"--typecode=2:0700",
            &format!("--new=3:{}", new[2]),
            &"--typecode=3:ef00",
            &"--disk-guid=R",
            &disk,
        ];
        run("sgdisk", &options);
        for (path, (start, _)) in [&ext4, &ntfs, &fat].into_iter().zip(self.parts()) {
            let arguments = [format!("if={}", path.display()), format!("of={}", disk.display())];
            let place = format!("seek={}", start / MIB);
            run(
                "dd",
                &[&arguments[0], &arguments[1], &place, &"bs=1M", &"conv=notrunc,sparse", &"status=none"],
            );
            fs::remove_file(path).expect("removed");
        }
        disk
    }

    /// Looks at a terminal's disk with the filesystems' own programs.
    fn check(&self, folder: &Path, disk: &Path) {
        let parts = self.parts().map(|(start, size)| LoopDevice::part(disk, start, size));
        let [ext4, ntfs, fat] = &parts;
        run("e2fsck", &[&"-f", &"-n", ext4]);
        run("ntfsfix", &[&"-n", ntfs]);
        run("fsck.fat", &[&"-n", fat]);
        let tree = folder.join("tree");
        fs::create_dir(&tree).expect("a folder");
        run("debugfs", &[&"-R", &format!("rdump / {}", tree.display()), ext4]);
        // Devices are not dumped as such; everything else must be there, byte for byte.
        let differences = Command::new("diff")
            .args(["-r", "--no-dereference", "--exclude=lost+found", "--exclude=dev"])
            .args([&self.root, &tree])
            .output()
            .expect("diff");
        assert_eq!(String::from_utf8_lossy(&differences.stdout), "", "the root is not the same");
        for (name, bytes) in &self.files {
            let read =
                Command::new("ntfscat").arg(ntfs).arg(name).output().expect("ntfscat of package ntfs-3g");
            assert!(read.stdout == *bytes, "{name} of NTFS is not the same");
            let copy = folder.join("copy");
            run("mcopy", &[&"-n", &"-o", &"-i", fat, &format!("::{name}"), &copy]);
            assert!(fs::read(&copy).expect("a file") == *bytes, "{name} of FAT is not the same");
        }
        fs::remove_dir_all(&tree).expect("removed");
    }
}

/// A program of the root package, which `cargo test --workspace` builds beside `flashmob-mkimage`.
pub(crate) fn beside(name: &str) -> PathBuf {
    let beside = Path::new(env!("CARGO_BIN_EXE_flashmob-mkimage")).with_file_name(name);
    if !beside.exists() {
        let built = Command::new(env!("CARGO")).args(["build", "--quiet", "--workspace", "--bins"]).status();
        assert!(built.expect("cargo").success() && beside.exists(), "{name} is not built");
    }
    beside
}

/// A program of this project, killed when it is dropped.
pub(crate) struct Program(Guarded);

impl Program {
    /// Starts it; its output is kept.
    pub(crate) fn of(command: &mut Command) -> Self {
        Program(Guarded::start(command.stdout(Stdio::piped()).stderr(Stdio::piped())))
    }

    /// On one of the machines of a lab; `None`: on this one.
    fn start(machine: Option<&str>, name: &str, arguments: &[&dyn AsRef<std::ffi::OsStr>]) -> Self {
        let mut command = command(machine, beside(name));
        arguments.iter().for_each(|argument| {
            command.arg(argument);
        });
        Program::of(&mut command)
    }

    /// Waits for success and returns the output.
    pub(crate) fn finish(self) -> String {
        succeed(&self.end())
    }

    /// Waits until it ends with this exit code; returns its complaint.
    pub(crate) fn fails(self, code: i32) -> String {
        fail(&self.end(), code)
    }

    fn end(self) -> Output {
        self.0.finish(DEADLINE).expect("it ends")
    }
}

pub(crate) struct Server {
    pub url: String,
    _program: Program,
}

/// Serves a repository at `listen` on one of the machines of a lab; `None`: on this one.
pub(crate) fn serve(machine: Option<&str>, repository: &Path, state: &Path, listen: &str) -> Server {
    let mut arguments: Vec<&dyn AsRef<std::ffi::OsStr>> =
        vec![&"serve", &"--images", &repository, &"--state", &state, &"--listen", &listen];
    arguments.extend([&"--peer-listen" as &dyn AsRef<std::ffi::OsStr>, &listen, &"--no-mdns"]);
    let mut program = Program::start(machine, "flashmob", &arguments);
    let mut lines = BufReader::new(program.0.take_stderr().expect("its words")).lines().map_while(Result::ok);
    let address = lines.find_map(|line| {
        let (_, rest) = line.split_once("flashmob serves on ")?;
        rest.split(',').next().map(str::to_string)
    });
    let url = format!("http://{}", address.expect("the server's address"));
    std::thread::spawn(move || lines.for_each(drop));
    Server { url, _program: program }
}

/// A server and terminals: network namespaces on one bridge, each with its own address and name.
struct Lab {
    machines: Vec<String>,
    _namespaces: Namespaces,
}

impl Lab {
    fn new(terminals: usize) -> Self {
        let names = (0..=terminals).map(|i| format!("fmi{}-{i}", std::process::id()));
        let (machines, mut namespaces): (Vec<String>, _) = (names.collect(), Namespaces::default());
        let (server, ip) = (&machines[0], |line: String| ip(&line));
        for (i, name) in machines.iter().enumerate() {
            namespaces.add(name);
            ip(format!("-n {name} link set lo up"));
            if i == 0 {
                ip(format!("-n {name} link add eth0 type bridge"));
            } else {
                ip(format!("-n {name} link add eth0 type veth peer name p{i} netns {server}"));
                ip(format!("-n {server} link set p{i} master eth0 up"));
            }
            ip(format!("-n {name} addr add 10.79.0.{}/24 dev eth0", i + 1));
            ip(format!("-n {name} link set eth0 up"));
        }
        Lab { machines, _namespaces: namespaces }
    }

    fn server(&self) -> &str {
        &self.machines[0]
    }
}

/// A metric that the server serves to its own machine only.
fn metric(lab: &Lab, url: &str, name: &'static str) -> u64 {
    let (namespace, url) = (lab.server().to_owned(), url.to_owned());
    let asked = std::thread::spawn(move || {
        enter(&namespace).expect("a namespace");
        ask_metric(&url, name)
    });
    asked.join().expect("an answer")
}

fn ask_metric(url: &str, name: &str) -> u64 {
    use std::io::{Read, Write};
    let host = url.trim_start_matches("http://");
    let mut stream = std::net::TcpStream::connect(host).expect("the server");
    write!(stream, "GET /metrics HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").expect("sent");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("an answer");
    let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_default();
    line.rsplit(' ').next().and_then(|value| value.parse().ok()).expect("a metric")
}

/// Images `count` terminals from capture to check; prints the cost.
fn image_terminals(golden: &Golden, folder: &Path, count: usize, piece: &str) {
    let begun = Instant::now();
    let disk = golden.make(folder);
    let made = begun.elapsed();
    let (key, public, repository) = (folder.join("key"), folder.join("pub"), folder.join("images"));
    succeed(&mkimage(&[&"keygen", &"--secret", &key, &"--public", &public]));
    let begun = Instant::now();
    let terms: [&dyn AsRef<std::ffi::OsStr>; 4] = [&"--piece-length", &piece, &"--key", &key];
    let said = succeed(&capture_as("lab@1", &disk, &repository, &terms));
    let captured = begun.elapsed();
    let image = repository.join("lab/1");
    assert!(!has_secret(&image), "deleted content travels");

    let lab = Lab::new(count);
    let server = serve(Some(lab.server()), &repository, &folder.join("state"), "10.79.0.1:0");
    let url = &server.url;
    let size = fs::metadata(&disk).expect("the disk").len();
    let targets: Vec<PathBuf> = (0..count).map(|i| self::image(folder, &format!("disk{i}"), size)).collect();
    let old = noise(9, 1 << 20);
    for target in &targets {
        // Old content, also where the filesystems will be.
        let file = File::options().write(true).open(target).expect("the disk");
        (0..8)
            .for_each(|i| file.write_all_at(&old, START / 2 + i * (golden.other_size / 4)).expect("written"));
    }
    let devices: Vec<LoopDevice> = targets.iter().map(|target| LoopDevice::over(target, &[])).collect();
    let create = Program::start(
        Some(lab.server()),
        "flashmob",
        &[&"token", &"create", &"--role", &"admin", &"--server", url],
    );
    let token = folder.join("token");
    fs::write(&token, create.finish()).expect("written");
    let begun = Instant::now();
    let agents: Vec<Program> = devices
        .iter()
        .zip(&lab.machines[1..])
        .map(|(device, machine)| {
            let arguments: [&dyn AsRef<std::ffi::OsStr>; 11] = [
                &"--server",
                url,
                &"--image",
                &"lab",
                &"--disk",
                &device,
                &"--keys",
                &public,
                &"--json",
                &"--token",
                &token,
            ];
            Program::start(Some(machine), "flashmob-agent", &arguments)
        })
        .collect();
    for agent in agents {
        agent.finish();
    }
    let imaged = begun.elapsed();
    let image = ImageFolder::open(&image).expect("an image");
    let (data, pieces) = (image.grid().data_bytes(), image.manifest().payload.pieces);
    // The server's numbers are up to a second old.
    let deadline = Instant::now() + Duration::from_secs(20);
    let mut sent = 0;
    while sent < data && Instant::now() < deadline {
        sent = metric(&lab, url, "flashmob_seeder_sent_bytes_total");
        std::thread::sleep(Duration::from_millis(100));
    }
    drop((server, devices, lab));
    for target in &targets {
        golden.check(folder, target);
    }
    println!("golden disk made in {made:.1?}, captured in {captured:.1?}:\n{said}");
    println!(
        "{count} terminals imaged in {imaged:.1?}; {data} bytes of data in {pieces} pieces of {piece}, \
         {sent} left the seeder"
    );
    assert!(sent >= data, "the seeder sent less than there is");
}

#[test]
fn a_golden_disk_arrives_whole_on_two_terminals_and_without_what_was_deleted() {
    let folder = tempfile::tempdir().expect("a folder");
    let root = folder.path().join("root");
    fs::create_dir_all(root.join("etc/deep/er")).expect("folders");
    for i in 0..200u64 {
        let len = usize::try_from(i * i % 7919).expect("small");
        fs::write(root.join(format!("etc/deep/er/{i}")), noise(i, len)).expect("a file");
    }
    fs::write(root.join("large"), noise(3, 2_500_000)).expect("a file");
    std::os::unix::fs::symlink("large", root.join("link")).expect("a link");
    let files = (0..6u64).map(|i| (format!("file{i}.bin"), noise(50 + i, 150_000))).collect();
    let golden = Golden { root, root_size: 48 * MIB, other_size: 48 * MIB, files };
    image_terminals(&golden, folder.path(), 2, "64KiB");
}

/// Needs debootstrap, a Debian mirror, about 4 GB below $FLASHMOB_BIG (or the temporary folder) and some
/// minutes: `cargo test --release -p flashmob-mkimage -- --ignored --nocapture a_debian_root`. A root that is
/// there already is named by $FLASHMOB_ROOT.
#[test]
#[ignore = "fetches Debian packages and takes minutes"]
fn a_debian_root_arrives_whole_on_two_terminals() {
    let base = std::env::var_os("FLASHMOB_BIG").map_or_else(std::env::temp_dir, PathBuf::from);
    let folder = tempfile::tempdir_in(base).expect("a folder");
    let root = match std::env::var_os("FLASHMOB_ROOT") {
        Some(root) => PathBuf::from(root),
        None => {
            let root = folder.path().join("root");
            let packages = "--include=linux-image-amd64,gcc,git,perl,python3,vim";
            run("debootstrap", &[&"--variant=minbase", &packages, &"bookworm", &root]);
            root
        }
    };
    let library = Path::new("/usr/bin");
    let mut files = Vec::new();
    for entry in fs::read_dir(library).expect("a folder").flatten() {
        let name = entry.file_name().to_string_lossy().to_lowercase();
        let plain =
            name.len() <= 20 && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_');
        if plain && entry.file_type().is_ok_and(|kind| kind.is_file()) && files.len() < 300 {
            files.push((name, fs::read(entry.path()).expect("a file")));
        }
    }
    let golden = Golden { root, root_size: 20 << 30, other_size: 1 << 30, files };
    image_terminals(&golden, folder.path(), 2, "4MiB");
}
