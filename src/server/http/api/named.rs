//! Finds the terminal that a person names.
//!
//! Invariant: a name that fits no terminal or several is refused with the candidates (`targets`).

use super::reply::{Error, stranger};
use crate::server::domain::config::Config;
use crate::server::domain::lab::{Lab, Terminal};
use crate::server::domain::targets;

/// The terminal that a person's input names.
pub(super) fn meant<'a>(lab: &'a Lab, config: &Config, typed: &str) -> Result<&'a Terminal, Error> {
    targets::one(lab, config, typed).map_err(|why| stranger(typed, &why))
}
