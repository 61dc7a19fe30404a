//! `flashmob plan`: how long a lab will take, by running a model of it.
//!
//! Invariant: one run of `forecast::plan` gives everything that is printed; only the requested picture is
//! written.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use crate::event::Failure;
use crate::forecast::picture::{clock, svg};
use crate::forecast::plan::{Forecast, Plan};
use crate::units::{parse_bytes, parse_duration};

/// Say how long imaging a lab will take, by simulating it.
#[derive(Debug, Args)]
pub struct PlanArgs {
    /// Terminals in a lab with one switch.
    #[arg(long, value_name = "N", conflicts_with = "zones", default_value_t = 30)]
    terminals: usize,
    /// Zones behind separate switches: "4x30", or the terminals of each: "30,30,24".
    #[arg(long, value_name = "ZONES", value_parser = zones)]
    zones: Option<Zones>,
    /// Bytes of the image that travel.
    #[arg(long, value_name = "SIZE", default_value = "60GiB", value_parser = parse_bytes)]
    image: u64,
    /// Bytes in a piece.
    #[arg(long, value_name = "SIZE", default_value = "4MiB", value_parser = parse_bytes)]
    piece_length: u64,
    /// A terminal's link.
    #[arg(long, value_name = "RATE", default_value = "1gbit", value_parser = rate)]
    rate: f64,
    /// The server's link [default: as a terminal's].
    #[arg(long, value_name = "RATE", value_parser = rate)]
    server_rate: Option<f64>,
    /// The uplink of each zone [default: as a terminal's].
    #[arg(long, value_name = "RATE", value_parser = rate)]
    uplink: Option<f64>,
    /// Terminals of each zone that exchange pieces with other zones (`links` in the configuration).
    #[arg(long, value_name = "N", default_value_t = 2)]
    links: usize,
    /// Bytes that a terminal's disk writes in a second
    #[arg(long, value_name = "SIZE", default_value = "400MiB", value_parser = parse_bytes)]
    disk: u64,
    /// Terminals are switched on one after another over this time
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = parse_duration)]
    arrive_over: Duration,
    /// So many terminals have a tenth of the link.
    #[arg(long, value_name = "N", default_value_t = 0)]
    slow: usize,
    /// Chance: equal seeds give equal runs.
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Draw every terminal's progress.
    #[arg(long, value_name = "FILE.svg")]
    svg: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Terminals of each zone.
#[derive(Debug, Clone)]
struct Zones(Vec<usize>);

impl PlanArgs {
    fn plan(&self) -> Plan {
        Plan {
            zones: self.zones.as_ref().map_or_else(|| vec![self.terminals], |zones| zones.0.clone()),
            rate: self.rate,
            server_rate: self.server_rate.unwrap_or(self.rate),
            uplink: self.uplink.unwrap_or(self.rate),
            disk: self.disk as f64,
            image: self.image,
            piece_length: self.piece_length,
            arrive_over: self.arrive_over,
            slow: self.slow,
            links: self.links,
            seed: self.seed,
        }
    }
}

/// Runs the model and prints the forecast.
pub fn run(args: &PlanArgs) -> Result<(), Failure> {
    let plan = args.plan();
    let usage = |message: String| Failure::usage(message, "See 'flashmob plan --help'.");
    plan.check().map_err(usage)?;
    let forecast = plan.run().map_err(usage)?;
    if let Some(path) = &args.svg {
        std::fs::write(path, svg(&forecast)).map_err(|e| {
            let message = format!("writing {}: {e}", path.display());
            Failure::refused(message, "Name a file that can be written with --svg.")
        })?;
    }
    print!("{}", if args.json { json(&forecast) } else { text(&plan, &forecast) });
    Ok(())
}

fn text(plan: &Plan, forecast: &Forecast) -> String {
    let Forecast { makespan, median, yardstick, bound, .. } = forecast;
    let ratio = |to: &Duration| makespan.as_secs_f64() / to.as_secs_f64();
    let mut out = format!(
        "{} terminals: the last is done after {}, half of them after {}\n\
         no scheme is faster than {} here ({:.2} times that); what holds it back: {}\n\
         ratio to the yardstick of equal links ({}): {:.2}\n\
         the server sends {:.2} times the image\n",
        forecast.courses.len(),
        clock(*makespan),
        clock(*median),
        clock(*bound),
        ratio(bound),
        forecast.bottleneck,
        clock(*yardstick),
        ratio(yardstick),
        forecast.seeder,
    );
    let mut lines: Vec<String> = Vec::new();
    for (number, share) in forecast.uplinks.iter().enumerate() {
        lines.push(format!("the uplink of zone {} brings {share:.2} times the image\n", number + 1));
    }
    out.extend(lines);
    if forecast.stands_for > 1 {
        out.push_str(&format!(
            "one piece of the model stands for about {} of the image's {}\n",
            forecast.stands_for,
            plan.image.div_ceil(plan.piece_length)
        ));
    }
    out
}

fn json(forecast: &Forecast) -> String {
    let seconds = |time: Duration| (time.as_secs_f64() * 1000.0).round() / 1000.0;
    let terminals: Vec<_> = forecast
        .courses
        .iter()
        .map(|course| {
            let (arrived, finished) = (seconds(course.arrived), seconds(course.finished));
            serde_json::json!({ "zone": course.zone, "arrived": arrived, "finished": finished })
        })
        .collect();
    let value = serde_json::json!({
        "makespan": seconds(forecast.makespan),
        "median": seconds(forecast.median),
        "yardstick": seconds(forecast.yardstick),
        "bound": seconds(forecast.bound),
        "bottleneck": forecast.bottleneck.to_string(),
        "seeder": forecast.seeder,
        "uplinks": forecast.uplinks,
        "terminals": terminals,
    });
    format!("{value}\n")
}

fn zones(text: &str) -> Result<Zones, String> {
    let number = |text: &str| text.trim().parse::<usize>().map_err(|_| format!("'{text}' is not a number"));
    if let Some((count, each)) = text.split_once('x') {
        let (count, each) = (number(count)?, number(each)?);
        return if count <= 200 { Ok(Zones(vec![each; count])) } else { Err("at most 200 zones".into()) };
    }
    text.split(',').map(number).collect::<Result<_, _>>().map(Zones)
}

/// `1gbit`, `100mbit`: bytes a second.
fn rate(text: &str) -> Result<f64, String> {
    let units = [("gbit", 125e6), ("mbit", 125e3), ("kbit", 125.0)];
    let parts = units.iter().find_map(|(unit, bytes)| Some((text.strip_suffix(unit)?, bytes)));
    let number = parts.and_then(|(number, bytes)| Some(number.trim().parse::<f64>().ok()? * bytes));
    number
        .filter(|rate| rate.is_finite() && *rate > 0.0)
        .ok_or_else(|| format!("'{text}' is not a rate: use 1gbit or 100mbit"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_read_and_mistakes_named() {
        assert_eq!(rate("2.5gbit"), Ok(312.5e6));
        assert_eq!(zones("4x30").map(|zones| zones.0), Ok(vec![30; 4]));
        assert_eq!(zones("30,24").map(|zones| zones.0), Ok(vec![30, 24]));
        for bad in ["", "1", "mbit", "-1gbit", "0mbit", "nangbit"] {
            assert!(rate(bad).is_err(), "{bad}");
        }
        assert!(zones("4x").is_err() && zones("a").is_err() && zones("1000000x1").is_err());
    }
}
