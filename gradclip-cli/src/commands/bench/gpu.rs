//! The GPU arm of `bench`: a prepared pass over gradients that lie in one arena on the device.

use std::time::Instant;

use gradclip::layout::Outcome;
use gradclip::wgpu::BufferUsages as Usage;
use gradclip::{Grad, Pass, wgpu};

use crate::commands::bench::arm::{Arm, Regime, Times};
use crate::commands::bench::time::seconds;
use crate::commands::bench::work::Work;
use crate::failure::Failure;
use gradclip_verify::gpu::Gpu;

/// Bytes that are uploaded at once.
const UPLOAD: usize = 64 << 20;
/// Elements at either end of the arena that are checked.
const CHECKED: u64 = 1 << 20;

/// What a timing looks at.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Inside {
    /// From the first recorded command to the end of the wait.
    Whole,
    /// The device's own time of the two halves, by timestamps.
    Halves,
}

pub(crate) struct GpuArm<'g> {
    gpu: &'g Gpu,
    pass: Pass,
    arena: wgpu::Buffer,
    pristine: wgpu::Buffer,
    clock: Option<Clock>,
    error: f64,
    norm: Option<f64>,
    copies: Vec<f64>,
    regimes: [(Regime, Times); 2],
}

impl<'g> GpuArm<'g> {
    /// Uploads and prepares, and checks the answer before anything is timed.
    pub(crate) fn new(gpu: &'g Gpu, work: &Work) -> Result<GpuArm<'g>, Failure> {
        let size = 4 * work.room;
        let usage = Usage::STORAGE | Usage::COPY_DST | Usage::COPY_SRC;
        let (arena, pristine) = (gpu.buffer(size, usage), gpu.buffer(size, usage));
        gpu.check().map_err(|error| Failure::Usage(format!("does not fit the device's memory: {error}")))?;
        let bytes: &[u8] = bytemuck::cast_slice(&work.pristine);
        for (i, part) in bytes.chunks(UPLOAD).enumerate() {
            gpu.queue.write_buffer(&pristine, (i * UPLOAD) as u64, part);
            gpu.queue.submit([]);
            gpu.wait()?;
        }
        let mut offset = 0;
        let grad = |(i, elements): (usize, u64)| {
            offset += 4 * elements;
            Grad::range(format!("t{i}"), &arena, offset - 4 * elements, elements).shape(&work.shapes[i])
        };
        let grads: Vec<Grad> = work.sizes().enumerate().map(grad).collect();
        let pass = gpu.clipper.prepare(&grads, &work.clip(Regime::Clipped))?;
        let clock = Clock::new(gpu);
        let regimes = Regime::BOTH.map(|r| (r, Times::default()));
        let copies = Vec::new();
        let mut arm = GpuArm { gpu, pass, arena, pristine, clock, error: 0.0, norm: None, copies, regimes };
        arm.check(work)?;
        Ok(arm)
    }

    fn check(&mut self, work: &Work) -> Result<(), Failure> {
        self.restore()?;
        let mut encoder = self.gpu.encoder();
        self.pass.record(&mut encoder);
        let report = self.pass.read_back(&mut encoder)?;
        let size = 4 * work.elements.min(CHECKED);
        let last = 4 * work.elements - size;
        let ends = [
            self.gpu.buffer(size, Usage::COPY_DST | Usage::COPY_SRC),
            self.gpu.buffer(size, Usage::COPY_DST | Usage::COPY_SRC),
        ];
        encoder.copy_buffer_to_buffer(&self.arena, 0, &ends[0], 0, size);
        encoder.copy_buffer_to_buffer(&self.arena, last, &ends[1], 0, size);
        let staged = self.gpu.stage(&mut encoder, ends.iter().chain([self.pass.outcomes()]));
        self.gpu.queue.submit([encoder.finish()]);
        self.norm = report.wait()?.norm();
        let (name, read) = (self.gpu.name(), self.gpu.read(&staged)?);
        let outcomes: Vec<Outcome> = bytemuck::pod_collect_to_vec(&read[2]);
        self.error = work.error(&name, &outcomes)?;
        for (bytes, first) in read.iter().zip([0, last / 4]) {
            let clipped: Vec<f32> = bytemuck::pod_collect_to_vec(bytes);
            work.check(&name, first as usize, &clipped)?;
        }
        Ok(())
    }

    /// Puts the pristine gradients back: a copy from buffer to buffer, timed as such.
    fn restore(&self) -> Result<f64, Failure> {
        seconds(|| {
            let mut encoder = self.gpu.encoder();
            encoder.copy_buffer_to_buffer(&self.pristine, 0, &self.arena, 0, self.arena.size());
            self.gpu.queue.submit([encoder.finish()]);
            Ok(self.gpu.wait()?)
        })
    }

    pub(crate) fn time(
        &mut self,
        work: &Work,
        regime: Regime,
        inside: Inside,
        keep: bool,
    ) -> Result<(), Failure> {
        if inside == Inside::Halves && self.clock.is_none() {
            return Ok(());
        }
        self.pass.set_threshold(&self.gpu.queue, work.clip(regime).threshold as f32)?;
        let copied = self.restore()?;
        let (mut record, mut total, mut halves) = (0.0, 0.0, [0.0; 2]);
        match (&self.clock, inside) {
            (Some(clock), Inside::Halves) => halves = clock.time(self.gpu, &self.pass)?,
            _ => {
                let started = Instant::now();
                let mut encoder = self.gpu.encoder();
                self.pass.record(&mut encoder);
                self.gpu.queue.submit([encoder.finish()]);
                record = started.elapsed().as_secs_f64();
                self.gpu.wait()?;
                total = started.elapsed().as_secs_f64();
            }
        }
        if !keep {
            return Ok(());
        }
        self.copies.push(copied);
        for (_, times) in self.regimes.iter_mut().filter(|(r, _)| *r == regime) {
            match inside {
                Inside::Whole => {
                    times.record.push(record);
                    times.total.push(total);
                }
                Inside::Halves => {
                    times.norm.push(halves[0]);
                    times.apply.push(halves[1]);
                }
            }
        }
        Ok(())
    }

    pub(crate) fn finish(self) -> Arm {
        Arm {
            adapter: Some(self.gpu.info.clone()),
            error: self.error,
            norm: self.norm,
            dispatches: Some(self.pass.dispatch_count()),
            copied: 2 * self.arena.size(),
            copies: self.copies,
            regimes: self.regimes,
        }
    }
}

/// The device's clock, where it has one.
struct Clock {
    queries: wgpu::QuerySet,
    resolved: wgpu::Buffer,
}

impl Clock {
    fn new(gpu: &Gpu) -> Option<Clock> {
        if !gpu.device.features().contains(wgpu::Features::TIMESTAMP_QUERY) {
            return None;
        }
        let queries = gpu.device.create_query_set(&wgpu::QuerySetDescriptor {
            label: Some("gradclip bench"),
            ty: wgpu::QueryType::Timestamp,
            count: 4,
        });
        Some(Clock { queries, resolved: gpu.buffer(4 * 8, Usage::QUERY_RESOLVE | Usage::COPY_SRC) })
    }

    /// Seconds of norm and of apply.
    fn time(&self, gpu: &Gpu, pass: &Pass) -> Result<[f64; 2], Failure> {
        let mut encoder = gpu.encoder();
        let begin = |encoder: &mut wgpu::CommandEncoder, first: u32| {
            let timestamps = wgpu::ComputePassTimestampWrites {
                query_set: &self.queries,
                beginning_of_pass_write_index: Some(first),
                end_of_pass_write_index: Some(first + 1),
            };
            let descriptor = wgpu::ComputePassDescriptor { label: None, timestamp_writes: Some(timestamps) };
            encoder.begin_compute_pass(&descriptor).forget_lifetime()
        };
        let mut norm = begin(&mut encoder, 0);
        pass.dispatch_norm(&mut norm);
        drop(norm);
        let mut apply = begin(&mut encoder, 2);
        pass.dispatch_apply(&mut apply);
        drop(apply);
        encoder.resolve_query_set(&self.queries, 0..4, &self.resolved, 0);
        let staged = gpu.stage(&mut encoder, [&self.resolved]);
        gpu.queue.submit([encoder.finish()]);
        let ticks: Vec<u64> =
            gpu.read(&staged)?.iter().flat_map(|b| bytemuck::pod_collect_to_vec(b)).collect();
        let period = f64::from(gpu.queue.get_timestamp_period()) * 1e-9;
        let half = |first: usize| ticks[first + 1].saturating_sub(ticks[first]) as f64 * period;
        Ok([half(0), half(2)])
    }
}
