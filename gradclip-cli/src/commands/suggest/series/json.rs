//! Norms in JSON lines: a number or an object each.

use serde_json::{Map, Value};

use super::{Log, Logged, chosen, lines, logged};
use crate::text;

pub(super) fn parse(text: &str, column: Option<&str>) -> Result<Log, String> {
    let mut objects = Vec::new();
    for (line, text) in lines(text) {
        objects.push((line, object(line, text)?));
    }
    let (names, numeric) = keys(&objects);
    let place = chosen(&names, &numeric, column)?;
    let mut log = Log { column: Some(names[place].clone()), ..Log::default() };
    for (line, object) in &objects {
        match object.get(&names[place]) {
            None | Some(Value::Null) => log.without += 1,
            Some(value) => log.norms.push(norm(*line, value)?),
        }
    }
    Ok(log)
}

fn object(line: u64, given: &str) -> Result<Map<String, Value>, String> {
    let parsed = serde_json::from_str(given).or_else(|error| {
        // Python writes NaN and Infinity, which JSON does not have.
        serde_json::from_str(&quoted(given)).map_err(|_| error)
    });
    parsed.map_err(|error| {
        let error = text::escaped(&error.to_string());
        format!("line {line}: expected one JSON object a line, but {error}")
    })
}

fn norm(line: u64, value: &Value) -> Result<Logged, String> {
    match value {
        Value::Number(number) => logged(line, &number.to_string()),
        // As text some loggers write what JSON has no number for.
        Value::String(text) => logged(line, text),
        other => Err(format!("line {line}: expected a norm, given {}", text::json(other))),
    }
}

/// All keys in the order in which they first occur, and the places of those with numbers alone.
fn keys(objects: &[(u64, Map<String, Value>)]) -> (Vec<String>, Vec<usize>) {
    let mut all: Map<String, Value> = Map::new();
    for (key, value) in
        objects.iter().flat_map(|(line, object)| object.iter().map(move |(k, v)| (k, (*line, v))))
    {
        let number = value.1.is_null() || norm(value.0, value.1).is_ok();
        let only = all.entry(key.as_str()).or_insert(Value::Bool(true));
        *only = Value::Bool(only.as_bool().unwrap_or(false) && number);
    }
    let numeric =
        all.values().enumerate().filter(|(_, only)| **only == Value::Bool(true)).map(|(i, _)| i).collect();
    (all.keys().cloned().collect(), numeric)
}

/// With the bare words that Python writes as texts.
fn quoted(line: &str) -> String {
    let mut out = String::with_capacity(line.len() + 8);
    let (mut within, mut escaped) = (false, false);
    let mut rest = line;
    while let Some(c) = rest.chars().next() {
        let word =
            ["-Infinity", "Infinity", "NaN"].into_iter().find(|word| !within && rest.starts_with(word));
        if let Some(word) = word {
            out.extend(["\"", word, "\""]);
            rest = &rest[word.len()..];
            continue;
        }
        within ^= c == '"' && !escaped;
        escaped = within && c == '\\' && !escaped;
        out.push(c);
        rest = &rest[c.len_utf8()..];
    }
    out
}
