//! Prometheus' text format.
//!
//! Invariant: label values are escaped; a metric's lines follow its one head.

use std::fmt::{Display, Write};

use crate::server::meters::{BOUNDS, Histogram};

/// An exposition that grows.
#[derive(Debug, Default)]
pub(super) struct Text(pub String);

impl Text {
    /// A metric, and the values that follow.
    pub(super) fn head(&mut self, name: &str, kind: &str, help: &str) {
        // Writing to a String does not fail.
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    pub(super) fn line(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        let labels: Vec<String> =
            labels.iter().map(|(key, value)| format!("{key}=\"{}\"", escaped(value))).collect();
        let braces = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
        let _ = writeln!(self.0, "{name}{braces} {value}");
    }

    /// A metric with one value.
    pub(super) fn one(&mut self, name: &str, kind: &str, help: &str, value: impl Display) {
        self.head(name, kind, help);
        self.line(name, &[], value);
    }

    /// The lines of a histogram of seconds.
    pub(super) fn histogram(&mut self, name: &str, labels: &[(&str, &str)], histogram: &Histogram) {
        let counts = histogram.cumulative();
        let bounds = BOUNDS.iter().map(|(_, seconds)| *seconds).chain(["+Inf"]);
        for (bound, count) in bounds.zip(counts) {
            let labels: Vec<_> = labels.iter().copied().chain([("le", bound)]).collect();
            self.line(&format!("{name}_bucket"), &labels, count);
        }
        let (seconds, rest) = (histogram.micros / 1_000_000, histogram.micros % 1_000_000);
        self.line(&format!("{name}_sum"), labels, format_args!("{seconds}.{rest:06}"));
        self.line(&format!("{name}_count"), labels, counts[BOUNDS.len()]);
    }
}

fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_cannot_break_its_line() {
        let mut text = Text::default();
        text.line("m", &[("job", "a\"b\\c\nd")], 1);
        assert_eq!(text.0, "m{job=\"a\\\"b\\\\c\\nd\"} 1\n");
    }
}
