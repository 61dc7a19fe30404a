//! What a check found.
//!
//! Invariant: a warning and an error say what to do.

use serde::Serialize;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Level {
    Ok,
    /// The lab works, but worse than it could, or not in every case.
    Warning,
    /// Something does not work.
    Error,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Finding {
    /// The part of the machine.
    pub check: &'static str,
    pub level: Level,
    /// The fact.
    pub what: String,
    /// The remedy; empty where none is needed.
    pub advice: String,
}

impl Finding {
    pub(super) fn ok(check: &'static str, what: impl Into<String>) -> Self {
        Finding { check, level: Level::Ok, what: what.into(), advice: String::new() }
    }

    pub(super) fn warning(check: &'static str, what: impl Into<String>, advice: impl Into<String>) -> Self {
        Finding { check, level: Level::Warning, what: what.into(), advice: advice.into() }
    }

    pub(super) fn error(check: &'static str, what: impl Into<String>, advice: impl Into<String>) -> Self {
        Finding { check, level: Level::Error, what: what.into(), advice: advice.into() }
    }
}

/// The findings for people, each remedy below its finding.
pub(super) fn table(findings: &[Finding]) -> String {
    let width = findings.iter().map(|finding| finding.check.len()).max().unwrap_or_default();
    let mut text = String::new();
    for Finding { check, level, what, advice } in findings {
        let level = match level {
            Level::Ok => "ok     ",
            Level::Warning => "warning",
            Level::Error => "ERROR  ",
        };
        // Names of programs and answers from the network may hold anything.
        let what = what.replace(char::is_control, " ");
        text.push_str(&format!("{level}  {check:<width$}  {what}\n"));
        if !advice.is_empty() {
            text.push_str(&format!("{:width$}  {advice}\n", "", width = width + 9));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_remedy_stands_below_its_finding() {
        let findings = [
            Finding::ok("clock", "right"),
            Finding::error("ports", "6969 is taken by x\u{1b}[2J", "Stop it."),
        ];
        let expected =
            "ok       clock  right\nERROR    ports  6969 is taken by x [2J\n                Stop it.\n";
        assert_eq!(table(&findings), expected);
    }
}
