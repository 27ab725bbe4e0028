//! Gradients in host memory.

use std::sync::Arc;

use half::{bf16, f16};
use ndarray::{ArrayViewMut, ArrayViewMutD, Dimension};

use crate::clip::Kind;
use crate::grad::{DType, Group};
use crate::layout::{CHUNK, Outcome, Partial};
use crate::segments::{TensorInfo, UnitView};

use super::contiguous::{Contiguous, Elements};
use super::joint::{Action, Target};
use super::reduce::{self, Scratch};
use super::{apply, double, units, update};

/// One named gradient in host memory: a slice, or an ndarray view of any layout.
#[derive(Debug)]
pub struct GradMut<'a> {
    name: Arc<str>,
    data: Data<'a>,
    shape: Option<Box<[u64]>>,
    group: Option<Group>,
    parameter: Option<Slice<'a>>,
}

/// A run of elements that is only read, in row-major order.
#[derive(Clone, Copy, Debug)]
pub struct Slice<'a> {
    pub(super) data: Values<'a>,
}

/// A run of elements that is only read.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Values<'a> {
    F32(&'a [f32]),
    F16(&'a [f16]),
    Bf16(&'a [bf16]),
    F64(&'a [f64]),
}

impl<'a> From<&'a [f32]> for Slice<'a> {
    fn from(elements: &'a [f32]) -> Self {
        Slice { data: Values::F32(elements) }
    }
}

impl<'a> From<&'a [f16]> for Slice<'a> {
    fn from(elements: &'a [f16]) -> Self {
        Slice { data: Values::F16(elements) }
    }
}

impl<'a> From<&'a [bf16]> for Slice<'a> {
    fn from(elements: &'a [bf16]) -> Self {
        Slice { data: Values::Bf16(elements) }
    }
}

impl<'a> From<&'a [f64]> for Slice<'a> {
    fn from(elements: &'a [f64]) -> Self {
        Slice { data: Values::F64(elements) }
    }
}

#[derive(Debug)]
enum Data<'a> {
    Slice(Block<'a>),
    View(ArrayViewMutD<'a, f32>),
}

/// A mutable run of elements.
#[derive(Debug)]
pub(crate) enum Block<'a> {
    F32(&'a mut [f32]),
    F16(&'a mut [f16]),
    Bf16(&'a mut [bf16]),
    F64(&'a mut [f64]),
}

/// A run of elements that is written, in row-major order.
#[derive(Debug)]
pub struct SliceMut<'a> {
    pub(super) block: Block<'a>,
}

macro_rules! slice_mut_from {
    ($($element:ty => $variant:ident),+) => {
        $(impl<'a> From<&'a mut [$element]> for SliceMut<'a> {
            fn from(elements: &'a mut [$element]) -> Self {
                SliceMut { block: Block::$variant(elements) }
            }
        })+
    };
}
slice_mut_from!(f32 => F32, f16 => F16, bf16 => Bf16, f64 => F64);

/// `$body` with `$elements` bound to the slice of a [`Block`] or of [`Values`], whatever its type; or for
/// types that an `f32` holds alone, with what else there is instead.
macro_rules! with_elements {
    ($block:expr, $elements:ident => $body:expr) => {
        with_elements!(Block, $block, $elements => $body)
    };
    ($of:ident, $block:expr, $elements:ident => $body:expr) => {
        with_elements!($of, $block, $elements => $body, $elements => $body)
    };
    ($of:ident, $block:expr, $elements:ident => $body:expr, $double:ident => $other:expr) => {
        match $block {
            $of::F32($elements) => $body,
            $of::F16($elements) => $body,
            $of::Bf16($elements) => $body,
            $of::F64($double) => $other,
        }
    };
}

pub(super) use with_elements;

fn whole<'a, E>(elements: &'a mut &mut [E]) -> Block<'a>
where
    SliceMut<'a>: From<&'a mut [E]>,
{
    SliceMut::from(&mut **elements).block
}

/// Sets with `f64` among them go to [`super::double`] as a whole, before they come to the kernels of `f32`.
fn not_here<T: Default>() -> T {
    debug_assert!(false, "f64 in a kernel of f32");
    T::default()
}

impl<'a> GradMut<'a> {
    /// A slice of `f32`.
    pub fn new(name: impl Into<Arc<str>>, elements: &'a mut [f32]) -> GradMut<'a> {
        GradMut::of(name.into(), Data::Slice(Block::F32(elements)))
    }

    /// A slice of `f16`. Norms are summed exactly from its bits; a clipped element is multiplied in
    /// `f32` and rounded once.
    pub fn f16(name: impl Into<Arc<str>>, elements: &'a mut [f16]) -> GradMut<'a> {
        GradMut::of(name.into(), Data::Slice(Block::F16(elements)))
    }

    /// A slice of `bf16`, as [`GradMut::f16`].
    pub fn bf16(name: impl Into<Arc<str>>, elements: &'a mut [bf16]) -> GradMut<'a> {
        GradMut::of(name.into(), Data::Slice(Block::Bf16(elements)))
    }

    /// A slice of `f64`, for the CPU path alone. A set in which one tensor or parameter is of `f64` is
    /// measured and clipped in `f64` as a whole: norms within 0.65 ulp of an `f64`, thresholds and
    /// coefficients the [`Clip`](crate::Clip)'s own `f64`.
    pub fn f64(name: impl Into<Arc<str>>, elements: &'a mut [f64]) -> GradMut<'a> {
        GradMut::of(name.into(), Data::Slice(Block::F64(elements)))
    }

    fn of(name: Arc<str>, data: Data<'a>) -> GradMut<'a> {
        GradMut { name, data, shape: None, group: None, parameter: None }
    }

    /// Sets the shape, row-major, for scopes that cut tensors into units or rows. A view has one.
    #[must_use]
    pub fn shape(self, shape: &[u64]) -> GradMut<'a> {
        GradMut { shape: Some(shape.into()), ..self }
    }

    /// Puts the tensor into a group.
    #[must_use]
    pub fn group(self, group: &Group) -> GradMut<'a> {
        GradMut { group: Some(group.clone()), ..self }
    }

    /// Names the parameters that this is the gradient of: a slice of as many elements.
    /// [`Rule::Agc`](crate::Rule::Agc) needs them.
    #[must_use]
    pub fn parameter(self, parameter: impl Into<Slice<'a>>) -> GradMut<'a> {
        GradMut { parameter: Some(parameter.into()), ..self }
    }

    /// An ndarray view. Elements count in logical (row-major) order whatever the strides; a view
    /// that is not in standard layout is copied, and written back when it is clipped.
    ///
    /// ```
    /// use gradclip::{Clip, cpu::{self, GradMut}};
    /// use ndarray::array;
    ///
    /// let mut weights = array![[3.0, 0.0], [0.0, 4.0f32]];
    /// let mut grads = [GradMut::view("weights", weights.view_mut().reversed_axes())];
    /// cpu::clip(&mut grads, &Clip::global_norm(1.0))?;
    /// assert_eq!(weights, array![[0.6, 0.0], [0.0, 0.8f32]]);
    /// # Ok::<(), gradclip::ClipError>(())
    /// ```
    pub fn view<D: Dimension>(name: impl Into<Arc<str>>, view: ArrayViewMut<'a, f32, D>) -> GradMut<'a> {
        let shape: Vec<u64> = view.shape().iter().map(|&n| n as u64).collect();
        let data = match view.is_standard_layout() {
            // Standard layout is one slice in logical order.
            true => Data::Slice(Block::F32(view.into_slice().unwrap_or_default())),
            false => Data::View(view.into_dyn()),
        };
        GradMut::of(name.into(), data).shape(&shape)
    }

    /// The tensor's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What is known of it before anything is measured.
    pub(crate) fn info(&self) -> TensorInfo {
        let (dtype, elements) = match &self.data {
            Data::Slice(block) => (block.dtype(), with_elements!(block, e => e.len())),
            Data::View(view) => (DType::F32, view.len()),
        };
        TensorInfo {
            name: self.name.clone(),
            dtype,
            elements: elements as u64,
            shape: self.shape.clone(),
            group: self.group.clone(),
            has_parameter: self.parameter.is_some(),
        }
    }

    /// The parameters, if there are any.
    pub(crate) fn values(&self) -> Option<Values<'a>> {
        self.parameter.as_ref().map(|p| p.data)
    }

    /// Its elements in one piece: borrowed where they lie so, else copied.
    pub(crate) fn contiguous(&mut self) -> Contiguous<'_, 'a> {
        let elements = match &mut self.data {
            Data::Slice(block) => Elements::Borrowed(with_elements!(block, e => whole(e))),
            Data::View(view) => {
                let copy = view.iter().copied().collect();
                Elements::Copied { copy, view }
            }
        };
        Contiguous::new(elements)
    }
}

impl<'a> Values<'a> {
    pub(crate) fn len(&self) -> usize {
        with_elements!(Values, self, e => e.len())
    }

    pub(crate) fn dtype(&self) -> DType {
        match self {
            Values::F32(_) => DType::F32,
            Values::F16(_) => DType::F16,
            Values::Bf16(_) => DType::Bf16,
            Values::F64(_) => DType::F64,
        }
    }

    /// The bytes of all elements.
    pub(crate) fn bytes(&self) -> &[u8] {
        with_elements!(Values, self, e => bytemuck::cast_slice(e))
    }

    /// `len` elements from element `at` on.
    pub(crate) fn range(&self, at: usize, len: usize) -> Values<'a> {
        match self {
            Values::F32(e) => Values::F32(&e[at..at + len]),
            Values::F16(e) => Values::F16(&e[at..at + len]),
            Values::Bf16(e) => Values::Bf16(&e[at..at + len]),
            Values::F64(e) => Values::F64(&e[at..at + len]),
        }
    }

    /// Moves a parameter or adds to an accumulator.
    pub(super) fn act(&self, outcome: &Outcome, action: &Action, target: Target<'_>) {
        with_elements!(Values, self, e => update::act(e, outcome, action, target), _e => not_here());
    }

    /// The chunk that begins at element `first`, empty past the end.
    pub(crate) fn chunk(&self, first: u64) -> Values<'a> {
        let at = first.min(self.len() as u64) as usize;
        self.range(at, (self.len() - at).min(CHUNK as usize))
    }

    /// The partial of a chunk; `next` is what will be read after it.
    pub(crate) fn reduce(&self, next: Values<'_>, kind: Kind, scratch: &mut Scratch) -> Partial {
        let next = next.bytes().as_chunks().0;
        with_elements!(Values, self, e => reduce::reduce(e, next, kind, scratch), _e => not_here())
    }

    /// The partials of one chunk of each of the units in a range.
    pub(crate) fn reduce_units(
        &self,
        view: &UnitView,
        chunk: u64,
        range: (u64, u64),
        kind: Kind,
        scratch: &mut Scratch,
        partials: &mut [Partial],
    ) {
        with_elements!(
            Values,
            self,
            e => units::reduce(e, view, chunk, range, kind, scratch, partials),
            _e => not_here()
        );
    }
}

impl<'a> Block<'a> {
    /// Hands out the elements in blocks of `len`.
    pub(crate) fn each(self, len: usize, mut take: impl FnMut(Block<'a>)) {
        with_elements!(self, e => e.chunks_mut(len).for_each(|own| take(SliceMut::from(own).block)));
    }
}

impl Block<'_> {
    /// The same elements, for a while.
    pub(crate) fn again(&mut self) -> Block<'_> {
        with_elements!(Block, self, e => whole(e))
    }

    pub(crate) fn values(&self) -> Values<'_> {
        match self {
            Block::F32(e) => Values::F32(e),
            Block::F16(e) => Values::F16(e),
            Block::Bf16(e) => Values::Bf16(e),
            Block::F64(e) => Values::F64(e),
        }
    }

    pub(crate) fn len(&self) -> usize {
        with_elements!(Block, self, e => e.len())
    }

    pub(crate) fn dtype(&self) -> DType {
        match self {
            Block::F32(_) => DType::F32,
            Block::F16(_) => DType::F16,
            Block::Bf16(_) => DType::Bf16,
            Block::F64(_) => DType::F64,
        }
    }

    pub(crate) fn apply(&mut self, outcome: &Outcome) {
        with_elements!(Block, self, e => apply::apply(e, outcome), e => double::apply_single(e, outcome));
    }

    /// As [`Block::apply`], with the outcome of each element's unit; the first of them is element
    /// `first` of its tensor.
    pub(crate) fn apply_units(&mut self, first: u64, view: &UnitView, outcomes: &[Outcome]) {
        with_elements!(
            Block,
            self,
            e => apply::apply_units(e, first, view, outcomes),
            e => double::apply_single_units(e, first, view, outcomes)
        );
    }
}
