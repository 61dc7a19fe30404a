//! Plans a distribution: an administrator's lab → a model that can be run → a forecast.
//!
//! An image has too many pieces to run them all through a model, so some hundreds or thousands of model
//! pieces stand for them, and the model's time goes faster than the lab's in the same measure. A model piece
//! takes 42 ms on a terminal's link, about as long as 4 MiB at 1 Gbit/s, so agreeing on a piece costs as much
//! as there. But the losses at the start and the end, some pieces' time each, weigh more among few pieces
//! than among many. So plans are a little pessimistic. Invariant: a [`Plan`] that passed
//! [`check`](Plan::check) makes a model that fits in memory; equal plans give equal results.

use std::time::Duration;

use crate::sim::{Lab, LabSpec, NodeSpec, Zones};
use crate::tracker::{Topology, Zone};
use crate::units::BLOCK_LEN;

/// Model pieces that stand for the image: at least (if it has that many) and at most.
const MODEL_PIECES: (u64, u64) = (256, 2048);
/// Between these, the total of model pieces at all terminals: about half a minute of one processor.
const MODEL_WORK: u64 = 120_000;
/// Blocks of a model piece.
const MODEL_BLOCKS: u32 = 32;
/// Bytes a second of a terminal's link in the model: then its round trips are short beside its pieces.
const MODEL_RATE: f64 = 12_500_000.0;
const MOST_TERMINALS: usize = 2000;
const MOST_ZONES: usize = 200;

/// A lab and an image.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// Terminals of each zone; one number for a lab without zones.
    pub zones: Vec<usize>,
    /// Bytes a second of a terminal's link, each way.
    pub rate: f64,
    /// Bytes a second of the server's link.
    pub server_rate: f64,
    /// Bytes a second through the uplink of each zone, each way.
    pub uplink: f64,
    /// Bytes a second that a terminal's disk writes.
    pub disk: f64,
    /// Bytes of the payload.
    pub image: u64,
    /// Bytes of a piece.
    pub piece_length: u64,
    /// Terminals are switched on one after another over this time.
    pub arrive_over: Duration,
    /// So many terminals have a tenth of the link.
    pub slow: usize,
    /// Gateways of each zone at a time.
    pub links: usize,
    /// Seed of all random choices.
    pub seed: u64,
}

/// One terminal's progress.
#[derive(Debug, Clone, PartialEq)]
pub struct Course {
    /// Its zone, counted from 1; 0 in a lab without zones.
    pub zone: u8,
    /// When it was switched on.
    pub arrived: Duration,
    /// When it had everything.
    pub finished: Duration,
    /// The part it had, at [`Forecast::step`] after [`Forecast::step`].
    pub progress: Vec<f32>,
}

/// The result of a plan, in the lab's time.
#[derive(Debug, Clone, PartialEq)]
pub struct Forecast {
    /// When the last terminal had everything.
    pub makespan: Duration,
    /// When half of the terminals had all pieces.
    pub median: Duration,
    /// No scheme is faster on links that are all like a terminal's (docs/bench.md).
    pub yardstick: Duration,
    /// No scheme is faster on these links.
    pub bound: Duration,
    /// The part of the lab that determines `bound`.
    pub bottleneck: Bottleneck,
    /// Bytes that the server sends, relative to the payload.
    pub seeder: f64,
    /// Bytes that enter through each zone's uplink, relative to the payload.
    pub uplinks: Vec<f64>,
    /// Pieces of the image that one model piece stands for.
    pub stands_for: u64,
    /// Time between two points of a course.
    pub step: Duration,
    pub courses: Vec<Course>,
}

/// The part that limits a lab.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bottleneck {
    /// The terminals' own links.
    Terminals,
    Server,
    Uplinks,
    Disks,
    /// The time over which the terminals are switched on.
    Arrival,
}

impl std::fmt::Display for Bottleneck {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Bottleneck::Terminals => "the terminals' links",
            Bottleneck::Server => "the server's link",
            Bottleneck::Uplinks => "the uplinks of the zones",
            Bottleneck::Disks => "the terminals' disks",
            Bottleneck::Arrival => "the time over which the terminals arrive",
        })
    }
}

impl Plan {
    /// Checks the plan; errors are for people.
    pub fn check(&self) -> Result<(), String> {
        let terminals: usize = self.zones.iter().sum();
        if terminals == 0 || self.zones.contains(&0) {
            return Err("a lab needs terminals, in every zone".into());
        }
        if terminals > MOST_TERMINALS || self.zones.len() > MOST_ZONES {
            return Err(format!("at most {MOST_TERMINALS} terminals in {MOST_ZONES} zones can be planned"));
        }
        let rates = [self.rate, self.server_rate, self.uplink, self.disk];
        if !rates.iter().all(|rate| (1e4..=1e12).contains(rate)) {
            return Err("rates must be between 80 kbit/s and 8 Tbit/s".into());
        }
        if self.image == 0 || self.image > 1 << 50 || self.piece_length == 0 {
            return Err("the image must have between 1 byte and 1 PiB".into());
        }
        if self.slow >= terminals {
            return Err("fewer terminals must be slow than there are".into());
        }
        if !(1..=64).contains(&self.links) {
            return Err("a zone has 1 to 64 gateways".into());
        }
        Ok(())
    }

    fn terminals(&self) -> usize {
        self.zones.iter().sum()
    }

    /// How many model pieces there are.
    fn model_pieces(&self) -> u64 {
        let (least, most) = MODEL_PIECES;
        let affordable = (MODEL_WORK / (self.terminals() as u64).max(1)).clamp(least, most);
        self.image.div_ceil(self.piece_length).clamp(1, affordable)
    }

    /// Seconds of the lab in one of the model.
    fn time_scale(&self) -> f64 {
        let model = self.model_pieces() as f64 * f64::from(MODEL_BLOCKS * BLOCK_LEN) / MODEL_RATE;
        self.image as f64 / self.rate / model
    }

    /// The lab's rate as the model's.
    fn model_rate(&self, rate: f64) -> u64 {
        whole(rate / self.rate * MODEL_RATE).max(1)
    }

    fn model(&self) -> LabSpec {
        let pieces = u32::try_from(self.model_pieces()).unwrap_or(u32::MAX);
        let mut spec =
            LabSpec::new(self.terminals(), pieces, MODEL_BLOCKS * BLOCK_LEN, self.seed).scaled_down();
        spec.nodes[0].rate = self.model_rate(self.server_rate);
        let mut number = 0;
        let all = self.terminals();
        for (zone, each) in (1u8..).zip(&self.zones) {
            for _ in 0..*each {
                number += 1;
                // Slow ones are spread over the lab.
                let slow = number * self.slow / all != (number - 1) * self.slow / all;
                let rate = if slow { self.rate / 10.0 } else { self.rate };
                let after =
                    self.arrive_over.as_secs_f64() * (number - 1) as f64 / all as f64 / self.time_scale();
                spec.nodes[number] = NodeSpec {
                    rate: self.model_rate(rate),
                    disk: self.model_rate(self.disk),
                    buffers: 16,
                    zone: if self.zones.len() > 1 { zone } else { 0 },
                    arrives: Duration::from_secs_f64(after),
                    ..NodeSpec::terminal()
                };
            }
        }
        let time_scale = u32::try_from(whole(self.time_scale().clamp(1.0, 30.0))).unwrap_or(1);
        let topology = Topology { zones: self.topology(), ..Topology::default() };
        spec.zones = Some(Zones { uplink: self.model_rate(self.uplink), topology, time_scale });
        spec
    }

    fn topology(&self) -> Vec<Zone> {
        if self.zones.len() < 2 {
            return Vec::new();
        }
        let zone = |number: u8| {
            let networks = vec![ipnet::Ipv4Net::new_assert([10, number, 0, 0].into(), 16).into()];
            Zone { links: self.links, ..Zone::new(number.to_string(), networks) }
        };
        (1u8..).zip(&self.zones).map(|(number, _)| zone(number)).collect()
    }

    /// The least time of any scheme on these links, and the part that determines it: each link must carry the
    /// payload once, and the last piece then passes ⌈log2(N+1)⌉ - 1 others (Mundinger, Weber, Weiss 2008).
    pub fn bound(&self) -> (Duration, Bottleneck) {
        let links = [
            (self.rate, Bottleneck::Terminals),
            (self.server_rate, Bottleneck::Server),
            (self.disk, Bottleneck::Disks),
            (if self.zones.len() > 1 { self.uplink } else { f64::INFINITY }, Bottleneck::Uplinks),
        ];
        let slowest = links.into_iter().min_by(|a, b| a.0.total_cmp(&b.0));
        let (rate, what) = slowest.unwrap_or((self.rate, Bottleneck::Terminals));
        let tail = (self.hops() - 1.0) * self.piece_length.min(self.image) as f64 / self.rate;
        let together = Duration::from_secs_f64(self.image as f64 / rate + tail);
        // The terminal that arrives last finds all pieces with the others, and still needs the time of one.
        let alone = Duration::from_secs_f64(self.image as f64 / self.rate.min(self.disk));
        let all = u32::try_from(self.terminals().max(1)).unwrap_or(u32::MAX);
        let after_the_last = self.arrive_over / all * (all - 1) + alone;
        if after_the_last > together { (after_the_last, Bottleneck::Arrival) } else { (together, what) }
    }

    fn hops(&self) -> f64 {
        ((self.terminals() + 1) as f64).log2().ceil()
    }

    fn yardstick(&self) -> Duration {
        let pieces = (self.image as f64 / self.piece_length as f64).max(1.0);
        let piece = self.piece_length.min(self.image) as f64 / self.rate;
        Duration::from_secs_f64((pieces - 1.0 + self.hops()) * piece)
    }

    /// Runs the model to its end. `Err` if it has none within a thousand times the bound.
    pub fn run(&self) -> Result<Forecast, String> {
        self.check()?;
        let time_scale = self.time_scale();
        let (bound, bottleneck) = self.bound();
        let slowest = if self.slow > 0 { 10.0 } else { 1.0 };
        let model_bound = bound.as_secs_f64() / time_scale;
        let step = Duration::from_secs_f64(model_bound * slowest / 200.0).max(Duration::from_micros(1));
        let limit = Duration::from_secs_f64(model_bound * 1000.0) + self.arrive_over;
        let mut lab = Lab::new(self.model());
        let mut progress: Vec<Vec<f32>> = vec![Vec::new(); lab.nodes.len()];
        let mut until = Duration::ZERO;
        loop {
            let over = lab.run(until);
            for (course, node) in progress.iter_mut().zip(&lab.nodes) {
                course.push(node.part_done());
            }
            if over {
                break;
            }
            if until > limit {
                return Err("the model did not come to an end: this lab cannot be planned".into());
            }
            until += step;
        }
        Ok(self.forecast(&lab, progress, step.mul_f64(time_scale), (bound, bottleneck)))
    }

    fn forecast(
        &self,
        lab: &Lab,
        progress: Vec<Vec<f32>>,
        step: Duration,
        (bound, bottleneck): (Duration, Bottleneck),
    ) -> Forecast {
        let time_scale = self.time_scale();
        let mut courses: Vec<Course> = Vec::new();
        for (node, progress) in lab.nodes.iter().zip(progress).skip(1) {
            courses.push(Course {
                zone: node.spec().zone,
                arrived: node.spec().arrives.mul_f64(time_scale),
                finished: node.finished.unwrap_or_default().0.mul_f64(time_scale),
                progress,
            });
        }
        let mut times: Vec<Duration> = courses.iter().map(|course| course.finished).collect();
        times.sort_unstable();
        let payload = f64::from(lab.spec().pieces) * f64::from(lab.spec().piece_length);
        Forecast {
            makespan: times.last().copied().unwrap_or_default(),
            median: times.get(times.len() / 2).copied().unwrap_or_default(),
            yardstick: self.yardstick(),
            bound,
            bottleneck,
            seeder: lab.seeder_share(),
            uplinks: lab.uplinks().values().map(|uplink| uplink.received as f64 / payload).collect(),
            stands_for: self.image.div_ceil(self.piece_length).div_ceil(self.model_pieces()),
            step,
            courses,
        }
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "positive, and far below 2^63; what is beyond saturates"
)]
fn whole(value: f64) -> u64 {
    value.max(0.0).round() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(zones: &[usize]) -> Plan {
        Plan {
            zones: zones.to_vec(),
            rate: 125e6,
            server_rate: 125e6,
            uplink: 125e6,
            disk: 500e6,
            image: 2 << 30,
            piece_length: 4 << 20,
            arrive_over: Duration::ZERO,
            slow: 0,
            links: 2,
            seed: 1,
        }
    }

    #[test]
    fn a_flat_lab_takes_little_more_than_its_bound() {
        let forecast = plan(&[10]).run().expect("a forecast");
        let ratio = forecast.makespan.as_secs_f64() / forecast.bound.as_secs_f64();
        assert!((1.0..1.3).contains(&ratio), "{ratio}");
        assert_eq!((forecast.courses.len(), forecast.bottleneck), (10, Bottleneck::Terminals));
        assert!(forecast.courses.iter().all(|course| course.progress.last() == Some(&1.0)));
    }

    #[test]
    fn the_narrowest_link_is_named_and_counts() {
        let narrow = Plan { uplink: 25e6, image: 1 << 29, ..plan(&[3, 3]) };
        let forecast = narrow.run().expect("a forecast");
        assert_eq!(forecast.bottleneck, Bottleneck::Uplinks);
        assert!(forecast.makespan >= Duration::from_secs_f64((1u64 << 29) as f64 / 25e6));
        assert_eq!(forecast.uplinks.len(), 2);
        assert_eq!(Plan { disk: 20e6, ..plan(&[3]) }.bound().1, Bottleneck::Disks);
        let slow = Plan { arrive_over: Duration::from_secs(600), ..plan(&[3]) };
        let (bound, what) = slow.bound();
        assert_eq!(what, Bottleneck::Arrival);
        assert!(bound >= Duration::from_secs(400) && bound > plan(&[3]).bound().0);
        assert_eq!(Plan { server_rate: 20e6, ..plan(&[3]) }.bound().1, Bottleneck::Server);
    }

    #[test]
    fn late_and_slow_terminals_are_seen() {
        let late = Plan { arrive_over: Duration::from_secs(100), slow: 1, image: 1 << 29, ..plan(&[5]) };
        let forecast = late.run().expect("a forecast");
        assert!(forecast.makespan > Duration::from_secs(80), "{:?}", forecast.makespan);
        assert_eq!(forecast.courses[0].arrived, Duration::ZERO);
        assert!(forecast.courses[4].arrived >= Duration::from_secs(79));
    }

    #[test]
    fn what_cannot_be_planned_is_named() {
        for (bad, why) in [
            (plan(&[]), "terminals"),
            (plan(&[3, 0]), "terminals"),
            (plan(&[3000]), "2000"),
            (Plan { rate: 0.0, ..plan(&[3]) }, "rates"),
            (Plan { image: 0, ..plan(&[3]) }, "image"),
            (Plan { slow: 3, ..plan(&[3]) }, "slow"),
            (Plan { links: 0, ..plan(&[3]) }, "gateways"),
        ] {
            assert!(bad.run().expect_err(why).contains(why));
        }
    }
}
