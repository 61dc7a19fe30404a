//! One terminal as the server knows it, and its row on the page.
//!
//! Invariant: a plain value. `bounds` has cut its statements before; `jobs` decides its state.

use std::net::IpAddr;
use std::time::Duration;

use jiff::Timestamp;

use super::work::Netboot;
use crate::api::{
    AttemptView, DiskInfo, Inventory, Neighbour, StageView, TerminalDetails, TerminalState, TerminalView,
};
use crate::event::Chosen;
use crate::layout::known;
use crate::server::domain::attempt::Attempt;
use crate::server::domain::course::Course;
use crate::server::domain::identity::{Identity, Mac};
use crate::server::domain::jobs::{self, Job, Member};
use crate::server::domain::personal::Personal;
use crate::server::domain::registry::Place;
use crate::server::domain::registry::table::Entry;
use crate::server::domain::ties::Ties;

#[derive(Debug, Clone, PartialEq)]
pub struct Terminal {
    /// Its name in calls: the MAC or UUID under which it was first seen.
    pub id: String,
    /// Its MACs and UUID.
    pub identity: Identity,
    /// Those of its MACs that are certainly its own (see `cards`); the others are a mere claim of its hello.
    pub own_macs: Vec<Mac>,
    /// Its hardware.
    pub inventory: Inventory,
    /// The fixed disks that it ever had, until a person has accepted that some are gone.
    pub known_disks: Vec<DiskInfo>,
    /// The disks that rules chose on it, regardless of the outcomes.
    pub chosen: Vec<Chosen>,
    /// Version of its agent.
    pub agent: String,
    /// Last address it spoke from.
    pub address: Option<String>,
    /// When it was first heard; `None` if that was before the server kept it.
    pub first: Option<Duration>,
    /// When it was last heard; `None` for one that a person listed and that never spoke.
    pub heard: Option<Duration>,
    /// What people say of it.
    pub place: Place,
    /// A person has registered it, or the configuration lets terminals register themselves.
    pub accepted: bool,
    pub last: Option<Attempt>,
}

impl Terminal {
    /// One that a person lists before it has ever spoken.
    pub(super) fn registered(id: String, identity: Identity) -> Self {
        Terminal {
            id,
            own_macs: identity.macs.clone(),
            identity,
            inventory: Inventory::default(),
            known_disks: Vec::new(),
            chosen: Vec::new(),
            agent: String::new(),
            address: None,
            first: None,
            heard: None,
            place: Place::default(),
            accepted: true,
            last: None,
        }
    }

    /// The same after a person has listed it.
    pub(super) fn with(self, entry: &Entry) -> Self {
        Terminal { place: self.place.with(&entry.edit), accepted: true, ..self }
    }

    /// How long it has been silent; `None` if it never spoke.
    pub fn silent(&self, now: Duration) -> Option<Duration> {
        Some(now.saturating_sub(self.heard?))
    }

    /// A person has looked at the disks that it has now: from here on they are the ones that it should have,
    /// and rules may choose among them anew.
    pub(crate) fn accept_disks(&mut self) {
        self.known_disks = known::fixed(&self.inventory.disks).cloned().collect();
        self.chosen.clear();
    }

    /// Where it spoke from last.
    pub fn ip(&self) -> Option<IpAddr> {
        self.address.as_ref()?.parse().ok().map(|ip: IpAddr| ip.to_canonical())
    }

    /// The switch at the card it speaks from, or at another one where that is not known.
    pub fn neighbour(&self) -> Option<&Neighbour> {
        let nics = &self.inventory.nics;
        let speaks = |address: &String| self.address.as_deref() == address.split('/').next();
        let speaking = nics.iter().find(|nic| nic.address.as_ref().is_some_and(speaks));
        match speaking {
            Some(nic) => nic.neighbour.as_ref(),
            None => nics.iter().find_map(|nic| nic.neighbour.as_ref()),
        }
    }

    /// Its row on the page, with `notes` of how it is named.
    pub fn view(
        &self,
        label: Option<&str>,
        notes: Vec<String>,
        place: Option<(&Job, &Member)>,
        ties: &Ties,
        now: Duration,
    ) -> TerminalView {
        let last = self.last.as_ref();
        let state = jobs::state(last, place, now);
        let begins = matches!(state, TerminalState::Waiting | TerminalState::Planned);
        let image = match place {
            Some((job, _)) if begins => Some(job.terms.title()),
            _ => last.map(Attempt::title),
        };
        let current = last.filter(|_| !begins);
        TerminalView {
            id: self.id.clone(),
            label: label.map(Into::into),
            notes,
            macs: self.identity.macs.iter().map(ToString::to_string).collect(),
            uuid: self.identity.uuid.map(|uuid| uuid.to_string()),
            address: self.address.clone(),
            machine: self.inventory.machine.clone(),
            state,
            image,
            progress: current.and_then(|a| a.progress.clone()),
            outcome: last.and_then(|a| a.outcome.clone()),
            job: place.map(|(job, _)| job.number),
            reason: place.map(|(_, member)| member.reason.clone()).filter(|reason| !reason.is_empty()),
            system: current.and_then(Attempt::system),
            capture: None,
            silent: self.silent(now).map(|silent| silent.as_secs()),
            new: !self.accepted,
            room: self.place.room.clone(),
            seat: self.place.seat.clone(),
            groups: self.place.groups.clone(),
            hostname: self.place.hostname.clone(),
            zone: ties.zone(self.ip()),
            gateway: self.ip().is_some_and(|ip| ties.gateways.contains(&ip)),
            switch: self.neighbour().map(|switch| {
                let name = switch.name.as_ref().unwrap_or(&switch.chassis);
                format!("{name}, port {}", switch.port)
            }),
        }
    }

    /// All that is known of it, with its `row` and its last network boot.
    pub(crate) fn details(&self, row: TerminalView, netboot: Option<&Netboot>) -> TerminalDetails {
        let last = self.last.as_ref();
        let claimed = self.identity.macs.iter().filter(|mac| !self.own_macs.contains(mac));
        TerminalDetails {
            row,
            agent: self.agent.clone(),
            first_heard: self.first.map(date),
            last_heard: self.heard.map(date),
            netbooted: netboot.map(|boot| format!("{} from {}{}", date(boot.at), boot.from, boot.told)),
            claimed_macs: claimed.map(ToString::to_string).collect(),
            inventory: self.inventory.clone(),
            missing_disks: known::missing(&self.known_disks, &self.inventory.disks)
                .into_iter()
                .cloned()
                .collect(),
            installed: last.map(Attempt::leaves_installed).unwrap_or_default(),
            half_written: last.is_some_and(Attempt::leaves_half_a_system),
            attempt: last.map(|attempt| AttemptView {
                number: attempt.number,
                job: attempt.job.clone(),
                images: attempt.title(),
                started: date(attempt.started),
                heard: date(attempt.heard),
                ended: attempt.ended.map(date),
                tries: attempt.tries,
                cancelled: attempt.cancelled,
                personal: attempt.personal.as_ref().map(Personal::view),
                stages: stages(&attempt.course, attempt.heard),
            }),
        }
    }
}

/// The stages of an attempt that was last heard at `heard`.
pub(crate) fn stages(course: &Course, heard: Duration) -> Vec<StageView> {
    let view = |(stage, began, took): (_, _, Duration)| StageView {
        stage,
        began: date(began),
        seconds: took.as_secs(),
    };
    course.stages(heard).map(view).collect()
}

/// A time of the server's clock as people write it.
pub(crate) fn date(since_1970: Duration) -> String {
    let seconds = i64::try_from(since_1970.as_secs()).unwrap_or(i64::MAX);
    Timestamp::from_second(seconds).unwrap_or(Timestamp::MAX).to_string()
}
