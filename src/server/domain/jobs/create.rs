//! A new job: what a person ordered, checked against the lab as it is now.
//!
//! Invariant: pure. What cannot work is refused, and what may go wrong at night is found and said, when the
//! job is created. Nothing is changed here.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};

use super::forecast::bytes_of;
use super::setting::Setting;
use super::{
    Job, JobOrder, JobPlan, Kind, Moment, Order, Pace, Phase, Placement, Run, Standing, Terms, findings, job,
    names,
};
use crate::api::{After, LayoutMode, Refusal, check_partitions};
use crate::image_id::ImageRef;
use crate::layout::rule::Rule;
use crate::server::domain::catalog::{Catalog, Published, Signature};
use crate::server::domain::registry::hostname::HostnameRule;
use crate::server::domain::target::each_once;
use crate::server::domain::targets::shortened;
use crate::server::domain::times::{self, Closing, Every};

/// Attempts that a terminal makes without a person.
const ATTEMPTS: u32 = 3;

/// A window without an end ends after one night, so that no terminal is imaged days later by surprise.
const NIGHT: SignedDuration = SignedDuration::from_hours(12);

/// The largest limit, in Mbit/s, as of a zone.
const MOST_MBIT: u32 = 1_000_000;

/// A job that was checked and is not in force.
#[derive(Debug)]
pub(crate) struct Drafted {
    pub(crate) job: Job,
    pub(crate) terminals: BTreeSet<String>,
    pub(crate) plan: JobPlan,
}

fn refused(error: impl Into<String>, advice: &str) -> Refusal {
    Refusal { error: error.into(), advice: advice.into() }
}

/// Opening, end and calendar of a job.
#[derive(Debug)]
pub(crate) struct Window {
    opens: Timestamp,
    closes: Timestamp,
    standing: Option<Standing>,
    next: Option<Timestamp>,
}

impl JobOrder {
    /// Checks the order. `terminals` are the ones that its targets mean, `by` is the person.
    pub(crate) fn draft(
        &self,
        by: &str,
        terminals: BTreeSet<String>,
        place: &Setting<'_>,
    ) -> Result<Drafted, Refusal> {
        let terms = self.terms(place.catalog)?;
        let names = names::of(terms.hostname.as_ref(), &terminals, place.lab, place.label, place.dns)?;
        let window = self.window(place.at)?;
        let attempts = self.attempts.unwrap_or(ATTEMPTS);
        if !(1..=100).contains(&attempts) || self.wave == Some(0) {
            return Err(refused("--attempts must be 1 to 100, and --wave 1 or more", "Correct the command."));
        }
        let number = place.lab.jobs().next_number();
        for id in &terminals {
            let kind = Kind { standing: window.standing.is_some(), preflight: self.preflight };
            place.lab.jobs().free_for(id, number, kind).map_err(|Refusal { error, advice }| {
                let label = place.lab.get(id).and_then(place.label);
                Refusal {
                    error: label.map_or_else(|| error.clone(), |label| error.replace(id, &label)),
                    advice,
                }
            })?;
        }
        let (needs, all) = self.forecast(&terms, &terminals, place);
        let pace = Pace { attempts, wave: self.wave, wake: self.wake, overrun: self.overrun };
        let run = Run { number: 1, opens: window.opens, closes: window.closes, phase: Phase::Planned };
        let job = Job {
            number,
            created: place.at.date.timestamp(),
            by: by.into(),
            note: self.note.chars().take(500).collect(),
            targets: shortened(&self.targets),
            bytes: bytes_of(&terms, place.catalog),
            terms,
            pace,
            needs: needs.as_secs(),
            standing: window.standing,
            run,
            next: window.next,
            cancelled: false,
        };
        let plan = findings::plan(&job, &terminals, all, (place, &names));
        Ok(Drafted { job, terminals, plan })
    }

    fn terms(&self, catalog: &Catalog) -> Result<Terms, Refusal> {
        let first = Order {
            image: self.image.clone(),
            disk: self.disk.clone().unwrap_or_else(|| "internal".into()),
            layout: self.layout,
            partitions: self.partitions.clone(),
        };
        let images = std::iter::once(&first).chain(&self.also).map(|order| order.placement(catalog));
        let longest_stay = self.longest_stay.unwrap_or(job::LONGEST_STAY);
        if longest_stay > 24 * 3600 {
            return Err(refused("a longest stay of more than a day", "Give a shorter one."));
        }
        self.check_limit()?;
        let terms = Terms {
            images: images.collect::<Result<_, _>>()?,
            compare: self.compare,
            after: self.after,
            verify: self.verify.unwrap_or(true),
            longest_stay,
            limit_mbit: self.limit_mbit,
            preflight: self.preflight,
            hostname: self.hostname_rule()?,
            as_is: self.as_is,
        };
        if self.preflight && self.after != After::Reboot {
            return Err(refused(
                "a preflight boots back to the system that is on the disk",
                "Leave out --after, or --preflight.",
            ));
        }
        each_once(&terms).map_err(|error| refused(error, "Name each image once."))?;
        Ok(terms)
    }

    fn check_limit(&self) -> Result<(), Refusal> {
        let Some(limit) = self.limit_mbit else { return Ok(()) };
        if self.preflight {
            let advice = "Leave out --limit-mbit, or --preflight.";
            return Err(refused("a preflight fetches no image, so there is nothing to limit", advice));
        }
        if !(1..=MOST_MBIT).contains(&limit) {
            let advice = "Give the Mbit/s of each terminal's link that the job may use, for example 200.";
            return Err(refused(format!("--limit-mbit must be 1 to {MOST_MBIT}"), advice));
        }
        Ok(())
    }

    pub(crate) fn hostname_rule(&self) -> Result<Option<HostnameRule>, Refusal> {
        let Some(text) = &self.hostname else { return Ok(None) };
        if self.as_is || self.preflight {
            return Err(refused(
                "--hostname changes the system, which --as-is and --preflight leave as it is",
                "Leave one of them out.",
            ));
        }
        let rule =
            text.parse().map_err(|why| refused(why, "For example --hostname {room}-{seat:02}, or csv."));
        rule.map(Some)
    }

    fn window(&self, at: &Moment) -> Result<Window, Refusal> {
        let advice = "Times are the server's local ones: now, +2h, 22:00, tomorrow 22:00, 2026-12-01 22:00.";
        let wrong = |why: String| refused(why, advice);
        let Some(every) = &self.every else {
            if self.follow {
                return Err(refused(
                    "--follow is for jobs with --every: a job fixes its version when it is created",
                    "Leave it out, or make a standing job.",
                ));
            }
            let opening = times::at(self.at.as_deref().unwrap_or("now"), &at.date).map_err(wrong)?;
            let opens = opening.moment.timestamp();
            let closes = match &self.until {
                Some(text) => times::until(text, &opening).map_err(wrong)?,
                None => opens.checked_add(NIGHT).unwrap_or(Timestamp::MAX),
            };
            if closes <= at.date.timestamp() {
                return Err(wrong("the window ends before now".into()));
            }
            return Ok(Window { opens, closes, standing: None, next: None });
        };
        if self.at.is_some() {
            return Err(refused(
                "--every and --at exclude each other",
                "Leave --at out: --every has the time.",
            ));
        }
        let every: Every = every.parse().map_err(wrong)?;
        let Some(until) = &self.until else {
            let why = "a standing job needs the end of its window";
            return Err(refused(why, "Add for example --until 06:00, or --until +8h."));
        };
        let closing: Closing = until.parse().map_err(wrong)?;
        let standing = Standing { every, closing, follow: self.follow };
        let opens = standing.every.next(&at.date);
        let (closes, next) = Job::window(&standing, &opens);
        Ok(Window { opens: opens.timestamp(), closes, standing: Some(standing), next: Some(next) })
    }
}

impl Order {
    fn placement(&self, catalog: &Catalog) -> Result<Placement, Refusal> {
        let image: ImageRef = self.image.parse().map_err(|e: crate::image_id::NotAnImage| {
            refused(e.to_string(), "For example debian or debian@2.")
        })?;
        let published = catalog.resolve(&image)?;
        trusted(published, catalog)?;
        let advice = "docs/disks.md lists the rules for disks.";
        self.disk.parse::<Rule>().map_err(|e| refused(e, advice))?;
        let partitions = self.partitions.as_deref().map_or(Ok(()), check_partitions);
        partitions.map_err(|e| refused(e, "For example --partitions 1,3."))?;
        let some = self.partitions.as_deref().unwrap_or_default();
        let choice = published.demands.check_choice(&published.id(), some);
        choice.map_err(|failure| Refusal { error: failure.message, advice: failure.advice })?;
        let (layout, partitions) = match &self.partitions {
            Some(some) => (LayoutMode::Keep, Some(some.clone())),
            None => (self.layout, None),
        };
        Ok(Placement { id: published.id(), disk: self.disk.clone(), layout, partitions })
    }
}

/// No terminal writes an image that a configured key did not sign.
fn trusted(image: &Published, catalog: &Catalog) -> Result<(), Refusal> {
    if !catalog.judged || image.signature == Signature::Good {
        return Ok(());
    }
    let error = format!("image {} is not signed by one of the configured keys", image.id());
    Err(refused(error, "Sign it with 'flashmob-mkimage sign', or correct the file of public keys."))
}
