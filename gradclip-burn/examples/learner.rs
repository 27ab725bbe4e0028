//! A clip inside Burn's own training loop: the model holds a clipper, `TrainStep::optimize` calls it, and the loop's metrics show norm,
//! threshold and the share of steps that were clipped. Gradients of two batches are added up by Burn's accumulator and
//! averaged by the clip.
//!
//!     cargo run --release --features train --example learner
//!
//! Writes logs and checkpoints into a folder `learner` of the system's folder for temporary files.

use std::sync::Arc;

use burn::data::dataloader::{DataLoader, DataLoaderBuilder, batcher::Batcher};
use burn::data::dataset::InMemDataset;
use burn::lr_scheduler::constant::ConstantLr;
use burn::lr_scheduler::module_lr_scheduler::ModuleLearningRate;
use burn::module::Module;
use burn::nn::{Linear, LinearConfig};
use burn::optim::{AdamWConfig, GradientsParams, ModuleOptimizer};
use burn::tensor::{Device, Tensor, TensorData, TensorReadError};
use burn::train::metric::state::{FormatOptions, NumericMetricState};
use burn::train::metric::{
    Adaptor, ItemLazy, LossInput, LossMetric, Metric, MetricMetadata, MetricName, Numeric, NumericEntry,
    SerializedEntry,
};
use burn::train::{InferenceStep, Learner, SupervisedTraining, TrainOutput, TrainStep};
use burn_std::ExecutionError;
use gradclip_burn::{Adapt, Clip, Clipper, Report};

/// Batches that are added up before a step.
const ACCUMULATED: usize = 2;

#[derive(Module, Debug)]
struct Model {
    first: Linear,
    second: Linear,
    #[module(skip)]
    clipper: Clipper,
}

impl Model {
    fn loss(&self, batch: Batch) -> Tensor<1> {
        let output = self.second.forward(self.first.forward(batch.inputs).tanh());
        (output - batch.targets).powi_scalar(2).mean()
    }
}

#[derive(Clone, Debug)]
struct Batch {
    inputs: Tensor<2>,
    targets: Tensor<2>,
}

/// What a step tells the metrics: its loss, and the report of a clip some steps before, if one has arrived.
struct Output {
    loss: Tensor<1>,
    clip: Option<Report>,
}

impl ItemLazy for Output {
    fn sync(self) -> Result<Output, ExecutionError> {
        Ok(self)
    }
}

impl TrainStep for Model {
    type Input = Batch;
    type Output = Output;

    fn step(&self, batch: Batch) -> TrainOutput<Output> {
        let loss = self.loss(batch);
        let clip = self.clipper.poll().and_then(Result::ok);
        TrainOutput::new(self, loss.backward(), Output { loss: loss.inner(), clip })
    }

    /// Called once the gradients of all batches of a step are added up.
    fn optimize(
        self,
        optimizer: &mut ModuleOptimizer,
        rate: ModuleLearningRate,
        mut grads: GradientsParams,
    ) -> Model {
        if let Err(error) = self.clipper.clip(&self, &mut grads) {
            eprintln!("not clipped: {error}");
        }
        optimizer.step(rate, self, grads)
    }
}

impl InferenceStep for Model {
    type Input = Batch;
    type Output = Output;

    fn step(&self, batch: Batch) -> Output {
        Output { loss: self.loss(batch), clip: None }
    }
}

impl Adaptor<LossInput> for Output {
    fn adapt(&self) -> LossInput {
        LossInput::new(self.loss.clone())
    }
}

impl Adaptor<Option<Report>> for Output {
    fn adapt(&self) -> Option<Report> {
        self.clip.clone()
    }
}

/// A number of each report, and the mean of an epoch.
#[derive(Clone)]
struct OfReports {
    name: Arc<String>,
    number: fn(&Report) -> Option<f64>,
    state: NumericMetricState,
}

impl OfReports {
    fn new(name: &str, number: fn(&Report) -> Option<f64>) -> OfReports {
        OfReports { name: Arc::new(name.into()), number, state: NumericMetricState::default() }
    }
}

impl Metric for OfReports {
    type Input = Option<Report>;

    fn name(&self) -> MetricName {
        self.name.clone()
    }

    fn update(
        &mut self,
        report: &Option<Report>,
        _: &MetricMetadata,
    ) -> Result<SerializedEntry, TensorReadError> {
        if let Some(number) = report.as_ref().and_then(self.number) {
            self.state.update(number, 1);
        }
        Ok(self.state.compute_update(FormatOptions::new(self.name()).precision(3)))
    }

    fn compute(&mut self) -> Result<SerializedEntry, TensorReadError> {
        Ok(self.state.compute_final(FormatOptions::new(self.name()).precision(3)))
    }

    fn clear(&mut self) {
        self.state.reset();
    }
}

impl Numeric for OfReports {
    fn value(&self) -> Option<NumericEntry> {
        Some(self.state.current_value())
    }

    fn running_value(&self) -> Option<NumericEntry> {
        Some(self.state.running_value())
    }

    fn final_value(&self) -> NumericEntry {
        self.state.final_value()
    }
}

/// Makes a batch of a few numbers: the sine of their sum.
#[derive(Clone)]
struct Sines;

impl Batcher<[f32; 8], Batch> for Sines {
    fn batch(&self, items: Vec<[f32; 8]>, device: &Device) -> Batch {
        let count = items.len();
        let targets: Vec<f32> = items.iter().map(|item| item.iter().sum::<f32>().sin()).collect();
        let inputs = TensorData::new::<f32, _>(items.concat(), [count, 8]);
        let targets = TensorData::new::<f32, _>(targets, [count, 1]);
        Batch { inputs: Tensor::from_data(inputs, device), targets: Tensor::from_data(targets, device) }
    }
}

fn batches(seed: u32, count: u32, device: &Device) -> Arc<dyn DataLoader<Batch>> {
    let number = |i: u32| (i.wrapping_mul(2_654_435_761) >> 8) as f32 / (1u32 << 23) as f32 - 1.0;
    let items = (0..count).map(|i| std::array::from_fn(|k| number(seed + 8 * i + k as u32))).collect();
    DataLoaderBuilder::new(Sines).batch_size(16).set_device(device.clone()).build(InMemDataset::new(items))
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (plain, setup) = Device::wgpu_options().init_with_setup()?;
    let device = plain.clone().autodiff();
    // A threshold that follows the norms of the last 20 steps; gradients are those of the mean over both batches.
    let clip = Clip::global_norm(f32::INFINITY)
        .adapt(Adapt::Mean { factor: 1.1, window: 20 })
        .unscale(1.0 / ACCUMULATED as f32);
    let clipper = Clipper::new(&device, &setup, clip)?;
    let model = Model {
        first: LinearConfig::new(8, 64).init(&device),
        second: LinearConfig::new(64, 1).init(&device),
        clipper: clipper.clone(),
    };
    let norm = OfReports::new("gradient norm", Report::norm);
    let threshold = OfReports::new("threshold", |report| report.segments.first().map(|own| own.threshold));
    let share = OfReports::new("clipped share", |report| Some(f64::from(u8::from(report.clipped()))));
    let folder = std::env::temp_dir().join("learner");
    let training = SupervisedTraining::new(&folder, batches(0, 1024, &device), batches(1 << 20, 128, &plain))
        .num_epochs(3)
        .grads_accumulation(ACCUMULATED)
        .metric_train_numeric(LossMetric::new())
        .metric_valid_numeric(LossMetric::new())
        .metric_train_numeric(norm)
        .metric_train_numeric(threshold)
        .metric_train_numeric(share)
        .summary();
    training.launch(Learner::new(model, AdamWConfig::new().init(), ConstantLr::new(3e-3)));
    let report = clipper.report()?;
    println!("{} steps, {} of them clipped, logs in {}", report.step, report.clipped_steps, folder.display());
    Ok(())
}
