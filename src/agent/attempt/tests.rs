//! Attempts with an imager that only pretends, against servers of a few lines.

use super::*;
use crate::api::{Compare, DiskInfo, Personal};
use crate::io::net::api_client::client;
use crate::layout::personal::{Part, Places};
use crate::manifest::Role;
use crate::testkit::attempts::{Disk, PACE, Pretend, assignment};
use crate::testkit::http::{nobody, serve};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

/// A server that records its calls and answers outcomes and later progress with `orders`.
async fn server(orders: &str) -> (Api, Arc<Mutex<Vec<String>>>) {
    let heard = Arc::new(Mutex::new(Vec::new()));
    let (notes, orders) = (heard.clone(), orders.to_owned());
    let url = serve(move |path, body| {
        assert!(body.contains("\"token\":\"secret\""));
        let mut notes = notes.lock().unwrap();
        let told = path.ends_with("/outcome") || notes.iter().any(|n: &String| n.contains("/outcome"));
        notes.push(format!("{path} {body}"));
        (200, if told { orders.clone() } else { r#"{"release":false,"cancel":false}"#.into() })
    })
    .await;
    (Api::new(client().unwrap(), url), heard)
}

pub(super) async fn never() {
    std::future::pending().await
}

#[tokio::test]
async fn a_terminal_stays_until_the_server_releases_it() {
    let (api, heard) = server(r#"{"release":true,"cancel":false}"#).await;
    let imager = Pretend::failing(vec![(Class::Retry, true)]);
    let status = Status::new();
    let ended = run(&api, &assignment(3600), &imager, &status, PACE, never()).await;
    assert_eq!(ended, Ended::Done(Next::Firmware));
    assert_eq!(imager.runs.load(Ordering::SeqCst), 2, "what can be tried again is tried again");
    assert!(matches!(status.view().outcome, Some(Outcome::Done { bytes_in: 7, .. })));
    let heard = heard.lock().unwrap();
    let outcome = heard.iter().find(|h| h.starts_with("/api/v1/attempts/3/outcome")).unwrap();
    assert!(outcome.contains(r#""result":"done""#), "{outcome}");
}

#[tokio::test]
async fn without_a_server_the_longest_stay_ends_it() {
    let (_held, url) = nobody();
    let api = Api::new(client().unwrap(), url);
    let status = Status::new();
    let ended = run(&api, &assignment(1), &Pretend::failing(vec![]), &status, PACE, never()).await;
    assert_eq!(ended, Ended::Done(Next::Firmware));
    let notes = status.view().notes;
    assert!(notes.iter().any(|n| n.contains("going on without the server")), "{notes:?}");
    assert_eq!(notes.last().unwrap(), "the longest stay is over");
}

#[tokio::test]
async fn an_outcome_is_reported_again_to_a_server_that_was_busy() {
    let told = Arc::new(Mutex::new(0));
    let times = told.clone();
    let url = serve(move |path, _| {
        let mut told = times.lock().unwrap();
        *told += usize::from(path.ends_with("/outcome"));
        match path.ends_with("/outcome") && *told < 4 {
            true => (429, r#"{"error":"too much","advice":"Try again in 1 s."}"#.into()),
            false => (200, format!(r#"{{"release":{},"cancel":false}}"#, *told == 4)),
        }
    })
    .await;
    let api = Api::new(client().unwrap(), url);
    let ended = run(&api, &assignment(3600), &Pretend::failing(vec![]), &Status::new(), PACE, never()).await;
    assert_eq!((ended, *told.lock().unwrap()), (Ended::Done(Next::Firmware), 4));
}

#[tokio::test]
async fn a_stay_without_end_is_cut_and_no_fault() {
    let (api, heard) = server(r#"{"release":true,"cancel":false}"#).await;
    let imager = Pretend::failing(vec![]);
    let ended = run(&api, &assignment(u64::MAX), &imager, &Status::new(), PACE, never()).await;
    assert_eq!(ended, Ended::Done(Next::Firmware));
    assert!(heard.lock().unwrap().iter().any(|h| h.contains("/outcome")));
}

#[tokio::test]
async fn a_refusal_is_reported_and_not_tried_again() {
    let (api, heard) = server(r#"{"release":false,"cancel":false}"#).await;
    let imager = Pretend::failing(vec![(Class::Refused, false)]);
    let status = Status::new();
    let ended = run(&api, &assignment(3600), &imager, &status, PACE, never()).await;
    assert!(
        matches!(ended, Ended::Failed { ref failure, disk_touched: false } if failure.class == Class::Refused)
    );
    assert_eq!(imager.runs.load(Ordering::SeqCst), 1);
    let heard = heard.lock().unwrap();
    let outcome = heard.last().unwrap();
    assert!(outcome.contains("/outcome") && outcome.contains(r#""class":"refused""#), "{outcome}");
}

#[tokio::test]
async fn a_disk_touched_in_an_earlier_try_stays_touched() {
    let (api, _) = server(r#"{"release":false,"cancel":false}"#).await;
    let imager = Pretend::failing(vec![(Class::Retry, true), (Class::Untrusted, false)]);
    let ended = run(&api, &assignment(3600), &imager, &Status::new(), PACE, never()).await;
    assert!(matches!(ended, Ended::Failed { disk_touched: true, .. }), "{ended:?}");
}

#[tokio::test]
async fn what_a_try_left_on_the_disk_is_looked_for_by_the_next_and_not_discarded_again() {
    let (api, _) = server(r#"{"release":true,"cancel":false}"#).await;
    let imager = Pretend::failing(vec![(Class::Retry, false), (Class::Retry, true)]);
    run(&api, &assignment(3600), &imager, &Status::new(), PACE, never()).await;
    assert_eq!(*imager.compared.lock().unwrap(), [Compare::Full, Compare::Full, Compare::Auto]);
}

#[tokio::test]
async fn a_cancelled_job_stops() {
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
    let url = serve(|_, _| (200, r#"{"release":false,"cancel":true}"#.into())).await;
    let api = Api::new(client().unwrap(), url);
    let ended = run(&api, &assignment(3600), &Endless, &Status::new(), PACE, never()).await;
    assert!(matches!(ended, Ended::Failed { ref failure, .. } if failure.message.contains("cancelled")));
}

#[tokio::test]
async fn a_commit_that_has_begun_is_finished_and_reported_although_the_job_is_cancelled() {
    struct Committing(Status, Arc<Mutex<usize>>);
    impl Imager for Committing {
        type Held = Disk;
        async fn run(&self, _: &str, _: &Assignment) -> Result<Disk, (Failure, bool)> {
            self.0.stage(Stage::Commit);
            // The order to stop comes with each answer.
            while *self.1.lock().unwrap() < 3 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            Ok(Disk)
        }
        async fn check(&self, _: &str, _: &Assignment) -> Result<Checked, Failure> {
            std::future::pending().await
        }
    }
    let (answers, told) = (Arc::new(Mutex::new(0)), Arc::new(Mutex::new(Vec::new())));
    let (counted, heard) = (answers.clone(), told.clone());
    let url = serve(move |path, body| {
        *counted.lock().unwrap() += 1;
        heard.lock().unwrap().extend(path.ends_with("/outcome").then(|| body.to_string()));
        (200, r#"{"release":false,"cancel":true}"#.into())
    })
    .await;
    let (api, status) = (Api::new(client().unwrap(), url), Status::new());
    let imager = Committing(status.clone(), answers);
    let stop = async { tokio::time::sleep(Duration::from_millis(1)).await };
    let ended = run(&api, &assignment(3600), &imager, &status, PACE, stop).await;
    assert!(matches!(ended, Ended::Done(_)), "a good terminal is not held");
    let told = told.lock().unwrap();
    assert!(told.len() == 1 && told[0].contains(r#""result":"done""#), "by the server neither: {told:?}");
}

fn preflight() -> Assignment {
    Assignment { preflight: true, ..assignment(3600) }
}

#[tokio::test]
async fn a_preflight_images_nothing_and_tells_what_it_found() {
    let (api, heard) = server(r#"{"release":false,"cancel":false}"#).await;
    let (imager, status) = (Pretend::failing(vec![]), Status::new());
    let ended = run(&api, &preflight(), &imager, &status, PACE, never()).await;
    assert_eq!((ended, imager.runs.load(Ordering::SeqCst)), (Ended::Checked, 0));
    assert!(matches!(status.view().outcome, Some(Outcome::Checked { .. })));
    let heard = heard.lock().unwrap();
    let outcome = heard.last().unwrap();
    assert!(outcome.contains(r#""result":"checked""#) && outcome.contains("100 Mbit/s"), "{outcome}");
}

#[tokio::test]
async fn a_preflight_that_fails_is_tried_again_and_then_reported_with_an_untouched_disk() {
    let (api, heard) = server(r#"{"release":false,"cancel":false}"#).await;
    let imager = Pretend::failing(vec![(Class::Retry, true); 3]);
    let ended = run(&api, &preflight(), &imager, &Status::new(), PACE, never()).await;
    assert_eq!((ended, imager.runs.load(Ordering::SeqCst)), (Ended::Checked, 0));
    let heard = heard.lock().unwrap();
    let outcome = heard.last().unwrap();
    assert!(outcome.contains(r#""class":"retry""#), "{outcome}");
    assert!(outcome.contains(r#""disk_touched":false"#), "{outcome}");
}

/// An assignment that gives a host name.
fn personal(finish: bool) -> Assignment {
    let personal = Personal { hostname: Some("lab-01".into()), ticket: "3-00".into(), ..Personal::default() };
    Assignment { personal: Some(personal), finish, ..assignment(3600) }
}

/// The calls about the terminal's own system.
fn told(heard: &Mutex<Vec<String>>) -> Vec<serde_json::Value> {
    let heard = heard.lock().unwrap();
    let told = heard.iter().filter_map(|call| call.strip_prefix("/api/v1/attempts/3/personal "));
    told.map(|body| serde_json::from_str(body).unwrap()).collect()
}

#[tokio::test]
async fn each_step_of_the_own_system_is_told_after_the_swarm_was_left() {
    let (api, heard) = server(r#"{"release":true,"cancel":false}"#).await;
    let calls = heard.clone();
    let reports = move || {
        let report = |call: &&String| call.contains("/progress") && call.contains("\"personalise\"");
        calls.lock().unwrap().iter().filter(report).count()
    };
    // It is never silent for long, so the second report comes before the end.
    let imager = Pretend { until: Box::new(move || reports() > 1), ..Pretend::failing(vec![]) };
    let ended = run(&api, &personal(false), &imager, &Status::new(), PACE, never()).await;
    assert_eq!(ended, Ended::Done(Next::Firmware));
    let told = told(&heard);
    assert_eq!(told.len(), 4, "the beginning, a step, a problem, the end: {told:?}");
    assert!(told[0]["steps"].as_array().unwrap().is_empty() && told[2]["done"] == false);
    assert_eq!(told[3]["steps"][0], "/etc/hostname is lab-01");
    assert_eq!((&told[3]["problems"][0], &told[3]["done"]), (&"SSH host keys".into(), &true.into()));
    let heard = heard.lock().unwrap();
    let place = |what: &str| heard.iter().position(|call| call.contains(what)).unwrap();
    assert!(place("/outcome") < place("/personal"));
}

/// A disk with one partition of 1 MiB that has `room`.
fn place(name: &str, room: u64) -> Places {
    let part = Part { number: 1, start: 0, size: 1 << 20, room, filesystem: "ext4".into(), role: Role::Data };
    let info = DiskInfo { name: name.into(), ..DiskInfo::default() };
    Places { info, parts: vec![part], ..crate::testkit::attempts::system() }
}

#[tokio::test]
async fn each_disk_of_a_job_grows_and_the_own_file_comes_last() {
    let (api, heard) = server(r#"{"release":true,"cancel":false}"#).await;
    let also = vec![place("vdb", 2 << 20), place("vdc", 1 << 20)];
    let imager = Pretend::failing(vec![]);
    let committed = Committed { system: Some(place("vda", 1 << 20)), also, ..Committed::default() };
    let status = Status::new();
    super::personal::run(&api, &personal(false), &imager, &status, committed).await;
    let last = told(&heard).pop().unwrap();
    assert_eq!(last["steps"], serde_json::json!(["vdb grew", "/etc/hostname is lab-01"]));
}

#[tokio::test]
async fn a_system_whose_own_file_could_not_be_written_is_left_to_a_later_run() {
    let (api, heard) = server(r#"{"release":true,"cancel":false}"#).await;
    let imager = Pretend::failing(vec![(Class::Disk, false)]);
    let committed = Committed { system: Some(crate::testkit::attempts::system()), ..Committed::default() };
    super::personal::run(&api, &personal(false), &imager, &Status::new(), committed).await;
    let last = told(&heard).pop().unwrap();
    assert_eq!((&last["done"], &last["problems"][0]), (&false.into(), &"it went wrong".into()));
}

#[tokio::test]
async fn each_disk_of_an_attempt_that_was_cut_off_grows_when_it_is_finished() {
    let (api, heard) = server(r#"{"release":true,"cancel":false}"#).await;
    let also = vec![place("vdb", 2 << 20), place("vdc", 2 << 20)];
    let imager = Pretend { also, ..Pretend::failing(vec![]) };
    run(&api, &personal(true), &imager, &Status::new(), PACE, never()).await;
    let last = told(&heard).pop().unwrap();
    assert_eq!(last["steps"], serde_json::json!(["vdb grew", "vdc grew", "/etc/hostname is lab-01"]));
    assert_eq!(last["done"], true);
}

#[tokio::test]
async fn an_attempt_that_is_finished_images_nothing_and_one_that_cannot_be_finished_starts_its_disk() {
    for (failures, done) in [(vec![], true), (vec![(Class::Refused, false)], false)] {
        let (api, heard) = server(r#"{"release":true,"cancel":false}"#).await;
        let imager = Pretend::failing(failures);
        let ended = run(&api, &personal(true), &imager, &Status::new(), PACE, never()).await;
        assert_eq!(ended, Ended::Done(Next::Firmware));
        assert_eq!(imager.runs.load(Ordering::SeqCst), 0);
        assert_eq!(told(&heard).last().unwrap()["done"], done);
        assert!(!heard.lock().unwrap().iter().any(|call| call.contains("/outcome")));
    }
}

#[tokio::test]
async fn a_server_that_is_away_does_not_stop_the_own_system() {
    let (_held, url) = nobody();
    let api = Api::new(client().unwrap(), url);
    let status = Status::new();
    let assignment = Assignment { longest_stay: 1, ..personal(false) };
    let ended = run(&api, &assignment, &Pretend::failing(vec![]), &status, PACE, never()).await;
    assert_eq!(ended, Ended::Done(Next::Firmware));
    let notes = status.view().notes;
    assert!(notes.iter().any(|note| note == "/etc/hostname is lab-01"), "{notes:?}");
    assert!(notes.last().unwrap().contains("asks again at the next start"), "{notes:?}");
}

#[tokio::test]
async fn a_server_that_waits_for_the_growth_of_a_system_as_captured_hears_of_it_and_no_other() {
    for (room, steps) in [(2 << 20, serde_json::json!(["vda grew"])), (1 << 20, serde_json::json!([]))] {
        for finish in [true, false] {
            let (api, heard) = server(r#"{"release":true,"cancel":false}"#).await;
            let assignment = Assignment { growth: true, finish, ..assignment(3600) };
            let imager = Pretend { system: place("vda", room), ..Pretend::failing(vec![]) };
            match finish {
                true => drop(run(&api, &assignment, &imager, &Status::new(), PACE, never()).await),
                false => {
                    let committed = Committed { system: Some(place("vda", room)), ..Committed::default() };
                    super::personal::run(&api, &assignment, &imager, &Status::new(), committed).await;
                }
            }
            let last = told(&heard).pop().unwrap();
            assert_eq!((&last["steps"], &last["done"]), (&steps, &true.into()), "{room}, {finish}");
        }
    }
    let (api, heard) = server(r#"{"release":true,"cancel":false}"#).await;
    let committed = Committed { system: Some(place("vda", 2 << 20)), ..Committed::default() };
    let imager = Pretend::failing(vec![]);
    super::personal::run(&api, &assignment(3600), &imager, &Status::new(), committed).await;
    assert!(told(&heard).is_empty());
}
