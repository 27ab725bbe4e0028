//! The header of a file whose gradients are written in another type.

use std::borrow::Cow;

use serde_json::{Value, json};

use super::OutType;
use crate::input::{Class, Float, PREFIX, Shard, fields};

/// Where data begins, in bytes: a multiple of this, so that every type can be read where it lies.
const ALIGNMENT: usize = 8;

/// Bytes of a tensor as it is written.
fn bytes(shard: &Shard, entry: usize, out: OutType) -> u64 {
    let entry = &shard.header.entries[entry];
    match (out, entry.dtype.class) {
        (OutType::F32, Class::Gradient(_)) => 4 * entry.elements,
        _ => entry.range.1 - entry.range.0,
    }
}

/// Bytes of all tensors of a file as they are written.
pub(super) fn size(shard: &Shard, out: OutType) -> u64 {
    (0..shard.header.entries.len()).map(|i| bytes(shard, i, out)).sum()
}

/// Whether any tensor is written in another type than it has.
fn differs(shard: &Shard, out: OutType) -> bool {
    let other = |class| matches!(class, Class::Gradient(float) if float != Float::F32);
    out == OutType::F32 && shard.header.entries.iter().any(|entry| other(entry.dtype.class))
}

/// Length and header of a file as it is written: as they were, or with other types and offsets and the
/// order of names, metadata and data as it was.
pub(super) fn head(shard: &Shard, out: OutType) -> Cow<'_, [u8]> {
    if !differs(shard, out) {
        return shard.head().into();
    }
    let mut fields = fields(shard.head());
    let mut at = 0;
    for &i in &shard.header.layout {
        let entry = &shard.header.entries[i];
        let end = at + bytes(shard, i, out);
        if let Some(Value::Object(field)) = fields.get_mut(&entry.name) {
            if let Class::Gradient(_) = entry.dtype.class {
                field.insert("dtype".into(), "F32".into());
            }
            field.insert("data_offsets".into(), json!([at, end]));
        }
        at = end;
    }
    let mut text = Value::Object(fields).to_string().into_bytes();
    text.resize((PREFIX + text.len()).next_multiple_of(ALIGNMENT) - PREFIX, b' ');
    [&(text.len() as u64).to_le_bytes(), &text[..]].concat().into()
}
