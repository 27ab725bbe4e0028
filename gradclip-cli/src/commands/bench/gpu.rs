//! The GPU arm of `bench`: a prepared pass over gradients that lie in one arena on the device.

use std::time::Instant;

use gradclip::layout::Outcome;
use gradclip::{Grad, Pass, wgpu};

use crate::commands::bench::arm::{Arm, Regime, Times};
use crate::commands::bench::work::Work;
use crate::failure::Failure;
use gradclip_verify::gpu::{Clock, Gpu};

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
        let (arena, pristine) = (gpu.storage(size), gpu.storage(size));
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
        let size = 4 * work.elements.min(CHECKED);
        let last = 4 * work.elements - size;
        let outcomes = self.pass.outcomes();
        let parts =
            [(&self.arena, 0..size), (&self.arena, last..last + size), (outcomes, 0..outcomes.size())];
        let (report, staged) = self.gpu.submit(|encoder| {
            self.pass.record(encoder);
            (self.pass.read_back(encoder), self.gpu.stage_parts(encoder, parts))
        });
        self.norm = report?.wait()?.norm();
        let (name, read) = (self.gpu.name(), self.gpu.collect(&staged)?);
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
        let size = self.arena.size();
        let copied = self.gpu.run(|e| e.copy_buffer_to_buffer(&self.pristine, 0, &self.arena, 0, size));
        Ok(copied?.as_secs_f64())
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
            (Some(clock), Inside::Halves) => {
                let pass = &self.pass;
                halves = clock.time(
                    self.gpu,
                    |_| (),
                    [&|p| pass.dispatch_norm(p), &|p| pass.dispatch_apply(p)],
                )?;
            }
            _ => {
                let started = Instant::now();
                self.gpu.submit(|encoder| self.pass.record(encoder));
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
