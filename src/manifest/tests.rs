//! A valid manifest round-trips, each contradiction is refused with its own message, and garbage is an error.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

/// A small, right manifest as JSON: one partition of two pieces on a GPT disk.
fn right() -> Value {
    let hash = "00".repeat(32);
    json!({
        "format": 1, "name": "lab", "version": "1", "sequence": 1, "created": "2026-01-01T00:00:00Z",
        "piece_length": 1 << 20,
        "disk": {
            "sector_size": 512, "minimum_size": 4 << 20, "boot_areas": [],
            "table": {"scheme": "gpt", "guid": "e339a7b4-7a3c-4dd5-b81e-ac894a573067", "entries": 128,
                "first_usable": 34}
        },
        "partitions": [{
            "number": 1, "first": 2048, "size": 2 << 20, "role": "data", "policy": "replace",
            "entry": {"scheme": "gpt", "kind": "0fc63daf-8483-4772-8e79-3d69d8477de4",
                      "guid": "c12a7328-f81f-11d2-ba4b-00a0c93ec93b", "attributes": 0, "name": "root"},
            "pieces": {"data": 1, "zero": 1, "free": 0}
        }],
        "boot": {"bios": false},
        "payload": {"pieces": 1, "file_size": 1 << 30, "info_hash": "ab".repeat(20)},
        "sidecars": {"extents.bin": hash, "pieces.sha256": hash, "boot.bin": hash, "image.torrent": hash}
    })
}

fn parse(value: &Value) -> Result<Manifest, String> {
    Manifest::parse(&serde_json::to_vec(value).unwrap()).map_err(|error| error.to_string())
}

#[test]
fn a_right_manifest_round_trips_through_its_canonical_bytes() {
    let manifest = parse(&right()).unwrap();
    let bytes = manifest.to_bytes();
    assert_eq!(Manifest::parse(&bytes).unwrap(), manifest);
    assert_eq!(Manifest::parse(&bytes).unwrap().to_bytes(), bytes);
    assert_eq!(manifest.id().to_string(), "lab@1");
}

#[test]
fn each_contradiction_is_refused_by_its_own_words() {
    let spoilt: [(&str, Value, &str); 14] = [
        ("/format", json!(2), "format 2"),
        ("/name", json!("../etc"), "name '../etc'"),
        ("/version", json!(".hidden"), "version '.hidden'"),
        ("/piece_length", json!(3 << 20), "power of two"),
        ("/disk/sector_size", json!(520), "sector size 520"),
        ("/disk/minimum_size", json!(2 << 20), "beyond the smallest disk"),
        ("/partitions", json!([]), "no partition"),
        ("/partitions/0/first", json!(u64::MAX / 2), "beyond 2^64"),
        ("/partitions/0/size", json!(1000), "whole number of sectors"),
        ("/partitions/0/pieces/zero", json!(7), "pieces on its grid"),
        ("/partitions/0/entry", json!({"scheme": "none"}), "another scheme"),
        ("/payload/pieces", json!(2), "travelling pieces"),
        ("/payload/file_size", json!(1), "multiple of the piece length"),
        ("/sidecars", json!({}), "is missing"),
    ];
    for (place, value, words) in spoilt {
        let mut manifest = right();
        *manifest.pointer_mut(place).unwrap() = value;
        let error = parse(&manifest).expect_err(place);
        assert!(error.contains(words), "{place}: {error}");
    }
}

#[test]
fn a_number_or_a_place_that_is_taken_twice_is_refused() {
    let mut manifest = right();
    let mut second = manifest["partitions"][0].clone();
    second["first"] = json!(2048 + 1);
    second["number"] = json!(2);
    manifest["partitions"].as_array_mut().unwrap().push(second.clone());
    assert!(parse(&manifest).unwrap_err().contains("overlaps"));
    second["first"] = json!(2048 + 4096);
    second["number"] = json!(1);
    manifest["disk"]["minimum_size"] = json!(16 << 20);
    manifest["partitions"][1] = second;
    assert!(parse(&manifest).unwrap_err().contains("twice"));
}

#[test]
fn a_blank_is_a_cluster_of_the_one_ntfs_that_has_one() {
    let with = |changes: &[(&str, Value)]| {
        let mut manifest = right();
        let partition = manifest["partitions"][0].as_object_mut().unwrap();
        for (field, value) in [("filesystem", json!("ntfs")), ("blank", json!(8192))].iter().chain(changes) {
            partition.insert((*field).into(), value.clone());
        }
        manifest
    };
    let manifest = parse(&with(&[])).unwrap();
    assert_eq!(manifest.partitions[0].blank, Some(8192));
    assert_eq!(Manifest::parse(&manifest.to_bytes()).unwrap(), manifest);
    for change in [
        ("blank", json!(8193)),
        ("blank", json!(0)),
        ("blank", json!(2 << 20)),
        ("blank", json!(u64::MAX - 4095)),
        ("filesystem", json!("ext4")),
    ] {
        let error = parse(&with(std::slice::from_ref(&change))).expect_err("refused");
        assert!(error.contains("no cluster of an NTFS"), "{change:?}: {error}");
    }
    assert!(parse(&with(&[("blank", json!((2 << 20) - 4096))])).is_ok(), "the last cluster");
    let mut twice = with(&[]);
    let mut second = twice["partitions"][0].clone();
    (second["number"], second["first"]) = (json!(2), json!(2048 + 4096));
    twice["partitions"].as_array_mut().unwrap().push(second);
    twice["disk"]["minimum_size"] = json!(16 << 20);
    assert!(parse(&twice).unwrap_err().contains("more than one partition has a blank"));
}

#[test]
fn unknown_fields_and_oversized_manifests_are_refused() {
    let mut manifest = right();
    manifest["surprise"] = json!(true);
    assert!(parse(&manifest).unwrap_err().contains("surprise"));
    let huge = vec![b' '; MAX_MANIFEST_BYTES + 1];
    assert!(matches!(Manifest::parse(&huge), Err(ManifestError::TooLarge(_))));
    let keys = TrustedKeys::default();
    assert!(matches!(TrustedManifest::verify(&huge, "", &keys), Err(ManifestError::TooLarge(_))));
}

#[test]
fn without_a_signature_by_a_known_key_nothing_is_trusted() {
    let bytes = parse(&right()).unwrap().to_bytes();
    let refused = TrustedManifest::verify(&bytes, "not a signature", &TrustedKeys::default());
    assert!(matches!(refused, Err(ManifestError::Untrusted { keys: 0, .. })));
    assert!(TrustedManifest::insecure(&bytes).is_ok(), "only where that was allowed");
    assert!(TrustedKeys::parse("# comment\nuntrusted comment: x\n\n").unwrap().is_empty());
    assert!(TrustedKeys::parse("no key").is_err());
}

proptest! {
    #[test]
    fn garbage_is_an_error_and_never_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(Manifest::parse(&bytes).is_err());
    }

    #[test]
    fn numbers_at_any_size_are_right_or_refused(
        first in any::<u64>(), size in any::<u64>(), data in any::<u32>(), smallest in any::<u64>(),
    ) {
        let mut manifest = right();
        manifest["partitions"][0]["first"] = json!(first);
        manifest["partitions"][0]["size"] = json!(size);
        manifest["partitions"][0]["pieces"]["data"] = json!(data);
        manifest["payload"]["pieces"] = json!(data);
        manifest["disk"]["minimum_size"] = json!(smallest);
        if let Ok(manifest) = parse(&manifest) {
            let end = u128::from(first) * 512 + u128::from(size);
            prop_assert!(end <= u128::from(manifest.disk.minimum_size));
        }
    }
}
