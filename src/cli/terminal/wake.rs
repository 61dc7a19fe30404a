//! `flashmob terminal wake`: switches terminals on, through the server's API.

use clap::Args;
use reqwest::Method;

use crate::api::{Targets, Woken};
use crate::cli::call::{Content, ServerArg, json_of, send, text_of, understand};
use crate::event::Failure;

/// Switch terminals on by Wake-on-LAN packets, now and twice more within the next minute.
#[derive(Debug, Args)]
pub(super) struct WakeArgs {
    /// Label, MAC, uuid:4c4c4544-…, room:NAME, group:NAME, zone:NAME, new or all.
    #[arg(required = true, value_name = "TARGET")]
    targets: Vec<String>,
    #[command(flatten)]
    server: ServerArg,
}

/// Wakes all that can be woken, and fails if there is one that cannot.
pub(super) async fn run(args: WakeArgs) -> Result<(), Failure> {
    let mut asleep = Vec::new();
    let body = (Content::Json, json_of(&Targets { targets: args.targets })?);
    let answer = send(&args.server, Method::POST, &["api", "v1", "decisions", "wake"], body).await?;
    for woken in understand::<Vec<Woken>>(&text_of(answer).await?)? {
        let name = woken.label.as_ref().unwrap_or(&woken.terminal);
        println!("{name}: {}", ways(&woken));
        if woken.failure.is_some() {
            asleep.push(name.clone());
        }
    }
    if asleep.is_empty() {
        return Ok(());
    }
    let advice = "The server tries again for a minute. Compare the addresses in 'flashmob terminal show' \
                  with the server's, or switch these terminals on by hand.";
    Err(Failure::refused(format!("cannot wake {}", asleep.join(", ")), advice))
}

/// The ways that wake-up packets took, for people.
fn ways(woken: &Woken) -> String {
    if let Some(failure) = &woken.failure {
        return format!("not woken: {failure}");
    }
    let named = |before: &str, names: &[String]| {
        (!names.is_empty()).then(|| format!("{before} {}", names.join(", ")))
    };
    let ways = [
        named("on", &woken.interfaces),
        named("through routers to", &woken.networks),
        named("by its neighbour", &woken.relays),
    ];
    let ways: Vec<String> = ways.into_iter().flatten().collect();
    let macs = woken.macs.join(", ");
    let mut text = match ways.is_empty() {
        true => format!("packets for {macs} leave within seconds, after those for other terminals"),
        false => format!("packets for {macs} leave {}", ways.join(" and ")),
    };
    for problem in &woken.problems {
        text += &format!("; WARNING: {problem}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ways_of_wake_up_packets_are_named() {
        let mut woken = Woken { macs: vec!["02:00:00:00:00:0a".into()], ..Woken::default() };
        assert!(ways(&woken).contains("within seconds"));
        let failed = Woken { failure: Some("it has no MAC address".into()), ..woken.clone() };
        assert_eq!(ways(&failed), "not woken: it has no MAC address");
        (woken.interfaces, woken.relays) = (vec!["eth0".into(), "eth1".into()], vec!["lab-2".into()]);
        woken.problems = vec!["wlan0: down".into()];
        let text = "packets for 02:00:00:00:00:0a leave on eth0, eth1 and by its neighbour lab-2; \
            WARNING: wlan0: down";
        assert_eq!(ways(&woken), text);
    }
}
