//! Announces the server on the LAN as `_flashmob._tcp.local` (RFC 6763), for terminals without configuration.
//!
//! Invariant: a convenience only; where it does not work the server runs without it and says so.

use mdns_sd::{ServiceDaemon, ServiceInfo};

/// The service type that agents ask for.
pub(crate) const SERVICE: &str = "_flashmob._tcp.local.";

/// Keeps the announcement up; says goodbye when dropped.
pub(super) struct Announced {
    daemon: ServiceDaemon,
}

/// Announces `port` under this machine's name.
pub(super) fn announce(port: u16) -> Result<Announced, String> {
    let name = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok());
    let name = name.filter(|name| !name.is_empty()).unwrap_or_else(|| "flashmob".into());
    let label = name.split('.').next().unwrap_or("flashmob").to_string();
    let daemon = ServiceDaemon::new().map_err(|e| e.to_string())?;
    let properties = [("path", "/"), ("version", env!("CARGO_PKG_VERSION"))];
    let info = ServiceInfo::new(SERVICE, &label, &format!("{label}.local."), "", port, &properties[..])
        .map_err(|e| e.to_string())?
        .enable_addr_auto();
    daemon.register(info).map_err(|e| e.to_string())?;
    Ok(Announced { daemon })
}

impl Drop for Announced {
    fn drop(&mut self) {
        // The daemon's thread ends by itself when this fails.
        let _ = self.daemon.shutdown();
    }
}
