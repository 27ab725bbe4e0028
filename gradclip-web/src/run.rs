//! One net that learns, with whatever clip.

use gradclip::{Clip, Clipper, History, ReadBack, Report, Sgd, Stepper, wgpu};

use crate::error::WebError;
use crate::gpu::Gpu;
use crate::model::Model;
use crate::net::{Net, Passes};
use crate::settings::Settings;
use crate::text::Text;

/// Steps that may be recorded before any is read.
pub const MOST_STEPS: usize = 32;
const MOMENTUM: f64 = 0.9;

/// A net, its clip and its optimiser, prepared.
#[derive(Debug)]
pub struct Run {
    gpu: Gpu,
    net: Net,
    passes: Passes,
    stepper: Stepper,
    losses: wgpu::Buffer,
}

/// All that a run goes on from.
#[derive(Clone, Debug)]
pub struct Saved {
    parameters: Vec<f32>,
    momentum: Vec<f32>,
    history: History,
}

impl Saved {
    /// The beginning.
    pub fn first(model: Model, seed: u32) -> Saved {
        let parameters = model.initial(seed);
        let momentum = vec![0.0; parameters.len()];
        Saved { parameters, momentum, history: History::default() }
    }

    /// Steps so far.
    pub fn steps(&self) -> u64 {
        self.history.steps()
    }
}

/// What a step did, for the page: see [`Step::FIELDS`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Step {
    /// The loss before the step, in nats a symbol.
    pub loss: f64,
    /// The norm of all gradients before clipping.
    pub norm: f64,
    /// The largest norm that was allowed, NaN where there is none of the whole set.
    pub threshold: f64,
    /// The norm after clipping, NaN where elements or units were changed one by one.
    pub clipped_norm: f64,
    /// Whether anything was clipped.
    pub clipped: bool,
    /// Whether parameters were left as they were.
    pub left_out: bool,
}

impl Step {
    /// Numbers of a step in [`Step::numbers`].
    pub const FIELDS: usize = 6;

    fn of(report: &Report, loss: f32, whole: bool) -> Step {
        let segment = report.segments.first().filter(|_| whole);
        Step {
            loss: loss.into(),
            norm: report.global_norm,
            threshold: segment.map_or(f64::NAN, |segment| segment.threshold),
            clipped_norm: report.clipped_norm.unwrap_or(f64::NAN),
            clipped: report.clipped(),
            left_out: report.skips > 0,
        }
    }

    /// Its fields in their order.
    pub fn numbers(&self) -> [f64; Step::FIELDS] {
        let flag = |is| if is { 1.0 } else { 0.0 };
        let Step { loss, norm, threshold, clipped_norm, clipped, left_out } = *self;
        [loss, norm, threshold, clipped_norm, flag(clipped), flag(left_out)]
    }
}

/// Steps on their way: each report, and all losses.
#[derive(Debug)]
pub struct Recorded(Vec<ReadBack>);

impl Run {
    /// Prepares a run that goes on from `saved`.
    ///
    /// # Errors
    ///
    /// Where library or device refuse it.
    pub async fn prepare(
        gpu: &Gpu,
        clipper: &Clipper,
        (text, settings): (&Text, &Settings),
        clip: &Clip,
        saved: &Saved,
    ) -> Result<Run, WebError> {
        let net = Net::new(gpu, Model { symbols: text.vocabulary }, &saved.parameters);
        let stepper = clipper
            .prepare_step_async(&net.grads(), clip, Sgd::new(settings.rate).momentum(MOMENTUM))
            .await?;
        gpu.queue.write_buffer(&net.momentum, 0, bytemuck::cast_slice(&saved.momentum));
        if saved.steps() > 0 {
            stepper.restore_history(&gpu.queue, &saved.history)?;
        }
        let passes = net.passes(gpu, text, settings, stepper.tally());
        let losses = gpu.storage("losses of steps", MOST_STEPS as u64);
        gpu.check()?;
        Ok(Run { gpu: gpu.clone(), net, passes, stepper, losses })
    }

    /// Records and submits some steps, at most [`MOST_STEPS`].
    ///
    /// # Errors
    ///
    /// Where more are on their way than may be.
    pub fn submit(&self, steps: usize) -> Result<Recorded, WebError> {
        let mut encoder = self.gpu.device.create_command_encoder(&Default::default());
        let (from, at) = self.net.loss();
        let mut reports = Vec::with_capacity(steps);
        for step in 0..steps {
            self.passes.record(&mut encoder);
            // For the rule that watches it.
            encoder.copy_buffer_to_buffer(from, at, self.stepper.inputs(), 0, 4);
            encoder.copy_buffer_to_buffer(from, at, &self.losses, 4 * step as u64, 4);
            self.stepper.record_step(&mut encoder);
            reports.push(self.stepper.read_back(&mut encoder)?);
        }
        self.gpu.queue.submit([encoder.finish()]);
        Ok(Recorded(reports))
    }

    /// What submitted steps did; `whole` says that one norm of all gradients is limited.
    ///
    /// # Errors
    ///
    /// [`WebError::Lost`] and whatever else kept results from coming back.
    pub async fn results(&self, recorded: Recorded, whole: bool) -> Result<Vec<Step>, WebError> {
        let losses: Vec<f32> = bytemuck::pod_collect_to_vec(&self.gpu.read(&[&self.losses]).await?);
        let mut steps = Vec::with_capacity(recorded.0.len());
        for (report, loss) in recorded.0.into_iter().zip(losses) {
            let report = report.await.map_err(|error| self.gpu.reason(error.into()))?;
            steps.push(Step::of(&report, loss, whole));
        }
        Ok(steps)
    }

    /// All parameters, then the gradients of the last step, its loss and three words of nothing.
    ///
    /// # Errors
    ///
    /// As [`Run::save`].
    pub async fn read(&self) -> Result<Vec<f32>, WebError> {
        let bytes = self.gpu.read(&[&self.net.parameters, &self.net.gradient]).await?;
        Ok(bytemuck::pod_collect_to_vec(&bytes))
    }

    /// Where the run stands, to go on from.
    ///
    /// # Errors
    ///
    /// [`WebError::Lost`] and whatever else kept it from coming back.
    pub async fn save(&self) -> Result<Saved, WebError> {
        let mut encoder = self.gpu.device.create_command_encoder(&Default::default());
        let history = self.stepper.save_history_async(&mut encoder).await?;
        self.gpu.queue.submit([encoder.finish()]);
        let bytes = self.gpu.read(&[&self.net.parameters, &self.net.momentum]).await?;
        let history = history.await.map_err(|error| self.gpu.reason(error.into()))?;
        let (parameters, momentum) = bytes.split_at(bytes.len() / 2);
        let floats = bytemuck::pod_collect_to_vec::<u8, f32>;
        Ok(Saved { parameters: floats(parameters), momentum: floats(momentum), history })
    }
}
