//! The terminal's agent: as PID 1 it is the initramfs's `/init`, as its child the worker, otherwise a
//! command.

use std::process::ExitCode;

use clap::Parser;
use flashmob::agent::{cli, init, netboot};

fn main() -> ExitCode {
    if std::process::id() == 1 {
        init::run();
    }
    if std::env::args_os().nth(1).is_some_and(|argument| argument == init::WORKER) {
        return netboot::run();
    }
    if std::env::args_os().nth(1).is_some_and(|argument| argument == "lend") {
        return cli::lend::run(cli::lend::LendArgs::parse_from(std::env::args_os().skip(1)));
    }
    cli::run(cli::Args::parse())
}
