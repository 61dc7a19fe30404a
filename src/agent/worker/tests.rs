//! A whole worker against servers of a few lines, with an imager that only pretends.

use super::*;
use crate::agent::network::Interface;
use crate::api::{Assignment, Neighbour};
use crate::io::net::api_client::client;
use crate::io::net::netlink::Link;
use crate::lan::dhcp::Offer;
use crate::testkit::attempts::{PACE, Pretend, assignment};
use crate::testkit::http::serve;
use std::cell::Cell;
use std::sync::{Arc, Mutex};

const SETTLED: Duration = Duration::from_millis(1500);
const AT_MOST: Duration = Duration::from_secs(10);
const SHORT: Duration = Duration::from_millis(5);
const PATIENCE: Patience = Patience {
    idle: Duration::from_millis(50),
    search: Duration::from_secs(60),
    ask: SHORT,
    hold: SHORT,
    show: SHORT,
    show_result_for: SHORT,
    each: Duration::from_secs(20),
    settled: SHORT,
    settle: SHORT,
};

/// What an agent says that it knows.
const KNOWS: &str =
    r#""preflight":true,"personal":true,"limit":true,"files":true,"growth":true,"blank":true,"lend":true"#;

/// A flashmob server that answers `take` with `takes` in turn, then 204; the list holds its calls.
async fn lab(takes: Vec<(u16, String)>) -> (String, Arc<Mutex<Vec<String>>>) {
    let heard = Arc::new(Mutex::new(Vec::new()));
    let notes = heard.clone();
    let takes = Mutex::new(takes.into_iter());
    let url = serve(move |path, body| {
        notes.lock().unwrap().push(format!("{path} {body}"));
        match path.rsplit('/').next().unwrap_or_default() {
            step if step.starts_with("step?") && takes.lock().unwrap().len() > 0 => {
                (200, r#"{"step":"work","ticket":"0f"}"#.into())
            }
            step if step.starts_with("step?") => (200, r#"{"step":"disk"}"#.into()),
            "hello" => (200, r#"{"service":"flashmob","version":"1","terminal":"t","label":null}"#.into()),
            "take" => takes.lock().unwrap().next().unwrap_or((204, String::new())),
            "outcome" => (200, r#"{"release":true,"cancel":false}"#.into()),
            _ => (200, r#"{"release":false,"cancel":false}"#.into()),
        }
    })
    .await;
    (url, heard)
}

fn job() -> (u16, String) {
    (200, serde_json::to_string(&assignment(3600)).unwrap())
}

/// A terminal with one interface, whose lease names `option` as the server.
fn worker(
    cmdline: Cmdline,
    file: Option<&str>,
    option: &str,
    imager: Pretend,
) -> (Worker<Pretend>, watch::Sender<Interfaces>) {
    let link = Link { index: 2, name: "eth0".into(), mac: [2, 0, 0, 0, 0, 5], up: true, carrier: true };
    let offer = Offer {
        address: [10, 0, 0, 9].into(),
        prefix: 24,
        server: None,
        next_server: None,
        routers: vec![],
        dns: vec![],
        domain: None,
        mtu: None,
        flashmob: Some(option.into()),
        lease: None,
        renew: None,
        rebind: None,
    };
    let (sender, network) = watch::channel(vec![Interface { link, lease: Some(offer), neighbour: None }]);
    let worker = Worker {
        cmdline,
        file: file.map(str::to_owned),
        // Ignore servers that announce themselves to the machine that runs the test.
        browse: false,
        imager,
        status: Status::new(),
        http: client().unwrap(),
        credentials: Credentials::default(),
        network,
        rounds: watch::Sender::new(0),
        pace: PACE,
        patience: PATIENCE,
    };
    (worker, sender)
}

fn count(heard: &Mutex<Vec<String>>, what: &str) -> usize {
    heard.lock().unwrap().iter().filter(|line| line.contains(what)).count()
}

#[tokio::test]
async fn a_job_is_done_and_what_follows_is_the_jobs_or_the_command_lines() {
    for (after, leave) in [(None, Leave::Restart), (Some(After::Poweroff), Leave::Off)] {
        let (url, heard) = lab(vec![job()]).await;
        let cmdline = Cmdline { after, job: Some("night".into()), ..Cmdline::default() };
        let (worker, _network) = worker(cmdline, None, &url, Pretend::failing(vec![]));
        assert_eq!(worker.run().await, leave);
        let taken = format!(r#"take {{"job":"night","image":null,{KNOWS}}}"#);
        assert_eq!(count(&heard, &taken), 1);
        assert_eq!(count(&heard, r#""macs":["02:00:00:00:00:05"]"#), 1);
    }
}

#[tokio::test]
async fn a_disk_that_cannot_be_lent_is_reported_and_the_terminal_boots_its_system() {
    let offer = r#"{"lend":{"capture":7,"token":"t","image":"lab","disk":"serial=never-made"}}"#;
    let (url, heard) = lab(vec![(200, offer.into())]).await;
    let (worker, _network) = worker(Cmdline::default(), None, &url, Pretend::failing(vec![]));
    assert_eq!(worker.run().await, Leave::Restart);
    assert_eq!(count(&heard, "/api/v1/captures/7/lending"), 1);
    assert_eq!((count(&heard, "never-made"), count(&heard, "/attempts/")), (1, 0));
}

#[tokio::test]
async fn a_busy_server_and_one_that_forgot_the_terminal_are_asked_again() {
    let busy = (429, r#"{"error":"10.0.0.9 asks too much","advice":"Try again in 1 s."}"#.to_string());
    let forgot = (404, r#"{"error":"no terminal 't' is known here","advice":"See."}"#.to_string());
    let (url, heard) = lab([vec![busy; 5], vec![forgot, job()]].concat()).await;
    let cmdline = Cmdline { server: Some(url), ..Cmdline::default() };
    let (worker, _network) = worker(cmdline, None, "", Pretend::failing(vec![]));
    assert_eq!(worker.run().await, Leave::Restart);
    assert_eq!((count(&heard, "/take"), count(&heard, "/hello")), (7, 2));
    assert_eq!(count(&heard, r#""result":"done""#), 1);
}

#[tokio::test]
async fn without_a_job_the_terminal_waits_a_while_and_leaves() {
    let (url, heard) = lab(vec![]).await;
    let (worker, _network) = worker(Cmdline::default(), None, &url, Pretend::failing(vec![]));
    let began = Instant::now();
    assert_eq!(worker.run().await, Leave::Restart);
    assert!(began.elapsed() >= PATIENCE.idle && count(&heard, "/take") > 0);
}

#[tokio::test]
async fn a_stray_server_without_a_job_does_not_end_the_search() {
    let (stray, asked) = lab(vec![]).await;
    let (good, heard) = lab(vec![job()]).await;
    let (worker, _network) = worker(Cmdline::default(), Some(&stray), &good, Pretend::failing(vec![]));
    let began = Instant::now();
    assert_eq!(worker.run().await, Leave::Restart);
    assert!(began.elapsed() >= PATIENCE.idle && count(&asked, "/take") > 0, "it was waited for");
    assert_eq!(count(&heard, r#""result":"done""#), 1);
}

#[tokio::test]
async fn a_switch_that_is_heard_late_is_told_to_the_server() {
    let (url, heard) = lab(vec![]).await;
    let (mut worker, network) = worker(Cmdline::default(), None, &url, Pretend::failing(vec![]));
    worker.patience.idle = Duration::from_secs(60);
    let switch = |chassis: &str| Some(Neighbour { chassis: chassis.into(), port: "7".into(), name: None });
    let told = async |chassis: &str| {
        network.send_modify(|all| all[0].neighbour = switch(chassis));
        while count(&heard, &format!(r#""neighbour":{{"chassis":"{chassis}""#)) == 0 {
            tokio::time::sleep(SHORT).await;
        }
    };
    let both = async {
        while count(&heard, "/take") == 0 {
            tokio::time::sleep(SHORT).await;
        }
        assert_eq!(count(&heard, r#""neighbour":null"#), 1);
        told("a").await;
        told("b").await;
    };
    tokio::select! {
        leave = worker.run() => panic!("it must wait: {leave:?}"),
        () = both => {}
    }
}

#[tokio::test]
async fn a_server_whose_image_is_not_trusted_is_left_for_the_next() {
    let (bad, told) = lab(vec![job()]).await;
    let (good, heard) = lab(vec![job()]).await;
    let imager = Pretend::failing(vec![(Class::Untrusted, false)]);
    let (worker, _network) = worker(Cmdline::default(), Some(&bad), &good, imager);
    assert_eq!(worker.run().await, Leave::Restart);
    assert_eq!(count(&told, r#""class":"untrusted""#), 1, "the first server is told");
    assert_eq!(count(&heard, r#""result":"done""#), 1);
}

#[tokio::test]
async fn a_terminal_that_was_refused_holds_until_the_job_is_started_again() {
    let (url, heard) = lab(vec![job(), (204, String::new()), (204, String::new()), job()]).await;
    let imager = Pretend::failing(vec![(Class::Refused, false)]);
    let (worker, _network) = worker(Cmdline { server: Some(url), ..Cmdline::default() }, None, "", imager);
    let status = worker.status.clone();
    assert_eq!(worker.run().await, Leave::Restart);
    assert_eq!(count(&heard, "/take"), 4);
    assert!(matches!(status.view().outcome, Some(Outcome::Done { .. })));
}

#[tokio::test]
async fn an_agent_that_no_script_started_asks_for_its_next_step_before_anything_else() {
    for (takes, leave, hellos) in [(vec![], Leave::ToDisk, 0), (vec![job()], Leave::Restart, 1)] {
        let (url, heard) = lab(takes).await;
        let cmdline = Cmdline { server: Some(url.clone()), direct: true, ..Cmdline::default() };
        let (worker, _network) = worker(cmdline, None, "", Pretend::failing(vec![]));
        let credentials = worker.credentials.clone();
        assert_eq!(worker.run().await, leave);
        assert_eq!((count(&heard, "/boot/step?mac="), count(&heard, "/hello")), (1, hellos));
        let ticket = (hellos == 1).then(|| "Ticket 0f".to_string());
        assert_eq!(credentials.for_server(&url), [ticket]);
    }
}

#[tokio::test]
async fn what_may_be_gone_next_time_ends_with_a_restart() {
    let (url, heard) = lab(vec![job()]).await;
    let imager = Pretend::failing(vec![(Class::Retry, true); 3]);
    let (worker, _network) = worker(Cmdline::default(), None, &url, imager);
    assert_eq!(worker.run().await, Leave::Restart);
    assert_eq!(count(&heard, r#""result":"failed""#), 1);
}

fn disk(name: &str) -> DiskInfo {
    DiskInfo { name: name.into(), ..DiskInfo::default() }
}

#[tokio::test(start_paused = true)]
async fn disks_that_come_late_are_waited_for() {
    let began = Instant::now();
    let last = Cell::new(0);
    let list = || {
        last.set(match began.elapsed().as_millis() {
            0..2000 => 0,
            2000..3000 => 1,
            _ => 2,
        });
        ["sda", "sdb"][..last.get()].iter().map(|name| disk(name)).collect()
    };
    settle(list, SETTLED, AT_MOST).await;
    assert_eq!(last.get(), 2);
    assert!(began.elapsed() < Duration::from_secs(6));
}

#[tokio::test(start_paused = true)]
async fn a_machine_without_disks_is_not_waited_for_longer_than_ten_seconds() {
    let began = Instant::now();
    settle(Vec::new, SETTLED, AT_MOST).await;
    assert!(began.elapsed() <= AT_MOST + SETTLED);
}

#[tokio::test]
async fn a_search_that_finds_nothing_ends_with_a_restart_that_says_why() {
    let nobody = "http://127.0.0.1:1";
    for (connected, why) in
        [(true, "no flashmob server gave work"), (false, "no network card got an address")]
    {
        let (mut worker, network) = worker(Cmdline::default(), None, nobody, Pretend::failing(vec![]));
        worker.patience.search = Duration::from_millis(100);
        if !connected {
            network.send_modify(|all| all[0].lease = None);
        }
        let status = worker.status.clone();
        let leave = tokio::time::timeout(Duration::from_secs(20), worker.run()).await.expect("it ends");
        assert_eq!(leave, Leave::Restart);
        let outcome = status.view().outcome;
        assert!(
            matches!(&outcome, Some(Outcome::Failed { failure, disk_touched: false,
                .. }) if failure.message.contains(why)),
            "{outcome:?}"
        );
    }
}

#[tokio::test]
async fn a_terminal_says_that_it_knows_preflights_and_boots_back_after_one_whatever_it_found() {
    let job = serde_json::to_string(&Assignment { preflight: true, ..assignment(3600) }).unwrap();
    for failures in [vec![], vec![(Class::Refused, false)]] {
        let (url, heard) = lab(vec![(200, job.clone())]).await;
        let (worker, _network) = worker(Cmdline::default(), None, &url, Pretend::failing(failures));
        assert_eq!(worker.run().await, Leave::Restart, "nobody holds a terminal by day");
        assert_eq!(count(&heard, &format!(r#"take {{"job":null,"image":null,{KNOWS}}}"#)), 1);
        assert_eq!(count(&heard, r#""result":"done""#), 0);
    }
}
