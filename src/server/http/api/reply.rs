//! Shared by the handlers of the API: reading a call, refusing it, waiting for the database.
//!
//! Invariant: every error is a [`Refusal`] with advice.

use crate::api::Refusal;
use crate::server::app::App;
use crate::server::domain::lab::ReportError;
use crate::server::domain::targets::NotOne;
use crate::server::domain::tickets;
use crate::server::store::StoreError;
use axum::Json;
use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use std::sync::Arc;
use std::time::Duration;

pub(super) type Shared = State<Arc<App>>;

pub(super) type Body<T> = Result<Json<T>, JsonRejection>;

/// A refusal with its status.
pub struct Error {
    status: StatusCode,
    refusal: Refusal,
    /// When the call may succeed.
    wait: Option<Duration>,
}

impl Error {
    /// The caller has to wait.
    pub(crate) fn too_much(what: String, wait: Duration, advice: &str) -> Error {
        let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        let advice = format!("Try again in {seconds} s. {advice}");
        let refusal = Refusal { error: what, advice };
        Error { status: StatusCode::TOO_MANY_REQUESTS, refusal, wait: Some(Duration::from_secs(seconds)) }
    }
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(self.refusal)).into_response();
        if self.status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Some(wait) = self.wait {
            response.headers_mut().insert(header::RETRY_AFTER, wait.as_secs().into());
        }
        response
    }
}

pub(super) fn error(status: StatusCode, error: impl Into<String>, advice: impl Into<String>) -> Error {
    Error { status, refusal: Refusal { error: error.into(), advice: advice.into() }, wait: None }
}

pub(super) fn conflict(refusal: Refusal) -> Error {
    Error { status: StatusCode::CONFLICT, refusal, wait: None }
}

/// The body of a call.
pub(super) fn read<T>(body: Body<T>) -> Result<T, Error> {
    let advice = "Use an agent of the same version as the server.";
    body.map(|Json(value)| value).map_err(|e| error(e.status(), e.body_text(), advice))
}

/// 128 random bits in hexadecimal.
pub(super) fn random_secret() -> Result<String, Error> {
    random::<16>().map(|bytes| tickets::hex(&bytes))
}

/// Six random digits, for people to compare.
pub(super) fn random_code() -> Result<String, Error> {
    // The bias of the remainder is negligible.
    random().map(|bytes| format!("{:06}", u64::from_le_bytes(bytes) % 1_000_000))
}

fn random<const N: usize>() -> Result<[u8; N], Error> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|e| {
        error(StatusCode::INTERNAL_SERVER_ERROR, format!("no random number: {e}"), "Look at the server.")
    })?;
    Ok(bytes)
}

/// Waits until the changes are on the disk. When they are not, the store writes them later, unless it refused
/// them.
pub(super) async fn keep(saved: impl Future<Output = Result<(), StoreError>>) -> Result<(), Error> {
    saved.await.map_err(|e| match e {
        StoreError::Refused { .. } | StoreError::Lost => unkept(&e),
        _ => {
            let advice = "It is in force all the same, and is stored when the database can be written: look \
                          before you repeat it.";
            error(StatusCode::SERVICE_UNAVAILABLE, e.to_string(), format!("{} {advice}", e.advice()))
        }
    })
}

/// The refusal of a call that the database could not carry out.
pub(super) fn unkept(e: &StoreError) -> Error {
    error(StatusCode::SERVICE_UNAVAILABLE, e.to_string(), e.advice())
}

/// Nobody, or more than one terminal, has this name.
pub(super) fn stranger(name: &str, why: &NotOne) -> Error {
    let status = match why {
        NotOne::Nobody(_) => StatusCode::NOT_FOUND,
        NotOne::Several(_) | NotOne::Claimed(_) => StatusCode::CONFLICT,
    };
    Error { status, refusal: why.refusal(name), wait: None }
}

/// Why a report is not taken, for its terminal.
pub(super) fn not_taken(why: ReportError) -> Error {
    let status = match why {
        ReportError::Unknown => StatusCode::NOT_FOUND,
        ReportError::WrongToken => StatusCode::FORBIDDEN,
    };
    error(status, why.to_string(), "Restart the terminal: it will ask for its job again.")
}
