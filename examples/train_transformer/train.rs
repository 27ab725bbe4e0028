//! The training loop: micro-batches, their sum, norm, clip and step, and what comes back of it.

use std::error::Error;
use std::ops::Range;

use gradclip::{
    Adam, Checkpoint, Clip, Clipper, ClipperOptions, DType, Grad, LossScale, Schedule, Trainer, wgpu,
};
use half::bf16;
use indicatif::{ProgressBar, ProgressStyle};

use super::gpu::Gpu;
use super::late::{AHEAD, Late};
use super::log::{Log, Record};
use super::model::{Model, Tensor};
use super::network::Network;
use super::text::Text;

pub(super) const STEPS: u64 = 300;
/// Of a step.
pub(super) const MICRO_BATCHES: usize = 4;
const WARM_UP: u64 = 20;
const RATE: f64 = 4e-3;
const LEAST_RATE: f64 = 4e-4;
const DECAY: f64 = 0.1;
pub(super) const THRESHOLD: f32 = 1.0;
/// Finite steps before the loss scale doubles.
const INTERVAL: u32 = 50;

/// The network, and what becomes of its gradients.
pub(super) struct Training {
    network: Network,
    trainer: Trainer,
    schedule: Schedule,
}

impl Training {
    pub(super) fn new(gpu: &Gpu, text: &Text) -> Result<Training, Box<dyn Error>> {
        let model = Model::new();
        let gradients = gpu.storage("gradients", model.elements);
        let parameters = gpu.storage("parameters", model.elements / 2);
        let initial: Vec<bf16> = model.initial().into_iter().map(bf16::from_f32).collect();
        gpu.write(&parameters, &initial);

        // Each parameter with all that belongs to it. Masters, moments and sums of micro-batches are allocated.
        let grad = |t: &&Tensor| {
            Grad::range(t.name.clone(), &gradients, t.at as u64 * 4, t.elements() as u64)
                .parameter(&parameters, t.at as u64 * 2, DType::Bf16)
                .weight_decay(if t.decays() { DECAY } else { 0.0 })
        };
        let grads: Vec<Grad> = model.tensors().iter().map(grad).collect();
        let clip = Clip::global_norm(THRESHOLD).loss_scale(LossScale::default().interval(INTERVAL));
        let clipper = Clipper::with_options(&gpu.device, ClipperOptions::default().read_backs(AHEAD))?;
        let adamw = Adam::adamw(RATE).betas(0.9, 0.99);
        let trainer = clipper.prepare_training(&grads, &clip, adamw, MICRO_BATCHES as u32)?;

        let network = Network::new(gpu, &model, text, [&parameters, &gradients, trainer.progress()]);
        let schedule = Schedule::cosine(RATE, LEAST_RATE, STEPS - WARM_UP)?.warm_up(WARM_UP);
        Ok(Training { network, trainer, schedule })
    }

    fn record_step(&self, encoder: &mut wgpu::CommandEncoder) {
        for _ in 0..MICRO_BATCHES {
            self.network.record(encoder);
            self.trainer.record(encoder);
        }
    }

    /// What the run needs to go on. Batches and the learning rate are functions of the step: so this is all.
    pub(super) fn save(&self, gpu: &Gpu) -> Result<Checkpoint, Box<dyn Error>> {
        let mut encoder = gpu.encoder();
        let saving = self.trainer.save(&mut encoder)?;
        gpu.queue.submit([encoder.finish()]);
        Ok(saving.wait()?)
    }

    /// Goes on from a saved run, and says at which step.
    pub(super) fn load(&self, gpu: &Gpu, checkpoint: &Checkpoint) -> Result<u64, Box<dyn Error>> {
        self.trainer.load(&gpu.queue, checkpoint)?;
        let step = checkpoint.history().ok_or("a run with its history is required")?.steps();
        gpu.write(&self.network.batch, &[step as u32 * MICRO_BATCHES as u32]);
        Ok(step)
    }
}

/// Everything is recorded and submitted; what comes back is logged as it arrives.
pub(super) fn run(
    gpu: &Gpu,
    training: &Training,
    steps: Range<u64>,
    log: &mut Log,
) -> Result<(), Box<dyn Error>> {
    let bar = ProgressBar::new(STEPS)
        .with_style(ProgressStyle::with_template("{bar:30} {pos}/{len} steps, {eta} left; {msg}")?);
    bar.set_position(steps.start);
    bar.reset_eta();
    let mut late = Late::new(gpu);
    let mut arrived = |records: Vec<Record>| {
        for record in records {
            bar.set_message(format!("loss {:.3}, norm {:.2}", record.loss, record.norm));
            bar.set_position(record.step + 1);
            if record.step.is_multiple_of(20) {
                bar.suspend(|| println!("{}", record.in_words()));
            }
            log.records.push(record);
        }
    };
    for step in steps {
        training.trainer.set_lr(&gpu.queue, training.schedule.at(step))?;
        let mut encoder = gpu.encoder();
        training.record_step(&mut encoder);
        late.record(step, &training.network, training.trainer.stepper().pass(), &mut encoder);
        late.submitted(gpu.queue.submit([encoder.finish()]));
        arrived(late.arrived(gpu, AHEAD - 1)?);
    }
    arrived(late.arrived(gpu, 0)?);
    bar.finish_and_clear();
    Ok(())
}
