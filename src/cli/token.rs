//! `flashmob token`: tokens of the people who may act from their own desks.

use std::io::{IsTerminal, Write};

use clap::{Args, Subcommand, ValueEnum};
use reqwest::Method;

use super::call::{Content, ServerArg, ask, send, text_of, understand};
use super::table::{local_second, table};
use crate::api::{NewToken, TokenMade, TokenView};
use crate::event::Failure;

/// Give people tokens, with which they act from their own machines.
#[derive(Debug, Args)]
pub struct TokenArgs {
    #[command(subcommand)]
    command: TokenCommand,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Role {
    /// Everything.
    Admin,
    /// Create jobs for the terminals of one room, and wake, retry, cancel and admit them.
    Teacher,
}

#[derive(Debug, Subcommand)]
enum TokenCommand {
    /// Make a token, and print it. The server keeps its hash only, so nobody can print it again.
    Create {
        #[arg(long)]
        role: Role,
        /// The room of a teacher.
        #[arg(long)]
        room: Option<String>,
        /// The name by which the audit knows its owner [default: by the role].
        #[arg(long)]
        name: Option<String>,
        #[command(flatten)]
        server: ServerArg,
    },
    /// Show the tokens that are valid, without the tokens themselves.
    List {
        #[command(flatten)]
        server: ServerArg,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Make a token invalid.
    Revoke {
        name: String,
        #[command(flatten)]
        server: ServerArg,
    },
}

const PATH: [&str; 3] = ["api", "v1", "tokens"];

pub async fn run(args: TokenArgs) -> Result<(), Failure> {
    match args.command {
        TokenCommand::Create { role, room, name, server } => {
            let role = match role {
                Role::Admin => "admin",
                Role::Teacher => "teacher",
            };
            let body = serde_json::to_vec(&NewToken { name, role: role.into(), room }).map_err(|e| {
                Failure::refused(format!("writing JSON: {e}"), "This is a bug in flashmob: report it.")
            })?;
            let answer = send(&server, Method::POST, &PATH, (Content::Json, body)).await?;
            let made: TokenMade = understand(&text_of(answer).await?)?;
            println!("{}", made.token);
            if let Some(warning) = &made.warning {
                let _ = writeln!(std::io::stderr(), "WARNING: {warning}.");
            }
            // A file that the token is written to gets nothing else.
            let file = "~/.config/flashmob/token";
            let note = format!("The token of '{}'. Its owner keeps it in {file}.", made.view.name);
            if std::io::stdout().is_terminal() {
                println!("{note}");
            } else {
                let _ = writeln!(std::io::stderr(), "{note}");
            }
            Ok(())
        }
        TokenCommand::List { server, json } => {
            let text = text_of(ask(&server, Method::GET, &PATH, None).await?).await?;
            if json {
                println!("{text}");
                return Ok(());
            }
            let tokens: Vec<TokenView> = understand(&text)?;
            let mut rows = vec![["NAME", "ROLE", "ROOM", "MADE"].map(String::from)];
            rows.extend(
                tokens
                    .into_iter()
                    .map(|t| [t.name, t.role, t.room.unwrap_or("-".into()), local_second(&t.created)]),
            );
            print!("{}", table(&rows));
            Ok(())
        }
        TokenCommand::Revoke { name, server } => {
            let path = [&PATH[..], &[&name]].concat();
            ask(&server, Method::DELETE, &path, None).await?;
            println!("The token of '{name}' is no longer valid.");
            Ok(())
        }
    }
}
