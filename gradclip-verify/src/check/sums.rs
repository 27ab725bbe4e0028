//! Sums of micro-batches, as they are and clipped one by one: a device, the CPU path, plain f64.

use std::fmt;

use gradclip::cpu;
use gradclip::{Clip, Grad, History, Rule};

use crate::budget::BATCHES;
use crate::check::steps::{gradient, placing_of_operands, touched};
use crate::check::training::{LAYOUTS, batch, clips, few};
use crate::failure::Failure;
use crate::gpu::{Gpu, MicroBatch, Operands, Placed};
use crate::inputs::values::Values;
use crate::inputs::{Case, Elements, Sizes, placing};
use crate::oracle::decision::Changes;
use crate::oracle::in_f64::Exact;
use crate::oracle::near::{Machine, Near};
use crate::tally::{Findings, Wrong};
use crate::tensor::Data;

/// Micro-batches after which sums begin anew.
const ANEW: usize = 2;
/// Nothing at all, odd lengths, a matrix to cut into units, more than a chunk.
const SHAPES: Sizes = Sizes::Shapes(&[&[7], &[0, 4], &[], &[65, 33], &[3, 5]]);
const LONG: Sizes = Sizes::Shapes(&[&[1], &[5], &[16_385], &[3], &[2]]);

/// Micro-batches and what is done with them.
#[derive(Clone, Debug)]
pub(crate) struct Sums {
    /// None adds gradients as they are.
    clip: Option<Clip>,
    sizes: Sizes,
    elements: Elements,
    arena: bool,
    values: [Values; BATCHES],
    seed: u64,
}

/// Every clip with every layout; values take turns.
pub(crate) fn sums() -> Vec<Sums> {
    use Values::{Bits, Both, OneInf, OneNan, Spikes, Spread, Subnormal, Zeros};
    let values = [
        [Spread(1.0), Spread(1e-3), Subnormal, Spread(1e-38), Zeros, OneInf],
        [Bits, Zeros, OneNan, Spread(1.0), Spikes, Bits],
        [Spread(1e-38), Subnormal, Zeros, Subnormal, Spread(1e-38), Spread(1.0)],
        [OneInf, Spread(1.0), Spread(3e38), Spread(3e38), Spread(1.0), Both],
    ];
    let clips = clips().into_iter().filter(|c| !matches!(c.rule, Rule::Agc { .. }) && c.loss_scale.is_none());
    // As they are, with all values; and clipped.
    let clips: Vec<Option<Clip>> = std::iter::repeat_n(None, values.len()).chain(clips.map(Some)).collect();
    let mut sums = Vec::new();
    for (elements, arena) in LAYOUTS {
        for (i, &clip) in clips.iter().enumerate() {
            if clip.is_none_or(|c| few(&c, elements, arena)) {
                let turn = sums.len();
                let sizes = if turn % 5 == 2 { LONG } else { SHAPES };
                let values = values[if clip.is_none() { i } else { turn % 4 }];
                let seed = 50_000 + (turn * BATCHES) as u64;
                sums.push(Sums { clip, sizes, elements, arena, values, seed });
            }
        }
    }
    sums
}

impl Sums {
    fn batch(&self, at: usize) -> Case {
        let clip = self.clip.unwrap_or(Clip::measure());
        let case = batch(self.sizes, self.elements, self.values[at], clip, self.seed + at as u64);
        Case { placing: placing(self.arena), ..case }
    }

    /// Before the first batch: what is there does not matter.
    fn begin(&self) -> Vec<Vec<f32>> {
        self.batch(0).tensors.iter().map(|t| vec![f32::NAN; t.data.len()]).collect()
    }

    /// Adds on the CPU path.
    fn add(
        &self,
        case: &Case,
        begins: bool,
        sums: &mut [Vec<f32>],
        history: &mut History,
    ) -> Result<(), Failure> {
        let mut sums: Vec<_> = case.tensors.iter().zip(sums).map(|(tensor, sum)| tensor.sum(sum)).collect();
        match &self.clip {
            None => cpu::accumulate(&mut sums, begins)?,
            Some(clip) => drop(cpu::accumulate_clipped(&mut sums, begins, clip, history)?),
        }
        Ok(())
    }

    /// Sums on a device next to those of the CPU path, which goes on from what the device has.
    pub(crate) async fn on_gpu(&self, gpu: &Gpu) -> Result<Findings, Failure> {
        let (mut sums, mut history) = (self.begin(), History::default());
        let first = self.batch(0);
        let mut placed = Placed::upload(gpu, &first.tensors, first.placing);
        let data: Vec<Data> = sums.iter().map(Data::from).collect();
        let operands = Operands::upload(gpu, data.iter(), placing_of_operands(self.arena));
        let record = self.prepare(gpu, &placed, &operands).await?;
        let mut findings = Findings::default();
        for at in 0..BATCHES {
            let case = self.batch(at);
            placed.put(gpu, &case.tensors);
            let begins = at % (ANEW + 1) == 0;
            let staged = gpu.submit(|encoder| {
                record(begins, encoder);
                gpu.stage(encoder, operands.buffers.iter().chain(&placed.buffers))
            });
            let got = gpu.collect_async(&staged).await?;

            let (before, mut addends) = (sums.clone(), self.begin());
            self.add(&case, true, &mut addends, &mut history.clone())?;
            self.add(&case, begins, &mut sums, &mut history)?;
            let Some(tensors) = operands.data(&got[..1]) else {
                findings.named(f64::INFINITY, 0.0, touched(at, "bits next to the tensors changed"));
                return Ok(findings);
            };
            let tensors: Vec<Vec<f32>> = tensors.iter().map(Data::floats).collect();
            let before = if begins { None } else { Some(&before) };
            compare(at, before, &addends, [&tensors, &sums], &mut findings);
            if !placed.untouched(&got[1..]) {
                findings.named(f64::INFINITY, 0.0, touched(at, "bits of gradients changed"));
            }
            sums = tensors;
        }
        Ok(findings)
    }

    async fn prepare(&self, gpu: &Gpu, placed: &Placed, operands: &Operands) -> Result<MicroBatch, Failure> {
        let told = |(i, grad): (usize, &Grad)| {
            let (buffer, offset) = operands.at(i);
            grad.clone().accumulator(buffer, offset)
        };
        let grads: Vec<_> = placed.grads.iter().enumerate().map(told).collect();
        Ok(gpu.accumulation_async(&grads, self.clip.as_ref()).await?)
    }

    /// Sums of the CPU path next to f64, each from what the CPU path has.
    pub(crate) fn on_cpu(&self) -> Result<Findings, Failure> {
        let (mut sums, mut history) = (self.begin(), History::default());
        let mut findings = Findings::default();
        for at in 0..BATCHES {
            let case = self.batch(at);
            let begins = at % (ANEW + 1) == 0;
            let before = sums.clone();
            self.add(&case, begins, &mut sums, &mut history)?;
            let exact = Exact::of(&case);
            let (trace, _) = case.traced()?;
            let changes = Changes::new(&case, &exact, &trace);
            for (tensor, sums) in sums.iter().enumerate() {
                for (i, &got) in sums.iter().enumerate() {
                    let addend = match self.clip {
                        None => Near::exactly(case.tensors[tensor].data.value(i)),
                        Some(_) => gradient(&changes, &case, tensor, i),
                    };
                    let sum = Near::exactly(before[tensor][i].into());
                    let near = if begins { addend } else { Machine::CPU.sum(sum, addend) };
                    let (got, expected) = (f64::from(got), near.value);
                    let wrong = Wrong { step: at, what: "sum", at: Some((tensor, i)), got, expected };
                    findings.named(near.off(got), near.most(), wrong);
                }
            }
        }
        Ok(findings)
    }
}

/// Sums must be equal in every bit, but for subnormal terms or sums that are flushed.
fn compare(
    step: usize,
    before: Option<&Vec<Vec<f32>>>,
    addends: &[Vec<f32>],
    [got, expected]: [&[Vec<f32>]; 2],
    findings: &mut Findings,
) {
    let zero = |x: f32| if x.abs() < f32::MIN_POSITIVE { 0.0 } else { x };
    for (tensor, (got, expected)) in got.iter().zip(expected).enumerate() {
        for (i, (&got, &expected)) in got.iter().zip(expected).enumerate() {
            if got.to_bits() == expected.to_bits() || (got.is_nan() && expected.is_nan()) {
                findings.value(0.0, 0.0);
                continue;
            }
            let flushed = before.is_some_and(|before| {
                let (a, b) = (before[tensor][i], addends[tensor][i]);
                let terms = [(a, b), (zero(a), b), (a, zero(b)), (zero(a), zero(b))];
                let all = terms.into_iter().flat_map(|(a, b)| [a + b, zero(a + b)]);
                got != expected && all.into_iter().any(|sum| got == sum)
            });
            if flushed {
                findings.flushed();
                continue;
            }
            let (got, expected) = (f64::from(got), f64::from(expected));
            let wrong = Wrong { step, what: "sum", at: Some((tensor, i)), got, expected };
            findings.named(Near::exactly(expected).off(got).max(1.0), 0.0, wrong);
        }
    }
}

impl fmt::Display for Sums {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Sums { clip, sizes, elements, arena, values, .. } = self;
        let buffers = if *arena { "one buffer" } else { "a buffer each" };
        write!(f, "{sizes:?} {elements:?} {values:?}, {buffers}, ")?;
        let Some(clip) = clip else { return f.write_str("as they are") };
        let Clip { rule, scope, threshold, total, non_finite, unscale, .. } = clip;
        write!(f, "{rule:?}, {scope:?}, threshold {threshold}, total {total:?}, unscale {unscale}, ")?;
        write!(f, "{non_finite:?}")
    }
}
