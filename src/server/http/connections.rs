//! The open connections: how many each address has, and which are idle.
//!
//! Invariant: one address never has more than its share. When a place is wanted, an idle connection is
//! closed, of the address that has most: a few machines cannot keep all places by doing nothing. A connection
//! with a request under way, or an answer on its way, is never closed for another.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use axum::body::{Body, Bytes, HttpBody};
use hyper::body::{Frame, SizeHint};
use tokio::sync::Notify;

use crate::server::domain::limits;
use crate::sync;

#[derive(Debug)]
struct One {
    owner: IpAddr,
    /// Requests under way.
    requests: usize,
    /// The number of its last change, or of its beginning.
    changed: u64,
    /// It was told to close.
    closing: bool,
    close: Arc<Notify>,
}

#[derive(Debug, Default)]
struct Table {
    counts: HashMap<IpAddr, usize>,
    open: HashMap<u64, One>,
    /// Changes are numbered.
    changes: u64,
}

/// All open connections.
#[derive(Debug, Clone, Default)]
pub(super) struct Connections(Arc<Mutex<Table>>);

/// One connection; it no longer counts once this is dropped.
#[derive(Debug)]
pub(super) struct Connection {
    all: Connections,
    number: u64,
    close: Arc<Notify>,
}

/// A request under way on a connection, until its answer has been sent.
#[derive(Debug)]
pub(super) struct UnderWay {
    all: Connections,
    number: u64,
}

impl Connections {
    /// One more of this address, unless it has `most`.
    pub(super) fn open(&self, address: IpAddr, most: usize) -> Option<Connection> {
        let owner = limits::owner(address);
        let mut table = sync::lock(&self.0);
        let count = table.counts.entry(owner).or_default();
        if *count >= most {
            return None;
        }
        *count += 1;
        table.changes += 1;
        let (number, close) = (table.changes, Arc::new(Notify::new()));
        let one = One { owner, requests: 0, changed: number, closing: false, close: Arc::clone(&close) };
        table.open.insert(number, one);
        Some(Connection { all: self.clone(), number, close })
    }

    /// Closes the connection that is idle for longest, of the address with most connections among those that
    /// have an idle one.
    pub(super) fn close_an_idle_one(&self) {
        let mut table = sync::lock(&self.0);
        let Table { counts, open, .. } = &mut *table;
        let idle = open.values_mut().filter(|one| one.requests == 0 && !one.closing);
        let least = idle.min_by_key(|one| (Reverse(counts.get(&one.owner).copied()), one.changed));
        if let Some(one) = least {
            one.closing = true;
            one.close.notify_one();
        }
    }
}

impl Connection {
    /// Returns when the connection is to be closed for another.
    pub(super) async fn closed(&self) {
        self.close.notified().await;
    }

    /// What its requests say that they are under way.
    pub(super) fn requests(&self) -> impl Fn() -> UnderWay + Clone + use<> {
        let (all, number) = (self.all.clone(), self.number);
        move || {
            let mut table = sync::lock(&all.0);
            if let Some(one) = table.open.get_mut(&number) {
                one.requests += 1;
            }
            UnderWay { all: all.clone(), number }
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        let mut table = sync::lock(&self.all.0);
        let Some(one) = table.open.remove(&self.number) else { return };
        if let Some(count) = table.counts.get_mut(&one.owner) {
            *count -= 1;
            if *count == 0 {
                table.counts.remove(&one.owner);
            }
        }
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let mut table = sync::lock(&self.all.0);
        table.changes += 1;
        let changes = table.changes;
        if let Some(one) = table.open.get_mut(&self.number) {
            one.requests -= 1;
            one.changed = changes;
        }
    }
}

/// The body of an answer, whose request is under way until it has been sent.
pub(super) struct Sent {
    pub(super) body: Body,
    pub(super) _under_way: UnderWay,
}

impl HttpBody for Sent {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LAPTOP: [u8; 4] = [10, 0, 0, 66];
    const OTHER: [u8; 4] = [10, 0, 0, 9];

    #[test]
    fn an_address_has_its_share_of_the_connections_and_gets_it_back() {
        let (all, laptop) = (Connections::default(), LAPTOP.into());
        let mut held: Vec<Connection> = (0..3).filter_map(|_| all.open(laptop, 3)).collect();
        assert_eq!(held.len(), 3);
        assert!(all.open(laptop, 3).is_none());
        assert!(all.open(OTHER.into(), 3).is_some());
        held.pop();
        assert!(all.open(laptop, 3).is_some());
        held.clear();
        let table = sync::lock(&all.0);
        assert!(
            table.counts.is_empty() && table.open.is_empty(),
            "nothing is remembered of those that are gone"
        );
    }

    #[test]
    fn for_another_connection_the_longest_idle_one_of_the_address_with_most_is_closed() {
        let all = Connections::default();
        let [first, second, third] = [(); 3].map(|()| all.open(LAPTOP.into(), 9).expect("room"));
        let _others: Vec<Connection> = (0..2).filter_map(|_| all.open(OTHER.into(), 9)).collect();
        let told = |one: &Connection| sync::lock(&all.0).open[&one.number].closing;
        let working = first.requests()();
        drop(second.requests()());
        all.close_an_idle_one();
        assert_eq!([&first, &second, &third].map(told), [false, false, true], "the second was idle for less");
        all.close_an_idle_one();
        assert_eq!([&first, &second].map(told), [false, true]);
        drop((second, third));
        drop(working);
        all.close_an_idle_one();
        assert!(!told(&first), "now the other address has most");
    }
}
