//! Calls that are answered on the server itself only.
//!
//! Invariant: such a caller speaks from a loopback address, and is no page in a browser there: browsers name
//! the page's origin with every such request.

use axum::http::{HeaderMap, StatusCode, header};

use super::reply::{Error, error};
use crate::server::http::listen::Ends;

/// Refuses callers on other machines and browsers. `what` is what the caller may not do.
pub(super) fn from_the_server_itself(
    ends: Ends,
    headers: &HeaderMap,
    what: &str,
    advice: &str,
) -> Result<(), Error> {
    if is_the_server_itself(ends, headers) {
        return Ok(());
    }
    Err(error(StatusCode::FORBIDDEN, format!("{} may not {what}", ends.remote.ip()), advice))
}

/// Is the caller a program on this machine?
pub(super) fn is_the_server_itself(ends: Ends, headers: &HeaderMap) -> bool {
    ends.remote.ip().is_loopback() && !headers.contains_key(header::ORIGIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_addresses_are_the_server_itself() {
        let ends = |remote: &str| Ends {
            remote: format!("{remote}:4711").parse().expect("an address"),
            local: "127.0.0.1:6969".parse().expect("an address"),
        };
        let answer = |remote| from_the_server_itself(ends(remote), &HeaderMap::new(), "ask", "Come here.");
        for itself in ["127.0.0.1", "127.9.9.9", "[::1]"] {
            assert!(answer(itself).is_ok(), "{itself}");
        }
        for other in ["10.0.0.1", "192.168.1.1", "[fe80::1]", "[::]", "0.0.0.0"] {
            assert!(answer(other).is_err(), "{other}");
        }
    }
}
