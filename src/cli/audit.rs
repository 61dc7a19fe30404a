//! `flashmob audit`: what people did.

use clap::Args;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use reqwest::Method;

use super::call::{ServerArg, ask, text_of, understand};
use super::table::{local_second, table};
use crate::api::AuditEntry;
use crate::event::Failure;
use crate::units::parse_duration;

/// Show what people did on this server and what they were refused: who, when, on what.
#[derive(Debug, Args)]
pub struct AuditArgs {
    /// From when on: a date or time (2026-11-28, 2026-11-28T22:00), or how long ago (12h).
    #[arg(long, value_name = "TIME", value_parser = since)]
    since: Option<Timestamp>,
    #[command(flatten)]
    server: ServerArg,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

fn since(text: &str) -> Result<Timestamp, String> {
    let wrong = || format!("'{text}' is no time: use 2026-11-28, 2026-11-28T22:00 or 12h");
    if let Ok(ago) = parse_duration(text) {
        let ago = SignedDuration::try_from(ago).map_err(|_| wrong())?;
        return Timestamp::now().checked_sub(ago).map_err(|_| wrong());
    }
    if let Ok(time) = text.parse::<Timestamp>() {
        return Ok(time);
    }
    let local: DateTime = text.parse().map_err(|_| wrong())?;
    local.to_zoned(TimeZone::system()).map(|zoned| zoned.timestamp()).map_err(|_| wrong())
}

pub async fn run(args: AuditArgs) -> Result<(), Failure> {
    let query = args.since.map(|since| format!("since={}", since.as_second().max(0)));
    let path = ["api", "v1", "audit"];
    let text = text_of(ask(&args.server, Method::GET, &path, query.as_deref()).await?).await?;
    if args.json {
        println!("{text}");
        return Ok(());
    }
    let entries: Vec<AuditEntry> = understand(&text)?;
    let mut rows = vec![["WHEN", "WHO", "DID", "TO", "MORE"].map(String::from)];
    rows.extend(entries.into_iter().map(|e| [local_second(&e.at), e.who, e.action, e.subject, e.detail]));
    print!("{}", table(&rows));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_dates_moments_or_how_long_ago() {
        assert_eq!(since("2026-11-28T22:00:00Z").map(|t| t.as_second()), Ok(1_795_903_200));
        let now = || Timestamp::now().as_second() - 7200;
        let (before, since_then, after) = (now(), since("2h").expect("a time").as_second(), now());
        assert!((before..=after).contains(&since_then), "{since_then}");
        assert!(since("2026-11-28").is_ok() && since("2026-11-28T22:00").is_ok());
        for bad in ["", "yesterday", "2026-13-01"] {
            assert!(since(bad).is_err(), "{bad}");
        }
    }
}
