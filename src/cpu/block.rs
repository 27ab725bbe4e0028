//! Runs of elements of any type, read or written.

use half::{bf16, f16};

use crate::layout::CHUNK;
use crate::tensor::DType;

/// A run of elements that is only read.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Values<'a> {
    F32(&'a [f32]),
    F16(&'a [f16]),
    Bf16(&'a [bf16]),
    F64(&'a [f64]),
}

/// A mutable run of elements.
#[derive(Debug)]
pub(crate) enum Block<'a> {
    F32(&'a mut [f32]),
    F16(&'a mut [f16]),
    Bf16(&'a mut [bf16]),
    F64(&'a mut [f64]),
}

macro_rules! block_from {
    ($($element:ty => $variant:ident),+) => {
        $(impl<'a> From<&'a mut [$element]> for Block<'a> {
            fn from(elements: &'a mut [$element]) -> Self {
                Block::$variant(elements)
            }
        })+
    };
}
block_from!(f32 => F32, f16 => F16, bf16 => Bf16, f64 => F64);

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

/// Sets with `f64` among them go to [`super::double`] as a whole, before they come to the kernels of `f32`.
pub(super) fn not_here<T: Default>() -> T {
    debug_assert!(false, "f64 in a kernel of f32");
    T::default()
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

    /// The chunk that begins at element `first`, empty past the end.
    pub(crate) fn chunk(&self, first: u64) -> Values<'a> {
        let at = first.min(self.len() as u64) as usize;
        self.range(at, (self.len() - at).min(CHUNK as usize))
    }
}

impl<'a> Block<'a> {
    /// Hands out the elements in blocks of `len`.
    pub(crate) fn each(self, len: usize, mut take: impl FnMut(Block<'a>)) {
        with_elements!(self, e => e.chunks_mut(len).for_each(|own| take(Block::from(own))));
    }
}

impl Block<'_> {
    /// The same elements, for a while.
    pub(crate) fn again(&mut self) -> Block<'_> {
        with_elements!(Block, self, e => Block::from(&mut **e))
    }

    /// `len` elements from element `at` on.
    pub(crate) fn part(&mut self, at: usize, len: usize) -> Block<'_> {
        with_elements!(Block, self, e => Block::from(&mut e[at..at + len]))
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
}
