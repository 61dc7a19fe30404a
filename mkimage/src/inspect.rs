//! `inspect`: the content of an image, for people and as JSON.

use std::fmt::Write as _;
use std::path::PathBuf;

use flashmob::event::Failure;
use flashmob::io::image::folder::ImageFolder;
use flashmob::layout::extents::RangeKind;
use flashmob::manifest::reference::Reference;
use flashmob::manifest::{Entry, Manifest, ManifestError, Partition, Policy, Role, Table, TrustedKeys};
use flashmob::units::show_bytes;
use serde_json::json;

use crate::after::whom;
use crate::keys::read_public;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The image's folder (REPOSITORY/NAME/VERSION).
    folder: PathBuf,
    /// One JSON document on stdout instead of a table.
    #[arg(long)]
    json: bool,
    /// Check the signature with this public key.
    #[arg(long, value_name = "FILE")]
    public: Option<PathBuf>,
}

/// How far an image's signature can be relied on.
pub(crate) enum SignatureState {
    /// The signature is missing.
    Missing,
    /// There is one, and no key to check it with.
    Unchecked,
    /// By a key that was given.
    Good,
    /// Not by any key that was given.
    Bad(String),
}

impl SignatureState {
    /// Looks at the signature, with `keys` if there are any.
    pub(crate) fn of(image: &ImageFolder, keys: Option<&TrustedKeys>) -> Self {
        match (image.signature(), keys) {
            (None, _) => SignatureState::Missing,
            (Some(_), None) => SignatureState::Unchecked,
            (Some(_), Some(keys)) => match image.trusted(keys) {
                Ok(_) => SignatureState::Good,
                Err(ManifestError::Untrusted { why, .. }) => SignatureState::Bad(why),
                Err(e) => SignatureState::Bad(e.to_string()),
            },
        }
    }

    pub(crate) fn text(&self) -> String {
        match self {
            SignatureState::Missing => "not signed".into(),
            SignatureState::Unchecked => "signed (not checked: give --public)".into(),
            SignatureState::Good => "good, by the given key".into(),
            SignatureState::Bad(why) => format!("NOT by the given key: {why}"),
        }
    }

    fn word(&self) -> &'static str {
        match self {
            SignatureState::Missing => "missing",
            SignatureState::Unchecked => "unchecked",
            SignatureState::Good => "good",
            SignatureState::Bad(_) => "bad",
        }
    }

    /// A failure unless the signature is good; without keys anything will do.
    pub(crate) fn require(&self) -> Result<(), Failure> {
        let why = match self {
            SignatureState::Missing => "it is not signed",
            SignatureState::Bad(why) => why,
            SignatureState::Good | SignatureState::Unchecked => return Ok(()),
        };
        Err(Failure::untrusted(
            format!("the manifest has no good signature by the given key: {why}"),
            "Terminals with this key refuse the image. Sign it with the right key, or find out who changed \
             it.",
        ))
    }
}

/// Shows the image; fails if it is damaged or, with `--public`, not signed by that key.
pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let keys = arguments.public.as_deref().map(read_public).transpose()?;
    let image = ImageFolder::open(&arguments.folder)?;
    let state = SignatureState::of(&image, keys.as_ref());
    if arguments.json {
        let document = json!({
            "manifest": image.manifest(),
            "signature": state.word(),
            "data_bytes": image.grid().data_bytes(),
            "payload_bytes": image.grid().payload_len(),
            "stored": stored(&image),
        });
        println!("{document:#}");
    } else {
        print!("{}", describe(&image, &state));
    }
    if keys.is_some() { state.require() } else { Ok(()) }
}

fn describe(image: &ImageFolder, state: &SignatureState) -> String {
    let m = image.manifest();
    let mut out = String::new();
    let mut line = |name: &str, text: String| {
        let _ = writeln!(out, "{name:<11}{text}");
    };
    line("image", format!("{} (sequence {}, {})", m.id(), m.sequence, m.created));
    line("signature", state.text());
    line("table", table(m));
    line("disk", format!("at least {} ({} bytes)", show_bytes(m.disk.minimum_size), m.disk.minimum_size));
    line(
        "payload",
        format!(
            "{} in {} pieces of {}; {} of it data",
            show_bytes(image.grid().payload_len()),
            m.payload.pieces,
            show_bytes(m.piece_length.bytes()),
            show_bytes(image.grid().data_bytes())
        ),
    );
    line("stored", stored(image));
    line("info-hash", m.payload.info_hash.to_string());
    for area in &m.disk.boot_areas {
        line("boot area", format!("{:?}: {} bytes at {}", area.kind, area.length, area.offset));
    }
    line("BIOS", (if m.boot.bios { "boot code present" } else { "no boot code" }).into());
    for loader in &m.boot.uefi {
        line("UEFI", format!("{} (partition {}): {}", loader.path, loader.partition, loader.label));
    }
    if let Some(linux) = &m.boot.linux {
        let initrd = linux.initrd.as_deref().unwrap_or("no initrd");
        line(
            "kexec",
            format!("partition {}: {}, {initrd}, \"{}\"", linux.partition, linux.kernel, linux.cmdline),
        );
    }
    for rule in image.after().iter().flat_map(|after| &after.rules) {
        line("files", format!("{}: {} for {}", rule.name, rule.files.len(), whom(rule)));
    }
    out.push('\n');
    let _ = writeln!(
        out,
        "{:>3} {:>12} {:>12}  {:<9} {:<8} {:>7} {:>7} {:>7}  type",
        "no.", "first sector", "size", "content", "policy", "data", "zero", "free"
    );
    for (i, p) in m.partitions.iter().enumerate() {
        let data = image.grid().runs(i).iter().filter(|run| run.kind == RangeKind::Data);
        let data: u64 = data.map(|run| run.len).sum();
        let _ = writeln!(
            out,
            "{:>3} {:>12} {:>12}  {:<9} {:<8} {:>7} {:>7} {:>7}  {} ({} of data)",
            p.number,
            p.first.0,
            show_bytes(p.size),
            p.filesystem.as_deref().unwrap_or("-"),
            match p.policy {
                Policy::Replace if p.grow => "grow",
                Policy::Replace => "replace",
                Policy::Keep => "keep",
            },
            p.pieces.data,
            p.pieces.zero,
            p.pieces.free,
            kind(p),
            show_bytes(data),
        );
    }
    out
}

/// Where the payload lies, and which programs can seed it from there.
fn stored(image: &ImageFolder) -> String {
    match image.reference() {
        None => "payload files, which any BitTorrent client can seed".into(),
        Some(Reference::Parts(list)) => {
            let own = list.files.iter().filter(|part| part.from.is_none()).count();
            format!("{} files of pieces, {own} of its own: only flashmob can seed them", list.files.len())
        }
        Some(Reference::Source(source)) => format!("in place, on {}: only flashmob can seed it", source.path),
    }
}

fn table(m: &Manifest) -> String {
    let sector = m.disk.sector_size.get();
    match &m.disk.table {
        Table::Gpt { guid, entries, .. } => {
            format!("GPT {guid}, {entries} entries, sectors of {sector} bytes")
        }
        Table::Mbr { signature: [a, b, c, d], extended } => format!(
            "MBR {d:02x}{c:02x}{b:02x}{a:02x}, {} extended, sectors of {sector} bytes",
            extended.len()
        ),
        Table::None => "none: a single partition".into(),
    }
}

fn kind(p: &Partition) -> String {
    let role = match p.role {
        Role::Esp => "EFI system",
        Role::BiosBoot => "BIOS boot",
        Role::Swap => "swap",
        Role::Data => "data",
    };
    match &p.entry {
        Entry::Gpt { name, .. } if !name.is_empty() => format!("{role} '{name}'"),
        Entry::Mbr { kind, active, ebr } => format!(
            "{role} {kind:02x}{}{}",
            if *active { " active" } else { "" },
            if ebr.is_some() { " logical" } else { "" }
        ),
        _ => role.into(),
    }
}
