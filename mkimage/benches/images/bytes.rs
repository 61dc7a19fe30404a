//! Bytes in use by a filesystem, in the payload, and on the wire between flashmob peers.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use flashmob::io::image::folder::ImageFolder;
use flashmob::units::PieceIndex;
use flashmob_testkit::child::{Guarded, command};

use super::volume::{Kind, Volume, stage};
use super::{Content, beside, capture, folder};

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    content: Content,
    /// Filesystems to make
    #[arg(long = "filesystem")]
    kinds: Vec<Kind>,
    /// Also send each image of 4 MiB pieces from one flashmob process to another and count the sent bytes
    #[arg(long)]
    transfer: bool,
    /// Also write each image over noise, check the filesystem and compare all files.
    #[arg(long)]
    check: bool,
}

pub(crate) fn run(arguments: &Arguments) {
    let folder = folder(&arguments.content);
    let staged = folder.path().join("staged");
    let pool = stage(&arguments.content.tree, &staged, arguments.content.size);
    println!("{} files of {}", pool.len(), arguments.content.tree.display());
    println!(
        "| filesystem | piece | in use | payload | ÷ in use | on the wire | ÷ in use | sent by a seeder |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    let all = [Kind::Ext4, Kind::Ntfs, Kind::Fat, Kind::Xfs, Kind::Btrfs];
    let kinds = if arguments.kinds.is_empty() { all.to_vec() } else { arguments.kinds.clone() };
    for kind in kinds {
        // Leaves half of it free, with room for the small files.
        let size = arguments.content.size * 2 + (512 << 20);
        let Some(mut volume) = Volume::make(kind, folder.path(), size) else {
            println!("| {kind:?} | this kernel does not mount it |");
            continue;
        };
        volume.add(&staged);
        measure(arguments, &volume, "fresh", folder.path());
        volume.age(folder.path(), &pool);
        measure(arguments, &volume, "aged", folder.path());
        fs::remove_file(&volume.image).expect("removed");
    }
}

fn measure(arguments: &Arguments, volume: &Volume, state: &str, folder: &Path) {
    volume.check();
    let used = volume.used();
    for piece in ["1MiB", "4MiB"] {
        let repository = folder.join("repository");
        let path = capture(&volume.image, &repository, "1", &["--piece-length", piece]);
        let image = ImageFolder::open(&path).expect("an image");
        let length = image.manifest().piece_length.bytes();
        let payload = u64::from(image.manifest().payload.pieces) * length;
        let wire = image.grid().data_bytes();
        let sent = (arguments.transfer && piece == "4MiB").then(|| transfer(&path, folder));
        let sent = sent.map_or_else(String::new, |sent| format!("{:.4}", sent as f64 / wire as f64));
        let (mib, ratio) = (|bytes: u64| bytes as f64 / f64::from(1 << 20), |b: u64| b as f64 / used as f64);
        println!(
            "| {:?}, {state} | {piece} | {:.1} MiB | {:.1} MiB | {:.3} | {:.1} MiB | {:.3} | {sent} |",
            volume.kind,
            mib(used),
            mib(payload),
            ratio(payload),
            mib(wire),
            ratio(wire)
        );
        if arguments.check && piece == "4MiB" {
            let target = folder.join("target");
            restore(&image, &target);
            volume.same_files(&target, folder);
            fs::remove_file(target).expect("removed");
        }
        fs::remove_dir_all(&repository).expect("removed");
    }
}

/// Writes a one-partition image over noise.
fn restore(image: &ImageFolder, target: &Path) {
    let (grid, payload) = (image.grid(), image.payload().expect("a payload"));
    let length = image.manifest().piece_length.bytes();
    let file = File::create(target).expect("a file");
    let noise: Vec<u8> =
        (0..1u32 << 20).map(|i| i.wrapping_mul(2_654_435_761).to_be_bytes()[0] | 1).collect();
    let size = image.manifest().partitions[0].size;
    for at in (0..size).step_by(1 << 20) {
        let len = usize::try_from((size - at).min(1 << 20)).expect("small");
        file.write_all_at(&noise[..len], at).expect("written");
    }
    let mut bytes = vec![0; usize::try_from(length).expect("small")];
    for span in grid.zero_cells() {
        bytes.fill(0);
        file.write_all_at(&bytes[..usize::try_from(span.len).expect("small")], span.offset).expect("written");
    }
    for piece in grid.pieces_of(0).map(PieceIndex) {
        let span = grid.span(piece).expect("a piece");
        let part = &mut bytes[..usize::try_from(span.len).expect("small")];
        payload.read_at(u64::from(piece.0) * length, part).expect("read");
        file.write_all_at(part, span.offset).expect("written");
    }
}

/// Bytes that a seeder of the payload sends to one that knows the manifest.
fn transfer(image: &Path, folder: &Path) -> u64 {
    let (torrent, manifest) = (image.join("image.torrent"), image.join("manifest.json"));
    let target = folder.join("received");
    let size = ImageFolder::open(image).expect("an image").manifest().partitions[0].size;
    File::create(&target).and_then(|file| file.set_len(size)).expect("a file");
    let flashmob = beside("flashmob");
    let from = "127.0.0.1:26881";
    let mut seeder = command(None, &flashmob);
    seeder
        .arg("seed")
        .arg(&torrent)
        .arg(image.parent().expect("a folder"))
        .args(["--json", "--listen", from]);
    let mut seeder = Guarded::start(seeder.stdout(Stdio::piped()));
    let said = BufReader::new(seeder.take_stdout().expect("its events"));
    let mut get = command(None, &flashmob);
    get.arg("get").arg(&torrent).arg(&target).arg("--manifest").arg(&manifest).args(["--partition", "1"]);
    get.args(["--peer", from, "--listen", "127.0.0.1:26882", "--json"]);
    let mut get = Guarded::start(get.stdout(Stdio::null()));
    let mut sent = 0;
    let mut done = None;
    for line in said.lines().map_while(Result::ok) {
        let event: serde_json::Value = serde_json::from_str(&line).expect("an event");
        sent = event["bytes_out"].as_u64().unwrap_or(sent);
        if let Some(status) = get.status().expect("its state") {
            assert!(status.success(), "flashmob get: {status}");
            // The seeder reports its sent bytes each second.
            if done.get_or_insert_with(Instant::now).elapsed() > Duration::from_secs(2) {
                break;
            }
        }
    }
    fs::remove_file(target).expect("removed");
    sent
}
