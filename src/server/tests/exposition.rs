//! The rules of Prometheus' text format that `promtool check metrics` knows, and those about series that only
//! the server itself checks when it scrapes.

use std::collections::{BTreeMap, BTreeSet};

/// Words that name a unit other than the base ones, or a type.
const WRONG_WORDS: [&str; 26] = [
    "gauge",
    "counter",
    "histogram",
    "milliseconds",
    "microseconds",
    "nanoseconds",
    "minutes",
    "hours",
    "days",
    "bits",
    "kilobytes",
    "megabytes",
    "gigabytes",
    "kib",
    "mib",
    "gib",
    "s",
    "ms",
    "us",
    "ns",
    "sec",
    "b",
    "kb",
    "mb",
    "gb",
    "percent",
];

/// The buckets of a histogram (bound, count), and its count.
type Histogram = (Vec<(f64, f64)>, Option<f64>);

#[derive(Debug, Default)]
struct Family<'a> {
    name: &'a str,
    kind: &'a str,
    /// By labels without `le`: the buckets in their order, and the count.
    histograms: BTreeMap<String, Histogram>,
}

impl<'a> Family<'a> {
    /// The part of `name` behind the family's name, if it is one of the family's series.
    fn part(&self, name: &'a str) -> Option<&'a str> {
        let part = name.strip_prefix(self.name)?;
        match self.kind {
            "histogram" => ["_bucket", "_sum", "_count"].contains(&part).then_some(part),
            _ => part.is_empty().then_some(part),
        }
    }

    /// The rules about the family's name.
    fn named_wrong(&self) -> Option<String> {
        let (name, counts) = (self.name, self.kind == "counter");
        let plain = name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
        if !plain || !name.starts_with("flashmob_") {
            return Some(format!("{name}: not lower case, or not one of flashmob's"));
        }
        if name.ends_with("_total") != counts {
            return Some(format!("{name}: counters end in _total, and nothing else does"));
        }
        if ["_count", "_sum", "_bucket"].iter().any(|end| name.ends_with(end)) {
            return Some(format!("{name}: this ending is a histogram's"));
        }
        let wrong = name.split('_').find(|word| WRONG_WORDS.contains(word))?;
        Some(format!("{name}: '{wrong}' is no base unit, or the type"))
    }

    /// The rules about the histogram's buckets.
    fn counted_wrong(&self) -> Option<String> {
        let wrong = |(labels, (buckets, count)): (&String, &Histogram)| {
            let ordered = buckets.windows(2).all(|pair| pair[0].0 < pair[1].0 && pair[0].1 <= pair[1].1);
            let complete = buckets.last().is_some_and(|last| last.0.is_infinite() && Some(last.1) == *count);
            (!ordered || !complete).then(|| format!("{}{{{labels}}}: its buckets do not add up", self.name))
        };
        self.histograms.iter().find_map(wrong)
    }
}

/// What is wrong with an exposition.
pub(super) fn breaches(text: &str) -> Vec<String> {
    let (mut wrong, mut families, mut series) = (Vec::new(), BTreeSet::new(), BTreeSet::new());
    let mut family = Family::default();
    let mut helped = "";
    for line in text.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            helped = help.split_once(' ').filter(|(_, help)| !help.is_empty()).map_or("", |(name, _)| name);
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|it| it.split_once(' ')) {
            wrong.extend(family.counted_wrong());
            family = Family { name, kind, ..Family::default() };
            wrong.extend((helped != name).then(|| format!("{name}: no HELP before its TYPE")));
            wrong.extend((!families.insert(name)).then(|| format!("{name}: a second TYPE")));
            wrong.extend(family.named_wrong());
            helped = "";
        } else {
            let Some((id, value)) = line.rsplit_once(' ') else {
                wrong.push(format!("{line}: neither HELP, TYPE nor a value"));
                continue;
            };
            wrong.extend((!series.insert(id)).then(|| format!("{id}: twice")));
            let Ok(value) = value.parse::<f64>() else {
                wrong.push(format!("{line}: no number"));
                continue;
            };
            let (name, labels) = id.split_once('{').unwrap_or((id, "}"));
            let labels = labels.trim_end_matches('}');
            let Some(part) = family.part(name) else {
                wrong.push(format!("{name}: no TYPE before it"));
                continue;
            };
            let (labels, bound) = labels.split_once("le=\"").unwrap_or((labels, ""));
            let histogram = family.histograms.entry(labels.trim_end_matches(',').to_string());
            match (part, bound.trim_end_matches('"').parse()) {
                ("_bucket", Ok(bound)) => histogram.or_default().0.push((bound, value)),
                ("_bucket", Err(_)) => wrong.push(format!("{id}: no bound")),
                ("_count", _) => histogram.or_default().1 = Some(value),
                _ => {}
            }
        }
    }
    wrong.extend(family.counted_wrong());
    wrong
}

#[test]
fn each_breach_of_the_exposition_rules_is_found() {
    let good = "# HELP flashmob_a_total Help.\n# TYPE flashmob_a_total counter\nflashmob_a_total{x=\"1\"} 1\n\
        # HELP flashmob_wait_seconds Help.\n# TYPE flashmob_wait_seconds histogram\n\
        flashmob_wait_seconds_bucket{x=\"1\",le=\"0.5\"} 1\n\
        flashmob_wait_seconds_bucket{x=\"1\",le=\"+Inf\"} 2\n\
        flashmob_wait_seconds_sum{x=\"1\"} 0.7\nflashmob_wait_seconds_count{x=\"1\"} 2\n";
    assert_eq!(breaches(good), [""; 0]);
    for (from, to) in [
        ("# HELP flashmob_a_total Help.\n", ""),
        ("# HELP flashmob_a_total Help.", "# HELP flashmob_a_total "),
        ("a_total", "a"),
        ("# TYPE flashmob_a_total counter", "# TYPE flashmob_a_total gauge"),
        ("wait_seconds", "wait_milliseconds"),
        ("wait_seconds", "wait_ms"),
        ("flashmob_a_total{x=\"1\"} 1\n", "flashmob_a_total{x=\"1\"} 1\nflashmob_a_total{x=\"1\"} 2\n"),
        ("flashmob_a_total{x=\"1\"} 1\n", "flashmob_c{x=\"1\"} 1\n"),
        ("+Inf\"} 2", "+Inf\"} 3"),
        ("0.5\"} 1", "0.5\"} 3"),
        ("{x=\"1\"} 1\n", "{x=\"1\"} one\n"),
    ] {
        let bad = good.replace(from, to);
        assert!(!breaches(&bad).is_empty(), "{from} -> {to}\n{bad}");
    }
}
