//! Sends log messages both to standard error and into the attempt's log.
//!
//! Invariant: the attempt's log gets flashmob's own messages from "info" on, whatever standard error shows;
//! those of libraries only from "warning" on, because at lower levels they may show what was sent.

use log::{LevelFilter, Log, Metadata, Record};

use crate::agent::journal::Journal;

struct Both {
    standard_error: env_logger::Logger,
    journal: Journal,
}

/// Installs it, and has panics told to the journal too. A second call changes nothing.
pub(crate) fn install(mut builder: env_logger::Builder, journal: &Journal) {
    let standard_error = builder.build();
    let level = standard_error.filter().max(LevelFilter::Info);
    let both = Both { standard_error, journal: journal.clone() };
    if log::set_boxed_logger(Box::new(both)).is_err() {
        return;
    }
    log::set_max_level(level);
    let (before, journal) = (std::panic::take_hook(), journal.clone());
    std::panic::set_hook(Box::new(move |panic| {
        journal.say_if_free(&format!("PANIC: {panic}"));
        before(panic);
    }));
}

fn belongs(metadata: &Metadata<'_>) -> bool {
    let own = metadata.target().split("::").next().is_some_and(|name| name.starts_with("flashmob"));
    metadata.level() <= if own { LevelFilter::Info } else { LevelFilter::Warn }
}

impl Log for Both {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        belongs(metadata) || self.standard_error.enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        if belongs(record.metadata()) {
            let level = record.level().as_str().to_lowercase();
            self.journal.say(&format!("{level}: {}", record.args()));
        }
        self.standard_error.log(record);
    }

    fn flush(&self) {
        self.standard_error.flush();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::MAX_LOG;

    #[test]
    fn own_messages_from_info_on_are_in_the_attempts_log_and_warnings_of_libraries() {
        let journal = Journal::default();
        let standard_error = env_logger::Builder::new().filter_level(LevelFilter::Off).build();
        let both = Both { standard_error, journal: journal.clone() };
        for (target, level, text) in [
            ("flashmob::io::disk", log::Level::Info, "one"),
            ("flashmob::io::disk", log::Level::Debug, "two"),
            ("hyper::client", log::Level::Info, "three"),
            ("hyper::client", log::Level::Warn, "four"),
        ] {
            both.log(&Record::builder().target(target).level(level).args(format_args!("{text}")).build());
        }
        let text = journal.text(MAX_LOG);
        let said: Vec<&str> = text.lines().filter_map(|line| Some(line.split_once("] ")?.1)).collect();
        assert_eq!(said, ["info: one", "warn: four"]);
    }
}
