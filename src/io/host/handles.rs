//! How many files and sockets this process may have open.
//!
//! Invariant: only ever raised, and only as far as the system lets any process go by itself.

use std::io;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Raises the soft limit on open files (`RLIMIT_NOFILE`, setrlimit(2)) to the hard one and returns it. The
/// usual soft limit of 1024 is for programs that use select(2), and less than a lab's connections.
pub(crate) fn allow_all() -> io::Result<u64> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if soft < hard {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    }
    Ok(hard)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_files_may_be_open_as_the_system_allows() {
        let allowed = allow_all().expect("raised");
        let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("told");
        assert_eq!((soft, hard), (allowed, allowed));
    }
}
