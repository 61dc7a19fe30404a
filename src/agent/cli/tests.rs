//! The agent's command line on a running system, and how an attempt ends.

use super::*;
use crate::agent::imaging::{Checked, Next};
use crate::event::Class;
use crate::testkit::attempts::{PACE, Pretend, assignment};
use crate::testkit::http::serve;
use std::sync::{Arc, Mutex};

/// A server that hands out `take` and releases at once; the list holds its calls.
async fn lab(take: (u16, String)) -> (Api, Arc<Mutex<Vec<String>>>) {
    let heard = Arc::new(Mutex::new(Vec::new()));
    let notes = heard.clone();
    let url = serve(move |path, body| {
        notes.lock().unwrap().push(format!("{path} {body}"));
        let last = path.rsplit('/').next().unwrap_or_default();
        match last {
            "hello" => (200, r#"{"service":"flashmob","version":"1","terminal":"t","label":null}"#.into()),
            "take" => take.clone(),
            "outcome" => (200, r#"{"release":true,"cancel":false}"#.into()),
            _ => (200, r#"{"release":false,"cancel":false}"#.into()),
        }
    })
    .await;
    (Api::new(api_client::client().unwrap(), url), heard)
}

fn job() -> (u16, String) {
    (200, serde_json::to_string(&assignment(3600)).unwrap())
}

fn wish(image: &str) -> Wish {
    Wish { image: image.into(), ..Wish::default() }
}

async fn once(api: &Api, imager: &Pretend) -> Result<Ended, Failure> {
    attempt(api, wish("debian@1"), imager, &Status::new(), PACE, std::future::pending()).await
}

#[tokio::test]
async fn hello_take_image_report_leave() {
    let (api, heard) = lab(job()).await;
    let ended = once(&api, &Pretend::failing(vec![])).await;
    assert_eq!(ended, Ok(Ended::Done(Next::Firmware)));
    let heard = heard.lock().unwrap();
    assert!(heard[0].starts_with("/api/v1/hello ") && heard[0].contains("\"inventory\""), "{heard:?}");
    assert_eq!(heard[1], r#"/api/v1/terminals/t/take {"job":null,"image":"debian@1","preflight":true}"#);
    assert!(heard.iter().any(|h| h.starts_with("/api/v1/attempts/3/outcome ")), "{heard:?}");
}

#[tokio::test]
async fn programs_hear_that_it_is_complete_also_when_it_ends_at_once() {
    let (status, said) = (Status::new(), Arc::new(Mutex::new(Vec::new())));
    let (end, over) = watch::channel(false);
    let heard = said.clone();
    let say = move |event: &Event| heard.lock().unwrap().push(event.clone());
    let teller = tokio::spawn(tell(status.clone(), false, Some(say), over));
    while said.lock().unwrap().is_empty() {
        tokio::task::yield_now().await;
    }
    status.change(|view| {
        view.outcome = Some(Outcome::Done {
            seconds: 1,
            bytes_in: 5,
            bytes_out: 0,
            disk: String::new(),
            installed: vec![],
            warnings: vec![],
        });
    });
    end.send(true).unwrap();
    teller.await.unwrap();
    let complete = |event: &&Event| matches!(event, Event::Complete { bytes: 5, .. });
    assert_eq!(said.lock().unwrap().iter().filter(complete).count(), 1);
}

#[tokio::test]
async fn a_server_that_gives_fewer_images_than_were_asked_for_is_refused() {
    let (api, heard) = lab(job()).await;
    let also = vec![further("data@2=serial=WD-1").unwrap()];
    let wish = Wish { also, ..wish("debian") };
    let imager = Pretend::failing(vec![]);
    let stop = std::future::pending();
    let failure = attempt(&api, wish, &imager, &Status::new(), PACE, stop).await.unwrap_err();
    assert_eq!(failure.class, Class::Refused);
    let also = r#""also":[{"image":"data@2","disk":"serial=WD-1"}]"#;
    assert!(heard.lock().unwrap()[1].contains(also));
    assert!(["data", "=/dev/sdb", "data="].into_iter().all(|text| further(text).is_err()));
}

#[tokio::test]
async fn no_job_is_a_refusal_that_names_the_image() {
    let (api, _) = lab((204, String::new())).await;
    let failure = once(&api, &Pretend::failing(vec![])).await.unwrap_err();
    assert_eq!(failure.class, Class::Refused);
    assert!(failure.message.contains("debian@1"), "{failure}");
}

#[tokio::test]
async fn the_servers_reason_and_advice_come_through() {
    let (api, _) = lab((409, r#"{"error":"image gone","advice":"publish it"}"#.into())).await;
    let failure = once(&api, &Pretend::failing(vec![])).await.unwrap_err();
    assert_eq!((failure.class, failure.advice.as_str()), (Class::Refused, "publish it"));
}

#[tokio::test]
async fn ctrl_c_stops_and_reports() {
    struct Endless;
    impl Imager for Endless {
        type Held = crate::testkit::attempts::Disk;
        async fn run(&self, _: &str, _: &crate::api::Assignment) -> Result<Self::Held, (Failure, bool)> {
            std::future::pending().await
        }
        async fn check(&self, _: &str, _: &crate::api::Assignment) -> Result<Checked, Failure> {
            std::future::pending().await
        }
    }
    let (api, heard) = lab(job()).await;
    let stop = std::future::ready(());
    let ended = attempt(&api, wish("debian"), &Endless, &Status::new(), PACE, stop).await.unwrap();
    assert!(matches!(ended, Ended::Failed { ref failure, .. } if failure.class == Class::Retry), "{ended:?}");
    assert!(heard.lock().unwrap().iter().any(|h| h.contains("/outcome") && h.contains("stopped")));
}

#[test]
fn the_command_line_of_the_design_is_understood() {
    let line = "flashmob-agent --server 10.0.0.1 --image debian@1 --disk /dev/sdb --json";
    let args = Args::try_parse_from(line.split(' ')).unwrap();
    assert_eq!((args.server.as_str(), args.json), ("http://10.0.0.1:6969", true));
    assert!(Args::try_parse_from(["flashmob-agent", "--server", "https://x"]).is_err());
    let more = |more: &str| Args::try_parse_from(format!("{line} {more}").split(' '));
    let args = more("--compare trust --partitions 1,3").unwrap();
    assert_eq!((args.compare, args.partitions), (Some(Compare::Trust), Some(Only(vec![1, 3]))));
    assert!(more("--compare some").is_err());
    assert!(
        ["1,,3", "", "1,1", "one"].into_iter().all(|list| more(&format!("--partitions={list}")).is_err())
    );
    let line = "flashmob-agent --server x --image y --disk z --after halt";
    assert!(Args::try_parse_from(line.split(' ')).is_err());
}
