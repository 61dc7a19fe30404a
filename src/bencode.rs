//! Bencoding (BEP 3) with limits: bytes ↔ a tree that borrows from them, and a writer without a tree.
//!
//! Invariant: input is canonical (sorted keys, no leading zeros, no bytes after the value), no deeper than
//! [`MAX_DEPTH`] (or the caller's limit) and has no more values than the caller allows, so that a small
//! message cannot ask for much memory. The readers of each format interpret the keys.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;

use bendy::decoding::{Decoder, Object};

/// Deepest nesting of a message.
pub(crate) const MAX_DEPTH: usize = 12;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value<'a> {
    /// `i…e`
    Int(i64),
    /// `n:…`
    Bytes(Cow<'a, [u8]>),
    /// `l…e`
    List(Vec<Value<'a>>),
    /// `d…e`
    Dict(Dict<'a>),
    /// One value that is bencoded already; only for writing.
    Raw(&'a [u8]),
}

/// A dictionary, in the order it is written.
pub(crate) type Dict<'a> = BTreeMap<Cow<'a, [u8]>, Value<'a>>;

/// Why bytes are not bencoded as they should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BencodeError {
    /// Not bencoding at all, or not canonical.
    #[error("it is not valid bencoding: {0}")]
    Syntax(String),
    /// A number that does not fit 64 bits.
    #[error("the number {0} is too large")]
    Number(String),
    /// More values than allowed.
    #[error("it holds more than {0} values")]
    TooMany(usize),
    /// Bytes behind the end of the value.
    #[error("something follows after its end")]
    Trailing,
}

impl From<bendy::decoding::Error> for BencodeError {
    fn from(error: bendy::decoding::Error) -> Self {
        BencodeError::Syntax(error.to_string())
    }
}

impl<'a> Value<'a> {
    /// Reads exactly one value of at most `max_values` values in all.
    pub fn parse(bytes: &'a [u8], max_values: usize) -> Result<Value<'a>, BencodeError> {
        Value::parse_nested(bytes, max_values, MAX_DEPTH)
    }

    /// The same of a value that may nest `max_depth` deep.
    pub(crate) fn parse_nested(
        bytes: &'a [u8],
        max_values: usize,
        max_depth: usize,
    ) -> Result<Value<'a>, BencodeError> {
        let mut decoder = Decoder::new(bytes).with_max_depth(max_depth);
        let mut budget = Budget { left: max_values, max: max_values };
        let value = match decoder.next_object()? {
            Some(object) => read(object, &mut budget)?,
            None => return Err(BencodeError::Syntax("it is empty".into())),
        };
        match decoder.next_object() {
            Ok(None) => Ok(value),
            _ => Err(BencodeError::Trailing),
        }
    }

    pub fn bytes(bytes: &'a [u8]) -> Self {
        Value::Bytes(Cow::Borrowed(bytes))
    }

    pub fn text(text: &'a str) -> Self {
        Value::bytes(text.as_bytes())
    }

    /// The number, if it is one.
    pub(crate) fn as_int(&self) -> Option<i64> {
        if let Value::Int(number) = self { Some(*number) } else { None }
    }

    /// The bytes, if it is a byte string.
    pub fn as_bytes(&self) -> Option<&[u8]> {
        if let Value::Bytes(bytes) = self { Some(bytes) } else { None }
    }

    /// The text, if it is a byte string of UTF-8.
    pub(crate) fn as_text(&self) -> Option<&str> {
        self.as_bytes().and_then(|bytes| std::str::from_utf8(bytes).ok())
    }

    /// The elements, if it is a list.
    pub(crate) fn as_list(&self) -> Option<&[Value<'a>]> {
        if let Value::List(list) = self { Some(list) } else { None }
    }

    /// The dictionary, if it is one.
    pub(crate) fn as_dict(&self) -> Option<&Dict<'a>> {
        if let Value::Dict(dict) = self { Some(dict) } else { None }
    }

    /// The value in its bencoded form.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.write(&mut out);
        out
    }

    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Value::Int(number) => write_int(number, out),
            Value::Bytes(bytes) => write_bytes(bytes, out),
            Value::List(list) => {
                out.push(b'l');
                list.iter().for_each(|value| value.write(out));
                out.push(b'e');
            }
            Value::Dict(dict) => DictWriter::write(out, |writer| {
                for (key, value) in dict {
                    value.write(writer.key(key));
                }
            }),
            Value::Raw(bytes) => out.extend_from_slice(bytes),
        }
    }
}

/// The bytes of one dictionary, written by `entries`.
pub(crate) fn write_dict(entries: impl FnOnce(&mut DictWriter<'_>)) -> Vec<u8> {
    let mut out = Vec::new();
    DictWriter::write(&mut out, entries);
    out
}

/// Writes the entries of a dictionary, which must come in ascending order of their keys.
pub(crate) struct DictWriter<'out> {
    out: &'out mut Vec<u8>,
    last_key: Option<Range<usize>>,
}

impl DictWriter<'_> {
    fn write(out: &mut Vec<u8>, entries: impl FnOnce(&mut DictWriter<'_>)) {
        out.push(b'd');
        entries(&mut DictWriter { out, last_key: None });
        out.push(b'e');
    }

    /// Writes a key. The caller writes its value.
    fn key(&mut self, key: &[u8]) -> &mut Vec<u8> {
        let last = self.last_key.take().map(|last| &self.out[last]);
        debug_assert!(last.is_none_or(|last| last < key), "bencoded keys must ascend");
        write_bytes(key, self.out);
        self.last_key = Some(self.out.len() - key.len()..self.out.len());
        self.out
    }

    pub(crate) fn int(&mut self, key: &str, number: impl TryInto<i64>) {
        // No format has a number beyond 2^63.
        let number = number.try_into().unwrap_or(i64::MAX);
        write_int(&number, self.key(key.as_bytes()));
    }

    /// Writes a byte string.
    pub(crate) fn bytes(&mut self, key: &str, bytes: impl AsRef<[u8]>) {
        write_bytes(bytes.as_ref(), self.key(key.as_bytes()));
    }

    pub(crate) fn list(&mut self, key: &str, items: impl FnOnce(&mut ListWriter<'_>)) {
        let out = self.key(key.as_bytes());
        out.push(b'l');
        items(&mut ListWriter { out });
        self.out.push(b'e');
    }

    pub(crate) fn dict(&mut self, key: impl AsRef<[u8]>, entries: impl FnOnce(&mut DictWriter<'_>)) {
        DictWriter::write(self.key(key.as_ref()), entries);
    }

    /// Writes a value that is bencoded already.
    pub(crate) fn raw(&mut self, key: &str, bencoded: &[u8]) {
        self.key(key.as_bytes()).extend_from_slice(bencoded);
    }
}

/// Writes the items of a list.
pub(crate) struct ListWriter<'out> {
    out: &'out mut Vec<u8>,
}

impl ListWriter<'_> {
    /// Writes a byte string.
    pub(crate) fn bytes(&mut self, bytes: impl AsRef<[u8]>) {
        write_bytes(bytes.as_ref(), self.out);
    }

    pub(crate) fn dict(&mut self, entries: impl FnOnce(&mut DictWriter<'_>)) {
        DictWriter::write(self.out, entries);
    }
}

/// A dictionary of the given entries; a later entry replaces an earlier one of the same key.
pub(crate) fn dict<'a>(entries: impl IntoIterator<Item = (&'a str, Value<'a>)>) -> Value<'a> {
    Value::Dict(entries.into_iter().map(|(key, value)| (Cow::Borrowed(key.as_bytes()), value)).collect())
}

/// The exact bytes of the dictionary under `key` of the top-level dictionary `bytes`, if there is one.
pub(crate) fn raw_dict<'a>(
    bytes: &'a [u8],
    key: &[u8],
    max_depth: usize,
) -> Result<Option<&'a [u8]>, BencodeError> {
    let mut decoder = Decoder::new(bytes).with_max_depth(max_depth);
    let Some(Object::Dict(mut top)) = decoder.next_object()? else { return Ok(None) };
    while let Some((found, object)) = top.next_pair()? {
        if found == key {
            return match object {
                Object::Dict(inner) => Ok(Some(inner.into_raw()?)),
                _ => Ok(None),
            };
        }
    }
    Ok(None)
}

struct Budget {
    left: usize,
    max: usize,
}

impl Budget {
    fn take(&mut self) -> Result<(), BencodeError> {
        self.left = self.left.checked_sub(1).ok_or(BencodeError::TooMany(self.max))?;
        Ok(())
    }
}

fn read<'a>(object: Object<'_, 'a>, budget: &mut Budget) -> Result<Value<'a>, BencodeError> {
    budget.take()?;
    Ok(match object {
        Object::Integer(digits) => {
            Value::Int(digits.parse().map_err(|_| BencodeError::Number(digits.chars().take(24).collect()))?)
        }
        Object::Bytes(bytes) => Value::bytes(bytes),
        Object::List(mut list) => {
            let mut values = Vec::new();
            while let Some(item) = list.next_object()? {
                values.push(read(item, budget)?);
            }
            Value::List(values)
        }
        Object::Dict(mut dict) => {
            let mut entries = Dict::new();
            while let Some((key, item)) = dict.next_pair()? {
                entries.insert(Cow::Borrowed(key), read(item, budget)?);
            }
            Value::Dict(entries)
        }
    })
}

fn write_int(number: &i64, out: &mut Vec<u8>) {
    out.extend_from_slice(format!("i{number}e").as_bytes());
}

fn write_bytes(bytes: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(bytes.len().to_string().as_bytes());
    out.push(b':');
    out.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn values() -> impl Strategy<Value = Value<'static>> {
        let bytes = proptest::collection::vec(any::<u8>(), 0..20);
        let leaf = prop_oneof![
            any::<i64>().prop_map(Value::Int),
            bytes.clone().prop_map(|b| Value::Bytes(Cow::Owned(b))),
        ];
        leaf.prop_recursive(4, 32, 6, move |inner| {
            let key = bytes.clone().prop_map(Cow::Owned);
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..6).prop_map(Value::List),
                proptest::collection::btree_map(key, inner, 0..6).prop_map(Value::Dict),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(value in values()) {
            let bytes = value.encode();
            prop_assert_eq!(Value::parse(&bytes, 10_000), Ok(value));
        }

        #[test]
        fn garbage_is_an_error_or_canonical(bytes in proptest::collection::vec(prop_oneof![
            Just(b'd'), Just(b'l'), Just(b'i'), Just(b'e'), Just(b':'), Just(b'1'), any::<u8>()], 0..60)) {
            if let Ok(value) = Value::parse(&bytes, 1000) {
                prop_assert_eq!(value.encode(), bytes);
            }
        }
    }

    #[test]
    fn a_dictionary_is_written_without_a_tree() {
        let bytes = write_dict(|dict| {
            dict.int("a", 1u64);
            dict.list("b", |list| {
                list.bytes("x");
                list.dict(|dict| dict.bytes("y", [0, 1]));
            });
            dict.raw("c", b"le");
            dict.dict([0xff], |_| {});
        });
        assert_eq!(bytes, b"d1:ai1e1:bl1:xd1:y2:\0\x01ee1:cle1:\xffdee");
        assert!(Value::parse(&bytes, 10).is_ok());
    }

    #[test]
    #[should_panic(expected = "keys must ascend")]
    #[cfg(debug_assertions)]
    fn keys_out_of_order_are_a_fault() {
        write_dict(|dict| {
            dict.int("b", 1u64);
            dict.int("a", 1u64);
        });
    }

    #[test]
    fn limits_hold() {
        assert_eq!(Value::parse(b"li1ei2ei3ee", 3), Err(BencodeError::TooMany(3)));
        assert!(Value::parse(&[b'l'; 100_000], 1_000_000).is_err(), "depth");
        assert_eq!(Value::parse(b"i1ei2e", 10), Err(BencodeError::Trailing));
        assert!(matches!(Value::parse(b"i99999999999999999999e", 10), Err(BencodeError::Number(_))));
        assert!(Value::parse(b"d1:b0:1:a0:e", 10).is_err(), "unsorted keys");
        assert!(Value::parse(b"", 10).is_err());
    }

    #[test]
    fn the_bytes_of_an_inner_dictionary_are_found() {
        assert_eq!(raw_dict(b"d1:ai1e4:infod1:xi2eee", b"info", MAX_DEPTH), Ok(Some(&b"d1:xi2ee"[..])));
        assert_eq!(raw_dict(b"d4:infoi2ee", b"info", MAX_DEPTH), Ok(None));
        assert_eq!(raw_dict(b"i2e", b"info", MAX_DEPTH), Ok(None));
    }
}
