//! `gradclip bench`: CPU against GPU on this machine, clipped and not clipped.

use std::time::{Duration, Instant};

use clap::builder::PossibleValuesParser;
use gradclip::{Scope, Target, wgpu};

use crate::bench_cpu::Cpu;
use crate::bench_gpu::{GpuArm, Inside};
use crate::bench_scope::Cut;
use crate::bench_work::Work;
use crate::failure::Failure;
use crate::gpu::Gpu;
use crate::progress::Progress;
use crate::{bench_report, bench_scope, device, shapes, text};

/// Bandwidth is measured over at least this many elements, so that no cache holds them.
pub(crate) const LEAST_COPIED: u64 = 1 << 24;
/// More tensors than any model has; each takes some memory by itself.
const MOST_TENSORS: i64 = 1_000_000;
/// Time to spend on measuring, about.
const BUDGET: Duration = Duration::from_secs(10);

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The tensors of a well-known model; resnet50 by default
    #[arg(long, value_name = "NAME", conflicts_with_all = ["tensors", "elements"],
        value_parser = PossibleValuesParser::new(shapes::PRESETS.map(|preset| preset.name)))]
    preset: Option<String>,
    /// This many tensors, together with --elements
    #[arg(long, value_name = "N", requires = "elements",
        value_parser = clap::value_parser!(u32).range(1..=MOST_TENSORS))]
    tensors: Option<u32>,
    /// Elements of each tensor, together with --tensors
    #[arg(long, value_name = "M", requires = "tensors", value_parser = clap::value_parser!(u64).range(1..))]
    elements: Option<u64>,
    /// What shares one norm: all, each tensor, each output's weights (the first axis counts outputs, or
    /// the last one), each row
    #[arg(long, value_name = "SCOPE", default_value = "global",
        value_parser = PossibleValuesParser::new(bench_scope::NAMES))]
    scope: String,
    /// Which GPU to time beside the CPU, as in `gradclip clip`; `cpu` times the CPU alone
    #[arg(long, value_name = "DEVICE", default_value = "auto", value_parser = device::target)]
    device: Target,
    /// Print one JSON object instead of the table
    #[arg(long)]
    json: bool,
}

/// Whether norms exceed the threshold.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Regime {
    Clipped,
    NotClipped,
}

/// Times of one arm in one regime, in seconds.
#[derive(Default)]
pub(crate) struct Times {
    pub(crate) total: Vec<f64>,
    /// On the GPU: time of the CPU to record and submit; of the device for norm and for apply.
    pub(crate) record: Vec<f64>,
    pub(crate) norm: Vec<f64>,
    pub(crate) apply: Vec<f64>,
}

/// One arm's results.
pub(crate) struct Arm {
    pub(crate) adapter: Option<wgpu::AdapterInfo>,
    /// The largest relative error of a norm against f64.
    pub(crate) error: f64,
    /// The norm, where there is one segment.
    pub(crate) norm: Option<f64>,
    pub(crate) dispatches: Option<usize>,
    /// Seconds of the copies, and their bytes read and written.
    pub(crate) copies: Vec<f64>,
    pub(crate) copied: u64,
    pub(crate) regimes: [(Regime, Times); 2],
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let (name, shapes) = shapes_of(args)?;
    let (scope, cut) = cut(args, &shapes)?;
    let adapter = device::adapter(&args.device)?;
    let elements = shapes.iter().map(|shape| shape.iter().product::<u64>()).sum();
    fits(&name, elements, adapter.as_ref())?;
    let gpu = adapter.as_ref().map(Gpu::open).transpose()?;
    let work = Work::new(shapes, elements, scope, cut);
    let mut cpu = Cpu::new(&work)?;
    let mut gpu = gpu.as_ref().map(|gpu| GpuArm::new(gpu, &work)).transpose()?;
    measure(&mut cpu, gpu.as_mut(), &work)?;
    let arms: Vec<Arm> = std::iter::once(cpu.finish()).chain(gpu.map(GpuArm::finish)).collect();
    if args.json {
        text::print_json(&bench_report::json(&name, &args.scope, &work, &arms))
    } else {
        text::print(&bench_report::page(&name, &args.scope, &work, &arms))
    }
}

/// Name of the gradient set, and its shapes.
fn shapes_of(args: &Args) -> Result<(String, Vec<Vec<u64>>), Failure> {
    if let (Some(tensors), Some(elements)) = (args.tensors, args.elements) {
        let name = format!("{tensors} x {elements}");
        return match elements.checked_mul(tensors.into()).and_then(|n| n.checked_mul(64)) {
            Some(_) => Ok((name, vec![vec![elements]; tensors as usize])),
            None => Err(Failure::Usage(format!("--tensors, --elements: {name} does not fit any memory"))),
        };
    }
    let name = args.preset.as_deref().unwrap_or(shapes::DEFAULT);
    let shapes = shapes::shapes(name).ok_or_else(|| Failure::Usage(format!("--preset: no `{name}`")))?;
    Ok((name.to_owned(), shapes))
}

fn cut(args: &Args, shapes: &[Vec<u64>]) -> Result<(Scope, Cut), Failure> {
    let wrong = |what: &str| Failure::Usage(format!("--scope {}: {what}", args.scope));
    let scope = bench_scope::scope(&args.scope).ok_or_else(|| wrong("no such scope"))?;
    let same = "expected tensors that all have as many rows, as `--preset splats` has";
    Ok((scope, Cut::new(scope, shapes).ok_or_else(|| wrong(same))?))
}

/// Refuses what would not fit, before anything is allocated.
fn fits(name: &str, elements: u64, adapter: Option<&wgpu::Adapter>) -> Result<(), Failure> {
    let set = 4 * elements.max(LEAST_COPIED);
    // The host holds the gradients and the pristine ones. A GPU that shares its memory holds them
    // again.
    let shared = adapter.is_some_and(|a| {
        matches!(a.get_info().device_type, wgpu::DeviceType::Cpu | wgpu::DeviceType::IntegratedGpu)
    });
    let needed = 4 * elements + set + if shared { 2 * set } else { 0 };
    let mib = |bytes: u64| text::count(bytes >> 20);
    if let Some(available) = available_memory()
        && needed > available / 10 * 9
    {
        let (needed, available) = (mib(needed), mib(available));
        return Err(Failure::Usage(format!(
            "--preset, --tensors, --elements: {name} needs {needed} MiB of memory, and {available} MiB are free; \
             expected something smaller"
        )));
    }
    if let Some(largest) = adapter.map(|a| a.limits().max_buffer_size)
        && set > largest
    {
        let (needed, largest) = (mib(set), mib(largest));
        return Err(Failure::Usage(format!(
            "--preset, --tensors, --elements: {name} needs a buffer of {needed} MiB, and this adapter's \
             max_buffer_size is {largest} MiB; expected something smaller, or --device cpu"
        )));
    }
    Ok(())
}

/// Bytes of memory that are free, where the system says so.
fn available_memory() -> Option<u64> {
    let info = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = info.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib * 1024)
}

/// Interleaves arms and regimes, since a shared machine drifts.
fn measure(cpu: &mut Cpu<'_>, mut gpu: Option<&mut GpuArm<'_>>, work: &Work) -> Result<(), Failure> {
    let mut progress = Progress::new(1);
    let mut round = |keep: bool, progress: &mut Progress| -> Result<(), Failure> {
        for regime in [Regime::Clipped, Regime::NotClipped] {
            cpu.time(work, regime, keep)?;
            if let Some(gpu) = gpu.as_deref_mut() {
                gpu.time(work, regime, Inside::Whole, keep)?;
                gpu.time(work, regime, Inside::Halves, keep)?;
            }
        }
        progress.step(if keep { "rounds" } else { "warming up" });
        Ok(())
    };
    let started = Instant::now();
    round(false, &mut progress)?;
    let once = started.elapsed();
    let planned = (BUDGET.as_secs_f64() / once.as_secs_f64().max(1e-3)).clamp(5.0, 51.0) as u64;
    progress.set_steps(planned + 2);
    round(false, &mut progress)?;
    (0..planned).try_for_each(|_| round(true, &mut progress))
}

pub(crate) fn seconds(work: impl FnOnce() -> Result<(), Failure>) -> Result<f64, Failure> {
    let started = Instant::now();
    work()?;
    Ok(started.elapsed().as_secs_f64())
}
