//! Replays optimiser runs of other libraries step for step, on the CPU path and on every adapter of this
//! machine, and compares the parameters after each step:
//!
//! `cargo run --release --example trajectories -- [FOLDER…]`
//!
//! FOLDER is a case (`case.json`, `input.safetensors`, `expected.safetensors`) or a folder of cases,
//! `tests/data/step_cases` unless given; `tests/data/make_step_cases.py` makes cases. The table has the
//! largest error of a parameter in units of the case's tolerance: up to 1 passes. On adapters it is the
//! larger one of two placings: a buffer a tensor, and everything in one. What failed is named at the end,
//! and the exit code is then 1.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use gradclip_verify::gpu::Gpu;

#[path = "../tests/common/files.rs"]
mod files;
#[path = "../tests/common/trajectory/mod.rs"]
mod trajectory;

use trajectory::{Attempt, Case, PLACINGS, Replay, folders};

fn main() -> ExitCode {
    let mut arguments: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    if arguments.is_empty() {
        arguments.push(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/step_cases"));
    }
    let mut failures = Vec::new();
    let cases = cases(&arguments, &mut failures);
    let gpus: Vec<Gpu> = gradclip::adapters()
        .iter()
        .filter_map(|adapter| Gpu::open(adapter).map_err(|error| failures.push(error.to_string())).ok())
        .collect();
    let names: Vec<String> = gpus.iter().map(Gpu::name).collect();
    println!("| case | steps | CPU path | {} |", names.join(" | "));
    println!("|---|---|---|{}", "---|".repeat(names.len()));
    cases.iter().for_each(|case| print_row(case, &gpus, &mut failures));
    if cases.is_empty() {
        failures.push("no case with steps".into());
    }
    failures.iter().for_each(|failure| eprintln!("FAILED: {failure}"));
    if failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Those that can be read; the others are named.
fn cases(arguments: &[PathBuf], failures: &mut Vec<String>) -> Vec<Case> {
    let mut cases = Vec::new();
    for argument in arguments {
        let found = folders(argument).unwrap_or_else(|error| {
            failures.push(error);
            Vec::new()
        });
        for folder in found {
            match Case::read(&folder) {
                Ok(Some(case)) => cases.push(case),
                Ok(None) => println!("skipped: {} is no run of an optimiser", folder.display()),
                Err(error) => failures.push(error),
            }
        }
    }
    cases
}

fn print_row(case: &Case, gpus: &[Gpu], failures: &mut Vec<String>) {
    let mut cell = |what: &str, replays: Vec<Attempt<Replay>>| {
        let before = failures.len();
        let mut worst = 0.0f64;
        for replay in replays {
            let wrong = match replay {
                Ok(replay) => {
                    worst = worst.max(replay.worst);
                    replay.failures
                }
                Err(error) => vec![error],
            };
            failures.extend(wrong.into_iter().map(|f| format!("{} on {what}: {f}", case.name)));
        }
        if failures.len() == before { format!("{worst:.3}") } else { format!("FAILED ({worst:.3})") }
    };
    let mut cells = vec![cell("the CPU path", vec![case.on_cpu()])];
    for gpu in gpus {
        cells.push(cell(&gpu.name(), PLACINGS.map(|placing| case.on_device(gpu, placing)).into()));
    }
    println!("| {} | {} | {} |", case.name, case.steps.len(), cells.join(" | "));
}
