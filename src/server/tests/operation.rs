//! Starting, stopping, the repository and the configuration while the server runs.

use std::process::{Command, Stdio};

use sha1::Digest;

use super::exposition::breaches;
use super::*;
use crate::event::Class;
use crate::server::domain::catalog::Signature;
use crate::server::http::api::LabView;
use crate::testkit::lab::{done, failed};

async fn lab(world: &World) -> LabView {
    serde_json::from_str(&world.text("/api/v1/lab").await.1).expect("the lab")
}

#[tokio::test]
async fn good_images_are_published_and_the_others_are_named() {
    let mut world = World::new(QUIET).await;
    let broken = world.add_image("broken", "format-1");
    let mut extents = fs::read(broken.join("extents.bin")).expect("read");
    extents[10] ^= 1;
    fs::write(broken.join("extents.bin"), extents).expect("written");
    world.add_image("renamed", "format-1");
    fs::remove_file(world.add_image("short", "format-1").join("payload/0001.bin")).expect("removed");
    copy(&golden(), &world.at("images/golden/.partial-2"));
    world.restart().await;
    let lab = lab(&world).await;
    let ids: Vec<String> = lab.images.iter().map(|i| i.image.id().to_string()).collect();
    assert_eq!(ids, ["golden@format-1"]);
    assert!(lab.images[0].seeding.is_none() || lab.images[0].complete == 1);
    let problem = |name: &str| lab.problems.iter().find(|p| p.what.contains(name)).map(|p| p.error.clone());
    assert!(problem("broken").expect("named").contains("extents.bin"));
    assert!(problem("renamed").expect("named").contains("golden@format-1"));
    assert!(problem("short").expect("named").contains("0001.bin"));
    assert_eq!(lab.problems.len(), 3, "{:?}", lab.problems);
}

#[tokio::test]
async fn an_image_that_comes_and_goes_is_noticed() {
    let world = World::new(QUIET).await;
    world.hello(A).await;
    world.order(A).await;
    fs::remove_dir_all(world.at("images/golden")).expect("removed");
    world.until("/api/v1/lab", "the repository has no image").await;
    let hash = "%9e%09%16%bc%9e%dc%5c%83%db%84%40%81%3a%2f%ab%9f%56%82%90%fb";
    let announce = format!("/announce?info_hash={hash}&peer_id=aaaaaaaaaaaaaaaaaaaa&port=6881&left=1");
    assert!(world.text(&announce).await.1.contains("failure reason"));
    assert!(world.text("/api/v1/lab").await.1.contains("image golden@format-1 is not in the repository"));
    world.add_image("golden", "format-1");
    world.until(&announce, "interval").await;
}

/// The state of each terminal, and the script that it boots by.
async fn states(world: &World) -> Vec<(String, TerminalState, bool)> {
    let rows: Vec<TerminalView> =
        serde_json::from_str(&world.text("/api/v1/terminals").await.1).expect("rows");
    let mut states = Vec::new();
    for row in rows {
        let agent = world.ipxe(&row.macs[0], "efi").await.contains("flashmob.ticket=");
        states.push((row.id, row.state, agent));
    }
    states
}

/// Publishes the golden image once more, as version `format-2`.
pub(super) fn add_newer_version(world: &World) {
    let copied = world.at("newer");
    copy(&golden(), &copied);
    let (manifest, torrent) = (copied.join("manifest.json"), copied.join("image.torrent"));
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    // The dictionary that the swarm is named by follows `d4:info`, and ends before the last `e`.
    let hashes = |torrent: &[u8]| {
        let info = &torrent[7..torrent.len() - 1];
        (hex(&sha1::Sha1::digest(info)), hex(&sha2::Sha256::digest(torrent)))
    };
    let old = fs::read(&torrent).expect("read");
    let mut new = old.clone();
    let name = old.windows(10).position(|bytes| bytes == b"8:format-1").expect("its name");
    new[name + 9] = b'2';
    let ((old_swarm, old_file), (swarm, file)) = (hashes(&old), hashes(&new));
    let text = fs::read_to_string(&manifest).expect("read");
    let text = text.replace("\"format-1\"", "\"format-2\"").replace("\"sequence\": 1,", "\"sequence\": 2,");
    let text = text.replace(&old_swarm, &swarm).replace(&old_file, &file);
    fs::write(&torrent, new).expect("written");
    fs::write(&manifest, text).expect("written");
    fs::rename(copied, world.at("images/golden/format-2")).expect("moved");
}

#[tokio::test]
async fn a_new_version_changes_the_state_of_no_terminal() {
    let world = World::new("[limits]\nrequests_per_second = 1000\n").await;
    let mac = |n: usize| format!("52:54:00:00:01:{n:02x}");
    for n in 0..120 {
        world.hello(&mac(n)).await;
    }
    for n in 0..40 {
        let job = world.begin(&mac(n)).await;
        let end = if n % 2 == 0 { done() } else { failed(Class::Disk, true) };
        world.outcome(&job, end).await.expect("taken");
    }
    let waits = JobOrder { image: "golden".into(), targets: vec![mac(50)], ..JobOrder::default() };
    world.http.post(world.url("/api/v1/jobs")).json(&waits).send().await.expect("an answer");
    let before = states(&world).await;
    let count = |state: TerminalState| before.iter().filter(|(_, one, _)| *one == state).count();
    let counts = [TerminalState::Done, TerminalState::Failed, TerminalState::Waiting, TerminalState::Idle];
    assert_eq!(counts.map(count), [20, 20, 1, 79]);

    add_newer_version(&world);
    world.until("/api/v1/lab", "\"version\":\"format-2\"").await;
    assert_eq!(states(&world).await, before);
    // A machine that the server does not know goes on with its firmware.
    let script = world.ipxe("52:54:00:00:02:00", "efi").await;
    assert!(script.ends_with("exit 1\n") && !script.contains("kernel"), "{script}");
}

#[tokio::test]
async fn signatures_are_judged_when_keys_are_known() {
    let world = World::new("").await;
    assert_eq!(lab(&world).await.images[0].image.signature, Signature::Unjudged);
    let good = golden().join("../format-1.pub");
    let judged = |keys: PathBuf| {
        let options = Options { keys: Some(keys), state: world.at("other"), ..world.options() };
        let http = world.http.clone();
        async move {
            let server = Server::start(options).await.expect("starts");
            let url = format!("http://{}/api/v1/lab", server.local_addr());
            let lab: LabView = http.get(url).send().await.expect("an answer").json().await.expect("the lab");
            server.stop().await;
            (lab.images[0].image.signature.clone(), lab.problems.len())
        }
    };
    assert_eq!(judged(good).await, (Signature::Good, 0));
    let other = world.at("other.pub");
    fs::write(&other, "RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3\n").expect("written");
    assert_eq!(judged(other).await, (Signature::Bad, 1));
}

#[tokio::test]
async fn a_changed_configuration_comes_into_force_and_a_wrong_one_does_not() {
    let world = World::new("").await;
    world.hello(A).await;
    let labels = format!("[terminals.'{A}']\nlabel = 'lab-01'\n");
    fs::write(world.at("config.toml"), labels).expect("written");
    world.server.as_ref().expect("running").reload().await;
    world.until("/api/v1/terminals", "\"label\":\"lab-01\"").await;
    fs::write(world.at("config.toml"), "[boot]\nargument = 'x'\n").expect("written");
    let lab = world.until("/api/v1/lab", "unknown field").await;
    assert!(lab.contains("line 2"), "{lab}");
    assert_eq!(world.row(A).await.label.as_deref(), Some("lab-01"));
}

#[tokio::test]
async fn what_cannot_work_is_said_at_the_start() {
    let world = World::new("").await;
    let taken = world.server.as_ref().expect("running").local_addr();
    let options = |change: &dyn Fn(&mut Options)| {
        let mut options = Options { state: world.at("other"), ..world.options() };
        change(&mut options);
        options
    };
    let port = start_fails(options(&|o| o.listen = Some(taken))).await;
    assert_eq!(port.class, Class::Refused);
    assert!(port.message.contains("in use") && port.advice.contains("--listen"), "{port:?}");
    let peers = SocketAddr::from(([127, 0, 0, 1], world.server.as_ref().expect("running").peer_port()));
    let port = start_fails(options(&|o| o.peer_listen = Some(peers))).await;
    assert!(port.message.contains("in use") && port.advice.contains("--peer-listen"), "{port:?}");
    let images = start_fails(options(&|o| o.images = world.at("nowhere"))).await;
    assert!(images.message.contains("nowhere"), "{images:?}");
    let state = start_fails(options(&|o| o.state = world.at("secret"))).await;
    assert!(state.message.contains("secret") && state.advice.contains("--state"), "{state:?}");
    let busy = start_fails(options(&|o| o.state = world.at("state"))).await;
    assert!(busy.message.contains("locked"), "{busy:?}");
    fs::write(world.at("wrong.toml"), "colour = 'red'").expect("written");
    let config = start_fails(options(&|o| o.config = Some(world.at("wrong.toml")))).await;
    assert_eq!(config.class, Class::Usage);
    assert!(config.message.contains("wrong.toml") && config.message.contains("line 1"), "{config:?}");
}

#[tokio::test]
async fn metrics_count_what_there_is() {
    let world = World::new(QUIET).await;
    world.begin(A).await;
    let (_, text) = world.text("/metrics").await;
    assert!(text.contains("flashmob_terminals{state=\"imaging\"} 1\n"), "{text}");
    assert!(text.contains("flashmob_image_bytes{image=\"golden@format-1\"} 196608\n"), "{text}");
    assert!(text.contains("flashmob_swarm_peers{image=\"golden@format-1\",role=\"complete\"} 1\n"), "{text}");
}

#[tokio::test]
async fn metrics_count_attempts_by_result_and_measure_each_route() {
    let world = World::new(QUIET).await;
    let job = world.begin(A).await;
    world.outcome(&job, failed(Class::Disk, true)).await.expect("taken");
    // A second report of the same outcome is no second attempt.
    world.outcome(&job, failed(Class::Disk, true)).await.expect("taken");
    world.text("/invented/by/a/stranger").await;
    let (_, text) = world.text("/metrics").await;
    for line in [
        "flashmob_attempts_ended_total{result=\"failed\"} 1",
        "flashmob_attempts_ended_total{result=\"done\"} 0",
        "flashmob_history_attempts{result=\"failed\"} 1",
        "flashmob_http_requests_total{method=\"POST\",route=\"/api/v1/hello\",status=\"200\"} 1",
        "flashmob_http_requests_total{method=\"GET\",route=\"other\",status=\"404\"} 1",
        "flashmob_http_request_duration_seconds_count{method=\"POST\",route=\"/api/v1/hello\"} 1",
        "flashmob_database_queue_length 0",
        "flashmob_database_failures_total 0",
    ] {
        assert!(text.lines().any(|l| l == line), "{line} is missing in {text}");
    }
    assert!(text.contains("flashmob_build_info{version="), "{text}");
}

#[tokio::test]
async fn metrics_keep_the_rules_of_their_format() {
    let world = World::new(QUIET).await;
    let (_, empty) = world.text("/metrics").await;
    assert_eq!(breaches(&empty), [""; 0], "{empty}");
    let job = world.begin(A).await;
    world.outcome(&job, failed(Class::Disk, true)).await.expect("taken");
    let job = world.begin(B).await;
    world.progress(&job, Progress::at(crate::event::Stage::Fetch)).await.expect("taken");
    world.text("/invented/by/a/stranger").await;
    let (_, text) = world.text("/metrics").await;
    assert_eq!(breaches(&text), [""; 0], "{text}");
    assert!(text.contains("flashmob_jobs{state=\"open\"} 1\n"), "{text}");
    assert!(text.contains("flashmob_jobs{state=\"over\"} 1\n"), "{text}");
    accepted_by_promtool(&text);
}

/// Asks Prometheus' own checker, where it is installed (Debian package prometheus). It also fails for
/// remarks.
fn accepted_by_promtool(text: &str) {
    let promtool = Command::new("promtool").args(["check", "metrics"]).stdin(Stdio::piped()).spawn();
    let mut promtool = match promtool {
        Ok(promtool) => promtool,
        Err(error) => return eprintln!("SKIPPED: promtool cannot be started ({error})"),
    };
    let mut input = promtool.stdin.take().expect("a pipe");
    std::io::Write::write_all(&mut input, text.as_bytes()).expect("promtool reads");
    drop(input);
    assert!(promtool.wait().expect("it ends").success(), "promtool refuses {text}");
}

#[tokio::test]
async fn the_api_describes_itself() {
    let world = World::new("").await;
    let (status, text) = world.text("/api/v1/openapi.json").await;
    assert_eq!(status, StatusCode::OK);
    let document: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(document["openapi"], "3.1.0");
    assert_eq!(document["info"]["version"], env!("CARGO_PKG_VERSION"));
    let hello = &document["paths"]["/api/v1/hello"]["post"]["requestBody"]["content"]["application/json"];
    assert_eq!(hello["schema"]["$ref"], "#/components/schemas/Hello");
}
