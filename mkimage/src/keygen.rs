//! `keygen`: a key pair to sign images with.

use std::path::PathBuf;

use flashmob::event::Failure;
use minisign::KeyPair;

use crate::keys::write_new;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Where to write the secret key. It stays with the administrator who makes images.
    #[arg(long, value_name = "FILE")]
    secret: PathBuf,
    /// Where to write the public key. It goes into the initramfs.
    #[arg(long, value_name = "FILE")]
    public: PathBuf,
    /// Protect the secret key by a password, which is entered now and at each signing.
    #[arg(long)]
    password: bool,
}

/// Makes the pair. Neither file may exist.
pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let failed = |e: minisign::PError| Failure::retry(format!("making a key pair: {e}"), "");
    for path in [&arguments.secret, &arguments.public] {
        if path.symlink_metadata().is_ok() {
            return Err(Failure::refused(
                format!("{} exists", path.display()),
                "Keys are never overwritten: choose another name, or move the old one away.",
            ));
        }
    }
    let pair = if arguments.password {
        KeyPair::generate_encrypted_keypair(Some(ask_password()?)).map_err(failed)?
    } else {
        KeyPair::generate_unencrypted_keypair().map_err(failed)?
    };
    let secret = pair.sk.to_box(Some("flashmob image signing: secret key")).map_err(failed)?;
    let public = pair.pk.to_box().map_err(failed)?;
    write_new(&arguments.secret, 0o600, &secret.to_bytes())?;
    write_new(&arguments.public, 0o644, &public.to_bytes())?;
    println!("secret key: {}", arguments.secret.display());
    if arguments.password {
        println!("  protected by your password; without it no image can be signed");
    } else {
        println!("  NOT protected by a password: whoever can read this file can sign images that every");
        println!("  terminal will install. It is readable by its owner only (mode 0600).");
    }
    println!("public key: {}", arguments.public.display());
    println!("  give it to flashmob-initramfs, so that terminals trust images signed by the secret key");
    Ok(())
}

fn ask_password() -> Result<String, Failure> {
    let ask = |prompt: &str| {
        rpassword::prompt_password(prompt).map_err(|e| {
            Failure::usage(
                format!("asking for a password: {e}"),
                "Run it in a terminal, or leave --password out.",
            )
        })
    };
    let first = ask("Password for the secret key: ")?;
    if first.is_empty() || first != ask("Once more: ")? {
        return Err(Failure::usage("the passwords are empty or differ", "Try again."));
    }
    Ok(first)
}
