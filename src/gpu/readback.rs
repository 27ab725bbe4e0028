//! Reports on their way to the host: a bounded ring of mappable buffers that never stalls the GPU.

use std::sync::Arc;

use crate::clip::Clip;
use crate::error::{PrepareError, ReadBackError};
use crate::layout::{Outcome, Sum, Tally};
use crate::plan::Plan;
use crate::report::{self, Report};
use crate::segments::Segments;
use crate::tensor::TensorInfo;

use super::mapped::{Place, ReadBack, Tags};

/// The places of a pass.
#[derive(Debug)]
pub(crate) struct Ring {
    places: Vec<Arc<Place>>,
    contents: Arc<Contents>,
}

/// What a place holds: outcomes, sums of tensors, and the tally.
#[derive(Debug)]
struct Contents {
    infos: Arc<[TensorInfo]>,
    clip: Clip,
    parts: Segments,
    /// Bytes of the outcomes that are not read back: those of units and rows may be millions.
    skipped_bytes: u64,
    outcome_bytes: u64,
    sum_bytes: u64,
}

const TALLY_BYTES: u64 = size_of::<Tally>() as u64;

impl Ring {
    pub(crate) fn new(
        device: &wgpu::Device,
        places: usize,
        infos: Arc<[TensorInfo]>,
        clip: Clip,
        plan: &Plan,
    ) -> Result<Ring, PrepareError> {
        let parts = plan.parts.clone();
        let bytes = |records: u32| u64::from(records) * size_of::<Outcome>() as u64;
        let skipped_bytes = if parts.cut() { bytes(parts.count) } else { 0 };
        let outcome_bytes = bytes(parts.decided()) - skipped_bytes;
        let sum_bytes = (plan.tensor_sum_count() * size_of::<Sum>()) as u64;
        let size = outcome_bytes + sum_bytes + TALLY_BYTES;
        let tags = Tags::new(device)?;
        let place = |_| Arc::new(Place::new(device, "gradclip read-back", size, Some(tags.clone())));
        let contents = Arc::new(Contents { infos, clip, parts, skipped_bytes, outcome_bytes, sum_bytes });
        Ok(Ring { places: (0..places).map(place).collect(), contents })
    }

    pub(crate) fn read_back(
        &self,
        encoder: &mut wgpu::CommandEncoder,
        [outcomes, sums, tally]: [&wgpu::Buffer; 3],
    ) -> Result<ReadBack, ReadBackError> {
        let place = self.places.iter().find(|place| place.take());
        let place = place.ok_or(ReadBackError::RingFull { capacity: self.places.len() })?;
        let Contents { skipped_bytes, outcome_bytes, sum_bytes, .. } = *self.contents;
        let copies =
            [(outcomes, skipped_bytes, outcome_bytes), (sums, 0, sum_bytes), (tally, 0, TALLY_BYTES)];
        let contents = self.contents.clone();
        Ok(place.read_back(encoder, copies, move |bytes| contents.read(bytes)))
    }
}

impl Contents {
    fn read(&self, bytes: &[u8]) -> Result<Report, ReadBackError> {
        let (outcomes, rest) = bytes.split_at(self.outcome_bytes as usize);
        let (sums, tally) = rest.split_at(self.sum_bytes as usize);
        // Records are copied out: a mapped range need not be aligned for them.
        let outcomes: Vec<Outcome> = bytemuck::pod_collect_to_vec(outcomes);
        let sums: Vec<Sum> = bytemuck::pod_collect_to_vec(sums);
        let tally: Tally = bytemuck::pod_read_unaligned(tally);
        if tally.steps == 0 {
            return Err(ReadBackError::Undecided);
        }
        Ok(report::report(&self.clip, &self.infos, &self.parts, &sums, &outcomes, &tally))
    }
}
