//! `flashmob-initramfs keys`: the organisation's key as signed updates of the firmware's variables `db`,
//! `KEK` and `PK`, which the agent enrols where `build --enrol-keys` put them inside.
//!
//! Invariant: an existing folder with keys is never overwritten. The private key stays where it is.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::Args;
use flashmob::boot::secure::{IN_ORDER, KeyVariable, is_microsofts, lists_of};
use flashmob::digest::sha256;
use flashmob::io::host::enrol::{Updates, WITHOUT_MICROSOFT, file_of};

use crate::archive::Tree;
use crate::tools::{command, run};

/// Where the agent looks for the updates.
const INSIDE: &str = "etc/flashmob/secureboot";

/// The key, and the certificates beside it.
#[derive(Args)]
pub(crate) struct KeysArgs {
    /// New folder that gets db.auth, KEK.auth and PK.auth.
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// The organisation's private key (PEM), the one that signs flashmob.efi.
    #[arg(long, value_name = "FILE")]
    pub sign_key: PathBuf,
    /// That key's certificate (PEM).
    #[arg(long, value_name = "FILE")]
    pub sign_cert: PathBuf,
    /// A further certificate whose programs may start (PEM or DER), Microsoft's for example; may be given
    /// more than once.
    #[arg(long, value_name = "FILE")]
    pub db: Vec<PathBuf>,
    /// A further certificate whose holder may change the list of programs, Microsoft's for example; may be
    /// given more than once.
    #[arg(long, value_name = "FILE")]
    pub kek: Vec<PathBuf>,
    /// Let the agent enrol the keys also where the firmware then has none of Microsoft's certificates, so
    /// that Windows, shim and the firmware on graphics and network cards do not start: virtual machines.
    #[arg(long)]
    pub without_microsoft: bool,
}

/// Makes the updates, and returns a text for people.
pub(crate) fn keys(args: &KeysArgs) -> Result<String> {
    if args.out.exists() {
        bail!("{} exists; name a new folder", args.out.display());
    }
    let own = der(&args.sign_cert)?;
    let of = |more: &[PathBuf]| -> Result<Vec<Vec<u8>>> {
        std::iter::once(Ok(own.clone())).chain(more.iter().map(|path| der(path))).collect()
    };
    let (db, kek) = (of(&args.db)?, of(&args.kek)?);
    let has_microsoft = db.iter().any(|one| is_microsofts(one));
    let mut owner = [0; 16];
    owner.copy_from_slice(&sha256(&own).0[..16]);
    let parent = args.out.parent().filter(|path| !path.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::create_dir_all(parent).with_context(|| format!("making {}", parent.display()))?;
    let work = tempfile::tempdir_in(parent).context("making a temporary folder")?;
    for variable in IN_ORDER {
        let certificates = match variable {
            KeyVariable::Db => &db,
            KeyVariable::Kek => &kek,
            KeyVariable::Pk => &vec![own.clone()],
        };
        let lists = lists_of(owner, certificates).context("a certificate is too long")?;
        let (plain, signed) = (work.path().join("lists"), work.path().join(file_of(variable)));
        std::fs::write(&plain, lists).with_context(|| format!("writing {}", plain.display()))?;
        let mut sign = command("sbvarsign")?;
        sign.arg("--key").arg(&args.sign_key).arg("--cert").arg(&args.sign_cert);
        sign.args(["--attr", &attributes(variable)]).arg("--output").arg(&signed);
        run(sign.arg(variable.name()).arg(&plain), &format!("signing {}", variable.name()))?;
        std::fs::remove_file(&plain).context("removing a temporary file")?;
    }
    if args.without_microsoft {
        std::fs::write(work.path().join(WITHOUT_MICROSOFT), "").context("writing a file")?;
    }
    Updates::read(work.path()).context("reading the updates again")?.context("the updates are gone")?;
    let work = work.keep();
    std::fs::rename(&work, &args.out).with_context(|| format!("naming {}", args.out.display()))?;
    let mut text = format!("{}: db.auth, KEK.auth and PK.auth\n", args.out.display());
    if !has_microsoft {
        text += "Microsoft's certificates are not inside (--db): ";
        text += match args.without_microsoft {
            true => "Windows, shim and cards with firmware of their own may not start on these terminals.\n",
            false => "the agent enrols these keys only where the firmware's own db has them.\n",
        };
    }
    Ok(text)
}

/// The names of a variable's attributes. `db` and `KEK` keep what is there.
fn attributes(variable: KeyVariable) -> String {
    let mut names =
        vec!["NON_VOLATILE", "BOOTSERVICE_ACCESS", "RUNTIME_ACCESS", "TIME_BASED_AUTHENTICATED_WRITE_ACCESS"];
    if variable != KeyVariable::Pk {
        names.push("APPEND_WRITE");
    }
    names.join(",")
}

/// A certificate's bytes.
fn der(path: &Path) -> Result<Vec<u8>> {
    let mut convert = command("openssl")?;
    let what = format!("reading the certificate {}", path.display());
    Ok(run(convert.args(["x509", "-outform", "DER", "-in"]).arg(path), &what)?.stdout)
}

/// Puts the updates in `folder` into the initramfs.
pub(crate) fn put_inside(tree: &mut Tree, folder: &Path) -> Result<()> {
    let updates = Updates::read(folder)?;
    let updates =
        updates.with_context(|| format!("--enrol-keys: there is no folder {}", folder.display()))?;
    if !updates.keep_microsoft() {
        log::warn!(
            "--enrol-keys: Microsoft's certificates are not in db.auth, so the agent enrols the keys only \
             where the firmware's own db has them"
        );
    }
    let names = IN_ORDER.map(file_of).into_iter().chain([WITHOUT_MICROSOFT.to_string()]);
    for name in names {
        let path = folder.join(&name);
        if path.is_file() {
            let content = std::fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
            tree.file(&format!("{INSIDE}/{name}"), content);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use flashmob::boot::secure::{certificates, payload};

    /// A key and its certificate in `folder`; `None` without the packages.
    fn new_key(folder: &Path, name: &str, subject: &str) -> Option<(PathBuf, PathBuf)> {
        if !["sbvarsign", "openssl"].iter().all(|program| command(program).is_ok()) {
            return None;
        }
        let (key, cert) = (folder.join(format!("{name}.key")), folder.join(format!("{name}.crt")));
        let mut new = command("openssl").unwrap();
        new.args(["req", "-new", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", subject, "-keyout"]);
        run(new.arg(&key).arg("-out").arg(&cert), "making a key").unwrap();
        Some((key, cert))
    }

    fn arguments(folder: &Path, (key, cert): (&Path, &Path)) -> KeysArgs {
        KeysArgs {
            out: folder.join("keys"),
            sign_key: key.into(),
            sign_cert: cert.into(),
            db: Vec::new(),
            kek: Vec::new(),
            without_microsoft: false,
        }
    }

    #[test]
    fn the_updates_have_the_certificates_and_a_signature_of_the_key() {
        let folder = tempfile::tempdir().unwrap();
        let Some((key, cert)) = new_key(folder.path(), "own", "/CN=Our school/") else { return };
        let (_, other) = new_key(folder.path(), "ms", "/O=Microsoft Corporation/CN=test/").unwrap();
        let args = KeysArgs { db: vec![other.clone()], ..arguments(folder.path(), (&key, &cert)) };
        let said = keys(&args).unwrap();
        assert!(!said.contains("Microsoft"), "{said}");
        let of = |name: &str| std::fs::read(args.out.join(name)).unwrap();
        let (db, pk) = (of("db.auth"), of("PK.auth"));
        let own = der(&cert).unwrap();
        let inside = certificates(payload(&db).unwrap()).unwrap();
        assert_eq!(inside, [own.clone(), der(&other).unwrap()]);
        assert_eq!(certificates(payload(&pk).unwrap()).unwrap(), [own]);
        assert!(keys(&args).unwrap_err().to_string().contains("exists"));
        let mut tree = Tree::default();
        put_inside(&mut tree, &args.out).unwrap();
        let contents = tree.contents();
        assert!(contents.contains("/etc/flashmob/secureboot/PK.auth"), "{contents}");
        assert!(!contents.contains(WITHOUT_MICROSOFT), "{contents}");
    }

    /// The signature covers name, vendor, attributes, time and lists (UEFI 2.10 §8.2.2).
    #[test]
    fn the_signature_is_over_what_the_firmware_checks() {
        let folder = tempfile::tempdir().unwrap();
        let Some((key, cert)) = new_key(folder.path(), "own", "/CN=Our school/") else { return };
        let args = KeysArgs { without_microsoft: true, ..arguments(folder.path(), (&key, &cert)) };
        assert!(keys(&args).unwrap().contains("may not start"));
        let vendor = |text: &str| {
            let uuid = text.replace('-', "");
            let bytes: Vec<u8> =
                (0..16).map(|n| u8::from_str_radix(&uuid[2 * n..2 * n + 2], 16).unwrap()).collect();
            let order = [3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15];
            order.map(|n: usize| bytes[n])
        };
        for variable in IN_ORDER {
            let update = std::fs::read(args.out.join(file_of(variable))).unwrap();
            let name: Vec<u8> = variable.name().bytes().flat_map(|byte| [byte, 0]).collect();
            let lists = payload(&update).unwrap();
            // The firmware's format is the inner part of what openssl reads (RFC 2315 §7).
            let signature = &update[16 + 24..update.len() - lists.len()];
            let long = |tag: u8, content: &[u8]| {
                let length = u16::try_from(content.len()).unwrap().to_be_bytes();
                [&[tag, 0x82], &length[..], content].concat()
            };
            let kind = b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x07\x02";
            let signature = long(0x30, &[&kind[..], &long(0xa0, signature)].concat());
            let attributes = variable.attributes().to_le_bytes();
            let covered = [&name, &vendor(variable.vendor())[..], &attributes, &update[..16], lists].concat();
            let [data, signed] = ["data", "p7"].map(|name| folder.path().join(name));
            std::fs::write(&data, covered).unwrap();
            std::fs::write(&signed, signature).unwrap();
            let mut verify = command("openssl").unwrap();
            verify.args(["smime", "-verify", "-inform", "DER", "-binary", "-noverify", "-content"]);
            verify.arg(&data).arg("-in").arg(&signed).arg("-certfile").arg(&cert);
            run(&mut verify, variable.name()).unwrap();
        }
    }
}
