//! What the program logs, to its standard error: lines for people, for the journal, or JSON.
//!
//! Invariant: the format is chosen once, before anything is logged. A JSON line has `time`, `level`, `target`
//! and `message`, and the fields that the place knew, such as `terminal` and `attempt`.

use std::io::Write;

use clap::ValueEnum;
use env_logger::{Builder, Env};
use jiff::Timestamp;
use log::kv::{Error, Key, Value, VisitSource};
use log::{Level, Record};
use nix::sys::stat::fstat;
use serde_json::{Map, json};

/// How a program logs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Lines for people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Starts logging at `level`, unless `RUST_LOG` chooses what is logged.
pub fn start(format: LogFormat, level: &str) {
    let mut builder = Builder::from_env(Env::default().default_filter_or(level));
    match format {
        LogFormat::Json => {
            builder.format(|out, record| writeln!(out, "{}", as_json(record, Timestamp::now())));
            std::panic::set_hook(Box::new(|panic| log::error!("{panic}")));
        }
        LogFormat::Text if goes_to_the_journal() => {
            builder.format(|out, record| writeln!(out, "{}", for_the_journal(record)));
        }
        LogFormat::Text => {}
    }
    builder.init();
}

impl LogFormat {
    /// Says something that no setting of the log hides, except in JSON, where each line is a record.
    pub(super) fn say(self, text: &str) {
        match self {
            LogFormat::Text => eprintln!("{text}"),
            LogFormat::Json => log::info!("{text}"),
        }
    }
}

/// Is the standard error the socket that the service manager says it is (systemd.exec(5))?
fn goes_to_the_journal() -> bool {
    let named = std::env::var("JOURNAL_STREAM").ok();
    let is = fstat(std::io::stderr()).ok().map(|file| format!("{}:{}", file.st_dev, file.st_ino));
    named.is_some() && named == is
}

/// The journal has a time of its own, and takes the level from the head of each line (sd-daemon(3)).
fn for_the_journal(record: &Record<'_>) -> String {
    let priority = match record.level() {
        Level::Error => 3,
        Level::Warn => 4,
        Level::Info => 6,
        Level::Debug | Level::Trace => 7,
    };
    let lines: Vec<String> =
        record.args().to_string().lines().map(|line| format!("<{priority}>{line}")).collect();
    lines.join("\n")
}

fn as_json(record: &Record<'_>, now: Timestamp) -> String {
    let mut fields = Fields(Map::new());
    // A field that cannot be shown is left out; the message has all that people need.
    let _ = record.key_values().visit(&mut fields);
    let Fields(mut line) = fields;
    line.insert("time".into(), json!(now.to_string()));
    line.insert("level".into(), json!(record.level().as_str().to_lowercase()));
    line.insert("target".into(), json!(record.target()));
    line.insert("message".into(), json!(record.args().to_string()));
    serde_json::Value::Object(line).to_string()
}

struct Fields(Map<String, serde_json::Value>);

impl<'kvs> VisitSource<'kvs> for Fields {
    fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), Error> {
        let value = value.to_u64().map_or_else(|| json!(value.to_string()), |number| json!(number));
        self.0.insert(key.to_string(), value);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_json_line_has_the_message_and_the_fields_that_are_known() {
        let fields = [("terminal", Value::from("52:54:00:00:00:0a")), ("attempt", Value::from(7u64))];
        let fields = fields.as_slice();
        let record = Record::builder()
            .level(Level::Warn)
            .target("flashmob::server")
            .args(format_args!("a \"quoted\"\nword"))
            .key_values(&fields)
            .build();
        let now = "2026-11-28T22:00:00Z".parse().expect("a time");
        let line = as_json(&record, now);
        assert_eq!(line.lines().count(), 1, "{line}");
        let read: serde_json::Value = serde_json::from_str(&line).expect("JSON");
        assert_eq!(
            read,
            json!({
                "time": "2026-11-28T22:00:00Z", "level": "warn", "target": "flashmob::server",
                "message": "a \"quoted\"\nword", "terminal": "52:54:00:00:00:0a", "attempt": 7
            })
        );
    }

    #[test]
    fn each_line_of_a_message_has_its_priority_in_the_journal() {
        let record = Record::builder().level(Level::Error).args(format_args!("wrong\nright")).build();
        assert_eq!(for_the_journal(&record), "<3>wrong\n<3>right");
    }
}
