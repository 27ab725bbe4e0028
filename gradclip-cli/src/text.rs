//! Words and numbers for people, and the two streams.

use std::io::{self, Write};

use comfy_table::{Cell, CellAlignment, ContentArrangement, Table, presets};

use crate::failure::Failure;

/// Columns that every table fits.
const WIDTH: u16 = 100;

/// Prints to standard output. A reader that has seen enough (`| head`) is no failure.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    match writeln!(out, "{}", text.trim_end()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::Usage(format!("standard output: expected to be writable, but {error}")))
        }
        _ => Ok(()),
    }
}

/// Prints to standard error, where standard output is something else.
pub(crate) fn print_error(text: &str) -> Result<(), Failure> {
    // It may be closed, and there is nobody to tell.
    let _ = writeln!(io::stderr(), "{}", text.trim_end());
    Ok(())
}

pub(crate) fn print_json(value: &serde_json::Value) -> Result<(), Failure> {
    print(&value.to_string())
}

/// Tells something on standard error, which may be closed. Names from files may be in it.
pub(crate) fn note(text: &str) {
    let lines: Vec<String> = text.lines().map(clean).collect();
    let _ = writeln!(io::stderr(), "{}", lines.join("\n"));
}

/// Tells what went wrong, in one line: messages of drivers have several.
pub(crate) fn error(text: &str) {
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    note(&format!("error: {}", lines.join(" ")));
}

/// Without what a terminal would act upon.
fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// A name from outside as it can stand in one line: what is not seen, breaks lines or turns their
/// direction is written as in Rust's literals, and a backslash is doubled, so that no two names look alike
/// that differ there.
pub(crate) fn escaped(name: &str) -> String {
    // Quotes end nothing here.
    name.escape_debug().to_string().replace("\\'", "'").replace("\\\"", "\"")
}

/// A path as it can stand in one line. Backslashes stay single: on Windows they are everywhere.
pub(crate) fn path(path: &std::path::Path) -> String {
    escaped(&path.display().to_string()).replace("\\\\", "\\")
}

/// A value of a file in few characters.
pub(crate) fn json(value: &serde_json::Value) -> String {
    let text = escaped(&value.to_string());
    if text.chars().count() <= 60 { text } else { text.chars().take(59).chain(['…']).collect() }
}

/// A table; columns from `numbers` on are aligned right.
pub(crate) fn table(header: &[&str], numbers: std::ops::Range<usize>, rows: Vec<Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED).set_width(WIDTH);
    let cells = |row: Vec<String>| -> Vec<Cell> {
        let align = |i| if numbers.contains(&i) { CellAlignment::Right } else { CellAlignment::Left };
        row.into_iter().enumerate().map(|(i, text)| Cell::new(text).set_alignment(align(i))).collect()
    };
    table.set_header(cells(header.iter().map(|h| (*h).to_owned()).collect()));
    rows.into_iter().for_each(|row| {
        table.add_row(cells(row));
    });
    // Wrapping columns evenly is for what would not fit otherwise, it wraps more than it must.
    if table.lines().any(|line| columns(&line) > usize::from(WIDTH)) {
        table.set_content_arrangement(ContentArrangement::Dynamic);
    }
    table.trim_fmt()
}

/// Columns of a terminal that a text takes, nearly: East Asian characters take two.
fn columns(text: &str) -> usize {
    text.chars().map(|c| if ('\u{1100}'..'\u{2000}').contains(&c) || c >= '\u{2e80}' { 2 } else { 1 }).sum()
}

/// `key   value` lines, the values below each other.
pub(crate) fn pairs(pairs: &[(&str, String)]) -> String {
    let width = pairs.iter().map(|(key, _)| key.len()).max().unwrap_or(0);
    let line = |(key, value): &(&str, String)| format!("{key:width$}  {value}\n");
    pairs.iter().map(line).collect()
}

/// A number with up to 7 significant digits.
pub(crate) fn short(value: f64) -> String {
    if value == 0.0 || !value.is_finite() {
        return value.to_string().to_lowercase();
    }
    let scientific = format!("{value:.6e}");
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let trimmed = |digits: &str| match digits.contains('.') {
        true => digits.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => digits.to_owned(),
    };
    match exponent {
        -4..=6 => trimmed(&format!("{value:.*}", (6 - exponent) as usize)),
        _ => format!("{}e{exponent}", trimmed(mantissa)),
    }
}

/// A number with up to 4 significant digits, where more would only be in the way.
pub(crate) fn rough(value: f64) -> String {
    short(format!("{value:.3e}").parse().unwrap_or(value))
}

/// A count with its thousands apart.
pub(crate) fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut grouped = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// `1 tensor`, `2 tensors`.
pub(crate) fn counted(n: u64, noun: &str) -> String {
    format!("{} {noun}{}", count(n), if n == 1 { "" } else { "s" })
}

/// An escaped name in at most `most` characters: the end is what tells tensors apart.
pub(crate) fn shortened(name: &str, most: usize) -> String {
    let all: Vec<char> = name.chars().collect();
    if all.len() <= most {
        return all.into_iter().collect();
    }
    std::iter::once('…').chain(all[all.len() + 1 - most..].iter().copied()).collect()
}

/// The name of an adapter in at most `most` characters: the beginning says what it is.
pub(crate) fn adapter(name: &str, most: usize) -> String {
    if name.chars().count() <= most {
        return name.to_owned();
    }
    name.chars().take(most - 1).chain(std::iter::once('…')).collect()
}

/// A bar of at most `width` columns for a share from 0 to 1, in steps of an eighth of a column.
pub(crate) fn bar(share: f64, width: usize) -> String {
    if share.is_nan() || share <= 0.0 {
        return String::new();
    }
    // Something that is not zero is never drawn as nothing.
    let eighths = ((share.min(1.0) * width as f64 * 8.0).round() as usize).max(1);
    let rest = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"][eighths % 8];
    format!("{}{rest}", "█".repeat(eighths / 8))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short_and_right() {
        let cases = [
            (0.0, "0"),
            (1.0, "1"),
            (0.8, "0.8"),
            (66_398_512.0, "6.639851e7"),
            (1_234_567.0, "1234567"),
            (9_999_999.7, "1e7"),
            (3e39, "3e39"),
            (1.5e-45, "1.5e-45"),
            (0.000_123_456_78, "0.0001234568"),
            (0.000_012, "1.2e-5"),
            (f64::INFINITY, "inf"),
            (f64::NAN, "nan"),
        ];
        for (value, text) in cases {
            assert_eq!(short(value), text);
        }
        assert_eq!(
            (rough(0.123_46), rough(3.4567e38), rough(9_999.7)),
            ("0.1235".into(), "3.457e38".into(), "10000".into())
        );
        assert_eq!((rough(0.0), rough(f64::INFINITY)), ("0".into(), "inf".into()));
        assert_eq!(count(1_234_567), "1,234,567");
        assert_eq!(count(999), "999");
    }

    #[test]
    fn names_keep_their_end() {
        assert_eq!(shortened("short", 10), "short");
        assert_eq!(shortened("a.very.long.name.of.layer.weight", 10), "…er.weight");
        assert_eq!(adapter("vulkan/a long name", 10), "vulkan/a …");
    }

    #[test]
    fn names_are_escaped() {
        let cases = [
            ("layer.0/weight 'a' \"b\"", "layer.0/weight 'a' \"b\""),
            ("a\nb\r\tc", "a\\nb\\r\\tc"),
            ("a\\nb", "a\\\\nb"),
            ("\\'", "\\\\'"),
            ("\u{202e}evil\u{2066}\u{200b}", "\\u{202e}evil\\u{2066}\\u{200b}"),
            ("\u{9b}31m\u{7f}", "\\u{9b}31m\\u{7f}"),
            ("名前 é שלום", "名前 é שלום"),
        ];
        for (name, shown) in cases {
            assert_eq!(escaped(name), shown);
        }
        assert_eq!(path(std::path::Path::new("C:\\a\nb")), "C:\\a\\nb");
    }

    #[test]
    fn bars_grow_by_eighths() {
        assert_eq!(bar(1.0, 3), "███");
        assert_eq!(bar(0.5, 3), "█▌");
        assert_eq!(bar(1e-9, 3), "▏");
        assert_eq!(bar(0.0, 3), "");
        assert_eq!(bar(f64::NAN, 3), "");
    }
}
