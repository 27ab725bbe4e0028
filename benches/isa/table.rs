//! Rows for reading.

use crate::figures::{COLUMNS, Row};

/// What is printed, with a heading.
const SHOWN: [(&str, &str); 19] = [
    ("device", "device"),
    ("kernel", "kernel"),
    ("norm", "norm"),
    ("type", "type"),
    ("slots", "slots"),
    ("variant", "variant"),
    ("vgprs", "VGPRs"),
    ("sgprs", "SGPRs"),
    ("spilled_vgprs", "spills"),
    ("code_bytes", "code"),
    ("instructions", "instr."),
    ("latency", "latency"),
    ("inverse_throughput", "inv. thr."),
    ("elements_a_turn", "el./turn"),
    ("vector_an_element", "VALU/el."),
    ("vector_whole", "whole"),
    ("scalar_an_element", "SALU/el."),
    ("loads_in_flight", "loads"),
    ("bytes_in_flight", "bytes"),
];

/// A table in Markdown, kernel by kernel, each with its devices.
pub(crate) fn print(rows: &[Row]) {
    let mut sorted: Vec<&Row> = rows.iter().collect();
    let mut order: Vec<String> = Vec::new();
    for row in rows {
        let key = key(row);
        if !order.contains(&key) {
            order.push(key);
        }
    }
    sorted.sort_by_key(|row| order.iter().position(|own| *own == key(row)));
    let lines: Vec<[String; 19]> = std::iter::once(SHOWN.map(|(_, heading)| heading.to_owned()))
        .chain(sorted.iter().map(|row| SHOWN.map(|(column, _)| cell(row, column))))
        .collect();
    let width = |i: usize| lines.iter().map(|line| line[i].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..SHOWN.len()).map(width).collect();
    if let Some(row) = rows.first() {
        println!("{}, wave64\n", row.get("driver"));
    }
    for (i, line) in lines.iter().enumerate() {
        let cells: Vec<String> =
            line.iter().zip(&widths).map(|(cell, &width)| format!("{cell:<width$}")).collect();
        println!("| {} |", cells.join(" | "));
        if i == 0 {
            println!("|{}|", widths.iter().map(|width| "-".repeat(width + 2)).collect::<Vec<_>>().join("|"));
        }
    }
}

fn key(row: &Row) -> String {
    ["kernel", "norm", "type", "slots", "variant"].map(|column| row.get(column)).join(",")
}

fn cell(row: &Row, column: &str) -> String {
    let value = row.get(column);
    match column {
        "spilled_vgprs" if !row.get("error").is_empty() => row.get("error").to_owned(),
        "spilled_vgprs" => {
            let [sgprs, scratch] = ["spilled_sgprs", "scratch_bytes"].map(|column| row.get(column));
            if [value, sgprs, scratch] == ["0"; 3] {
                "0".into()
            } else {
                format!("{value}+{sgprs}, {scratch} B")
            }
        }
        _ => value.to_owned(),
    }
}

/// A record.
pub(crate) fn write(file: &str, rows: &[Row]) -> Result<(), String> {
    let lines: Vec<String> = std::iter::once(COLUMNS.join(",")).chain(rows.iter().map(Row::line)).collect();
    std::fs::write(file, lines.join("\n") + "\n").map_err(|error| format!("{file}: {error}"))
}
