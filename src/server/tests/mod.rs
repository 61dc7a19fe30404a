//! The whole server on a real port, called as terminals, peers, iPXE and people do.

mod backup;
mod captures;
mod cards;
mod changes;
mod database;
mod exposition;
mod files;
mod growth;
mod history;
mod jobs;
mod limits;
mod logs;
mod operation;
mod personal;
mod preflight;
mod registry;
mod speaking;
mod swarm;
mod terminals;
mod together;
mod waking;
mod webhooks;

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use axum::extract::Request;
use axum::middleware::{Next, from_fn};
use reqwest::{Client, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::api::{
    Assignment, Further, Hello, Orders, OutcomeReport, ProgressReport, Take, TerminalState, TerminalView,
    Welcome,
};
use crate::event::{Failure, Outcome, Progress};
use crate::server::Options;
use crate::server::Server;
use crate::server::domain::jobs::JobOrder;
use crate::server::http::listen::{self, Ends};
use crate::server::http::router::router;
use crate::testkit::lab::hello_of;

const A: &str = "52:54:00:00:00:0a";
const B: &str = "52:54:00:00:00:0b";
const QUIET: &str = "[boot]\narguments='quiet'\n";

/// Folders of one test, and their server.
struct World {
    folder: tempfile::TempDir,
    server: Option<Server>,
    http: Client,
    abroad: Option<Abroad>,
}

/// The port at which every caller counts as one on another machine.
struct Abroad {
    address: SocketAddr,
    stop: tokio::sync::watch::Sender<bool>,
    ended: tokio::task::JoinHandle<()>,
}

/// The address of callers on another machine.
const ABROAD: [u8; 4] = [10, 66, 0, 66];

impl World {
    /// A server with the golden image, netboot files and this configuration.
    async fn new(config: &str) -> World {
        let folder = tempfile::tempdir().expect("temp");
        let at = |name: &str| folder.path().join(name);
        fs::create_dir_all(at("boot")).expect("made");
        fs::create_dir_all(at("images")).expect("made");
        for name in ["vmlinuz", "initramfs.img", "localboot.efi"] {
            fs::write(at("boot").join(name), name).expect("written");
        }
        fs::write(at("config.toml"), config).expect("written");
        fs::write(at("secret"), "secret").expect("written");
        let http = Client::builder().no_proxy().timeout(Duration::from_secs(20)).build().expect("client");
        let mut world = World { folder, server: None, http, abroad: None };
        world.add_image("golden", "format-1");
        world.start().await;
        world
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Puts the golden image into the repository under these names.
    fn add_image(&self, name: &str, version: &str) -> PathBuf {
        let to = self.at("images").join(name).join(version);
        copy(&golden(), &to);
        to
    }

    fn options(&self) -> Options {
        Options {
            images: self.at("images"),
            boot: Some(self.at("boot")),
            state: self.at("state"),
            config: Some(self.at("config.toml")),
            keys: None,
            listen: Some(SocketAddr::from(([127, 0, 0, 1], 0))),
            peer_listen: Some(SocketAddr::from(([127, 0, 0, 1], 0))),
            mdns: false,
            pxe: None,
        }
    }

    async fn start(&mut self) {
        self.server = Some(Server::start(self.options()).await.expect("starts"));
    }

    /// Opens a port at which every caller counts as one on another machine.
    async fn open_abroad(&mut self) {
        let app = self.server.as_ref().expect("running").app();
        let from_abroad = async |mut request: Request, next: Next| {
            let local = request.extensions().get::<Ends>().expect("known").local;
            request.extensions_mut().insert(Ends { remote: (ABROAD, 4711).into(), local });
            next.run(request).await
        };
        let router = router(std::sync::Arc::clone(app)).layer(from_fn(from_abroad));
        let listener = listen::bind(Some(([127, 0, 0, 1], 0).into()), 0).expect("a port");
        let address = listener.local_addr().expect("an address");
        let (stop, stopped) = tokio::sync::watch::channel(false);
        let ended = tokio::spawn(listen::serve(listener, router, stopped));
        self.abroad = Some(Abroad { address, stop, ended });
    }

    /// The address of `path` for callers on another machine.
    fn abroad(&self, path: &str) -> String {
        format!("http://{}{path}", self.abroad.as_ref().expect("open").address)
    }

    async fn restart(&mut self) {
        let abroad = self.abroad.take();
        let again = abroad.is_some();
        if let Some(Abroad { stop, ended, .. }) = abroad {
            drop(stop);
            ended.await.expect("ends");
        }
        self.server.take().expect("running").stop().await;
        self.start().await;
        if again {
            self.open_abroad().await;
        }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.server.as_ref().expect("running").local_addr())
    }

    async fn text(&self, path: &str) -> (StatusCode, String) {
        let answer = self.http.get(self.url(path)).send().await.expect("an answer");
        (answer.status(), answer.text().await.expect("text"))
    }

    async fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, StatusCode> {
        let answer = self.http.post(self.url(path)).json(body).send().await.expect("an answer");
        if answer.status() != StatusCode::OK {
            return Err(answer.status());
        }
        Ok(answer.json().await.expect("the shape that was promised"))
    }

    async fn hello(&self, mac: &str) -> String {
        let hello: Hello = hello_of(mac);
        let welcome: Welcome = self.post("/api/v1/hello", &hello).await.expect("welcome");
        assert_eq!(welcome.service, "flashmob");
        welcome.terminal
    }

    async fn take(&self, terminal: &str, wish: Take) -> Result<Assignment, StatusCode> {
        self.post(&format!("/api/v1/terminals/{terminal}/take"), &wish).await
    }

    /// A person wants the terminal with this MAC to be imaged.
    async fn order(&self, mac: &str) {
        let order = JobOrder { image: "golden".into(), targets: vec![mac.into()], ..JobOrder::default() };
        let answer = self.http.post(self.url("/api/v1/jobs")).json(&order).send().await.expect("an answer");
        assert_eq!(answer.status(), StatusCode::CREATED, "{:?}", answer.text().await);
    }

    /// Says hello and takes the waiting job, or one that a person creates now.
    async fn begin(&self, mac: &str) -> Assignment {
        let terminal = self.hello(mac).await;
        if let Ok(assignment) = self.take(&terminal, Take::default()).await {
            return assignment;
        }
        self.order(mac).await;
        self.take(&terminal, Take::default()).await.expect("work waits")
    }

    async fn progress(&self, job: &Assignment, progress: Progress) -> Result<Orders, StatusCode> {
        let report = ProgressReport { token: job.token.clone(), progress, chosen: Vec::new() };
        self.post(&format!("/api/v1/attempts/{}/progress", job.attempt), &report).await
    }

    async fn outcome(&self, job: &Assignment, outcome: Outcome) -> Result<Orders, StatusCode> {
        let report = OutcomeReport { token: job.token.clone(), outcome };
        self.post(&format!("/api/v1/attempts/{}/outcome", job.attempt), &report).await
    }

    async fn row(&self, mac: &str) -> TerminalView {
        let rows: Vec<TerminalView> =
            serde_json::from_str(&self.text("/api/v1/terminals").await.1).expect("rows");
        rows.into_iter().find(|row| row.macs.iter().any(|m| m == mac)).expect("known")
    }

    async fn state(&self, mac: &str) -> TerminalState {
        self.row(mac).await.state
    }

    async fn ipxe(&self, mac: &str, platform: &str) -> String {
        self.text(&format!("/boot/ipxe?mac={mac}&uuid=&platform={platform}")).await.1
    }

    async fn decide(&self, terminal: &str, what: &str) -> StatusCode {
        let url = self.url(&format!("/api/v1/terminals/{terminal}/{what}"));
        self.http.post(url).send().await.expect("an answer").status()
    }

    /// Repeats a request for `path` until the answer contains `text`; the test's deadline is 30 s.
    async fn until(&self, path: &str, text: &str) -> String {
        let mut answer = String::new();
        for _ in 0..600 {
            answer = self.text(path).await.1;
            if answer.contains(text) {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("'{text}' never came: {answer}");
    }
}

/// An image that was made once and is kept for tests: `golden@format-1`, three pieces of 64 KiB, signed.
fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("mkimage/tests/golden/format-1")
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("made");
    for entry in fs::read_dir(from).expect("listed") {
        let entry = entry.expect("listed");
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).expect("copied");
        }
    }
}

async fn start_fails(options: Options) -> Failure {
    match Server::start(options).await {
        Ok(_) => panic!("it started"),
        Err(failure) => failure,
    }
}
