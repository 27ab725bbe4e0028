//! What a clip that ends in a step or a sum has of its pass, in one place for all of them.

/// The methods of [`Pass`](super::Pass) that hold for whatever ends it: what is set, and what comes back.
macro_rules! shares_pass {
    ($end:ident) => {
        impl $end {
            /// The clip by itself, for its buffers and counts. Recording it measures and decides as a step of its own, counted and
            /// remembered by thresholds and loss scale, and writes neither gradients nor what follows.
            pub fn pass(&self) -> &Pass {
                &self.pass
            }

            /// As [`Pass::read_back`].
            ///
            /// # Errors
            ///
            /// As [`Pass::read_back`].
            pub fn read_back(&self, encoder: &mut wgpu::CommandEncoder) -> Result<ReadBack, ReadBackError> {
                self.pass.read_back(encoder)
            }

            /// As [`Pass::progress`].
            pub fn progress(&self) -> &wgpu::Buffer {
                self.pass.progress()
            }

            /// As [`Pass::tally`].
            pub fn tally(&self) -> &wgpu::Buffer {
                self.pass.tally()
            }

            /// As [`Pass::inputs`].
            pub fn inputs(&self) -> &wgpu::Buffer {
                self.pass.inputs()
            }

            /// As [`Pass::outcomes`].
            pub fn outcomes(&self) -> &wgpu::Buffer {
                self.pass.outcomes()
            }

            /// As [`Pass::set_threshold`].
            ///
            /// # Errors
            ///
            /// As [`Pass::set_threshold`].
            pub fn set_threshold(&self, queue: &wgpu::Queue, threshold: f32) -> Result<(), ClipError> {
                self.pass.set_threshold(queue, threshold)
            }

            /// As [`Pass::set_thresholds`].
            ///
            /// # Errors
            ///
            /// As [`Pass::set_thresholds`].
            pub fn set_thresholds(&self, queue: &wgpu::Queue, thresholds: &[f32]) -> Result<(), ClipError> {
                self.pass.set_thresholds(queue, thresholds)
            }

            /// As [`Pass::set_total`].
            ///
            /// # Errors
            ///
            /// As [`Pass::set_total`].
            pub fn set_total(&self, queue: &wgpu::Queue, threshold: f32) -> Result<(), ClipError> {
                self.pass.set_total(queue, threshold)
            }

            /// As [`Pass::set_unscale`].
            ///
            /// # Errors
            ///
            /// As [`Pass::set_unscale`].
            pub fn set_unscale(&self, queue: &wgpu::Queue, unscale: f32) -> Result<(), ClipError> {
                self.pass.set_unscale(queue, unscale)
            }

            /// As [`Pass::set_rows`].
            ///
            /// # Errors
            ///
            /// As [`Pass::set_rows`].
            pub fn set_rows(&self, queue: &wgpu::Queue, rows: u64) -> Result<(), ClipError> {
                self.pass.set_rows(queue, rows)
            }

            /// As [`Pass::save_history`].
            ///
            /// # Errors
            ///
            /// As [`Pass::save_history`].
            #[cfg(not(target_arch = "wasm32"))]
            pub fn save_history(
                &self,
                encoder: &mut wgpu::CommandEncoder,
            ) -> Result<ReadBack<History>, PrepareError> {
                self.pass.save_history(encoder)
            }

            /// As [`Pass::save_history_async`].
            ///
            /// # Errors
            ///
            /// As [`Pass::save_history_async`].
            pub async fn save_history_async(
                &self,
                encoder: &mut wgpu::CommandEncoder,
            ) -> Result<ReadBack<History>, PrepareError> {
                self.pass.save_history_async(encoder).await
            }

            /// As [`Pass::restore_history`].
            ///
            /// # Errors
            ///
            /// As [`Pass::restore_history`].
            pub fn restore_history(&self, queue: &wgpu::Queue, history: &History) -> Result<(), ClipError> {
                self.pass.restore_history(queue, history)
            }
        }
    };
}

pub(super) use shares_pass;
