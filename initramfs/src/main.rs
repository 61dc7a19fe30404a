//! `flashmob-initramfs`: builds what a terminal netboots: kernel, initramfs, iPXE script, GRUB images, ISO.
//!
//! Invariant: same input, same bytes (except the ISO and flashmob.efi, which carry dates), and nothing is
//! written outside `--out` and the cache. `modules` knows the dependencies of kernel modules, `drivers` the
//! sets, `check` says what they serve, `archive` the archive's format. `flashmob serve` serves the files.

mod archive;
mod arguments;
mod build;
mod check;
mod devices;
mod drivers;
mod enrol;
mod firmware;
mod iso;
mod kernel;
mod localboot;
mod modules;
mod netboot;
mod ntfs;
mod pe;
mod secureboot;
mod tools;
mod uki;
mod whole;

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};
use flashmob::event::Class;
use flashmob::manual;

use crate::arguments::BuildArgs;
use crate::check::CheckArgs;
use crate::enrol::KeysArgs;

/// Builds the files that flashmob's terminals netboot.
#[derive(Parser)]
#[command(name = "flashmob-initramfs", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Write vmlinuz, initramfs.img, boot.ipxe, localboot.0, localboot.efi, undionly.kpxe and snponly.efi
    /// into a folder for `flashmob serve --boot`, and on request what terminals with Secure Boot start.
    Build(Box<BuildArgs>),
    /// Say for devices, or for a machine's inventory, which driver of a set serves them, and which firmware
    /// is missing. The exit status is 1 where a network card or a disk controller is not served.
    Check(Box<CheckArgs>),
    /// Make files of the organisation's key that the agent enrols where the firmware is in Setup Mode, if
    /// `build --enrol-keys` puts them inside.
    Keys(Box<KeysArgs>),
    Manual(manual::ManualArgs),
}

fn main() -> ExitCode {
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("info"))
        .format_timestamp(None)
        .format_target(false)
        .init();
    let result = match Cli::parse().command {
        Command::Build(args) => build::build(&args),
        Command::Keys(args) => enrol::keys(&args),
        Command::Check(args) => match check::check(&args) {
            Ok((text, false)) => {
                print!("{text}");
                return ExitCode::FAILURE;
            }
            answer => answer.map(|(text, _)| text),
        },
        Command::Manual(args) => {
            manual::write(Cli::command(), &args).map(|()| String::new()).map_err(Into::into)
        }
    };
    match result {
        Ok(summary) => {
            print!("{summary}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            log::error!("{error:#}");
            ExitCode::from(Class::Usage.exit_code())
        }
    }
}
