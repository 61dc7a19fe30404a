//! The lab as viewers follow it: each terminal, each job and the rest of the lab, with the version at which
//! it last changed. A viewer that knows a version is sent only the later changes.
//!
//! Invariant: pure; its memory is bounded by the present terminals and jobs, `MOST_GONE` and `MOST_BODIES`. A
//! version is good for one run of the server, which `epoch` names.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

/// Departures that are remembered. A viewer that missed more of them gets everything again.
const MOST_GONE: usize = 1000;
/// Answers that are kept for other viewers of the same version.
const MOST_BODIES: usize = 4;
/// How old the board may be when a viewer looks.
pub(crate) const FRESH: Duration = Duration::from_secs(1);

/// What a fact is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Terminal,
    Job,
    Lab,
}

/// What viewers see of one thing, as JSON.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fact {
    pub(crate) kind: Kind,
    /// A terminal's name in calls, or a job's number.
    pub(crate) key: String,
    pub(crate) row: String,
    /// The part that changes each second, so that it can travel alone.
    pub(crate) live: String,
}

#[derive(Debug, Clone)]
struct Kept {
    row: (u64, String),
    live: (u64, String),
}

/// All facts with their versions.
#[derive(Debug, Default)]
pub(crate) struct Board {
    epoch: String,
    version: u64,
    /// When it was last compared with the lab.
    at: Option<Duration>,
    facts: BTreeMap<(Kind, String), Kept>,
    /// Things that are no longer there, by the version at which they left.
    gone: VecDeque<(u64, Kind, String)>,
    /// A viewer of an earlier version has missed departures.
    floor: u64,
    /// Answers of the present version, by the version that the viewer knew.
    bodies: HashMap<Option<u64>, Arc<str>>,
}

impl Board {
    /// An empty board; `epoch` differs from that of every other run.
    pub(crate) fn new(epoch: String) -> Board {
        Board { epoch, ..Board::default() }
    }

    /// Whether the lab should be looked at again.
    pub(crate) fn is_stale(&self, now: Duration) -> bool {
        self.at.is_none_or(|at| now.saturating_sub(at) >= FRESH)
    }

    /// When it is stale.
    pub(crate) fn stale_in(&self, now: Duration) -> Duration {
        self.at.map_or(Duration::ZERO, |at| (at + FRESH).saturating_sub(now))
    }

    /// The version for viewers.
    pub(crate) fn version(&self) -> String {
        format!("{}.{}", self.epoch, self.version)
    }

    /// Takes the present facts of the lab.
    pub(crate) fn update(&mut self, now: Duration, facts: Vec<Fact>) {
        let next = self.version + 1;
        let mut changed = false;
        let mut before = std::mem::take(&mut self.facts);
        for Fact { kind, key, row, live } in facts {
            let key = (kind, key);
            let newer = |old: Option<(u64, String)>, new: String| match old {
                Some((version, old)) if old == new => (version, old),
                _ => (next, new),
            };
            let (old_row, old_live) = match before.remove(&key) {
                Some(kept) => (Some(kept.row), Some(kept.live)),
                None => (None, None),
            };
            let kept = Kept { row: newer(old_row, row), live: newer(old_live, live) };
            changed |= kept.row.0 == next || kept.live.0 == next;
            self.facts.insert(key, kept);
        }
        for (kind, key) in before.into_keys() {
            changed = true;
            self.gone.push_back((next, kind, key));
        }
        while self.gone.len() > MOST_GONE {
            self.floor = self.gone.pop_front().map_or(self.floor, |(version, ..)| version);
        }
        if changed {
            self.version = next;
            self.bodies.clear();
        }
        self.at = Some(now);
    }

    /// The version that a viewer knows, if its words are of this run and its changes are still remembered.
    pub(crate) fn known(&self, version: &str) -> Option<u64> {
        let (epoch, number) = version.rsplit_once('.')?;
        let number = number.parse().ok()?;
        (epoch == self.epoch && (self.floor..=self.version).contains(&number)).then_some(number)
    }

    /// Whether there is something that a viewer of this version does not know.
    pub(crate) fn is_news(&self, since: Option<u64>) -> bool {
        since != Some(self.version)
    }

    /// What changed after `since`, as JSON; everything without it.
    pub(crate) fn changes(&mut self, since: Option<u64>) -> Arc<str> {
        if let Some(body) = self.bodies.get(&since) {
            return Arc::clone(body);
        }
        let body: Arc<str> = self.body(since).into();
        if self.bodies.len() < MOST_BODIES {
            self.bodies.insert(since, Arc::clone(&body));
        }
        body
    }

    fn body(&self, since: Option<u64>) -> String {
        let after = since.unwrap_or(0);
        let quoted = |text: &str| serde_json::Value::from(text).to_string();
        let entry = |kind: Kind| {
            let of_kind = self.facts.iter().filter(move |((of, _), _)| *of == kind);
            let parts = of_kind.filter_map(|((_, key), kept)| {
                let mut text = format!("{{\"id\":{}", quoted(key));
                for (name, (version, json)) in [("row", &kept.row), ("live", &kept.live)] {
                    if *version > after && !json.is_empty() {
                        let _ = write!(text, ",\"{name}\":{json}");
                    }
                }
                (kept.row.0 > after || kept.live.0 > after).then_some(text + "}")
            });
            parts.collect::<Vec<_>>().join(",")
        };
        let gone = |kind: Kind| {
            let left = self.gone.iter().filter(|(version, of, _)| *version > after && *of == kind);
            // One that came back is among the facts.
            let absent = left.filter(|(_, of, key)| !self.facts.contains_key(&(*of, key.clone())));
            let names = absent.filter(|_| since.is_some()).map(|(_, _, key)| quoted(key));
            names.collect::<Vec<_>>().join(",")
        };
        let lab = self.facts.get(&(Kind::Lab, String::new())).filter(|kept| kept.row.0 > after);
        format!(
            "{{\"version\":{},\"full\":{},\"now\":{},\"terminals\":[{}],\"gone_terminals\":[{}],\
             \"jobs\":[{}],\"gone_jobs\":[{}],\"lab\":{}}}",
            quoted(&self.version()),
            since.is_none(),
            self.at.unwrap_or_default().as_secs(),
            entry(Kind::Terminal),
            gone(Kind::Terminal),
            entry(Kind::Job),
            gone(Kind::Job),
            lab.map_or("null", |kept| kept.row.1.as_str()),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fact(key: &str, row: u32, live: u32) -> Fact {
        Fact { kind: Kind::Terminal, key: key.into(), row: row.to_string(), live: live.to_string() }
    }

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn json(board: &mut Board, since: Option<u64>) -> serde_json::Value {
        serde_json::from_str(&board.changes(since)).expect("JSON")
    }

    #[test]
    fn a_viewer_is_sent_only_what_changed() {
        let mut board = Board::new("e".into());
        board.update(at(1), vec![fact("a", 1, 1), fact("b", 1, 1)]);
        assert_eq!(board.version(), "e.1");
        let all = json(&mut board, None);
        assert!(all["full"] == true && all["terminals"].as_array().map(Vec::len) == Some(2), "{all}");

        board.update(at(2), vec![fact("a", 1, 1), fact("b", 1, 1)]);
        assert!(!board.is_news(Some(1)), "nothing changed");
        board.update(at(3), vec![fact("a", 1, 2), fact("b", 1, 1)]);
        let news = json(&mut board, Some(1));
        assert_eq!(news["terminals"], serde_json::json!([{"id": "a", "live": 2}]), "without its row");
        board.update(at(4), vec![fact("a", 3, 2)]);
        let news = json(&mut board, Some(2));
        assert_eq!(news["terminals"], serde_json::json!([{"id": "a", "row": 3}]));
        assert_eq!(news["gone_terminals"], serde_json::json!(["b"]));
        assert_eq!(news["now"], 4);
        board.update(at(5), vec![fact("a", 3, 2), fact("b", 1, 1)]);
        assert_eq!(json(&mut board, Some(1))["gone_terminals"], serde_json::json!([]), "b is back");
    }

    #[test]
    fn a_viewer_that_missed_too_much_gets_everything() {
        let mut board = Board::new("e".into());
        board.update(at(1), (0..=MOST_GONE).map(|n| fact(&n.to_string(), 1, 1)).collect());
        assert_eq!(board.known("e.1"), Some(1));
        board.update(at(2), Vec::new());
        assert_eq!((board.known("e.1"), board.known("e.2")), (None, Some(2)));
        for other in ["e.3", "f.2", "2", "", "e.", "e.-1"] {
            assert_eq!(board.known(other), None, "{other}");
        }
        assert!(board.gone.len() <= MOST_GONE);
    }

    #[test]
    fn viewers_of_one_version_share_one_answer() {
        let mut board = Board::new("e".into());
        board.update(at(1), vec![fact("a", 1, 1)]);
        assert!(Arc::ptr_eq(&board.changes(None), &board.changes(None)));
        let before = board.changes(None);
        board.update(at(2), vec![fact("a", 1, 2)]);
        assert_ne!(board.changes(None), before);
        for since in 0..100 {
            board.changes(Some(since));
        }
        assert!(board.bodies.len() <= MOST_BODIES);
        assert!(!board.is_stale(at(2)) && board.is_stale(at(3)), "once a second");
    }
}
