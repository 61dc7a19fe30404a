//! Posts what happens in the lab to the configured addresses.
//!
//! ```text
//!  app.lab, app.problems ──every 2 s──► Watcher ──► one Outbox for each address ──► POST
//! ```
//!
//! Invariant: a receiver that is slow or away delays nobody but itself. Notices that wait are in memory: they
//! end with the server. Secrets in addresses and tokens never go into logs.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::watch;
use tokio::task::JoinSet;
use ureq::Agent;
use ureq::tls::{RootCerts, TlsConfig, TlsProvider};

use crate::server::app::App;
use crate::server::domain::config::HookConfig;
use crate::server::domain::notices::{Notice, Outbox, Sent, Watcher};
use crate::server::http::listen::stopped;
use crate::sync;

const LOOK: Duration = Duration::from_secs(2);
/// How long one post may take.
const POST: Duration = Duration::from_secs(20);

/// What became of a post, and why it was not taken.
type Posted = Result<(), (Sent, String)>;

/// One address with what waits for it.
#[derive(Debug, Default)]
struct Hook {
    outbox: Outbox,
    /// A post is under way.
    busy: bool,
}

/// Watches the lab and delivers notices until `stop`.
pub(super) async fn deliver(app: Arc<App>, mut stop: watch::Receiver<bool>) {
    let agent = agent();
    let mut watcher = Watcher::default();
    let mut hooks: HashMap<HookConfig, Hook> = HashMap::new();
    let mut posts: JoinSet<(HookConfig, Posted)> = JoinSet::new();
    let mut looks = tokio::time::interval(LOOK);
    looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = looks.tick() => look(&app, &mut watcher, &mut hooks),
            Some(Ok((config, result))) = posts.join_next() => {
                if let Some(hook) = hooks.get_mut(&config) {
                    settle(hook, &config, result, app.now());
                }
            }
            () = stopped(&mut stop) => return,
        }
        for (config, hook) in hooks.iter_mut().filter(|(_, hook)| !hook.busy) {
            let Some(notice) = hook.outbox.due(app.now()).cloned() else { continue };
            hook.busy = true;
            let (agent, config) = (agent.clone(), config.clone());
            posts.spawn_blocking(move || {
                let result = post(&agent, &config, &notice);
                (config, result)
            });
        }
    }
}

/// Puts what is new into the outboxes of those that want it.
fn look(app: &App, watcher: &mut Watcher, hooks: &mut HashMap<HookConfig, Hook>) {
    let config = app.config();
    hooks.retain(|hook, _| config.webhooks.contains(hook));
    if config.webhooks.is_empty() {
        // Whoever is added later hears what happens from then on.
        *watcher = Watcher::default();
        return;
    }
    let problems = app.problems();
    let notices = {
        let lab = sync::lock(&app.lab);
        let label = |id: &str| lab.label(&config, lab.get(id)?).map(str::to_owned);
        watcher.look(Timestamp::now(), lab.jobs(), &problems, label)
    };
    for hook in &config.webhooks {
        let outbox = &mut hooks.entry(hook.clone()).or_default().outbox;
        let dropped: usize = notices
            .iter()
            .filter(|notice| hook.wants(notice.event))
            .map(|notice| outbox.put(app.now(), notice.clone()))
            .sum();
        if dropped > 0 {
            log::error!("webhook {}: {dropped} notices were dropped because too many wait", hook.url);
        }
    }
}

fn settle(hook: &mut Hook, config: &HookConfig, result: Posted, now: Duration) {
    hook.busy = false;
    let (how, why) = match result {
        Ok(()) => (Sent::Taken, String::new()),
        Err((how, why)) => (how, why),
    };
    if hook.outbox.sent(now, how) {
        log::error!(
            "webhook {}: {why}. The notice is dropped. Look at [[webhook]] and its receiver",
            config.url
        );
    } else if how == Sent::NotNow {
        log::warn!("webhook {}: {why}. It is tried again", config.url);
    }
}

fn post(agent: &Agent, config: &HookConfig, notice: &Notice) -> Posted {
    let body = serde_json::to_vec(notice).map_err(|e| (Sent::Refused, e.to_string()))?;
    let mut request = agent.post(config.url.whole()).content_type("application/json");
    if let Some(path) = &config.token_file {
        let text = std::fs::read_to_string(path)
            .map_err(|e| (Sent::NotNow, format!("reading its token_file {}: {e}", path.display())))?;
        let token = text.lines().next().unwrap_or_default().trim();
        request = request.header("authorization", format!("Bearer {token}"));
    }
    match request.send(body.as_slice()) {
        Ok(answer) => judge(answer.status().as_u16()),
        Err(e) => Err((Sent::NotNow, e.to_string())),
    }
}

/// What a status means for a notice.
fn judge(status: u16) -> Posted {
    let why = format!("it answers with status {status}");
    match status {
        200..=299 => Ok(()),
        // A timeout and too many requests pass; all others of the caller's mistakes stay.
        400..=499 if ![408, 425, 429].contains(&status) => Err((Sent::Refused, why)),
        _ => Err((Sent::NotNow, why)),
    }
}

/// A client that trusts the machine's certificates, and follows no redirect: a post would become a GET.
fn agent() -> Agent {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = TlsConfig::builder()
        .provider(TlsProvider::Rustls)
        .root_certs(RootCerts::PlatformVerifier)
        .unversioned_rustls_crypto_provider(provider)
        .build();
    let settings = Agent::config_builder()
        .tls_config(tls)
        .timeout_global(Some(POST))
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .user_agent(concat!("flashmob/", env!("CARGO_PKG_VERSION")));
    settings.build().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_may_pass_is_tried_again() {
        assert_eq!(judge(204), Ok(()));
        let how = |status| judge(status).expect_err("bad").0;
        for (status, wanted) in [
            (404, Sent::Refused),
            (400, Sent::Refused),
            (429, Sent::NotNow),
            (503, Sent::NotNow),
            (302, Sent::NotNow),
        ] {
            assert_eq!(how(status), wanted, "{status}");
        }
    }
}
