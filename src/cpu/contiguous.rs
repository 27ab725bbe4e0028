//! Gradients in one piece: where they lie so, themselves, else a copy.

use super::block::Block;
#[cfg(all(feature = "session", not(target_arch = "wasm32")))]
use super::block::{Values, with_elements};
use super::view::View;

/// A tensor whose elements lie in one piece.
pub(crate) struct Contiguous<'s, 'a> {
    elements: Elements<'s, 'a>,
}

/// Where they lie.
pub(super) enum Elements<'s, 'a> {
    Borrowed(Block<'s>),
    Copied { copy: Vec<f32>, view: &'s mut View<'a> },
}

impl<'s, 'a> Contiguous<'s, 'a> {
    pub(super) fn new(elements: Elements<'s, 'a>) -> Contiguous<'s, 'a> {
        Contiguous { elements }
    }

    /// All elements.
    #[cfg(all(feature = "session", not(target_arch = "wasm32")))]
    pub(crate) fn values(&self) -> Values<'_> {
        match &self.elements {
            Elements::Borrowed(block) => block.values(),
            Elements::Copied { copy, .. } => Values::F32(copy),
        }
    }

    /// Overwrites all elements with bytes of the same number.
    #[cfg(all(feature = "session", not(target_arch = "wasm32")))]
    pub(crate) fn set_bytes(&mut self, bytes: &[u8]) {
        match &mut self.elements {
            Elements::Borrowed(block) => {
                with_elements!(block, e => bytemuck::cast_slice_mut::<_, u8>(e).copy_from_slice(bytes));
            }
            Elements::Copied { copy, .. } => {
                bytemuck::cast_slice_mut::<_, u8>(copy).copy_from_slice(bytes);
            }
        }
    }

    /// Its elements, to be changed.
    pub(crate) fn block(&mut self) -> Block<'_> {
        match &mut self.elements {
            Elements::Borrowed(block) => block.again(),
            Elements::Copied { copy, .. } => Block::F32(copy),
        }
    }

    /// Puts copied elements back where they came from, those that were changed.
    pub(crate) fn write_back(self) {
        if let Elements::Copied { copy, view } = self.elements {
            view.write_back(copy);
        }
    }
}
