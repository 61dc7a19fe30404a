//! Everything between disarm and commit: pieces on the disk are moved to their places, the rest comes from
//! the swarm, zeros are written meanwhile, and everything is read back.
//!
//! Invariant: the result is proved. Wrong pieces that could not be checked on arrival are fetched again, a
//! limited number of times. Dropping the future ends the work on threads as soon as they notice.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::bounds::{on_disk, within};
use super::context::{ImagingContext, StopOnDrop, blocking};
use super::download;
use super::meter::{Meter, Share};
use super::target::Ready;
use crate::api::Assignment;
use crate::bitfield::Bitfield;
use crate::event::{Failure, Stage};
use crate::io::disk::disarm::disk_failed;
use crate::io::disk::discard::{Discard, discard};
use crate::io::disk::readback::{Finding, ImageVerified, Known, LAG, Readback, zero_bytes};
use crate::io::disk::relocate;
use crate::io::disk::target::ImageStorage;
use crate::io::host::memory;
use crate::io::storage::ImageShape;
use crate::io::torrent::{Have, Session, Swarm, TorrentSpec};
use crate::layout::present::{Present, wanted};
use crate::manifest::Manifest;
use crate::metainfo::Metainfo;
use crate::units::{PieceIndex, Sha256, show_bytes};

/// How often it is looked whether the read-back is through.
const VERIFY_TICK: Duration = Duration::from_millis(50);
/// Rounds of fetching and reading back; the second is for pieces that arrived unchecked and wrong. It checks
/// every piece before the write, so one that reads back wrong then is the disk's fault, and the read-back
/// says so.
const ROUNDS: u32 = 2;

/// The input of a round of fetching and reading back.
struct Work<'a> {
    ctx: &'a ImagingContext,
    assignment: &'a Assignment,
    session: &'a Session,
    storage: Arc<ImageStorage>,
    torrent: Arc<Metainfo>,
    wanted: Bitfield,
    zeros_written: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    started: Instant,
    share: Share,
    image: Arc<Manifest>,
}

/// Brings the whole image onto the disk and proves it; the swarm keeps serving it.
pub(super) async fn write(
    ctx: &ImagingContext,
    assignment: &Assignment,
    ready: Ready,
    session: &Session,
    share: Share,
) -> Result<(Swarm, ImageVerified), Failure> {
    let Ready { image, storage, present, saved, afresh } = ready;
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    let _stop = StopOnDrop(move || stopped.store(true, Ordering::SeqCst));
    let work = Work {
        ctx,
        assignment,
        session,
        torrent: image.torrent,
        wanted: wanted(storage.plan(), storage.grid()),
        zeros_written: Arc::default(),
        stop,
        started: Instant::now(),
        share,
        image: image.trusted.shared(),
        storage,
    };
    let mut hashes = image.hashes;
    let Present { kept, moves, zeros } = present;
    let mut have = kept.clone();
    if !moves.is_empty() {
        work.move_pieces(moves, saved, hashes.clone().unwrap_or_default(), &mut have).await?;
    }
    work.discard(if afresh { Discard::All } else { Discard::Free }).await?;
    let mut known = Known { pieces: kept, zeros, writes: 0 };
    for _ in 0..ROUNDS {
        let (swarm, finding) = work.round(&mut hashes, have, known).await?;
        let wrong = match finding {
            Finding::Right(verified) => return Ok((swarm, verified)),
            Finding::Wrong(wrong) => wrong,
        };
        // Its disk threads may hang; the next swarm takes its place in the session in any case.
        let _ = tokio::time::timeout(ctx.bounds.end, swarm.stop()).await;
        ctx.status.note(format!("{} pieces came wrong; fetching them again", wrong.count()));
        ctx.status.stage(Stage::Fetch);
        have = work.wanted.without(&wrong);
        let all_zeros = u32::try_from(work.storage.zero_cells().count()).unwrap_or(u32::MAX);
        known =
            Known { pieces: have.clone(), zeros: Bitfield::all(all_zeros), writes: work.storage.written() };
    }
    let message = "pieces read back wrong that were right when they were written";
    Err(Failure::disk(message, "Replace the disk, or test the machine's memory."))
}

/// The swarm of an image of which `storage` has the pieces `have`. `hashes` are for pieces that the torrent's
/// own hashes do not check.
pub(super) fn torrent(
    ctx: &ImagingContext,
    assignment: &Assignment,
    meta: &Arc<Metainfo>,
    storage: &Arc<ImageStorage>,
    have: Bitfield,
    hashes: Option<Arc<Vec<Sha256>>>,
) -> TorrentSpec {
    let available = memory::available().unwrap_or(ctx.memory_limit);
    let wanted = wanted(storage.plan(), storage.grid());
    let id = storage.plan().manifest().id();
    let ticket = assignment.tasks().find(|task| task.id == id).and_then(|task| task.ticket.as_ref());
    TorrentSpec {
        meta: Arc::clone(meta),
        storage: Arc::clone(storage) as _,
        shape: Arc::new(ImageShape(Arc::clone(storage.grid()))),
        have: Have::Pieces(have),
        wanted: (!wanted.is_all()).then_some(wanted),
        trackers: vec![match &ticket {
            Some(ticket) => format!("{}/announce?t={ticket}", ctx.server),
            None => format!("{}/announce", ctx.server),
        }],
        verify: assignment.verify,
        hashes,
        // Each swarm of the attempt goes on serving, so they share the memory.
        memory: ctx.memory_limit.min(available / 2) / assignment.tasks().count() as u64,
    }
}

impl Work<'_> {
    /// Whether pieces may be wrong because they arrive unchecked.
    fn lenient(&self) -> bool {
        !self.assignment.verify || self.torrent.unhashed
    }

    /// Moves pieces on the disk; those that are in their places are added to `have`.
    async fn move_pieces(
        &self,
        moves: Vec<crate::layout::moves::Move>,
        saved: relocate::Saved,
        hashes: Vec<Sha256>,
        have: &mut Bitfield,
    ) -> Result<(), Failure> {
        let total = moves.len() as u64 * self.storage.grid().piece_length().bytes();
        self.ctx.status.note(format!("{} are on the disk elsewhere and are copied", show_bytes(total)));
        let (storage, stop) = (Arc::clone(&self.storage), Arc::clone(&self.stop));
        let there = on_disk(self.ctx, self.storage.disk().pulse(), move || {
            relocate::carry_out(&storage, moves, &saved, &hashes, &stop).map_err(|e| disk_failed(&e))
        })
        .await?;
        for piece in there.iter() {
            have.insert(piece);
        }
        Ok(())
    }

    /// Discards ranges of the disk.
    async fn discard(&self, what: Discard) -> Result<(), Failure> {
        let (storage, stop) = (Arc::clone(&self.storage), Arc::clone(&self.stop));
        let pulse = storage.disk().pulse();
        let work = move || Ok(discard(&storage, what, || !stop.load(Ordering::Relaxed)));
        let done = on_disk(self.ctx, pulse, work).await?;
        log::info!("{} were discarded", show_bytes(done));
        Ok(())
    }

    /// Fetches the pieces that are not in `have`, and reads back those that are not in `known`.
    async fn round(
        &self,
        hashes: &mut Option<Vec<Sha256>>,
        have: Bitfield,
        known: Known,
    ) -> Result<(Swarm, Finding), Failure> {
        let ctx = self.ctx;
        let again = known.writes > 0;
        let readback = match hashes {
            Some(hashes) => Some(self.read_back(hashes.clone(), known.clone(), !again && self.lenient())?),
            None => None,
        };
        let swarm = self.session.add(self.torrent_spec(have, again, hashes.as_deref()))?;
        let zeros_known = self.bytes_of_zeros(&known.zeros);
        self.zeros_written.store(zeros_known, Ordering::Relaxed);
        let meter = Meter {
            status: &ctx.status,
            swarm: &swarm,
            readback: Mutex::new(readback),
            zeros_written: Arc::clone(&self.zeros_written),
            zeros_total: zero_bytes(&self.storage),
            started: self.started,
            part: self.share,
            waiting: Mutex::default(),
            bound: ctx.bounds.piece,
        };
        let zeros = self.write_zeros(known.zeros.clone());
        let written = async {
            tokio::try_join!(swarm.complete(), zeros)?;
            if !meter.reads_back() {
                ctx.status.stage(Stage::Hashes);
            }
            Ok(())
        };
        // Pieces are checked and read back from the moment there are hashes to compare with.
        let hashed = async {
            if hashes.is_some() {
                return Ok(None);
            }
            let late = download::hashes(ctx, &self.image, self.storage.grid()).await?;
            swarm.check_by(Arc::new(late.clone()));
            meter.begin(self.read_back(late.clone(), known, self.lenient())?);
            Ok(Some(late))
        };
        let ((), late) = meter.during(async { tokio::try_join!(written, hashed) }).await?;
        if late.is_some() {
            *hashes = late;
        }
        ctx.status.stage(Stage::Verify);
        meter.all_written();
        let through = async {
            while !meter.is_through() {
                tokio::time::sleep(VERIFY_TICK).await;
            }
            Ok(())
        };
        self.with_the_disk(&meter, through).await?;
        let readback = meter.finish();
        let finding = blocking(move || match readback {
            Some(readback) => readback.finish(),
            None => Err(Failure::disk("nothing was read back", "Run the job again.")),
        });
        let finding = finding.await?;
        Ok((swarm, finding))
    }

    /// Waits for `work` while updating the progress, as long as pieces are missing or the disk completes
    /// requests.
    async fn with_the_disk<T>(
        &self,
        meter: &Meter<'_>,
        work: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        let done = || meter.disk_alone().map(|done| done + self.storage.written() as u64);
        within(self.ctx, self.storage.disk().name(), done, || meter.abandon(), meter.during(work)).await
    }

    fn torrent_spec(&self, have: Bitfield, again: bool, hashes: Option<&[Sha256]>) -> TorrentSpec {
        let hashes = hashes.filter(|_| self.torrent.unhashed).map(|hashes| Arc::new(hashes.to_vec()));
        let spec = torrent(self.ctx, self.assignment, &self.torrent, &self.storage, have, hashes);
        // After wrong pieces, all are checked on arrival.
        TorrentSpec { verify: spec.verify || again, ..spec }
    }

    fn read_back(&self, hashes: Vec<Sha256>, known: Known, lenient: bool) -> Result<Readback, Failure> {
        Readback::start(Arc::clone(&self.storage), hashes, known, LAG, lenient)
            .map_err(|e| Failure::retry(format!("starting the read-back: {e}"), "Restart the terminal."))
    }

    fn bytes_of_zeros(&self, which: &Bitfield) -> u64 {
        let cells = self.storage.zero_cells().filter(|(at, _): &(PieceIndex, _)| which.has(*at));
        cells.map(|(_, span)| u64::from(span.len)).sum()
    }

    /// Writes the zero cells that are not `known` to be zero, beside the swarm.
    async fn write_zeros(&self, known: Bitfield) -> Result<(), Failure> {
        let (storage, written, stop) =
            (Arc::clone(&self.storage), Arc::clone(&self.zeros_written), Arc::clone(&self.stop));
        blocking(move || {
            let go_on = |bytes| {
                written.fetch_add(bytes, Ordering::Relaxed);
                !stop.load(Ordering::Relaxed)
            };
            storage.write_zeros(&known, go_on).map_err(|e| disk_failed(&e))
        })
        .await
    }
}
