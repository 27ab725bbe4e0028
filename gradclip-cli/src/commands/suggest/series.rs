//! Norms that were logged: one number a line, CSV with a header, or JSON lines.

mod csv;
mod json;

use std::path::Path;

use crate::failure::Failure;
use crate::input::{Source, wrong};
use crate::text;

/// A logged norm and the line it stands in, counted from 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Logged {
    pub(crate) line: u64,
    /// Infinite or NaN where the gradients were.
    pub(crate) norm: f64,
}

/// What a log was found to hold.
#[derive(Debug, Default, PartialEq)]
struct Log {
    norms: Vec<Logged>,
    /// Lines that have no norm, where others do: a trainer logs other things between.
    without: u64,
    /// Where the norms stand, in a log of several columns.
    column: Option<String>,
}

/// How columns with norms are called, in lower case and after the last `/` or `.`.
const NAMES: [&str; 9] = [
    "norm",
    "grad_norm",
    "gradient_norm",
    "gradnorm",
    "grad norm",
    "gradient norm",
    "global_norm",
    "total_norm",
    "grad_norm_total",
];

/// Reads the norms of a log.
pub(crate) fn read(path: &Path, bytes: &Source, column: Option<&str>) -> Result<Vec<Logged>, Failure> {
    let wrong = |problem: String| wrong("INPUT", path, problem);
    let log = parse(bytes, column).map_err(wrong)?;
    if log.norms.is_empty() {
        return Err(wrong("expected at least one norm, but there is none".into()));
    }
    if log.without > 0 {
        let (lines, column) = (text::counted(log.without, "line"), log.column.unwrap_or_default());
        let path = crate::input::shown(path);
        text::note(&format!("`{path}`: {lines} without a value of `{}` left out", text::escaped(&column)));
    }
    Ok(log.norms)
}

fn parse(bytes: &[u8], column: Option<&str>) -> Result<Log, String> {
    let text = std::str::from_utf8(bytes).map_err(|_| {
        "expected a safetensors file, or norms as text: a number a line, CSV or JSON lines; it is neither"
            .to_owned()
    })?;
    let text = text.trim_start_matches('\u{feff}');
    let first = lines(text).next().map_or("", |(_, line)| line);
    match first {
        _ if first.starts_with(['{', '[']) => json::parse(text, column),
        // A single column needs no name.
        _ if first.parse::<f64>().is_ok() || first.is_empty() => numbers(text, column),
        _ => csv::parse(text, column),
    }
}

/// Lines that hold something, with their numbers.
fn lines(text: &str) -> impl Iterator<Item = (u64, &str)> {
    let all = text.lines().enumerate().map(|(i, line)| (i as u64 + 1, line.trim()));
    all.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
}

fn numbers(text: &str, column: Option<&str>) -> Result<Log, String> {
    if let Some(column) = column {
        return Err(format!(
            "--column `{}`: expected CSV or JSON lines, not plain numbers",
            text::escaped(column)
        ));
    }
    let norms = lines(text).map(|(line, text)| logged(line, text)).collect::<Result<_, String>>()?;
    Ok(Log { norms, ..Log::default() })
}

/// The norm in a line.
fn logged(line: u64, value: &str) -> Result<Logged, String> {
    let norm: f64 = value
        .trim()
        .parse()
        .map_err(|_| format!("line {line}: expected a norm, given `{}`", text::escaped(value)))?;
    if norm < 0.0 {
        return Err(format!("line {line}: expected a norm, which is 0 or more, given {norm}"));
    }
    Ok(Logged { line, norm })
}

/// The column that holds the norms: the one asked for, or the only one that can be meant. `numeric` are the
/// places of columns with numbers alone.
fn chosen(names: &[String], numeric: &[usize], column: Option<&str>) -> Result<usize, String> {
    let listed = || {
        let names: Vec<String> = names.iter().map(|name| format!("`{}`", text::escaped(name))).collect();
        names.join(", ")
    };
    if let Some(column) = column {
        let mut found = names.iter().enumerate().filter(|(_, name)| *name == column).map(|(i, _)| i);
        let first = found.next().ok_or_else(|| {
            format!(
                "--column `{}`: expected one of the columns, which are {}",
                text::escaped(column),
                listed()
            )
        })?;
        return match found.next() {
            None => Ok(first),
            Some(_) => Err(format!("--column `{}`: two columns have this name", text::escaped(column))),
        };
    }
    let named = |name: &String| {
        let name = name.to_lowercase().replace('-', "_");
        NAMES.contains(&name.rsplit(['/', '.']).next().unwrap_or_default().trim())
    };
    let meant: Vec<usize> = (0..names.len()).filter(|&i| named(&names[i])).collect();
    match (meant.as_slice(), numeric) {
        (&[one], _) | (&[], &[one]) => Ok(one),
        _ => Err(format!(
            "expected --column with the column that holds the norms; the columns are {}",
            listed()
        )),
    }
}

#[cfg(test)]
mod tests;
