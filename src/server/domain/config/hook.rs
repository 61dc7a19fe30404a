//! `[[webhook]]`: an address that is told what happens in the lab.
//!
//! Invariant: such an address may be a secret by itself (chat services put one into the path), so that only
//! its scheme and host are ever shown.

use std::fmt;
use std::path::PathBuf;

use serde::Deserialize;
use ureq::http::Uri;

use crate::server::domain::notices::Kind;

/// Most addresses that are told.
const MOST: usize = 16;

/// An address, and what it is told.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct HookConfig {
    pub(crate) url: HookUrl,
    /// Nothing named: everything.
    #[serde(default)]
    pub(crate) on: Vec<Kind>,
    /// File whose first line is sent as `Authorization: Bearer …`.
    pub(crate) token_file: Option<PathBuf>,
}

impl HookConfig {
    pub(crate) fn wants(&self, kind: Kind) -> bool {
        self.on.is_empty() || self.on.contains(&kind)
    }
}

/// The address of a webhook, `http` or `https`.
#[derive(Clone, PartialEq, Eq, Hash, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct HookUrl(String);

impl HookUrl {
    /// With its secrets, to connect to it.
    pub(crate) fn whole(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for HookUrl {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let uri: Uri = text.parse().map_err(|e| format!("webhook: the url is not one: {e}"))?;
        match (uri.scheme_str(), uri.host()) {
            (Some("http" | "https"), Some(_)) => Ok(HookUrl(text)),
            _ => Err("webhook: the url must begin with http:// or https:// and a host".into()),
        }
    }
}

impl fmt::Display for HookUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let uri: Uri = self.0.parse().map_err(|_| fmt::Error)?;
        let (scheme, host) = (uri.scheme_str().unwrap_or_default(), uri.host().unwrap_or_default());
        let port = uri.port().map_or_else(String::new, |port| format!(":{port}"));
        write!(f, "{scheme}://{host}{port}/…")
    }
}

impl fmt::Debug for HookUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

pub(super) fn check(hooks: &[HookConfig]) -> Result<(), String> {
    if hooks.len() > MOST {
        return Err(format!("{} webhooks are configured, and at most {MOST} can be", hooks.len()));
    }
    match hooks.iter().enumerate().find(|(i, hook)| hooks[..*i].iter().any(|other| other.url == hook.url)) {
        Some((_, twice)) => Err(format!("the webhook {} is there twice", twice.url)),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Config;
    use super::*;

    #[test]
    fn a_webhook_hears_what_it_names_and_shows_no_secret() {
        let text = "[[webhook]]\nurl = 'https://u:p@chat.example:8443/hooks/SECRET?k=SECRET'\n\
                    on = ['job-done']\n";
        let config = Config::parse(text).expect("good");
        let [hook] = config.webhooks.as_slice() else { panic!("{config:?}") };
        assert!(hook.wants(Kind::JobDone));
        assert!(!hook.wants(Kind::TerminalFailed));
        assert_eq!(hook.url.to_string(), "https://chat.example:8443/…");
        assert!(!format!("{config:?}").contains("SECRET"));
    }

    #[test]
    fn an_address_that_cannot_be_posted_to_is_refused() {
        for (text, words) in [
            ("url = '/x'", "must begin with"),
            ("url = 'ftp://chat.example/x'", "must begin with"),
            ("url = 'https:// x'", "not one"),
            ("url = 'https://a/'\non = ['everything']", "everything"),
            ("url = 'https://a/'\n[[webhook]]\nurl = 'https://a/'", "twice"),
        ] {
            let error = Config::parse(&format!("[[webhook]]\n{text}\n")).expect_err(text);
            assert!(error.contains(words), "{text}: {error}");
        }
    }
}
