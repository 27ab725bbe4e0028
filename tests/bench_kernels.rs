//! What `benches/kernels.rs` is asked for and what it writes: none of it needs a device.
#![allow(missing_docs, dead_code, clippy::unwrap_used)]

#[path = "../benches/kernels/options.rs"]
mod options;
#[path = "../benches/kernels/record.rs"]
mod record;

use gradclip::DType;
use options::Options;
use record::{COLUMNS, Case, Kernel, Run, Series};

fn read(arguments: &str) -> Result<Options, String> {
    Options::read(&arguments.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
}

#[test]
fn every_type_at_the_first_size_comes_before_other_sizes() {
    let options = read("--elements 100M,1k --type f32,bf16").unwrap();
    let want =
        [(DType::F32, 100_000_000), (DType::Bf16, 100_000_000), (DType::F32, 1_000), (DType::Bf16, 1_000)];
    assert_eq!(options.cases(), want);
    let first = read("").unwrap().cases();
    assert_eq!(first[..2], [(DType::F32, 100_000_000), (DType::Bf16, 100_000_000)]);
    assert_eq!(first.len(), 15);
}

#[test]
fn options_are_read() {
    let options = read("--bench --seconds 2.5 --csv a.csv --resident 3,7 --rounds 4 --flush 2").unwrap();
    assert_eq!((options.seconds, options.csv.as_deref()), (2.5, Some("a.csv")));
    assert_eq!((&options.resident[..], options.rounds, options.flush), (&[3, 7][..], 4, Some(2 << 20)));
    assert!(read("--resident none").unwrap().resident.is_empty());
    // Whole loads of 16 bytes in every type.
    assert_eq!(read("--elements 1001").unwrap().elements, [1008]);
}

#[test]
fn what_makes_no_sense_is_refused_with_its_text() {
    for (arguments, named) in [
        ("--elements 0", "`0`"),
        ("--elements 1,x", "`x`"),
        ("--elements 1é", "`1é`"),
        ("--elements 99999999999999999999", "`99999999999999999999`"),
        ("--elements 99999999999G", "`99999999999G`"),
        ("--type f64", "`f64`"),
        ("--seconds nan", "`nan`"),
        ("--seconds -1", "`-1`"),
        ("--rounds 0", "`0`"),
        ("--resident 0", "`0`"),
        ("--csv", "--csv needs a value"),
        ("--help", "--help"),
    ] {
        let error = read(arguments).unwrap_err();
        assert!(error.contains(named), "{arguments}: {error}");
    }
}

fn run() -> Run {
    Run { commit: "abc", device: "vulkan/A \"card\"".into(), driver: "1, 2".into(), clock: "timestamps" }
}

fn series(kernel: Kernel, form: &str, seconds: &[f64]) -> Series {
    Series { kernel, form: form.into(), seconds: seconds.into() }
}

/// A million elements: a copy in 8 µs moves 1000 GB/s of 8 MB; a norm in 5 µs reads 800.
fn case() -> Case {
    let series = vec![
        series(Kernel::Copy, "plain", &[8e-6]),
        series(Kernel::Sum, "plain", &[4e-6, 4e-6]),
        series(Kernel::Multiply, "plain", &[]),
        series(Kernel::Norm, "vectors, 24-bit products", &[6e-6, 5e-6, 4e-6, 5e-6, 9e-6]),
        series(Kernel::Decide, "any", &[1e-6]),
        series(Kernel::Apply, "few", &[1e-5]),
    ];
    Case { dtype: DType::F32, elements: 1_000_000, caches: "larger than caches", series }
}

#[test]
fn a_record_has_a_line_a_series_with_its_shares() {
    let lines = case().csv(&run());
    let mut reader = csv_lines(&format!("{COLUMNS}\n{lines}"));
    let heads = reader.remove(0);
    assert!(reader.iter().all(|line| line.len() == heads.len()), "{lines}");
    // The multiplication has no times, and so no line.
    assert_eq!(reader.len(), 5);
    let cell =
        |line: usize, name: &str| reader[line][heads.iter().position(|head| head == name).unwrap()].clone();
    assert_eq!(cell(0, "device"), "vulkan/A \"card\"");
    assert_eq!(cell(0, "driver"), "1, 2");
    assert_eq!((cell(0, "bytes"), cell(0, "gb_per_s")), ("8000000".into(), "1000.0000".into()));
    assert_eq!((cell(2, "kernel"), cell(2, "form")), ("norm".into(), "vectors, 24-bit products".into()));
    let spread = ["quartile_1_us", "median_us", "quartile_3_us"].map(|name| cell(2, name));
    assert_eq!(spread, ["5.00", "5.00", "6.00"]);
    let shares = ["gb_per_s", "share_of_copy", "share_of_plain"];
    assert_eq!(shares.map(|name| cell(2, name)), ["800.0000", "0.8000", "0.8000"]);
    // To decide moves no bytes; and what the apply kernel would be compared with was not measured.
    assert_eq!(shares.map(|name| cell(3, name)), ["", "", ""]);
    assert_eq!(shares.map(|name| cell(4, name)), ["800.0000", "0.8000", ""]);
}

#[test]
fn without_a_copy_there_is_no_share_of_it() {
    let mut case = case();
    case.series.remove(0);
    let table = case.table();
    assert!(
        table.contains("| norm | vectors, 24-bit products | 5 | 5.0 | 5.0 to 6.0 | 800.0 | - | 80 % |"),
        "{table}"
    );
    assert!(!table.contains("multiplication"), "{table}");
}

/// Cells of CSV whose quoted cells have no line ends.
fn csv_lines(text: &str) -> Vec<Vec<String>> {
    let cells = |line: &str| {
        let (mut cells, mut quoted, mut rest) = (vec![String::new()], false, line.chars().peekable());
        while let Some(c) = rest.next() {
            match c {
                '"' if quoted && rest.peek() == Some(&'"') => {
                    rest.next();
                    cells.last_mut().unwrap().push('"');
                }
                '"' => quoted = !quoted,
                ',' if !quoted => cells.push(String::new()),
                other => cells.last_mut().unwrap().push(other),
            }
        }
        cells
    };
    text.lines().map(cells).collect()
}
