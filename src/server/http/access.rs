//! Who calls: what a caller presents in the header `Authorization`.
//!
//! Invariant: nothing else in a call says who the caller is, but for its address.

use axum::http::{HeaderMap, header};

/// What the caller presents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Presented<'a> {
    /// A secret of a terminal, or the token of a person.
    Bearer(&'a str),
    /// A ticket from a boot script.
    Ticket(&'a str),
    Nothing,
}

pub(super) fn presented(headers: &HeaderMap) -> Presented<'_> {
    let text = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    match text.and_then(|text| text.split_once(' ')) {
        Some((scheme, secret)) if scheme.eq_ignore_ascii_case("bearer") => Presented::Bearer(secret.trim()),
        Some((scheme, ticket)) if scheme.eq_ignore_ascii_case("ticket") => Presented::Ticket(ticket.trim()),
        _ => Presented::Nothing,
    }
}
