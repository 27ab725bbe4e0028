//! Sums over clipped examples, with noise: DP-SGD's part of a step.

use std::sync::{Mutex, MutexGuard, PoisonError};

use wgpu::BufferUsages as Usage;

use crate::clip::Clip;
use crate::error::{ClipError, PrepareError, PrivateError, ReadBackError};
use crate::grad::Grad;
use crate::kernels::Kernel;
use crate::layout::{ExampleRow, Job, Releasing};
use crate::plan::{Dispatch, Examples, ExamplesPlan, Pattern, Placement};
use crate::private::{Lot, Private};
use crate::segments::Segments;
use crate::tensor::{DType, TensorInfo};

use super::clipper::Clipper;
use super::make::{Make, Step, Wanted};
use super::mapped::ReadBack;
use super::moments::{Moment, arenas};
use super::pass::{Pass, begin, run};
use super::placements::{Buffers, check_usage};
use super::purpose::Purpose;
use super::scope::caught;

const LABEL: &str = "gradclip private sum";

/// Sums over clipped examples with Gaussian noise, prepared once: [`PrivateSum::record`] for every batch of a lot, then
/// [`PrivateSum::release`], which writes what an optimiser takes for the gradient. [`Private`] says what is computed, and what it is good for.
///
/// Gradients of examples are read twice and not written. What is kept are 8 bytes an element of an example; lots may have any number of batches.
///
/// Batches and lots are counted where they are recorded: command buffers have to be submitted in the order in which they were recorded,
/// each of them. Of a release that is recorded and never submitted the number is not used on the device, which only ever counts what ran, so that
/// noise is not drawn twice.
///
/// ```no_run
/// # fn run(device: &gradclip::wgpu::Device, queue: &gradclip::wgpu::Queue, seed: u64, dw: &gradclip::wgpu::Buffer,
/// #        mean: &gradclip::wgpu::Buffer, w: &gradclip::wgpu::Buffer) -> Result<(), Box<dyn std::error::Error>> {
/// use gradclip::{Adam, Clip, Clipper, DType, Grad, Private};
///
/// let clipper = Clipper::new(device)?;
/// // Gradients of 32 examples for a matrix [64, 10]; lots of 256 are expected.
/// let grads = [Grad::new("w", dw).shape(&[32, 64, 10]).accumulator(mean, 0)];
/// let private = Private::new(1.1, seed).expected_batch_size(256);
/// let sum = clipper.prepare_private(&grads, &Clip::per_row_norm(1.0), private)?;
/// let step = [Grad::new("w", mean).parameter(w, 0, DType::F32)];
/// let step = clipper.prepare_step(&step, &Clip::measure(), Adam::new(1e-3))?;
/// let mut encoder = device.create_command_encoder(&Default::default());
/// for batch in 0..8 {
///     // … forward and backward of 32 examples into `dw`, each by itself …
///     sum.record(&mut encoder)?;
/// }
/// sum.release(&mut encoder)?;
/// step.record_step(&mut encoder);
/// queue.submit([encoder.finish()]);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct PrivateSum {
    pass: Pass,
    private: Private,
    infos: Vec<TensorInfo>,
    parts: Segments,
    begin: Vec<Step>,
    add: Vec<Step>,
    /// Of a lot with examples, and of one without.
    releases: [Vec<Step>; 2],
    releasing: wgpu::Buffer,
    number: wgpu::Buffer,
    sums: Vec<Moment>,
    state: Mutex<State>,
}

/// What recording and setting change.
#[derive(Debug)]
struct State {
    lot: Lot,
    unit: i32,
}

impl Clipper {
    /// As [`Clipper::prepare_private`], in the form of [`Clipper::prepare_async`].
    ///
    /// # Errors
    ///
    /// As [`Clipper::prepare_private`].
    pub async fn prepare_private_async(
        &self,
        grads: &[Grad],
        clip: &Clip,
        private: Private,
    ) -> Result<PrivateSum, PrepareError> {
        let infos: Vec<TensorInfo> = grads.iter().map(Grad::info).collect();
        let parts = Segments::new(&infos, clip)?;
        let releasing = private.check(clip, &infos, &parts)?;
        let examples = u64::from(parts.rows().1);
        let places = grads.iter().map(released).collect::<Result<Vec<_>, _>>()?;
        let elements: Vec<u64> = grads.iter().map(|g| g.elements() / examples).collect();
        let sums = self.sums_of(grads, &elements).await?;
        let mut buffers = Buffers::default();
        let mut tensors = Vec::new();
        for (((grad, place), sum), &elements) in grads.iter().zip(places).zip(&sums).zip(&elements) {
            if elements > 0 {
                check_usage(grad, &grad.buffer)?;
                check_usage(grad, place.0)?;
            }
            let of = |placement: Placement, elements: u64| Placement { elements, ..placement };
            let gradient = buffers.gradient(grad);
            let summed = buffers.operand(grad, "sums", DType::F32, (&sum.buffer, sum.offset));
            let released = buffers.operand(grad, "what is released", DType::F32, place);
            let (sums, released) = (of(summed, 2 * elements), of(released, elements));
            tensors.push(Examples { gradient, sums, released });
        }
        let plan = ExamplesPlan::new(&tensors, &parts, &self.plan_limits())?;
        let pass = self.prepared(grads, clip, Purpose::ReadOnly, None).await?;
        let made = self.ready("preparing a private sum", || {
            Made::new(self, &buffers.all, &plan, clip, (&pass, releasing, private.first()))
        });
        let made = made.await?;
        let state = Mutex::new(State { lot: Lot::new(&private), unit: releasing.unit });
        let Made { begin, add, releases, releasing, number } = made;
        Ok(PrivateSum { pass, private, infos, parts, begin, add, releases, releasing, number, sums, state })
    }

    /// Room for sums of two words an element.
    async fn sums_of(&self, grads: &[Grad], elements: &[u64]) -> Result<Vec<Moment>, PrepareError> {
        let given = self.device.limits().max_buffer_size;
        if let Some((grad, elements)) =
            grads.iter().zip(elements).find(|(_, elements)| **elements > given / 8)
        {
            let tensor = format!("{} (sums)", grad.name);
            let required = elements.saturating_mul(8);
            return Err(PrepareError::BufferSize { tensor, required, given });
        }
        let words: Vec<u64> = elements.iter().map(|elements| 2 * elements).collect();
        Ok(caught(&self.device, "allocating private sums", || arenas(&self.device, &words)).await?)
    }
}

/// Dispatches, and what they bind besides gradients and sums.
struct Made {
    begin: Vec<Step>,
    add: Vec<Step>,
    releases: [Vec<Step>; 2],
    releasing: wgpu::Buffer,
    number: wgpu::Buffer,
}

impl Made {
    fn new(
        clipper: &Clipper,
        buffers: &[wgpu::Buffer],
        plan: &ExamplesPlan,
        clip: &Clip,
        (pass, releasing, first): (&Pass, Releasing, u32),
    ) -> Result<(Made, Wanted), PrepareError> {
        let mut make = Make::new(clipper, buffers, clip);
        let row: ExampleRow = bytemuck::Zeroable::zeroed();
        let rows = make.table("gradclip examples", &plan.rows, row, Usage::STORAGE)?;
        let (uniform, counter) = (Usage::UNIFORM | Usage::COPY_DST, Usage::STORAGE | Usage::COPY_SRC);
        let releasing = make.table("gradclip releasing", &[releasing], releasing, uniform)?;
        let number = make.table("gradclip release", &[first], first, counter)?;
        let mut all = |kernel, dispatches: &[(Dispatch, Pattern)], begins, last: &wgpu::Buffer| {
            let tables = [&releasing, &rows, last];
            let steps = dispatches.iter().map(|d| make.fused(kernel, d, begins, &tables));
            steps.collect::<Result<Vec<Step>, PrepareError>>()
        };
        let mut added = |begins| -> Result<Vec<Step>, PrepareError> {
            let first = all(Kernel::PrivateSum, &plan.begin, begins, pass.outcomes())?;
            let rest = all(Kernel::PrivateSum, &plan.rest, false, pass.outcomes())?;
            Ok([first, rest].concat())
        };
        let (begin, add) = (added(true)?, added(false)?);
        let mut released = |empty| all(Kernel::PrivateRelease, &plan.release, empty, &number);
        let (full, empty) = (released(false)?, released(true)?);
        let job: Job = bytemuck::Zeroable::zeroed();
        let next = make.step(Kernel::PrivateNext, DType::F32, job, &[&number], None, [1, 1])?;
        let releases = [full, empty].map(|steps| steps.into_iter().chain([next.clone()]).collect());
        Ok((Made { begin, add, releases, releasing, number }, make.wanted))
    }
}

impl PrivateSum {
    /// Records a batch: its examples are clipped and added to the lot.
    ///
    /// # Errors
    ///
    /// [`PrivateError::Examples`] for a lot of more than 2^21 examples; nothing is recorded then.
    pub fn record(&self, encoder: &mut wgpu::CommandEncoder) -> Result<(), PrivateError> {
        let begins = self.state().lot.add(self.parts.rows().1.into())?;
        let mut pass = begin(encoder, LABEL);
        self.pass.dispatch_together(self.pass.decision(), &mut pass);
        run(if begins { &self.begin } else { &self.add }, &mut pass);
        Ok(())
    }

    /// Records the end of the lot: sums with noise, over the expected number of examples. A lot without a batch, of which sampling by chance has some,
    /// releases noise alone.
    ///
    /// # Errors
    ///
    /// [`PrivateError::Releases`] after 2^32 releases; nothing is recorded then.
    pub fn release(&self, encoder: &mut wgpu::CommandEncoder) -> Result<(), PrivateError> {
        let release = self.state().lot.release()?;
        run(&self.releases[usize::from(release.empty)], &mut begin(encoder, LABEL));
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The number of the next release that is recorded, to go on with ([`Private::first_release`]); none after 2^32.
    pub fn next_release(&self) -> Option<u32> {
        self.state().lot.next()
    }

    /// That number on the device, one word: of what ran. Usages `STORAGE | COPY_SRC`.
    pub fn release_number(&self) -> &wgpu::Buffer {
        &self.number
    }

    /// Where the sums of a tensor lie, before noise: exact, and not private. Two words an element, low word first, in two's complement and units of
    /// 2^[`PrivateSum::unit`]; `elements` counts words.
    pub fn sums(&self, tensor: usize) -> Option<&Moment> {
        self.sums.get(tensor)
    }

    /// Exponent of the grid's unit.
    pub fn unit(&self) -> i32 {
        self.state().unit
    }

    /// Changes C, from the next lot on: the bound, the grid, and the noise, which is a multiple of it. It takes effect at the next submit:
    /// all commands of lots before have to be submitted by then.
    ///
    /// # Errors
    ///
    /// [`PrivateError::InLot`] where batches of a lot were recorded and not released; as [`Clipper::prepare_private`] for a threshold
    /// that is not above 0 and finite. Nothing changes then.
    pub fn set_threshold(&self, queue: &wgpu::Queue, threshold: f32) -> Result<(), PrivateError> {
        let mut state = self.state();
        state.lot.check_between()?;
        let clip = Clip { threshold: threshold.into(), ..self.pass.clip() };
        clip.validate()?;
        let releasing = self.private.check(&clip, &self.infos, &self.parts)?;
        self.pass.set_threshold(queue, threshold)?;
        queue.write_buffer(&self.releasing, 0, bytemuck::bytes_of(&releasing));
        state.unit = releasing.unit;
        Ok(())
    }

    /// As [`Pass::set_unscale`].
    ///
    /// # Errors
    ///
    /// As [`Pass::set_unscale`].
    pub fn set_unscale(&self, queue: &wgpu::Queue, unscale: f32) -> Result<(), ClipError> {
        self.pass.set_unscale(queue, unscale)
    }

    /// As [`Pass::set_rows`]: examples beyond these add nothing.
    ///
    /// # Errors
    ///
    /// As [`Pass::set_rows`].
    pub fn set_rows(&self, queue: &wgpu::Queue, rows: u64) -> Result<(), ClipError> {
        self.pass.set_rows(queue, rows)
    }

    /// As [`Pass::read_back`], of the last batch: without noise, and so not private.
    ///
    /// # Errors
    ///
    /// As [`Pass::read_back`].
    pub fn read_back(&self, encoder: &mut wgpu::CommandEncoder) -> Result<ReadBack, ReadBackError> {
        self.pass.read_back(encoder)
    }

    /// As [`Pass::outcomes`], one an example.
    pub fn outcomes(&self) -> &wgpu::Buffer {
        self.pass.outcomes()
    }

    /// As [`Pass::tally`].
    pub fn tally(&self) -> &wgpu::Buffer {
        self.pass.tally()
    }

    /// Numbers of dispatches that one batch and one release record.
    pub fn dispatch_counts(&self) -> [usize; 2] {
        [self.pass.decision().together.len() + self.add.len(), self.releases[0].len()]
    }
}

/// Where what is released of a tensor goes.
fn released(grad: &Grad) -> Result<(&wgpu::Buffer, u64), PrepareError> {
    let Some((buffer, offset)) = &grad.accumulator else {
        let (tensor, required) =
            (grad.name.clone(), "an accumulator, where what is released is written".into());
        return Err(ClipError::Tensor { tensor, required, given: "none".into() }.into());
    };
    Ok((buffer, *offset))
}
