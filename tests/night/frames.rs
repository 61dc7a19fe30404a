//! Wake-up packets as the terminals' cards hear them.

use std::collections::BTreeMap;
use std::io::Read;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use flashmob_testkit::net::enter;
use socket2::{Domain, Protocol, Socket, Type};

/// How many packets each MAC got so far.
#[derive(Clone, Default)]
pub(crate) struct Heard(Arc<Mutex<BTreeMap<String, u32>>>);

impl Heard {
    pub(crate) fn packets(&self, mac: &str) -> u32 {
        self.0.lock().unwrap().get(mac).copied().unwrap_or_default()
    }
}

/// Hears the wake-up packets in a namespace until it is dropped.
pub(crate) struct Listener {
    pub(crate) heard: Heard,
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Listener {
    pub(crate) fn start(namespace: &str) -> Listener {
        let (heard, stop) = (Heard::default(), Arc::new(AtomicBool::new(false)));
        let (namespace, count, end) = (namespace.to_owned(), heard.clone(), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            enter(&namespace).unwrap();
            let every = Protocol::from(i32::from(0x0003_u16.to_be()));
            let mut socket = Socket::new(Domain::PACKET, Type::RAW, Some(every)).unwrap();
            socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
            let mut buffer = [0; 2048];
            while !end.load(Ordering::SeqCst) {
                let Ok(length) = socket.read(&mut buffer) else { continue };
                if let Some(mac) = wakes(&buffer[..length]) {
                    *count.0.lock().unwrap().entry(mac).or_default() += 1;
                }
            }
        });
        Listener { heard, stop, thread: Some(thread) }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        self.thread.take().map(std::thread::JoinHandle::join);
    }
}

/// The MAC whose sixteen repetitions end the frame.
fn wakes(frame: &[u8]) -> Option<String> {
    let (_, magic) = frame.split_at_checked(frame.len().checked_sub(102)?)?;
    let mac = &magic[6..12];
    let right = magic[..6] == [0xff; 6] && magic[6..].chunks(6).all(|again| again == mac);
    right.then(|| mac.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(":"))
}
