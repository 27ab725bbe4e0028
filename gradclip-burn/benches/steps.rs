//! `Stepper::step` beside Burn's AdamW behind each kind of clip. Prints a table, and CSV after it.
//!
//!     cargo bench --bench steps [-- --full]
//!
//! `--full` takes GPT-2 as it is instead of a quarter as wide. Every repetition has fresh gradients, which the device has
//! finished before the clock runs; arms take turns. Times are medians, with the quartiles: `host` until the call returns
//! and Burn's queue is flushed, `whole` until the device is done.
#![allow(missing_docs)]

use std::error::Error;
use std::time::Instant;

use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::grad_clipping::GradientClippingConfig;
use burn::optim::{AdamWConfig, GradientsParams, ModuleOptimizer};
use burn::tensor::wgpu::WgpuSetup;
use burn::tensor::{Device, Tensor};
use gradclip_burn::{Adam, Clip, Clipper, Stepper};

#[path = "../tests/common/mod.rs"]
mod common;
mod sets;

use common::composed;
use sets::{Model, Set, gpt2, median, tiny};

const REPETITIONS: usize = 15;
const LR: f64 = 1e-3;

const ARMS: [&str; 4] = [
    "gradclip, one step",
    "gradclip's clip, Burn's AdamW",
    "Burn's Norm, per tensor, and AdamW",
    "global, composed of Burn's operations, and AdamW",
];

/// What takes turns: a model each, which moves.
struct Arms {
    stepper: Stepper,
    clipper: Clipper,
    optimizers: [ModuleOptimizer; 3],
    threshold: f32,
}

impl Arms {
    fn new(device: &Device, setup: &WgpuSetup, threshold: f32) -> Result<Arms, Box<dyn Error>> {
        let clip = Clip::global_norm(threshold);
        let per_tensor = AdamWConfig::new().with_grad_clipping(Some(GradientClippingConfig::Norm(threshold)));
        let optimizers = [AdamWConfig::new().init(), per_tensor.init(), AdamWConfig::new().init()];
        let adamw = Adam::adamw(LR).eps(1e-5).weight_decay(1e-4);
        let stepper = Stepper::new(device, setup, clip, adamw)?.without_telemetry();
        let clipper = Clipper::new(device, setup, clip)?.without_telemetry();
        Ok(Arms { stepper, clipper, optimizers, threshold })
    }

    fn step(
        &mut self,
        arm: usize,
        model: Model,
        mut grads: GradientsParams,
    ) -> Result<Model, Box<dyn Error>> {
        match arm {
            0 => return Ok(self.stepper.step(LR, model, grads)?),
            1 => self.clipper.clip(&model, &mut grads)?,
            3 => composed(&model, &mut grads, self.threshold),
            _ => {}
        }
        Ok(self.optimizers[arm - 1].step(LR, model, grads))
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let full = std::env::args().any(|argument| argument == "--full");
    let (device, setup) = Device::wgpu_options().init_with_setup()?;
    let info = setup.adapter.get_info();
    println!("{}, {} {}", info.name, info.driver, info.driver_info);
    println!("| gradients | arm | host (ms) | whole (ms) | whole against ours |\n|---|---|---|---|---|");
    let mut csv = String::from("set,elements,arm,host_ms,whole_ms,quartile_1_ms,quartile_3_ms\n");
    for set in [gpt2(if full { 768 } else { 192 }), tiny(1000, 1000)] {
        bench(&device, &setup, &set, &mut csv)?;
    }
    println!("\n{csv}");
    Ok(())
}

fn bench(device: &Device, setup: &WgpuSetup, set: &Set, csv: &mut String) -> Result<(), Box<dyn Error>> {
    let pristine = set.gradients(device);
    let threshold = (set.elements() as f32).sqrt() * 0.5e-3;
    let mut arms = Arms::new(device, setup, threshold)?;
    let new = || Model::new(set.lengths.iter().copied(), device);
    let mut models = [Some(new()), Some(new()), Some(new()), Some(new())];
    let mut times: [Vec<[f64; 2]>; 4] = [const { Vec::new() }; 4];
    // The first two compile kernels, and prepare for where gradients lie beside the optimisers' state.
    for repetition in 0..REPETITIONS + 2 {
        for (arm, times) in times.iter_mut().enumerate() {
            let model = models[arm].take().ok_or("a model was lost")?;
            let grads = model.grads(&pristine);
            device.sync()?;
            let begun = Instant::now();
            let model = arms.step(arm, model, grads)?;
            device.flush()?;
            let host = begun.elapsed();
            device.sync()?;
            let whole = begun.elapsed();
            if repetition > 1 {
                times.push([host.as_secs_f64() * 1e3, whole.as_secs_f64() * 1e3]);
            }
            models[arm] = Some(model);
        }
    }
    let models: Vec<Model> = models.into_iter().flatten().collect();
    check(&models)?;
    println!(
        "| {}: moments on the device | gradclip | {} MB | | |",
        set.name,
        arms.stepper.state_bytes() / 1_000_000
    );
    report(set, &times, csv);
    Ok(())
}

/// That all arms of a global norm went the same way.
fn check(models: &[Model]) -> Result<(), Box<dyn Error>> {
    let first = values(&models[0]);
    for (model, arm) in [1, 3].map(|arm| (&models[arm], ARMS[arm])) {
        let off = first.iter().zip(values(model)).fold(0.0f32, |most, (a, b)| most.max((a - b).abs()));
        let far = first.iter().fold(0.0f32, |most, v| most.max(v.abs()));
        if off > 1e-3 * far || far < 1e-3 {
            return Err(format!("{arm}: parameters are {off} apart of {far}").into());
        }
    }
    Ok(())
}

/// The first element of each tensor.
fn values(model: &Model) -> Vec<f32> {
    struct First(Vec<Tensor<1>>);
    impl ModuleVisitor for First {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let all = param.val().reshape([-1]);
            self.0.push(all.narrow(0, 0, 1));
        }
    }
    let mut first = First(Vec::new());
    model.visit(&mut first);
    Tensor::cat(first.0, 0).into_data().try_to_vec().unwrap_or_default()
}

fn report(set: &Set, times: &[Vec<[f64; 2]>; 4], csv: &mut String) {
    let column = |times: &[[f64; 2]], i: usize| {
        let mut own: Vec<f64> = times.iter().map(|t| t[i]).collect();
        own.sort_by(f64::total_cmp);
        own
    };
    let ours = median(&column(&times[0], 1));
    for (name, times) in ARMS.iter().zip(times) {
        let (host, whole) = (column(times, 0), column(times, 1));
        let (h, w) = (median(&host), median(&whole));
        println!("| {} | {name} | {h:.2} | {w:.2} | {:.2} |", set.name, w / ours);
        let quartiles = [whole[whole.len() / 4], whole[3 * whole.len() / 4]];
        csv.push_str(&format!("\"{}\",{},\"{name}\",{h:.3},{w:.3},", set.name, set.elements()));
        csv.push_str(&format!("{:.3},{:.3}\n", quartiles[0], quartiles[1]));
    }
}
