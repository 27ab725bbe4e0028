//! Measures what the README states: how often Burn moves gradients, what preparing a pass for their new
//! places costs, and what one call of `clip` costs the host.
//!
//!     cargo run --release --example measure

use std::time::{Duration, Instant};

use burn::module::{Module, Param};
use burn::nn::{Linear, LinearConfig};
use burn::optim::{AdamConfig, GradientsParams, SgdConfig};
use burn::tensor::{Device, Distribution, Tensor};
use gradclip_burn::{Clip, Clipper, Units};

#[derive(Module, Debug)]
struct Mlp {
    layers: Vec<Linear>,
    scale: Param<Tensor<1>>,
}

impl Mlp {
    fn new(width: usize, depth: usize, device: &Device) -> Mlp {
        let layers = (0..depth).map(|_| LinearConfig::new(width, width).init(device)).collect();
        Mlp { layers, scale: Param::from_tensor(Tensor::ones([width], device)) }
    }

    fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        let hidden = self.layers.iter().fold(x, |x, layer| layer.forward(x).tanh());
        hidden * self.scale.val().unsqueeze()
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (device, setup) = Device::wgpu_options().init_with_setup()?;
    let info = setup.adapter.get_info();
    println!("{} ({}), {} steps each", info.name, info.driver_info, STEPS);
    let device = device.autodiff();
    println!(
        "| model | clip | optimiser | prepared | reused | copied | first (ms) | prepared (ms) | reused (ms) | step (ms) |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|");
    for (width, depth) in [(32, 3), (128, 4), (64, 80)] {
        for adam in [false, true] {
            run(&device, &setup, (width, depth), "global", Clip::global_norm(0.1), adam, false)?;
        }
    }
    let agc = Clip::agc(0.01, Units::OutputLast);
    run(&device, &setup, (128, 4), "AGC", agc, true, false)?;
    run(&device, &setup, (128, 4), "global, batches of three sizes", Clip::global_norm(0.1), true, true)?;
    Ok(())
}

const STEPS: usize = 200;

fn run(
    device: &Device,
    setup: &burn::tensor::wgpu::WgpuSetup,
    (width, depth): (usize, usize),
    name: &str,
    clip: Clip,
    adam: bool,
    uneven: bool,
) -> Result<(), Box<dyn std::error::Error>> {
    let clipper = Clipper::new(device, setup, clip)?;
    let mut model = Mlp::new(width, depth, device);
    let mut optimizer = if adam { AdamConfig::new().init() } else { SgdConfig::new().init() };
    let [mut prepared, mut reused] = [const { Vec::new() }; 2];
    device.sync()?;
    let begun = Instant::now();
    for step in 0..STEPS {
        let rows = if uneven { [16, 24, 10][step % 3] } else { 16 };
        let input = Tensor::<2>::random([rows, width], Distribution::Default, device);
        let loss = model.forward(input).powi_scalar(2).mean();
        let mut grads = GradientsParams::from_grads(loss.backward(), &model);
        // What the backward pass queued is not the clip's: have it submitted before the clock runs.
        device.flush()?;
        let before = clipper.counts().prepared;
        let called = Instant::now();
        clipper.clip(&model, &mut grads)?;
        let took = called.elapsed();
        if clipper.counts().prepared > before {
            prepared.push(took)
        } else {
            reused.push(took)
        }
        model = optimizer.step(1e-3, model, grads);
        while clipper.poll().is_some() {}
    }
    device.sync()?;
    let step = begun.elapsed() / STEPS as u32;
    let counts = clipper.counts();
    let first = if prepared.is_empty() { Duration::ZERO } else { prepared.remove(0) };
    let ms = |d: Duration| format!("{:.2}", d.as_secs_f64() * 1e3);
    let median = |mut v: Vec<Duration>| {
        v.sort();
        v.get(v.len() / 2).map_or("-".into(), |&d| ms(d))
    };
    println!(
        "| {depth} layers of {width}, {} tensors | {name} | {} | {} | {} | {} | {} | {} | {} | {} |",
        2 * depth + 1,
        if adam { "Adam" } else { "SGD" },
        counts.prepared,
        counts.reused,
        counts.copied,
        ms(first),
        median(prepared),
        median(reused),
        ms(step),
    );
    Ok(())
}
