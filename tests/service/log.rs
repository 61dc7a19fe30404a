//! The server's log as JSON: every line of it, also when the server does not start.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use flashmob_testkit::child::{Guarded, command, wait_until};

fn serve(folder: &Path) -> Command {
    let mut serve = command(None, env!("CARGO_BIN_EXE_flashmob"));
    serve.args(["serve", "--no-mdns", "--listen", "127.0.0.1:0", "--peer-listen", "127.0.0.1:0"]);
    serve.arg("--images").arg(folder.join("images")).arg("--state").arg(folder.join("state"));
    serve
}

fn records(text: &str) -> Vec<serde_json::Value> {
    let record = |line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    text.lines().map(record).collect()
}

#[test]
fn each_line_is_a_record_with_time_level_target_and_message() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("images")).unwrap();
    let log = folder.path().join("log");
    let mut serve = serve(folder.path());
    let mut server = Guarded::logged(serve.args(["--log-format", "json"]), &log).unwrap();
    let text = || std::fs::read_to_string(&log).unwrap_or_default();
    wait_until("it starts", Duration::from_secs(30), || Ok(text().contains("flashmob serves on"))).unwrap();
    server.terminate();
    server.wait(Duration::from_secs(20)).unwrap();
    let records = records(&text());
    for record in &records {
        for key in ["time", "level", "target", "message"] {
            assert!(record[key].is_string(), "{key} of {record}");
        }
    }
    assert_eq!(records.last().unwrap()["message"], "flashmob stops.");
}

#[test]
fn a_server_that_cannot_start_says_so_in_a_record() {
    let folder = tempfile::tempdir().unwrap();
    let mut serve = serve(&folder.path().join("missing"));
    serve.env("FLASHMOB_LOG_FORMAT", "json").stdout(Stdio::piped()).stderr(Stdio::piped());
    let output = Guarded::start(&mut serve).finish(Duration::from_secs(20)).unwrap();
    assert!(!output.status.success());
    let records = records(&String::from_utf8_lossy(&output.stderr));
    let last = records.last().unwrap();
    assert_eq!(last["level"], "error");
    assert!(last["message"].as_str().unwrap().contains("missing"), "{last}");
}
