//! Norms in a column of CSV.

use super::{Log, chosen, logged};
use crate::text;

/// What may stand between columns; the first of them that the header has does.
const SEPARATORS: [u8; 3] = [b',', b'\t', b';'];

pub(super) fn parse(text: &str, column: Option<&str>) -> Result<Log, String> {
    let first =
        text.lines().find(|line| !line.trim().is_empty() && !line.starts_with('#')).unwrap_or_default();
    let separator = SEPARATORS.into_iter().find(|&s| first.contains(char::from(s))).unwrap_or(b',');
    let mut reader = csv::ReaderBuilder::new()
        .delimiter(separator)
        .comment(Some(b'#'))
        .trim(csv::Trim::All)
        .from_reader(text.as_bytes());
    let wrong =
        |error: csv::Error| format!("expected CSV with a header, but {}", text::escaped(&error.to_string()));
    let names: Vec<String> = reader.headers().map_err(wrong)?.iter().map(str::to_owned).collect();
    if names.iter().any(|name| name.parse::<f64>().is_ok()) {
        return Err("expected a first line with the names of the columns, but it has numbers".into());
    }
    let records: Vec<csv::StringRecord> = reader.records().collect::<Result<_, _>>().map_err(wrong)?;
    let place = chosen(&names, &numeric(names.len(), &records), column)?;
    let mut log = Log { column: Some(names[place].clone()), ..Log::default() };
    for record in &records {
        let line = record.position().map_or(0, csv::Position::line);
        match record.get(place) {
            None | Some("") => log.without += 1,
            Some(value) => log.norms.push(logged(line, value)?),
        }
    }
    Ok(log)
}

/// The columns that hold numbers and nothing else.
fn numeric(columns: usize, records: &[csv::StringRecord]) -> Vec<usize> {
    let cells =
        |i: usize| records.iter().filter_map(move |record| record.get(i)).filter(|cell| !cell.is_empty());
    (0..columns)
        .filter(|&i| cells(i).next().is_some() && cells(i).all(|cell| cell.parse::<f64>().is_ok()))
        .collect()
}
