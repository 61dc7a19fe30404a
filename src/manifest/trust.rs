//! Trusted minisign public keys, and the manifests that one of them signed.
//!
//! Invariant: the signature is checked over the exact bytes before they are parsed.

use std::sync::Arc;

use minisign_verify::{PublicKey, Signature};

use super::{MAX_MANIFEST_BYTES, Manifest, ManifestError};

/// Public keys that a terminal trusts: lines of base64 as `minisign` writes them; other lines are comments.
#[derive(Clone, Default)]
pub struct TrustedKeys {
    keys: Vec<PublicKey>,
}

/// A line that is no public key. It is not shown, because it may be a secret key that somebody named by
/// mistake.
#[derive(Debug, thiserror::Error)]
#[error("line {line} is not a minisign public key ({source}); the file of public keys ends in .pub")]
pub struct KeyError {
    /// From 1.
    line: usize,
    source: minisign_verify::Error,
}

impl TrustedKeys {
    /// Reads all keys in `text`. Lines that begin with `untrusted comment:` or `#` and empty lines are
    /// skipped.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        let mut keys = Vec::new();
        for (n, line) in text.lines().map(str::trim).enumerate() {
            if line.is_empty() || line.starts_with('#') || line.starts_with("untrusted comment:") {
                continue;
            }
            let key = PublicKey::from_base64(line);
            keys.push(key.map_err(|source| KeyError { line: n + 1, source })?);
        }
        Ok(TrustedKeys { keys })
    }

    /// How many keys there are.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// True when nothing can be trusted.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }
}

/// A manifest that may be acted on.
#[derive(Debug, Clone)]
pub struct TrustedManifest {
    manifest: Arc<Manifest>,
}

impl TrustedManifest {
    /// Checks the minisign signature of exactly `bytes` against each key, then reads them.
    pub fn verify(bytes: &[u8], signature: &str, keys: &TrustedKeys) -> Result<Self, ManifestError> {
        if bytes.len() > MAX_MANIFEST_BYTES {
            return Err(ManifestError::TooLarge(bytes.len()));
        }
        let untrusted = |why: String| ManifestError::Untrusted { keys: keys.len(), why };
        let signature =
            Signature::decode(signature).map_err(|e| untrusted(format!("signature is not readable: {e}")))?;
        let mut why = "no key is known".to_string();
        for key in &keys.keys {
            match key.verify(bytes, &signature, false) {
                Ok(()) => return TrustedManifest::read(bytes),
                Err(e) => why = e.to_string(),
            }
        }
        Err(untrusted(why))
    }

    /// Accepts a manifest without a signature. Only for an initramfs that was built to allow it, and for an
    /// administrator's own machine.
    pub fn insecure(bytes: &[u8]) -> Result<Self, ManifestError> {
        TrustedManifest::read(bytes)
    }

    fn read(bytes: &[u8]) -> Result<Self, ManifestError> {
        Ok(TrustedManifest { manifest: Arc::new(Manifest::parse(bytes)?) })
    }

    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The manifest, to be kept elsewhere.
    pub fn shared(&self) -> Arc<Manifest> {
        Arc::clone(&self.manifest)
    }
}
