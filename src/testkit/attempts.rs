//! An imager that only pretends, and an assignment for it.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use crate::agent::attempt::{Held, Imager, Pace};
use crate::agent::imaging::{Checked, Committed, Next};
use crate::api::{After, Assignment, Compare, Compress, DiskInfo, LayoutMode, Task};
use crate::event::{CheckFact, CheckFinding, Class, Failure, Installed};
use crate::image_id::ImageId;
use crate::layout::personal::{OwnFile, Places, Told};

/// Returns the given failures in turn, then succeeds.
pub(crate) struct Pretend {
    pub(crate) failures: Mutex<Vec<(Failure, bool)>>,
    pub(crate) runs: AtomicU32,
    pub(crate) compared: Mutex<Vec<Compare>>,
    /// The disks of an attempt that was cut off.
    pub(crate) system: Places,
    pub(crate) also: Vec<Places>,
    /// Making the system the terminal's own lasts until this holds.
    pub(crate) until: Box<dyn Fn() -> bool + Send + Sync>,
}

impl Pretend {
    pub(crate) fn failing(failures: Vec<(Class, bool)>) -> Self {
        let failure = |(class, touched)| (Failure::new(class, "it went wrong", "do this"), touched);
        let failures = failures.into_iter().rev().map(failure).collect();
        Pretend {
            failures: Mutex::new(failures),
            runs: AtomicU32::new(0),
            compared: Mutex::default(),
            system: system(),
            also: vec![],
            until: Box::new(|| true),
        }
    }
}

pub(crate) struct Disk;

impl Imager for Pretend {
    type Held = Disk;

    async fn run(&self, _: &str, assignment: &Assignment) -> Result<Disk, (Failure, bool)> {
        self.runs.fetch_add(1, Ordering::SeqCst);
        self.compared.lock().unwrap().push(assignment.task.compare);
        match self.failures.lock().unwrap().pop() {
            Some(failure) => Err(failure),
            None => Ok(Disk),
        }
    }

    async fn check(&self, _: &str, _: &Assignment) -> Result<Checked, Failure> {
        match self.failures.lock().unwrap().pop() {
            Some((failure, _)) => Err(failure),
            None => Ok(Checked {
                findings: vec![CheckFinding::warning(
                    "the link of eth0 has 100 Mbit/s",
                    "Replace the cable.",
                )],
                facts: vec![CheckFact { name: "memory".into(), value: "8 GiB".into() }],
            }),
        }
    }

    async fn find(&self, _: &str, _: &Assignment) -> Result<Committed, Failure> {
        match self.failures.lock().unwrap().pop() {
            Some((failure, _)) => Err(failure),
            None => {
                let (system, also) = (Some(self.system.clone()), self.also.clone());
                Ok(Committed { system, also, ..Committed::default() })
            }
        }
    }

    async fn personalise(
        &self,
        _: &str,
        places: Places,
        own: Option<OwnFile>,
        mut told: impl AsyncFnMut(Told),
    ) -> bool {
        let failed = self.failures.lock().unwrap().pop();
        if let Some((failure, _)) = failed {
            told(Told::Problem(failure.message)).await;
            return false;
        }
        let Some(own) = own else {
            if places.growing().next().is_some() {
                told(Told::Step(format!("{} grew", places.info.name))).await;
            }
            return true;
        };
        told(Told::Step(format!("/etc/hostname is {}", own.hostname))).await;
        while !(self.until)() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        told(Told::Problem("SSH host keys".into())).await;
        true
    }
}

/// Where the system of [`Disk`] lies.
pub(crate) fn system() -> Places {
    Places {
        info: DiskInfo::default(),
        layout: LayoutMode::WholeDisk,
        parts: Vec::new(),
        kept_esp: None,
        blank: None,
        bare: false,
        loader: None,
        files: Vec::new(),
        proved: true,
    }
}

impl Held for Disk {
    fn system(&self) -> Option<Places> {
        Some(system())
    }
    fn installed(&self) -> Vec<Installed> {
        vec![Installed { id: ImageId::new("debian", "1"), disk: "vda".into(), ..Installed::default() }]
    }
    fn next(&self) -> Next {
        Next::Firmware
    }
    fn warnings(&self) -> Vec<String> {
        vec![]
    }
    fn traffic(&self) -> (u64, u64) {
        (7, 9)
    }
    async fn stop(self) {}
}

pub(crate) const PACE: Pace = Pace {
    report: Duration::from_millis(5),
    again: Duration::from_millis(5),
    tell: Duration::from_secs(5),
    leave: Duration::from_secs(5),
    log: Duration::from_millis(60),
};

pub(crate) fn assignment(longest_stay: u64) -> Assignment {
    Assignment {
        job: "j".into(),
        attempt: 3,
        token: "secret".into(),
        task: Task {
            id: ImageId::new("debian", "1"),
            folder: "/images/debian/1/".into(),
            disk: "internal".into(),
            layout: LayoutMode::WholeDisk,
            partitions: None,
            compare: Compare::Full,
            ticket: None,
        },
        also: vec![],
        installed: vec![],
        known_disks: vec![],
        chosen: vec![],
        compress: Compress::Auto,
        after: After::Reboot,
        verify: true,
        longest_stay,
        preflight: false,
        limit_mbit: None,
        personal: None,
        growth: false,
        finish: false,
        date: None,
    }
}
