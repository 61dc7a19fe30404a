//! LVM's text format for a volume group's metadata (LVM2, libdm/libdm-config.c): sections, strings, numbers,
//! lists.
//!
//! Invariant: any bytes give a value or an error. Memory is bounded by the text's length and the stack by
//! [`DEEPEST`].

/// Sections and lists inside each other; a group's metadata has five.
const DEEPEST: usize = 16;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value {
    Text(String),
    Number(u64),
    List(Vec<Value>),
    Section(Section),
    /// A word or number that a volume's place never depends on (a fraction, a negative number).
    Other,
}

/// Names and values in the order of the text.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Section(Vec<(String, Value)>);

impl Section {
    pub(super) fn get(&self, name: &str) -> Option<&Value> {
        self.0.iter().find(|(other, _)| other == name).map(|(_, value)| value)
    }

    pub(super) fn number(&self, name: &str) -> Option<u64> {
        match self.get(name)? {
            Value::Number(number) => Some(*number),
            _ => None,
        }
    }

    pub(super) fn text(&self, name: &str) -> Option<&str> {
        match self.get(name)? {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    pub(super) fn section(&self, name: &str) -> Option<&Section> {
        match self.get(name)? {
            Value::Section(section) => Some(section),
            _ => None,
        }
    }

    pub(super) fn list(&self, name: &str) -> Option<&[Value]> {
        match self.get(name)? {
            Value::List(list) => Some(list),
            _ => None,
        }
    }

    /// The words of a list of texts; `None` if it is missing or has anything else.
    pub(super) fn words(&self, name: &str) -> Option<Vec<&str>> {
        let list = self.list(name)?.iter().map(|value| match value {
            Value::Text(text) => Some(text.as_str()),
            _ => None,
        });
        list.collect()
    }

    /// All sections directly inside.
    pub(super) fn sections(&self) -> impl Iterator<Item = (&str, &Section)> {
        self.0.iter().filter_map(|(name, value)| match value {
            Value::Section(section) => Some((name.as_str(), section)),
            _ => None,
        })
    }

    /// All texts anywhere inside.
    pub(super) fn texts(&self) -> Vec<&str> {
        fn gather<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
            match value {
                Value::Text(text) => found.push(text),
                Value::List(list) => list.iter().for_each(|value| gather(value, found)),
                Value::Section(section) => section.0.iter().for_each(|(_, value)| gather(value, found)),
                Value::Number(_) | Value::Other => {}
            }
        }
        let mut found = Vec::new();
        self.0.iter().for_each(|(_, value)| gather(value, &mut found));
        found
    }
}

/// Reads a whole text. The first zero byte ends it.
pub(super) fn parse(bytes: &[u8]) -> Result<Section, &'static str> {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    let mut parser = Parser { rest: &bytes[..end] };
    let section = parser.section(0)?;
    if parser.rest.is_empty() { Ok(section) } else { Err("it has a bracket too many") }
}

struct Parser<'a> {
    rest: &'a [u8],
}

impl<'a> Parser<'a> {
    /// The next byte that is neither space nor comment.
    fn peek(&mut self) -> Option<u8> {
        loop {
            match *self.rest.first()? {
                b'#' => {
                    let end = self.rest.iter().position(|byte| *byte == b'\n');
                    self.rest = &self.rest[end.unwrap_or(self.rest.len())..];
                }
                byte if byte.is_ascii_whitespace() => self.rest = &self.rest[1..],
                byte => return Some(byte),
            }
        }
    }

    fn takes(&mut self, wanted: u8) -> bool {
        let found = self.peek() == Some(wanted);
        if found {
            self.rest = &self.rest[1..];
        }
        found
    }

    /// A name, number or word.
    fn word(&mut self) -> &'a [u8] {
        let ends = |byte: &u8| byte.is_ascii_whitespace() || b"{}[]=,#\"".contains(byte);
        let end = self.rest.iter().position(ends).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        word
    }

    /// Everything up to the bracket that ends this section, or to the end of the text.
    fn section(&mut self, depth: usize) -> Result<Section, &'static str> {
        if depth > DEEPEST {
            return Err("its sections are nested too deeply");
        }
        let mut section = Section::default();
        while !matches!(self.peek(), None | Some(b'}')) {
            let name = self.word();
            if name.is_empty() {
                return Err("a name is missing in it");
            }
            let name = String::from_utf8_lossy(name).into_owned();
            let value = if self.takes(b'{') {
                let inner = self.section(depth + 1)?;
                if !self.takes(b'}') {
                    return Err("it ends inside a section");
                }
                Value::Section(inner)
            } else if self.takes(b'=') {
                self.value(depth + 1)?
            } else {
                return Err("a name without a value is in it");
            };
            section.0.push((name, value));
        }
        Ok(section)
    }

    fn value(&mut self, depth: usize) -> Result<Value, &'static str> {
        if depth > DEEPEST {
            return Err("its lists are nested too deeply");
        }
        match self.peek().ok_or("it ends before a value")? {
            b'"' => self.quoted().map(Value::Text),
            b'[' => {
                self.rest = &self.rest[1..];
                let mut list = Vec::new();
                while !self.takes(b']') {
                    list.push(self.value(depth + 1)?);
                    self.takes(b',');
                }
                Ok(Value::List(list))
            }
            _ => {
                let word = self.word();
                if word.is_empty() {
                    return Err("a value is missing in it");
                }
                let number = std::str::from_utf8(word).ok().and_then(|word| word.parse().ok());
                Ok(number.map_or(Value::Other, Value::Number))
            }
        }
    }

    fn quoted(&mut self) -> Result<String, &'static str> {
        let mut text = Vec::new();
        let mut bytes = self.rest.iter().enumerate().skip(1);
        while let Some((at, byte)) = bytes.next() {
            match byte {
                b'"' => {
                    self.rest = &self.rest[at + 1..];
                    return Ok(String::from_utf8_lossy(&text).into_owned());
                }
                b'\\' => text.extend(bytes.next().map(|(_, escaped)| *escaped)),
                other => text.push(*other),
            }
        }
        Err("it ends inside a text")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GROUP: &str = r#"lab {
        id = "x-y" # "no } value"
        seqno = 3
        status = ["READ", "WRITE"]
        flags = []
        half = 0.5
        volumes { root { stripes = [ "pv0", 17 ] quoted = "a\"b\\c" } }
    }
    contents = "Text"
    "#;

    #[test]
    fn sections_values_lists_and_comments_are_read() {
        let text = parse(GROUP.as_bytes()).expect("a text");
        let lab = text.section("lab").expect("a group");
        assert_eq!((lab.text("id"), lab.number("seqno")), (Some("x-y"), Some(3)));
        assert_eq!(lab.words("status"), Some(vec!["READ", "WRITE"]));
        assert_eq!((lab.words("flags"), lab.get("half")), (Some(vec![]), Some(&Value::Other)));
        let root = lab.section("volumes").and_then(|v| v.section("root")).expect("a volume");
        assert_eq!(root.list("stripes"), Some(&[Value::Text("pv0".into()), Value::Number(17)][..]));
        assert_eq!(root.text("quoted"), Some(r#"a"b\c"#));
        assert_eq!(lab.texts(), ["x-y", "READ", "WRITE", "pv0", r#"a"b\c"#]);
        assert_eq!(text.sections().map(|(name, _)| name).collect::<Vec<_>>(), ["lab"]);
        assert_eq!(text.text("contents"), Some("Text"));
        assert_eq!(parse(b"a = 1\0 { garbage").map(|text| text.number("a")), Ok(Some(1)));
    }

    #[test]
    fn every_cut_and_every_changed_byte_gives_a_value_or_an_error() {
        let bytes = GROUP.as_bytes();
        for at in 0..bytes.len() {
            let _ = parse(&bytes[..at]);
            for byte in [b'{', b'}', b'[', b']', b'"', b'=', b'#', b'\\', 0, 0xff] {
                let mut changed = bytes.to_vec();
                changed[at] = byte;
                let _ = parse(&changed);
            }
        }
        for bracket in ["a {", "a = [", "["] {
            assert!(parse(bracket.repeat(100_000).as_bytes()).is_err());
        }
        for wrong in ["a { }}", "a", "a =", "a = \"b", "= 1", "a = ,", "a = [1"] {
            assert!(parse(wrong.as_bytes()).is_err(), "{wrong}");
        }
    }
}
