//! The server is killed at random moments under load, and everything that it acknowledged is there again.
//!
//! Twenty terminals image themselves again and again, as people create, cancel and retry jobs. `Ledger` is
//! what the server has acknowledged so far. The moments and the people's choices follow from a seed.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use flashmob::api::TerminalDetails;
use flashmob::event::{Failure, Outcome, Stage};
use flashmob::rng::Rng;
use reqwest::{Client, StatusCode};
use serde_json::{Value, json};

use crate::machine::{Admitted, Machine, Not, done};
use crate::place::{Place, URL, address, mac};

const TERMINALS: usize = 20;
const KILLS: usize = 50;
const PAUSE: Duration = Duration::from_millis(20);

/// What people heard from the server.
#[derive(Debug, Clone, Default)]
struct Ledger {
    created: Vec<u64>,
    cancelled: Vec<u64>,
    retried: usize,
}

/// A terminal that works until the test ends. It presents the secret that it has, so the server must know it
/// after each kill.
async fn work(machine: Arc<Machine>) {
    let mut boots = 0;
    let me = loop {
        boots += 1;
        assert!(boots < 200, "{} is never admitted: {}", machine.mac, machine.diary().script);
        let script = machine.netboot().await;
        let ticket =
            script.split_once("flashmob.ticket=").and_then(|(_, rest)| rest.split_whitespace().next());
        if let Some(ticket) = ticket
            && let Some(me) = machine.hello(ticket).await
        {
            break me;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    };
    for turn in 0.. {
        attempt(&machine, &me, turn).await;
        tokio::time::sleep(PAUSE).await;
    }
}

async fn attempt(machine: &Machine, me: &Admitted, turn: usize) {
    let work = match machine.ask(me).await {
        Ok(work) => work,
        Err(Not::Ok(StatusCode::UNAUTHORIZED)) => panic!("{}: its secret is forgotten", machine.mac),
        Err(_) => return,
    };
    for stage in [Stage::Manifest, Stage::Disarm, Stage::Fetch, Stage::Commit] {
        if machine.report(&work, stage).await.is_ok_and(|orders| orders.cancel) {
            break;
        }
        tokio::time::sleep(PAUSE).await;
    }
    let failure = Failure::retry("the network is away", "Look at the cable.");
    let failed = Outcome::Failed { stage: Stage::Fetch, failure, disk_touched: true };
    let outcome = if turn.is_multiple_of(3) { failed } else { done(&work) };
    for _ in 0..200 {
        match machine.tell(&work, &outcome).await {
            // A later attempt has begun, because the answer to a call for work got lost.
            Ok(_) | Err(Not::Ok(StatusCode::NOT_FOUND)) => return,
            Err(Not::Ok(status)) if status.is_client_error() => panic!("{}: {status}", machine.mac),
            Err(_) => tokio::time::sleep(PAUSE * 2).await,
        }
    }
    panic!("{}: its outcome is never taken", machine.mac);
}

/// A person with a token, at a desk of their own.
struct Person {
    http: Client,
    token: String,
    desk: tokio::sync::Mutex<()>,
}

impl Person {
    async fn post(&self, path: &str, body: &Value) -> Option<(StatusCode, Value)> {
        let request = self.http.post(format!("{URL}{path}")).bearer_auth(&self.token).json(body);
        let answer = request.send().await.ok()?;
        let status = answer.status();
        assert_ne!(status, StatusCode::INTERNAL_SERVER_ERROR, "{path}");
        Some((status, answer.json().await.unwrap_or_default()))
    }

    async fn get(&self, path: &str) -> Value {
        for _ in 0..100 {
            let request = self.http.get(format!("{URL}{path}")).bearer_auth(&self.token);
            if let Ok(answer) = request.send().await
                && answer.status() == StatusCode::OK
                && let Ok(value) = answer.json().await
            {
                return value;
            }
            tokio::time::sleep(PAUSE).await;
        }
        panic!("{path} is never answered");
    }

    /// Creates, cancels and retries jobs, with the desk's lock for each action.
    async fn act(&self, mut chance: Rng, ledger: &Mutex<Ledger>) {
        loop {
            tokio::time::sleep(PAUSE).await;
            let _desk = self.desk.lock().await;
            let known = ledger.lock().unwrap().clone();
            let latest = known.created.iter().rev().nth(chance.below(3)).copied();
            let cancelled = known.cancelled.get(chance.below(known.cancelled.len())).copied();
            match (chance.below(10), latest.filter(|job| !known.cancelled.contains(job)), cancelled) {
                (0..3, Some(job), _) => {
                    let answer = self.post(&format!("/api/v1/jobs/{job}/cancel"), &Value::Null).await;
                    if answer.is_some_and(|(status, _)| status == StatusCode::NO_CONTENT) {
                        ledger.lock().unwrap().cancelled.push(job);
                    }
                }
                (3..6, _, Some(job)) => {
                    // Nothing is known of it until there is an answer.
                    ledger.lock().unwrap().cancelled.retain(|other| *other != job);
                    let answer = self.post(&format!("/api/v1/jobs/{job}/retry"), &json!({})).await;
                    if answer.is_some_and(|(status, _)| status == StatusCode::OK) {
                        ledger.lock().unwrap().retried += 1;
                    }
                }
                _ => {
                    let targets: Vec<String> = (0..3).map(|_| mac(chance.below(TERMINALS))).collect();
                    let order = json!({"image": "golden", "targets": targets, "wave": 2});
                    if let Some((StatusCode::CREATED, plan)) = self.post("/api/v1/jobs", &order).await {
                        ledger.lock().unwrap().created.push(plan["number"].as_u64().unwrap());
                    }
                }
            }
        }
    }
}

/// What must be there, as of one moment.
struct Acknowledged {
    /// The latest attempt of each terminal, and its result.
    attempts: BTreeMap<String, (u64, Option<&'static str>)>,
    results: usize,
}

fn acknowledged(machines: &[Arc<Machine>]) -> Acknowledged {
    let latest = |machine: &Arc<Machine>| {
        let last = machine.diary().attempts.last().cloned()?;
        Some((machine.mac.clone(), (last.number, last.result)))
    };
    let results =
        machines.iter().map(|m| m.diary().attempts.iter().filter(|made| made.result.is_some()).count());
    Acknowledged { results: results.sum(), attempts: machines.iter().filter_map(latest).collect() }
}

/// The database has each attempt that a terminal was given, with each outcome that was acknowledged. Only a
/// copy is opened, so that it is the server that recovers its database.
fn check_database(place: &Place, machines: &[Arc<Machine>]) {
    let copy = tempfile::tempdir().unwrap();
    for name in ["flashmob.sqlite", "flashmob.sqlite-wal"] {
        std::fs::copy(place.at("state").join(name), copy.path().join(name)).unwrap();
    }
    let database = rusqlite::Connection::open(copy.path().join("flashmob.sqlite")).unwrap();
    let mut statement =
        database.prepare("SELECT outcome ->> 'result', cancelled FROM attempts WHERE number = ?1").unwrap();
    for made in machines.iter().flat_map(|machine| machine.diary().attempts) {
        let number = i64::try_from(made.number).unwrap();
        let row = statement
            .query_row([number], |row| Ok((row.get::<_, Option<String>>(0)?, row.get::<_, bool>(1)?)));
        let (result, cancelled) = row.unwrap_or_else(|error| panic!("{made:?}: {error}"));
        let same = made.result.is_none() || result.as_deref() == made.result || cancelled;
        assert!(same, "{made:?} is {result:?}");
    }
}

async fn check_server(person: &Person, then: &Acknowledged, ledger: &Mutex<Ledger>) {
    let _desk = person.desk.lock().await;
    let ledger = ledger.lock().unwrap().clone();
    let jobs = person.get("/api/v1/jobs").await;
    let job = |number: u64| jobs.as_array().unwrap().iter().find(|job| job["number"] == number);
    for number in &ledger.created {
        assert!(job(*number).is_some(), "job {number} is forgotten");
    }
    for number in &ledger.cancelled {
        assert_eq!(job(*number).unwrap()["cancelled"], true, "job {number}");
        let report = person.get(&format!("/api/v1/jobs/{number}")).await;
        for row in report["terminals"].as_array().unwrap() {
            assert!(row["state"] != "waiting" && row["state"] != "running", "job {number} goes on: {row}");
        }
    }
    for (mac, (number, result)) in &then.attempts {
        let details = person.get(&format!("/api/v1/terminals/{mac}")).await;
        let details: TerminalDetails = serde_json::from_value(details).unwrap();
        let last = details.attempt.unwrap_or_else(|| panic!("attempt {number} of {mac} is forgotten"));
        assert!(last.number >= *number, "attempt {number} of {mac} is forgotten");
        let ended = last.number > *number || result.is_none() || details.row.outcome.is_some();
        assert!(ended, "the outcome of attempt {number} of {mac} is forgotten");
    }
    let audit = person.get("/api/v1/audit").await;
    let of = |action: &str| audit.as_array().unwrap().iter().filter(|one| one["action"] == action).count();
    // The answer has the latest entries only.
    if audit.as_array().unwrap().len() < 500 {
        assert!(of("create a job") >= ledger.created.len(), "{} creations", of("create a job"));
        assert!(of("retry the job") >= ledger.retried, "{} retries", of("retry the job"));
    }
}

#[test]
fn a_server_that_is_killed_at_any_moment_has_lost_nothing_that_it_acknowledged() {
    let _alone = crate::ALONE.blocking_lock();
    let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| u64::from(std::process::id()));
    println!("SEED={seed}");
    let mut chance = Rng::new(seed);
    let mut place = Place::new(TERMINALS + 1, "[limits]\nrequests_per_second = 10000\n");
    place.start();
    place.import(TERMINALS);
    let token = place.run("flashmob token create --role admin").trim().to_string();
    // The first job gives each terminal the ticket with which it gets its secret.
    place.run("flashmob job create golden room:1 --attempts 100");
    let machines: Vec<Arc<Machine>> =
        (0..TERMINALS).map(|n| Arc::new(Machine::new(n, crate::machine::Fate::Works))).collect();
    let http = Client::builder().no_proxy().local_address(Some(address(TERMINALS).into()));
    let http = http.timeout(Duration::from_secs(10)).build().unwrap();
    let person = Arc::new(Person { http, token, desk: tokio::sync::Mutex::default() });
    let ledger = Arc::new(Mutex::new(Ledger::default()));

    // The server is started and killed here, and the terminals live on a thread of their own.
    let (ask, asked) = tokio::sync::mpsc::channel::<(Acknowledged, std::sync::mpsc::Sender<()>)>(1);
    std::thread::scope(|scope| {
        let (machines, far, seed) = (&machines, place.far.clone(), chance.next_u64());
        let (person, shared) = (Arc::clone(&person), Arc::clone(&ledger));
        let terminals = scope.spawn(move || {
            flashmob_testkit::net::enter(&far).unwrap();
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(load(machines, person, shared, seed, asked));
        });
        for kill in 0..KILLS {
            std::thread::sleep(Duration::from_millis(u64::try_from(50 + chance.below(700)).unwrap()));
            place.kill();
            let then = acknowledged(machines);
            check_database(&place, machines);
            place.start();
            let (checked, wait) = std::sync::mpsc::channel();
            if ask.blocking_send((then, checked)).is_err() || wait.recv().is_err() {
                println!("after kill {}", kill + 1);
                break;
            }
        }
        drop(ask);
        terminals.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
    let all = acknowledged(&machines);
    let Ledger { created, cancelled, retried } = ledger.lock().unwrap().clone();
    let (created, cancelled) = (created.len(), cancelled.len());
    println!("{} outcomes, {created} jobs, {cancelled} cancelled, {retried} retries", all.results);
    assert!(all.results > KILLS && created > KILLS && retried > 5, "hardly any load");
}

/// Terminals and people at work; checks what is asked for, until nothing is.
async fn load(
    machines: &[Arc<Machine>],
    person: Arc<Person>,
    ledger: Arc<Mutex<Ledger>>,
    seed: u64,
    mut asked: tokio::sync::mpsc::Receiver<(Acknowledged, std::sync::mpsc::Sender<()>)>,
) {
    let mut working = tokio::task::JoinSet::new();
    for machine in machines {
        working.spawn(work(Arc::clone(machine)));
    }
    let (acting, theirs) = (Arc::clone(&person), Arc::clone(&ledger));
    working.spawn(async move { acting.act(Rng::new(seed), &theirs).await });
    loop {
        tokio::select! {
            ended = working.join_next() => {
                // Nobody stops but by a panic.
                ended.unwrap().unwrap();
            }
            next = asked.recv() => {
                let Some((then, checked)) = next else { return };
                check_server(&person, &then, &ledger).await;
                checked.send(()).unwrap();
            }
        }
    }
}
