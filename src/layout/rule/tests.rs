//! Rules on disks made by hand and by chance: what each means, and what is refused.

use super::*;
use crate::event::Class;
use proptest::prelude::*;

const GIB: u64 = 1 << 30;

fn disk(name: &str, bus: &str, size: u64) -> DiskInfo {
    DiskInfo {
        name: name.into(),
        bus: bus.into(),
        size,
        sector_size: 512,
        serial: Some(format!("S-{name}")),
        path: format!("pci/{name}"),
        removable: bus == "usb",
        ..DiskInfo::default()
    }
}

fn choose(rule: &str, disks: &[DiskInfo]) -> Result<String, Failure> {
    rule.parse::<Rule>().expect("a rule").choose(disks, 10 * GIB).map(|disk| disk.name.clone())
}

#[test]
fn the_only_internal_disk_is_taken_and_sticks_are_not_seen() {
    let disks = [disk("sda", "ata", 500 * GIB), disk("sdb", "usb", 64 * GIB)];
    assert_eq!(choose("internal", &disks).as_deref(), Ok("sda"));
    assert_eq!(choose("", &disks).as_deref(), Ok("sda"));
    assert_eq!(choose("bus=usb", &disks).as_deref(), Ok("sdb"));
    assert_eq!(choose("serial=s-SDB", &disks).as_deref(), Ok("sdb"));
    assert_eq!(choose("size=64GiB", &disks).expect_err("a stick is not named").class, Class::Refused);
}

#[test]
fn two_candidates_are_a_refusal_that_lists_them() {
    let disks = [disk("sda", "ata", 500 * GIB), disk("nvme0n1", "nvme", 480 * GIB)];
    let failure = choose("internal", &disks).expect_err("two");
    assert_eq!(failure.class, Class::Refused);
    assert!(failure.message.contains("sda") && failure.message.contains("nvme0n1"), "{}", failure.message);
    assert!(choose("size=490GiB", &disks).is_err(), "within 5 % both");
    assert_eq!(choose("internal,bus=nvme", &disks).as_deref(), Ok("nvme0n1"));
    assert_eq!(choose("size=490GiB..", &disks).as_deref(), Ok("sda"));
    assert_eq!(choose("size=..490GiB", &disks).as_deref(), Ok("nvme0n1"));
    assert_eq!(choose("/dev/sda", &disks).as_deref(), Ok("sda"));
    assert_eq!(choose("path=pci/sda", &disks).as_deref(), Ok("sda"));
}

#[test]
fn a_sector_size_tells_disks_apart_and_never_reaches_a_stick() {
    let native = DiskInfo { sector_size: 4096, ..disk("nvme0n1", "nvme", 500 * GIB) };
    let disks = [disk("sda", "ata", 500 * GIB), native.clone()];
    assert_eq!(choose("sector=4096", &disks).as_deref(), Ok("nvme0n1"));
    assert_eq!(choose("sector=512", &disks).as_deref(), Ok("sda"));
    let failure = choose("sector=4096", &disks[..1]).expect_err("the disk has another sector size");
    assert!(failure.message.contains("no disk is meant by the rule 'sector=4096'"), "{}", failure.message);
    assert!(choose("sector=4096", &[native.clone(), native]).is_err(), "two have it");
    let stick = DiskInfo { sector_size: 4096, ..disk("sdb", "usb", 64 * GIB) };
    let failure = choose("sector=4096", &[stick]).expect_err("a stick is not named");
    assert!(failure.message.contains("only removable or USB disks"), "{}", failure.message);
}

#[test]
fn a_disk_is_never_chosen_because_another_one_is_too_small_worn_out_or_dead() {
    let (ssd, hdd) = (disk("nvme0n1", "nvme", 8 * GIB), disk("sda", "ata", 2048 * GIB));
    let worn_out = DiskInfo { read_only: true, size: 500 * GIB, ..ssd.clone() };
    let dead = DiskInfo { size: 0, ..ssd.clone() };
    for first in [ssd, worn_out, dead] {
        let failure = choose("internal", &[first.clone(), hdd.clone()]).expect_err("two internal disks");
        assert!(failure.message.contains("means 2 disks"), "{}", failure.message);
        let failure = choose("bus=nvme", &[first, hdd.clone()]).expect_err("the one that is meant");
        assert!(failure.message.contains("nvme0n1") && !failure.message.contains("sda"));
    }
    let (small, large) = (disk("sda", "ata", 8 * GIB), disk("sdb", "ata", 2048 * GIB));
    assert_eq!(choose("size=1TiB..", &[small, large]).as_deref(), Ok("sdb"), "the rule says which size");
}

#[test]
fn a_kernel_name_never_reaches_a_stick() {
    let stick = [disk("sda", "usb", 64 * GIB)];
    for rule in ["/dev/sda", "name=sda", "name=sda,size=64GiB"] {
        let failure = choose(rule, &stick).expect_err("a stick took the name");
        assert!(failure.message.contains("only removable or USB disks"), "{}", failure.message);
        assert!(failure.advice.contains("bus=usb"), "{}", failure.advice);
    }
    assert_eq!(choose("name=sda,bus=usb", &stick).as_deref(), Ok("sda"));
    let card = DiskInfo { removable: true, ..disk("mmcblk1", "mmc", 64 * GIB) };
    assert!(choose("/dev/mmcblk1", std::slice::from_ref(&card)).is_err());
    assert_eq!(choose("serial=S-mmcblk1", &[card]).as_deref(), Ok("mmcblk1"));
    assert_eq!(choose("/dev/loop3", &[disk("loop3", "loop", 64 * GIB)]).as_deref(), Ok("loop3"));
}

#[test]
fn a_refusal_about_sizes_says_the_difference_in_bytes() {
    let almost = [disk("sda", "ata", 10 * GIB - 512)];
    let failure = choose("internal", &almost).expect_err("one sector too small");
    for part in ["10737418240 bytes", "10737417728 bytes", "512 too few"] {
        assert!(failure.message.contains(part), "{}", failure.message);
    }
}

#[test]
fn too_small_and_read_only_disks_are_told_apart_from_missing_ones() {
    let mut small = disk("sda", "ata", 5 * GIB);
    let failure = choose("internal", &[small.clone()]).expect_err("too small");
    assert!(failure.message.contains("10.0 GiB") && failure.message.contains("sda"), "{}", failure.message);
    small.size = 50 * GIB;
    small.read_only = true;
    assert!(choose("internal", &[small.clone()]).is_err());
    let failure = choose("name=sdx", &[small]).expect_err("missing");
    assert!(failure.message.contains("name=sdx") && failure.message.contains("sda"), "{}", failure.message);
    assert!(choose("internal", &[]).expect_err("none").message.contains("none at all"));
}

#[test]
fn what_is_no_rule_is_said() {
    for bad in [
        "sda",
        "bus=scsy",
        "size=big",
        "size=2GiB..1GiB",
        "colour=red",
        "serial=",
        "rotational=maybe",
        "sector=4000",
    ] {
        assert!(bad.parse::<Rule>().is_err(), "{bad}");
    }
}

proptest! {
    #[test]
    fn a_chosen_disk_is_the_only_one_that_the_rule_means_whatever_fits(
        sizes in proptest::collection::vec((0u64..100, 0usize..8, any::<bool>()), 0..6),
        from in 0u64..60, needed in 1u64..60
    ) {
        let disks: Vec<DiskInfo> = sizes.iter().enumerate().map(|(i, (size, bus, read_only))| {
            let mut disk = disk(&format!("d{i}"), BUSES[*bus], size * GIB);
            disk.read_only = *read_only;
            disk
        }).collect();
        let text = if from == 0 { "internal".into() } else { format!("size={from}GiB..") };
        let rule: Rule = text.parse().expect("a rule");
        let meant: Vec<&DiskInfo> =
            disks.iter().filter(|d| !is_external(d) && d.size >= from * GIB).collect();
        let fits = |d: &DiskInfo| d.size > 0 && d.size >= needed * GIB && !d.read_only;
        match rule.choose(&disks, needed * GIB) {
            Ok(disk) => {
                prop_assert!(fits(disk));
                prop_assert_eq!(meant, vec![disk]);
            }
            Err(failure) => {
                prop_assert_eq!(failure.class, Class::Refused);
                prop_assert!(meant.len() != 1 || !fits(meant[0]));
            }
        }
    }

    #[test]
    fn a_shown_rule_means_the_same(text
        in "(internal|bus=nvme|size=[1-9]GiB|name=sd[a-z]|rotational=no|sector=4096)(,serial=[A-Z0-9]{3})?") {
        let rule: Rule = text.parse().expect("a rule");
        prop_assert_eq!(rule.to_string().parse::<Rule>(), Ok(rule));
    }
}
