//! The tab 'bench': norm, and norm and apply, of one tensor of several sizes, on the CPU path in WebAssembly and on the
//! visitor's GPU.

use gradclip::cpu::{self, GradMut};
use gradclip::{Clip, Clipper, Grad, Pass, wgpu};
use serde::Serialize;
use web_time::Instant;

use crate::error::WebError;
use crate::gpu::Gpu;

/// Browsers tell the time in steps of up to a tenth of a millisecond, so that many repetitions are timed together.
const LEAST_MS: f64 = 40.0;
const MOST_REPETITIONS: u32 = 512;
/// Timings of which the fastest counts.
const ROUNDS: u32 = 3;
/// A clip that changes elements whenever it runs, and leaves them far from 0 after all repetitions.
const SHARE: f64 = 0.999;

/// Milliseconds of one size.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Timing {
    /// Elements of the tensor.
    pub elements: u32,
    /// CPU path: norm alone.
    pub cpu_norm: f64,
    /// CPU path: norm and apply, where everything is clipped.
    pub cpu_clip: f64,
    /// GPU: norm alone.
    pub gpu_norm: f64,
    /// GPU: norm and apply.
    pub gpu_clip: f64,
}

/// Measures one size.
///
/// # Errors
///
/// Where library or device refuse it, or the norms of CPU path and GPU differ.
pub async fn time(gpu: &Gpu, elements: u32) -> Result<Timing, WebError> {
    let values: Vec<f32> = (0..elements).map(|i| (f32::from((i % 251) as u8) - 125.0) * 1e-3).collect();
    let [measured, clipped] = clips(&values)?;
    let cpu_norm = on_cpu(&values, &measured)?;
    let cpu_clip = on_cpu(&values, &clipped)?;
    let gpu_norm = on_gpu(gpu, &values, &measured).await?;
    let gpu_clip = on_gpu(gpu, &values, &clipped).await?;
    Ok(Timing { elements, cpu_norm, cpu_clip, gpu_norm, gpu_clip })
}

/// One that only measures, and one that clips.
fn clips(values: &[f32]) -> Result<[Clip; 2], WebError> {
    let mut copy = values.to_vec();
    let norm = cpu::clip(&mut [GradMut::new("gradient", &mut copy)], &Clip::measure())?.global_norm;
    Ok([Clip::measure(), Clip::normalize(norm * SHARE)])
}

/// Milliseconds since then.
fn ms(begun: Instant) -> f64 {
    1e3 * begun.elapsed().as_secs_f64()
}

/// How often to repeat what took so long, so that it can be told from nothing.
fn repetitions(ms: f64) -> u32 {
    (LEAST_MS / ms.max(1e-3)).clamp(1.0, MOST_REPETITIONS.into()) as u32
}

fn on_cpu(values: &[f32], clip: &Clip) -> Result<f64, WebError> {
    let mut copy = values.to_vec();
    let mut prepared = cpu::prepare(&[GradMut::new("gradient", &mut copy)], clip)?;
    let mut repeat = |count: u32| -> Result<f64, WebError> {
        copy.copy_from_slice(values);
        let begun = Instant::now();
        for _ in 0..count {
            prepared.clip([&mut copy[..]])?;
        }
        Ok(ms(begun) / f64::from(count))
    };
    let count = repetitions(repeat(1)?);
    let mut best = f64::INFINITY;
    for _ in 0..ROUNDS {
        best = best.min(repeat(count)?);
    }
    Ok(best)
}

async fn on_gpu(gpu: &Gpu, values: &[f32], clip: &Clip) -> Result<f64, WebError> {
    let buffer = gpu.storage("gradient", values.len() as u64);
    let clipper = Clipper::new(&gpu.device)?;
    let pass = clipper.prepare_async(&[Grad::new("gradient", &buffer)], clip).await?;
    let bytes = bytemuck::cast_slice(values);
    // Compiles, and tells how long one takes.
    let once = repeated(gpu, &pass, (&buffer, bytes), 1).await?;
    let count = repetitions(repeated(gpu, &pass, (&buffer, bytes), 1).await?.min(once));
    let mut best = f64::INFINITY;
    for _ in 0..ROUNDS {
        // The way there and back is in either.
        let one = repeated(gpu, &pass, (&buffer, bytes), 1).await?;
        let all = repeated(gpu, &pass, (&buffer, bytes), count + 1).await?;
        best = best.min(((all - one) / f64::from(count)).max(0.0));
    }
    buffer.destroy();
    gpu.check()?;
    Ok(best)
}

/// Milliseconds of so many repetitions in one submit, until their end is known here.
async fn repeated(
    gpu: &Gpu,
    pass: &Pass,
    (buffer, bytes): (&wgpu::Buffer, &[u8]),
    count: u32,
) -> Result<f64, WebError> {
    gpu.queue.write_buffer(buffer, 0, bytes);
    gpu.queue.submit([]);
    gpu.read(&[pass.tally()]).await?;
    let begun = Instant::now();
    let mut encoder = gpu.device.create_command_encoder(&Default::default());
    for _ in 0..count {
        pass.record(&mut encoder);
    }
    gpu.queue.submit([encoder.finish()]);
    gpu.read(&[pass.tally()]).await?;
    Ok(ms(begun))
}
