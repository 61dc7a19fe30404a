//! What the commands about jobs say and send alike.

use jiff::Timestamp;

use crate::cli::call::{Content, json_of};
use crate::cli::table::local;
use crate::event::Failure;

pub(super) fn body(value: &impl serde::Serialize) -> Result<(Content, Vec<u8>), Failure> {
    Ok((Content::Json, json_of(value)?))
}

pub(super) fn counted(terminals: usize) -> String {
    match terminals {
        1 => "1 terminal".into(),
        n => format!("{n} terminals"),
    }
}

/// The images of a job, and that they are only for a preflight.
pub(super) fn title(images: &str, preflight: bool) -> String {
    if preflight { format!("preflight of {images}") } else { images.into() }
}

/// What a retry has done.
pub(super) fn begin_again(terminals: usize, until: Option<Timestamp>) -> String {
    let until = until.map(|until| format!(", until {}", local(until))).unwrap_or_default();
    match terminals {
        1 => format!("1 terminal begins again when it boots from the network{until}.\n"),
        n => format!("{n} terminals begin again when they boot from the network{until}.\n"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_retry_says_how_many_terminals_begin_again_and_until_when() {
        assert_eq!(begin_again(1, None), "1 terminal begins again when it boots from the network.\n");
        let until = begin_again(2, Some("2026-11-29T10:00:00Z".parse().expect("a time")));
        assert!(
            until.starts_with("2 terminals begin again when they boot from the network, until "),
            "{until}"
        );
    }
}
