//! Runs dnsmasq for netbooting machines, as `domain::pxe` plans it, and keeps it running.
//!
//! ```text
//!  thread "dnsmasq":  plan ─► write, test ─► start ─► every second: stop? ended? late terminals?
//!        ▲                                           every 5 s: another plan? ── yes ─► end it, plan again
//!        └── a pause of 1 s to 1 min after it ended ──┘
//!  thread per run:    dnsmasq's lines ─► log, app.pxe (until dnsmasq ends)
//!  task:              asks as a terminal at the start and every 10 min ─► app.pxe
//! ```
//!
//! Invariant: dnsmasq runs only while the thread does, and the thread ends when [`Running`] is dropped. A
//! server that could not answer netbooting machines does not start; later troubles are problems on the page.

mod child;
mod facts;
mod others;

use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use crate::api::Refusal;
use crate::event::Failure;
use crate::io::net::interfaces::neighbour;
use crate::server::clock::Clock;
use crate::server::domain::pxe::{Plan, Watch, Way, sent};
use crate::sync;
use child::Child;
pub(crate) use facts::{Setup, dnsmasq, ports};
pub(super) use others::follow;

const LOOK: Duration = Duration::from_secs(1);
/// A card that gets another address, or a new netboot file, is noticed within this time.
const PLAN_AGAIN: Duration = Duration::from_secs(5);
const SHORTEST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// The thread that keeps dnsmasq running.
pub(super) struct Running {
    /// Dropped to stop it.
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

struct Keeper {
    setup: Setup,
    program: PathBuf,
    clock: Clock,
    watch: Arc<Mutex<Watch>>,
    stop: Receiver<()>,
}

/// How a run ended.
enum End {
    Stopped,
    /// The plan is another one now.
    Changed,
    Failed(Refusal),
}

/// Starts dnsmasq; when this returns it answers.
pub(super) async fn start(setup: Setup, clock: Clock, watch: Arc<Mutex<Watch>>) -> Result<Running, Failure> {
    let refused = |Refusal { error, advice }| Failure::refused(format!("--pxe: {error}"), advice);
    let program = dnsmasq().map_err(refused)?;
    let plan = setup.plan().map_err(refused)?;
    others::none_gives_out(&plan).await.map_err(refused)?;
    let (stop, stopped) = channel();
    let (told, started) = oneshot::channel();
    let keeper = Keeper { setup, program, clock, watch, stop: stopped };
    let thread = std::thread::Builder::new().name("dnsmasq".into()).spawn(move || keeper.run(told));
    let thread = thread
        .map_err(|e| Failure::refused(format!("starting a thread: {e}"), "Look at this machine's limits."))?;
    let running = Running { stop: Some(stop), thread: Some(thread) };
    match started.await {
        Ok(Ok(())) => Ok(running),
        Ok(Err(refusal)) => Err(refused(refusal)),
        Err(_) => Err(Failure::refused(
            "the thread that runs dnsmasq ended",
            "This is a bug in flashmob: report it with the server's log.",
        )),
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.stop.take());
        // A thread that panicked has ended dnsmasq as well.
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Keeper {
    /// Runs dnsmasq again and again until it is told to stop; `told` hears how the first start went.
    fn run(self, told: oneshot::Sender<Result<(), Refusal>>) {
        let (mut told, mut pause) = (Some(told), SHORTEST_PAUSE);
        loop {
            let since = Instant::now();
            let refusal = match self.once(&mut told) {
                End::Stopped => return,
                End::Changed => {
                    log::info!("dnsmasq is started again: this machine's addresses or netboot files changed");
                    continue;
                }
                End::Failed(refusal) => refusal,
            };
            if let Some(told) = told.take() {
                // Without a receiver nobody waits for it.
                let _ = told.send(Err(refusal));
                return;
            }
            let Refusal { error, advice } = &refusal;
            pause = if since.elapsed() > LONGEST_PAUSE { SHORTEST_PAUSE } else { pause };
            log::error!("{error}. {advice} Terminals cannot netboot; next try in {} s.", pause.as_secs());
            sync::lock(&self.watch).trouble = Some(refusal);
            if self.stops_within(pause) {
                return;
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    fn once(&self, told: &mut Option<oneshot::Sender<Result<(), Refusal>>>) -> End {
        let started = self.setup.plan().and_then(|plan| Ok((self.start(&plan)?, plan)));
        let (mut child, plan) = match started {
            Ok(started) => started,
            Err(refusal) => return End::Failed(refusal),
        };
        {
            let mut watch = sync::lock(&self.watch);
            (watch.trouble, watch.lacks) = (None, plan.lacks());
        }
        if let Some(Refusal { error, advice }) = plan.lacks() {
            log::warn!("{error}. {advice}");
        }
        if let Some(told) = told.take() {
            let _ = told.send(Ok(()));
        }
        let mut planned = Instant::now();
        loop {
            if self.stops_within(LOOK) {
                return End::Stopped;
            }
            if let Some(status) = child.ended() {
                return End::Failed(child.last_words(status));
            }
            let late = sync::lock(&self.watch).overdue(self.clock.now());
            for problem in late {
                log::warn!("{}. {}", problem.error, problem.advice);
            }
            if planned.elapsed() >= PLAN_AGAIN {
                planned = Instant::now();
                match self.setup.plan() {
                    Ok(now) if now != plan => return End::Changed,
                    Ok(_) => sync::lock(&self.watch).trouble = None,
                    // The old plan may still serve other networks.
                    Err(refusal) => sync::lock(&self.watch).trouble = Some(refusal),
                }
            }
        }
    }

    fn start(&self, plan: &Plan) -> Result<Child, Refusal> {
        ports(plan)?;
        let configuration = child::test(&self.program, &self.setup.folder(), &plan.text())?;
        let (clock, watch) = (self.clock, Arc::clone(&self.watch));
        let child = Child::start(&self.program, &configuration, move |line| hear(&clock, &watch, line))?;
        log::info!("netboot: dnsmasq answers at {}", plan.interfaces().join(", "));
        Ok(child)
    }

    fn stops_within(&self, time: Duration) -> bool {
        !matches!(self.stop.recv_timeout(time), Err(RecvTimeoutError::Timeout))
    }
}

/// A line of dnsmasq.
fn hear(clock: &Clock, watch: &Mutex<Watch>, line: &str) {
    if let Some((file, address)) = sent(line) {
        sync::lock(watch).fetched(clock.now(), (file, Way::Tftp), address, neighbour(address));
        log::info!("{line}");
    } else if [": cannot ", "no address ", "failed to ", "capability"].iter().any(|word| line.contains(word))
    {
        log::warn!("{line}");
    } else {
        log::debug!("{line}");
    }
}
