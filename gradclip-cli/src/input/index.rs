//! `*.safetensors.index.json`: which shard of a set holds which tensor, as Hugging Face's libraries write
//! and read it.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Component, Path, PathBuf};

use serde_json::Value;

use super::{kind, source, strict};
use crate::failure::Failure;
use crate::text;

/// How the name of an index ends.
const ENDING: &str = ".safetensors.index.json";

/// An index and where it came from.
#[derive(Debug)]
pub(crate) struct Index {
    pub(crate) path: PathBuf,
    /// As it was, to be written back.
    pub(crate) bytes: Vec<u8>,
    /// Tensors and the shards that should hold them.
    pub(super) weights: Vec<(String, String)>,
    /// Texts of `metadata`, among which some writers put aliases.
    pub(super) metadata: Vec<(String, String)>,
}

/// Whether a file of this name is read as an index.
pub(crate) fn is_index(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().to_lowercase().ends_with(ENDING))
}

impl Index {
    pub(super) fn read(argument: &str, path: &Path) -> Result<Index, Failure> {
        let wrong = |problem: String| {
            source::wrong(argument, path, format!("expected an index of shards, but {problem}"))
        };
        let bytes = fs::read(path).map_err(|error| wrong(error.to_string()))?;
        let mut fields =
            strict::object(&bytes).map_err(|error| {
                let seems = kind::guess(&bytes).filter(|what| !what.contains("JSON"));
                wrong(seems.map_or_else(
                    || format!("it is not JSON: {error}"),
                    |what| format!("it seems to be {what}"),
                ))
            })?;
        let Some(Value::Object(map)) = fields.remove("weight_map") else {
            return Err(wrong("it has no `weight_map` of tensors and their files".into()));
        };
        let mut weights = Vec::with_capacity(map.len());
        for (tensor, shard) in map {
            match shard {
                Value::String(shard) if inside(&shard) => weights.push((tensor, shard)),
                Value::String(shard) => {
                    let shard = text::escaped(&shard);
                    return Err(wrong(format!(
                        "it names a shard `{shard}`, which is not within the index's own folder"
                    )));
                }
                other => {
                    let (tensor, given) = (text::escaped(&tensor), text::json(&other));
                    return Err(wrong(format!("for tensor `{tensor}` it names {given} instead of a file")));
                }
            }
        }
        let metadata = match fields.remove("metadata") {
            Some(Value::Object(map)) => {
                let text =
                    |(name, value)| if let Value::String(value) = value { Some((name, value)) } else { None };
                map.into_iter().filter_map(text).collect()
            }
            _ => Vec::new(),
        };
        Ok(Index { path: path.to_owned(), bytes, weights, metadata })
    }

    /// The shards by their names, each once, in the order in which their numbers sort.
    pub(super) fn shards(&self) -> BTreeSet<&str> {
        self.weights.iter().map(|(_, shard)| shard.as_str()).collect()
    }

    /// The path of a shard.
    pub(super) fn sibling(&self, shard: &str) -> PathBuf {
        self.path.parent().unwrap_or(Path::new("")).join(shard)
    }

    /// The index of the same shards when they have `size` bytes of data.
    pub(crate) fn resized(&self, size: u64) -> Vec<u8> {
        let Ok(mut fields) = strict::object(&self.bytes) else { return self.bytes.clone() };
        let total = fields.get_mut("metadata").and_then(|metadata| metadata.get_mut("total_size"));
        let Some(total) = total.filter(|total| total.is_number() && **total != size) else {
            return self.bytes.clone();
        };
        let old = std::mem::replace(total, size.into()).to_string();
        // Nothing but the number changes where it can be told from everything else.
        replaced(&self.bytes, &old, size)
            .unwrap_or_else(|| serde_json::to_vec_pretty(&fields).unwrap_or_else(|_| self.bytes.clone()))
    }
}

/// The index with its only `"total_size": old` changed.
fn replaced(bytes: &[u8], old: &str, new: u64) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(bytes).ok()?;
    let number = |after: &str| {
        let value = after.trim_start().strip_prefix(':')?.trim_start();
        let rest = value.strip_prefix(old)?;
        let ends = !rest.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '.' | 'e' | 'E'));
        ends.then_some(after.len() - value.len())
    };
    let key = "\"total_size\"";
    let mut found = text.match_indices(key).filter_map(|(at, _)| {
        let after = at + key.len();
        number(&text[after..]).map(|skip| after + skip)
    });
    let at = found.next()?;
    match found.next() {
        None => Some([&text[..at], &new.to_string(), &text[at + old.len()..]].concat().into_bytes()),
        Some(_) => None,
    }
}

/// Whether a name stays within its folder.
fn inside(shard: &str) -> bool {
    let path = Path::new(shard);
    path.file_name().is_some() && path.components().all(|part| matches!(part, Component::Normal(_)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index(text: &str) -> Index {
        Index { path: "x".into(), bytes: text.into(), weights: Vec::new(), metadata: Vec::new() }
    }

    #[test]
    fn only_the_size_changes() {
        let text = "{\n  \"metadata\": { \"total_size\" : 12 },\n\t\"weight_map\": {\"total_size\": \"12\", \"12\": \"a\"}}";
        let new = text.replace(": 12 ", ": 99999 ");
        assert_eq!(index(text).resized(99_999), new.into_bytes());
        for same in [text, r#"{"weight_map":{}}"#, r#"{"metadata":{"total_size":"12"}}"#, "not JSON"] {
            assert_eq!(index(same).resized(12), same.as_bytes(), "{same}");
        }
        let twice = r#"{"other":{"total_size":12},"metadata":{"total_size":12}}"#;
        let resized = strict::object(&index(twice).resized(7)).unwrap();
        assert_eq!(
            (&resized["other"]["total_size"], &resized["metadata"]["total_size"]),
            (&12.into(), &7.into())
        );
    }

    #[test]
    fn shards_stay_in_the_folder() {
        for good in ["a.safetensors", "sub/a.safetensors", "..a"] {
            assert!(inside(good), "{good}");
        }
        for bad in ["", ".", "..", "../a", "sub/../../a", "/etc/a", "./a", "a/.."] {
            assert!(!inside(bad), "{bad}");
        }
    }
}
