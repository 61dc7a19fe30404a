//! `[[group]]`: terminals that the configuration names together.
//!
//! Invariant: a group that was checked has a name and at least one way to belong to it.

use ipnet::IpNet;
use serde::Deserialize;

use super::Who;
use crate::server::domain::registry::Edit;
use crate::tracker::{REST, Zone};

/// Terminals that any of these facts names.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GroupConfig {
    pub name: String,
    #[serde(default)]
    pub terminals: Vec<Who>,
    #[serde(default)]
    pub networks: Vec<IpNet>,
    #[serde(default)]
    pub zones: Vec<String>,
    /// Parts of the maker's and product's names, or patterns with `*` and `?` for the whole.
    #[serde(default)]
    pub models: Vec<String>,
}

/// Checks the groups. `learned`: zones may be made of switches as well.
pub(super) fn check(groups: &[GroupConfig], zones: &[Zone], learned: bool) -> Result<(), String> {
    for (i, group) in groups.iter().enumerate() {
        let name = &group.name;
        let edit = Edit { groups: Some(vec![name.clone()]), ..Edit::default() };
        edit.check().map_err(|(column, why)| format!("{}: {why}", column.name()))?;
        if groups[..i].iter().any(|other| other.name == *name) {
            return Err(format!("group '{name}' is there twice"));
        }
        let GroupConfig { terminals, networks, zones: named, models, .. } = group;
        if terminals.is_empty() && networks.is_empty() && named.is_empty() && models.is_empty() {
            return Err(format!("group '{name}' needs terminals, networks, zones or models"));
        }
        if models.iter().any(|model| model.trim().is_empty()) {
            return Err(format!("group '{name}' has an empty model, which would fit every machine"));
        }
        let there =
            |zone: &&String| learned || *zone == REST || zones.iter().any(|known| known.name == **zone);
        if let Some(zone) = named.iter().find(|zone| !there(zone)) {
            return Err(format!("group '{name}' names '{zone}', which is no zone"));
        }
    }
    Ok(())
}
