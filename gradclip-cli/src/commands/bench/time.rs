//! How `bench` takes its times: arms and regimes in turn, since a shared machine drifts.

use std::time::{Duration, Instant};

use crate::commands::bench::arm::{Arm, Regime};
use crate::commands::bench::cpu::Cpu;
use crate::commands::bench::gpu::{GpuArm, Inside};
use crate::commands::bench::work::Work;
use crate::failure::Failure;
use crate::progress::Progress;
use gradclip_verify::gpu::Gpu;

/// How long to measure.
pub(crate) struct Pace {
    /// Time to spend on it, about.
    pub(crate) budget: Duration,
    /// But so many rounds at least, and at most.
    pub(crate) rounds: (u64, u64),
}

/// Checks the answers, then times the CPU and, if there is one, the GPU.
pub(crate) fn arms(work: &Work, gpu: Option<&Gpu>, pace: &Pace) -> Result<Vec<Arm>, Failure> {
    let mut cpu = Cpu::new(work)?;
    let mut gpu = gpu.map(|gpu| GpuArm::new(gpu, work)).transpose()?;
    measure(&mut cpu, gpu.as_mut(), work, pace)?;
    Ok(std::iter::once(cpu.finish()).chain(gpu.map(GpuArm::finish)).collect())
}

fn measure(
    cpu: &mut Cpu<'_>,
    mut gpu: Option<&mut GpuArm<'_>>,
    work: &Work,
    pace: &Pace,
) -> Result<(), Failure> {
    let mut progress = Progress::new(1);
    let mut round = |keep: bool, progress: &mut Progress| -> Result<(), Failure> {
        for regime in Regime::BOTH {
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
    let once = started.elapsed().as_secs_f64().max(1e-3);
    let planned = ((pace.budget.as_secs_f64() / once) as u64).clamp(pace.rounds.0, pace.rounds.1);
    progress.set_steps(planned + 2);
    round(false, &mut progress)?;
    (0..planned).try_for_each(|_| round(true, &mut progress))
}

pub(crate) fn seconds(work: impl FnOnce() -> Result<(), Failure>) -> Result<f64, Failure> {
    let started = Instant::now();
    work()?;
    Ok(started.elapsed().as_secs_f64())
}
