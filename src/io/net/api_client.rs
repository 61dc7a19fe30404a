//! The terminal's side of `/api/v1/`: JSON calls to one server.
//!
//! Invariant: every call ends within its time, and no server can make the terminal read more than
//! [`LARGEST_ANSWER`]. `agent` decides when to call.

use std::time::Duration;

use reqwest::{Client, RequestBuilder, Response, StatusCode, header};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::api::{
    Assignment, BootStep, Hello, Lend, LendOffer, LendOrders, LendReport, Orders, OutcomeReport,
    PersonalReport, ProgressReport, Refusal, TOKEN_HEADER, Take, Welcome,
};
use crate::io::net::credentials::Credentials;
use crate::io::net::tracker_client::why;

/// Bytes of the longest answer that is read.
pub(crate) const LARGEST_ANSWER: usize = 1 << 20;
/// A server that does not accept a connection within this time is away.
const CONNECT: Duration = Duration::from_secs(5);
/// A call that takes longer has failed.
const CALL: Duration = Duration::from_secs(10);
/// No busy server makes a terminal wait longer before it asks again.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// Why a call brought no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// No server answers at that address.
    #[error("{url} cannot be reached: {why}")]
    Away { url: String, why: String },
    /// Somebody answers, but not as a flashmob server would.
    #[error("{url} is not a flashmob server: {why}")]
    Stranger {
        url: String,
        /// Its answer instead.
        why: String,
    },
    /// The server says no.
    #[error("{0}")]
    Refused(Rejected),
    /// The server says that the same call succeeds later, because this address asks too much.
    #[error("{rejected}")]
    Busy {
        rejected: Rejected,
        /// When, if the server says so.
        wait: Option<Duration>,
    },
}

/// A server's no, with its reason and advice.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the server refuses ({status}): {error}")]
pub struct Rejected {
    /// HTTP status.
    pub status: u16,
    /// The problem.
    pub error: String,
    /// The remedy for people; may be empty.
    pub advice: String,
}

/// Answer to [`Api::take`].
#[derive(Debug, Clone, PartialEq)]
pub enum Taken {
    /// This is to be done.
    Job(Box<Assignment>),
    /// A disk is to be lent.
    Lend(LendOffer),
    /// There is nothing to do.
    Nothing,
}

#[derive(Debug, Clone)]
pub struct Api {
    http: Client,
    base: String,
    credentials: Credentials,
}

/// The HTTP client that all calls share; proxies of the environment are not for the lab's network.
pub(crate) fn client() -> Result<Client, reqwest::Error> {
    Client::builder()
        .no_proxy()
        .connect_timeout(CONNECT)
        .user_agent(concat!("flashmob-agent/", env!("CARGO_PKG_VERSION")))
        .build()
}

impl Api {
    /// The API of the server at `base`: `http://HOST:PORT`, without a final slash.
    pub fn new(http: Client, base: impl Into<String>) -> Self {
        Api { http, base: base.into(), credentials: Credentials::default() }
    }

    /// The same with what the caller presents.
    pub fn with(self, credentials: Credentials) -> Self {
        Api { credentials, ..self }
    }

    pub fn base(&self) -> &str {
        &self.base
    }

    /// Introduces this terminal. A server that does not answer as flashmob is a stranger.
    pub async fn hello(&self, hello: &Hello, within: Duration) -> Result<Welcome, CallError> {
        let stranger = |why: String| CallError::Stranger { url: self.base.clone(), why };
        let response = match self.vouched("/api/v1/hello", hello, within).await {
            Err(CallError::Refused(r) | CallError::Busy { rejected: r, .. }) if r.advice.is_empty() => {
                return Err(stranger(r.error));
            }
            other => other?,
        };
        let mut welcome: Welcome = self.read(response).await?;
        if welcome.service != "flashmob" {
            return Err(stranger(format!("it says that it is '{}'", welcome.service)));
        }
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | ':' | '.' | '_');
        if welcome.terminal.is_empty() || !welcome.terminal.chars().all(plain) {
            return Err(stranger(format!("it calls this terminal '{}'", welcome.terminal)));
        }
        if let Some(secret) = welcome.secret.take() {
            self.credentials.keep(&self.base, secret);
        }
        Ok(welcome)
    }

    /// Asks what this machine does at its start, as a boot script would.
    pub(crate) async fn at_boot(&self, hello: &Hello, within: Duration) -> Result<BootStep, CallError> {
        let mac = hello.macs.first().map_or("", String::as_str);
        let uuid = hello.uuid.as_deref().unwrap_or_default();
        let url = format!("{}/boot/step?mac={mac}&uuid={uuid}", self.base);
        let response = self.send(self.http.get(url).timeout(within)).await?;
        self.read(response).await
    }

    /// Asks for work.
    pub async fn take(&self, terminal: &str, take: &Take) -> Result<Taken, CallError> {
        let response = self.vouched(&format!("/api/v1/terminals/{terminal}/take"), take, CALL).await?;
        if response.status() == StatusCode::NO_CONTENT {
            return Ok(Taken::Nothing);
        }
        let body = self.body(response).await?;
        if let Ok(Lend { lend }) = serde_json::from_slice(&body) {
            return Ok(Taken::Lend(lend));
        }
        Ok(Taken::Job(Box::new(self.parse(&body)?)))
    }

    /// Says how far the attempt is.
    pub async fn progress(&self, attempt: u64, report: &ProgressReport) -> Result<Orders, CallError> {
        let path = format!("/api/v1/attempts/{attempt}/progress");
        let response = self.post(&path, report, CALL, None).await?;
        self.read(response).await
    }

    /// Says how the attempt ended.
    pub async fn outcome(&self, attempt: u64, report: &OutcomeReport) -> Result<Orders, CallError> {
        let path = format!("/api/v1/attempts/{attempt}/outcome");
        let response = self.post(&path, report, CALL, None).await?;
        self.read(response).await
    }

    /// Says how far the terminal's own system is.
    pub(crate) async fn personal(&self, attempt: u64, report: &PersonalReport) -> Result<(), CallError> {
        let path = format!("/api/v1/attempts/{attempt}/personal");
        self.post(&path, report, CALL, None).await.map(drop)
    }

    /// Says how the lending of a disk goes.
    pub(crate) async fn lending(&self, capture: u64, report: &LendReport) -> Result<LendOrders, CallError> {
        let path = format!("/api/v1/captures/{capture}/lending");
        let response = self.post(&path, report, CALL, None).await?;
        self.read(response).await
    }

    /// Hands over the attempt's log, a zstd frame.
    pub(crate) async fn log(&self, attempt: u64, token: &str, log: Vec<u8>) -> Result<(), CallError> {
        let request = self.http.post(format!("{}/api/v1/attempts/{attempt}/log", self.base));
        let request = request.header(TOKEN_HEADER, token).header(header::CONTENT_TYPE, "application/zstd");
        self.send(request.body(log).timeout(CALL)).await.map(drop)
    }

    /// Posts with what this terminal presents, the next if the server does not take the first.
    async fn vouched(
        &self,
        path: &str,
        body: &impl Serialize,
        within: Duration,
    ) -> Result<Response, CallError> {
        let mut vouchers = self.credentials.for_server(&self.base).into_iter().peekable();
        loop {
            let voucher = vouchers.next().flatten();
            match self.post(path, body, within, voucher.as_deref()).await {
                Err(CallError::Refused(rejected))
                    if rejected.status == StatusCode::UNAUTHORIZED.as_u16() && vouchers.peek().is_some() => {}
                answer => return answer,
            }
        }
    }

    /// Posts JSON.
    async fn post(
        &self,
        path: &str,
        body: &impl Serialize,
        within: Duration,
        voucher: Option<&str>,
    ) -> Result<Response, CallError> {
        let url = format!("{}{path}", self.base);
        let mut request = self.http.post(&url).json(body).timeout(within);
        if let Some(voucher) = voucher {
            request = request.header(header::AUTHORIZATION, voucher);
        }
        self.send(request).await
    }

    /// Calls; anything but a success is an error.
    async fn send(&self, request: RequestBuilder) -> Result<Response, CallError> {
        let response = request.send().await.map_err(|e| self.away(&e))?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let wait = response.headers().get(header::RETRY_AFTER).and_then(|value| value.to_str().ok());
        let wait = wait.and_then(|seconds| seconds.parse().ok());
        let wait = wait.map(|seconds| Duration::from_secs(seconds).min(LONGEST_WAIT));
        let body = self.body(response).await.unwrap_or_default();
        let refusal = serde_json::from_slice::<Refusal>(&body)
            .unwrap_or_else(|_| Refusal { error: status.to_string(), advice: String::new() });
        let rejected = Rejected { status: status.as_u16(), error: refusal.error, advice: refusal.advice };
        Err(match status {
            StatusCode::TOO_MANY_REQUESTS => CallError::Busy { rejected, wait },
            _ => CallError::Refused(rejected),
        })
    }

    async fn read<T: DeserializeOwned>(&self, response: Response) -> Result<T, CallError> {
        self.parse(&self.body(response).await?)
    }

    fn parse<T: DeserializeOwned>(&self, body: &[u8]) -> Result<T, CallError> {
        serde_json::from_slice(body).map_err(|e| CallError::Stranger {
            url: self.base.clone(),
            why: format!("unreadable answer: {e}"),
        })
    }

    async fn body(&self, mut response: Response) -> Result<Vec<u8>, CallError> {
        let mut body = Vec::new();
        while let Some(bytes) = response.chunk().await.map_err(|e| self.away(&e))? {
            body.extend_from_slice(&bytes);
            if body.len() > LARGEST_ANSWER {
                let why = format!("its answer is longer than {LARGEST_ANSWER} bytes");
                return Err(CallError::Stranger { url: self.base.clone(), why });
            }
        }
        Ok(body)
    }

    fn away(&self, error: &reqwest::Error) -> CallError {
        CallError::Away { url: self.base.clone(), why: why(error) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testkit::http::{nobody, serve};

    fn hello() -> Hello {
        Hello { uuid: None, macs: vec![], inventory: Default::default(), agent: "1".into() }
    }

    async fn ask(status: u16, body: &str) -> Result<Welcome, CallError> {
        let body = body.to_owned();
        let url = serve(move |_, _| (status, body.clone())).await;
        Api::new(client().unwrap(), url).hello(&hello(), Duration::from_secs(20)).await
    }

    #[tokio::test]
    async fn only_flashmob_is_welcome() {
        let good = r#"{"service":"flashmob","version":"1","terminal":"t-1","label":null,"new":1}"#;
        assert_eq!(ask(200, good).await.unwrap().terminal, "t-1");
        for (status, body) in [
            (200, "<html>It works!</html>"),
            (404, "not found"),
            (200, r#"{"service":"other","version":"1","terminal":"t"}"#),
            (200, r#"{"service":"flashmob","version":"1","terminal":"../x"}"#),
            (200, &" ".repeat(LARGEST_ANSWER + 1)),
        ] {
            let error = ask(status, body).await.unwrap_err();
            assert!(matches!(error, CallError::Stranger { .. }), "{error}");
        }
    }

    #[tokio::test]
    async fn a_refusal_keeps_its_reason_and_advice() {
        let url = serve(|_, _| (409, r#"{"error":"two jobs","advice":"remove one"}"#.into())).await;
        let api = Api::new(client().unwrap(), url);
        let error = api.take("t", &Take::default()).await.unwrap_err();
        let CallError::Refused(rejected) = error else { panic!("{error}") };
        assert_eq!((rejected.status, rejected.advice.as_str()), (409, "remove one"));
        assert_eq!(rejected.to_string(), "the server refuses (409): two jobs");
    }

    #[tokio::test]
    async fn a_server_that_asks_for_patience_is_busy_and_has_not_refused() {
        let answer = r#"{"error":"too many new terminals","advice":"Try again in 5 s."}"#;
        let error = ask(429, answer).await.unwrap_err();
        let CallError::Busy { rejected, wait } = error else { panic!("{error}") };
        assert_eq!((rejected.error.as_str(), wait), ("too many new terminals", Some(Duration::ZERO)));
        assert!(
            matches!(ask(429, "slow down").await, Err(CallError::Stranger { .. })),
            "not flashmob's words"
        );
    }

    #[tokio::test]
    async fn nothing_to_do_is_no_error() {
        let url =
            serve(|path, _| (if path == "/api/v1/terminals/t/take" { 204 } else { 500 }, String::new()))
                .await;
        let api = Api::new(client().unwrap(), url);
        assert_eq!(api.take("t", &Take::default()).await, Ok(Taken::Nothing));
    }

    #[tokio::test]
    async fn a_server_that_is_not_there_is_away_with_a_reason() {
        let (_held, url) = nobody();
        let error =
            Api::new(client().unwrap(), url).hello(&hello(), Duration::from_secs(20)).await.unwrap_err();
        assert!(error.to_string().contains("refused"), "{error}");
    }
}
