//! `gradclip verify`: shaders against the CPU path, and the CPU path against f64.

use gradclip::adapters;
use gradclip::{Target, wgpu};
use serde_json::{Value, json};

use gradclip_verify::check::Checks;
use gradclip_verify::gpu::Gpu;
use gradclip_verify::tally::Tally;

use crate::args::device;
use crate::failure::Failure;
use crate::progress::Progress;
use crate::text;

const NOTES: &str = "\
Shaders are compared with the CPU path, and the CPU path with f64. All shaders but power and updates\n\
must be equal in every bit, except that an adapter may flush subnormal results to 0: they are counted\n\
apart. Seams are words shared by two 16-bit tensors. Power is any norm but L1, L2 and L∞: close, not\n\
equal. Updates may be off by what WGSL allows a quotient, a root and a fused product. Units are norms\n\
of units and rows; rules all that limits something else than the norm; steps those of optimisers.";

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Check this device only, as in `gradclip clip`; `cpu` checks the CPU path against f64. All
    /// there are by default
    #[arg(long, value_name = "DEVICE", value_parser = device::target)]
    device: Option<Target>,
    /// Print one JSON object instead of the table
    #[arg(long)]
    json: bool,
}

/// What was found on one device.
struct Checked {
    adapter: Option<wgpu::AdapterInfo>,
    tallies: Vec<Tally>,
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let (cpu, adapters) = devices(args.device.as_ref())?;
    let checks = Checks::all();
    let steps = checks.count(false) * usize::from(cpu) + checks.count(true) * adapters.len();
    let mut progress = Progress::new(steps as u64);
    let mut checked = Vec::new();
    if cpu {
        checked.push(check_all(None, &checks, &mut progress)?);
    }
    let mut broken = None;
    for adapter in &adapters {
        // An adapter that fails must not hide what the others show.
        match Gpu::open(adapter)
            .map_err(Failure::from)
            .and_then(|gpu| check_all(Some(&gpu), &checks, &mut progress))
        {
            Ok(found) => checked.push(found),
            Err(failure) => broken = broken.or(Some(failure)),
        }
    }
    drop(progress);
    let failed: Vec<String> = checked.iter().flat_map(Checked::failures).collect();
    if args.json {
        text::print_json(&json!({
            "passed": failed.is_empty() && broken.is_none(),
            "rows": checked.iter().flat_map(Checked::json).collect::<Vec<Value>>(),
        }))?;
    } else {
        let header = ["device", "checked", "cases", "compared", "max ulp", "flushed", ""];
        let table = text::table(&header, 2..6, checked.iter().flat_map(Checked::rows).collect());
        text::print(&format!("{table}\n{NOTES}"))?;
    }
    match broken {
        Some(failure) => Err(failure),
        None if failed.is_empty() => Ok(()),
        None => Err(Failure::Check(format!("verify: {}", failed.join("\n  ")))),
    }
}

/// Whether to check the CPU path, and which adapters.
fn devices(target: Option<&Target>) -> Result<(bool, Vec<wgpu::Adapter>), Failure> {
    if let Some(target) = target {
        let adapter = device::adapter(target)?;
        return Ok((adapter.is_none(), adapter.into_iter().collect()));
    }
    let adapters = adapters();
    if adapters.is_empty() {
        text::note(&format!("no GPU adapter to check, only the CPU path; {}", device::GET_A_DRIVER));
    }
    Ok((true, adapters))
}

fn check_all(gpu: Option<&Gpu>, checks: &Checks, progress: &mut Progress) -> Result<Checked, Failure> {
    let tallies = match gpu {
        Some(gpu) => checks.on_adapter(gpu, || progress.step(&gpu.name()))?,
        None => checks.on_cpu(|| progress.step("cpu"))?,
    };
    Ok(Checked { adapter: gpu.map(|gpu| gpu.info.clone()), tallies })
}

impl Checked {
    fn device(&self) -> String {
        self.adapter.as_ref().map_or("cpu".into(), gradclip::adapter_name)
    }

    fn rows(&self) -> impl Iterator<Item = Vec<String>> {
        self.tallies.iter().map(|t| {
            vec![
                text::adapter(&self.device(), 28),
                t.what.to_owned(),
                text::count(t.cases),
                text::count(t.compared),
                if t.worst < 1e6 { format!("{:.2}", t.worst) } else { format!("{:.1e}", t.worst) },
                text::count(t.flushed),
                if t.passed() { "pass".into() } else { "FAIL".into() },
            ]
        })
    }

    fn json(&self) -> impl Iterator<Item = Value> {
        self.tallies.iter().map(|t| {
            json!({
                "device": if self.adapter.is_some() { "gpu" } else { "cpu" },
                "adapter": self.adapter.as_ref().map(|info| info.name.as_str()),
                "backend": self.adapter.as_ref().map(|info| info.backend.to_string()),
                "shader": t.what,
                "cases": t.cases,
                "compared": t.compared,
                // An infinite error is no JSON number.
                "max_ulp": if t.worst.is_finite() { json!(t.worst) } else { json!("inf") },
                "flushed_subnormals": t.flushed,
                "failed_cases": t.failed,
                "first_failed": t.first,
                "passed": t.passed(),
            })
        })
    }

    fn failures(&self) -> impl Iterator<Item = String> {
        self.tallies.iter().filter(|t| !t.passed()).map(|t| {
            let first = t.first.as_deref().unwrap_or_default();
            format!(
                "{} of {}: {} of {} cases fell short, first: {first}",
                t.what,
                self.device(),
                t.failed,
                t.cases
            )
        })
    }
}
