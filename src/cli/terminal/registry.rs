//! `flashmob terminal set`, `import` and `export`: what people say of terminals.

use std::io::Read;
use std::path::{Path, PathBuf};

use clap::Args;
use reqwest::Method;

use super::decide::decide;
use crate::api::{Describe, DescribeTerminals, Imported, MAX_TABLE};
use crate::cli::call::{Content, ServerArg, ask, send, text_of, understand};
use crate::event::Failure;

/// Describe terminals, and so register them. An empty text clears, as in --seat "".
#[derive(Debug, Args)]
pub(super) struct SetArgs {
    /// Label, MAC, uuid:4c4c4544-…, room:NAME, group:NAME, zone:NAME, new or all. Several terminals can share
    /// room and groups only.
    #[arg(required = true, value_name = "TARGET")]
    targets: Vec<String>,
    /// Its name for people, unlike that of any other terminal.
    #[arg(long)]
    label: Option<String>,
    #[arg(long)]
    room: Option<String>,
    /// Its seat in the room.
    #[arg(long)]
    seat: Option<String>,
    /// A group that it joins; may be repeated.
    #[arg(long, value_name = "NAME")]
    group: Vec<String>,
    /// A group that it leaves; may be repeated.
    #[arg(long, value_name = "NAME")]
    ungroup: Vec<String>,
    /// The host name that its system should have.
    #[arg(long, value_name = "NAME")]
    hostname: Option<String>,
    /// Register it without saying anything of it.
    #[arg(long)]
    accept: bool,
    #[command(flatten)]
    server: ServerArg,
}

/// Read terminals from a CSV file: all or none.
///
/// The first line names the columns in any order: mac or uuid, label, room, seat, groups (separated by ';'),
/// hostname. A known terminal is described anew, an unknown one is listed and registered. A column that is
/// not there leaves what the server knows; an empty cell clears it.
#[derive(Debug, Args)]
pub(super) struct ImportArgs {
    /// The file; '-' for the standard input.
    file: PathBuf,
    #[command(flatten)]
    server: ServerArg,
}

/// Print the registered terminals as CSV, as import reads it.
#[derive(Debug, Args)]
pub(super) struct ExportArgs {
    /// Also those that are listed as new.
    #[arg(long)]
    new: bool,
    #[command(flatten)]
    server: ServerArg,
}

pub(super) async fn set(args: SetArgs) -> Result<(), Failure> {
    let SetArgs { targets, label, room, seat, group, ungroup, hostname, accept, server } = args;
    let describe = Describe { label, room, seat, join: group, leave: ungroup, hostname };
    if !accept && describe == Describe::default() {
        let advice = "Name a change, for example --label, or register it with --accept.";
        return Err(Failure::usage("there is nothing to set", advice));
    }
    decide(&server, "set", &DescribeTerminals { targets, set: describe }).await
}

pub(super) async fn import(args: ImportArgs) -> Result<(), Failure> {
    let body = read(&args.file)?;
    if body.len() > MAX_TABLE {
        let message =
            format!("{} has {} bytes, and a table at most {MAX_TABLE}", args.file.display(), body.len());
        return Err(Failure::usage(message, "Check that it is the right file, or import it in parts."));
    }
    let path = ["api", "v1", "terminals", "import"];
    let answer = send(&args.server, Method::POST, &path, (Content::Csv, body)).await?;
    let Imported { created, updated, unchanged } = understand(&text_of(answer).await?)?;
    println!("Terminals: {created} new here, {updated} changed, {unchanged} as they were.");
    Ok(())
}

fn read(file: &Path) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    let read = match file.to_str() {
        Some("-") => std::io::stdin().lock().read_to_end(&mut bytes).map(|_| bytes),
        _ => std::fs::read(file),
    };
    read.map_err(|e| Failure::usage(format!("reading {}: {e}", file.display()), "Name a CSV file."))
}

pub(super) async fn export(args: ExportArgs) -> Result<(), Failure> {
    let query = args.new.then_some("new=true");
    let path = ["api", "v1", "terminals", "export"];
    print!("{}", text_of(ask(&args.server, Method::GET, &path, query).await?).await?);
    Ok(())
}
