//! The device's own clock, where it has one.

use gradclip::wgpu::{self, BufferUsages as Usage};

use crate::failure::Failure;
use crate::gpu::Gpu;

/// Timestamps around compute passes.
#[derive(Debug)]
pub struct Clock {
    queries: wgpu::QuerySet,
    resolved: wgpu::Buffer,
    /// Seconds of a tick.
    period: f64,
}

/// Passes timed at once, at most.
const PASSES: u32 = 2;

impl Clock {
    /// None where the device tells no time.
    pub fn new(gpu: &Gpu) -> Option<Clock> {
        if !gpu.device.features().contains(wgpu::Features::TIMESTAMP_QUERY) {
            return None;
        }
        let queries = gpu.device.create_query_set(&wgpu::QuerySetDescriptor {
            label: Some("gradclip"),
            ty: wgpu::QueryType::Timestamp,
            count: 2 * PASSES,
        });
        let resolved = gpu.buffer(16 * u64::from(PASSES), Usage::QUERY_RESOLVE | Usage::COPY_SRC);
        let period = f64::from(gpu.queue.get_timestamp_period()) * 1e-9;
        Some(Clock { queries, resolved, period })
    }

    /// Seconds of compute passes, one after the other, that begin when all of `before` is done.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn time<const N: usize>(
        &self,
        gpu: &Gpu,
        before: impl FnOnce(&mut wgpu::CommandEncoder),
        passes: [&dyn Fn(&mut wgpu::ComputePass<'_>); N],
    ) -> Result<[f64; N], Failure> {
        pollster::block_on(self.time_async(gpu, before, passes))
    }

    /// As `Clock::time`, for a page.
    pub async fn time_async<const N: usize>(
        &self,
        gpu: &Gpu,
        before: impl FnOnce(&mut wgpu::CommandEncoder),
        passes: [&dyn Fn(&mut wgpu::ComputePass<'_>); N],
    ) -> Result<[f64; N], Failure> {
        let staged = gpu.submit(|encoder| {
            before(encoder);
            for (i, dispatch) in (0..).zip(passes) {
                let timestamps = wgpu::ComputePassTimestampWrites {
                    query_set: &self.queries,
                    beginning_of_pass_write_index: Some(2 * i),
                    end_of_pass_write_index: Some(2 * i + 1),
                };
                let descriptor =
                    wgpu::ComputePassDescriptor { label: None, timestamp_writes: Some(timestamps) };
                dispatch(&mut encoder.begin_compute_pass(&descriptor));
            }
            encoder.resolve_query_set(&self.queries, 0..2 * N as u32, &self.resolved, 0);
            gpu.stage(encoder, [&self.resolved])
        });
        let ticks: Vec<u64> = bytemuck::pod_collect_to_vec(&gpu.collect_async(&staged).await?[0]);
        let seconds = |i: usize| ticks[2 * i + 1].saturating_sub(ticks[2 * i]) as f64 * self.period;
        Ok(std::array::from_fn(seconds))
    }
}
