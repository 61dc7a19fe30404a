//! What a new job is checked against.

use super::{DnsNames, Moment};
use crate::server::domain::catalog::Catalog;
use crate::server::domain::lab::{Lab, Terminal};

/// The server as a new job meets it.
pub(crate) struct Setting<'a> {
    pub(crate) lab: &'a Lab,
    pub(crate) catalog: &'a Catalog,
    pub(crate) at: &'a Moment,
    /// A terminal's label.
    pub(crate) label: &'a dyn Fn(&Terminal) -> Option<String>,
    /// What DNS knows of the terminals' addresses, if the order needs that.
    pub(crate) dns: &'a DnsNames,
    /// Are there netboot files?
    pub(crate) can_netboot: bool,
}
