//! Gradients in host memory.

use std::sync::Arc;

use half::{bf16, f16};
#[cfg(feature = "ndarray")]
use ndarray::{ArrayViewMut, Dimension};

use crate::tensor::{DType, Group, TensorInfo};

use super::block::{Block, Values};
use super::contiguous::{Contiguous, Elements};
use super::view::View;

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

macro_rules! form_of {
    ($slice:ident, $field:ident) => {
        impl $slice<'_> {
            /// Number of elements.
            pub fn len(&self) -> usize {
                self.$field.len()
            }

            /// Whether there are none.
            pub fn is_empty(&self) -> bool {
                self.len() == 0
            }

            /// The element type.
            pub fn dtype(&self) -> DType {
                self.$field.dtype()
            }
        }
    };
}
form_of!(Slice, data);
form_of!(SliceMut, block);

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
    #[cfg_attr(not(feature = "ndarray"), expect(dead_code, reason = "made of ndarray views alone"))]
    View(View<'a>),
}

/// A run of elements that is written, in row-major order.
#[derive(Debug)]
pub struct SliceMut<'a> {
    pub(super) block: Block<'a>,
}

impl SliceMut<'_> {
    /// The same elements, only read.
    pub fn as_slice(&self) -> Slice<'_> {
        Slice { data: self.block.values() }
    }
}

macro_rules! slice_mut_from {
    ($($element:ty),+) => {
        $(impl<'a> From<&'a mut [$element]> for SliceMut<'a> {
            fn from(elements: &'a mut [$element]) -> Self {
                SliceMut { block: elements.into() }
            }
        })+
    };
}
slice_mut_from!(f32, f16, bf16, f64);

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

    /// A slice of any element type.
    pub fn slice(name: impl Into<Arc<str>>, elements: impl Into<SliceMut<'a>>) -> GradMut<'a> {
        GradMut::of(name.into(), Data::Slice(elements.into().block))
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
    #[cfg(feature = "ndarray")]
    pub fn view<D: Dimension>(name: impl Into<Arc<str>>, view: ArrayViewMut<'a, f32, D>) -> GradMut<'a> {
        let shape: Vec<u64> = view.shape().iter().map(|&n| n as u64).collect();
        let data = match view.is_standard_layout() {
            // Standard layout is one slice in logical order.
            true => Data::Slice(Block::F32(view.into_slice().unwrap_or_default())),
            false => Data::View(View(view.into_dyn())),
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
            Data::Slice(block) => (block.dtype(), block.len()),
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
            Data::Slice(block) => Elements::Borrowed(block.again()),
            Data::View(view) => Elements::Copied { copy: view.copied(), view },
        };
        Contiguous::new(elements)
    }
}

/// Runs with the elements of each gradient in one piece, and puts back what lies otherwise.
pub(super) fn in_one_piece<R>(grads: &mut [GradMut<'_>], run: impl FnOnce(&mut [Block<'_>]) -> R) -> R {
    let mut tensors: Vec<_> = grads.iter_mut().map(GradMut::contiguous).collect();
    let mut blocks: Vec<Block<'_>> = tensors.iter_mut().map(Contiguous::block).collect();
    let result = run(&mut blocks);
    tensors.into_iter().for_each(Contiguous::write_back);
    result
}
