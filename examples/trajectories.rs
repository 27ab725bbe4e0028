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

use gradclip::{Clipper, wgpu};

#[path = "../tests/common/trajectory/mod.rs"]
mod trajectory;

use trajectory::{Attempt, Case, Machine, PLACINGS, Replay, folders};

/// An adapter, opened.
struct Opened {
    name: String,
    device: wgpu::Device,
    queue: wgpu::Queue,
    clipper: Clipper,
}

fn main() -> ExitCode {
    let mut arguments: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    if arguments.is_empty() {
        arguments.push(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/step_cases"));
    }
    let mut failures = Vec::new();
    let cases = cases(&arguments, &mut failures);
    let machines: Vec<Opened> = gradclip::adapters()
        .iter()
        .filter_map(|adapter| open(adapter).map_err(|error| failures.push(error)).ok())
        .collect();
    let names: Vec<&str> = machines.iter().map(|m| m.name.as_str()).collect();
    println!("| case | steps | CPU path | {} |", names.join(" | "));
    println!("|---|---|---|{}", "---|".repeat(names.len()));
    cases.iter().for_each(|case| print_row(case, &machines, &mut failures));
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

fn open(adapter: &wgpu::Adapter) -> Attempt<Opened> {
    let name = gradclip::adapter_name(&adapter.get_info());
    let required_limits = Clipper::recommended_limits(adapter);
    let descriptor = wgpu::DeviceDescriptor { required_limits, ..Default::default() };
    let (device, queue) =
        pollster::block_on(adapter.request_device(&descriptor)).map_err(|e| format!("{name}: {e}"))?;
    let clipper = Clipper::new(&device).map_err(|e| format!("{name}: {e}"))?;
    Ok(Opened { name, device, queue, clipper })
}

fn print_row(case: &Case, machines: &[Opened], failures: &mut Vec<String>) {
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
    for Opened { name, device, queue, clipper } in machines {
        let machine = Machine { device, queue, clipper };
        cells.push(cell(name, PLACINGS.map(|placing| case.on_device(machine, placing)).into()));
    }
    println!("| {} | {} | {} |", case.name, case.steps.len(), cells.join(" | "));
}
