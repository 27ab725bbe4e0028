//! The largest error of the norm, in ulp of an `f32`, against a compensated `f64` sum: for each
//! norm type, element type and size, over random, sorted, constant, single-spike,
//! alternating-magnitude and subnormal data; on the CPU path and on every adapter.
//!
//! `cargo run --release --example accuracy -- [largest size, 1e7 by default] [adapters up to size, 1e7]
//! [smallest size, 1e3]`
#![allow(clippy::unwrap_used)]

use gradclip::cpu::GradMut;
use gradclip::{Clip, DType, NormType, Session, Target};
use half::{bf16, f16};

const DATA: [&str; 6] = ["random", "sorted", "constant", "spike", "alternating", "subnormal"];
const SIZES: [usize; 6] = [1_000, 10_000, 100_000, 1_000_000, 10_000_000, 300_000_000];

const NORMS: [NormType; 5] =
    [NormType::Two, NormType::One, NormType::Inf, NormType::P(3.0), NormType::P(0.5)];
const DTYPES: [DType; 3] = [DType::F32, DType::F16, DType::Bf16];
/// Larger sets are split into tensors of this many elements: SwiftShader has no buffer above 1 GiB.
const LARGEST_TENSOR: usize = 1 << 27;

/// A row of the table: the worst error of each session (NaN where it was not measured), and the data
/// that the largest of all was met on.
struct Row {
    norm: NormType,
    dtype: DType,
    size: usize,
    worst: Vec<f64>,
    on: &'static str,
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1).map(|a| a.parse::<f64>());
    let largest = arguments.next().transpose()?.unwrap_or(1e7) as usize;
    let on_adapters = arguments.next().transpose()?.unwrap_or(1e7) as usize;
    let smallest = arguments.next().transpose()?.unwrap_or(1e3) as usize;
    let mut sessions = vec![("CPU".to_owned(), Session::open(&Target::Cpu)?)];
    for adapter in gradclip::adapters() {
        let name = gradclip::adapter_name(&adapter.get_info());
        sessions.push((name.clone(), Session::open(&Target::Named(name))?));
    }
    let names: Vec<_> = sessions.iter().map(|(name, _)| name.as_str()).collect();
    println!("| norm | type | elements | {} | largest on |", names.join(" | "));
    println!("|---|---|---|{}---|", "---|".repeat(names.len()));
    let mut rows = Vec::new();
    for dtype in DTYPES {
        for size in SIZES.into_iter().filter(|n| (smallest..=largest).contains(n)) {
            let used = if size > on_adapters { &sessions[..1] } else { &sessions[..] };
            rows.extend(measured(used, sessions.len(), dtype, size));
            eprintln!("{dtype}, {size} elements: done");
        }
    }
    // Sorted by norm, else as measured.
    for norm in NORMS {
        rows.iter().filter(|row| row.norm == norm).for_each(print);
    }
    Ok(())
}

/// The rows of one element type and size.
fn measured(sessions: &[(String, Session)], columns: usize, dtype: DType, size: usize) -> Vec<Row> {
    let row = |norm| {
        let mut worst = vec![0.0; sessions.len()];
        worst.resize(columns, f64::NAN);
        Row { norm, dtype, size, worst, on: "-" }
    };
    let mut rows: Vec<Row> = NORMS.map(row).into();
    for kind in DATA {
        let mut values = Values::new(dtype, data(kind, dtype, size));
        for row in &mut rows {
            let exact = exact(&values, row.norm);
            for (i, (_, session)) in sessions.iter().enumerate() {
                let clip = Clip::measure().norm_type(row.norm);
                let norm = session.clip(&mut values.grads(), &clip).unwrap().norm().unwrap();
                let error = ulps(norm, exact);
                if row.worst.iter().all(|&w| w.is_nan() || error > w) {
                    row.on = kind;
                }
                row.worst[i] = row.worst[i].max(error);
            }
        }
    }
    rows
}

fn print(row: &Row) {
    let cell = |w: &f64| if w.is_nan() { "-".into() } else { format!("{w:.3}") };
    let cells: Vec<String> = row.worst.iter().map(cell).collect();
    let norm = match row.norm {
        NormType::One => "L1".into(),
        NormType::Two => "L2".into(),
        NormType::P(p) => format!("p = {p}"),
        _ => "infinity".to_owned(),
    };
    println!("| {norm} | {} | {} | {} | {} |", row.dtype, row.size, cells.join(" | "), row.on);
}

fn ulps(value: f64, exact: f64) -> f64 {
    let exponent = if exact == 0.0 { -126.0 } else { exact.log2().floor().max(-126.0) };
    (value - exact).abs() / (exponent - 23.0).exp2()
}

enum Values {
    F32(Vec<f32>),
    F16(Vec<f16>),
    Bf16(Vec<bf16>),
}

impl Values {
    fn new(dtype: DType, values: Vec<f32>) -> Values {
        match dtype {
            DType::F16 => Values::F16(values.into_iter().map(f16::from_f32).collect()),
            DType::Bf16 => Values::Bf16(values.into_iter().map(bf16::from_f32).collect()),
            _ => Values::F32(values),
        }
    }

    fn grads(&mut self) -> Vec<GradMut<'_>> {
        match self {
            Values::F32(v) => v.chunks_mut(LARGEST_TENSOR).map(|v| GradMut::new("g", v)).collect(),
            Values::F16(v) => v.chunks_mut(LARGEST_TENSOR).map(|v| GradMut::f16("g", v)).collect(),
            Values::Bf16(v) => v.chunks_mut(LARGEST_TENSOR).map(|v| GradMut::bf16("g", v)).collect(),
        }
    }

    fn for_each(&self, mut f: impl FnMut(f64)) {
        match self {
            Values::F32(v) => v.iter().for_each(|&x| f(f64::from(x).abs())),
            Values::F16(v) => v.iter().for_each(|&x| f(f64::from(x).abs())),
            Values::Bf16(v) => v.iter().for_each(|&x| f(f64::from(x).abs())),
        }
    }
}

/// Squares of 24 bits are exact in f64; Neumaier's compensation leaves a relative error near 2^-53
/// whatever the number of terms.
fn exact(values: &Values, norm: NormType) -> f64 {
    let mut largest = 0.0f64;
    values.for_each(|x| largest = largest.max(x));
    let (mut sum, mut lost) = (0.0f64, 0.0f64);
    values.for_each(|x| {
        let term = match norm {
            NormType::One => x,
            NormType::Two => x * x,
            NormType::P(p) => (x / largest).powf(p),
            _ => 0.0,
        };
        let next = sum + term;
        lost += if sum >= term { (sum - next) + term } else { (term - next) + sum };
        sum = next;
    });
    match norm {
        NormType::One => sum + lost,
        NormType::Two => (sum + lost).sqrt(),
        NormType::P(p) => largest * (sum + lost).powf(1.0 / p),
        _ => largest,
    }
}

/// Within the range of the element type.
fn data(kind: &str, dtype: DType, len: usize) -> Vec<f32> {
    let mut state = 0x5eed ^ len as u64;
    let mut next = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    let half = dtype == DType::F16;
    let (large, small) = if half { (3e4, 1e-6) } else { (1e30, 1e-30) };
    let tiny = if half { 6e-5 } else { 1.1e-38 };
    let mut values: Vec<f32> = match kind {
        "constant" => vec![0.1; len],
        "spike" => (0..len).map(|i| if i == len / 3 { large } else { next() * large * 1e-4 }).collect(),
        "alternating" => (0..len).map(|i| next() * [large, small, 1.0][i % 3]).collect(),
        "subnormal" => (0..len).map(|_| next() * tiny).collect(),
        _ => (0..len).map(|_| next()).collect(),
    };
    if kind == "sorted" {
        values.sort_unstable_by(f32::total_cmp);
    }
    values
}
