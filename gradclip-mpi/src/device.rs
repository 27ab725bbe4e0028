//! Passes and steppers on a device over ranks.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Instant;

use gradclip::exchange::Exchange;
use gradclip::wgpu;
use gradclip::{ClipError, Clipper, Grad, History, Optimizer, Pass, Stepper};

use crate::agree::Agreed;
use crate::error::Error;
use crate::flight::rest;
use crate::host::nowhere;
use crate::pieces::Piece;
use crate::reduction::Reduction;
use crate::table::Tensor;

/// A [`Pass`] whose sums are those of all ranks.
///
/// ```text
/// over.record_norm(&mut encoder)?;  // the norm half, and what it measured on its way to the host
/// queue.submit([encoder.finish()]);
/// while !over.poll()? { /* other work */ }      // reads back, exchanges; or over.wait()?
/// over.record_apply(&mut encoder)?; // the apply half, from the sums of all ranks
/// queue.submit([encoder.finish()]);
/// ```
#[derive(Debug)]
pub struct DeviceClip {
    over: Over,
    pass: Pass,
}

/// A [`Stepper`] whose sums are those of all ranks: as [`DeviceClip`].
#[derive(Debug)]
pub struct DeviceStep {
    over: Over,
    stepper: Stepper,
}

/// What either has.
#[derive(Debug)]
struct Over {
    agreed: Agreed,
    reduction: Reduction,
    device: wgpu::Device,
    queue: wgpu::Queue,
    staging: wgpu::Buffer,
    mapped: Arc<AtomicU8>,
    stage: Stage,
    since: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Idle,
    /// A norm half was recorded, and what it measured is on its way here.
    Read,
    /// Sums are on their way between ranks.
    Exchanged,
    /// Those of all ranks were written to the device.
    Written,
}

/// How far mapping has got.
const WAITS: u8 = 0;
const MAPPED: u8 = 1;
const FAILED: u8 = 2;

impl Agreed {
    /// Gradients on a device in the order that all ranks have: `own` are this rank's, one a piece in their order, with what
    /// steps need of them. Those that lie elsewhere are no elements of `empty`, a buffer of usage `STORAGE`.
    fn grads(&self, own: &[Grad], empty: &wgpu::Buffer) -> Result<Vec<Grad>, Error> {
        if own.len() != self.pieces().len() {
            return Err(ClipError::Count { required: self.pieces().len(), given: own.len() }.into());
        }
        for (piece, grad) in self.pieces().iter().zip(own) {
            let group = piece.group.as_ref().map(|(name, _)| name.as_str());
            let given = (grad.name(), grad.elements(), grad.element_type(), grad.group_name().or(group));
            let required = (piece.name(), piece.elements, piece.dtype, group);
            if given != required {
                let told = |(name, elements, dtype, group): (&str, u64, gradclip::DType, Option<&str>)| {
                    let group = group.map(|group| format!(" in group `{}`", group.escape_debug()));
                    format!("`{}` of {elements} {dtype}{}", name.escape_debug(), group.unwrap_or_default())
                };
                let (required, given) = (format!("{}, as declared", told(required)), told(given));
                return Err(ClipError::Tensor { tensor: piece.name.clone(), required, given }.into());
            }
        }
        let one = |(tensor, at): (&Tensor, Option<usize>)| match at {
            Some(at) => told(own[at].clone(), tensor, Some(&self.pieces()[at])),
            None => {
                let grad = Grad::range(tensor.name.as_str(), empty, 0, 0).dtype(tensor.dtype);
                told(grad.parameter(empty, 0, gradclip::DType::F32), tensor, None)
            }
        };
        Ok(self.tensors().map(one).collect())
    }

    /// Prepares a pass over gradients on a device, one a piece of this rank in their order. Names, types, groups and shapes are those that were
    /// declared.
    ///
    /// # Errors
    ///
    /// As [`Clipper::prepare`] and [`Pass::exchange`], and where gradients are not as many or as long as declared.
    pub fn prepare_on(
        &self,
        clipper: &Clipper,
        (device, queue): (&wgpu::Device, &wgpu::Queue),
        own: &[Grad],
    ) -> Result<DeviceClip, Error> {
        let grads = self.grads(own, &empty(device))?;
        let pass = clipper.prepare(&grads, self.clip())?;
        let exchange = pass.exchange(self.counts())?;
        Ok(DeviceClip { over: Over::new(self, exchange, device, queue), pass })
    }

    /// Prepares a pass and a step, as [`Agreed::prepare_on`]: gradients name their parameters.
    ///
    /// # Errors
    ///
    /// As [`Clipper::prepare_step`] and [`Stepper::exchange`], and as [`Agreed::prepare_on`].
    pub fn prepare_step_on(
        &self,
        clipper: &Clipper,
        (device, queue): (&wgpu::Device, &wgpu::Queue),
        own: &[Grad],
        optimizer: impl Into<Optimizer>,
    ) -> Result<DeviceStep, Error> {
        let grads = self.grads(own, &empty(device))?;
        let stepper = clipper.prepare_step(&grads, self.clip(), optimizer)?;
        let exchange = stepper.exchange(self.counts())?;
        Ok(DeviceStep { over: Over::new(self, exchange, device, queue), stepper })
    }
}

/// A buffer of which nothing is read.
fn empty(device: &wgpu::Device) -> wgpu::Buffer {
    device.create_buffer(&wgpu::BufferDescriptor {
        label: Some("gradclip nothing"),
        size: 16,
        usage: wgpu::BufferUsages::STORAGE,
        mapped_at_creation: false,
    })
}

/// With what all ranks know of the tensor.
fn told(grad: Grad, tensor: &Tensor, piece: Option<&Piece>) -> Grad {
    let shape = piece.and_then(|piece| piece.shape.clone()).or_else(|| tensor.axes.map(nowhere));
    let grad = if let Some(shape) = shape { grad.shape(&shape) } else { grad };
    let grad = if let Some(group) = tensor.group() { grad.group(&group) } else { grad };
    let grad = if let Some(piece) = piece { grad.lr_scale(piece.lr_scale) } else { grad };
    let decay = piece.and_then(|piece| piece.weight_decay);
    if let Some(decay) = decay { grad.weight_decay(decay) } else { grad }
}

impl Over {
    fn new(agreed: &Agreed, exchange: Exchange, device: &wgpu::Device, queue: &wgpu::Queue) -> Over {
        let staging = device.create_buffer(&wgpu::BufferDescriptor {
            label: Some("gradclip measured"),
            size: exchange.measured_bytes().max(4),
            usage: wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        });
        Over {
            agreed: agreed.clone(),
            reduction: Reduction::new(agreed.ranks(), exchange),
            device: device.clone(),
            queue: queue.clone(),
            staging,
            mapped: Arc::new(AtomicU8::new(WAITS)),
            stage: Stage::Idle,
            since: Instant::now(),
        }
    }

    /// Records what reads back what a norm half measured.
    fn record(&mut self, pass: &Pass, encoder: &mut wgpu::CommandEncoder) -> Result<(), Error> {
        if matches!(self.stage, Stage::Read | Stage::Exchanged) {
            return Err(halves("none that waits for its second half", "one"));
        }
        pass.record_measured(encoder, &self.staging)?;
        self.mapped = Arc::new(AtomicU8::new(WAITS));
        let mapped = self.mapped.clone();
        encoder.map_buffer_on_submit(&self.staging, wgpu::MapMode::Read, .., move |result| {
            mapped.store(if result.is_ok() { MAPPED } else { FAILED }, Ordering::Release);
        });
        (self.stage, self.since) = (Stage::Read, Instant::now());
        Ok(())
    }

    fn poll(&mut self, pass: &Pass) -> Result<bool, Error> {
        if self.stage == Stage::Read {
            self.device.poll(wgpu::PollType::Poll).map_err(|e| Error::Device(e.to_string()))?;
            match self.mapped.load(Ordering::Acquire) {
                WAITS => return self.late(),
                MAPPED => self.begin()?,
                _ => return Err(Error::Device("the sums could not be read back".into())),
            }
        }
        if self.stage == Stage::Exchanged && self.reduction.poll()? {
            pass.write_sums(&self.queue, self.reduction.finish()?)?;
            self.stage = Stage::Written;
        }
        Ok(self.stage == Stage::Written)
    }

    /// Whether the device takes longer than ranks wait for each other.
    fn late(&mut self) -> Result<bool, Error> {
        let (required, given) = (self.agreed.ranks().timeout(), self.since.elapsed());
        match given > required {
            true => Err(Error::Device(format!(
                "required the norm half within {required:?}, given nothing after {given:?}: it was not submitted, or the device is lost"
            ))),
            false => Ok(false),
        }
    }

    fn begin(&mut self) -> Result<(), Error> {
        {
            let view = self.staging.get_mapped_range(..).map_err(|e| Error::Device(e.to_string()))?;
            let exchange = self.reduction.exchange();
            let bytes = exchange.measured_bytes() as usize;
            exchange.begin(&view[..bytes])?;
        }
        self.staging.unmap();
        self.reduction.start()?;
        self.stage = Stage::Exchanged;
        Ok(())
    }

    fn wait(&mut self, pass: &Pass) -> Result<(), Error> {
        let since = Instant::now();
        let mut tests = 0;
        while !self.poll(pass)? {
            if self.stage == Stage::Idle {
                return Err(halves("one recorded and submitted", "none"));
            }
            tests += 1;
            rest(tests, since);
        }
        Ok(())
    }

    /// That the sums of all ranks are on the device, for the one apply half that follows.
    fn take(&mut self) -> Result<(), Error> {
        match self.stage {
            Stage::Written => self.stage = Stage::Idle,
            _ => return Err(halves("the sums of all ranks: `poll` until it says so, or `wait`", "none")),
        }
        Ok(())
    }
}

fn halves(required: &str, given: &str) -> Error {
    Error::Range {
        what: "the norm half of a step over ranks",
        required: required.into(),
        given: given.into(),
    }
}

fn itself(pass: &Pass) -> &Pass {
    pass
}

/// What passes and steppers over ranks have in common.
macro_rules! over_ranks {
    ($over:ident, $inner:ident: $kind:ident, $pass:expr) => {
        impl $over {
            /// Records the norm half, and a copy of what it measures. Submit it, then [`Self::poll`] or [`Self::wait`].
            ///
            /// # Errors
            ///
            /// [`Error::Range`] where a norm half waits for its apply half already; nothing is recorded then.
            pub fn record_norm(&mut self, encoder: &mut wgpu::CommandEncoder) -> Result<(), Error> {
                if matches!(self.over.stage, Stage::Read | Stage::Exchanged) {
                    return Err(halves("none that waits for its second half", "one"));
                }
                self.$inner.record_norm(encoder);
                self.over.record($pass(&self.$inner), encoder)
            }

            /// Lets device and messages get on, and waits for nothing: whether the sums of all ranks are on the device.
            ///
            /// # Errors
            ///
            /// As every exchange, and [`Error::Device`] where the sums do not come back.
            pub fn poll(&mut self) -> Result<bool, Error> {
                self.over.poll($pass(&self.$inner))
            }

            /// Waits for them.
            ///
            /// # Errors
            ///
            /// As `poll`.
            pub fn wait(&mut self) -> Result<(), Error> {
                self.over.wait($pass(&self.$inner))
            }

            /// What is prepared, for what it reports. Its setters are for all ranks to call alike.
            pub fn $inner(&self) -> &$kind {
                &self.$inner
            }

            /// Bytes that this rank hands over in a step.
            pub fn exchanged_bytes(&self) -> u64 {
                self.over.reduction.bytes()
            }

            /// Changes the threshold of every limit, on all ranks, which all call this.
            ///
            /// # Errors
            ///
            /// [`ClipError::Threshold`] for one that is negative or NaN, [`Error::Disagree`] where ranks give different ones.
            pub fn set_threshold(&self, threshold: f32) -> Result<(), Error> {
                self.over.agreed.ranks().alike("a threshold", &threshold.to_bits().to_le_bytes())?;
                Ok($pass(&self.$inner).set_threshold(&self.over.queue, threshold)?)
            }

            /// Goes on from a history on all ranks, which all call this with the same one.
            ///
            /// # Errors
            ///
            /// [`ClipError::State`] for the history of another clip, [`Error::Disagree`] where ranks give different ones. Nothing changes then.
            pub fn restore_history(&self, history: &History) -> Result<(), Error> {
                self.over.agreed.ranks().alike("a history", &history.to_bytes())?;
                Ok($pass(&self.$inner).restore_history(&self.over.queue, history)?)
            }
        }
    };
}

over_ranks!(DeviceClip, pass: Pass, itself);
over_ranks!(DeviceStep, stepper: Stepper, Stepper::pass);

impl DeviceClip {
    /// Records the apply half, from the sums of all ranks.
    ///
    /// # Errors
    ///
    /// [`Error::Range`] where these are not there yet; nothing is recorded then.
    pub fn record_apply(&mut self, encoder: &mut wgpu::CommandEncoder) -> Result<(), Error> {
        self.over.take()?;
        self.pass.record_apply(encoder);
        Ok(())
    }
}

impl DeviceStep {
    /// Records the second half, the step, from the sums of all ranks.
    ///
    /// # Errors
    ///
    /// As [`DeviceClip::record_apply`].
    pub fn record_update(&mut self, encoder: &mut wgpu::CommandEncoder) -> Result<(), Error> {
        self.over.take()?;
        self.stepper.record_update(encoder);
        Ok(())
    }
}
