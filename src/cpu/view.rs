//! Gradients whose elements do not lie one after another: ndarray views that are not in standard layout.

#[cfg(feature = "ndarray")]
pub(super) use of_ndarray::View;
#[cfg(not(feature = "ndarray"))]
pub(super) use without_ndarray::View;

#[cfg(feature = "ndarray")]
mod of_ndarray {
    use ndarray::ArrayViewMutD;

    #[derive(Debug)]
    pub(in crate::cpu) struct View<'a>(pub(in crate::cpu) ArrayViewMutD<'a, f32>);

    impl View<'_> {
        pub(in crate::cpu) fn len(&self) -> usize {
            self.0.len()
        }

        /// All elements, in logical order.
        pub(in crate::cpu) fn copied(&self) -> Vec<f32> {
            self.0.iter().copied().collect()
        }

        /// Puts elements back, those that were changed.
        pub(in crate::cpu) fn write_back(&mut self, elements: Vec<f32>) {
            for (to, from) in self.0.iter_mut().zip(elements) {
                if to.to_bits() != from.to_bits() {
                    *to = from;
                }
            }
        }
    }
}

/// Without ndarray there are none.
#[cfg(not(feature = "ndarray"))]
mod without_ndarray {
    use std::convert::Infallible;
    use std::marker::PhantomData;

    #[derive(Debug)]
    pub(in crate::cpu) struct View<'a>(Infallible, PhantomData<&'a mut f32>);

    impl View<'_> {
        pub(in crate::cpu) fn len(&self) -> usize {
            match self.0 {}
        }

        pub(in crate::cpu) fn copied(&self) -> Vec<f32> {
            match self.0 {}
        }

        pub(in crate::cpu) fn write_back(&mut self, _: Vec<f32>) {
            match self.0 {}
        }
    }
}
