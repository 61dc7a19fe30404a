//! Starts the server's parts in order, and stops them.
//!
//! Invariant: when [`Server::start`] returns, the port answers; when [`Server::stop`] returns, everything
//! that was acknowledged is in the database.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch as channel};
use tokio::task::JoinHandle;

use super::app::{App, Configured};
use super::clock::Clock;
use super::domain::board::Board;
use super::domain::captures::Captures;
use super::domain::config::Config;
use super::domain::jobs::Jobs;
use super::domain::lab::{Change, Lab};
use super::domain::people::People;
use super::domain::pxe::PxeConfig;
use super::domain::tickets;
use super::domain::zones;
use super::http::{listen, router};
use super::meters::Meters;
use super::ports::{DEFAULT_PORT, cannot_listen};
use super::repository::Scanner;
use super::seeder::Seeders;
use super::store::Store;
use super::{mdns, pxe, tftp, watch, webhooks};
use crate::event::Failure;
use crate::sync;
use crate::tracker::{Settings, Tracker, Zoned};

/// How long stopping may take.
const STOP: Duration = Duration::from_secs(6);

/// The settings of a server.
#[derive(Debug, Clone)]
pub struct Options {
    pub images: PathBuf,
    pub boot: Option<PathBuf>,
    /// Where state is kept.
    pub state: PathBuf,
    pub config: Option<PathBuf>,
    /// Public keys by which images are judged; before the one that the configuration names.
    pub keys: Option<PathBuf>,
    /// The port; `None` for every address, port 6969.
    pub listen: Option<SocketAddr>,
    /// Where the server's own peer listens; `None` for every address, port 6881.
    pub peer_listen: Option<SocketAddr>,
    /// Announce the server by mDNS.
    pub mdns: bool,
    /// Where netbooting machines are answered; `None` for what the configuration says.
    pub pxe: Option<PxeConfig>,
}

/// Makes the key of a new server's tickets, and keeps it.
async fn new_key(store: &Store) -> Result<tickets::Key, Failure> {
    let mut key = [0; 32];
    getrandom::fill(&mut key).map_err(|e| {
        Failure::refused(
            format!("no random number: {e}"),
            "The kernel gives no random numbers: look for its reason in 'dmesg'.",
        )
    })?;
    let key = tickets::Key(key);
    store
        .save(vec![Change::TicketKey(key)])
        .await
        .map_err(|e| Failure::refused(e.to_string(), e.advice()))?;
    Ok(key)
}

/// What netboot depends on, if it is wanted.
fn setup(options: &Options, config: &Config, listens: SocketAddr) -> Result<Option<pxe::Setup>, Failure> {
    let wanted = options.pxe.clone().unwrap_or_else(|| config.pxe.clone());
    if !wanted.is_on() {
        return Ok(None);
    }
    wanted.check().map_err(|why| Failure::usage(why, "Correct --pxe, --pxe-range or --pxe-subnet."))?;
    let Some(boot) = options.boot.clone() else {
        return Err(Failure::usage("--pxe needs the netboot files", "Name their folder with --boot."));
    };
    Ok(Some(pxe::Setup { config: wanted, listens, boot, state: options.state.clone() }))
}

pub struct Server {
    app: Arc<App>,
    address: SocketAddr,
    reload: mpsc::Sender<oneshot::Sender<()>>,
    stop: channel::Sender<bool>,
    tasks: Vec<JoinHandle<()>>,
    store: std::thread::JoinHandle<()>,
    announced: Option<mdns::Announced>,
    dnsmasq: Option<pxe::Running>,
}

impl Server {
    /// Starts a server; when this returns it answers.
    pub async fn start(options: Options) -> Result<Server, Failure> {
        let config = options.config.as_deref().map(watch::read_config).transpose()?.unwrap_or_default();
        let mut scanner = Scanner::new(options.images.clone());
        scanner.judge_by(options.keys.clone().or_else(|| config.keys.clone()));
        let scan = scanner.scan()?;
        let listener = listen::bind(options.listen, DEFAULT_PORT).map_err(cannot_listen("--listen"))?;
        let address = listener.local_addr().map_err(|e| {
            Failure::refused(format!("the listening socket has no address: {e}"), "Start the server again.")
        })?;
        let (store, restored, store_thread) =
            Store::open(&options.state).map_err(|e| Failure::refused(e.to_string(), e.advice()))?;
        let mut seeders = Seeders::start(options.peer_listen, config.compress).await?;

        let times = &config.tracker;
        let settings = Settings {
            interval: times.interval,
            young_interval: times.young_interval,
            ..Settings::default()
        };
        let clock = Clock::start();
        let ticket_key = match restored.key {
            Some(key) => key,
            None => new_key(&store).await?,
        };
        let (mut lab, corrected) = Lab::restore(clock.now(), restored.terminals, restored.last_number);
        lab.captures = Captures::restore(clock.now(), restored.captures);
        lab.restore_jobs(Jobs::restore(clock.now(), restored.jobs));
        if !corrected.is_empty() {
            log::warn!(
                "the date of this machine is before times that the server wrote down earlier: look at its \
                 clock. Terminals are served all the same"
            );
            // Unstored corrections are made again at the next start.
            drop(store.save(corrected));
        }
        lab.restore_secrets(clock.now(), restored.secrets);
        let netboot = setup(&options, &config, address)?;
        let topology = zones::topology(&config, &lab);
        let policy = Box::new(Zoned::new(topology.clone()));
        let (stop, stopped) = channel::channel(false);
        let (look, looks) = mpsc::channel(1);
        let app = Arc::new(App {
            clock,
            images: options.images,
            boot: options.boot,
            has_netboot_files: AtomicBool::new(false),
            configured: RwLock::new(Configured { config: Arc::new(config), problem: None }),
            repository: RwLock::default(),
            look,
            tracker: Mutex::new(Tracker::new(settings, policy)),
            topology: RwLock::new(Arc::new(topology)),
            lab: Mutex::new(lab),
            people: RwLock::new(People::restore(restored.people)),
            ticket_key,
            limits: Mutex::default(),
            meters: Meters::default(),
            pxe: Arc::default(),
            waking: Mutex::default(),
            board: Mutex::new(Board::new(format!("{:x}", clock.now().as_millis()))),
            stopping: stopped.clone(),
            store,
            seeder: seeders.who(),
            seeding: RwLock::default(),
        });
        app.find_netboot_files();
        watch::publish(&app, &scan, &mut seeders).await;
        for problem in app.problems() {
            log::warn!("{}: {}. {}", problem.what, problem.error, problem.advice);
        }

        let dnsmasq = match &netboot {
            Some(setup) => Some(pxe::start(setup.clone(), clock, Arc::clone(&app.pxe)).await?),
            None => None,
        };
        let (reload, told) = mpsc::channel(1);
        let mut tasks = vec![
            tokio::spawn(listen::serve(listener, router::router(Arc::clone(&app)), stopped.clone())),
            tokio::spawn(watch::repository(
                Arc::clone(&app),
                scanner,
                seeders,
                options.keys,
                (looks, stopped.clone()),
            )),
            tokio::spawn(watch::history(Arc::clone(&app), stopped.clone())),
            tokio::spawn(watch::waking(Arc::clone(&app), stopped.clone())),
            tokio::spawn(watch::jobs(Arc::clone(&app), stopped.clone())),
            tokio::spawn(webhooks::deliver(Arc::clone(&app), stopped.clone())),
        ];
        match tftp::bind(address).await {
            Ok(socket) => {
                tasks.push(tokio::spawn(tftp::serve(Arc::clone(&app), socket, stopped.clone())));
            }
            Err(e) => log::warn!(
                "UDP port {address}: {e}. Terminals with Secure Boot cannot ask by TFTP what to do, and boot \
                 their disks"
            ),
        }
        if let Some(setup) = netboot {
            tasks.push(tokio::spawn(pxe::follow(setup, Arc::clone(&app.pxe), stopped.clone())));
        }
        if let Some(path) = options.config {
            let following = watch::configuration(Arc::clone(&app), path, told, stopped);
            tasks.push(tokio::spawn(following));
        }
        let announced = options.mdns.then(|| mdns::announce(address.port())).and_then(|announced| {
            announced.inspect_err(|e| log::warn!("terminals cannot find this server by mDNS: {e}")).ok()
        });
        Ok(Server { app, address, reload, stop, tasks, store: store_thread, announced, dnsmasq })
    }

    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Where its own peer is dialled.
    pub(crate) fn peer_port(&self) -> u16 {
        self.app.seeder.port
    }

    #[cfg(test)]
    pub(crate) fn app(&self) -> &Arc<App> {
        &self.app
    }

    /// Reads the configuration again; when this returns, it is in force or its mistake is a problem.
    pub(crate) async fn reload(&self) {
        let (done, wait) = oneshot::channel();
        // Without a configuration file nobody listens, and there is nothing to read.
        if self.reload.send(done).await.is_ok() {
            let _ = wait.await;
        }
    }

    /// The lab in a line, for a service manager.
    pub(crate) fn summary(&self) -> String {
        let images = self.app.repository().catalog.images.len();
        let (known, live) = sync::lock(&self.app.lab).count(self.app.now());
        let problems = self.app.problems().len();
        let count = |n: usize, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
        let (images, known, problems) =
            (count(images, "image"), count(known, "terminal"), count(problems, "problem"));
        format!("{images}, {known} ({live} imaging), {problems}")
    }

    /// Lets answers finish, leaves the swarms, stores pending changes.
    pub async fn stop(self) {
        drop(self.announced);
        let dnsmasq = tokio::task::spawn_blocking(move || drop(self.dnsmasq));
        self.stop.send_replace(true);
        let aborts: Vec<_> = self.tasks.iter().map(JoinHandle::abort_handle).collect();
        let all = async {
            for task in self.tasks {
                if task.await.is_err_and(|e| e.is_panic()) {
                    log::error!("a part of the server panicked");
                }
            }
        };
        if tokio::time::timeout(STOP, all).await.is_err() {
            aborts.iter().for_each(tokio::task::AbortHandle::abort);
        }
        if dnsmasq.await.is_err() {
            log::error!("ending dnsmasq panicked");
        }
        // The database's thread ends when the last handle to it is gone.
        drop(self.app);
        let ended = tokio::task::spawn_blocking(move || self.store.join());
        if tokio::time::timeout(STOP, ended).await.is_err() {
            log::error!("the database did not finish in time");
        }
    }
}
