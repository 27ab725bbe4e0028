//! Reports on their way to the host: a bounded ring of mappable buffers that never stalls the GPU.

use std::sync::Arc;

use crate::clip::Clip;
use crate::error::{PrepareError, ReadBackError};
use crate::layout::{Outcome, Progress, Sum, Tally};
use crate::plan::Plan;
use crate::report::{self, Report};
use crate::segments::Segments;
use crate::tensor::TensorInfo;

use super::mapped::{Place, ReadBack, Tags};
use super::records::Memory;

/// The places of a pass.
#[derive(Debug)]
pub(crate) struct Ring {
    places: Vec<Arc<Place>>,
    contents: Arc<Contents>,
}

/// What a place holds: outcomes, sums of tensors, the tally, how far the device has got, and the learning rate.
#[derive(Debug)]
struct Contents {
    infos: Arc<[TensorInfo]>,
    clip: Clip,
    parts: Segments,
    /// Bytes of the outcomes that are not read back: those of units and rows may be millions.
    skipped_bytes: u64,
    outcome_bytes: u64,
    sum_bytes: u64,
    /// Bytes of the learning rate, where an optimiser's step follows.
    rate_bytes: u64,
}

const TALLY_BYTES: u64 = size_of::<Tally>() as u64;
const PROGRESS_BYTES: u64 = size_of::<Progress>() as u64;

/// What is copied, all of which the pass has.
pub(crate) struct Results<'b> {
    pub(crate) outcomes: &'b wgpu::Buffer,
    pub(crate) sums: &'b wgpu::Buffer,
    pub(crate) memory: &'b Memory,
    /// A [`Hyper`](crate::layout::Hyper), whose first word is the learning rate.
    pub(crate) hyper: &'b wgpu::Buffer,
}

impl Ring {
    pub(crate) fn new(
        device: &wgpu::Device,
        places: usize,
        infos: Arc<[TensorInfo]>,
        clip: Clip,
        plan: &Plan,
        steps: bool,
    ) -> Result<Ring, PrepareError> {
        let parts = plan.parts.clone();
        let bytes = |records: u32| u64::from(records) * size_of::<Outcome>() as u64;
        let skipped_bytes = if parts.cut() { bytes(parts.count) } else { 0 };
        let outcome_bytes = bytes(parts.decided()) - skipped_bytes;
        let sum_bytes = (plan.tensor_sum_count() * size_of::<Sum>()) as u64;
        let rate_bytes = if steps { size_of::<f32>() as u64 } else { 0 };
        let size = outcome_bytes + sum_bytes + TALLY_BYTES + PROGRESS_BYTES + rate_bytes;
        let tags = Tags::new(device)?;
        let place = |_| Arc::new(Place::new(device, "gradclip read-back", size, Some(tags.clone())));
        let contents = Contents { infos, clip, parts, skipped_bytes, outcome_bytes, sum_bytes, rate_bytes };
        Ok(Ring { places: (0..places).map(place).collect(), contents: Arc::new(contents) })
    }

    pub(crate) fn read_back(
        &self,
        encoder: &mut wgpu::CommandEncoder,
        Results { outcomes, sums, memory, hyper }: Results<'_>,
    ) -> Result<ReadBack, ReadBackError> {
        let place = self.places.iter().find(|place| place.take());
        let place = place.ok_or(ReadBackError::RingFull { capacity: self.places.len() })?;
        let Contents { skipped_bytes, outcome_bytes, sum_bytes, rate_bytes, .. } = *self.contents;
        let copies = [
            (outcomes, skipped_bytes, outcome_bytes),
            (sums, 0, sum_bytes),
            (&memory.tally, 0, TALLY_BYTES),
            (&memory.progress, 0, PROGRESS_BYTES),
            (hyper, 0, rate_bytes),
        ];
        let contents = self.contents.clone();
        Ok(place.read_back(encoder, copies, move |bytes| contents.read(bytes)))
    }
}

impl Contents {
    fn read(&self, bytes: &[u8]) -> Result<Report, ReadBackError> {
        let (outcomes, rest) = bytes.split_at(self.outcome_bytes as usize);
        let (sums, rest) = rest.split_at(self.sum_bytes as usize);
        let (tally, rest) = rest.split_at(TALLY_BYTES as usize);
        let (progress, lr) = rest.split_at(PROGRESS_BYTES as usize);
        // Records are copied out: a mapped range need not be aligned for them.
        let outcomes: Vec<Outcome> = bytemuck::pod_collect_to_vec(outcomes);
        let sums: Vec<Sum> = bytemuck::pod_collect_to_vec(sums);
        let tally: Tally = bytemuck::pod_read_unaligned(tally);
        if tally.steps == 0 {
            return Err(ReadBackError::Undecided);
        }
        let progress: Progress = bytemuck::pod_read_unaligned(progress);
        let lr = (self.rate_bytes > 0).then(|| bytemuck::pod_read_unaligned(lr));
        let report = report::report(&self.clip, &self.infos, &self.parts, &sums, &outcomes, &tally);
        Ok(report.advanced(&self.clip, &progress, lr))
    }
}
