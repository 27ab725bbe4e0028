//! The header of a safetensors file: read once, in its own order, and checked so that the same file
//! always gets the same words.
//!
//! A file is the length of its header as 8 little-endian bytes, the header as JSON, and the data, which
//! the tensors cover without a hole: <https://github.com/huggingface/safetensors>.

use serde_json::{Map, Value};

use super::dtype::FileType;
use super::{kind, strict};
use crate::text;

/// Bytes of the length in front of the header.
pub(crate) const PREFIX: usize = 8;
/// The longest header that safetensors takes.
const LONGEST: u64 = 100_000_000;
/// The entry that is no tensor.
const METADATA: &str = "__metadata__";

/// Tensors in the order in which the header names them.
#[derive(Debug)]
pub(crate) struct Header {
    /// Where the data begins: bytes of length and header.
    pub(crate) data: usize,
    pub(crate) entries: Vec<Entry>,
    /// Tensors by their place in the data.
    pub(crate) layout: Vec<usize>,
    /// `__metadata__`: texts by names.
    pub(crate) metadata: Vec<(String, String)>,
}

/// A tensor of a file.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) name: String,
    pub(crate) dtype: FileType,
    pub(crate) shape: Vec<u64>,
    pub(crate) elements: u64,
    /// From where to where it lies in the data.
    pub(crate) range: (u64, u64),
}

impl Header {
    /// Reads the header of a file with these bytes; the error ends a sentence.
    pub(super) fn parse(bytes: &[u8]) -> Result<Header, String> {
        let text = text(bytes)?;
        let data = PREFIX + text.len();
        let fields = strict::object(text).map_err(|error| match kind::guess(bytes) {
            Some(what) => format!("it seems to be {what}"),
            None => format!("its header is not the JSON of one: {error}"),
        })?;
        let mut metadata = Vec::new();
        let mut entries = Vec::with_capacity(fields.len());
        for (name, value) in fields {
            match name == METADATA {
                true => metadata = texts(value)?,
                false => entries.push(Entry::read(name, &value)?),
            }
        }
        let mut layout: Vec<usize> = (0..entries.len()).collect();
        layout.sort_by_key(|&i| entries[i].range);
        covered(&entries, &layout, (bytes.len() - data) as u64)?;
        Ok(Header { data, entries, layout, metadata })
    }

    /// Where tensor `i` lies in the file.
    pub(crate) fn range(&self, i: usize) -> std::ops::Range<usize> {
        // Both are below the file's length.
        let (begin, end) = self.entries[i].range;
        self.data + begin as usize..self.data + end as usize
    }
}

/// The fields of a header that was parsed before, for one that differs a little.
pub(crate) fn fields(head: &[u8]) -> Map<String, Value> {
    head.get(PREFIX..).and_then(|text| strict::object(text).ok()).unwrap_or_default()
}

/// The header's own bytes.
fn text(bytes: &[u8]) -> Result<&[u8], String> {
    let named = |problem: String| match kind::guess(bytes) {
        Some(what) => format!("it seems to be {what}"),
        None => problem,
    };
    let Some((prefix, rest)) = bytes.split_first_chunk::<PREFIX>() else {
        let short = format!("it has {} bytes and even the header's length takes {PREFIX}", bytes.len());
        return Err(named(short));
    };
    let length = u64::from_le_bytes(*prefix);
    let found = usize::try_from(length).ok().and_then(|length| rest.get(..length));
    match found {
        Some(text) if length <= LONGEST => Ok(text),
        Some(_) => Err(named(format!("its header has {length} bytes; safetensors allows {LONGEST}"))),
        None => Err(named(format!("its header should have {length} bytes and only {} follow", rest.len()))),
    }
}

/// The metadata, which is texts alone.
fn texts(value: Value) -> Result<Vec<(String, String)>, String> {
    let wrong = || format!("`{METADATA}` in its header is not an object of texts");
    match value {
        Value::Null => Ok(Vec::new()),
        Value::Object(map) => {
            let text = |(name, value)| match value {
                Value::String(value) => Ok((name, value)),
                _ => Err(wrong()),
            };
            map.into_iter().map(text).collect()
        }
        _ => Err(wrong()),
    }
}

impl Entry {
    fn read(name: String, value: &Value) -> Result<Entry, String> {
        let shown = text::escaped(&name);
        let wrong = |what: &str, given: Option<&Value>| match given {
            Some(given) => {
                format!("in its header tensor `{shown}` should have {what}, given {}", text::json(given))
            }
            None => format!("in its header tensor `{shown}` should have {what}, and has none"),
        };
        let field = |key: &str| value.get(key);
        let dtype = field("dtype");
        let dtype = dtype
            .and_then(Value::as_str)
            .and_then(FileType::named)
            .ok_or_else(|| wrong("a `dtype` that safetensors knows", dtype))?;
        let numbers = |key| field(key).and_then(Value::as_array)?.iter().map(Value::as_u64).collect();
        let shape: Option<Vec<u64>> = numbers("shape");
        let shape = shape.ok_or_else(|| wrong("a `shape` of whole numbers", field("shape")))?;
        let offsets: Option<Vec<u64>> = numbers("data_offsets");
        let Some(&[begin, end]) = offsets.as_deref() else {
            return Err(wrong("`data_offsets` of two whole numbers", field("data_offsets")));
        };
        if end < begin {
            return Err(format!("the data_offsets [{begin}, {end}] of tensor `{shown}` go backwards"));
        }
        let elements = shape.iter().try_fold(1u64, |product, &n| product.checked_mul(n));
        let elements =
            elements.ok_or_else(|| format!("the shape {shape:?} of tensor `{shown}` overflows"))?;
        if dtype.bytes(elements) != Some(end - begin) {
            let bytes = end - begin;
            return Err(format!(
                "the data_offsets [{begin}, {end}] of tensor `{shown}` give it {bytes} bytes, which do not fit its \
                 shape {shape:?} of {}",
                dtype.name
            ));
        }
        Ok(Entry { name, dtype, shape, elements, range: (begin, end) })
    }
}

/// Checks that the tensors cover the data, each byte once.
fn covered(entries: &[Entry], layout: &[usize], data: u64) -> Result<(), String> {
    let name = |i: usize| text::escaped(&entries[i].name);
    // In the header's order, so that it is the same tensor that is named every time.
    if let Some(beyond) = entries.iter().find(|entry| entry.range.1 > data) {
        return Err(format!(
            "tensor `{}` ends at byte {} of the data, which has {data} bytes",
            text::escaped(&beyond.name),
            beyond.range.1
        ));
    }
    let mut before: Option<usize> = None;
    let mut at = 0;
    for &i in layout {
        let (begin, end) = entries[i].range;
        if begin > at {
            let owner = format!("bytes {at} to {begin} of the data, before tensor `{}`,", name(i));
            return Err(format!("{owner} belong to no tensor"));
        }
        if let Some(before) = before.filter(|_| begin < at) {
            let (first, second) = (name(before), name(i));
            return Err(format!(
                "tensor `{second}` begins at byte {begin} of the data, inside tensor `{first}`"
            ));
        }
        (at, before) = (end, Some(i));
    }
    match at < data {
        true => Err(format!("bytes {at} to {data} of the data, after the last tensor, belong to no tensor")),
        false => Ok(()),
    }
}
