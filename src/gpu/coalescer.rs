//! Duplicates of a sparse gradient, added: what remains is a gradient as any other.

use bytemuck::Zeroable;
use wgpu::BufferUsages as Usage;

use crate::clip::Clip;
use crate::error::PrepareError;
use crate::grad::{Grad, SparseGrad};
use crate::kernels::Kernel;
use crate::layout::{Coalescing, Job, LIST_HEADER, LongSum};
use crate::plan::{CoalescePlan, Entries, Placement};
use crate::tensor::DType;

use super::clipper::Clipper;
use super::make::{Make, Step, Table, Wanted};
use super::pass::{begin, run};
use super::placements::Buffers;

/// Adds the entries of a sparse gradient that have one index, prepared once and recorded in every step before the pass: PyTorch's
/// `coalesce`. [`Coalescer::grad`] is the sum, a gradient as any other: in norms beside dense ones, clipped in place, or read by a
/// step that moves the rows named and no other ([`Clipper::prepare_step`]).
///
/// **The sum** of an element's duplicates does not depend on their order, so that it has the same bits on every device and in
/// [`cpu::coalesce`](crate::cpu::coalesce()): each is cut towards 0 to units of 2^-32 of the last place of the largest of them, these
/// are added as integers, and the sum is rounded to nearest-even once. It is the exact sum rounded wherever no element reaches below
/// those units, and within 2^-32 of that last place an element anywhere. An element without duplicates keeps its bits. Infinities and
/// NaN add up as IEEE has it.
///
/// **Entries that are left out**: an index beyond the table, and entries beyond the number prepared. The host does not see them
/// in time, and a step without them would be wrong in silence. So the sum is made not finite: the first element of its last
/// row, which no entry has, becomes NaN, and [`NonFinite`](crate::NonFinite) says what follows. By default the step is left out,
/// and the report names the tensor. Nothing is read or written out of bounds. [`Coalescer::rows`] tells how many there were.
///
/// ```no_run
/// # fn run(device: &gradclip::wgpu::Device, queue: &gradclip::wgpu::Queue, table: &gradclip::wgpu::Buffer,
/// #        tokens: &gradclip::wgpu::Buffer, values: &gradclip::wgpu::Buffer, w: &gradclip::wgpu::Buffer,
/// #        dw: &gradclip::wgpu::Buffer) -> Result<(), Box<dyn std::error::Error>> {
/// use gradclip::{Adam, Clip, Clipper, DType, Grad, SparseGrad};
///
/// let clipper = Clipper::new(device)?;
/// // 4,096 tokens of a vocabulary of 50,257, with 768 numbers each.
/// let embedding = SparseGrad::new("wte", tokens, values, 4096, [50_257, 768]);
/// let embedding = clipper.prepare_coalescing(&embedding)?;
/// let grads = [
///     embedding.grad().parameter(table, 0, DType::F32),
///     Grad::new("w", dw).parameter(w, 0, DType::F32),
/// ];
/// let stepper = clipper.prepare_step(&grads, &Clip::global_norm(1.0), Adam::new(1e-3))?;
/// let mut encoder = device.create_command_encoder(&Default::default());
/// // … forward and backward …
/// embedding.record(&mut encoder);
/// stepper.record_step(&mut encoder);
/// queue.submit([encoder.finish()]);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Coalescer {
    grad: Grad,
    rows: wgpu::Buffer,
    /// What is 0 before each step: how often each row occurs, sums of long lists.
    cleared: [wgpu::Buffer; 2],
    steps: Vec<Step>,
}

impl Clipper {
    /// As [`Clipper::prepare_coalescing`], in the form of [`Clipper::prepare_async`].
    ///
    /// # Errors
    ///
    /// As [`Clipper::prepare_coalescing`].
    pub async fn prepare_coalescing_async(&self, sparse: &SparseGrad) -> Result<Coalescer, PrepareError> {
        let mut buffers = Buffers::default();
        let entries = entries(sparse, &mut buffers)?;
        let plan = CoalescePlan::new(&entries, &self.limits)?;
        let (required, given) = (entries.added() * entries.width * 4, self.device.limits().max_buffer_size);
        if required > given {
            return Err(PrepareError::BufferSize { tensor: sparse.name.clone(), required, given });
        }
        self.ready("preparing a sparse gradient", || {
            Coalescer::assembled(self, sparse, &buffers.all, &plan, &entries)
        })
        .await
    }
}

impl Coalescer {
    fn assembled(
        clipper: &Clipper,
        sparse: &SparseGrad,
        buffers: &[wgpu::Buffer],
        plan: &CoalescePlan,
        entries: &Entries,
    ) -> Result<(Coalescer, Wanted), PrepareError> {
        let mut make = Make::new(clipper, buffers, &Clip::measure());
        let (shape, read) = ([entries.added(), entries.width], Usage::STORAGE | Usage::COPY_SRC);
        let len = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
        let added =
            make.empty::<u32>("gradclip added rows", len(shape[0] * shape[1]), read | Usage::COPY_DST);
        let rows = make.empty::<u32>("gradclip named rows", len(shape[0] + u64::from(LIST_HEADER)), read);
        let table = match plan.indices {
            Some(_) => len(entries.rows + 1),
            None => 0,
        };
        let table = make.empty::<u32>("gradclip rows of a table", table, Usage::STORAGE | Usage::COPY_DST);
        let long =
            make.empty::<LongSum>("gradclip long sums", plan.long_sums(), Usage::STORAGE | Usage::COPY_DST);
        let steps = make.coalescing(plan, sparse.dtype, [&table, &long, &rows, &added])?;
        let of = [entries.rows, entries.width];
        let grad = Grad::range(&sparse.name, &added, 0, shape[0] * shape[1]).shape(&shape).of_rows(of, &rows);
        Ok((Coalescer { grad, rows, cleared: [table, long], steps }, make.wanted))
    }

    /// Records the addition.
    pub fn record(&self, encoder: &mut wgpu::CommandEncoder) {
        if !self.steps.is_empty() {
            self.cleared.iter().for_each(|buffer| encoder.clear_buffer(buffer, 0, None));
            run(&self.steps, &mut begin(encoder, "gradclip coalesce"));
        }
    }

    /// The sum as a gradient of `f32`, of the shape [min(entries, rows + 1), width]: the rows named, in the order of
    /// [`Coalescer::rows`], and zeros, which change no norm. Its buffer has usages `STORAGE | COPY_SRC | COPY_DST`. Group, rates and
    /// decay are set as of any other gradient.
    ///
    /// [`Grad::parameter`] and [`Grad::moment`] name the whole table, of `f32`, and its moments. A step moves the rows named, each by its own
    /// sum, and leaves every bit of others, their moments included: the lazy steps of PyTorch's SparseAdam and TensorFlow's LazyAdam,
    /// with the corrections of all steps so far. As in these, Adam's eps is then added before the second moment is corrected
    /// ([`Adam::eps_hat`](crate::Adam::eps_hat)), whatever dense tensors of the same step have. Weight decay is that of the rows named.
    ///
    /// AMSGrad's three moments take nine storage buffers a stage, one more than every device has.
    ///
    /// Sums of micro-batches have other rows each time: put the entries of all of them one after the other instead of
    /// an [`Accumulator`](crate::Accumulator), which refuses them.
    pub fn grad(&self) -> Grad {
        self.grad.clone()
    }

    /// The rows that the last step named, as words on the device: how many there are, how many entries were left out, and from the
    /// third word on the rows, ascending. Usages `STORAGE | COPY_SRC`.
    pub fn rows(&self) -> &wgpu::Buffer {
        &self.rows
    }

    /// Number of dispatches that one [`Coalescer::record`] records, besides clearing two buffers: five for at most 128 entries, else
    /// eight; and one or two more for each further binding's worth of added rows.
    pub fn dispatch_count(&self) -> usize {
        self.steps.len()
    }
}

impl Make<'_> {
    /// The kernels in order: how often rows occur, which do, where their entries are, and their sums.
    fn coalescing(
        &mut self,
        plan: &CoalescePlan,
        dtype: DType,
        [table, long, rows, added]: [&wgpu::Buffer; 4],
    ) -> Result<Vec<Step>, PrepareError> {
        let Some(indices) = &plan.indices else { return Ok(Vec::new()) };
        let sizes = self.table("gradclip sizes", &[plan.sizes], Coalescing::zeroed(), Usage::UNIFORM)?;
        let all = self.table("gradclip entries", &[plan.sizes.entries], 0, Usage::STORAGE)?;
        let blocks = self.empty::<[u32; 2]>("gradclip blocks", plan.blocks as usize, Usage::STORAGE);
        let starts = self.empty::<u32>("gradclip lists", plan.sizes.added as usize + 1, Usage::STORAGE);
        let lists = self.empty::<u32>("gradclip entries", plan.sizes.entries as usize, Usage::STORAGE);
        let [sizes, table, long, rows, blocks, starts, lists] =
            [&sizes, table, long, rows, &blocks, &starts, &lists].map(Table::from);
        let buffers = self.buffers;
        let indices = Table::window(&buffers[indices.buffer], indices);
        let count = plan.count.as_ref();
        let count = count.map_or(Table::from(&all), |count| Table::window(&buffers[count.buffer], count));
        let (of_entries, of_blocks) = (plan.entry_grid, plan.block_grid);
        let job = Job { rows: plan.blocks, ..self.job };
        let all: [(Kernel, &[Table<'_>], [u32; 2]); 4] = [
            (Kernel::CoalesceCount, &[sizes, indices, count, table], of_entries),
            (Kernel::CoalesceBlocks, &[sizes, table, blocks], of_blocks),
            (Kernel::CoalescePlaces, &[sizes, blocks, table, rows, starts], of_blocks),
            (Kernel::CoalesceLists, &[sizes, indices, count, table, lists], of_entries),
        ];
        let mut steps = Vec::new();
        for (kernel, tables, grid) in all {
            steps.push(self.step(kernel, DType::F32, job, tables, None, grid)?);
        }
        let (values, tables) = ((dtype, &plan.values[..]), [sizes, rows, starts, lists, long]);
        for kernel in [Kernel::CoalesceLongTops, Kernel::CoalesceLongSums] {
            let long = plan.long_grid.map(|grid| self.step_reading(kernel, values, job, &tables, grid));
            steps.extend(long.transpose()?);
        }
        for part in &plan.added {
            let job = Job { first_row: part.first, rows: part.len, ..self.job };
            let added = Table::window(added, &part.window);
            let tables = [sizes, rows, starts, lists, added];
            steps.push(self.step_reading(Kernel::CoalesceAdd, values, job, &tables, part.grid)?);
            if let Some(grid) = plan.long_grid {
                let tables = [sizes, rows, starts, long, added];
                steps.push(self.step(Kernel::CoalesceLongRows, DType::F32, job, &tables, None, grid)?);
            }
        }
        Ok(steps)
    }
}

/// Where a sparse gradient lies, as a plan sees it.
fn entries(sparse: &SparseGrad, buffers: &mut Buffers) -> Result<Entries, PrepareError> {
    let SparseGrad { name, entries, dtype, table: [rows, width], .. } = sparse;
    let mut placed = |what: &str, (buffer, offset): &(wgpu::Buffer, u64), elements: u64, dtype: DType| {
        if elements > 0 && !buffer.usage().contains(Usage::STORAGE) {
            return Err(PrepareError::Usage { tensor: format!("{name} ({what})"), given: buffer.usage() });
        }
        let at =
            Placement { name: format!("{name} ({what})"), elements, dtype, ..buffers.at(buffer, *offset) };
        Ok(at)
    };
    let count = sparse.count.as_ref().map(|at| placed("number of entries", at, 1, DType::F32));
    Ok(Entries {
        indices: placed("indices", &sparse.indices, *entries, DType::F32)?,
        count: count.transpose()?,
        values: placed("values", &sparse.values, entries.saturating_mul(*width), *dtype)?,
        rows: *rows,
        width: *width,
    })
}
