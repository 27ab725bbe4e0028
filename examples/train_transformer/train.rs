//! The training loop: micro-batches, their sum, norm, clip and step, and what comes back of it.

use std::error::Error;
use std::ops::Range;

use gradclip::{
    Accumulator, Adam, Clip, Clipper, ClipperOptions, DType, Grad, LossScale, ReadBack, Schedule, Stepper,
    wgpu,
};
use indicatif::{ProgressBar, ProgressStyle};

use super::checkpoint::Checkpoint;
use super::gpu::Gpu;
use super::late::{AHEAD, Late};
use super::log::{Log, Record};
use super::model::Model;
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

pub(super) struct Trainer {
    network: Network,
    accumulator: Accumulator,
    stepper: Stepper,
    schedule: Schedule,
    narrow: Narrow,
    /// Masters and both moments.
    arenas: [wgpu::Buffer; 3],
}

impl Trainer {
    pub(super) fn new(gpu: &Gpu, text: &Text) -> Result<Trainer, Box<dyn Error>> {
        let model = Model::new();
        let arenas = ["masters", "first moments", "second moments"].map(|n| gpu.storage(n, model.elements));
        let [masters, first, second] = &arenas;
        gpu.write(masters, &model.initial());
        let [gradients, sums] = ["gradients", "sums"].map(|name| gpu.storage(name, model.elements));

        let range = |buffer, tensor: &super::model::Tensor| {
            Grad::range(tensor.name.clone(), buffer, tensor.at as u64 * 4, tensor.elements() as u64)
        };
        let tensors = model.tensors();
        let of_batch = tensors.iter().map(|t| range(&gradients, t).accumulator(&sums, t.at as u64 * 4));
        let of_step = tensors.iter().map(|t| {
            let at = t.at as u64 * 4;
            range(&sums, t)
                .parameter(masters, at, DType::F32)
                .moment(first, at)
                .moment(second, at)
                .weight_decay(if t.decays() { DECAY } else { 0.0 })
        });

        let clip = Clip::global_norm(THRESHOLD)
            .unscale(1.0 / MICRO_BATCHES as f64)
            .loss_scale(LossScale::default().interval(INTERVAL));
        let clipper = Clipper::with_options(&gpu.device, ClipperOptions::default().read_backs(AHEAD))?;
        let accumulator = clipper.prepare_accumulation(&of_batch.collect::<Vec<_>>())?;
        let adamw = Adam::adamw(RATE).betas(0.9, 0.99);
        let stepper = clipper.prepare_step(&of_step.collect::<Vec<_>>(), &clip, adamw)?;

        let narrow = Narrow::new(gpu, masters, model.elements);
        let network =
            Network::new(gpu, &model, text, [&narrow.parameters, &gradients, stepper.pass().progress()]);
        let schedule = Schedule::cosine(RATE, LEAST_RATE, STEPS - WARM_UP)?.warm_up(WARM_UP);
        Ok(Trainer { network, accumulator, stepper, schedule, narrow, arenas })
    }

    fn record_step(&self, encoder: &mut wgpu::CommandEncoder) {
        self.narrow.record(encoder);
        for micro in 0..MICRO_BATCHES {
            self.network.record(encoder);
            match micro {
                0 => self.accumulator.record_first(encoder),
                _ => self.accumulator.record_next(encoder),
            }
        }
        self.stepper.record_step(encoder);
    }

    /// What a run needs to go on at `step`.
    pub(super) fn save(&self, gpu: &Gpu, step: u64) -> Result<Checkpoint, Box<dyn Error>> {
        let mut encoder = gpu.encoder();
        let history = self.stepper.save_history(&mut encoder)?;
        gpu.queue.submit([encoder.finish()]);
        let [masters, first, second] = &self.arenas;
        let arenas = [gpu.read(masters)?, gpu.read(first)?, gpu.read(second)?];
        Ok(Checkpoint { step, arenas, history: ReadBack::wait(history)? })
    }

    pub(super) fn restore(&self, gpu: &Gpu, checkpoint: &Checkpoint) -> Result<(), Box<dyn Error>> {
        for (buffer, values) in self.arenas.iter().zip(&checkpoint.arenas) {
            if buffer.size() != size_of_val(&values[..]) as u64 {
                return Err("the checkpoint is one of another model".into());
            }
            gpu.write(buffer, values);
        }
        gpu.write(&self.network.batch, &[checkpoint.step as u32 * MICRO_BATCHES as u32]);
        Ok(self.stepper.restore_history(&gpu.queue, &checkpoint.history)?)
    }
}

/// Everything is recorded and submitted; what comes back is logged as it arrives.
pub(super) fn run(
    gpu: &Gpu,
    trainer: &Trainer,
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
        trainer.stepper.set_lr(&gpu.queue, trainer.schedule.at(step))?;
        let mut encoder = gpu.encoder();
        trainer.record_step(&mut encoder);
        late.record(step, &trainer.network, &trainer.stepper, &mut encoder);
        late.submitted(gpu.queue.submit([encoder.finish()]));
        arrived(late.arrived(gpu, AHEAD - 1)?);
    }
    arrived(late.arrived(gpu, 0)?);
    bar.finish_and_clear();
    Ok(())
}

/// Parameters of bf16 from the masters.
struct Narrow {
    parameters: wgpu::Buffer,
    pipeline: wgpu::ComputePipeline,
    bound: wgpu::BindGroup,
}

impl Narrow {
    fn new(gpu: &Gpu, masters: &wgpu::Buffer, elements: usize) -> Narrow {
        let parameters = gpu.storage("parameters", elements / 2);
        let module = gpu.module("narrow", include_str!("shaders/narrow.wgsl").into());
        let pipeline = gpu.pipeline(&module, None, None);
        let resources = [masters.as_entire_binding(), parameters.as_entire_binding()];
        let bound = gpu.bind(&pipeline.get_bind_group_layout(0), &resources);
        Narrow { parameters, pipeline, bound }
    }

    fn record(&self, encoder: &mut wgpu::CommandEncoder) {
        let mut pass = encoder.begin_compute_pass(&Default::default());
        pass.set_pipeline(&self.pipeline);
        pass.set_bind_group(0, &self.bound, &[]);
        pass.dispatch_workgroups((self.parameters.size() / 4).div_ceil(64) as u32, 1, 1);
    }
}
