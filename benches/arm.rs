//! One side of a comparison: a process that stays, takes commands line by line and answers in lines of JSON.
//! `benches/compare.py` starts it beside others and lets them take turns; `benches/README.md` has the commands.
//!
//! It uses only what the crate has long offered in public, so that it builds with older commits too.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic)]

use std::io::{BufRead, Write};

use serde_json::{Value, json};

#[path = "arm/bandwidth.rs"]
mod bandwidth;
#[path = "arm/clock.rs"]
mod clock;
#[path = "arm/cpu.rs"]
mod cpu;
#[path = "arm/gpu.rs"]
mod gpu;
#[path = "arm/opened.rs"]
mod opened;
#[path = "arm/prepared.rs"]
mod prepared;
#[path = "arm/values.rs"]
mod values;

/// What goes wrong is told to whoever asked.
pub(crate) type Result<T> = std::result::Result<T, String>;

/// Whatever clips: the CPU path, or an adapter.
pub(crate) trait Arm {
    /// Where it runs.
    fn hello(&self) -> Value;
    /// Takes a set of tensors, of `f32` or of `bf16`, and checks the answer on it.
    fn load(&mut self, sizes: &[usize], bf16: bool) -> Result<Value>;
    /// Times `repetitions` after a discarded one.
    fn time(&mut self, clipped: bool, repetitions: usize) -> Result<Value>;
    /// GB/s of reading, of multiplying in place and of copying, read and written bytes together.
    fn bandwidth(&mut self) -> Result<Value>;
    /// Frees the set.
    fn unload(&mut self);
}

/// The threshold that halves, and one that nothing exceeds.
pub(crate) fn threshold(norm: f64, clipped: bool) -> f32 {
    if clipped { (norm / 2.0) as f32 } else { f32::INFINITY }
}

/// An error unless the first elements of a tensor that starts at element `first` of its set are what they
/// should be.
pub(crate) fn check(first: u64, own: &[f32], clipped: bool, bf16: bool) -> Result<()> {
    let factor = if clipped { 0.5 } else { 1.0 };
    // A coefficient beside one half rounds a `bf16` to the one beside it at most, 2^-7 away.
    let tolerance = if bf16 { 0.008 } else { 1e-6 };
    for (i, &value) in (first..).zip(own) {
        let want = values::typed(values::value(i), bf16) * factor;
        if (value - want).abs() > want.abs() * tolerance {
            return Err(format!("element {i} is {value}, not {want}"));
        }
    }
    Ok(())
}

/// What is told of a norm; more than 1e-6 off is an error.
pub(crate) fn judged(tensors: usize, elements: u64, norm: f64, reference: f64) -> Result<Value> {
    let error = norm / reference - 1.0;
    if error.is_nan() || error.abs() > 1e-6 {
        return Err(format!("the norm is {norm}, not {reference}"));
    }
    let arms = json!({ "gradclip": { "norm": norm, "error": error } });
    Ok(json!({ "tensors": tensors, "elements": elements, "reference": reference, "arms": arms }))
}

/// `3x768,5` as 768, 768, 768, 5.
fn sizes(text: &str) -> Option<Vec<usize>> {
    let mut sizes = Vec::new();
    for run in text.split(',') {
        let (count, size) = run.split_once('x').unwrap_or(("1", run));
        sizes.extend(std::iter::repeat_n(size.parse::<usize>().ok()?, count.parse().ok()?));
    }
    Some(sizes)
}

fn answer(arm: &mut dyn Arm, line: &str) -> Result<Value> {
    let words: Vec<&str> = line.split_whitespace().collect();
    match words[..] {
        ["hello"] => {
            let mut hello = arm.hello();
            hello["name"] = json!("gradclip");
            hello["version"] = json!(env!("CARGO_PKG_VERSION"));
            hello["commit"] = json!(option_env!("GRADCLIP_COMMIT"));
            hello["arms"] = json!(["gradclip"]);
            Ok(hello)
        }
        ["set", text] => arm.load(&sizes(text).ok_or(format!("no sizes: {text}"))?, false),
        ["set", text, "bf16"] => arm.load(&sizes(text).ok_or(format!("no sizes: {text}"))?, true),
        ["time", "gradclip", regime @ ("clipped" | "kept"), repetitions] => {
            let repetitions = repetitions.parse().map_err(|_| "no number of repetitions".to_owned())?;
            arm.time(regime == "clipped", repetitions)
        }
        ["bandwidth"] => arm.bandwidth(),
        ["drop"] => {
            arm.unload();
            Ok(json!({}))
        }
        _ => Err(format!("no such command: {line}")),
    }
}

fn serve(mut arm: Box<dyn Arm>) -> std::io::Result<()> {
    let mut out = std::io::stdout();
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        if line.trim() == "quit" {
            break;
        }
        let said = answer(arm.as_mut(), &line).unwrap_or_else(|error| json!({ "error": error }));
        writeln!(out, "{said}")?;
        out.flush()?;
    }
    Ok(())
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let given = |flag: &str| arguments.iter().any(|a| a == flag);
    // `cargo bench` and `cargo test --benches` run every bench; this one waits for somebody who asks.
    if !given("--serve") {
        println!("arm: one side of a comparison, run by benches/compare.py; nothing to do by itself");
        return;
    }
    let arm: Box<dyn Arm> = if given("--gpu") {
        match gpu::Gpu::open() {
            Ok(gpu) => Box::new(gpu),
            Err(error) => {
                println!("{}", json!({ "error": error }));
                std::process::exit(1);
            }
        }
    } else {
        let way = if given("--prepared") { cpu::Way::Prepared } else { cpu::Way::Clip };
        Box::new(cpu::Cpu::new(if given("--adamw") { cpu::Way::Step } else { way }))
    };
    serve(arm).unwrap();
}
