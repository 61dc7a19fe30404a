//! Calls of the administrator's commands to a running server.
//!
//! Invariant: a refusal of the server reaches the person with its advice; where no server answers, the advice
//! names the option that chooses another one.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use reqwest::header::CONTENT_TYPE;
use reqwest::{Client, Method, RequestBuilder, Response, StatusCode, Url};
use serde_json::Value;

use crate::api::Refusal;
use crate::event::{Class, Failure};
use crate::io::net::token_file;
use crate::io::net::tracker_client::why;

pub(super) const DEFAULT_SERVER: &str = "http://127.0.0.1:6969";
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// The server to ask.
#[derive(Debug, Args)]
pub(crate) struct ServerArg {
    /// Address of the server.
    #[arg(long, value_name = "URL", default_value = DEFAULT_SERVER)]
    server: String,
    /// File with your token, on another machine than the server [default: the file that FLASHMOB_TOKEN_FILE
    /// names, else ~/.config/flashmob/token].
    #[arg(long, value_name = "FILE")]
    token: Option<PathBuf>,
}

/// The request with the person's token, if there is one.
pub(super) fn signed(request: RequestBuilder, token: Option<&Path>) -> Result<RequestBuilder, Failure> {
    Ok(match token_file::token(token)? {
        Some(token) => request.bearer_auth(token),
        None => request,
    })
}

/// Asks a server for something small.
pub(super) async fn ask(
    server: &ServerArg,
    method: Method,
    path: &[impl AsRef<str>],
    query: Option<&str>,
) -> Result<Response, Failure> {
    let mut url = url_of(&server.server, path)?;
    url.set_query(query);
    call(server, method, url, |request| request).await
}

/// The form of a call's body.
#[derive(Debug, Clone, Copy)]
pub(super) enum Content {
    Json,
    Csv,
}

/// The body of a call.
pub(super) fn json_of(value: &impl serde::Serialize) -> Result<Vec<u8>, Failure> {
    serde_json::to_vec(value).map_err(|e| {
        Failure::usage(format!("the call has no form: {e}"), "This is a bug in flashmob: report it.")
    })
}

/// Sends a server something small.
pub(super) async fn send(
    server: &ServerArg,
    method: Method,
    path: &[impl AsRef<str>],
    (content, body): (Content, Vec<u8>),
) -> Result<Response, Failure> {
    let kind = match content {
        Content::Json => "application/json",
        Content::Csv => "text/csv",
    };
    let url = url_of(&server.server, path)?;
    call(server, method, url, |request| request.header(CONTENT_TYPE, kind).body(body)).await
}

async fn call(
    server: &ServerArg,
    method: Method,
    url: Url,
    fill: impl FnOnce(RequestBuilder) -> RequestBuilder,
) -> Result<Response, Failure> {
    let address = &server.server;
    let client = Client::builder().timeout(PATIENCE).no_proxy().build();
    let client = client.map_err(|e| away(address, &e))?;
    let response = fill(signed(client.request(method, url), server.token.as_deref())?)
        .send()
        .await
        .map_err(|e| away(address, &e))?;
    accepted(address, response).await
}

/// The query with these names and values; `None` without any.
pub(super) fn query_of<'a>(pairs: impl Iterator<Item = (&'a str, &'a str)>) -> Option<String> {
    let mut url = Url::parse(DEFAULT_SERVER).ok()?;
    url.query_pairs_mut().extend_pairs(pairs);
    url.query().filter(|query| !query.is_empty()).map(str::to_owned)
}

/// The address of a call to the server at `address`.
pub(super) fn url_of(address: &str, path: &[impl AsRef<str>]) -> Result<Url, Failure> {
    let usage = |why: String| {
        Failure::usage(
            format!("'{address}' is not a server's address: {why}"),
            format!("For example --server {DEFAULT_SERVER}"),
        )
    };
    let mut url = Url::parse(address).map_err(|e| usage(e.to_string()))?;
    url.path_segments_mut().map_err(|()| usage("it has no host".into()))?.pop_if_empty().extend(path);
    Ok(url)
}

/// The failure of a call that got no answer.
pub(super) fn away(address: &str, e: &reqwest::Error) -> Failure {
    let advice = "Is 'flashmob serve' running there? Name another address with --server URL.";
    Failure::retry(format!("asking {address}: {}", why(e)), advice)
}

/// The answer if it is no refusal.
pub(super) async fn accepted(address: &str, response: Response) -> Result<Response, Failure> {
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let class = match status {
        StatusCode::NOT_FOUND => Class::Usage,
        StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS => Class::Retry,
        _ => Class::Refused,
    };
    let text = text_of(response).await?;
    Err(match understand::<Refusal>(&text) {
        Ok(refusal) => Failure::new(class, refusal.error, refusal.advice),
        Err(_) => Failure::new(class, format!("{address} answered {status}"), "Is that a flashmob server?"),
    })
}

pub(super) async fn text_of(response: Response) -> Result<String, Failure> {
    response.text().await.map_err(|e| {
        Failure::retry(
            format!("reading the answer: {e}"),
            "Check that the server runs, and repeat the command.",
        )
    })
}

/// What the server answers, for people: some of its words come from terminals, and anybody can say that he is
/// one. Without control characters they move no cursor and change no title of the administrator's terminal.
pub(super) fn understand<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, Failure> {
    let read = serde_json::from_str(text).and_then(|mut value| {
        calm(&mut value);
        serde_json::from_value(value)
    });
    read.map_err(|e| Failure::usage(format!("the answer is not a flashmob server's: {e}"), "Check --server."))
}

fn calm(value: &mut Value) {
    let moves = |c: char| c.is_control() && c != '\n';
    match value {
        Value::String(text) if text.contains(moves) => *text = text.replace(moves, " "),
        Value::Array(list) => list.iter_mut().for_each(calm),
        Value::Object(fields) => fields.values_mut().for_each(calm),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::TerminalView;

    #[test]
    fn the_words_of_terminals_move_no_cursor() {
        let said = r#"{"error":"a\u001b[2J\u009b1m\tb\n","advice":"\u001b]0;owned\u0007"}"#;
        let Refusal { error, advice } = understand(said).expect("a refusal");
        assert_eq!((error.as_str(), advice.as_str()), ("a [2J 1m b\n", " ]0;owned "));
        assert!(understand::<Vec<TerminalView>>("[{}]").is_err());
        assert_eq!(understand::<Vec<u64>>("[18446744073709551615]").expect("numbers"), [u64::MAX]);
    }
}
