//! Gradients in host memory.

use std::sync::Arc;

use half::{bf16, f16};
use ndarray::{ArrayViewMut, ArrayViewMutD, Dimension};

use crate::clip::Kind;
use crate::grad::DType;
use crate::layout::{CHUNK, Outcome, Partial};

use super::apply;
use super::element::Element;
use super::reduce::{self, Scratch};

/// One named gradient in host memory: a slice, or an ndarray view of any layout.
#[derive(Debug)]
pub struct GradMut<'a> {
    name: Arc<str>,
    data: Data<'a>,
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
}

/// `$body` with `$elements` bound to the slice of a [`Block`], whatever its element type.
macro_rules! with_elements {
    ($block:expr, $elements:ident => $body:expr) => {
        match $block {
            Block::F32($elements) => $body,
            Block::F16($elements) => $body,
            Block::Bf16($elements) => $body,
        }
    };
}

impl<'a> GradMut<'a> {
    /// A slice of `f32`.
    pub fn new(name: impl Into<Arc<str>>, elements: &'a mut [f32]) -> GradMut<'a> {
        GradMut { name: name.into(), data: Data::Slice(Block::F32(elements)) }
    }

    /// A slice of `f16`. Norms are summed exactly from its bits; a clipped element is multiplied in
    /// `f32` and rounded once.
    pub fn f16(name: impl Into<Arc<str>>, elements: &'a mut [f16]) -> GradMut<'a> {
        GradMut { name: name.into(), data: Data::Slice(Block::F16(elements)) }
    }

    /// A slice of `bf16`, as [`GradMut::f16`].
    pub fn bf16(name: impl Into<Arc<str>>, elements: &'a mut [bf16]) -> GradMut<'a> {
        GradMut { name: name.into(), data: Data::Slice(Block::Bf16(elements)) }
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
        let name = name.into();
        if view.is_standard_layout() {
            // Standard layout is one slice in logical order.
            if let Some(elements) = view.into_slice() {
                return GradMut::new(name, elements);
            }
            return GradMut::new(name, &mut []);
        }
        GradMut { name, data: Data::View(view.into_dyn()) }
    }

    /// The tensor's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its elements in one piece: borrowed where they lie so, else copied.
    pub(crate) fn contiguous(&mut self) -> Contiguous<'_, 'a> {
        let elements = match &mut self.data {
            Data::Slice(block) => Elements::Borrowed(with_elements!(block, e => Element::block(&mut e[..]))),
            Data::View(view) => {
                let copy = view.iter().copied().collect();
                Elements::Copied { copy, changed: false, view }
            }
        };
        Contiguous { name: self.name.clone(), elements }
    }
}

/// A tensor whose elements lie in one piece.
pub(crate) struct Contiguous<'s, 'a> {
    name: Arc<str>,
    elements: Elements<'s, 'a>,
}

enum Elements<'s, 'a> {
    Borrowed(Block<'s>),
    Copied { copy: Vec<f32>, changed: bool, view: &'s mut ArrayViewMutD<'a, f32> },
}

impl Contiguous<'_, '_> {
    pub(crate) fn name(&self) -> Arc<str> {
        self.name.clone()
    }

    pub(crate) fn dtype(&self) -> DType {
        match &self.elements {
            Elements::Borrowed(block) => block.dtype(),
            Elements::Copied { .. } => DType::F32,
        }
    }

    pub(crate) fn elements(&self) -> usize {
        match &self.elements {
            Elements::Borrowed(block) => with_elements!(block, e => e.len()),
            Elements::Copied { copy, .. } => copy.len(),
        }
    }

    /// The bytes of all elements.
    pub(crate) fn bytes(&self) -> &[u8] {
        match &self.elements {
            Elements::Borrowed(block) => with_elements!(block, e => bytemuck::cast_slice(e)),
            Elements::Copied { copy, .. } => bytemuck::cast_slice(copy),
        }
    }

    /// Overwrites all elements with bytes of the same number.
    pub(crate) fn set_bytes(&mut self, bytes: &[u8]) {
        match &mut self.elements {
            Elements::Borrowed(block) => {
                with_elements!(block, e => bytemuck::cast_slice_mut::<_, u8>(e).copy_from_slice(bytes));
            }
            Elements::Copied { copy, changed, .. } => {
                bytemuck::cast_slice_mut::<_, u8>(copy).copy_from_slice(bytes);
                *changed = true;
            }
        }
    }

    /// The partial of the chunk that begins at element `first`.
    pub(crate) fn reduce(&self, first: usize, kind: Kind, scratch: &mut Scratch) -> Partial {
        fn chunk<T>(elements: &[T], first: usize) -> &[T] {
            &elements[first..elements.len().min(first + CHUNK as usize)]
        }
        match &self.elements {
            Elements::Borrowed(block) => {
                with_elements!(block, e => reduce::reduce(chunk(e, first), kind, scratch))
            }
            Elements::Copied { copy, .. } => reduce::reduce(chunk(copy, first), kind, scratch),
        }
    }

    /// The elements in blocks of `len`, to be changed.
    pub(crate) fn blocks_mut(&mut self, len: usize) -> Box<dyn Iterator<Item = Block<'_>> + '_> {
        match &mut self.elements {
            Elements::Borrowed(block) => {
                with_elements!(block, e => Box::new(e.chunks_mut(len).map(Element::block)))
            }
            Elements::Copied { copy, changed, .. } => {
                *changed = true;
                Box::new(copy.chunks_mut(len).map(Block::F32))
            }
        }
    }

    /// Puts copied elements back where they came from, if they were changed.
    pub(crate) fn write_back(self) {
        if let Elements::Copied { copy, changed: true, view } = self.elements {
            view.iter_mut().zip(copy).for_each(|(to, from)| *to = from);
        }
    }
}

impl Block<'_> {
    pub(crate) fn dtype(&self) -> DType {
        match self {
            Block::F32(_) => DType::F32,
            Block::F16(_) => DType::F16,
            Block::Bf16(_) => DType::Bf16,
        }
    }

    pub(crate) fn apply(self, outcome: &Outcome) {
        with_elements!(self, e => apply::apply(e, outcome));
    }
}
