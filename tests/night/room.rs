//! A night of a room with 60 terminals: three do not wake, two die, one disk fails, and the server is killed
//! twice.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use flashmob::event::Stage;
use serde_json::Value;

use crate::frames::{Heard, Listener};
use crate::machine::{Fate, Machine, Made};
use crate::place::Place;

const ROOM: usize = 60;
const WAVE: usize = 20;
/// All that a person types in the evening.
const COMMAND: &str = "flashmob job create golden room:1 --at +20s --wave 20 --wake";
/// Long enough for all, because nobody begins in the last two minutes, and within the test's patience.
const UNTIL: &str = "--until +170s";
const OPEN: Duration = Duration::from_secs(170);
/// An attempt that is silent for so long has lost its place.
const LEASE: Duration = Duration::from_secs(60);

fn fate(n: usize) -> Fate {
    match n {
        3 | 17 | 40 => Fate::NeverWakes,
        5 => Fate::DiesAt(Stage::Claim),
        23 => Fate::DiesAt(Stage::Fetch),
        11 => Fate::BadDisk,
        _ => Fate::Works,
    }
}

/// The state in which the night leaves a terminal, and its reason. A half-written one may go on when it
/// comes back, also after the window.
fn ends(fate: Fate) -> (&'static str, &'static str) {
    match fate {
        Fate::Works => ("done", ""),
        Fate::NeverWakes => ("asleep", "it did not wake"),
        Fate::DiesAt(Stage::Fetch) => ("waiting", "it was cut off"),
        Fate::DiesAt(_) => ("failed", "it was cut off; then the window ended"),
        Fate::BadDisk => ("failed", "writing sda: input/output error"),
    }
}

async fn one(machine: Arc<Machine>, heard: Heard) {
    while heard.packets(&machine.mac) == 0 || machine.fate == Fate::NeverWakes {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    machine.live().await;
}

/// Waits until this many terminals are done.
async fn until_done(machines: &[Arc<Machine>], count: usize, deadline: Instant) {
    let done = || machines.iter().filter(|machine| completed(machine) > 0).count();
    while done() < count && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(done() >= count, "{} of {count} are done in time", done());
}

fn completed(machine: &Machine) -> usize {
    machine.diary().attempts.iter().filter(|made| made.result == Some("done")).count()
}

/// The most terminals that certainly held a place at one time: from the answer to the call for work until the
/// outcome was sent, because the server may hear an outcome whose acknowledgement gets lost.
fn most_at_once(machines: &[Arc<Machine>]) -> usize {
    let attempts: Vec<Made> = machines.iter().flat_map(|machine| machine.diary().attempts).collect();
    let ended = |made: &Made| made.told.unwrap_or(made.last + LEASE);
    let at = |moment: Instant| attempts.iter().filter(|a| a.began <= moment && moment < ended(a)).count();
    attempts.iter().map(|made| at(made.began)).max().unwrap_or_default()
}

/// Number, and result of each attempt in the database, by terminal.
fn table(place: &Place) -> BTreeMap<String, Vec<(u64, Option<String>)>> {
    let backup = place.at("backup.sqlite");
    place.run(&format!("flashmob backup {}", backup.display()));
    let database = rusqlite::Connection::open(backup).unwrap();
    let mut statement = database
        .prepare("SELECT terminal, number, outcome ->> 'result' FROM attempts ORDER BY number")
        .unwrap();
    let mut table: BTreeMap<String, Vec<(u64, Option<String>)>> = BTreeMap::new();
    let mut rows = statement.query([]).unwrap();
    while let Some(row) = rows.next().unwrap() {
        let number = u64::try_from(row.get::<_, i64>(1).unwrap()).unwrap();
        table.entry(row.get(0).unwrap()).or_default().push((number, row.get(2).unwrap()));
    }
    table
}

/// What the terminal made is in the table, and nothing else but attempts whose answer got lost.
fn same_as_made(machine: &Machine, rows: &[(u64, Option<String>)]) {
    let diary = machine.diary();
    for made in &diary.attempts {
        let row = rows.iter().find(|(number, _)| *number == made.number);
        let result = row.map(|(_, result)| result.as_deref());
        assert_eq!(result, Some(made.result), "{}: {made:?}", machine.mac);
    }
    let others: Vec<_> =
        rows.iter().filter(|(number, _)| diary.attempts.iter().all(|made| made.number != *number)).collect();
    let lost = others.iter().all(|(_, result)| result.is_none()) && others.len() <= diary.unanswered;
    assert!(lost, "{}: {others:?} beside {diary:?}", machine.mac);
}

fn number(value: &Value) -> Option<u64> {
    value.as_u64()
}

/// Each terminal's row of the report, as JSON and as CSV.
fn check_report(place: &Place, machines: &[Arc<Machine>]) {
    let json: Value = serde_json::from_str(&place.run("flashmob job report 1 --json")).unwrap();
    let csv = place.run("flashmob job report 1 --csv");
    let rows = json["terminals"].as_array().unwrap();
    assert_eq!((rows.len(), csv.lines().count()), (ROOM, ROOM + 1), "{csv}");
    let table = table(place);
    for (n, machine) in machines.iter().enumerate() {
        let (state, reason) = ends(machine.fate);
        let label = format!("pc-{n:04}");
        let row = rows.iter().find(|row| row["label"] == label.as_str()).unwrap();
        assert_eq!((&row["state"], &row["reason"]), (&state.into(), &reason.into()), "{row}");
        let none = Vec::new();
        let attempts = row["terminal"].as_str().and_then(|id| table.get(id)).unwrap_or(&none);
        same_as_made(machine, attempts);
        assert_eq!(number(&row["attempt"]), attempts.last().map(|(number, _)| *number), "{row}");
        // A call that is repeated because its answer was lost begins another attempt, and costs no try.
        let tries = usize::try_from(number(&row["tries"]).unwrap()).unwrap();
        let lost = machine.diary().unanswered;
        assert!((tries..=tries + lost).contains(&attempts.len()), "{row} {attempts:?}");
        let results = |wanted: &str| attempts.iter().filter(|(_, r)| r.as_deref() == Some(wanted)).count();
        assert_eq!(results("done"), usize::from(state == "done"), "{row}");
        let line = csv.lines().find(|line| line.starts_with(&format!("{label},"))).unwrap();
        let text = |key: &str| row[key].as_str().unwrap().to_string();
        let cells = [label, text("terminal"), text("state"), text("reason"), row["tries"].to_string()];
        let system = row["system"].as_str().unwrap_or_default();
        assert_eq!(line, format!("{},{},{system}", cells.join(","), text("since")));
        assert_eq!(system, if state == "done" { "imaged" } else { "" }, "it says no more than it knows");
    }
}

#[test]
fn a_night_leaves_each_terminal_in_the_state_that_it_earned() {
    let _alone = crate::ALONE.blocking_lock();
    assert!(COMMAND.chars().count() <= 60);
    let mut place = Place::new(ROOM, "");
    place.start();
    place.import(ROOM);
    place.run(&format!("{COMMAND} {UNTIL}"));
    let opens = Instant::now() + Duration::from_secs(20);
    let listener = Listener::start(&place.far);
    let machines: Vec<Arc<Machine>> = (0..ROOM).map(|n| Arc::new(Machine::new(n, fate(n)))).collect();
    let works = machines.iter().filter(|machine| machine.fate == Fate::Works).count();

    let (sender, mut orders) = tokio::sync::mpsc::channel::<()>(1);
    let (ready, started) = std::sync::mpsc::channel::<()>();
    std::thread::scope(|scope| {
        let (machines, heard, place) = (&machines, &listener.heard, &mut place);
        let far = place.far.clone();
        let terminals = scope.spawn(move || {
            flashmob_testkit::net::enter(&far).unwrap();
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                for machine in machines {
                    tokio::spawn(one(Arc::clone(machine), heard.clone()));
                }
                for count in [8, 31] {
                    until_done(machines, count, opens + OPEN).await;
                    ready.send(()).unwrap();
                    orders.recv().await;
                }
                until_done(machines, works, opens + OPEN).await;
                // Whoever is done boots again and again meanwhile.
                tokio::time::sleep_until((opens + OPEN + Duration::from_secs(4)).into()).await;
            });
        });
        for _ in 0..2 {
            if started.recv().is_err() {
                break;
            }
            place.kill();
            std::thread::sleep(Duration::from_millis(300));
            place.start();
            sender.blocking_send(()).unwrap();
        }
        terminals.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });

    check_report(&place, &machines);
    assert!(most_at_once(&machines) <= WAVE, "{} terminals at once", most_at_once(&machines));
    for machine in &machines {
        assert!(listener.heard.packets(&machine.mac) > 0, "{} got no wake-up packet", machine.mac);
        let diary = machine.diary();
        assert_eq!(completed(machine), usize::from(machine.fate == Fate::Works), "{diary:?}");
        let last = match machine.fate {
            Fate::Works => "booting from the disk|next boot entry",
            Fate::BadDisk => "its disk cannot boot",
            _ => continue,
        };
        assert!(last.split('|').any(|words| diary.script.contains(words)), "{diary:?}");
    }
}
