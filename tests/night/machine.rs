//! One fake terminal: a small client of the real API that boots, takes work and reports, and writes down what
//! it did.
//!
//! Invariant: it follows the server's words only: the boot script, the answers to its calls.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use flashmob::api::{Assignment, Hello, Inventory, Orders, OutcomeReport, ProgressReport, Take, Welcome};
use flashmob::event::{Failure, Installed, Outcome, Progress, Stage};
use reqwest::{Client, RequestBuilder, StatusCode};
use serde::de::DeserializeOwned;

use crate::place::{URL, address, mac};

/// Between two reports, and between two looks at the boot script.
const PACE: Duration = Duration::from_millis(150);

/// The reports of one attempt.
const COURSE: [Stage; 10] = [
    Stage::Manifest,
    Stage::Claim,
    Stage::Compare,
    Stage::Disarm,
    Stage::Fetch,
    Stage::Fetch,
    Stage::Fetch,
    Stage::Verify,
    Stage::Verify,
    Stage::Commit,
];

/// What becomes of a terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    Works,
    /// Its card does not hear wake-up packets.
    NeverWakes,
    /// It is switched off after it has reported this stage.
    DiesAt(Stage),
    /// Its disk fails.
    BadDisk,
}

/// An attempt as the terminal knows it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Made {
    pub(crate) number: u64,
    pub(crate) job: String,
    pub(crate) began: Instant,
    /// When it sent the last report that the server has acknowledged.
    pub(crate) last: Instant,
    /// When it first sent its outcome, which ends its turn as soon as the server hears it.
    pub(crate) told: Option<Instant>,
    /// `done` or `failed`, once the server has acknowledged it.
    pub(crate) result: Option<&'static str>,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Diary {
    pub(crate) attempts: Vec<Made>,
    /// Calls for work whose answer never came: the server may have begun an attempt.
    pub(crate) unanswered: usize,
    /// The boot script that came last.
    pub(crate) script: String,
    pub(crate) boots: usize,
}

pub(crate) struct Machine {
    pub(crate) mac: String,
    pub(crate) fate: Fate,
    http: Client,
    pub(crate) diary: Mutex<Diary>,
}

/// An answer that is not 200.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Not {
    /// There was none: the server may have heard the call.
    Answered,
    Ok(StatusCode),
}

pub(crate) async fn call<T: DeserializeOwned>(request: RequestBuilder) -> Result<T, Not> {
    let answer = request.send().await.map_err(|_| Not::Answered)?;
    if answer.status() != StatusCode::OK {
        return Err(Not::Ok(answer.status()));
    }
    answer.json().await.map_err(|_| Not::Answered)
}

/// The ticket in the script that boots the agent.
fn ticket(script: &str) -> Option<&str> {
    script.split_once("flashmob.ticket=")?.1.split_whitespace().next()
}

/// A terminal that speaks for itself.
#[derive(Debug, Clone)]
pub(crate) struct Admitted {
    pub(crate) id: String,
    pub(crate) secret: String,
}

impl Machine {
    pub(crate) fn new(n: usize, fate: Fate) -> Machine {
        let http = Client::builder().no_proxy().local_address(Some(address(n).into()));
        let http = http.timeout(Duration::from_secs(10)).build().unwrap();
        Machine { mac: mac(n), fate, http, diary: Mutex::default() }
    }

    pub(crate) fn write(&self, change: impl FnOnce(&mut Diary)) {
        change(&mut self.diary.lock().unwrap());
    }

    pub(crate) fn diary(&self) -> Diary {
        self.diary.lock().unwrap().clone()
    }

    fn post(&self, path: &str, body: &impl serde::Serialize) -> RequestBuilder {
        self.http.post(format!("{URL}{path}")).json(body)
    }

    /// Asks for the boot script until the server answers.
    pub(crate) async fn netboot(&self) -> String {
        self.write(|diary| diary.boots += 1);
        loop {
            let url = format!("{URL}/boot/ipxe?mac={}&platform=efi", self.mac);
            if let Ok(answer) = self.http.get(url).send().await
                && let Ok(script) = answer.text().await
            {
                self.write(|diary| diary.script.clone_from(&script));
                return script;
            }
            tokio::time::sleep(PACE).await;
        }
    }

    /// Boots and does what the scripts say, until the test or its own life ends.
    pub(crate) async fn live(&self) {
        loop {
            let script = self.netboot().await;
            if let Some(ticket) = ticket(&script)
                && let Some(me) = self.hello(ticket).await
                && let Some(work) = self.take(&me).await
                && !self.image(&work).await
            {
                return;
            }
            tokio::time::sleep(PACE * 2).await;
        }
    }

    /// `None`: the server does not believe the ticket, and another boot brings another one.
    pub(crate) async fn hello(&self, ticket: &str) -> Option<Admitted> {
        let hello = Hello {
            uuid: None,
            macs: vec![self.mac.clone()],
            inventory: Inventory::default(),
            agent: "test".into(),
        };
        loop {
            let request =
                self.post("/api/v1/hello", &hello).header("Authorization", format!("Ticket {ticket}"));
            match call::<Welcome>(request).await {
                Ok(welcome) => {
                    let secret = welcome.secret.expect("a terminal with a ticket gets a secret");
                    return Some(Admitted { id: welcome.terminal, secret });
                }
                Err(Not::Answered | Not::Ok(StatusCode::SERVICE_UNAVAILABLE)) => {
                    tokio::time::sleep(PACE).await;
                }
                Err(Not::Ok(_)) => return None,
            }
        }
    }

    /// One call for work.
    pub(crate) async fn ask(&self, me: &Admitted) -> Result<Assignment, Not> {
        let request = self.post(&format!("/api/v1/terminals/{}/take", me.id), &Take::default());
        let answer = call::<Assignment>(request.bearer_auth(&me.secret)).await;
        match &answer {
            Ok(work) => self.write(|diary| {
                let (number, job, now) = (work.attempt, work.job.clone(), Instant::now());
                diary.attempts.push(Made { number, job, began: now, last: now, told: None, result: None });
            }),
            Err(Not::Answered | Not::Ok(StatusCode::SERVICE_UNAVAILABLE)) => {
                self.write(|diary| diary.unanswered += 1);
            }
            Err(Not::Ok(_)) => {}
        }
        answer
    }

    /// Work, once it is its turn; `None` if there is none.
    async fn take(&self, me: &Admitted) -> Option<Assignment> {
        loop {
            match self.ask(me).await {
                Ok(work) => return Some(work),
                Err(Not::Answered | Not::Ok(StatusCode::TOO_MANY_REQUESTS)) => {
                    tokio::time::sleep(PACE).await;
                }
                Err(Not::Ok(StatusCode::NO_CONTENT)) => return None,
                Err(Not::Ok(status)) => panic!("{}: its call for work is answered with {status}", self.mac),
            }
        }
    }

    pub(crate) async fn report(&self, work: &Assignment, stage: Stage) -> Result<Orders, Not> {
        let report =
            ProgressReport { token: work.token.clone(), progress: Progress::at(stage), chosen: Vec::new() };
        let sent = Instant::now();
        let orders = call(self.post(&format!("/api/v1/attempts/{}/progress", work.attempt), &report)).await;
        if orders.is_ok() {
            self.write(|diary| made(diary, work).last = sent);
        }
        orders
    }

    pub(crate) async fn tell(&self, work: &Assignment, outcome: &Outcome) -> Result<Orders, Not> {
        let report = OutcomeReport { token: work.token.clone(), outcome: outcome.clone() };
        let result = if matches!(outcome, Outcome::Done { .. }) { "done" } else { "failed" };
        self.write(|diary| {
            made(diary, work).told.get_or_insert_with(Instant::now);
        });
        let orders = call(self.post(&format!("/api/v1/attempts/{}/outcome", work.attempt), &report)).await;
        if orders.is_ok() {
            self.write(|diary| made(diary, work).result = Some(result));
        }
        orders
    }

    /// Carries out the work; false when the terminal is dead.
    async fn image(&self, work: &Assignment) -> bool {
        for stage in COURSE {
            // A server that is away does not stop the imaging.
            let _ = self.report(work, stage).await;
            if self.fate == Fate::DiesAt(stage) {
                while self.report(work, stage).await.is_err() {
                    tokio::time::sleep(PACE).await;
                }
                return false;
            }
            if self.fate == Fate::BadDisk && stage == Stage::Fetch {
                break;
            }
            tokio::time::sleep(PACE).await;
        }
        let outcome = if self.fate == Fate::BadDisk { bad_disk() } else { done(work) };
        while self.tell(work, &outcome).await.is_err() {
            tokio::time::sleep(PACE).await;
        }
        true
    }
}

fn made<'a>(diary: &'a mut Diary, work: &Assignment) -> &'a mut Made {
    diary.attempts.iter_mut().find(|made| made.number == work.attempt).unwrap()
}

pub(crate) fn done(work: &Assignment) -> Outcome {
    let id = work.task.id.clone();
    let installed = vec![Installed { id, disk: "sda".into(), ..Installed::default() }];
    let disk = "sda".into();
    Outcome::Done { seconds: 2, bytes_in: 1, bytes_out: 1, disk, installed, warnings: Vec::new() }
}

pub(crate) fn bad_disk() -> Outcome {
    let failure = Failure::disk("writing sda: input/output error", "Replace the disk.");
    Outcome::Failed { stage: Stage::Fetch, failure, disk_touched: true }
}
