//! Draws a forecast: one line for each terminal, time to the right, percent upwards, as SVG.
//!
//! Invariant: the picture is well-formed for every forecast, and needs no other files.

use std::fmt::Write;
use std::time::Duration;

use super::plan::Forecast;

const WIDTH: f64 = 900.0;
const HEIGHT: f64 = 420.0;
const LEFT: f64 = 60.0;
const BOTTOM: f64 = 50.0;
const TOP: f64 = 40.0;

/// The picture, as the text of an SVG file.
pub(crate) fn svg(forecast: &Forecast) -> String {
    let end = forecast.makespan.max(Duration::from_millis(1)).as_secs_f64();
    let x = |seconds: f64| LEFT + (WIDTH - LEFT - 20.0) * (seconds / end).min(1.0);
    let y = |part: f64| HEIGHT - BOTTOM - (HEIGHT - BOTTOM - TOP) * part.clamp(0.0, 1.0);
    let mut out = String::new();
    // Writing to a string cannot fail.
    let _ = write!(
        out,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
         font-family=\"sans-serif\" font-size=\"13\">\n\
         <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"#fff\"/>\n\
         <text x=\"{LEFT}\" y=\"24\">{} terminals, the last is done after {}</text>\n",
        forecast.courses.len(),
        clock(forecast.makespan)
    );
    for quarter in 0..=4 {
        let part = f64::from(quarter) / 4.0;
        let (at_y, at_x) = (y(part), x(end * part));
        let _ = writeln!(
            out,
            "<path d=\"M{LEFT} {at_y:.1}H{:.1}\" stroke=\"#ddd\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{} %</text>\
             <text x=\"{at_x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
            WIDTH - 20.0,
            LEFT - 8.0,
            at_y + 4.0,
            quarter * 25,
            HEIGHT - BOTTOM + 20.0,
            clock(forecast.makespan.mul_f64(part)),
        );
    }
    let step = forecast.step.as_secs_f64();
    for course in &forecast.courses {
        let mut path = format!("M{:.1} {:.1}", x(course.arrived.as_secs_f64()), y(0.0));
        for (number, part) in (0u32..).zip(&course.progress) {
            let at = f64::from(number) * step;
            if at >= course.arrived.as_secs_f64() && at < course.finished.as_secs_f64() {
                let _ = write!(path, "L{:.1} {:.1}", x(at), y(f64::from(*part)));
            }
        }
        let _ = write!(path, "L{:.1} {:.1}", x(course.finished.as_secs_f64()), y(1.0));
        let hue = u32::from(course.zone) * 137 % 360;
        let _ = writeln!(
            out,
            "<path d=\"{path}\" fill=\"none\" stroke=\"hsl({hue},65%,45%)\" stroke-opacity=\"0.5\"/>"
        );
    }
    let bound = x(forecast.bound.as_secs_f64());
    let _ = write!(
        out,
        "<path d=\"M{bound:.1} {TOP}V{:.1}\" stroke=\"#000\" stroke-dasharray=\"4\"/>\
         <text x=\"{LEFT}\" y=\"{:.1}\">dashed: no scheme is faster on these links ({})</text>\n</svg>\n",
        HEIGHT - BOTTOM,
        HEIGHT - 8.0,
        clock(forecast.bound)
    );
    out
}

/// `1:02:03` or `2:03`.
pub fn clock(time: Duration) -> String {
    let seconds = time.as_secs_f64().round();
    let (hours, rest) = ((seconds / 3600.0).floor(), seconds % 3600.0);
    let (minutes, seconds) = ((rest / 60.0).floor(), rest % 60.0);
    if hours > 0.0 { format!("{hours}:{minutes:02}:{seconds:02}") } else { format!("{minutes}:{seconds:02}") }
}

#[cfg(test)]
mod tests {
    use super::super::plan::{Bottleneck, Course};
    use super::*;

    #[test]
    fn every_terminal_has_a_line_that_ends_at_the_top() {
        let course = |zone| Course {
            zone,
            arrived: Duration::ZERO,
            finished: Duration::from_secs(10),
            progress: vec![0.0, 0.4, 1.0],
        };
        let forecast = Forecast {
            makespan: Duration::from_secs(10),
            median: Duration::from_secs(10),
            yardstick: Duration::from_secs(9),
            bound: Duration::from_secs(9),
            bottleneck: Bottleneck::Terminals,
            seeder: 1.0,
            uplinks: vec![],
            stands_for: 1,
            step: Duration::from_secs(5),
            courses: vec![course(1), course(2)],
        };
        let svg = svg(&forecast);
        assert_eq!(svg.matches("stroke-opacity").count(), 2);
        assert_eq!(svg.matches("L880.0 40.0").count(), 2);
        assert!(svg.starts_with("<svg") && svg.ends_with("</svg>\n"));
    }

    #[test]
    fn times_are_written_as_on_a_clock() {
        assert_eq!(["0:59", "1:01", "1:01:01"], [59, 61, 3661].map(|s| clock(Duration::from_secs(s))));
    }
}
