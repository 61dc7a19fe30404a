//! What carries out an assignment on the disk: the real one, and what tests put in its place.
//!
//! Invariant: only `imaging` touches disks; here it gets the server that was found.

use std::future::Future;

use crate::agent::imaging::{self, Checked, Committed, Imaged, ImagingContext, Next};
use crate::api::Assignment;
use crate::event::{Failure, Installed};
use crate::layout::personal::{OwnFile, Places, Told};

/// Carries out an assignment; tests use a simpler one.
pub trait Imager {
    /// The session that serves others afterwards.
    type Held: Held;
    /// Carries out `assignment` of the server at `server`. A failure comes with whether the disk was touched.
    fn run(
        &self,
        server: &str,
        assignment: &Assignment,
    ) -> impl Future<Output = Result<Self::Held, (Failure, bool)>>;
    /// Looks at the terminal as `assignment` would image it, and writes nothing.
    fn check(&self, server: &str, assignment: &Assignment) -> impl Future<Output = Result<Checked, Failure>>;
    /// Finds the disks of an attempt that was cut off after its images were on them.
    fn find(&self, _server: &str, _: &Assignment) -> impl Future<Output = Result<Committed, Failure>> {
        std::future::ready(Err(Failure::refused("it has no disk", "")))
    }
    /// Makes the system on `places` the terminal's own. `told` hears of each step. Whether a later run has
    /// nothing left to do.
    fn personalise(
        &self,
        _server: &str,
        _places: Places,
        _own: Option<OwnFile>,
        _told: impl AsyncFnMut(Told),
    ) -> impl Future<Output = bool> {
        std::future::ready(true)
    }
}

/// An image that is on the disk and still served to others.
pub trait Held {
    /// The images now on the disks.
    fn installed(&self) -> Vec<Installed>;
    /// The system that starts next.
    fn next(&self) -> Next;
    /// Where it lies.
    fn system(&self) -> Option<Places> {
        None
    }
    /// What was written to the further disks.
    fn also(&self) -> Vec<Places> {
        Vec::new()
    }
    /// Problems that do not spoil the image.
    fn warnings(&self) -> Vec<String>;
    /// Bytes received and sent.
    fn traffic(&self) -> (u64, u64);
    fn stop(self) -> impl Future<Output = ()>;
}

/// The real one: the context's server is replaced by the one that was found.
#[derive(Clone)]
pub(crate) struct RealImager(pub ImagingContext);

impl Imager for RealImager {
    type Held = Imaged;

    async fn run(&self, server: &str, assignment: &Assignment) -> Result<Imaged, (Failure, bool)> {
        let context = ImagingContext { server: server.to_owned(), ..self.0.clone() };
        imaging::run(context, assignment.clone()).await
    }

    async fn check(&self, server: &str, assignment: &Assignment) -> Result<Checked, Failure> {
        let context = ImagingContext { server: server.to_owned(), ..self.0.clone() };
        imaging::check(&context, assignment).await
    }

    async fn find(&self, server: &str, assignment: &Assignment) -> Result<Committed, Failure> {
        let context = ImagingContext { server: server.to_owned(), ..self.0.clone() };
        imaging::personal::find_committed(&context, assignment).await
    }

    async fn personalise(
        &self,
        _: &str,
        places: Places,
        own: Option<OwnFile>,
        told: impl AsyncFnMut(Told),
    ) -> bool {
        imaging::personal::make(&self.0, places, own, told).await
    }
}

impl Held for Imaged {
    fn installed(&self) -> Vec<Installed> {
        self.installed.clone()
    }

    fn next(&self) -> Next {
        self.next
    }

    fn system(&self) -> Option<Places> {
        self.system.clone()
    }

    fn also(&self) -> Vec<Places> {
        self.also.clone()
    }

    fn warnings(&self) -> Vec<String> {
        self.warnings.clone()
    }

    fn traffic(&self) -> (u64, u64) {
        Imaged::traffic(self)
    }

    async fn stop(self) {
        Imaged::stop(self).await;
    }
}
