//! QEMU's control socket (QMP): one command, one answer; events in between are passed over.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use flashmob_testkit::child::wait_until;
use serde_json::{Value, json};

/// An answer that takes longer is an error.
const ANSWER: Duration = Duration::from_secs(20);

/// A connection that is ready for commands.
#[derive(Debug)]
pub struct Qmp {
    reader: BufReader<UnixStream>,
}

impl Qmp {
    /// Connects to the socket at `path`, waiting until it is there.
    pub fn connect(path: &Path) -> Result<Self> {
        let mut stream = None;
        wait_until("QEMU's control socket", ANSWER, || {
            stream = UnixStream::connect(path).ok();
            Ok(stream.is_some())
        })?;
        let stream = stream.context("no control socket")?;
        stream.set_read_timeout(Some(ANSWER))?;
        let mut qmp = Qmp { reader: BufReader::new(stream) };
        qmp.line()?;
        qmp.command("qmp_capabilities", json!({}))?;
        Ok(qmp)
    }

    /// Gives a command and waits for its answer.
    pub fn command(&mut self, name: &str, arguments: Value) -> Result<Value> {
        let text = json!({ "execute": name, "arguments": arguments }).to_string();
        self.reader.get_mut().write_all(text.as_bytes()).with_context(|| format!("giving QEMU {name}"))?;
        loop {
            let answer = self.line()?;
            if let Some(error) = answer.get("error") {
                bail!("QEMU refused {name}: {error}");
            }
            if let Some(value) = answer.get("return") {
                return Ok(value.clone());
            }
        }
    }

    fn line(&mut self) -> Result<Value> {
        let mut line = String::new();
        if self.reader.read_line(&mut line).context("reading from QEMU")? == 0 {
            bail!("QEMU closed its control socket");
        }
        serde_json::from_str(&line).with_context(|| format!("QEMU said {line}"))
    }
}
