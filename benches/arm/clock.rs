//! The device's own clock, where it has one.

use gradclip::{Pass, wgpu};

use crate::Result;
use crate::gpu::Device;

pub(crate) struct Clock {
    queries: wgpu::QuerySet,
    resolved: wgpu::Buffer,
    /// Seconds of a tick.
    period: f64,
}

impl Clock {
    pub(crate) fn new(device: &Device) -> Option<Clock> {
        if !device.device.features().contains(wgpu::Features::TIMESTAMP_QUERY) {
            return None;
        }
        let queries = device.device.create_query_set(&wgpu::QuerySetDescriptor {
            label: Some("arm"),
            ty: wgpu::QueryType::Timestamp,
            count: 4,
        });
        let period = f64::from(device.queue.get_timestamp_period()) * 1e-9;
        Some(Clock { queries, resolved: device.buffer(4 * 8), period })
    }

    /// Seconds of both halves in one compute pass, as `Pass::record` has them.
    pub(crate) fn whole(&self, device: &Device, pass: &Pass) -> Result<f64> {
        let [seconds] = self.time(
            device,
            [&|p| {
                pass.dispatch_norm(p);
                pass.dispatch_apply(p);
            }],
        )?;
        Ok(seconds)
    }

    /// Seconds of norm and of apply.
    pub(crate) fn halves(&self, device: &Device, pass: &Pass) -> Result<[f64; 2]> {
        self.time(device, [&|p| pass.dispatch_norm(p), &|p| pass.dispatch_apply(p)])
    }

    fn time<const N: usize>(
        &self,
        device: &Device,
        passes: [&dyn Fn(&mut wgpu::ComputePass<'_>); N],
    ) -> Result<[f64; N]> {
        device.run(|encoder| {
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
        })?;
        let ticks: Vec<u64> = device.read(&self.resolved, 0, 16 * N as u64)?;
        Ok(std::array::from_fn(|i| ticks[2 * i + 1].saturating_sub(ticks[2 * i]) as f64 * self.period))
    }
}
