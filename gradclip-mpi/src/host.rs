//! Clips and steps of the CPU path over ranks.

use gradclip::cpu::{self, GradMut, ParameterMut, Prepared, PreparedStep, Slice, SliceMut, StepMut};
use gradclip::{ClipError, DType, History, Optimizer, Report};
use half::{bf16, f16};

use crate::agree::Agreed;
use crate::error::Error;
use crate::pieces::Piece;
use crate::reduction::Reduction;
use crate::table::Tensor;

/// A clip on the CPU path over ranks: a [`Prepared`] whose sums are those of all of them.
///
/// [`HostClip::clip`] is a step. [`HostClip::measure`] and [`HostClip::apply`] are its halves, between which other work goes on: messages
/// are under way from one to the other, and [`HostClip::poll`] lets them get on.
#[derive(Debug)]
pub struct HostClip {
    agreed: Agreed,
    prepared: Prepared,
    reduction: Reduction,
    slices: Vec<Option<Slice<'static>>>,
    blocks: Vec<Option<SliceMut<'static>>>,
}

/// A clip and an optimiser's step on the CPU path over ranks: a [`PreparedStep`], as [`HostClip`] is a [`Prepared`].
#[derive(Debug)]
pub struct HostStep {
    agreed: Agreed,
    prepared: PreparedStep,
    reduction: Reduction,
    slices: Vec<Option<Slice<'static>>>,
    targets: Vec<Option<(Slice<'static>, ParameterMut<'static>)>>,
}

/// An empty vector in the place of another one, whose elements have the same size: the standard library collects in place.
fn recycled<T, U>(mut vector: Vec<T>) -> Vec<U> {
    vector.clear();
    vector.into_iter().filter_map(|_| None).collect()
}

/// No elements of a type.
fn nothing<'a>(dtype: DType) -> Slice<'a> {
    match dtype {
        DType::F16 => Slice::from(&[] as &[f16]),
        DType::Bf16 => Slice::from(&[] as &[bf16]),
        DType::F64 => Slice::from(&[] as &[f64]),
        _ => Slice::from(&[] as &[f32]),
    }
}

fn nothing_mut<'a>(dtype: DType) -> SliceMut<'a> {
    match dtype {
        DType::F16 => SliceMut::from(&mut [] as &mut [f16]),
        DType::Bf16 => SliceMut::from(&mut [] as &mut [bf16]),
        DType::F64 => SliceMut::from(&mut [] as &mut [f64]),
        _ => SliceMut::from(&mut [] as &mut [f32]),
    }
}

/// The shape of no elements, where shapes are told.
pub(crate) fn nowhere(axes: usize) -> Vec<u64> {
    (0..axes).map(|axis| u64::from(axis != 0)).collect()
}

/// A tensor with what all ranks know of it, and what lies here of it.
fn grad<'a>(tensor: &Tensor, piece: Option<&Piece>, own: Option<SliceMut<'a>>) -> GradMut<'a> {
    let grad = GradMut::slice(tensor.name.as_str(), own.unwrap_or_else(|| nothing_mut(tensor.dtype)));
    let shape = piece.and_then(|piece| piece.shape.clone()).or_else(|| tensor.axes.map(nowhere));
    let grad = if let Some(shape) = shape { grad.shape(&shape) } else { grad };
    if let Some(group) = tensor.group() { grad.group(&group) } else { grad }
}

fn step<'a>(
    tensor: &Tensor,
    piece: Option<&Piece>,
    own: Option<(Slice<'a>, ParameterMut<'a>)>,
) -> StepMut<'a> {
    let (gradient, parameter) =
        own.unwrap_or_else(|| (nothing(tensor.dtype), (&mut [] as &mut [f32]).into()));
    let step = StepMut::new(tensor.name.as_str(), gradient, parameter);
    let step = if let Some(piece) = piece { step.lr_scale(piece.lr_scale) } else { step };
    let decay = piece.and_then(|piece| piece.weight_decay);
    let step = if let Some(decay) = decay { step.weight_decay(decay) } else { step };
    if let Some(group) = tensor.group() { step.group(&group) } else { step }
}

/// That what is given is what was declared.
fn check(agreed: &Agreed, given: &[(usize, DType)]) -> Result<(), Error> {
    let pieces = agreed.pieces();
    if given.len() != pieces.len() {
        return Err(ClipError::Count { required: pieces.len(), given: given.len() }.into());
    }
    for (piece, &(len, dtype)) in pieces.iter().zip(given) {
        if (len as u64, dtype) != (piece.elements, piece.dtype) {
            let required = format!("{} elements of {}, as declared", piece.elements, piece.dtype);
            let (tensor, given) = (piece.name.clone(), format!("{len} of {dtype}"));
            return Err(ClipError::Tensor { tensor, required, given }.into());
        }
    }
    Ok(())
}

impl Agreed {
    /// Prepares a clip on the CPU path for gradients like these, one a piece of this rank in their order, whose elements are not read.
    ///
    /// # Errors
    ///
    /// As [`cpu::prepare`] and [`Prepared::exchange`], and where gradients are not as they were declared.
    pub fn prepare<'a, T: Into<SliceMut<'a>>>(
        &self,
        grads: impl IntoIterator<Item = T>,
    ) -> Result<HostClip, Error> {
        let mut own: Vec<Option<SliceMut<'a>>> = grads.into_iter().map(|g| Some(g.into())).collect();
        check(self, &own.iter().flatten().map(|g| (g.len(), g.dtype())).collect::<Vec<_>>())?;
        let grads: Vec<GradMut<'a>> = self
            .tensors()
            .map(|(tensor, at)| {
                grad(tensor, at.map(|at| &self.pieces()[at]), at.and_then(|at| own[at].take()))
            })
            .collect();
        let prepared = cpu::prepare(&grads, self.clip())?;
        let reduction = Reduction::new(self.ranks(), prepared.exchange(self.counts())?);
        Ok(HostClip { agreed: self.clone(), prepared, reduction, slices: Vec::new(), blocks: Vec::new() })
    }

    /// Prepares a clip and a step of `optimizer` for gradients and parameters like these, one a piece of this rank in their order.
    ///
    /// # Errors
    ///
    /// As [`cpu::prepare_step`] and [`PreparedStep::exchange`], and where gradients are not as they were declared.
    pub fn prepare_step<'a, G: Into<Slice<'a>>, P: Into<ParameterMut<'a>>>(
        &self,
        tensors: impl IntoIterator<Item = (G, P)>,
        optimizer: impl Into<Optimizer>,
    ) -> Result<HostStep, Error> {
        let mut own: Vec<Option<(Slice<'a>, ParameterMut<'a>)>> =
            tensors.into_iter().map(|(g, p)| Some((g.into(), p.into()))).collect();
        check(self, &own.iter().flatten().map(|(g, _)| (g.len(), g.dtype())).collect::<Vec<_>>())?;
        let steps: Vec<StepMut<'a>> = self
            .tensors()
            .map(|(tensor, at)| {
                step(tensor, at.map(|at| &self.pieces()[at]), at.and_then(|at| own[at].take()))
            })
            .collect();
        let prepared = cpu::prepare_step(&steps, self.clip(), optimizer)?;
        let reduction = Reduction::new(self.ranks(), prepared.exchange(self.counts())?);
        Ok(HostStep { agreed: self.clone(), prepared, reduction, slices: Vec::new(), targets: Vec::new() })
    }
}

/// What clips and steps of the CPU path have in common.
macro_rules! over_ranks {
    ($over:ident, $prepared:ident) => {
        impl $over {
            /// The first half of a step: measures what lies here, writes nothing, and begins the exchange with other ranks.
            ///
            /// # Errors
            ///
            /// Where gradients are not as prepared: nothing is exchanged then, and other ranks wait for this one to call again. And as every
            /// exchange.
            pub fn measure<'a, T: Into<Slice<'a>>>(
                &mut self,
                grads: impl IntoIterator<Item = T>,
            ) -> Result<(), Error> {
                let mut own = recycled(std::mem::take(&mut self.slices));
                own.extend(grads.into_iter().map(|g| Some(g.into())));
                let checked = self.agreed.check(own.len());
                let measured = checked.and_then(|()| {
                    let all = self.agreed.tensors().map(|(tensor, at)| {
                        at.and_then(|at| own[at].take()).unwrap_or_else(|| nothing(tensor.dtype))
                    });
                    Ok(self.prepared.measure(all)?)
                });
                self.slices = recycled(own);
                measured?;
                self.prepared.begin_exchange(self.reduction.exchange())?;
                self.reduction.start()
            }

            /// Lets messages get on, and waits for nothing: whether the sums of all ranks are there.
            ///
            /// # Errors
            ///
            /// As every exchange.
            pub fn poll(&mut self) -> Result<bool, Error> {
                self.reduction.poll()
            }

            /// Waits for the sums of all ranks, and takes them.
            fn take_sums(&mut self) -> Result<(), Error> {
                let exchange = self.reduction.finish()?;
                Ok(self.prepared.end_exchange(exchange)?)
            }

            /// Bytes that this rank hands over in a step.
            pub fn exchanged_bytes(&self) -> u64 {
                self.reduction.bytes()
            }

            /// What is prepared, for what it reports.
            pub fn prepared(&self) -> &$prepared {
                &self.prepared
            }

            /// What the last step did, over all ranks: the same on each of them, but for the elements that lie there.
            pub fn report(&self) -> Option<Report> {
                self.prepared.report()
            }

            /// Changes the threshold of every limit, on all ranks, which all call this.
            ///
            /// # Errors
            ///
            /// [`ClipError::Threshold`] for one that is negative or NaN, [`Error::Disagree`] where ranks give different ones.
            pub fn set_threshold(&mut self, threshold: f64) -> Result<(), Error> {
                self.agreed.ranks().alike("a threshold", &threshold.to_bits().to_le_bytes())?;
                Ok(self.prepared.set_threshold(threshold)?)
            }

            /// Sets the loss of the next step, which is to be that of all ranks.
            pub fn set_loss(&mut self, loss: f32) {
                self.prepared.set_loss(loss);
            }

            /// Goes on from a history on all ranks, which all call this with the same one.
            ///
            /// # Errors
            ///
            /// [`ClipError::State`] for the history of another clip, [`Error::Disagree`] where ranks give different ones. Nothing changes then.
            pub fn restore_history(&mut self, history: History) -> Result<(), Error> {
                self.agreed.ranks().alike("a history", &history.to_bytes())?;
                Ok(self.prepared.restore_history(history)?)
            }
        }
    };
}
over_ranks!(HostClip, Prepared);
over_ranks!(HostStep, PreparedStep);

impl HostClip {
    /// Clips in place by the norms of all ranks, which all call this: `grads` are this rank's, in the order of its pieces.
    ///
    /// # Errors
    ///
    /// As [`HostClip::measure`] and [`HostClip::apply`].
    pub fn clip<'a, T: Into<SliceMut<'a>>>(
        &mut self,
        grads: impl IntoIterator<Item = T>,
    ) -> Result<(), Error> {
        let mut own: Vec<Option<SliceMut<'a>>> = recycled(std::mem::take(&mut self.blocks));
        own.extend(grads.into_iter().map(|g| Some(g.into())));
        let result = self.clip_own(&mut own);
        self.blocks = recycled(own);
        result
    }

    fn clip_own(&mut self, own: &mut [Option<SliceMut<'_>>]) -> Result<(), Error> {
        self.measure(own.iter().flatten().map(SliceMut::as_slice))?;
        self.apply_own(own)
    }

    /// The second half of a step: waits for the sums of all ranks, and clips.
    ///
    /// # Errors
    ///
    /// As every exchange, and where gradients are not as prepared or nothing was measured. Nothing is written then.
    pub fn apply<'a, T: Into<SliceMut<'a>>>(
        &mut self,
        grads: impl IntoIterator<Item = T>,
    ) -> Result<(), Error> {
        let mut own: Vec<Option<SliceMut<'a>>> = recycled(std::mem::take(&mut self.blocks));
        own.extend(grads.into_iter().map(|g| Some(g.into())));
        let result = self.apply_own(&mut own);
        self.blocks = recycled(own);
        result
    }

    fn apply_own(&mut self, own: &mut [Option<SliceMut<'_>>]) -> Result<(), Error> {
        self.agreed.check(own.len())?;
        self.take_sums()?;
        let all = self.agreed.tensors().map(|(tensor, at)| {
            at.and_then(|at| own[at].take()).unwrap_or_else(|| nothing_mut(tensor.dtype))
        });
        Ok(self.prepared.apply(all)?)
    }
}

impl HostStep {
    /// The second half of a step: waits for the sums of all ranks, and moves this rank's parameters, which are given with their gradients.
    ///
    /// # Errors
    ///
    /// As every exchange, and where tensors are not as prepared or nothing was measured. Nothing is written then.
    pub fn update<'a, G: Into<Slice<'a>>, P: Into<ParameterMut<'a>>>(
        &mut self,
        tensors: impl IntoIterator<Item = (G, P)>,
    ) -> Result<(), Error> {
        let mut own = recycled(std::mem::take(&mut self.targets));
        own.extend(tensors.into_iter().map(|(g, p)| Some((g.into(), p.into()))));
        let result = self.update_own(&mut own);
        self.targets = recycled(own);
        result
    }

    fn update_own(&mut self, own: &mut [Option<(Slice<'_>, ParameterMut<'_>)>]) -> Result<(), Error> {
        self.agreed.check(own.len())?;
        self.take_sums()?;
        let all = self.agreed.tensors().map(|(tensor, at)| {
            let own = at.and_then(|at| own[at].take());
            own.unwrap_or_else(|| (nothing(tensor.dtype), (&mut [] as &mut [f32]).into()))
        });
        Ok(self.prepared.update(all)?)
    }

    /// Changes the learning rate from the next step on. It is to be the same on all ranks.
    ///
    /// # Errors
    ///
    /// For one that is negative, infinite or NaN.
    pub fn set_lr(&mut self, lr: f64) -> Result<(), Error> {
        Ok(self.prepared.set_lr(lr).map_err(gradclip::StepError::from)?)
    }
}
