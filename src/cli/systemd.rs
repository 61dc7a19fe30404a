//! What `flashmob serve` tells the service manager (sd_notify(3)): ready, reloading, stopping, alive, and a
//! line for `systemctl status`.
//!
//! Invariant: a server that no service manager started sends nothing. A message that cannot be sent is a
//! warning, because the lab matters more than its supervisor.

use std::time::Duration;

use sd_notify::NotifyState;

/// How often the line for `systemctl status` is brought up to date without a watchdog.
const REFRESH: Duration = Duration::from_secs(10);

/// The service manager that started this process, if one did.
#[derive(Debug, Default)]
pub(super) struct Manager {
    /// The line that it has.
    status: String,
}

impl Manager {
    /// How often to call [`Manager::alive`]: twice in each watchdog period, at most every 10 s.
    pub(super) fn period() -> Duration {
        sd_notify::watchdog_enabled().map_or(REFRESH, |watchdog| (watchdog / 2).min(REFRESH))
    }

    pub(super) fn starting(&mut self) {
        self.send(&[], "checking the database and the images");
    }

    /// The server answers with the present configuration.
    pub(super) fn ready(&mut self, status: &str) {
        self.send(&[NotifyState::Ready], status);
    }

    /// The configuration is about to be read again; `ready` must follow.
    pub(super) fn reloading(&mut self) {
        match NotifyState::monotonic_usec_now() {
            Ok(now) => self.send(&[NotifyState::Reloading, now], "reading the configuration"),
            Err(error) => log::warn!("reading the clock for the service manager: {error}"),
        }
    }

    /// Resets the watchdog.
    pub(super) fn alive(&mut self, status: &str) {
        self.send(&[NotifyState::Watchdog], status);
    }

    pub(super) fn stopping(&mut self) {
        self.send(&[NotifyState::Stopping], "letting answers finish, storing changes");
    }

    fn send(&mut self, states: &[NotifyState<'_>], status: &str) {
        let mut message = states.to_vec();
        if self.status != status {
            message.push(NotifyState::Status(status));
        }
        match sd_notify::notify(&message) {
            Ok(()) => self.status = status.to_string(),
            Err(error) => log::warn!("telling the service manager: {error}"),
        }
    }
}
