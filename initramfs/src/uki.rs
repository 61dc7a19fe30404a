//! One UEFI program with kernel, initramfs and command line (a unified kernel image), signed with the
//! organisation's key: the signature covers all of it.
//!
//! Invariant: the file appears in the boot folder only when its signature has been verified.

use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::arguments::BuildArgs;
use crate::pe;
use crate::tools::{command, file_of_package, run};
use crate::whole;

/// The program's name in the boot folder.
pub(crate) const NAME: &str = "flashmob.efi";
/// systemd's stub (systemd-stub(7)) starts the kernel in its section.
const STUB: &str = "/usr/lib/systemd/boot/efi/linuxx64.efi.stub";
/// Tells the agent that no script of the server started it, so that it asks the server itself whether there
/// is work, and else goes on with the firmware's next boot entry.
const DIRECT: &str = "flashmob.direct=1";
/// Describes the program to boot menus (os-release(5)).
const RELEASE: &str = concat!(
    "ID=flashmob\nNAME=flashmob\nPRETTY_NAME=\"flashmob agent\"\nVERSION_ID=",
    env!("CARGO_PKG_VERSION"),
    "\n"
);

/// Makes `flashmob.efi` in `--out` and returns its size in bytes.
pub(crate) fn write(args: &BuildArgs, vmlinuz: &[u8], initramfs: &[u8]) -> Result<u64> {
    let (Some(key), Some(certificate)) = (&args.sign_key, &args.sign_cert) else {
        bail!("--uki needs --sign-key and --sign-cert");
    };
    for file in [key, certificate] {
        if !file.is_file() {
            bail!("there is no file {}; docs/secure-boot.md shows how to make a key", file.display());
        }
    }
    let stub = file_of_package(STUB, "systemd-boot-efi")?;
    let stub = std::fs::read(&stub).with_context(|| format!("reading {}", stub.display()))?;
    let command_line = command_line(&args.cmdline);
    let sections: [(&str, &[u8]); 4] = [
        (".osrel", RELEASE.as_bytes()),
        (".cmdline", command_line.as_bytes()),
        (".linux", vmlinuz),
        (".initrd", initramfs),
    ];
    let program =
        pe::with_sections(&stub, &sections).context("adding kernel and initramfs to systemd's stub")?;
    let work = tempfile::tempdir_in(&args.out).context("making a temporary folder")?;
    let (plain, signed) = (work.path().join("plain.efi"), work.path().join("signed.efi"));
    std::fs::write(&plain, program).with_context(|| format!("writing {}", plain.display()))?;
    let mut sign = command("sbsign")?;
    sign.arg("--key").arg(key).arg("--cert").arg(certificate).arg("--output").arg(&signed);
    run(sign.arg(&plain), &format!("signing {NAME}"))?;
    verify(&signed, certificate)?;
    let size = std::fs::metadata(&signed).context("reading the signed program's size")?.len();
    let target = args.out.join(NAME);
    whole::place(&signed, &target)?;
    Ok(size)
}

fn verify(program: &Path, certificate: &Path) -> Result<()> {
    let mut verify = command("sbverify")?;
    let what = format!("verifying {NAME} with {}", certificate.display());
    run(verify.arg("--cert").arg(certificate).arg(program), &what).map(drop)
}

fn command_line(more: &str) -> String {
    format!("{DIRECT} {more}").trim_end().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Cli, Command};
    use clap::Parser;

    /// A build into `folder` with `sign` as key and certificate of a new key, or `None` without the packages.
    fn build(folder: &Path, key: &str, certificate: &str) -> Option<Result<u64>> {
        if !Path::new(STUB).is_file() || !["sbsign", "openssl"].iter().all(|name| command(name).is_ok()) {
            return None;
        }
        for name in ["one", "other"] {
            let mut new = command("openssl").unwrap();
            new.args([
                "req", "-new", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=lab/", "-keyout",
            ]);
            new.arg(folder.join(format!("{name}.key"))).arg("-out").arg(folder.join(format!("{name}.crt")));
            run(&mut new, "making a key").unwrap();
        }
        let [out, key, certificate] = [folder.to_path_buf(), folder.join(key), folder.join(certificate)];
        let words = ["flashmob-initramfs", "build", "--uki", "--cmdline", "console=ttyS0", "--out"];
        let [out, key, certificate] = [&out, &key, &certificate].map(|path| path.to_str().unwrap());
        let words = words.into_iter().chain([out, "--sign-key", key, "--sign-cert", certificate]);
        let Command::Build(args) = Cli::parse_from(words).command else { panic!("build was typed") };
        Some(write(&args, &[7; 5000], &[8; 3000]))
    }

    #[test]
    fn kernel_initramfs_and_command_line_are_under_one_signature() {
        let folder = tempfile::tempdir().unwrap();
        let Some(size) = build(folder.path(), "one.key", "one.crt") else { return };
        let program = std::fs::read(folder.path().join(NAME)).unwrap();
        assert_eq!(size.unwrap(), u64::try_from(program.len()).unwrap());
        assert!(pe::is_signed(&program));
        let has = |part: &[u8]| program.windows(part.len()).any(|window| window == part);
        assert!(has(&[7; 5000]) && has(&[8; 3000]) && has(b"flashmob.direct=1 console=ttyS0"));
        let changed = folder.path().join("changed.efi");
        let at = program.windows(13).position(|window| window == b"console=ttyS0").unwrap();
        let mut spoilt = program.clone();
        spoilt[at] = b'k';
        std::fs::write(&changed, spoilt).unwrap();
        assert!(verify(&changed, &folder.path().join("one.crt")).is_err());
        assert!(verify(&folder.path().join(NAME), &folder.path().join("other.crt")).is_err());
    }

    #[test]
    fn a_certificate_of_another_key_leaves_no_program() {
        let folder = tempfile::tempdir().unwrap();
        let Some(made) = build(folder.path(), "one.key", "other.crt") else { return };
        assert!(made.is_err());
        assert!(!folder.path().join(NAME).exists());
    }

    #[test]
    fn a_key_that_is_not_there_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let Some(made) = build(folder.path(), "none.key", "one.crt") else { return };
        assert!(made.unwrap_err().to_string().contains("none.key"));
    }
}
