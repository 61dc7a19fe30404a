//! Manual pages and shell completions of a program, made from its command line.
//!
//! ```text
//! DIR/man/man1/PROGRAM.1, PROGRAM-COMMAND.1
//! DIR/bash-completion/completions/PROGRAM
//! DIR/zsh/vendor-completions/_PROGRAM
//! DIR/fish/vendor_completions.d/PROGRAM.fish
//! ```
//!
//! Invariant: the layout is that of Debian's `/usr/share`.

use std::io;
use std::path::{Path, PathBuf};

use clap::{Args, Command};
use clap_complete::Shell;
use clap_mangen::Man;

use crate::event::{Class, Failure};

/// The exit codes of all programs, as each page has them.
const EXIT_STATUS: [(u8, &str); 6] = [
    (0, "Done."),
    (Class::Retry as u8, "Try again later: network, server away."),
    (Class::Usage as u8, "The command or the configuration is wrong."),
    (Class::Refused as u8, "Refused before anything was written."),
    (Class::Untrusted as u8, "A signature or a hash is wrong."),
    (Class::Disk as u8, "A disk failed."),
];

/// Write this program's manual pages and shell completions.
#[derive(Debug, Args)]
pub struct ManualArgs {
    /// The folder that gets them, for example /usr/local/share.
    #[arg(value_name = "DIR")]
    folder: PathBuf,
}

/// Writes the pages and completions of `program`.
pub fn write(program: Command, arguments: &ManualArgs) -> Result<(), Failure> {
    let folder = &arguments.folder;
    write_all(program.disable_help_subcommand(true), folder).map_err(|e| {
        let advice = "Name a folder that this user may write into.";
        Failure::retry(format!("writing manual pages below {}: {e}", folder.display()), advice)
    })
}

fn write_all(mut program: Command, folder: &Path) -> io::Result<()> {
    let pages = made(folder.join("man/man1"))?;
    let name = program.get_name().to_string();
    for (shell, place) in [
        (Shell::Bash, format!("bash-completion/completions/{name}")),
        (Shell::Zsh, format!("zsh/vendor-completions/_{name}")),
        (Shell::Fish, format!("fish/vendor_completions.d/{name}.fish")),
    ] {
        let mut script = Vec::new();
        clap_complete::generate(shell, &mut program, &name, &mut script);
        let file = folder.join(place);
        made(file.parent().unwrap_or(folder).to_path_buf())?;
        std::fs::write(file, script)?;
    }
    program.build();
    write_pages(&program, None, &pages)
}

/// The page of a command and those of its commands.
fn write_pages(command: &Command, above: Option<&str>, folder: &Path) -> io::Result<()> {
    let name = command.get_display_name().unwrap_or_else(|| command.get_name());
    let mut page = Vec::new();
    Man::new(command.clone()).render(&mut page)?;
    let mut page = String::from_utf8(page).map_err(io::Error::other)?;
    page.push_str(".SH \"EXIT STATUS\"\n");
    for (code, meaning) in EXIT_STATUS {
        page.push_str(&format!(".TP\n{code}\n{meaning}\n"));
    }
    if let Some(above) = above {
        page.push_str(&format!(".SH \"SEE ALSO\"\n\\fB{}\\fR(1)\n", above.replace('-', "\\-")));
    }
    std::fs::write(folder.join(format!("{name}.1")), page)?;
    command.get_subcommands().try_for_each(|sub| write_pages(sub, Some(name), folder))
}

fn made(folder: PathBuf) -> io::Result<PathBuf> {
    std::fs::create_dir_all(&folder)?;
    Ok(folder)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Arg;

    fn files_of(program: Command) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().to_path_buf();
        write(program, &ManualArgs { folder: path.clone() }).expect("written");
        (folder, path)
    }

    fn program() -> Command {
        let serve = Command::new("serve").about("Serve the lab").arg(Arg::new("images").long("images"));
        Command::new("flashmob").version("1.0").about("Re-images").subcommand(serve)
    }

    #[test]
    fn every_command_has_a_page_with_its_options_and_the_exit_codes() {
        let (_folder, path) = files_of(program());
        let page = |name: &str| std::fs::read_to_string(path.join("man/man1").join(name)).expect("a page");
        assert!(page("flashmob.1").contains("flashmob\\-serve(1)"), "{}", page("flashmob.1"));
        let serve = page("flashmob-serve.1");
        assert!(serve.contains("\\-\\-images") && serve.contains("EXIT STATUS"), "{serve}");
        assert!(serve.contains("flashmob serve"), "{serve}");
    }

    #[test]
    fn each_shell_completes_the_commands() {
        let (_folder, path) = files_of(program());
        for file in [
            "bash-completion/completions/flashmob",
            "zsh/vendor-completions/_flashmob",
            "fish/vendor_completions.d/flashmob.fish",
        ] {
            let text = std::fs::read_to_string(path.join(file)).expect("written");
            assert!(text.contains("serve"), "{file}: {text}");
        }
    }
}
