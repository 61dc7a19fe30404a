//! Names of addresses, as this machine's resolver knows them (DNS, `/etc/hosts`).
//!
//! Invariant: every address has an answer within the time that the caller gives, if only that none came. At
//! most [`TOGETHER`] threads wait for the resolver.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use futures_util::{StreamExt, stream};
use tokio::time::{Instant, timeout_at};

use crate::io::sys;

/// Questions at a time. A resolver whose server is away holds a thread for many seconds.
const TOGETHER: usize = 16;

/// The name of each address, or why there is none, for people.
pub(crate) async fn names(
    addresses: impl IntoIterator<Item = IpAddr>,
    within: Duration,
) -> HashMap<IpAddr, Result<String, String>> {
    let end = Instant::now() + within;
    let ask = |address: IpAddr| async move {
        let asked = tokio::task::spawn_blocking(move || sys::name_of_address(address));
        let name = match timeout_at(end, asked).await {
            Ok(Ok(Ok(Some(name)))) => Ok(name.trim_end_matches('.').to_ascii_lowercase()),
            Ok(Ok(Ok(None))) => Err(format!("DNS has no name for {address}")),
            Ok(Ok(Err(why))) => Err(format!("DNS has no name for {address} now: {why}")),
            Ok(Err(e)) => Err(format!("the question for the name of {address} failed: {e}")),
            Err(_) => Err(format!("DNS did not answer for {address} within {} s", within.as_secs())),
        };
        (address, name)
    };
    stream::iter(addresses).map(ask).buffer_unordered(TOGETHER).collect().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn this_machine_has_a_name_and_each_address_gets_an_answer_in_time() {
        let own: IpAddr = [127, 0, 0, 1].into();
        let nobody: IpAddr = [192, 0, 2, 77].into();
        let begun = Instant::now();
        let names = names([own, nobody], Duration::from_secs(2)).await;
        assert!(begun.elapsed() < Duration::from_secs(5));
        assert!(names[&own].as_ref().is_ok_and(|name| name.starts_with("localhost")), "{names:?}");
        assert!(names[&nobody].as_ref().is_err_and(|why| why.contains("192.0.2.77")), "{names:?}");
    }
}
