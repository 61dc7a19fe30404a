//! A Chromium without a window, driven by WebDriver calls.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use reqwest::Client;
use serde_json::{Value, json};

/// How long the page may take to show something.
const PATIENCE: Duration = Duration::from_secs(20);

/// One browser and its driver, which end with it.
pub(crate) struct Browser {
    driver: Child,
    http: Client,
    session: String,
}

impl Browser {
    /// A browser whose inside has this size.
    pub(crate) async fn open(width: u32, height: u32) -> Browser {
        let mut driver = Command::new("chromedriver")
            .arg("--port=0")
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("chromedriver starts; qemu-tests/setup.sh installs it");
        let mut lines = BufReader::new(driver.stdout.take().unwrap()).lines();
        let port = lines
            .find_map(|line| {
                let line = line.ok()?;
                let port = line.split_once("successfully on port ")?.1;
                port.trim_end_matches('.').parse::<u16>().ok()
            })
            .expect("chromedriver names its port");
        let http = Client::builder().no_proxy().timeout(Duration::from_secs(90)).build().unwrap();
        let mut browser = Browser { driver, http, session: format!("http://127.0.0.1:{port}/session") };
        let arguments =
            ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--lang=en-US"];
        let chrome = json!({ "args": arguments, "prefs": { "intl.accept_languages": "en-US" } });
        let wanted = json!({ "browserName": "chrome", "goog:chromeOptions": chrome,
            "goog:loggingPrefs": { "browser": "ALL" } });
        let session = browser.call("", &json!({ "capabilities": { "alwaysMatch": wanted } })).await;
        browser.session = format!("{}/{}", browser.session, session["sessionId"].as_str().unwrap());
        browser.size(width, height).await;
        browser
    }

    async fn call(&self, path: &str, body: &Value) -> Value {
        let url = format!("{}{path}", self.session);
        let answer = self.http.post(url).json(body).send().await.unwrap();
        let good = answer.status().is_success();
        let mut told: Value = answer.json().await.unwrap();
        assert!(good, "{path}: {told}");
        told["value"].take()
    }

    /// Answers of Chromium's own protocol.
    pub(crate) async fn devtools(&self, command: &str, parameters: Value) -> Value {
        self.call("/goog/cdp/execute", &json!({ "cmd": command, "params": parameters })).await
    }

    pub(crate) async fn size(&self, width: u32, height: u32) {
        let size = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600 });
        self.devtools("Emulation.setDeviceMetricsOverride", size).await;
    }

    /// Light or dark, as the system would ask for it.
    pub(crate) async fn scheme(&self, scheme: &str) {
        let feature = json!({ "name": "prefers-color-scheme", "value": scheme });
        self.devtools("Emulation.setEmulatedMedia", json!({ "features": [feature] })).await;
    }

    pub(crate) async fn visit(&self, url: &str) {
        self.call("/url", &json!({ "url": url })).await;
    }

    pub(crate) async fn reload(&self) {
        self.call("/refresh", &json!({})).await;
    }

    /// The value of a script that ends with `return`.
    pub(crate) async fn run(&self, script: &str) -> Value {
        self.call("/execute/sync", &json!({ "script": script, "args": [] })).await
    }

    /// Waits until this expression is true.
    pub(crate) async fn until(&self, expression: &str) {
        let begin = std::time::Instant::now();
        // What is not there yet has no properties.
        let script = format!("try {{ return !!({expression}) }} catch {{ return false }}");
        while self.run(&script).await != true {
            if begin.elapsed() > PATIENCE {
                let body = self.run("return document.body.innerText").await;
                panic!("never: {expression}; the page shows {body}; {:?}", self.complaints().await);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn element(&self, selector: &str) -> String {
        let found = self.call("/element", &json!({ "using": "css selector", "value": selector })).await;
        found.as_object().unwrap().values().next().unwrap().as_str().unwrap().to_string()
    }

    pub(crate) async fn click(&self, selector: &str) {
        let element = self.element(selector).await;
        self.call(&format!("/element/{element}/click"), &json!({})).await;
    }

    pub(crate) async fn write(&self, selector: &str, text: &str) {
        let element = self.element(selector).await;
        self.call(&format!("/element/{element}/value"), &json!({ "text": text })).await;
    }

    /// Presses a key where the focus is, as WebDriver writes keys.
    pub(crate) async fn press(&self, key: &str) {
        let presses = json!([{ "type": "keyDown", "value": key }, { "type": "keyUp", "value": key }]);
        let keys = json!({ "actions": [{ "type": "key", "id": "keys", "actions": presses }] });
        self.call("/actions", &keys).await;
    }

    /// Errors that the browser wrote into its log, but for answers of the server that are errors.
    pub(crate) async fn complaints(&self) -> Vec<String> {
        let log = self.call("/se/log", &json!({ "type": "browser" })).await;
        let severe = log.as_array().unwrap().iter().filter(|line| line["level"] == "SEVERE");
        let texts = severe.map(|line| line["message"].as_str().unwrap().to_string());
        texts.filter(|text| !text.contains("the server responded with a status of")).collect()
    }
}

impl Browser {
    /// Waits for the answer without the runtime, which may be gone.
    fn end_session(&self) {
        let Some((host, path)) = self.session.strip_prefix("http://").and_then(|url| url.split_once('/'))
        else {
            return;
        };
        let request = format!("DELETE /{path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
        let Ok(mut stream) = TcpStream::connect(host) else { return };
        let _ = stream.set_read_timeout(Some(Duration::from_secs(5)));
        let _ = stream.write_all(request.as_bytes());
        // The first bytes of the answer say that the browser is gone.
        let _ = stream.read(&mut [0; 64]);
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // The driver ends its browser with the session; a signal ends the driver alone.
        self.end_session();
        let pid = nix::unistd::Pid::from_raw(self.driver.id().cast_signed());
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
        let _ = self.driver.wait();
    }
}
