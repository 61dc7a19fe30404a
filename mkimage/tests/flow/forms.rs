//! Every command that reads an image, over every form that an image can have.
//!
//! A form is one way to publish: with hashes, without, hashed later, in parts, on its source, and so on. The
//! table [`FORMS`] says what each command must answer; a command that forgets one form fails here.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use super::damage::Damaged;
use super::imaging::{Program, beside, serve};
use super::{SMALL, capture_as, disks, fail, mkimage, succeed};

/// An image of one form, as a test made it.
struct Made {
    folder: PathBuf,
    /// The captured disk.
    disk: PathBuf,
    /// Must live while the image is used.
    _keep: Option<Damaged>,
}

impl Made {
    fn repository(&self) -> &Path {
        self.folder.ancestors().nth(2).expect("two folders above")
    }

    fn version(&self) -> String {
        self.folder.file_name().expect("a version").to_string_lossy().into_owned()
    }
}

/// How a command must end.
#[derive(Clone, Copy)]
enum Answer {
    Good,
    /// With this exit code, and these words in the complaint.
    Refused(i32, &'static str),
}

use Answer::{Good, Refused};
use flashmob_testkit::child::command;
use flashmob_testkit::loops::LoopDevice;
use flashmob_testkit::net::free_port;

const NO_HASHES: Answer = Refused(3, "was published without hashes");

struct Form {
    name: &'static str,
    make: fn(&Path) -> Made,
    /// `verify`, `verify --disk`, and `diff` with itself.
    proved: Answer,
    hash: Answer,
    parent: Answer,
    /// `flashmob-agent` onto an empty disk.
    agent: Answer,
    /// The partition that `get --partition` fetches.
    partition: u32,
}

const HASHED: Form = Form {
    name: "hashed, in several payload files",
    make: |folder| made(folder, &disks::gpt(folder), &[]),
    proved: Good,
    hash: Refused(3, "has its hashes already"),
    parent: Good,
    agent: Good,
    partition: 3,
};

const FORMS: [Form; 7] = [
    HASHED,
    Form {
        name: "unhashed",
        make: |folder| made(folder, &disks::gpt(folder), &["--piece-hashes", "none"]),
        proved: NO_HASHES,
        // The commands are tried in an order in which this one comes last.
        hash: Good,
        parent: Refused(3, "without hashes"),
        ..HASHED
    },
    Form {
        name: "hashed later",
        make: |folder| {
            let made = made(folder, &disks::gpt(folder), &["--piece-hashes", "none"]);
            succeed(&mkimage(&[&"hash", &made.folder]));
            made
        },
        ..HASHED
    },
    Form { name: "in parts", make: in_parts, ..HASHED },
    Form {
        name: "on its source",
        make: |folder| made(folder, &disks::gpt(folder), &["--payload", "reference"]),
        parent: Refused(3, "nothing to share"),
        ..HASHED
    },
    Form {
        name: "with a kept partition",
        make: |folder| made(folder, &disks::gpt(folder), &["--keep", "4"]),
        agent: Refused(3, "keeps partition 4"),
        ..HASHED
    },
    Form { name: "with lost ranges", make: with_lost_ranges, partition: 1, ..HASHED },
];

/// Captures `disk` as version 1.
fn made(folder: &Path, disk: &Path, more: &[&str]) -> Made {
    let repository = folder.join("repository");
    // A payload that stays on its source has no files whose size could be set.
    let small = if more.contains(&"reference") { &SMALL[..2] } else { &SMALL[..] };
    let more = more.iter().map(|argument| argument as &dyn AsRef<OsStr>);
    let terms: Vec<&dyn AsRef<OsStr>> = small.iter().copied().chain(more).collect();
    succeed(&capture_as("lab@1", disk, &repository, &terms));
    Made { folder: repository.join("lab/1"), disk: disk.to_owned(), _keep: None }
}

/// A second version of which one piece changed.
fn in_parts(folder: &Path) -> Made {
    let first = made(folder, &disks::gpt(folder), &[]);
    let mut bytes = fs::read(&first.disk).expect("the disk");
    bytes[usize::try_from(disks::MIB).expect("small") + 5000] ^= 1;
    fs::write(&first.disk, bytes).expect("written");
    succeed(&capture_as("lab@2", &first.disk, first.repository(), &[&"--parent", &"1"]));
    Made { folder: first.folder.with_file_name("2"), ..first }
}

/// A disk without a filesystem of which a page cannot be read.
fn with_lost_ranges(folder: &Path) -> Made {
    let disk = folder.join("disk");
    fs::write(&disk, disks::noise(6, 1 << 20)).expect("a disk without a filesystem");
    let damaged = Damaged::of(&disk, 1024);
    let image = made(folder, &damaged.path, &["--rescue"]);
    // The bytes that terminals get, and that the image is compared with: zeros where the source was
    // unreadable.
    let mut bytes = fs::read(&disk).expect("the disk");
    bytes[512 << 10..][..4096].fill(0);
    fs::write(&disk, bytes).expect("written");
    Made { disk, _keep: Some(damaged), ..image }
}

fn check(form: &Form, what: &str, answer: Answer, output: &std::process::Output) -> String {
    println!("{what}, {}", form.name);
    match answer {
        Good => succeed(output),
        Refused(code, words) => {
            let said = fail(output, code);
            assert!(said.contains(words), "{what}, {}: {said}", form.name);
            said
        }
    }
}

/// Runs `test` with each form in a separate folder.
fn each(test: impl Fn(&Form, &Made, &Path)) {
    for form in &FORMS {
        let folder = tempfile::tempdir().expect("a folder");
        let image = (form.make)(folder.path());
        test(form, &image, folder.path());
    }
}

#[test]
fn mkimage_answers_for_every_form_of_an_image() {
    each(|form, image, folder| {
        let key = folder.join("key");
        succeed(&mkimage(&[&"keygen", &"--secret", &key, &"--public", &folder.join("pub")]));
        check(form, "verify", form.proved, &mkimage(&[&"verify", &image.folder]));
        let disk = mkimage(&[&"verify", &image.folder, &"--disk", &image.disk]);
        check(form, "verify --disk", form.proved, &disk);
        let said = check(form, "inspect", Good, &mkimage(&[&"inspect", &image.folder]));
        assert!(said.contains(&format!("lab@{}", image.version())), "{said}");
        let json = check(form, "inspect --json", Good, &mkimage(&[&"inspect", &image.folder, &"--json"]));
        let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
        assert_eq!(json["manifest"]["version"], image.version().as_str());
        check(form, "diff", form.proved, &mkimage(&[&"diff", &image.folder, &image.folder]));
        check(form, "sign", Good, &mkimage(&[&"sign", &image.folder, &"--key", &key]));
        let parent: [&dyn AsRef<OsStr>; 2] = [&"--parent", &image.version()];
        let next = capture_as("lab@3", &image.disk, image.repository(), &parent);
        check(form, "capture --parent", form.parent, &next);
        if matches!(form.parent, Good) {
            succeed(&mkimage(&[&"verify", &image.folder.with_file_name("3")]));
        }
        check(form, "hash", form.hash, &mkimage(&[&"hash", &image.folder]));
        succeed(&mkimage(&[&"verify", &image.folder]));
    });
}

#[test]
fn seed_and_get_carry_every_form_of_an_image() {
    each(|form, image, folder| {
        println!("seed and get, {}", form.name);
        let address = format!("127.0.0.1:{}", free_port());
        let torrent = image.folder.join("image.torrent");
        let mut seed = command(None, beside("flashmob"));
        seed.arg("seed").arg(&torrent).arg(&image.folder).args(["--listen", &address]);
        let _seed = Program::of(&mut seed);
        let get = |target: &Path, more: &[&str]| {
            let mut get = command(None, beside("flashmob"));
            get.arg("get").arg(&torrent).arg(target).args(["--listen", "127.0.0.1:0", "--peer", &address]);
            Program::of(get.args(more)).finish();
        };
        let target = folder.join("fetched");
        get(&target, &[]);
        let payload = flashmob::io::image::folder::ImageFolder::open(&image.folder).expect("an image");
        let mut bytes = vec![0; usize::try_from(payload.grid().payload_len()).expect("small")];
        payload.payload().expect("a payload").read_at(0, &mut bytes).expect("read");
        let mut fetched = Vec::new();
        for number in 0.. {
            match fs::read(target.join(format!("payload/{number:04}.bin"))) {
                Ok(file) => fetched.extend(file),
                Err(_) => break,
            }
        }
        assert!(fetched == bytes, "{}: what arrived is the payload", form.name);

        let manifest = image.folder.join("manifest.json").to_string_lossy().into_owned();
        let partition = folder.join("partition");
        let number = form.partition.to_string();
        get(&partition, &["--manifest", &manifest, "--partition", &number]);
        let of = payload.manifest().partition(form.partition).expect("it is there");
        let start = payload.manifest().disk.sector_size.offset_of(of.first).expect("an offset").0;
        let disk = fs::read(&image.disk).expect("the disk");
        let (start, size) =
            (usize::try_from(start).expect("small"), usize::try_from(of.size).expect("small"));
        assert!(fs::read(&partition).expect("a file") == disk[start..start + size], "{}", form.name);
    });
}

#[test]
fn an_agent_images_a_disk_from_every_form_of_an_image() {
    each(|form, image, folder| {
        println!("serve and agent, {}", form.name);
        let server = serve(None, image.repository(), &folder.join("state"), "127.0.0.1:0");
        let target = folder.join("target");
        let size = fs::metadata(&image.disk).expect("the disk").len();
        fs::File::create(&target).and_then(|file| file.set_len(size)).expect("a disk");
        let device = LoopDevice::over(&target, &[]);
        let mut agent = command(None, beside("flashmob-agent"));
        let which = format!("lab@{}", image.version());
        agent.args(["--server", &server.url, "--image", &which, "--disk", device.name(), "--insecure"]);
        let agent = Program::of(agent.args(["--listen", "127.0.0.1:0"]));
        if matches!(form.hash, Good) {
            // The terminal writes, but commits nothing before the hashes are there.
            succeed(&mkimage(&[&"hash", &image.folder]));
        }
        match form.agent {
            Good => {
                agent.finish();
                drop(device);
                succeed(&mkimage(&[&"verify", &image.folder, &"--disk", &target]));
            }
            Refused(code, words) => {
                let said = agent.fails(code);
                assert!(said.contains(words), "{}: {said}", form.name);
            }
        }
    });
}
