//! `flashmob terminal wake`: switches terminals on, through the server's API.

use clap::Args;
use reqwest::Method;

use super::call::{ServerArg, ask, text_of, understand};
use crate::api::Woken;
use crate::event::Failure;

/// Switch terminals on by Wake-on-LAN packets, now and twice more within the next minute. Only on the server
/// itself.
#[derive(Debug, Args)]
pub(super) struct WakeArgs {
    /// Label, MAC, or UUID as uuid:4c4c4544-….
    #[arg(required = true, value_name = "TERMINAL")]
    terminals: Vec<String>,
    #[command(flatten)]
    server: ServerArg,
}

/// Wakes each one, and fails with the first failure after all were tried.
pub(super) async fn run(args: WakeArgs) -> Result<(), Failure> {
    let mut result = Ok(());
    for typed in &args.terminals {
        let path = ["api", "v1", "terminals", typed, "wake"];
        let woken = match ask(&args.server, Method::POST, &path, None).await {
            Ok(response) => text_of(response).await.and_then(|text| understand::<Woken>(&text)),
            Err(failure) => Err(failure),
        };
        match woken {
            Ok(woken) => println!("{typed}: {}", ways(&woken)),
            Err(failure) if result.is_ok() => result = Err(failure),
            Err(failure) => eprintln!("{}", failure.message),
        }
    }
    result
}

/// The ways that wake-up packets took, for people.
fn ways(woken: &Woken) -> String {
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
        (woken.interfaces, woken.relays) = (vec!["eth0".into(), "eth1".into()], vec!["lab-2".into()]);
        woken.problems = vec!["wlan0: down".into()];
        let text = "packets for 02:00:00:00:00:0a leave on eth0, eth1 and by its neighbour lab-2; \
            WARNING: wlan0: down";
        assert_eq!(ways(&woken), text);
    }
}
