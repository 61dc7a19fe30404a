//! A person's token, from a file: never from a command line, which every user of a machine can read.
//!
//! Invariant: a file that was named must be there. One that was not named may be missing.

use std::path::{Path, PathBuf};

use crate::event::Failure;

/// Names the file where no option does.
const VARIABLE: &str = "FLASHMOB_TOKEN_FILE";
/// Longest token that is read.
const LONGEST: usize = 4096;

/// The token in `named`, else in the file that FLASHMOB_TOKEN_FILE names, else in ~/.config/flashmob/token if
/// that is there.
pub(crate) fn token(named: Option<&Path>) -> Result<Option<String>, Failure> {
    let variable = std::env::var_os(VARIABLE).filter(|path| !path.is_empty()).map(PathBuf::from);
    if let Some(path) = named.map(Path::to_owned).or(variable) {
        return read(&path).map(Some);
    }
    let home = std::env::var_os("HOME").filter(|path| !path.is_empty());
    let path = home.map(|home| Path::new(&home).join(".config/flashmob/token"));
    path.filter(|path| path.exists()).map(|path| read(&path)).transpose()
}

/// The token in a file, without the end of the line.
fn read(path: &Path) -> Result<String, Failure> {
    let wrong = |why: &str| {
        let advice = "Give a file with one token, as 'flashmob token create' prints it.";
        Failure::usage(format!("the token file {}: {why}", path.display()), advice)
    };
    let text = std::fs::read_to_string(path).map_err(|e| wrong(&e.to_string()))?;
    let token = text.trim();
    if token.is_empty() || token.len() > LONGEST || token.chars().any(|c| !c.is_ascii_graphic()) {
        return Err(wrong("this is no token"));
    }
    Ok(token.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_one_word_of_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("token");
        for (text, good) in [("0f\n", true), ("0f", true), ("", false), ("0f 0e", false), ("é", false)] {
            std::fs::write(&file, text).unwrap();
            assert_eq!(token(Some(&file)).ok(), good.then(|| Some("0f".into())), "{text:?}");
        }
        let missing = token(Some(&folder.path().join("none"))).unwrap_err();
        assert!(missing.advice.contains("token create"), "{missing:?}");
    }
}
