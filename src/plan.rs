//! Cuts a set of tensors into chunks, windows and dispatches: pure data, without a device.
//!
//! A *window* is an aligned range of one buffer, no larger than a binding may be. A *slot* is the
//! place of a window in a dispatch. Every chunk lies in one window whole; windows of one dispatch
//! never overlap, since browsers refuse that for writable bindings.

use std::collections::HashMap;
use std::ops::Range;

use crate::clip::Scope;
use crate::error::PlanError;
use crate::grad::DType;
use crate::layout::{CHUNK, ChunkRow, LEN_BITS, MOST_CHUNKS, NONE, Partial, Run, SERIAL_RUN, SeamRow, Sum};

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

/// One chunk before its dispatch is known.
struct Chunk {
    tensor: u32,
    partial: u32,
    buffer: usize,
    dtype: DType,
    begin: u64,
    len: u32,
}

impl Chunk {
    fn end(&self) -> u64 {
        self.begin + u64::from(self.len) * self.dtype.size()
    }
}

/// A window and the chunks in it, as a range of the sorted chunks.
struct Filled {
    window: Window,
    dtype: DType,
    chunks: Range<usize>,
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
        let chunks = cut(tensors, &counts);
        let segment_of = segments(scope, tensors.len());
        let packed = dispatches(&chunks, windows(&chunks, limits), &segment_of, limits)?;
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

/// All chunks, sorted by element type, buffer and offset.
fn cut(tensors: &[Placement], counts: &[u32]) -> Vec<Chunk> {
    let mut chunks = Vec::with_capacity(counts.iter().map(|&c| c as usize).sum());
    for (i, (t, &count)) in tensors.iter().zip(counts).enumerate() {
        for k in 0..u64::from(count) {
            let first = k * u64::from(CHUNK);
            chunks.push(Chunk {
                tensor: i as u32,
                partial: chunks.len() as u32,
                buffer: t.buffer,
                dtype: t.dtype,
                begin: t.offset + first * t.dtype.size(),
                len: (t.elements - first).min(u64::from(CHUNK)) as u32,
            });
        }
    }
    chunks.sort_by_key(|c| (c.dtype as u32, c.buffer, c.begin));
    chunks
}

/// Merges neighbouring chunks of one buffer into windows as large as a binding may be.
fn windows(chunks: &[Chunk], limits: &PlanLimits) -> Vec<Filled> {
    let largest = limits.max_binding.min(LARGEST_WINDOW);
    let mut filled: Vec<Filled> = Vec::new();
    for (i, c) in chunks.iter().enumerate() {
        let end = c.end().next_multiple_of(4);
        if let Some(last) = filled.last_mut()
            && (last.dtype, last.window.buffer) == (c.dtype, c.buffer)
            && end - last.window.offset <= largest
        {
            last.window.size = end - last.window.offset;
            last.chunks.end = i + 1;
            continue;
        }
        let offset = c.begin - c.begin % limits.alignment;
        let window = Window { buffer: c.buffer, offset, size: end - offset };
        filled.push(Filled { window, dtype: c.dtype, chunks: i..i + 1 });
    }
    filled
}

/// Packs windows into dispatches, each into the first of its element type that has room and no
/// window overlapping it: a window that begins inside its neighbour's last alignment goes into
/// another dispatch.
fn pack(filled: Vec<Filled>, limits: &PlanLimits) -> Vec<Vec<Filled>> {
    let slots = limits.slots as usize;
    let mut groups: Vec<Vec<Filled>> = Vec::new();
    let mut first_open = 0;
    for f in filled {
        while groups.get(first_open).is_some_and(|g| g.len() == slots) {
            first_open += 1;
        }
        let joins = |g: &Vec<Filled>| {
            g.len() < slots && g.iter().all(|o| o.dtype == f.dtype && !o.window.overlaps(&f.window))
        };
        match groups[first_open..].iter().position(joins) {
            Some(i) => groups[first_open + i].push(f),
            None => groups.push(vec![f]),
        }
    }
    groups
}

fn dispatches(
    chunks: &[Chunk],
    filled: Vec<Filled>,
    segment_of: &[u32],
    limits: &PlanLimits,
) -> Result<Packed, PlanError> {
    let mut rows = Vec::with_capacity(chunks.len());
    let mut seams = Seams::default();
    let mut dispatches = Vec::new();
    for group in pack(filled, limits) {
        let (first_row, first_seam) = (rows.len() as u32, seams.rows.len() as u32);
        for (slot, f) in group.iter().enumerate() {
            for c in &chunks[f.chunks.clone()] {
                let segment = segment_of[c.tensor as usize];
                let start = ((c.begin - f.window.offset) / c.dtype.size()) as u32;
                if c.dtype.size() == 2 {
                    seams.add(c, f, slot as u32, start, segment);
                }
                let slot_len = ((slot as u32) << LEN_BITS) | c.len;
                rows.push(ChunkRow { start, slot_len, partial: c.partial, segment });
            }
        }
        let range = first_row..rows.len() as u32;
        let seam_range = first_seam..seams.rows.len() as u32;
        dispatches.push(Dispatch {
            dtype: group[0].dtype,
            grid: grid(range.len() as u64, limits)?,
            windows: group.iter().map(|f| f.window).collect(),
            rows: range,
            seam_grid: grid((seam_range.len() as u64).div_ceil(u64::from(limits.workgroup_size)), limits)?,
            seams: seam_range,
        });
    }
    Ok(Packed { dispatches, rows, seams: seams.rows })
}

/// All dispatches of the chunk kernels with their rows.
struct Packed {
    dispatches: Vec<Dispatch>,
    rows: Vec<ChunkRow>,
    seams: Vec<SeamRow>,
}

/// The shared words found so far. A word belongs to the dispatch where its first half is met; the
/// other half joins it there.
#[derive(Default)]
struct Seams {
    rows: Vec<SeamRow>,
    /// Element type, buffer and byte offset of a word, to its row.
    met: HashMap<(DType, usize, u64), usize>,
}

impl Seams {
    fn add(&mut self, chunk: &Chunk, filled: &Filled, slot: u32, start: u32, segment: u32) {
        let end = start + chunk.len;
        if start % 2 == 1 {
            self.row(chunk, filled, slot, start / 2).high = segment;
        }
        if end % 2 == 1 {
            self.row(chunk, filled, slot, end / 2).low = segment;
        }
    }

    fn row(&mut self, chunk: &Chunk, filled: &Filled, slot: u32, word: u32) -> &mut SeamRow {
        let key = (chunk.dtype, chunk.buffer, filled.window.offset + u64::from(word) * 4);
        let row = *self.met.entry(key).or_insert_with(|| {
            self.rows.push(SeamRow { slot, word, low: NONE, high: NONE });
            self.rows.len() - 1
        });
        &mut self.rows[row]
    }
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
