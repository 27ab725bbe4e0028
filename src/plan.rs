//! Cuts a set of tensors into chunks, windows and dispatches: pure data, without a device.
//!
//! A *window* is an aligned range of one buffer, no larger than a binding may be. A *slot* is the
//! place of a window in a dispatch. Every chunk lies in one window whole; windows of one dispatch
//! never overlap, since browsers refuse that for writable bindings.

mod pack;

use std::ops::Range;

use crate::clip::Scope;
use crate::error::PlanError;
use crate::grad::DType;
use crate::layout::{CHUNK, ChunkRow, MOST_CHUNKS, Partial, Run, SERIAL_RUN, SeamRow, Sum};

/// A window is kept below 2 GiB, whatever the device allows, so that byte offsets fit 31 bits.
const LARGEST_WINDOW: u64 = 1 << 31;

/// Where one tensor lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    /// Name of the tensor, for errors.
    pub name: String,
    /// Number of the buffer; equal numbers mean the same buffer.
    pub buffer: usize,
    /// Size of that buffer in bytes.
    pub buffer_size: u64,
    /// First byte of the tensor.
    pub offset: u64,
    /// Number of elements; 0 is fine.
    pub elements: u64,
    /// Element type.
    pub dtype: DType,
}

/// The limits of a device that a plan depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlanLimits {
    /// Windows that one dispatch can bind, at least 1.
    pub slots: u32,
    /// Largest binding in bytes.
    pub max_binding: u64,
    /// Alignment of a binding's offset in bytes.
    pub alignment: u64,
    /// Workgroups that one dimension of a dispatch can have.
    pub max_workgroups: u32,
    /// Invocations of a workgroup.
    pub workgroup_size: u32,
}

/// Storage buffers of the chunk kernels besides the slots.
pub(crate) const OTHER_STORAGE: u32 = 2;
/// Buffers of any kind of the chunk kernels besides the slots.
pub(crate) const OTHER_BUFFERS: u32 = 3;

impl PlanLimits {
    /// What a device with these limits allows.
    ///
    /// # Errors
    ///
    /// [`PlanError::Limit`] where not even one slot fits.
    pub fn new(limits: &wgpu::Limits, workgroup_size: u32) -> Result<PlanLimits, PlanError> {
        let storage = limits.max_storage_buffers_per_shader_stage;
        let buffers = limits.max_buffers_and_acceleration_structures_per_shader_stage;
        let least = [
            ("max_storage_buffers_per_shader_stage", u64::from(OTHER_STORAGE) + 1, u64::from(storage)),
            (
                "max_buffers_and_acceleration_structures_per_shader_stage",
                u64::from(OTHER_BUFFERS) + 1,
                u64::from(buffers),
            ),
            (
                "max_compute_invocations_per_workgroup",
                u64::from(workgroup_size),
                u64::from(
                    limits.max_compute_invocations_per_workgroup.min(limits.max_compute_workgroup_size_x),
                ),
            ),
            (
                "max_compute_workgroups_per_dimension",
                1,
                u64::from(limits.max_compute_workgroups_per_dimension),
            ),
            ("max_storage_buffer_binding_size", 1 << 17, limits.max_storage_buffer_binding_size),
        ];
        for (limit, required, given) in least {
            if given < required {
                return Err(PlanError::Limit { limit, required, given });
            }
        }
        Ok(PlanLimits {
            slots: (storage - OTHER_STORAGE).min(buffers - OTHER_BUFFERS),
            max_binding: limits.max_storage_buffer_binding_size,
            alignment: u64::from(limits.min_storage_buffer_offset_alignment).max(4),
            max_workgroups: limits.max_compute_workgroups_per_dimension,
            workgroup_size,
        })
    }
}

/// An aligned range of a buffer, bound to one slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Number of the buffer.
    pub buffer: usize,
    /// First byte.
    pub offset: u64,
    /// Bytes, a multiple of 4.
    pub size: u64,
}

impl Window {
    fn overlaps(&self, other: &Window) -> bool {
        self.buffer == other.buffer
            && self.offset < other.offset + other.size
            && other.offset < self.offset + self.size
    }
}

/// Chunks that one dispatch works on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dispatch {
    /// Element type of all its chunks.
    pub dtype: DType,
    /// The windows bound, by slot.
    pub windows: Vec<Window>,
    /// Rows of [`Plan::rows`].
    pub rows: Range<u32>,
    /// Workgroups.
    pub grid: [u32; 2],
    /// Rows of [`Plan::seams`] in these windows; none for 4-byte elements.
    pub seams: Range<u32>,
    /// Workgroups of the kernel that takes one invocation a seam.
    pub seam_grid: [u32; 2],
}

/// Runs that one dispatch adds up, short ones first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Combine {
    /// The runs.
    pub runs: Vec<Run>,
    /// How many of them are added up by one invocation each.
    pub serial: u32,
    /// Workgroups.
    pub grid: [u32; 2],
}

/// The whole plan. Partials are numbered tensor by tensor, chunk by chunk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The dispatches of the reduce and of the apply pass.
    pub dispatches: Vec<Dispatch>,
    /// Chunks, in the order of the dispatches.
    pub rows: Vec<ChunkRow>,
    /// Words of 16-bit elements that no chunk owns whole.
    pub seams: Vec<SeamRow>,
    /// Number of chunks.
    pub partials: u32,
    /// Partials to sums of tensors.
    pub tensors: Combine,
    /// Sums of tensors to sums of segments.
    pub segments: Combine,
    /// Workgroups of the kernel that takes one invocation a segment.
    pub segment_grid: [u32; 2],
    /// Segment of each tensor.
    pub segment_of: Vec<u32>,
}

impl Plan {
    /// Plans the clipping of `tensors`.
    ///
    /// ```
    /// use gradclip::{DType, Scope, plan::{Placement, Plan, PlanLimits}};
    ///
    /// let limits = PlanLimits::new(&wgpu::Limits::default(), 256)?;
    /// let tensor = Placement {
    ///     name: "w".into(), buffer: 0, buffer_size: 400_000, offset: 0, elements: 100_000, dtype: DType::F32,
    /// };
    /// let plan = Plan::new(&[tensor], Scope::Global, &limits)?;
    /// assert_eq!(plan.partials, 7); // 100,000 elements in chunks of 16,384
    /// assert_eq!(plan.dispatches.len(), 1);
    /// # Ok::<(), gradclip::PlanError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Unaligned, overlapping or overlong ranges, or more than the limits can hold.
    pub fn new(tensors: &[Placement], scope: Scope, limits: &PlanLimits) -> Result<Plan, PlanError> {
        check_ranges(tensors)?;
        let counts = chunk_counts(tensors, limits)?;
        let chunks = pack::cut(tensors, &counts);
        let segment_of = segments(scope, tensors.len());
        let packed = pack::dispatches(&chunks, &segment_of, limits)?;
        let segment_count = segment_count(scope, tensors.len());
        let per_segment = run_lengths(&segment_of, segment_count);
        Ok(Plan {
            dispatches: packed.dispatches,
            rows: packed.rows,
            seams: packed.seams,
            partials: chunks.len() as u32,
            tensors: Combine::new(&counts, limits)?,
            segments: Combine::new(&per_segment, limits)?,
            segment_grid: grid(segment_count.div_ceil(limits.workgroup_size as usize) as u64, limits)?,
            segment_of,
        })
    }

    /// Number of segments.
    pub fn segment_count(&self) -> usize {
        self.segments.runs.len()
    }

    /// Number of tensors, empty ones included.
    pub fn tensor_count(&self) -> usize {
        self.segment_of.len()
    }

    /// Bytes of the buffers that a prepared pass allocates for working, results included.
    pub fn scratch_bytes(&self) -> u64 {
        let bytes = |n: usize, size: usize| (n * size) as u64;
        bytes(self.rows.len(), size_of::<ChunkRow>())
            + bytes(self.seams.len(), size_of::<SeamRow>())
            + bytes(self.partials as usize, size_of::<Partial>())
            + bytes(self.tensor_count(), size_of::<Run>() + size_of::<Sum>())
            + bytes(self.segment_count(), size_of::<Run>() + size_of::<Sum>() + 64)
    }
}

impl Combine {
    /// Consecutive runs of the given lengths, run `i` with target `i`.
    fn new(lengths: &[u32], limits: &PlanLimits) -> Result<Combine, PlanError> {
        let mut first = 0;
        let mut runs: Vec<Run> = Vec::with_capacity(lengths.len());
        for (target, &count) in lengths.iter().enumerate() {
            runs.push(Run { first, count, target: target as u32, pad: 0 });
            first += count;
        }
        runs.sort_by_key(|run| run.count > SERIAL_RUN);
        let serial = runs.partition_point(|run| run.count <= SERIAL_RUN) as u32;
        let groups =
            u64::from(serial.div_ceil(limits.workgroup_size)) + runs.len() as u64 - u64::from(serial);
        Ok(Combine { runs, serial, grid: grid(groups, limits)? })
    }
}

/// Segment of each of `tensors` tensors.
pub(crate) fn segments(scope: Scope, tensors: usize) -> Vec<u32> {
    match scope {
        Scope::Global => vec![0; tensors],
        Scope::Tensor => (0..tensors as u32).collect(),
    }
}

/// A global segment exists even without tensors: the norm of nothing is 0.
pub(crate) fn segment_count(scope: Scope, tensors: usize) -> usize {
    match scope {
        Scope::Global => 1,
        Scope::Tensor => tensors,
    }
}

/// How many tensors each segment holds. Tensors of one segment are consecutive.
pub(crate) fn run_lengths(segment_of: &[u32], count: usize) -> Vec<u32> {
    let mut lengths = vec![0; count];
    for &segment in segment_of {
        lengths[segment as usize] += 1;
    }
    lengths
}

fn check_ranges(tensors: &[Placement]) -> Result<(), PlanError> {
    let mut order: Vec<&Placement> = tensors.iter().filter(|t| t.elements > 0).collect();
    for t in tensors {
        let required = t.dtype.size();
        if t.offset % required != 0 {
            let (tensor, dtype, given) = (t.name.clone(), t.dtype, t.offset);
            return Err(PlanError::Unaligned { tensor, dtype, required, given });
        }
        let end = u128::from(t.offset) + u128::from(t.elements) * u128::from(required);
        let required = end.next_multiple_of(4);
        if required > u128::from(t.buffer_size) {
            return Err(PlanError::OutOfRange { tensor: t.name.clone(), required, given: t.buffer_size });
        }
    }
    order.sort_by_key(|t| (t.buffer, t.offset));
    for pair in order.windows(2) {
        let [a, b] = pair else { continue };
        if a.buffer == b.buffer && b.offset < a.offset + a.elements * a.dtype.size() {
            return Err(PlanError::Overlap { first: a.name.clone(), second: b.name.clone(), at: b.offset });
        }
    }
    Ok(())
}

fn chunk_counts(tensors: &[Placement], limits: &PlanLimits) -> Result<Vec<u32>, PlanError> {
    // Every table is bound whole.
    let most = |size: usize| limits.max_binding.min(LARGEST_WINDOW) / size as u64;
    let total: u128 = tensors.iter().map(|t| u128::from(t.elements.div_ceil(u64::from(CHUNK)))).sum();
    let checks = [
        ("chunks of 16,384 elements", total, most(size_of::<Partial>()).min(MOST_CHUNKS)),
        ("tensors", tensors.len() as u128, most(64)),
    ];
    for (what, given, required) in checks {
        if given > u128::from(required) {
            let given = u64::try_from(given).unwrap_or(u64::MAX);
            return Err(PlanError::TooLarge { what, required, given });
        }
    }
    Ok(tensors.iter().map(|t| t.elements.div_ceil(u64::from(CHUNK)) as u32).collect())
}

/// Workgroups as a grid of two dimensions; the second only where one is not enough. The product
/// may exceed `groups`: kernels check.
fn grid(groups: u64, limits: &PlanLimits) -> Result<[u32; 2], PlanError> {
    let most = u64::from(limits.max_workgroups);
    let y = groups.div_ceil(most).max(1);
    if y > most {
        return Err(PlanError::TooLarge { what: "workgroups", required: most * most, given: groups });
    }
    Ok([groups.div_ceil(y).max(1) as u32, y as u32])
}
