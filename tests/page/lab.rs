//! A server with terminals that report as agents do.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use flashmob::server::{Options, Server};
use reqwest::{Client, Method, StatusCode};
use serde_json::{Value, json};

/// A running server, called from its own machine.
pub(crate) struct Lab {
    folder: tempfile::TempDir,
    server: Option<Server>,
    http: Client,
    /// Attempts under way: number and token by terminal.
    attempts: BTreeMap<usize, (u64, String)>,
}

/// The MAC of terminal `n`.
pub(crate) fn mac(n: usize) -> String {
    format!("52:54:00:00:{:02x}:{:02x}", n / 256, n % 256)
}

impl Lab {
    /// A lab of `count` terminals, 40 in each room from 101 on, with seats A1 to D10.
    pub(crate) async fn of(count: usize) -> Lab {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("mkimage/tests/golden/format-1");
        copy(&golden, &at("images/golden/format-1"));
        fs::create_dir_all(at("boot")).unwrap();
        for name in ["vmlinuz", "initramfs.img"] {
            fs::write(at("boot").join(name), name).unwrap();
        }
        let any = Some(SocketAddr::from(([127, 0, 0, 1], 0)));
        let options = Options {
            images: at("images"),
            boot: Some(at("boot")),
            state: at("state"),
            config: None,
            keys: None,
            listen: any,
            peer_listen: any,
            mdns: false,
            pxe: None,
        };
        let server = Server::start(options).await.unwrap();
        let http = Client::builder().no_proxy().timeout(Duration::from_secs(20)).build().unwrap();
        let lab = Lab { folder, server: Some(server), http, attempts: BTreeMap::new() };
        let mut table = String::from("mac,label,room,seat\n");
        for n in 0..count {
            let (room, place) = (101 + n / 40, n % 40);
            let row = char::from(b"ABCD"[place / 10]);
            writeln!(table, "{},pc-{room}-{:02},{room},{row}{}", mac(n), place + 1, place % 10 + 1).unwrap();
        }
        let url = lab.url("/api/v1/terminals/import");
        let imported = lab.http.post(url).body(table).send().await.unwrap();
        assert!(imported.status().is_success(), "{}", imported.text().await.unwrap());
        lab
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.server.as_ref().unwrap().local_addr())
    }

    pub(crate) async fn call(&self, method: Method, path: &str, body: Value) -> (StatusCode, Value) {
        let answer = self.http.request(method, self.url(path)).json(&body).send().await.unwrap();
        let status = answer.status();
        let text = answer.text().await.unwrap();
        (status, serde_json::from_str(&text).unwrap_or(Value::Null))
    }

    async fn post(&self, path: &str, body: Value) -> Value {
        let (status, told) = self.call(Method::POST, path, body).await;
        assert!(status.is_success(), "{path}: {status} {told}");
        told
    }

    /// A job for all terminals that the server knows.
    pub(crate) async fn order(&self) {
        self.post("/api/v1/jobs", json!({ "image": "golden", "targets": ["all"], "note": "Monday" })).await;
    }

    pub(crate) async fn hello(&self, mac: &str) {
        let inventory = json!({ "machine": "Model 1", "serial": null, "cpu": "4 cores", "memory": 8u64 << 30,
            "firmware": "uefi", "disks": [], "nics": [] });
        let hello = json!({ "uuid": null, "macs": [mac], "inventory": inventory, "agent": "0.2.0" });
        self.post("/api/v1/hello", hello).await;
    }

    /// Terminal `n` begins to image itself.
    pub(crate) async fn begin(&mut self, n: usize) {
        self.hello(&mac(n)).await;
        let told = self.post(&format!("/api/v1/terminals/{}/take", mac(n)), json!({})).await;
        let token = told["token"].as_str().expect("work waits").to_string();
        self.attempts.insert(n, (told["attempt"].as_u64().unwrap(), token));
    }

    pub(crate) async fn progress(&self, n: usize, percent: f64) {
        self.report(n, "fetch", percent).await;
    }

    /// Terminal `n` begins a stage.
    pub(crate) async fn stage(&self, n: usize, stage: &str) {
        self.report(n, stage, 42.0).await;
    }

    /// Terminal `n` begins again in job 1.
    pub(crate) async fn retry(&self, n: usize) {
        self.post("/api/v1/jobs/1/retry", json!({ "targets": [mac(n)] })).await;
    }

    async fn report(&self, n: usize, stage: &str, percent: f64) {
        let (attempt, token) = &self.attempts[&n];
        let progress = json!({ "stage": stage, "percent": percent, "bytes_done": 1u64 << 30,
            "bytes_total": 20u64 << 30, "rate_in": 80_000_000 + 1000 * n, "rate_out": 70_000_000,
            "bytes_out": 1u64 << 30, "peers": 12, "bytes_verified": 0, "seconds_left": 300 });
        let report = json!({ "token": token, "progress": progress });
        self.post(&format!("/api/v1/attempts/{attempt}/progress"), report).await;
    }

    async fn outcome(&self, n: usize, outcome: Value) {
        let (attempt, token) = &self.attempts[&n];
        let report = json!({ "token": token, "outcome": outcome });
        self.post(&format!("/api/v1/attempts/{attempt}/outcome"), report).await;
    }

    pub(crate) async fn fail(&self, n: usize) {
        let failure =
            json!({ "class": "disk", "message": "writing sda failed", "advice": "Replace the disk." });
        let outcome =
            json!({ "result": "failed", "stage": "fetch", "failure": failure, "disk_touched": true });
        self.outcome(n, outcome).await;
    }

    pub(crate) async fn finish(&self, n: usize) {
        let outcome =
            json!({ "result": "done", "seconds": 60, "bytes_in": 1, "bytes_out": 2, "disk": "sda" });
        self.outcome(n, outcome).await;
    }

    /// A new administrator's token.
    pub(crate) async fn token(&self) -> String {
        let made = self.post("/api/v1/tokens", json!({ "name": "desk", "role": "admin" })).await;
        made["token"].as_str().unwrap().to_string()
    }

    pub(crate) async fn state(&self, n: usize) -> String {
        let (_, told) = self.call(Method::GET, &format!("/api/v1/terminals/{}", mac(n)), Value::Null).await;
        told["state"].as_str().unwrap().to_string()
    }

    pub(crate) async fn stop(mut self) {
        self.server.take().unwrap().stop().await;
        drop(self.folder);
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}
