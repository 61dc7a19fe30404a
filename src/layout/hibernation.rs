//! Linux hibernates into a swap area and marks it: whoever changes a mounted filesystem then destroys it when
//! the system resumes.
//!
//! Invariant: pure. A swap file, and swap inside LVM or LUKS, are not recognised.

/// Marks over the swap area's signature: the kernel's, its predecessor's, uswsusp's, TuxOnIce's.
const MARKS: [&[u8]; 4] = [b"S1SUSPEND", b"S2SUSPEND", b"ULSUSPEND", b"LINHIB0001"];
/// The signature ends the first page (4096 bytes).
const AT: usize = 4086;
/// Bytes of a partition's start that [`is_in`] needs.
pub const BYTES: usize = 4096;

/// Is a Linux system hibernated in the partition that starts with these bytes?
pub fn is_in(start: &[u8]) -> bool {
    let signature = start.get(AT..).unwrap_or_default();
    MARKS.iter().any(|mark| signature.starts_with(mark))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_mark_is_known_and_a_swap_area_that_is_free_is_not_hibernated() {
        let with = |mark: &[u8]| {
            let mut start = [0; BYTES];
            start[AT..AT + mark.len()].copy_from_slice(mark);
            is_in(&start)
        };
        assert!(MARKS.into_iter().all(with));
        assert!(!with(b"SWAPSPACE2") && !is_in(&[0; 100]));
    }
}
