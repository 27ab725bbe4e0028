//! The methods that a clip in place and a clip with a step share.

/// For a type with an `engine` behind a lock.
macro_rules! shares_engine {
    ($type:ident) => {
        impl $type {
            /// Puts parameters into groups by their path in the model, such as `layers.0.weight`. Asked whenever a
            /// pass is prepared, not at every step: the answer should depend on the path alone.
            ///
            /// [`Group::excluded`](crate::Group::excluded) leaves parameters out of every norm, in every scope: they are
            /// measured and unscaled, never clipped. A group with a threshold has it under
            /// [`Scope::Group`](crate::Scope::Group), where it shares one norm, and for each tensor or unit under the
            /// scopes of these; it is refused where tensors of several groups would share a norm.
            ///
            /// ```no_run
            /// # use gradclip_burn::{Clip, Clipper, Group};
            /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
            /// # let (device, setup) = burn::tensor::Device::wgpu_options().init_with_setup()?;
            /// let clipper = Clipper::new(&device, &setup, Clip::global_norm(1.0))?
            ///     .groups(|path| path.ends_with("bias").then(|| Group::excluded("biases")));
            /// # Ok(())
            /// # }
            /// ```
            #[must_use]
            pub fn groups(self, group_of: impl Fn(&str) -> Option<Group> + Send + Sync + 'static) -> $type {
                self.lock().passes.set_groups(Box::new(group_of));
                self
            }

            /// Cuts each parameter into units by what it is a field of: see [`output_axis`](crate::output_axis). For clips
            /// with units, [`Clip::agc`] and [`Clip::per_unit_norm`]; what is of another kind is cut as these say. Vectors
            /// are one unit each.
            ///
            /// ```no_run
            /// # use gradclip_burn::{Clip, Clipper, Units};
            /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
            /// # let (device, setup) = burn::tensor::Device::wgpu_options().init_with_setup()?;
            /// let clipper = Clipper::new(&device, &setup, Clip::agc(0.01, Units::OutputFirst))?.units_by_module();
            /// # Ok(())
            /// # }
            /// ```
            #[must_use]
            pub fn units_by_module(self) -> $type {
                self.units_by(|parameter| crate::output_axis(parameter.module))
            }

            /// Cuts each parameter into units along the axis that a function gives, which counts outputs: a norm is over
            /// all others. `None` cuts as the clip says. Asked whenever a pass is prepared.
            ///
            /// A clip fails with [`Error::Units`] where a parameter has no such axis, or where the clip says
            /// [`Units::Over`](crate::Units::Over) and the function nothing.
            #[must_use]
            pub fn units_by(
                self,
                axis_of: impl Fn(&Parameter<'_>) -> Option<usize> + Send + Sync + 'static,
            ) -> $type {
                self.lock().passes.set_output_axes(Box::new(axis_of));
                self
            }

            /// Sends no reports to the host: `poll` gives none then. Saves a copy of a few bytes a tensor at every
            /// step.
            #[must_use]
            pub fn without_telemetry(self) -> $type {
                self.lock().telemetry = None;
                self
            }

            /// Changes the clip's threshold from the next call on. Groups with a threshold of their own keep it,
            /// excluded ones stay excluded; with groups it costs a preparation.
            ///
            /// # Errors
            ///
            /// One that is negative or NaN; nothing changes then.
            pub fn set_threshold(&self, threshold: f32) -> Result<(), Error> {
                self.lock().set_threshold(threshold)
            }

            /// Changes the factor that gradients are multiplied by first, from the next call on: one over the number of
            /// micro-batches that were added up, for one.
            ///
            /// # Errors
            ///
            /// One that is not positive and finite, and any but 1 where `f16` gradients were clipped in place and
            /// [`Clip::lossy_unscale`] does not allow it; nothing changes then.
            pub fn set_unscale(&self, unscale: f32) -> Result<(), Error> {
                self.lock().set_unscale(unscale)
            }

            /// The next report that has arrived, of a step a few before the latest: never waits. Where reports are
            /// not taken, newer ones are dropped.
            ///
            /// # Errors
            ///
            /// A device that was lost.
            pub fn poll(&self) -> Option<Result<Report, ReadBackError>> {
                self.lock().poll()
            }

            /// How many reports were dropped because too many were on their way.
            pub fn dropped(&self) -> u64 {
                self.lock().dropped()
            }

            /// What the latest call did. **Waits** until the device has run everything submitted, a training step
            /// as a rule: for tests and the end of an epoch; `poll` is for every step.
            ///
            /// # Errors
            ///
            /// [`Error::NothingClipped`], or a device that was lost.
            pub fn report(&self) -> Result<Report, Error> {
                let report = self.lock().report()?;
                Ok(report.wait()?)
            }

            /// The factor of a clip with [`Clip::loss_scale`], as a tensor that follows it on the device: multiply
            /// the loss by it before `backward`. Ask for it again at every step.
            ///
            /// # Errors
            ///
            /// Where Burn cannot say where the new tensor lies.
            pub fn loss_scale(&self) -> Result<Tensor<1>, Error> {
                self.lock().loss_scale()
            }

            /// How often passes were prepared and found, and tensors copied.
            pub fn counts(&self) -> Counts {
                self.lock().passes.counts
            }

            fn lock(&self) -> MutexGuard<'_, Engine<Prepares>> {
                // What a panic left behind is what an error leaves: an engine whose next call prepares or finds its pass.
                self.engine.lock().unwrap_or_else(PoisonError::into_inner)
            }
        }

        impl std::fmt::Debug for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                let engine = self.lock();
                let mut shown = f.debug_struct(stringify!($type));
                shown
                    .field("device", &engine.device)
                    .field("clip", &engine.passes.clip)
                    .finish_non_exhaustive()
            }
        }
    };
}

pub(crate) use shares_engine;
