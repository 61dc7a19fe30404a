//! Serves the segments of a composed device over a Unix socket, by NBD.
//!
//! One thread owns the connection. Invariant: it ends when its client does, or when its value is dropped.
//! Only this user reaches its socket, which is in a folder of its own.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

use flashmob::io::net::nbd_server;
use flashmob::nbd::server::Export;

use flashmob::layout::segments::Segments;

/// The name of the only export.
pub(super) const EXPORT: &str = "composed";

#[derive(Debug)]
pub(super) struct Server {
    socket: PathBuf,
    thread: Option<JoinHandle<()>>,
    _folder: tempfile::TempDir,
}

impl Server {
    pub(super) fn start(file: File, segments: Segments) -> io::Result<Self> {
        let folder = tempfile::tempdir()?;
        let socket = folder.path().join("nbd");
        let listener = UnixListener::bind(&socket)?;
        let thread = std::thread::spawn(move || {
            let served = listener.accept().and_then(|(stream, _)| serve(&stream, &file, &segments));
            if let Err(e) = served {
                log::info!("the connection to a composed device ended: {e}");
            }
        });
        Ok(Server { socket, thread: Some(thread), _folder: folder })
    }

    pub(super) fn socket(&self) -> &Path {
        &self.socket
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Wakes a thread that no client came to.
        drop(UnixStream::connect(&self.socket));
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn serve(stream: &UnixStream, file: &File, segments: &Segments) -> io::Result<()> {
    let export = Export { name: EXPORT.into(), size: segments.size(), sector_size: 512 };
    nbd_server::serve(stream, stream, export, |offset, into| fill(file, segments, offset, into))
}

fn fill(file: &File, segments: &Segments, offset: u64, into: &mut [u8]) -> io::Result<()> {
    let mut done = 0;
    while done < into.len() {
        let at = offset.checked_add(done as u64);
        let Some((place, len)) = at.and_then(|at| segments.place(at)) else {
            return Err(io::ErrorKind::UnexpectedEof.into());
        };
        let end = usize::try_from(len).map_or(into.len(), |len| into.len().min(done.saturating_add(len)));
        file.read_exact_at(&mut into[done..end], place)?;
        done = end;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use flashmob::layout::segments::Segment;

    #[test]
    fn the_segments_are_read_one_behind_the_other_and_nothing_beyond_them() {
        let file = tempfile::tempfile().expect("a file");
        let bytes: Vec<u8> = (0..=255).collect();
        file.write_all_at(&bytes, 0).expect("written");
        let striped = Segment { len: 40, stripe_size: 10, stripes: vec![0, 200] };
        let segments = Segments::new(vec![Segment::linear(100, 10), striped]).expect("segments");
        let wanted =
            [100..110, 0..10, 200..210, 10..20, 210..220].map(|range| bytes[range].to_vec()).concat();
        for (offset, len) in [(0u8, 50u8), (5, 20), (49, 1)] {
            let mut read = vec![0; len.into()];
            fill(&file, &segments, offset.into(), &mut read).expect("read");
            assert_eq!(read, wanted[offset.into()..][..len.into()]);
        }
        for (offset, len) in [(50, 1), (40, 11), (u64::MAX, 1)] {
            assert!(fill(&file, &segments, offset, &mut vec![0; len]).is_err());
        }
    }

    #[test]
    fn a_server_ends_without_a_client_and_when_its_client_leaves() {
        let start = || {
            let file = tempfile::tempfile().expect("a file");
            Server::start(file, Segments::linear(0, 512)).expect("a server")
        };
        drop(start());
        let server = start();
        drop(UnixStream::connect(server.socket()).expect("connected"));
        drop(server);
    }
}
