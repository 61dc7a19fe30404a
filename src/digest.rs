//! SHA-1 and SHA-256 of bytes in memory.

use sha1::Digest;

use crate::units::{Sha1, Sha256};

/// SHA-1 of `bytes`.
pub fn sha1(bytes: &[u8]) -> Sha1 {
    Sha1(sha1::Sha1::digest(bytes).into())
}

/// SHA-256 of `bytes`.
pub fn sha256(bytes: &[u8]) -> Sha256 {
    Sha256(sha2::Sha256::digest(bytes).into())
}

/// SHA-256 over piece hashes in order, which the manifest gives for a partition and for the payload.
pub fn sha256_of_hashes(hashes: &[Sha256]) -> Sha256 {
    let mut hasher = sha2::Sha256::new();
    hashes.iter().for_each(|hash| hasher.update(hash.0));
    Sha256(hasher.finalize().into())
}
