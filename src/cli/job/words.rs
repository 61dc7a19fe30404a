//! What the commands about jobs say and send alike.

use crate::cli::call::{Content, json_of};
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
