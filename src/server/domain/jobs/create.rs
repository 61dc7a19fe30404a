//! A new job: what a person ordered, checked against the lab as it is now.
//!
//! Invariant: pure. What cannot work is refused, and what may go wrong at night is found and said, when the
//! job is created. Nothing is changed here.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::names::{self, Names};
use super::{DnsNames, Job, Kind, Moment, Overrun, Pace, Phase, Placement, Run, Standing, Terms, job};
use crate::api::{After, Compare, LayoutMode, Refusal, check_partitions, payload_rate};
use crate::forecast::plan::Plan;
use crate::image_id::{ImageId, ImageRef};
use crate::layout::rule::Rule;
use crate::server::domain::catalog::{Catalog, Published, Signature};
use crate::server::domain::lab::{Lab, Terminal};
use crate::server::domain::registry::hostname::HostnameRule;
use crate::server::domain::target::each_once;
use crate::server::domain::targets::shortened;
use crate::server::domain::times::{self, Closing, Every};

/// Attempts that a terminal makes without a person.
const ATTEMPTS: u32 = 3;
/// A window without an end ends after one night, so that no terminal is imaged days later by surprise.
const NIGHT: SignedDuration = SignedDuration::from_hours(12);
/// A link whose speed is not known, in Mbit/s.
const LINK: u32 = 1000;
/// The largest limit, in Mbit/s, as of a zone.
const MOST_MBIT: u32 = 1_000_000;
/// What a disk writes and reads, in bytes a second, in forecasts.
const DISK: f64 = 250e6;
/// Firmware, netboot and the restart at the end.
const STARTING: Duration = Duration::from_secs(120);
/// What a preflight takes: the image's description, and a sample of the disk's speed.
const LOOKING: Duration = Duration::from_secs(30);

/// What a person orders: the body of `POST /api/v1/jobs`. Times are words, because the server's time zone
/// counts.
#[derive(utoipa::ToSchema, Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JobOrder {
    /// `NAME` or `NAME@VERSION`.
    pub image: String,
    /// Labels, MACs, `uuid:…`, `room:…`, `group:…`, `zone:…`, `new`, `all`.
    pub targets: Vec<String>,
    #[serde(default)]
    pub at: Option<String>,
    #[serde(default)]
    pub until: Option<String>,
    #[serde(default)]
    pub every: Option<String>,
    #[serde(default)]
    pub follow: bool,
    #[serde(default)]
    pub wake: bool,
    #[serde(default)]
    pub wave: Option<u32>,
    #[serde(default)]
    pub attempts: Option<u32>,
    #[serde(default)]
    pub overrun: Overrun,
    #[serde(default)]
    pub disk: Option<String>,
    #[serde(default)]
    pub layout: LayoutMode,
    #[serde(default)]
    pub partitions: Option<Vec<u32>>,
    #[serde(default)]
    pub also: Vec<Order>,
    #[serde(default)]
    pub compare: Compare,
    #[serde(default)]
    pub after: After,
    /// Whether pieces are checked as they arrive; yes if it is left out.
    #[serde(default)]
    pub verify: Option<bool>,
    /// Longest stay in the swarm, seconds.
    #[serde(default)]
    pub longest_stay: Option<u64>,
    /// What each terminal may use of its link, each way, in Mbit/s; left out: all of it.
    #[serde(default)]
    pub limit_mbit: Option<u32>,
    /// Write nothing: look at the terminals, report, and boot back.
    #[serde(default)]
    pub preflight: bool,
    /// How the terminals get their host names: `csv`, or a pattern such as `{room}-{seat:02}`.
    #[serde(default)]
    pub hostname: Option<String>,
    /// Leave the image as it was captured.
    #[serde(default)]
    pub as_is: bool,
    #[serde(default)]
    pub note: String,
    /// Only say what would happen.
    #[serde(default)]
    pub dry_run: bool,
}

/// A further image for a further disk.
#[derive(utoipa::ToSchema, Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Order {
    pub image: String,
    /// Which disk: never left to chance.
    pub disk: String,
    #[serde(default)]
    pub layout: LayoutMode,
    #[serde(default)]
    pub partitions: Option<Vec<u32>>,
}

/// Something that a person should know before the night.
#[derive(utoipa::ToSchema, Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// The terminal, by label or name; none if it is the job.
    pub terminal: Option<String>,
    pub error: String,
    pub advice: String,
}

/// A terminal that a job is for.
#[derive(utoipa::ToSchema, Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Affected {
    pub id: String,
    pub label: Option<String>,
    /// What is lost on its disk, for people.
    pub loses: String,
    /// The host name that it gets.
    #[serde(default)]
    pub hostname: Option<String>,
    /// The administrator's files that its system gets.
    #[serde(default)]
    pub files: Vec<String>,
}

/// A checked order: what will happen, and what to look at before.
#[derive(utoipa::ToSchema, Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JobPlan {
    /// `None` if nothing was created.
    pub number: Option<u64>,
    /// `name@version` of each image.
    pub images: String,
    /// The terminals are only looked at.
    #[serde(default)]
    pub preflight: bool,
    #[schema(value_type = String, format = DateTime)]
    pub opens: Timestamp,
    #[schema(value_type = String, format = DateTime)]
    pub closes: Timestamp,
    /// In the server's time zone, for people.
    pub window: String,
    /// The forecast for one terminal, seconds.
    pub needs: u64,
    /// The forecast for all of them, seconds.
    pub all: u64,
    pub terminals: Vec<Affected>,
    pub findings: Vec<Finding>,
}

/// A job that was checked and is not in force.
#[derive(Debug)]
pub(crate) struct Drafted {
    pub(crate) job: Job,
    pub(crate) terminals: BTreeSet<String>,
    pub(crate) plan: JobPlan,
}

/// The server as a new job meets it.
pub(crate) struct Setting<'a> {
    pub(crate) lab: &'a Lab,
    pub(crate) catalog: &'a Catalog,
    pub(crate) at: &'a Moment,
    /// A terminal's label.
    pub(crate) label: &'a dyn Fn(&Terminal) -> Option<String>,
    /// What DNS knows of the terminals' addresses, if the order needs that.
    pub(crate) dns: &'a DnsNames,
    /// Are there netboot files?
    pub(crate) can_netboot: bool,
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
            place.lab.jobs().free_for(id, number, kind)?;
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
        let plan = plan(&job, &terminals, all, (place, &names));
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
            let opens = self.at.as_deref().map_or(Ok(at.date.timestamp()), |text| times::at(text, &at.date));
            let opens = opens.map_err(wrong)?;
            let zoned = opens.to_zoned(at.date.time_zone().clone());
            let closes = match &self.until {
                Some(text) => times::until(text, &zoned).map_err(wrong)?,
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

    /// The forecast for one terminal among those of its wave, and for all.
    fn forecast(
        &self,
        terms: &Terms,
        terminals: &BTreeSet<String>,
        place: &Setting<'_>,
    ) -> (Duration, Duration) {
        let image = bytes_of(terms, place.catalog);
        let known = terminals.iter().filter_map(|id| place.lab.get(id));
        let slowest = known.filter_map(speed).min().unwrap_or(LINK);
        let wave = self.wave.map_or(terminals.len(), |wave| usize::try_from(wave).unwrap_or(usize::MAX));
        let together = wave.min(terminals.len()).max(1);
        let link = u64::from(slowest) * 125_000;
        let limited = self.limit_mbit.map_or(link, |limit| payload_rate(limit).min(link));
        let (link, rate) = (link as f64, limited as f64);
        let plan = Plan {
            zones: vec![together],
            rate,
            server_rate: link,
            uplink: link,
            disk: DISK,
            image,
            piece_length: 4 << 20,
            arrive_over: Duration::ZERO,
            slow: 0,
            links: 2,
            seed: 1,
        };
        let proof = Duration::from_secs_f64(image as f64 / DISK);
        let one = match self.preflight {
            true => STARTING + LOOKING,
            false => plan.bound().0.mul_f64(1.1) + proof + STARTING,
        };
        let waves = u32::try_from(terminals.len().div_ceil(together)).unwrap_or(u32::MAX);
        (one, one.saturating_mul(waves.max(1)))
    }
}

/// Bytes of all images.
fn bytes_of(terms: &Terms, catalog: &Catalog) -> u64 {
    let bytes = |id: &ImageId| catalog.resolve(&id.clone().into()).map_or(0, |found| found.bytes);
    terms.ids().map(bytes).sum::<u64>().max(1)
}

/// The speed of the card that a terminal speaks through, in Mbit/s.
fn speed(terminal: &Terminal) -> Option<u32> {
    terminal.inventory.nics.iter().filter(|nic| nic.link).filter_map(|nic| nic.speed).max()
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

fn plan(
    job: &Job,
    terminals: &BTreeSet<String>,
    all: Duration,
    (place, names): (&Setting<'_>, &Names),
) -> JobPlan {
    let zone = place.at.date.time_zone();
    let local = |time: Timestamp| time.to_zoned(zone.clone()).strftime("%a %Y-%m-%d %H:%M").to_string();
    let mut findings = of_the_job(job, all, place);
    findings.extend(names::too_long(names).map(|error| Finding {
        terminal: None,
        error,
        advice: "Linux takes them. Windows does not: choose a shorter rule for it.".into(),
    }));
    let mut affected = Vec::new();
    for terminal in terminals.iter().filter_map(|id| place.lab.get(id)) {
        let label = (place.label)(terminal);
        let name = label.clone().unwrap_or_else(|| terminal.id.clone());
        findings.extend(of_terminal(job, terminal, &name, place));
        let hostname = names.get(&terminal.id).cloned();
        if hostname.is_none() && job.terms.hostname.is_some() {
            findings.push(Finding {
                terminal: Some(name.clone()),
                error: "its address is not known, so DNS cannot be asked for its name yet".into(),
                advice: "It is asked when the terminal comes. Without a name there it is not imaged.".into(),
            });
        }
        let (id, loses) = (terminal.id.clone(), loses(job, terminal));
        affected.push(Affected { id, label, loses, hostname, files: Vec::new() });
    }
    JobPlan {
        number: None,
        images: job.terms.title(),
        preflight: job.terms.preflight,
        opens: job.run.opens,
        closes: job.run.closes,
        window: format!("{} to {}", local(job.run.opens), local(job.run.closes)),
        needs: job.needs,
        all: all.as_secs(),
        terminals: affected,
        findings,
    }
}

fn of_the_job(job: &Job, all: Duration, place: &Setting<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut found = |error: String, advice: &str| {
        findings.push(Finding { terminal: None, error, advice: advice.into() });
    };
    if !place.can_netboot {
        found(
            "there are no netboot files to send to terminals".into(),
            "Make them with flashmob-initramfs and name their folder with --boot.",
        );
    }
    for id in job.terms.ids() {
        let signature = place.catalog.resolve(&id.clone().into()).map(|image| image.signature.clone());
        match signature {
            Ok(Signature::Missing) => found(
                format!("image {id} is not signed, and terminals refuse it"),
                "Sign it with 'flashmob-mkimage sign' before the job opens.",
            ),
            Ok(Signature::Unjudged) => found(
                format!("this server has no public keys, so it cannot judge the signature of {id}"),
                "Name the file of public keys with keys in the configuration, or with --keys.",
            ),
            _ => {}
        }
    }
    let window = job.run.closes.duration_since(job.run.opens).as_secs();
    let (all, needs) = (all.as_secs(), job.needs);
    if i64::try_from(needs).unwrap_or(i64::MAX) > window {
        found(
            format!("the window has {} min, and one terminal needs about {} min", window / 60, needs / 60),
            "Give a later --until: nobody begins when the rest of the window is too short.",
        );
    } else if i64::try_from(all).unwrap_or(i64::MAX) > window {
        found(
            format!("the window has {} min, and all terminals need about {} min", window / 60, all / 60),
            "Give a later --until or a larger --wave: the last terminals will miss the window.",
        );
    }
    findings
}

fn of_terminal(job: &Job, terminal: &Terminal, name: &str, place: &Setting<'_>) -> Vec<Finding> {
    let found = |error: String, advice: String| Finding { terminal: Some(name.into()), error, advice };
    let mut findings = Vec::new();
    if let Some(capture) = place.lab.captures.of(&terminal.id, place.at.now) {
        findings.push(found(
            format!("it is captured as {}", capture.request.image),
            "It begins when 'flashmob capture' has ended, within the window.".into(),
        ));
    }
    if terminal.inventory.disks.is_empty() {
        let advice = "Its disks are looked at when it comes; --preflight of a night before shows them.";
        findings.push(found("its disks are not known: it was never seen".into(), advice.into()));
        return findings;
    }
    for image in &job.terms.images {
        let needed = place.catalog.resolve(&image.id.clone().into()).map_or(0, |found| found.bytes);
        let Ok(rule) = image.disk.parse::<Rule>() else { continue };
        if let Err(failure) = rule.choose(&terminal.inventory.disks, needed) {
            findings.push(found(failure.message, failure.advice));
        }
    }
    if let Some((other, _)) = place.lab.jobs().of(&terminal.id).find(|(_, member)| !member.state.is_final()) {
        findings.push(found(
            format!("job {} is for it as well", other.number),
            "The single job goes first, and the standing one images it again at its next run.".into(),
        ));
    }
    findings
}

/// What a job takes from a terminal's disk, for people.
fn loses(job: &Job, terminal: &Terminal) -> String {
    if job.terms.preflight {
        return "nothing: it is only looked at".into();
    }
    let installed = terminal.last.as_ref().map(|last| last.leaves_installed()).unwrap_or_default();
    let of = |image: &Placement| {
        let disk = image.disk.parse::<Rule>().ok();
        let disk = disk.and_then(|rule| rule.choose(&terminal.inventory.disks, 0).ok());
        let what = match &image.partitions {
            Some(some) => {
                let numbers: Vec<String> = some.iter().map(ToString::to_string).collect();
                format!("partitions {} of ", numbers.join(", "))
            }
            None => String::new(),
        };
        match disk {
            None => format!("{what}the disk that fits '{}'", image.disk),
            Some(disk) => {
                let had = installed.iter().find(|one| one.disk == disk.name);
                let had = had.map_or_else(|| "what is on it".into(), |one| one.id.to_string());
                format!("{what}{}: {had}", crate::layout::rule::describe(disk))
            }
        }
    };
    job.terms.images.iter().map(of).collect::<Vec<_>>().join("; ")
}
