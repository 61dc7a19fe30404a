//! `flashmob backup`: a copy of the server's state, while the server runs or without it.
//!
//! Invariant: FILE appears whole and checked, or not at all, and replaces nothing.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use reqwest::Client;

use super::call::{DEFAULT_SERVER, accepted, away, signed, url_of};
use super::peers::Interrupts;
use super::serve::DEFAULT_STATE;
use crate::event::{Class, Failure};
use crate::server::store::{self, StoreError};
use crate::units::show_bytes;

/// How long no byte may come; the server copies the database before it sends the first one.
const PATIENCE: Duration = Duration::from_secs(600);

/// Copy the server's state to FILE, also while the server runs.
///
/// Asks the server at http://127.0.0.1:6969; if none runs there, opens /var/lib/flashmob itself. The copy is
/// consistent, and is checked before FILE appears.
#[derive(Debug, Args)]
pub struct BackupArgs {
    /// The file to make; it must not exist.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Ask the server at this address.
    #[arg(long, value_name = "URL", conflicts_with = "state")]
    server: Option<String>,
    /// File with an administrator's token, on another machine than the server [default: the file that
    /// FLASHMOB_TOKEN_FILE names, else ~/.config/flashmob/token].
    #[arg(long, value_name = "FILE")]
    token: Option<PathBuf>,
    /// Open this state folder, with which no server runs.
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
}

/// Makes the copy.
pub async fn run(args: BackupArgs) -> Result<(), Failure> {
    let mut interrupts = Interrupts::new()?;
    let partial = Partial::beside(&args.file)?;
    tokio::select! {
        made = copy(&args, &partial) => made?,
        () = interrupts.wait() => {
            return Err(Failure::retry("interrupted: there is no copy", "Run it again."));
        }
    }
    let contents = store::examine(&partial.path).map_err(|e| {
        let advice = "Nothing was kept of the copy. Look at the disk of the server's state; a restart of the \
                      server checks its database.";
        Failure::disk(format!("the copy is not sound: {e}"), advice)
    })?;
    let bytes = fs::metadata(&partial.path).map_or(0, |m| m.len());
    partial.publish(&args.file)?;
    println!(
        "{}: {}, {} terminals, schema {}",
        args.file.display(),
        show_bytes(bytes),
        contents.terminals,
        contents.schema
    );
    Ok(())
}

async fn copy(args: &BackupArgs, partial: &Partial) -> Result<(), Failure> {
    match (&args.server, &args.state) {
        (_, Some(state)) => at_rest(state, partial),
        (Some(server), None) => match fetch(server, args.token.as_deref(), partial).await {
            Err(Unfetched::NobodyThere(failure) | Unfetched::Failed(failure)) => Err(failure),
            Ok(()) => Ok(()),
        },
        (None, None) => match fetch(DEFAULT_SERVER, args.token.as_deref(), partial).await {
            Err(Unfetched::NobodyThere(failure)) => {
                at_rest(Path::new(DEFAULT_STATE), partial).map_err(|e| neither(failure, e))
            }
            Err(Unfetched::Failed(failure)) => Err(failure),
            Ok(()) => Ok(()),
        },
    }
}

/// No server answers, and its state cannot be copied either.
fn neither(server: Failure, state: Failure) -> Failure {
    let message = format!("{}; and {}", server.message, state.message);
    let advice = match state.class {
        Class::Usage => {
            "Ask a running server with --server URL, or name the state folder of one that does not run with \
             --state DIR."
                .into()
        }
        _ => state.advice,
    };
    Failure::new(state.class, message, advice)
}

enum Unfetched {
    NobodyThere(Failure),
    Failed(Failure),
}

impl From<Failure> for Unfetched {
    fn from(failure: Failure) -> Self {
        Unfetched::Failed(failure)
    }
}

/// Fetches a copy from a running server.
async fn fetch(address: &str, token: Option<&Path>, partial: &Partial) -> Result<(), Unfetched> {
    let url = url_of(address, &["api", "v1", "backup"])?;
    let client = Client::builder().read_timeout(PATIENCE).no_proxy().build();
    let request = client.map_err(|e| away(address, &e))?.post(url);
    let sent = signed(request, token)?.send().await;
    let answer = sent.map_err(|e| match e.is_connect() {
        true => Unfetched::NobodyThere(away(address, &e)),
        false => Unfetched::Failed(away(address, &e)),
    })?;
    let mut answer = accepted(address, answer).await?;
    let mut file = partial.open()?;
    while let Some(bytes) = answer.chunk().await.map_err(|e| away(address, &e))? {
        file.write_all(&bytes).map_err(|e| cannot("writing", &partial.path, &e))?;
    }
    Ok(())
}

/// Copies the state of a server that does not run.
fn at_rest(state: &Path, partial: &Partial) -> Result<(), Failure> {
    store::copy_at_rest(state, &partial.path).map_err(|e| {
        let class = match e {
            StoreError::Missing { .. } => Class::Usage,
            _ => Class::Refused,
        };
        Failure::new(class, e.to_string(), e.advice())
    })
}

/// A file beside FILE, which is removed unless it becomes FILE.
struct Partial {
    path: PathBuf,
}

impl Partial {
    fn beside(file: &Path) -> Result<Self, Failure> {
        if file.symlink_metadata().is_ok() {
            return Err(exists(file));
        }
        let name = file.file_name().ok_or_else(|| {
            Failure::usage(format!("{} is not a file's name", file.display()), "Name a file to make.")
        })?;
        let name = format!(".{}.partial-{}", name.to_string_lossy(), std::process::id());
        let path = file.with_file_name(name);
        // It holds secrets of the server, so no other user may read it.
        let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        made.map(|_| Partial { path: path.clone() }).map_err(|e| cannot("making", &path, &e))
    }

    fn open(&self) -> Result<File, Failure> {
        OpenOptions::new().write(true).open(&self.path).map_err(|e| cannot("opening", &self.path, &e))
    }

    /// Gives the synced file its name, which must still be free.
    fn publish(self, file: &Path) -> Result<(), Failure> {
        self.open()?.sync_all().map_err(|e| cannot("syncing", &self.path, &e))?;
        match rename_new(&self.path, file) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => return Err(exists(file)),
            renamed => renamed.map_err(|e| cannot("making", file, &e))?,
        }
        let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(|e| cannot("syncing", folder, &e))
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        // After a rename it is not there.
        let _ = fs::remove_file(&self.path);
    }
}

/// Renames to a name that must be free.
fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    match renameat2(AT_FDCWD, from, AT_FDCWD, to, RenameFlags::RENAME_NOREPLACE) {
        // Network filesystems know only plain `rename`; a link replaces nothing either.
        Err(Errno::EINVAL | Errno::ENOSYS) => fs::hard_link(from, to),
        other => other.map_err(io::Error::from),
    }
}

fn exists(file: &Path) -> Failure {
    Failure::refused(format!("{} exists already", file.display()), "Name a file that does not exist yet.")
}

fn cannot(what: &str, path: &Path, e: &io::Error) -> Failure {
    let advice = "Name a file in a folder that can be written, with room for the copy.";
    Failure::refused(format!("{what} {}: {e}", path.display()), advice)
}
