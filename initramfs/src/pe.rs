//! UEFI programs (PE32+ files): whether one is signed, and a stub with more sections.
//!
//! Invariant: pure; sizes and offsets that do not fit the file give an error or `None`, never a panic.

use anyhow::{Context, Result, bail};

/// Offsets from the "PE" signature (Microsoft's PE format).
const SECTION_COUNT: usize = 6;
const OPTIONAL_SIZE: usize = 20;
const OPTIONAL: usize = 24;
/// Offsets in the optional header of PE32+.
const SECTION_ALIGNMENT: usize = 32;
const FILE_ALIGNMENT: usize = 36;
const IMAGE_SIZE: usize = 56;
const HEADERS_SIZE: usize = 60;
const DIRECTORIES: usize = 112;
/// The certificate table's number among the data directories.
const CERTIFICATES: usize = 4;
const PE32_PLUS: u16 = 0x20b;
const SECTION: usize = 40;
/// Initialised data that is only read.
const READ_ONLY_DATA: u32 = 0x4000_0040;
/// A page: where stubs of all versions expect a section to begin.
const PAGE: u32 = 4096;

fn u16_at(file: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(file.get(at..)?.first_chunk().copied()?))
}

fn u32_at(file: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(file.get(at..)?.first_chunk().copied()?))
}

/// Where the "PE" signature is.
fn header(file: &[u8]) -> Option<usize> {
    let at = usize::try_from(u32_at(file, 0x3c)?).ok()?;
    let is_pe = file.starts_with(b"MZ") && file.get(at..)?.starts_with(b"PE\0\0");
    (is_pe && u16_at(file, at + OPTIONAL)? == PE32_PLUS).then_some(at)
}

/// Does the program carry a signature?
pub(crate) fn is_signed(file: &[u8]) -> bool {
    let size = || {
        let entry = header(file)? + OPTIONAL + DIRECTORIES + 8 * CERTIFICATES;
        let (at, size) = (u32_at(file, entry)?, u32_at(file, entry + 4)?);
        let end = usize::try_from(at.checked_add(size)?).ok()?;
        (at > 0 && end <= file.len()).then_some(size)
    };
    size().is_some_and(|size| size > 0)
}

fn rounded(value: u32, unit: u32) -> Option<u32> {
    value.checked_next_multiple_of(unit)
}

/// `stub` with the sections (name, content) behind its own.
pub(crate) fn with_sections(stub: &[u8], sections: &[(&str, &[u8])]) -> Result<Vec<u8>> {
    const DAMAGED: &str = "the stub is no UEFI program for x86-64";
    let pe = header(stub).context(DAMAGED)?;
    if is_signed(stub) {
        bail!("the stub is signed; sections can be added to an unsigned one only");
    }
    let optional = pe + OPTIONAL;
    let count = u16_at(stub, pe + SECTION_COUNT).context(DAMAGED)?;
    let table = optional + usize::from(u16_at(stub, pe + OPTIONAL_SIZE).context(DAMAGED)?);
    let file_unit = u32_at(stub, optional + FILE_ALIGNMENT).context(DAMAGED)?;
    let unit = u32_at(stub, optional + SECTION_ALIGNMENT).context(DAMAGED)?.max(PAGE);
    let headers = usize::try_from(u32_at(stub, optional + HEADERS_SIZE).context(DAMAGED)?)?;
    let mut entry = table + SECTION * usize::from(count);
    if entry + SECTION * sections.len() > headers || headers > stub.len() || file_unit == 0 {
        bail!("the stub's headers have no room for {} more sections", sections.len());
    }
    let mut end = 0;
    for at in (table..entry).step_by(SECTION) {
        let (size, address) =
            (u32_at(stub, at + 8).context(DAMAGED)?, u32_at(stub, at + 12).context(DAMAGED)?);
        end = end.max(address.checked_add(size).context(DAMAGED)?);
    }
    let large = || "the sections are too large for a UEFI program";
    let mut file = stub.to_vec();
    let put = |file: &mut Vec<u8>, at: usize, bytes: &[u8]| file[at..at + bytes.len()].copy_from_slice(bytes);
    for (name, content) in sections {
        let address = rounded(end, unit).with_context(large)?;
        let place = rounded(u32::try_from(file.len())?, file_unit).with_context(large)?;
        let size = u32::try_from(content.len())?;
        let stored = rounded(size, file_unit).with_context(large)?;
        file.resize(usize::try_from(place)?, 0);
        file.extend_from_slice(content);
        file.resize(usize::try_from(place.checked_add(stored).with_context(large)?)?, 0);
        let mut words = [0; SECTION];
        words[..name.len().min(8)].copy_from_slice(&name.as_bytes()[..name.len().min(8)]);
        for (at, value) in [(8, size), (12, address), (16, stored), (20, place), (36, READ_ONLY_DATA)] {
            words[at..at + 4].copy_from_slice(&value.to_le_bytes());
        }
        put(&mut file, entry, &words);
        entry += SECTION;
        end = address.checked_add(size).with_context(large)?;
    }
    let image = rounded(end, unit).with_context(large)?;
    put(&mut file, optional + IMAGE_SIZE, &image.to_le_bytes());
    let count = count + u16::try_from(sections.len())?;
    put(&mut file, pe + SECTION_COUNT, &count.to_le_bytes());
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A program with one section and room for two more.
    fn stub() -> Vec<u8> {
        let mut file = vec![0; 0x400];
        let mut put = |at: usize, bytes: &[u8]| file[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, b"MZ");
        put(0x3c, &0x80u32.to_le_bytes());
        put(0x80, b"PE\0\0");
        put(0x86, &1u16.to_le_bytes());
        put(0x94, &240u16.to_le_bytes());
        put(0x98, &PE32_PLUS.to_le_bytes());
        for (at, value) in [(SECTION_ALIGNMENT, 512u32), (FILE_ALIGNMENT, 512), (HEADERS_SIZE, 0x200)] {
            put(0x98 + at, &value.to_le_bytes());
        }
        let table = 0x98 + 240;
        for (at, value) in [(8, 0x1100u32), (12, 0x1000), (16, 0x200), (20, 0x200)] {
            put(table + at, &value.to_le_bytes());
        }
        file
    }

    #[test]
    fn sections_follow_the_stubs_own_in_memory_and_file() {
        let more: [(&str, &[u8]); 2] = [(".cmdline", b"quiet"), (".linux", &[7; 600])];
        let entries = with_sections(&stub(), &more[..1]).expect("room for one");
        assert_eq!(u16_at(&entries, 0x86), Some(2));
        let entry = 0x98 + 240 + SECTION;
        assert_eq!(&entries[entry..entry + 8], b".cmdline");
        let values: Vec<_> =
            [8, 12, 16, 20].map(|at| u32_at(&entries, entry + at)).into_iter().flatten().collect();
        assert_eq!(values, [5, 0x3000, 0x200, 0x400]);
        assert_eq!(&entries[0x400..0x405], b"quiet");
        assert_eq!(u32_at(&entries, 0x98 + IMAGE_SIZE), Some(0x4000));
        let crowd = [more[0]; 3];
        assert!(with_sections(&stub(), &crowd).is_err_and(|error| error.to_string().contains("no room")));
    }

    #[test]
    fn a_program_is_signed_when_its_certificate_table_lies_in_it() {
        let mut file = stub();
        assert!(!is_signed(&file) && !is_signed(b"MZ") && !is_signed(b""));
        let entry = 0x98 + DIRECTORIES + 8 * CERTIFICATES;
        file[entry..entry + 4].copy_from_slice(&0x300u32.to_le_bytes());
        file[entry + 4..entry + 8].copy_from_slice(&0x100u32.to_le_bytes());
        assert!(is_signed(&file));
        assert!(with_sections(&file, &[]).is_err());
        file[entry + 4..entry + 8].copy_from_slice(&0x101u32.to_le_bytes());
        assert!(!is_signed(&file));
    }
}
