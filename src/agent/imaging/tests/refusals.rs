//! Jobs that are refused or postponed before the first write.

use super::*;
use crate::agent::imaging::target::among;
use crate::api::DiskInfo;
use crate::manifest::Table;

#[tokio::test]
async fn what_cannot_be_trusted_is_refused_and_nothing_is_written() {
    let (_, image) = small_image();
    let lab = Lab::new(&image).await;
    let disk = LoopDisk::used(24 << 20, 512);
    let good = image.manifest.to_bytes();
    let refused = async |what: &str| {
        let failure = lab.refused(lab.context(), lab.assignment(&disk), &disk).await;
        assert_eq!(failure.class, Class::Untrusted, "{failure:?}");
        assert!(failure.message.contains(what), "{failure:?}");
    };

    lab.put(
        names::MANIFEST,
        String::from_utf8(good.clone()).expect("text").replace("\"lab\"", "\"bal\"").into_bytes(),
    );
    refused("not signed by any of the 1 known keys").await;

    lab.sign(&good, &KeyPair::generate_unencrypted_keypair().expect("another pair"));
    refused("not signed").await;

    lab.remove(names::SIGNATURE);
    lab.put(names::MANIFEST, good.clone());
    refused("there is no manifest.json.minisig").await;

    let mut other = image.manifest.clone();
    other.version = "2".into();
    lab.sign(&other.to_bytes(), &lab.pair);
    refused("the manifest of lab@2 for lab@1").await;

    lab.sign(&good, &lab.pair);
    for (name, bytes) in &image.sidecars {
        let mut altered = bytes.clone();
        let last = altered.len() - 1;
        altered[last] ^= 1;
        lab.put(name, altered);
        refused(&format!("{name} of lab@1 is not the one")).await;
        let long = [bytes.as_slice(), &vec![0; 40 << 20]].concat();
        if *name != names::TORRENT {
            lab.put(name, long);
            refused("is longer than").await;
        }
        lab.put(name, bytes.clone());
    }
}

#[tokio::test]
async fn an_unsigned_image_is_used_only_where_that_is_allowed() {
    let (source, image) = small_image();
    let lab = Lab::new(&image).await;
    lab.remove(names::SIGNATURE);
    let disk = LoopDisk::used(24 << 20, 512);
    let ctx = ImagingContext { allow_insecure: true, ..lab.context() };
    let status = ctx.status.clone();
    let result = tokio::time::timeout(DEADLINE, run(ctx, lab.assignment(&disk))).await.expect("in time");
    result.expect("imaged").stop().await;
    image.assert_on(&disk.bytes(), &source);
    assert!(status.view().notes.iter().any(|note| note.contains("signature is not trusted")));
}

#[tokio::test]
async fn disks_that_do_not_fit_are_refused_untouched() {
    let (_, image) = small_image();
    let lab = Lab::new(&image).await;
    let small = LoopDisk::used((24 << 20) - 512, 512);
    let failure = lab.refused(lab.context(), lab.assignment(&small), &small).await;
    assert_eq!(failure.class, Class::Refused, "{failure:?}");
    assert!(failure.message.contains("24.0 MiB"), "{failure:?}");
    let coarse = LoopDisk::used(24 << 20, 4096);
    let failure = lab.refused(lab.context(), lab.assignment(&coarse), &coarse).await;
    assert_eq!(failure.class, Class::Refused, "{failure:?}");
    assert!(failure.message.contains("sectors of 4096 bytes"), "{failure:?}");
    let disk = LoopDisk::used(24 << 20, 512);
    let mut keep = lab.assignment(&disk);
    keep.task.layout = LayoutMode::Keep;
    let failure = lab.refused(lab.context(), keep, &disk).await;
    assert!(failure.message.contains("cannot be kept"), "{failure:?}");
    let _holder = claim(&disk.info(), LayoutMode::WholeDisk, &[]).expect("free");
    let failure = lab.refused(lab.context(), lab.assignment(&disk), &disk).await;
    assert_eq!(failure.class, Class::Refused, "{failure:?}");
    assert!(failure.message.contains("in use"), "{failure:?}");
    let mut unclear = lab.assignment(&disk);
    unclear.task.disk = "biggest".into();
    assert_eq!(lab.refused(lab.context(), unclear, &disk).await.class, Class::Usage);
}

#[tokio::test]
async fn an_image_of_one_partition_goes_only_where_somebody_named() {
    let (_, image) = small_image();
    let lab = Lab::new(&image).await;
    let disk = LoopDisk::used(24 << 20, 512);
    let mut manifest = image.manifest.clone();
    manifest.disk.table = Table::None;
    for described in ["internal", "size=24MiB", "bus=loop"] {
        let mut assignment = lab.assignment(&disk);
        assignment.task.disk = described.into();
        let failure = among(&assignment.task, &manifest, &[]).expect_err(described);
        assert_eq!(failure.class, Class::Refused, "{failure:?}");
        assert!(failure.message.contains("single partition"), "{failure:?}");
    }
    let name = disk.path.trim_start_matches("/dev/").to_string();
    for named in [disk.path.clone(), format!("name={name}")] {
        let mut assignment = lab.assignment(&disk);
        assignment.task.disk = named;
        assert_eq!(among(&assignment.task, &manifest, &[]).expect("named").name, name);
    }
}

#[tokio::test]
async fn a_terminal_that_lost_a_disk_writes_nothing_until_a_person_has_accepted_that() {
    let (_, image) = small_image();
    let lab = Lab::new(&image).await;
    let disk = LoopDisk::used(24 << 20, 512);
    let mut assignment = lab.assignment(&disk);
    let system = DiskInfo { serial: Some("SSD-1".into()), size: 256 << 30, ..disk.info() };
    assignment.known_disks = vec![disk.info(), system];
    let failure = lab.refused(lab.context(), assignment.clone(), &disk).await;
    assert_eq!(failure.class, Class::Refused, "{failure:?}");
    assert!(failure.message.contains("SSD-1"), "{failure:?}");
    // The person at the machine named the device.
    let mut attended = ImagingContext { attended: true, ..lab.context() };
    attended.allow_insecure = true;
    let imaged = run(attended, assignment).await;
    imaged.unwrap_or_else(|(failure, _)| panic!("{failure:?}")).stop().await;
}

#[tokio::test]
async fn a_server_that_is_away_or_lacks_the_image_is_tried_again_later() {
    let (_, image) = small_image();
    let lab = Lab::new(&image).await;
    let disk = LoopDisk::used(24 << 20, 512);
    let mut elsewhere = lab.assignment(&disk);
    elsewhere.task.folder = "/images/none/1/".into();
    let failure = lab.refused(lab.context(), elsewhere, &disk).await;
    assert_eq!(failure.class, Class::Retry, "{failure:?}");
    let closed = TcpListener::bind(ANY_PORT).await.expect("a port").local_addr().expect("its address");
    let ctx = ImagingContext { server: format!("http://{closed}"), ..lab.context() };
    let failure = lab.refused(ctx, lab.assignment(&disk), &disk).await;
    assert_eq!(failure.class, Class::Retry, "{failure:?}");
}
