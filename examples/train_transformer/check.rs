//! Whether the passes are right: against a plain forward pass in f64, and differences of it.

use std::error::Error;

use gradclip::records::Progress;
use gradclip::wgpu;
use half::bf16;
use wgpu::BufferUsages as Usage;

use super::gpu::Gpu;
use super::model::{BATCH, Model, Random, SEED};
use super::network::Network;
use super::text::Text;

#[path = "check/forward.rs"]
mod forward;

/// Gradients are multiplied by it and divided again, exactly.
const SCALE: f32 = 65_536.0;
const DIRECTIONS: usize = 3;

/// How far a derivative may be off, as a share of the gradient's norm. A product adds up to 512 terms one
/// after the other: at worst 512 roundings of 2^-24, 3e-5 of the sum of their magnitudes, and a derivative
/// passes through a dozen of these, but roundings cancel: 1e-6 is ordinary. WGSL allows `tanh` 1e-5 and `exp`
/// 1e-6 at these arguments. Something forgotten or twice is off by at least the share that it has.
const TOLERANCE: f64 = 1e-4;

/// Compares loss and gradient of the first micro-batch. Derivatives along a few directions of random signs a
/// tensor tell whether the gradient is right: an error of whatever form is as long along such a direction, on
/// average, as it is.
pub(super) fn backward(gpu: &Gpu, text: &Text) -> Result<(), Box<dyn Error>> {
    let model = Model::new();
    let mut random = Random(SEED.into());
    // Gains that are not 1, and logits that are not about 0.
    let parameters: Vec<bf16> =
        model.initial().iter().map(|p| bf16::from_f64(f64::from(*p) + 0.1 * random.normal())).collect();
    let (loss, gradient) = on_device(gpu, &model, text, &parameters)?;

    let sequences: Vec<&[u32]> = (0..BATCH as u32).map(|s| text.sequence(0, s)).collect();
    let parameters: Vec<f64> = parameters.iter().map(|p| p.to_f64()).collect();
    let expected = forward::loss(&model, &parameters, &sequences);
    let error = (f64::from(loss) / expected - 1.0).abs();
    println!("loss {loss:.6}, in f64 {expected:.6}, relative error {error:.1e}");
    if error.is_nan() || error > TOLERANCE {
        return Err("the forward pass is wrong".into());
    }

    for tensor in model.tensors() {
        let gradient: Vec<f64> = gradient[tensor.range()].iter().map(|g| f64::from(g / SCALE)).collect();
        let norm = gradient.iter().map(|g| g * g).sum::<f64>().sqrt();
        let mut largest = 0.0f64;
        for _ in 0..DIRECTIONS {
            let signs: Vec<f64> =
                gradient.iter().map(|_| if random.unit() < 0.5 { -1.0 } else { 1.0 }).collect();
            let loss = |distance: f64| {
                let mut moved = parameters.clone();
                moved[tensor.range()].iter_mut().zip(&signs).for_each(|(p, sign)| *p += distance * sign);
                forward::loss(&model, &moved, &sequences)
            };
            // 1e-4 in all: its square, which is left out, is far below the tolerance, and so are 53 bits of a
            // loss by it.
            let h = 1e-4 / (gradient.len() as f64).sqrt();
            let difference = (loss(h) - loss(-h)) / (2.0 * h);
            let derivative: f64 = gradient.iter().zip(&signs).map(|(g, sign)| g * sign).sum();
            largest = largest.max((derivative - difference).abs() / norm);
            if (derivative - difference).is_nan() {
                largest = f64::NAN;
            }
        }
        println!("{:22} norm {norm:.5}, largest error {largest:.1e} of it", tensor.name);
        if largest.is_nan() || largest > TOLERANCE {
            return Err(format!("the backward pass is wrong in {}", tensor.name).into());
        }
    }
    Ok(())
}

/// Loss and scaled gradient of the first micro-batch.
fn on_device(
    gpu: &Gpu,
    model: &Model,
    text: &Text,
    values: &[bf16],
) -> Result<(f32, Vec<f32>), Box<dyn Error>> {
    let parameters = gpu.storage("parameters", model.elements / 2);
    gpu.write(&parameters, values);
    let gradients = gpu.storage("gradients", model.elements);
    let progress = gpu.buffer("progress", size_of::<Progress>() / 4, Usage::UNIFORM | Usage::COPY_DST);
    gpu.write(&progress, &[SCALE]);
    let network = Network::new(gpu, model, text, [&parameters, &gradients, &progress]);
    let mut encoder = gpu.encoder();
    network.record(&mut encoder);
    gpu.queue.submit([encoder.finish()]);
    Ok((gpu.read::<f32>(&network.losses)?[0], gpu.read(&gradients)?))
}
