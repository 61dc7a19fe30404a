//! Names of addresses, as this machine's resolver knows them (DNS, `/etc/hosts`).
//!
//! Invariant: every address has an answer within the time that the caller gives, if only that none came. At
//! most [`TOGETHER`] threads of the process wait for the resolver, because a question that was given up holds
//! its place until the resolver returns.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use futures_util::{StreamExt, stream};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};

use crate::io::sys;

/// Questions at a time. A resolver whose server is away holds a thread for many seconds.
pub(crate) const TOGETHER: usize = 16;
/// The places of all callers.
pub(crate) static PLACES: Semaphore = Semaphore::const_new(TOGETHER);

/// How often names were asked for.
#[cfg(test)]
pub(crate) static CALLS: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);

/// Why an address has no name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NoName {
    /// For people.
    pub(crate) why: String,
    /// DNS said that there is none. Otherwise it did not answer, and may have one.
    pub(crate) is_answer: bool,
}

impl NoName {
    fn no_answer(why: String) -> Self {
        NoName { why, is_answer: false }
    }
}

/// The name of each address, or why there is none.
pub(crate) async fn names(
    addresses: impl IntoIterator<Item = IpAddr>,
    within: Duration,
) -> HashMap<IpAddr, Result<String, NoName>> {
    #[cfg(test)]
    CALLS.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
    names_by(sys::name_of_address, &PLACES, addresses, within).await
}

/// The resolver's answer for one address.
type Answer = Result<Option<String>, String>;

async fn names_by(
    resolver: impl Fn(IpAddr) -> Answer + Copy + Send + 'static,
    places: &'static Semaphore,
    addresses: impl IntoIterator<Item = IpAddr>,
    within: Duration,
) -> HashMap<IpAddr, Result<String, NoName>> {
    let end = Instant::now() + within;
    let late = |address: IpAddr| {
        let why = format!("DNS did not answer for {address} within {} s", within.as_secs());
        Err(NoName::no_answer(why))
    };
    let ask = |address: IpAddr| async move {
        let place = timeout_at(end, places.acquire()).await;
        let Ok(Ok(place)) = place else { return (address, late(address)) };
        // A place that is free is given after the deadline, too.
        if Instant::now() >= end {
            return (address, late(address));
        }
        let asked = tokio::task::spawn_blocking(move || {
            let _place = place;
            resolver(address)
        });
        let name = match timeout_at(end, asked).await {
            Ok(Ok(Ok(Some(name)))) => Ok(name.trim_end_matches('.').to_ascii_lowercase()),
            Ok(Ok(Ok(None))) => {
                Err(NoName { why: format!("DNS has no name for {address}"), is_answer: true })
            }
            Ok(Ok(Err(why))) => Err(NoName::no_answer(format!("DNS has no name for {address} now: {why}"))),
            Ok(Err(e)) => {
                Err(NoName::no_answer(format!("the question for the name of {address} failed: {e}")))
            }
            Err(_) => late(address),
        };
        (address, name)
    };
    stream::iter(addresses).map(ask).buffer_unordered(TOGETHER).collect().await
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::{Condvar, Mutex};

    use super::*;
    use crate::sync;

    fn places() -> &'static Semaphore {
        Box::leak(Box::new(Semaphore::new(TOGETHER)))
    }

    #[tokio::test]
    async fn this_machine_has_a_name_and_each_address_gets_an_answer_in_time() {
        let own: IpAddr = [127, 0, 0, 1].into();
        let nobody: IpAddr = [192, 0, 2, 77].into();
        // Only a resolver that is away is waited for so long.
        let names = names_by(sys::name_of_address, places(), [own], Duration::from_secs(60)).await;
        assert!(names[&own].as_ref().is_ok_and(|name| name.starts_with("localhost")), "{names:?}");
        let names = names_by(sys::name_of_address, places(), [nobody], Duration::from_secs(1)).await;
        assert!(names[&nobody].as_ref().is_err_and(|no| no.why.contains("192.0.2.77")), "{names:?}");
    }

    #[tokio::test]
    async fn only_the_word_that_there_is_no_name_is_an_answer() {
        let knows_none = |_: IpAddr| Ok(None);
        let fails = |_: IpAddr| Err("Temporary failure in name resolution".into());
        let (own, within) = (IpAddr::from([127, 0, 0, 1]), Duration::from_secs(5));
        let answered = names_by(knows_none, places(), [own], within).await;
        assert!(answered[&own].as_ref().is_err_and(|no| no.is_answer));
        let failed = names_by(fails, places(), [own], within).await;
        assert!(failed[&own].as_ref().is_err_and(|no| !no.is_answer));
    }

    #[tokio::test(start_paused = true)]
    async fn questions_that_were_given_up_keep_their_places_so_no_more_threads_wait_for_the_resolver() {
        static STARTED: AtomicUsize = AtomicUsize::new(0);
        static IS_BACK: (Mutex<bool>, Condvar) = (Mutex::new(false), Condvar::new());
        let hangs = |_: IpAddr| {
            STARTED.fetch_add(1, Ordering::SeqCst);
            drop(IS_BACK.1.wait_while(sync::lock(&IS_BACK.0), |is_back| !*is_back));
            Ok(None)
        };
        let places = places();
        let room = |third: u8| (1..=100).map(move |last| IpAddr::from([192, 0, third, last]));
        let within = Duration::from_secs(1);
        // Time stands still until all places are taken.
        let passes = async {
            while STARTED.load(Ordering::SeqCst) < TOGETHER {
                tokio::task::yield_now().await;
            }
            tokio::time::advance(within).await;
        };
        let both = tokio::join!(
            names_by(hangs, places, room(1), within),
            names_by(hangs, places, room(2), within),
            passes
        );
        assert_eq!((both.0.len(), both.1.len()), (100, 100));
        assert!(both.0.values().all(|name| name.as_ref().is_err_and(|no| !no.is_answer)));
        assert_eq!(STARTED.load(Ordering::SeqCst), TOGETHER);
        // When the resolver comes back, the places are free again.
        *sync::lock(&IS_BACK.0) = true;
        IS_BACK.1.notify_all();
        let free = u32::try_from(TOGETHER).expect("few");
        drop(places.acquire_many(free).await.expect("open"));
        assert_eq!(STARTED.load(Ordering::SeqCst), TOGETHER, "nothing is asked after the deadline");
    }
}
