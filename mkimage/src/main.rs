//! `flashmob-mkimage`: makes, inspects, verifies and signs images.
//!
//! One file a verb. Invariant: a verb either completes or fails with a class (the exit code,
//! docs/troubleshooting.md), a reason and a remedy.

mod after;
mod capture;
mod composed;
mod diff;
mod format;
mod hash;
mod inspect;
mod keygen;
mod keys;
mod loop_device;
mod pipeline;
mod progress;
mod sign;
mod source;
mod verify;
mod view;

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};
use flashmob::event::Failure;
use flashmob::io::host::stdout;
use flashmob::manual;

/// Makes, inspects, verifies and signs flashmob images.
#[derive(Parser)]
#[command(name = "flashmob-mkimage", version)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Make a key pair to sign images with.
    Keygen(keygen::Arguments),
    /// Make an image of a disk, a disk image file or a single partition.
    Capture(Box<capture::Arguments>),
    /// Add the hashes to an image that was captured with --piece-hashes none.
    Hash(hash::Arguments),
    /// Give an image the administrator's files for terminals.
    After(after::Arguments),
    /// Sign an image's manifest.
    Sign(sign::Arguments),
    /// Show the content of an image.
    Inspect(inspect::Arguments),
    /// Check an image folder against its manifest, or a disk against an image.
    Verify(verify::Arguments),
    /// List the changes between two versions of an image.
    Diff(diff::Arguments),
    Manual(manual::ManualArgs),
}

fn main() -> ExitCode {
    stdout::end_quietly_when_closed();
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("warn,fatfs=error")).init();
    let result: Result<(), Failure> = match Arguments::parse().verb {
        Verb::Keygen(arguments) => keygen::run(&arguments),
        Verb::Capture(arguments) => capture::run(&arguments),
        Verb::Hash(arguments) => hash::run(&arguments),
        Verb::After(arguments) => after::run(&arguments),
        Verb::Sign(arguments) => sign::run(&arguments),
        Verb::Inspect(arguments) => inspect::run(&arguments),
        Verb::Verify(arguments) => verify::run(&arguments),
        Verb::Diff(arguments) => diff::run(&arguments),
        Verb::Manual(arguments) => manual::write(Arguments::command(), &arguments),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("flashmob-mkimage: {}", failure.message);
            if !failure.advice.is_empty() {
                eprintln!("  {}", failure.advice);
            }
            ExitCode::from(failure.class.exit_code())
        }
    }
}
