//! Terminals as CSV: a header line with the columns' names in any order, then one line for each terminal.
//!
//! Invariant: every mistake names its line and column; what [`write`] writes, [`read`] reads as the same
//! rows.

use std::fmt;

use csv::{ReaderBuilder, StringRecord, Writer};
use uuid::Uuid;

use super::{Column, Edit, Place};
use crate::server::domain::identity::{Identity, Mac, usable_uuid};

/// How many mistakes a message names.
const SHOWN: usize = 10;

/// One line of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub line: u64,
    pub mac: Option<Mac>,
    pub uuid: Option<Uuid>,
    pub edit: Edit,
}

/// A mistake in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    pub line: u64,
    /// By its name or, for a cell that has none, its number.
    pub column: Option<String>,
    pub why: String,
}

impl Mistake {
    pub fn new(line: u64, column: Column, why: impl Into<String>) -> Self {
        Mistake { line, column: Some(column.name().into()), why: why.into() }
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.column {
            Some(column) => write!(f, "line {}, column {column}: {}", self.line, self.why),
            None => write!(f, "line {}: {}", self.line, self.why),
        }
    }
}

/// The first mistakes of a file as one text.
pub fn describe(mistakes: &[Mistake]) -> String {
    let shown = mistakes.iter().take(SHOWN).map(ToString::to_string).collect::<Vec<_>>().join("\n");
    match mistakes.len().saturating_sub(SHOWN) {
        0 => shown,
        more => format!("{shown}\nand {more} more mistakes"),
    }
}

/// The bytes of a file as text.
pub fn text_of(bytes: &[u8]) -> Result<&str, Mistake> {
    std::str::from_utf8(bytes).map_err(|e| {
        let good = String::from_utf8_lossy(&bytes[..e.valid_up_to()]);
        let begun = good.rsplit('\n').next().unwrap_or_default().chars().count();
        Mistake {
            line: u64::try_from(good.matches('\n').count()).unwrap_or(u64::MAX).saturating_add(1),
            column: Some(format!("{} of the text", begun + 1)),
            why: "this is not UTF-8; save the table as 'CSV UTF-8'".into(),
        }
    })
}

/// The line of a quotation mark that opens a field and has no partner. The reader would take all that follows
/// for one field.
fn open_quote(text: &str) -> Option<u64> {
    let (mut line, mut at_start, mut opened) = (1, true, None);
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        line += u64::from(c == '\n');
        match (opened, c) {
            (None, '"') if at_start => opened = Some(line),
            (Some(_), '"') if chars.peek() == Some(&'"') => drop(chars.next()),
            (Some(_), '"') => opened = None,
            _ => {}
        }
        at_start = opened.is_none() && matches!(c, ',' | '\n' | '\r');
    }
    opened
}

/// Reads a file. All of its mistakes are found, not only the first.
pub fn read(text: &str) -> Result<Vec<Entry>, Vec<Mistake>> {
    // Spreadsheets begin UTF-8 with a byte order mark.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if let Some(line) = open_quote(text) {
        return Err(vec![Mistake { line, column: None, why: "a quotation mark has no partner".into() }]);
    }
    let mut reader = ReaderBuilder::new().has_headers(false).flexible(true).from_reader(text.as_bytes());
    let mut records = reader.records().map(|record| record.map_err(|e| broken(&e)));
    let header = records.next().transpose().map_err(|mistake| vec![mistake])?;
    let header = header.ok_or_else(|| vec![headless("the file is empty")])?;
    let columns = columns(&header)?;
    let (mut entries, mut mistakes) = (Vec::new(), Vec::new());
    for record in records {
        match record.and_then(|record| entry(&columns, &record, text)) {
            Ok(entry) => entries.push(entry),
            Err(mistake) => mistakes.push(mistake),
        }
    }
    if mistakes.is_empty() { Ok(entries) } else { Err(mistakes) }
}

fn headless(why: &str) -> Mistake {
    let names = Column::ALL.map(Column::name).join(",");
    Mistake { line: 1, column: None, why: format!("{why}; the first line names the columns, as in {names}") }
}

fn broken(e: &csv::Error) -> Mistake {
    let line = e.position().map_or(1, csv::Position::line);
    Mistake { line, column: None, why: e.to_string() }
}

fn columns(header: &StringRecord) -> Result<Vec<Column>, Vec<Mistake>> {
    let (mut columns, mut mistakes) = (Vec::new(), Vec::new());
    for (i, name) in header.iter().enumerate() {
        let name = name.trim();
        let wrong = |why: &str| Mistake { column: Some((i + 1).to_string()), ..headless(why) };
        match Column::ALL.into_iter().find(|column| column.name().eq_ignore_ascii_case(name)) {
            Some(column) if columns.contains(&column) => {
                mistakes.push(wrong(&format!("the column '{name}' is there twice")));
            }
            Some(column) => columns.push(column),
            None if header.len() == 1 && name.contains(';') => {
                mistakes.push(wrong("columns are separated by commas, not by ';'"));
            }
            None => mistakes.push(wrong(&format!("there is no column '{name}'"))),
        }
    }
    if mistakes.is_empty() && !columns.contains(&Column::Mac) && !columns.contains(&Column::Uuid) {
        mistakes.push(headless("neither a column mac nor uuid says which terminals are meant"));
    }
    if mistakes.is_empty() { Ok(columns) } else { Err(mistakes) }
}

/// The line on which a record begins. The reader counts from the end of the record before, and passes over
/// empty lines.
fn line_of(record: &StringRecord, text: &str) -> u64 {
    let Some(position) = record.position() else { return 0 };
    let skipped = usize::try_from(position.byte()).ok().and_then(|from| text.get(from..));
    let skipped = skipped.unwrap_or_default().bytes().take_while(|byte| matches!(byte, b'\r' | b'\n'));
    position.line() + u64::try_from(skipped.filter(|byte| *byte == b'\n').count()).unwrap_or(0)
}

fn entry(columns: &[Column], record: &StringRecord, text: &str) -> Result<Entry, Mistake> {
    let line = line_of(record, text);
    if record.len() != columns.len() {
        let column = Some((record.len().min(columns.len()) + 1).to_string());
        let why = format!("the line has {} cells, the header line {}", record.len(), columns.len());
        return Err(Mistake { line, column, why });
    }
    let mut entry = Entry { line, mac: None, uuid: None, edit: Edit::default() };
    for (column, cell) in columns.iter().zip(record) {
        let cell = cell.trim();
        let wrong = |why: String| Mistake::new(line, *column, why);
        match column {
            Column::Mac if cell.is_empty() => {}
            Column::Mac => entry.mac = Some(mac(cell).map_err(wrong)?),
            Column::Uuid if cell.is_empty() => {}
            Column::Uuid => entry.uuid = Some(uuid(cell).map_err(wrong)?),
            Column::Label => entry.edit.label = Some(cell.into()),
            Column::Room => entry.edit.room = Some(cell.into()),
            Column::Seat => entry.edit.seat = Some(cell.into()),
            Column::Groups => entry.edit.groups = Some(groups(cell)),
            Column::Hostname => entry.edit.hostname = Some(cell.into()),
        }
    }
    entry.edit.check().map_err(|(column, why)| Mistake::new(line, column, why))?;
    if entry.mac.is_none() && entry.uuid.is_none() {
        let column = if columns.contains(&Column::Mac) { Column::Mac } else { Column::Uuid };
        return Err(Mistake::new(line, column, "neither a MAC nor a UUID says which terminal is meant"));
    }
    Ok(entry)
}

fn mac(cell: &str) -> Result<Mac, String> {
    let mac: Mac = cell.parse()?;
    match Identity::new(&[cell], None).macs.is_empty() {
        true => Err(format!("{mac} is the address of a virtual adapter that many machines have")),
        false => Ok(mac),
    }
}

fn uuid(cell: &str) -> Result<Uuid, String> {
    usable_uuid(cell.strip_prefix("uuid:").unwrap_or(cell))
        .ok_or_else(|| format!("'{cell}' is not a UUID that names one machine"))
}

fn groups(cell: &str) -> Vec<String> {
    let mut groups: Vec<String> = Vec::new();
    for group in cell.split(';').map(str::trim).filter(|group| !group.is_empty()) {
        if !groups.iter().any(|known| known == group) {
            groups.push(group.into());
        }
    }
    groups
}

/// A terminal as a line of a file names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row<'a> {
    pub mac: Option<Mac>,
    pub uuid: Option<Uuid>,
    pub label: Option<&'a str>,
    pub place: &'a Place,
}

/// Writes a file with all columns.
pub fn write<'a>(rows: impl Iterator<Item = Row<'a>>) -> Result<String, csv::Error> {
    let mut writer = Writer::from_writer(Vec::new());
    writer.write_record(Column::ALL.map(Column::name))?;
    for Row { mac, uuid, label, place } in rows {
        writer.write_record([
            mac.map(|mac| mac.to_string()).unwrap_or_default().as_str(),
            uuid.map(|uuid| uuid.to_string()).unwrap_or_default().as_str(),
            label.unwrap_or_default(),
            place.room.as_deref().unwrap_or_default(),
            place.seat.as_deref().unwrap_or_default(),
            place.groups.join(";").as_str(),
            place.hostname.as_deref().unwrap_or_default(),
        ])?;
    }
    let bytes = writer.into_inner().map_err(csv::IntoInnerError::into_error)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "52:54:00:00:00:0a";

    fn text(text: &str) -> Option<String> {
        Some(text.into())
    }

    #[test]
    fn columns_come_in_any_order_and_what_is_not_there_stays() {
        let file = format!("\u{feff}Label,mac, groups\r\n\r\nlab-01,{A},east; win;east\r\n\"a,b\",{A},\r\n");
        let entries = read(&file).expect("a table");
        let edit = Edit {
            label: text("lab-01"),
            groups: Some(vec!["east".into(), "win".into()]),
            ..Edit::default()
        };
        assert_eq!(entries[0], Entry { line: 3, mac: A.parse().ok(), uuid: None, edit });
        assert_eq!((entries[1].line, entries[1].edit.label.as_deref()), (4, Some("a,b")));
        assert_eq!((&entries[1].edit.groups, &entries[1].edit.room), (&Some(vec![]), &None));
    }

    #[test]
    fn bytes_that_are_no_text_and_open_quotes_are_named_by_their_line() {
        let wrong = text_of(b"mac,label\n52:54:00:00:00:0a,lat\xe9in\n").expect_err("Latin-1").to_string();
        assert!(wrong.starts_with("line 2, column 22 of the text: this is not UTF-8"), "{wrong}");
        let open = |rows: &str| read(&format!("mac,label\n{rows}")).err().map(|all| describe(&all));
        assert_eq!(
            open(&format!("{A},\"open\n")).as_deref(),
            Some("line 2: a quotation mark has no partner")
        );
        for good in ["\"a \"\"b\"\"\"", "a\"b", "\"two\nlines\"", ""] {
            let said = open(&format!("{A},{good}\n")).unwrap_or_default();
            assert!(!said.contains("partner"), "{good}: {said}");
        }
    }

    #[test]
    fn every_mistake_is_named_with_its_line_and_column() {
        for (file, expected) in [
            (String::new(), "line 1: the file is empty"),
            ("mac,colour\n".into(), "line 1, column 2: there is no column 'colour'"),
            ("mac;label\n".into(), "line 1, column 1: columns are separated by commas"),
            ("mac,label,mac\n".into(), "line 1, column 3: the column 'mac' is there twice"),
            ("label\nx\n".into(), "line 1: neither a column mac nor uuid"),
            ("mac,label\n12:34,x\n".into(), "line 2, column mac: '12:34' is not a MAC address"),
            (format!("mac,label\n{A},x\n\n\n12:34,y"), "line 5, column mac: '12:34'"),
            (format!("mac,label\n{A},\"x\ny\"\n"), "line 2, column label: 'x\\ny' has a control character"),
            ("mac,label\n,x\n".into(), "line 2, column mac: neither a MAC nor a UUID"),
            ("mac\n0a:00:27:00:00:01\n".into(), "line 2, column mac: 0a:00:27:00:00:01 is the address of a"),
            ("label,uuid\nx,\n".into(), "line 2, column uuid: neither a MAC nor a UUID"),
            ("uuid\n03000200-0400-0500-0006-000700080009\n".into(), "line 2, column uuid: '03000200"),
            (format!("mac,label\n{A},x,y\n"), "line 2, column 3: the line has 3 cells, the header line 2"),
            (format!("mac,label\n{A}\n"), "line 2, column 2: the line has 1 cells"),
            (format!("mac,hostname\n{A},a_b\n"), "line 2, column hostname: 'a_b' is no host name"),
            (format!("mac,label\n{A},room:1\n"), "line 2, column label: 'room:1' cannot be a label"),
        ] {
            let mistakes = describe(&read(&file).expect_err(&file));
            assert!(mistakes.starts_with(expected), "{file}\n{mistakes}");
        }
        let many = "mac\n".to_string() + &"x\n".repeat(12);
        let mistakes = describe(&read(&many).expect_err("mistakes"));
        assert!(mistakes.contains("line 11, column mac") && mistakes.ends_with("and 2 more mistakes"));
    }

    #[test]
    fn what_is_written_is_read_as_the_same_rows() {
        let place = Place {
            label: text("say \"a, b\""),
            room: text("101"),
            seat: None,
            groups: vec!["east".into(), "two words".into()],
            hostname: text("lab-01"),
        };
        let uuid = Uuid::parse_str("8a95d198-7f46-11e5-bf8b-08002704d48e").ok();
        let row = Row { mac: A.parse().ok(), uuid, label: place.label.as_deref(), place: &place };
        let file = write([row].into_iter()).expect("written");
        let [entry] = &read(&file).expect("a table")[..] else { panic!("one row") };
        assert_eq!((entry.mac, entry.uuid), (A.parse().ok(), uuid));
        assert_eq!(Place { seat: text("7"), ..Place::default() }.with(&entry.edit), place);
    }
}
