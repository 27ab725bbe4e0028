//! Sparse gradients, their duplicates added: a device next to the CPU path, the CPU path next to exact sums.

use std::fmt;

use num_bigint::BigInt;

use crate::check::Found;
use crate::failure::Failure;
use crate::gpu::{Gpu, PlacedEntries, expected};
use crate::inputs::{DISTRIBUTIONS, Distribution, Entries, Naming};
use crate::oracle::exact;
use crate::tally::Findings;
use crate::tensor::Element;

/// Entries of the longest list that one invocation adds.
const LONG_LIST: usize = 128;

/// A sparse gradient.
#[derive(Clone, Debug)]
pub(crate) struct Sparse {
    naming: Naming,
    entries: usize,
    table: [usize; 2],
    element: Element,
    kind: Distribution,
    /// Entries that do not hold, where a buffer says how many do.
    beyond: Option<u32>,
    seed: u64,
}

/// Every way to name rows with every number of them; values and types take turns.
pub(crate) fn sparse() -> Vec<Sparse> {
    let sizes = [(40, [7, 3]), (600, [3, 5]), (2_000, [9, 2]), (900, [400, 17]), (300, [1, 1])];
    let mut all = Vec::new();
    for (entries, table) in sizes {
        for naming in [Naming::Any, Naming::Words, Naming::One(0), Naming::Each] {
            for turn in 0..6 {
                let seed = 70_000 + all.len();
                let (element, kind) =
                    (Element::ON_DEVICES[turn % 3], DISTRIBUTIONS[seed % DISTRIBUTIONS.len()]);
                let beyond = [None, Some(0), Some(7)][seed % 5 % 3];
                all.push(Sparse { naming, entries, table, element, kind, beyond, seed: seed as u64 });
            }
        }
    }
    all
}

impl Sparse {
    fn entries(&self) -> Entries {
        let Sparse { naming, entries, table, element, kind, beyond, seed } = *self;
        let count = beyond.map(|beyond| entries as u32 - beyond);
        Entries { count, ..Entries::new(naming, entries, table, element, kind, seed) }
    }

    /// Which kernels add it up.
    pub(crate) fn kind(&self) -> String {
        let longer = if self.entries > LONG_LIST { "long" } else { "short" };
        format!("sparse {:?} {longer}", self.naming)
    }

    /// The rows named, and the sums of short and of long lists.
    pub(crate) async fn on_gpu(&self, gpu: &Gpu) -> Result<Found, Failure> {
        let entries = self.entries();
        let (want_rows, want) = expected(&entries)?;
        let placed = PlacedEntries::upload_async(gpu, &gpu.clipper, &entries).await?;
        let (rows, got) = placed.added_async(gpu).await?;
        let [mut named, mut short, mut long] = [Findings::default(); 3];
        for (got, want) in rows.iter().zip(&want_rows) {
            named.value(f64::from(got.abs_diff(*want)), 0.0);
        }
        let valid = entries.valid().0;
        let mut lengths = vec![0usize; self.table[0]];
        valid.indices.iter().for_each(|&row| lengths[row as usize] += 1);
        let is_long = |k: usize| want_rows.get(k + 2).is_some_and(|&row| lengths[row as usize] > LONG_LIST);
        for (i, (got, want)) in got.iter().zip(&want).enumerate() {
            let same = got.to_bits() == want.to_bits() || (got.is_nan() && want.is_nan());
            let findings = if is_long(i / self.table[1]) { &mut long } else { &mut short };
            findings.value(if same { 0.0 } else { f64::INFINITY }, 0.0);
        }
        Ok(vec![("coalesce_places", named), ("coalesce_add", short), ("coalesce_long_rows", long)])
    }

    /// Sums next to exact ones, where all values are finite.
    pub(crate) fn on_cpu(&self) -> Result<Findings, Failure> {
        let entries = self.entries().valid().0;
        let (added, width) = (entries.coalesced()?, self.table[1]);
        let floats = entries.values.floats();
        let mut findings = Findings::default();
        for (k, row) in added.rows.iter().enumerate() {
            for column in 0..width {
                let own = entries.indices.iter().enumerate().filter(|(_, own)| *own == row);
                let values: Vec<f32> = own.map(|(i, _)| floats[i * width + column]).collect();
                if values.iter().all(|v| v.is_finite()) {
                    let (off, most) = off(&values, added.values[k * width + column]);
                    findings.value(off, most);
                }
            }
        }
        Ok(findings)
    }
}

/// How far a sum is off in its own ulp, and how far it may be: half of one, and what values are cut by, 2^-32 of the largest one's ulp each.
fn off(values: &[f32], sum: f32) -> (f64, f64) {
    // What rounds to infinity is 2^128 or, within half an ulp, above all that is below it.
    let sum = if sum.is_infinite() { f64::from(sum.signum()) * 2f64.powi(128) } else { sum.into() };
    let units = |v: f64| {
        let size = BigInt::from(exact::units(v));
        if v < 0.0 { -size } else { size }
    };
    let exact: BigInt = values.iter().map(|&v| units(v.into())).sum();
    let ulp_of = |v: f64| ((v.abs() as f32).min(f32::MAX).to_bits() >> 23).max(1);
    let ulp = ulp_of(sum);
    // Units are 2^-1074, an ulp is 2^(field - 150); 40 bits of it are enough, and fit an f64.
    let distance = (units(sum) - &exact) >> (1074 - 150 + ulp as i32 - 40) as usize;
    let distance = distance.magnitude().to_string().parse::<f64>().unwrap_or(f64::INFINITY) / 2f64.powi(40);
    let largest = values.iter().map(|&v| ulp_of(v.into())).max().unwrap_or(1);
    let cut = values.len() as f64 * 2f64.powi(largest as i32 - ulp as i32 - 32);
    let above = sum.abs() >= 2f64.powi(128) && exact.magnitude() > units(sum).magnitude();
    (if above { 0.0 } else { distance }, if values.len() == 1 { 0.0 } else { 0.5 + cut + 2f64.powi(-39) })
}

impl fmt::Display for Sparse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Sparse { naming, entries, table: [rows, width], element, kind, beyond, .. } = self;
        write!(f, "{entries} entries of a table of {rows} × {width}, {naming:?}, {element:?} {kind:?}, ")?;
        write!(f, "{} of them do not hold", beyond.unwrap_or_default())
    }
}
