//! `gradclip bench`: CPU against GPU on this machine, clipped and not clipped.

use std::time::{Duration, Instant};

use clap::builder::PossibleValuesParser;
use gradclip::{Target, wgpu};
use rayon::prelude::*;

use crate::bench_cpu::Cpu;
use crate::bench_gpu::{GpuArm, Inside};
use crate::cases::Random;
use crate::failure::Failure;
use crate::gpu::Gpu;
use crate::progress::Progress;
use crate::{bench_report, device, shapes, text};

/// Bandwidth is measured over at least this many elements, so that no cache holds them.
pub(crate) const LEAST_COPIED: u64 = 1 << 24;
/// More tensors than any model has; each takes some memory by itself.
const MOST_TENSORS: i64 = 1_000_000;
/// Time to spend on measuring, about.
const BUDGET: Duration = Duration::from_secs(10);
/// A norm may be off from f64 by this share: an ulp of f32 and what f64 itself loses.
const TOLERANCE: f64 = 1.2e-7;

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
    /// Which GPU to time beside the CPU, as in `gradclip clip`; `cpu` times the CPU alone
    #[arg(long, value_name = "DEVICE", default_value = "auto", value_parser = device::target)]
    device: Target,
    /// Print one JSON object instead of the table
    #[arg(long)]
    json: bool,
}

/// Whether the norm exceeds the threshold.
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
    pub(crate) norm: f64,
    pub(crate) dispatches: Option<usize>,
    /// Seconds of the copies, and their bytes read and written.
    pub(crate) copies: Vec<f64>,
    pub(crate) copied: u64,
    pub(crate) regimes: [(Regime, Times); 2],
}

/// What both arms work on.
pub(crate) struct Work {
    pub(crate) sizes: Vec<u64>,
    pub(crate) elements: u64,
    /// The gradients, never changed.
    pub(crate) pristine: Vec<f32>,
    /// Their norm in f64.
    pub(crate) norm: f64,
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let (name, sizes) = sizes(args)?;
    let adapter = device::adapter(&args.device)?;
    let elements = sizes.iter().sum();
    fits(&name, elements, adapter.as_ref())?;
    let gpu = adapter.as_ref().map(Gpu::open).transpose()?;
    let work = Work::new(sizes, elements);
    let mut cpu = Cpu::new(&work)?;
    let mut gpu = gpu.as_ref().map(|gpu| GpuArm::new(gpu, &work)).transpose()?;
    measure(&mut cpu, gpu.as_mut(), &work)?;
    let arms: Vec<Arm> = std::iter::once(cpu.finish()).chain(gpu.map(GpuArm::finish)).collect();
    if args.json {
        text::print_json(&bench_report::json(&name, &work, &arms))
    } else {
        text::print(&bench_report::page(&name, &work, &arms))
    }
}

fn sizes(args: &Args) -> Result<(String, Vec<u64>), Failure> {
    if let (Some(tensors), Some(elements)) = (args.tensors, args.elements) {
        let name = format!("{tensors} x {elements}");
        match elements.checked_mul(tensors.into()).and_then(|n| n.checked_mul(64)) {
            Some(_) => return Ok((name, vec![elements; tensors as usize])),
            None => {
                return Err(Failure::Usage(format!("--tensors, --elements: {name} does not fit any memory")));
            }
        }
    }
    let name = args.preset.as_deref().unwrap_or(shapes::DEFAULT);
    let sizes = shapes::preset(name).ok_or_else(|| Failure::Usage(format!("--preset: no `{name}`")))?;
    Ok((name.to_owned(), sizes))
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

impl Work {
    fn new(sizes: Vec<u64>, elements: u64) -> Work {
        let mut pristine = vec![0.0f32; elements as usize];
        // A seed for each block, so that the values do not depend on the number of threads.
        pristine.par_chunks_mut(1 << 16).enumerate().for_each(|(block, values)| {
            let mut random = Random(block as u64);
            values.iter_mut().for_each(|v| *v = bell(random.next()) * 0.01);
        });
        let square = |values: &[f32]| values.iter().map(|&v| f64::from(v) * f64::from(v)).sum::<f64>();
        let squares: Vec<f64> = pristine.par_chunks(1 << 16).map(square).collect();
        let norm = squares.iter().sum::<f64>().sqrt();
        Work { sizes, elements, pristine, norm }
    }

    pub(crate) fn threshold(&self, regime: Regime) -> f32 {
        match regime {
            Regime::Clipped => (self.norm * 0.5) as f32,
            Regime::NotClipped => (self.norm * 2.0) as f32,
        }
    }

    /// Checks a norm, and clipped gradients that begin at element `first`, before anything is
    /// timed.
    pub(crate) fn check(&self, arm: &str, norm: f64, first: usize, clipped: &[f32]) -> Result<(), Failure> {
        let wrong = |what: String| Err(Failure::Check(format!("bench: {arm}: {what}")));
        if (norm / self.norm - 1.0).abs() > TOLERANCE {
            return wrong(format!("the norm is {norm}, and in f64 {}", self.norm));
        }
        let factor = f64::from(self.threshold(Regime::Clipped)) / self.norm;
        let pristine = &self.pristine[first..first + clipped.len()];
        let off = pristine.par_iter().zip(clipped).position_any(|(&from, &to)| {
            let expected = f64::from(from) * factor;
            let error = (f64::from(to) - expected).abs();
            error.is_nan() || error > expected.abs() * 4e-7 + f64::from(f32::MIN_POSITIVE)
        });
        match off {
            None => Ok(()),
            Some(i) => wrong(format!(
                "element {} is {} from {}, factor {factor}",
                first + i,
                clipped[i],
                pristine[i]
            )),
        }
    }
}

/// About a normal distribution: four uniform numbers added up.
fn bell(bits: u64) -> f32 {
    let lanes = [bits, bits >> 16, bits >> 32, bits >> 48].map(|lane| (lane & 0xffff) as f32);
    (lanes.iter().sum::<f32>() / 65_536.0 - 2.0) * 1.732
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
