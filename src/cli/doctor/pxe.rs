//! Netboot by `flashmob serve --pxe`: can dnsmasq do here what it is told?
//!
//! Invariant: only looks; the ports belong to a dnsmasq that runs already, so `ports` tells who has them.

use std::path::Path;

use super::finding::Finding;
use crate::api::Refusal;
use crate::server::domain::pxe::PxeConfig;
use crate::server::pxe::{Setup, dnsmasq};

const CHECK: &str = "netboot";

/// What was found, if `--pxe` or `[pxe]` asks for it.
pub(super) struct Facts {
    interfaces: Vec<String>,
    /// The file that dnsmasq would be started from.
    program: Result<(), Refusal>,
    /// The missing first programs, or why there is no plan.
    plan: Result<Option<Refusal>, Refusal>,
}

pub(super) fn facts(config: PxeConfig, boot: &Path, state: &Path) -> Option<Facts> {
    if !config.is_on() {
        return None;
    }
    let interfaces = config.interfaces.clone();
    let listens = super::super::pxe::usual_address();
    let setup = Setup { config, listens, boot: boot.to_path_buf(), state: state.to_path_buf() };
    let plan = setup.plan().map(|plan| plan.lacks());
    Some(Facts { interfaces, program: dnsmasq().map(drop), plan })
}

pub(super) fn findings(facts: Option<&Facts>) -> Vec<Finding> {
    let Some(Facts { interfaces, program, plan }) = facts else { return Vec::new() };
    let mut found = Vec::new();
    if let Err(Refusal { error, advice }) = program {
        found.push(Finding::error(CHECK, error, advice));
    }
    match plan {
        Err(Refusal { error, advice }) => {
            found.push(Finding::error(CHECK, format!("--pxe: {error}"), advice))
        }
        Ok(Some(Refusal { error, advice })) => found.push(Finding::warning(CHECK, error, advice)),
        Ok(None) if found.is_empty() => {
            let what = format!("the server can answer netbooting machines at {}", interfaces.join(", "));
            found.push(Finding::ok(CHECK, what));
        }
        Ok(None) => {}
    }
    found
}

#[cfg(test)]
mod tests {
    use super::super::finding::Level;
    use super::*;

    #[test]
    fn what_keeps_netboot_from_working_is_an_error_and_nothing_is_said_where_nobody_wants_it() {
        let refusal = |error: &str| Refusal { error: error.into(), advice: "Do it.".into() };
        let levels = |program, plan| {
            let facts = Facts { interfaces: vec!["eth0".into()], program, plan };
            findings(Some(&facts)).iter().map(|finding| finding.level).collect::<Vec<_>>()
        };
        assert_eq!(levels(Ok(()), Ok(None)), [Level::Ok]);
        assert_eq!(levels(Ok(()), Ok(Some(refusal("no snponly.efi")))), [Level::Warning]);
        assert_eq!(levels(Err(refusal("no dnsmasq")), Ok(None)), [Level::Error]);
        assert_eq!(levels(Err(refusal("no dnsmasq")), Err(refusal("no eth0"))), [Level::Error; 2]);
        assert_eq!(findings(None), []);
        assert!(facts(PxeConfig::default(), Path::new("/srv/boot"), Path::new("/state")).is_none());
    }
}
