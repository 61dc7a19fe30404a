//! How many connections there may be: in all, with one address, and while they are being made.
//!
//! Invariant: a connection holds its [`Permit`] for as long as it lives, and a permit gives its places back
//! when it is dropped.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::sync;

/// The limits of a session.
pub(super) struct Limits {
    all: Arc<Semaphore>,
    half_open: Arc<Semaphore>,
    per_address: usize,
    addresses: Mutex<HashMap<IpAddr, usize>>,
}

/// The place of one connection.
pub(super) struct Permit {
    limits: Arc<Limits>,
    address: IpAddr,
    _place: OwnedSemaphorePermit,
}

impl Limits {
    pub(super) fn new(all: usize, per_address: usize, half_open: usize) -> Arc<Self> {
        let all = Arc::new(Semaphore::new(all));
        let half_open = Arc::new(Semaphore::new(half_open));
        Arc::new(Limits { all, half_open, per_address, addresses: Mutex::default() })
    }

    /// A place for a connection with `address`, or `None` if all are taken.
    pub(super) fn admit(self: &Arc<Self>, address: IpAddr) -> Option<Permit> {
        let place = Arc::clone(&self.all).try_acquire_owned().ok()?;
        let mut addresses = self.lock();
        let count = addresses.entry(address).or_default();
        if *count >= self.per_address {
            return None;
        }
        *count += 1;
        Some(Permit { limits: Arc::clone(self), address, _place: place })
    }

    /// Waits for its turn to dial.
    pub(super) async fn dial(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.half_open).acquire_owned().await.ok()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        sync::lock(&self.addresses)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut addresses = self.limits.lock();
        if let Some(count) = addresses.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                addresses.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_does_not_take_all_places_and_gives_its_own_back() {
        let limits = Limits::new(3, 2, 1);
        let (one, two) = (IpAddr::from([127, 0, 0, 1]), IpAddr::from([127, 0, 0, 2]));
        let first = limits.admit(one).unwrap();
        let _second = limits.admit(one).unwrap();
        assert!(limits.admit(one).is_none());
        let _third = limits.admit(two).unwrap();
        assert!(limits.admit(two).is_none(), "three in all");
        drop(first);
        assert!(limits.admit(one).is_some());
    }
}
