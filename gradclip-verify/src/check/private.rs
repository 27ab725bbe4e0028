//! Private sums: a device next to the CPU path, lot by lot, and that next to f64.

use std::fmt;

use gradclip::cpu;
use gradclip::{Clip, Grad, NonFinite, Private};

use crate::check::steps::{gradient, placing_of_operands, touched};
use crate::check::training::{LAYOUTS, batch};
use crate::failure::Failure;
use crate::gpu::{Gpu, Operands, Placed};
use crate::inputs::values::Values;
use crate::inputs::{Case, Elements, Sizes, placing};
use crate::oracle::decision::Changes;
use crate::oracle::in_f64::Exact;
use crate::tally::{Findings, Wrong};
use crate::tensor::{Data, Tensor};

/// Batches, the first two of which are a lot.
const BATCHES: usize = 3;
const ROWS: Sizes = Sizes::Rows(13);
/// More than a workgroup takes, nothing, and one element an example.
const WIDE: Sizes = Sizes::Shapes(&[&[5, 700], &[5], &[5, 0], &[5, 9, 3]]);

/// Batches of examples, and what is released of them.
#[derive(Clone, Debug)]
pub(crate) struct Examples {
    clip: Clip,
    sizes: Sizes,
    elements: Elements,
    arena: bool,
    values: [Values; BATCHES],
    noise: f64,
    lot: u32,
    seed: u64,
}

/// Every clip with every layout and all values.
pub(crate) fn examples() -> Vec<Examples> {
    use Values::{Bits, Both, OneInf, OneNan, Spikes, Spread, Subnormal, Zeros};
    let rows = Clip::per_row_norm(1.0);
    let clips = [
        rows,
        Clip::per_row_norm(1e-3).on_non_finite(NonFinite::Zero).eps(1e-6),
        rows.on_non_finite(NonFinite::Sanitize).unscale(0.3),
        Clip::automatic(0.01),
    ];
    let values = [
        [Spread(1.0), Spread(1e-3), Bits],
        [OneInf, Spread(100.0), Subnormal],
        [Zeros, OneNan, Spikes],
        [Both, Spread(1.0), Spread(1e-8)],
    ];
    let mut all = Vec::new();
    for (elements, arena) in LAYOUTS {
        for clip in clips {
            for values in values {
                let turn = all.len();
                let sizes = if turn % 3 == 1 { WIDE } else { ROWS };
                let (noise, lot) = ([0.0, 1.1, 0.3][turn % 3], [1, 26, 255, 7][turn % 4]);
                let seed = 70_000 + (turn * BATCHES) as u64;
                all.push(Examples { clip, sizes, elements, arena, values, noise, lot, seed });
            }
        }
    }
    all
}

/// What came of a lot.
struct Made {
    sums: Vec<Vec<i64>>,
    released: Vec<Vec<f32>>,
}

impl Examples {
    fn batch(&self, at: usize) -> Case {
        let case = batch(self.sizes, self.elements, self.values[at], self.clip, self.seed + at as u64);
        Case { placing: placing(self.arena), ..case }
    }

    fn private(&self) -> Private {
        Private::new(self.noise, self.seed).expected_batch_size(self.lot)
    }

    /// Elements of an example, tensor by tensor.
    fn widths(case: &Case) -> Vec<usize> {
        let width = |t: &Tensor| t.shape.iter().flatten().skip(1).product::<u64>() as usize;
        case.tensors.iter().map(width).collect()
    }

    /// The lots on the CPU path.
    fn on_slices(&self) -> Result<Vec<Made>, Failure> {
        let first = self.batch(0);
        let like: Vec<_> = first.tensors.iter().map(Tensor::to_read).collect();
        let mut sum = cpu::prepare_private(&like, &first.clip, self.private())?;
        let mut lots = Vec::new();
        for at in 0..BATCHES {
            sum.add(self.batch(at).tensors.iter().map(|t| t.data.slice()))?;
            if at != 0 {
                let sums = sum.sums().to_vec();
                let mut released: Vec<Vec<f32>> = sums.iter().map(|own| vec![f32::NAN; own.len()]).collect();
                sum.release(released.iter_mut().map(|own| &mut own[..]))?;
                lots.push(Made { sums, released });
            }
        }
        Ok(lots)
    }

    /// Sums and what is released on a device, next to those of the CPU path.
    pub(crate) async fn on_gpu(&self, gpu: &Gpu) -> Result<[Findings; 2], Failure> {
        let first = self.batch(0);
        let mut placed = Placed::upload(gpu, &first.tensors, first.placing);
        let nothing: Vec<Data> = Self::widths(&first).iter().map(|&n| vec![f32::NAN; n].into()).collect();
        let operands = Operands::upload(gpu, nothing.iter(), placing_of_operands(self.arena));
        let told = |(i, grad): (usize, &Grad)| {
            let (buffer, offset) = operands.at(i);
            grad.clone().accumulator(buffer, offset)
        };
        let grads: Vec<Grad> = placed.grads.iter().enumerate().map(told).collect();
        let sum = gpu.clipper.prepare_private_async(&grads, &first.clip, self.private()).await?;
        let [mut sums, mut released] = [Findings::default(); 2];
        let mut lots = self.on_slices()?.into_iter();
        for at in 0..BATCHES {
            placed.put(gpu, &self.batch(at).tensors);
            gpu.submit(|encoder| sum.record(encoder))?;
            let Some(expected) = (if at == 0 { None } else { lots.next() }) else { continue };
            for (tensor, expected) in expected.sums.iter().enumerate() {
                let Some(place) = sum.sums(tensor) else { continue };
                let range = place.offset..place.offset + 4 * place.elements;
                let bytes = gpu.read_async::<u8>(&place.buffer, range).await?;
                let got: Vec<i64> = bytemuck::pod_collect_to_vec(&bytes);
                for (i, (&got, &expected)) in got.iter().zip(expected).enumerate() {
                    let off = f64::from(u8::from(got != expected));
                    let (got, expected) = (got as f64, expected as f64);
                    sums.named(
                        off,
                        0.0,
                        Wrong { step: at, what: "sum", at: Some((tensor, i)), got, expected },
                    );
                }
            }
            gpu.submit(|encoder| sum.release(encoder))?;
            let staged =
                gpu.submit(|encoder| gpu.stage(encoder, operands.buffers.iter().chain(&placed.buffers)));
            let got = gpu.collect_async(&staged).await?;
            let Some(tensors) = operands.data(&got[..1]) else {
                released.named(f64::INFINITY, 0.0, touched(at, "bits next to what is released changed"));
                break;
            };
            if !placed.untouched(&got[1..]) {
                sums.named(f64::INFINITY, 0.0, touched(at, "bits of gradients changed"));
            }
            for (tensor, (got, expected)) in tensors.iter().zip(&expected.released).enumerate() {
                for (i, (got, &expected)) in got.floats().into_iter().zip(expected).enumerate() {
                    let off = f64::from(u8::from(got.to_bits() != expected.to_bits()));
                    let (got, expected) = (got.into(), expected.into());
                    let wrong = Wrong { step: at, what: "release", at: Some((tensor, i)), got, expected };
                    released.named(off, 0.0, wrong);
                }
            }
        }
        Ok([sums, released])
    }

    /// Sums of the CPU path next to the clipped examples' in f64, each product of which may be cut by a unit.
    pub(crate) fn on_cpu(&self) -> Result<Findings, Failure> {
        let mut findings = Findings::default();
        let (mut sums, mut off) = (Vec::new(), Vec::new());
        let threshold = self.clip.threshold as f32;
        let unit = 2f64.powi((threshold.to_bits() >> 23) as i32 - 127 - 40);
        for at in 0..BATCHES {
            let case = self.batch(at);
            let widths = Self::widths(&case);
            if at != 1 {
                (sums, off) = (widths.iter().map(|&n| vec![0.0; n]).collect(), Vec::new());
                off.clone_from(&sums);
            }
            let exact = Exact::of(&case);
            let (trace, _) = case.traced()?;
            let changes = Changes::new(&case, &exact, &trace);
            for (tensor, &width) in widths.iter().enumerate() {
                for i in 0..case.tensors[tensor].data.len() {
                    let near = gradient(&changes, &case, tensor, i);
                    sums[tensor][i % width] += near.value;
                    // A sum of f64 is off by its own rounding, too.
                    off[tensor][i % width] += near.error + unit + near.value.abs() * 2f64.powi(-50);
                }
            }
            let Some(lot) = at.checked_sub(1) else { continue };
            let made = &self.on_slices()?[lot];
            for (tensor, own) in made.sums.iter().enumerate() {
                for (i, &got) in own.iter().enumerate() {
                    let (got, expected, most) = (got as f64 * unit, sums[tensor][i], off[tensor][i]);
                    let wrong = Wrong { step: at, what: "sum", at: Some((tensor, i)), got, expected };
                    // In shares of what it may be off by.
                    findings.named((got - expected).abs() / most, 1.0, wrong);
                }
            }
        }
        Ok(findings)
    }
}

impl fmt::Display for Examples {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Examples { clip, sizes, elements, arena, values, noise, lot, .. } = self;
        let buffers = if *arena { "one buffer" } else { "a buffer each" };
        let Clip { rule, threshold, non_finite, unscale, .. } = clip;
        write!(
            f,
            "private sum, {sizes:?} {elements:?} {values:?}, {buffers}, {rule:?}, threshold {threshold}, "
        )?;
        write!(f, "unscale {unscale}, {non_finite:?}, noise {noise}, lot {lot}")
    }
}
