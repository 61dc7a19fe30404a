//! The attempt's log on its way to the server.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::http::{HeaderMap, StatusCode, Uri};

use super::tests::never;
use super::*;
use crate::agent::journal::Journal;
use crate::api::{MAX_PACKED_LOG, Personal, TOKEN_HEADER};
use crate::event::Class;
use crate::io::host::mirror::Unfinished;
use crate::io::net::api_client::client;
use crate::testkit::attempts::{Disk, PACE, Pretend, assignment};

/// Path and unpacked log of each call.
type Logs = Arc<Mutex<Vec<(String, String)>>>;

/// A server that answers log calls with `status` and releases every terminal.
async fn server(status: StatusCode) -> (Api, Logs) {
    let logs = Logs::default();
    let heard = Arc::clone(&logs);
    let handler = move |uri: Uri, headers: HeaderMap, body: Bytes| {
        let path = uri.path().to_owned();
        let answer = if path.ends_with("/log") {
            assert_eq!(headers[TOKEN_HEADER], "secret-of-attempt");
            assert!(body.len() <= MAX_PACKED_LOG);
            let text = zstd::bulk::decompress(&body, MAX_LOG).unwrap();
            heard.lock().unwrap().push((path, String::from_utf8(text).unwrap()));
            (status, "")
        } else {
            (
                StatusCode::OK,
                if path.ends_with("/outcome") { r#"{"release":true,"cancel":false}"# } else { KEEP },
            )
        };
        std::future::ready(answer)
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async { axum::serve(listener, Router::new().fallback(handler)).await });
    (Api::new(client().unwrap(), url), logs)
}

const KEEP: &str = r#"{"release":false,"cancel":false}"#;

/// Works until it is dropped.
struct Endless;

impl Imager for Endless {
    type Held = Disk;

    async fn run(&self, _: &str, _: &Assignment) -> Result<Disk, (Failure, bool)> {
        std::future::pending().await
    }

    async fn check(&self, _: &str, _: &Assignment) -> Result<Checked, Failure> {
        std::future::pending().await
    }
}

fn mine() -> Assignment {
    Assignment { token: "secret-of-attempt".into(), ..assignment(3600) }
}

#[tokio::test]
async fn the_server_gets_all_lines_of_an_attempt_and_never_its_token() {
    for failing in [vec![], vec![(Class::Disk, true)]] {
        let (api, logs) = server(StatusCode::NO_CONTENT).await;
        let status = Status::new();
        status.note("a line with secret-of-attempt in it");
        let fails = !failing.is_empty();
        run(&api, &mine(), &Pretend::failing(failing), &status, PACE, never()).await;
        let logs = logs.lock().unwrap();
        let (path, last) = logs.last().expect("a log");
        assert_eq!(path, "/api/v1/attempts/3/log");
        assert!(
            last.contains("attempt 3 of job j begins") && last.contains("a line with ••• in it"),
            "{last}"
        );
        assert!(
            last.contains(if fails {
                "] failed while looking for the server: it went wrong. do this"
            } else {
                "leaving"
            }),
            "{last}"
        );
        assert!(logs.iter().all(|(_, log)| !log.contains("secret-of-attempt")));
    }
}

#[tokio::test]
async fn no_ticket_of_an_attempt_is_in_its_log() {
    let (api, _) = server(StatusCode::NO_CONTENT).await;
    let mut assignment = mine();
    assignment.also = vec![assignment.task.clone()];
    for (n, task) in assignment.tasks_mut().enumerate() {
        task.ticket = Some(format!("ticket-of-task-{n}"));
    }
    assignment.personal = Some(Personal { ticket: "ticket-of-start".into(), ..Personal::default() });
    let status = Status::new();
    Reporter::begin(&api, &assignment, &status, PACE, watch::channel(Orders::default()).0);
    status.note("t=ticket-of-task-0 t=ticket-of-task-1 t=ticket-of-start");
    let log = status.journal().text(MAX_LOG);
    assert!(log.contains("t=••• t=••• t=•••"), "{log}");
}

#[tokio::test]
async fn the_server_has_the_latest_lines_while_the_attempt_goes_on() {
    let (api, logs) = server(StatusCode::NO_CONTENT).await;
    let status = Status::new();
    let (assignment, imager) = (mine(), Endless);
    let work = run(&api, &assignment, &imager, &status, PACE, never());
    let watch = async {
        let came = |text: &str| logs.lock().unwrap().iter().filter(|(_, log)| log.contains(text)).count();
        while came("begins") == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        status.note("something new");
        while came("something new") == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let calls = logs.lock().unwrap().len();
        tokio::time::sleep(PACE.log * 4).await;
        assert_eq!(logs.lock().unwrap().len(), calls, "nothing is new");
    };
    tokio::select! {
        _ = work => panic!("it never ends"),
        () = watch => {}
    }
}

#[tokio::test]
async fn a_server_that_takes_no_logs_is_asked_once() {
    let (api, logs) = server(StatusCode::NOT_FOUND).await;
    let status = Status::new();
    // Not `run`: it may drop a call whose answer is on its way, and then asks again with good reason.
    let reporter = Reporter::begin(&api, &mine(), &status, PACE, watch::channel(Orders::default()).0);
    reporter.log(MAX_LOG).await;
    status.note("something new");
    reporter.log(MAX_LOG).await;
    reporter.end().await;
    assert_eq!(logs.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn the_worker_after_a_crash_hands_over_the_log_of_the_attempt_that_crashed() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("journal");
    let (api, logs) = server(StatusCode::NO_CONTENT).await;
    let crashed = Journal::with_file(&file);
    crashed.say("the last line before the crash");
    let server = api.base().to_owned();
    crashed.attempt(Some(&Unfinished { server, attempt: 7, token: "secret-of-attempt".into() }));

    let status = Status::with_journal(Journal::with_file(&file));
    tell_crash(&api, &status).await;
    tell_crash(&api, &status).await;
    let told = logs.lock().unwrap().clone();
    assert_eq!(told.len(), 1, "once");
    assert!(told[0].0 == "/api/v1/attempts/7/log" && told[0].1.contains("the last line before the crash"));

    run(&api, &mine(), &Pretend::failing(vec![]), &status, PACE, never()).await;
    let next = Status::with_journal(Journal::with_file(&file));
    tell_crash(&api, &next).await;
    assert!(logs.lock().unwrap().iter().skip(1).all(|(path, _)| path == "/api/v1/attempts/3/log"));
}
