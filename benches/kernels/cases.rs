//! Kernels in turns over gradients of one type and number.

use std::time::{Duration, Instant};

use gradclip::{DType, Pass, wgpu};

use super::device::{Device, Result};
use super::forms::Form;
use super::plain::Plain;
use super::record::{Case, Kernel, Series};

/// Less than this may lie in caches: the largest of them have 256 MiB.
const CACHED: u64 = 256 << 20;
/// What is read between measurements of less, on software adapters, whose processors have smaller caches.
const SOFTWARE_FLUSH: u64 = 64 << 20;
/// Bytes at either end that are compared between forms.
const CHECKED: u64 = 1 << 12;
const PLAIN: [Kernel; 4] = [Kernel::Copy, Kernel::Read, Kernel::Sum, Kernel::Multiply];

/// When to stop.
#[derive(Clone, Copy)]
pub(crate) struct Until {
    /// No round begins after that.
    pub(crate) fair: Instant,
    /// Nothing begins after that.
    pub(crate) last: Instant,
    pub(crate) rounds: usize,
}

/// Buffers and passes of a case.
pub(crate) struct Bed<'a> {
    device: &'a Device,
    dtype: DType,
    elements: u64,
    values: wgpu::Buffer,
    pristine: wgpu::Buffer,
    plain: Plain,
    /// Reads what then lies in caches instead of gradients.
    flush: Option<Plain>,
    passes: Vec<(&'a Form, Pass)>,
    threshold: f32,
    /// What went wrong, without an end to the rest.
    pub(crate) complaints: Vec<String>,
}

impl<'a> Bed<'a> {
    /// Makes gradients, prepares every form, and compares what they find.
    pub(crate) fn new(
        device: &'a Device,
        forms: &'a [Form],
        (dtype, elements): (DType, u64),
        flush: Option<u64>,
        last: Instant,
    ) -> Result<Bed<'a>> {
        let bytes = elements * dtype.size();
        let (values, pristine) = (device.buffer(bytes)?, device.buffer(bytes)?);
        let plain = Plain::new(device, dtype, [&values, &pristine])?;
        device.run(|encoder| {
            plain.fill(&mut encoder.begin_compute_pass(&Default::default()));
            encoder.copy_buffer_to_buffer(&values, 0, &pristine, 0, bytes);
            // Some drivers compile at the first dispatch.
            for kernel in PLAIN {
                plain.dispatch(kernel, &mut encoder.begin_compute_pass(&Default::default()));
            }
        })?;
        let large = flush.unwrap_or(if device.software() { SOFTWARE_FLUSH } else { CACHED });
        let large = large.min(device.window());
        let flush = if bytes < CACHED.max(large) {
            let [own, other] = [device.buffer(large)?, device.buffer(16)?];
            Some(Plain::new(device, DType::F32, [&own, &other])?)
        } else {
            None
        };
        // Elements are uniform in [-1, 1): half of their norm, near enough.
        let threshold = ((elements as f64 / 3.0).sqrt() / 2.0) as f32;
        let (passes, complaints) = (Vec::new(), Vec::new());
        let mut bed =
            Bed { device, dtype, elements, values, pristine, plain, flush, passes, threshold, complaints };
        for form in forms {
            if Instant::now() > last {
                return Err("the time is over before all forms are compiled".into());
            }
            match form.prepare(&bed.values, dtype, threshold) {
                Ok(pass) => bed.passes.push((form, pass)),
                Err(error) => bed.complaints.push(format!("{}: left out: {error}", form.name)),
            }
        }
        bed.compare(last)?;
        Ok(bed)
    }

    /// All forms find the same norm and leave the same elements, and the norm is what such gradients have.
    fn compare(&mut self, last: Instant) -> Result<()> {
        let mut first: Option<(f64, Vec<u8>)> = None;
        for (form, pass) in &self.passes {
            if Instant::now() > last {
                return Err("the time is over before all forms are compared".into());
            }
            let mut way = None;
            self.device.run(|encoder| {
                self.restore(encoder);
                pass.record(encoder);
                way = Some(pass.read_back(encoder));
            })?;
            let report = way.ok_or("no report")?.map_err(|e| e.to_string())?;
            let report = report.wait().map_err(|e| e.to_string())?;
            let norm = report.norm().ok_or("no norm")?;
            let wanted = f64::from(self.threshold) * 2.0;
            // The deviation of the norm is 0.45 over the square root of the number; windows are alike, which
            // leaves more of it.
            let off = (norm / wanted - 1.0).abs();
            if off.is_nan() || off >= 0.01_f64.max(10.0 / (self.elements as f64).sqrt()) {
                self.complaints.push(format!("{}: WRONG: a norm of {norm}, not about {wanted}", form.name));
            }
            if !form.comparable() {
                continue;
            }
            let found = (norm, self.ends()?);
            let first = first.get_or_insert_with(|| found.clone());
            if first.0.to_bits() != found.0.to_bits() {
                self.complaints.push(format!("{}: WRONG: norm {norm}, others {}", form.name, first.0));
            }
            if first.1 != found.1 {
                self.complaints.push(format!("{}: WRONG: other elements than others leave", form.name));
            }
        }
        Ok(())
    }

    fn ends(&self) -> Result<Vec<u8>> {
        let size = self.values.size();
        let count = CHECKED.min(size);
        let mut ends = self.device.read(&self.values, 0, count)?;
        ends.extend(self.device.read(&self.values, size - count, count)?);
        Ok(ends)
    }

    fn restore(&self, encoder: &mut wgpu::CommandEncoder) {
        encoder.copy_buffer_to_buffer(&self.pristine, 0, &self.values, 0, self.values.size());
    }

    fn flush(&self, encoder: &mut wgpu::CommandEncoder) {
        if let Some(flush) = &self.flush {
            flush.dispatch(Kernel::Read, &mut encoder.begin_compute_pass(&Default::default()));
        }
    }

    /// Rounds of all kernels in turns, the first of them another each round. Of three rounds and more the first
    /// is discarded.
    pub(crate) fn measure(&mut self, until: Until) -> Result<Case> {
        let mut series = Vec::new();
        let mut turns: Vec<(Kernel, usize)> = Vec::new();
        for kernel in PLAIN {
            turns.push((kernel, 0));
            series.push(Series { kernel, form: "plain".into(), seconds: Vec::new() });
        }
        for kernel in [Kernel::Norm, Kernel::Apply, Kernel::Decide] {
            for (at, (form, _)) in self.passes.iter().enumerate() {
                let once = kernel == Kernel::Decide && at > 0;
                if once || (kernel == Kernel::Apply && !form.applies) {
                    continue;
                }
                turns.push((kernel, at));
                let form = if kernel == Kernel::Decide { "any".into() } else { form.name.clone() };
                series.push(Series { kernel, form, seconds: Vec::new() });
            }
        }
        'rounds: for round in 0..=until.rounds {
            let begun = Instant::now();
            for turn in 0..turns.len() {
                if Instant::now() > until.last {
                    break 'rounds;
                }
                let at = (turn + round) % turns.len();
                series[at].seconds.push(self.time(turns[at])?);
            }
            // The next one takes about as long.
            if Instant::now() + begun.elapsed() > until.fair {
                break;
            }
        }
        for series in series.iter_mut().filter(|series| series.seconds.len() > 2) {
            series.seconds.remove(0);
        }
        let caches = match self.flush {
            Some(_) => "another buffer read before",
            None => "larger than caches",
        };
        Ok(Case { dtype: self.dtype, elements: self.elements, caches, series })
    }

    fn time(&mut self, (kernel, at): (Kernel, usize)) -> Result<f64> {
        match kernel {
            Kernel::Norm => {
                let pass = &self.passes[at].1;
                self.timed(|encoder| self.restore(encoder), |p| pass.dispatch_norm(p))
            }
            Kernel::Apply => {
                let pass = &self.passes[at].1;
                let before = |encoder: &mut wgpu::CommandEncoder| {
                    self.restore(encoder);
                    pass.record_norm(encoder);
                };
                self.timed(before, |p| pass.dispatch_apply(p))
            }
            // An apply half under a threshold that nothing exceeds decides, and moves no gradient.
            Kernel::Decide => {
                let queue = self.device.gpu.queue.clone();
                self.passes[at].1.set_threshold(&queue, f32::INFINITY).map_err(|e| e.to_string())?;
                let pass = &self.passes[at].1;
                let seconds = self.timed(|encoder| pass.record_norm(encoder), |p| pass.dispatch_apply(p))?;
                let threshold = self.threshold;
                self.passes[at].1.set_threshold(&queue, threshold).map_err(|e| e.to_string())?;
                Ok(seconds)
            }
            _ => self.timed(|_| (), |p| self.plain.dispatch(kernel, p)),
        }
    }

    fn timed(
        &self,
        before: impl FnOnce(&mut wgpu::CommandEncoder),
        timed: impl Fn(&mut wgpu::ComputePass<'_>),
    ) -> Result<f64> {
        let before = |encoder: &mut wgpu::CommandEncoder| {
            before(encoder);
            self.flush(encoder);
        };
        self.device.time(before, timed)
    }
}

/// The share of a case in what is left of the time, and its end.
pub(crate) fn until(end: Instant, cases_left: usize, rounds: usize) -> Until {
    let left = end.saturating_duration_since(Instant::now());
    let share: Duration = left / cases_left.max(1) as u32;
    Until { fair: Instant::now() + share, last: end, rounds }
}
