//! `Clipper::clip` beside what Burn offers: its own `GradientClipping::Norm`, which clips every tensor by
//! itself, and a global norm composed of its operations. Prints a table, and CSV after it.
//!
//!     cargo bench --bench norms [-- --full | --tiny]
//!
//! `--full` takes GPT-2 as it is instead of a quarter as wide, `--tiny` leaves it out. Every repetition has fresh gradients, which
//! the device has finished before the clock runs; arms take turns. Times are medians, with the quartiles:
//! `host` until the call returns and Burn's queue is flushed, `whole` until the device is done.
#![allow(missing_docs)]

use std::error::Error;
use std::time::Instant;

use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::optim::grad_clipping::{GradientClipping, GradientClippingConfig};
use burn::tensor::wgpu::WgpuSetup;
use burn::tensor::{Device, Tensor};
use gradclip_burn::{Clip, Clipper};

#[path = "../tests/common/mod.rs"]
mod common;
mod sets;

use common::composed;
use sets::{Model, Set, gpt2, median, tiny};

const REPETITIONS: usize = 15;

#[derive(Clone, Copy, PartialEq)]
enum Arm {
    Ours,
    PerTensor,
    Composed,
}

const ARMS: [(Arm, &str); 3] = [
    (Arm::Ours, "gradclip, global"),
    (Arm::PerTensor, "Burn's Norm, per tensor"),
    (Arm::Composed, "global, composed of Burn's operations"),
];

fn main() -> Result<(), Box<dyn Error>> {
    let [full, only_tiny] = ["--full", "--tiny"].map(|named| std::env::args().any(|given| given == named));
    let (device, setup) = Device::wgpu_options().init_with_setup()?;
    let info = setup.adapter.get_info();
    println!("{}, {} {}", info.name, info.driver, info.driver_info);
    println!("| gradients | arm | host (ms) | whole (ms) | whole against ours |\n|---|---|---|---|---|");
    let mut csv = String::from("set,elements,regime,arm,host_ms,whole_ms,quartile_1_ms,quartile_3_ms\n");
    let gpt2 = [gpt2(if full { 768 } else { 192 })].into_iter().filter(|_| !only_tiny);
    for set in gpt2.chain([tiny(1000, 1000), tiny(1000, 64)]) {
        for clipped in [true, false] {
            bench(&device, &setup, &set, clipped, &mut csv)?;
        }
    }
    println!("\n{csv}");
    Ok(())
}

fn bench(
    device: &Device,
    setup: &WgpuSetup,
    set: &Set,
    clipped: bool,
    csv: &mut String,
) -> Result<(), Box<dyn Error>> {
    let pristine = set.gradients(device);
    let model = Model::new(set.lengths.iter().map(|_| 1), device);
    let elements = set.elements();
    let norm = (elements as f32).sqrt() * 1e-3;
    let threshold = if clipped { norm / 2.0 } else { norm * 1e3 };
    let clipper = Clipper::new(device, setup, Clip::global_norm(threshold))?.without_telemetry();
    let mut times: [Vec<[f64; 2]>; 3] = [const { Vec::new() }; 3];
    for repetition in 0..=REPETITIONS {
        for ((arm, _), times) in ARMS.iter().zip(&mut times) {
            let mut grads = model.grads(&pristine);
            device.sync()?;
            let begun = Instant::now();
            match arm {
                Arm::Ours => clipper.clip(&model, &mut grads)?,
                Arm::PerTensor => per_tensor(&model, &mut grads, threshold),
                Arm::Composed => composed(&model, &mut grads, threshold),
            }
            device.flush()?;
            let host = begun.elapsed();
            device.sync()?;
            let whole = begun.elapsed();
            // The first time compiles kernels.
            if repetition > 0 {
                times.push([host.as_secs_f64() * 1e3, whole.as_secs_f64() * 1e3]);
            } else if *arm != Arm::PerTensor {
                check(&model, &grads, norm.min(threshold))?;
            }
        }
    }
    report(set, elements, clipped, times, csv);
    Ok(())
}

/// The norm afterwards, within what random numbers scatter.
fn check(model: &Model, grads: &GradientsParams, required: f32) -> Result<(), Box<dyn Error>> {
    let square = |p: &Param<Tensor<1>>| grads.get::<1>(p.id).map(|g| g.square().sum());
    let squares: Vec<Tensor<1>> = model.parameters.iter().filter_map(square).collect();
    let norm = Tensor::cat(squares, 0).sum().sqrt().into_scalar::<f32>();
    if (norm / required - 1.0).abs() > 0.02 {
        return Err(format!("the norm is {norm} afterwards, not {required}").into());
    }
    Ok(())
}

fn report(set: &Set, elements: usize, clipped: bool, times: [Vec<[f64; 2]>; 3], csv: &mut String) {
    let regime = if clipped { "clipped" } else { "not clipped" };
    let column = |times: &[[f64; 2]], i: usize| {
        let mut own: Vec<f64> = times.iter().map(|t| t[i]).collect();
        own.sort_by(f64::total_cmp);
        own
    };
    let ours = median(&column(&times[0], 1));
    for ((_, name), times) in ARMS.iter().zip(&times) {
        let (host, whole) = (column(times, 0), column(times, 1));
        let (h, w) = (median(&host), median(&whole));
        println!("| {}, {regime} | {name} | {h:.2} | {w:.2} | {:.2} |", set.name, w / ours);
        let quartiles = [whole[whole.len() / 4], whole[3 * whole.len() / 4]];
        csv.push_str(&format!("\"{}\",{elements},{regime},\"{name}\",{h:.3},{w:.3},", set.name));
        csv.push_str(&format!("{:.3},{:.3}\n", quartiles[0], quartiles[1]));
    }
}

fn per_tensor(model: &Model, grads: &mut GradientsParams, threshold: f32) {
    let clipping = GradientClippingConfig::Norm(threshold).init();
    model.visit(&mut PerTensor { grads, clipping });
}

struct PerTensor<'a> {
    grads: &'a mut GradientsParams,
    clipping: GradientClipping,
}

impl ModuleVisitor for PerTensor<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(grad) = self.grads.remove::<D>(param.id) {
            self.grads.register(param.id, self.clipping.clip_gradient(grad));
        }
    }
}
