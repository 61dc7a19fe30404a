//! Background tasks: the configuration is read again when it changes, the repository is scanned periodically,
//! windows of jobs open and close, old history goes once a day, terminals are woken.
//!
//! ```text
//!  configuration task: every 2 s, or at once when told ──► app.configured
//!  repository task:    every 3 s, or at once when told ──scan (blocking thread)──► app.repository, app.tracker, the seeder
//!  jobs task:          every second ──► app.lab, app.store
//!  history task:       at the start and once a day ──► app.lab, app.store
//!  waking task:        every second: app.waking ──► magic packets
//! ```
//!
//! Invariant: a file with a mistake never replaces a configuration that works; a repository that cannot be
//! listed for a while (a network filesystem) takes no image away. Both are shown as problems. A date that is
//! in doubt deletes no history.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::{mpsc, oneshot, watch};

use crate::event::Failure;
use crate::image_id::ImageRef;
use crate::io::image::folder::ImageFolder;
use crate::server::app::{App, Configured, Repository, Torrent};
use crate::server::domain::catalog::{Problem, Published};
use crate::server::domain::config::Config;
use crate::server::domain::lab::Change;
use crate::server::http::listen::stopped;
use crate::server::repository::{Scan, Scanner};
use crate::server::seeder::Seeders;
use crate::server::waking;
use crate::sync;
use crate::units::InfoHash;

const LOOK_AT_CONFIGURATION: Duration = Duration::from_secs(2);
const LOOK_AT_REPOSITORY: Duration = Duration::from_secs(3);
const LOOK_AT_JOBS: Duration = Duration::from_secs(1);
const LOOK_AT_HISTORY: Duration = Duration::from_secs(24 * 3600);
/// A terminal that a job wakes is wanted until the next looks at the jobs.
const WAKE_ON: Duration = Duration::from_secs(10);
const LOOK_AT_WAKING: Duration = Duration::from_secs(1);
/// The machine's date may drift from the server's clock, which nobody sets, by this much.
const DRIFT: Duration = Duration::from_secs(3600);

/// Reads a configuration file.
pub(crate) fn read_config(path: &Path) -> Result<Config, Failure> {
    let wrong = |why: String| {
        let advice = "Correct the file; 'flashmob serve --print-sample-config' prints one with every key.";
        Failure::usage(format!("configuration {}: {why}", path.display()), advice)
    };
    let text = std::fs::read_to_string(path).map_err(|e| wrong(e.to_string()))?;
    Config::parse(&text).map_err(wrong)
}

/// Follows the configuration file until `stop`.
pub(super) async fn configuration(
    app: Arc<App>,
    path: PathBuf,
    mut reload: mpsc::Receiver<oneshot::Sender<()>>,
    mut stop: watch::Receiver<bool>,
) {
    let stamp =
        || std::fs::metadata(&path).ok().map(|m| (m.len(), m.modified().unwrap_or(SystemTime::UNIX_EPOCH)));
    let mut seen = stamp();
    loop {
        let told = tokio::select! {
            () = tokio::time::sleep(LOOK_AT_CONFIGURATION) => None,
            Some(done) = reload.recv() => Some(done),
            () = stopped(&mut stop) => return,
        };
        let now = stamp();
        if told.is_none() && now == seen {
            continue;
        }
        seen = now;
        let read = read_config(&path);
        let mut configured = sync::write(&app.configured);
        match read {
            Ok(config) => {
                log::info!("configuration {} is in force", path.display());
                *configured = Configured { config: Arc::new(config), problem: None };
            }
            Err(Failure { message, advice, .. }) => {
                log::error!("{message}\n{advice} The last good one stays in force.");
                configured.problem = Some(Problem { what: "configuration".into(), error: message, advice });
            }
        }
        drop(configured);
        app.arrange();
        if let Some(done) = told {
            // Without a receiver the server is about to stop.
            let _ = done.send(());
        }
    }
}

/// Follows the repository until `stop`, then stops seeding. Who sends a `look` is answered after a scan that
/// began later.
pub(super) async fn repository(
    app: Arc<App>,
    mut scanner: Scanner,
    mut seeders: Seeders,
    keys_by_option: Option<PathBuf>,
    (mut looks, mut stop): (mpsc::Receiver<oneshot::Sender<()>>, watch::Receiver<bool>),
) {
    loop {
        let told = tokio::select! {
            () = seeders.refresh(&app, LOOK_AT_REPOSITORY) => None,
            told = looks.recv() => told,
            () = stopped(&mut stop) => break,
        };
        // One scan answers all who waited for it.
        let waiting: Vec<_> = told.into_iter().chain(std::iter::from_fn(|| looks.try_recv().ok())).collect();
        scanner.judge_by(keys_by_option.clone().or_else(|| app.config().keys.clone()));
        let looked = Arc::clone(&app);
        let scanned = tokio::task::spawn_blocking(move || {
            let result = scanner.scan();
            looked.find_netboot_files();
            (scanner, result)
        });
        let Ok((same, result)) = scanned.await else { break };
        scanner = same;
        match result {
            Ok(scan) => publish(&app, &scan, &mut seeders).await,
            Err(failure) => unreadable(&app, failure),
        }
        for done in waiting {
            // A caller that has given up is gone.
            let _ = done.send(());
        }
    }
    seeders.stop().await;
}

/// Deletes old history until `stop`. After a start at a date so late that all history would be old, an
/// administrator has a day to look at the clock.
pub(super) async fn history(app: Arc<App>, mut stop: watch::Receiver<bool>) {
    let unwritten = sync::lock(&app.lab).unwritten_at_start();
    let mut wait = Duration::ZERO;
    if unwritten >= app.config().history.keep() {
        log::warn!(
            "by the date of this machine nothing was written down for {} days: look at its clock. In a day \
             history older than [history] keep_days is deleted",
            unwritten.as_secs() / (24 * 3600)
        );
        wait = LOOK_AT_HISTORY;
    }
    loop {
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = stopped(&mut stop) => return,
        }
        wait = LOOK_AT_HISTORY;
        forget(&app).await;
    }
}

/// Wakes the terminals that should be awake.
pub(super) async fn waking(app: Arc<App>, mut stop: watch::Receiver<bool>) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(LOOK_AT_WAKING) => {}
            () = stopped(&mut stop) => return,
        }
        waking::send_due(&app).await;
    }
}

/// Opens and closes the windows of jobs and ends leases, until `stop`.
pub(super) async fn jobs(app: Arc<App>, mut stop: watch::Receiver<bool>) {
    loop {
        tick(&app);
        tokio::select! {
            () = tokio::time::sleep(LOOK_AT_JOBS) => {}
            () = stopped(&mut stop) => return,
        }
    }
}

/// Brings all jobs up to this moment.
pub(crate) fn tick(app: &App) {
    let (at, repository) = (app.moment(), app.repository());
    let newest =
        |image: &ImageRef| repository.catalog.resolve(image).ok().map(|found| (found.id(), found.bytes));
    let ties = app.ties();
    let mut lab = sync::lock(&app.lab);
    let mut changes = lab.tick(&at, &newest);
    changes.extend(lab.end_silent_captures(at.now));
    let asleep = lab.wanted_awake(&at);
    if !asleep.is_empty() {
        let mut waking = sync::lock(&app.waking);
        for terminal in asleep.iter().filter_map(|id| lab.get(id)) {
            waking.want(waking::wanted(terminal, &ties, at.now + WAKE_ON), at.now);
        }
    }
    if !changes.is_empty() {
        // Nobody waits for them: the store writes them as soon as it can.
        drop(app.store.save(changes));
    }
}

/// Deletes what is older than the configuration says.
async fn forget(app: &App) {
    if app.clock.off() > DRIFT {
        log::warn!("the date was set while the server ran: no history is deleted until it starts again");
        return;
    }
    let keep = app.config().history.keep();
    let saved = {
        let mut lab = sync::lock(&app.lab);
        let changes = lab.forget_older(app.now(), keep);
        let forgotten = changes.iter().filter(|change| matches!(change, Change::Forget(_))).count();
        if forgotten > 0 {
            log::info!("{forgotten} terminals that never took a job were silent for long and are forgotten");
        }
        app.store.save(changes)
    };
    if let Err(error) = saved.await {
        // The store keeps the change and deletes the rows as soon as it can. A server that is killed before
        // knows them again after its next start, and forgets them then.
        log::error!("deleting old history: {error}. {}", error.advice());
    }
    app.arrange();
}

/// Publishes the result of a scan.
pub(super) async fn publish(app: &App, scan: &Scan, seeders: &mut Seeders) {
    let mut catalog = scan.catalog.clone();
    catalog.problems.extend(seeders.follow(scan).await);
    let torrents: HashMap<_, _> = scan
        .folders
        .iter()
        .map(|folder| {
            let torrent =
                Torrent { stored: Arc::clone(folder.metainfo()), web_seed: folder.reference().is_none() };
            (folder.manifest().id(), torrent)
        })
        .collect();
    let before = app.repository();
    let hashes =
        |images: &[Published]| -> HashSet<InfoHash> { images.iter().map(|image| image.info_hash).collect() };
    let (old, new) = (hashes(&before.catalog.images), hashes(&catalog.images));
    {
        let mut tracker = sync::lock(&app.tracker);
        new.iter().for_each(|hash| tracker.admit(*hash, seeders.has(hash)));
        old.difference(&new).for_each(|hash| tracker.dismiss(hash));
    }
    let files = |folder: &Arc<ImageFolder>| Some((folder.manifest().id(), Arc::clone(folder.after()?)));
    let after: HashMap<_, _> = scan.folders.iter().filter_map(files).collect();
    if before.catalog != catalog || before.after != after {
        let repository = Arc::new(Repository { catalog, torrents, after });
        *sync::write(&app.repository) = repository;
    }
}

fn unreadable(app: &App, failure: Failure) {
    let before = app.repository();
    let problem =
        Problem { what: "repository".into(), error: failure.message.clone(), advice: failure.advice };
    if before.catalog.problems.contains(&problem) {
        return;
    }
    log::error!("{}", failure.message);
    let mut repository = before.as_ref().clone();
    repository.catalog.problems = vec![problem];
    *sync::write(&app.repository) = Arc::new(repository);
}
