//! Units by what a parameter is: each against norms that are added up in f64 over the axes of its own kind.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use burn::module::{Module, Param};
use burn::nn::conv::{Conv2d, Conv2dConfig, ConvTranspose2d, ConvTranspose2dConfig};
use burn::nn::{Embedding, EmbeddingConfig, Linear, LinearConfig};
use burn::optim::GradientsParams;
use burn::tensor::Tensor;
use gradclip_burn::{Clip, Clipper, Error, Units};

use common::{Copied, Gpu, gpu, norm, read, read_parameters, tensor};

#[derive(Module, Debug)]
struct Mixed {
    convolution: Conv2d,
    transposed: ConvTranspose2d,
    tokens: Embedding,
    layers: Vec<Linear>,
    own: Param<Tensor<2>>,
}

impl Mixed {
    fn new(gpu: &Gpu) -> Mixed {
        let mut model = Mixed {
            convolution: Conv2dConfig::new([3, 5], [3, 2]).init(&gpu.device),
            transposed: ConvTranspose2dConfig::new([4, 6], [2, 3]).init(&gpu.device),
            tokens: EmbeddingConfig::new(11, 4).init(&gpu.device),
            layers: vec![LinearConfig::new(7, 9).init(&gpu.device)],
            own: Param::from_tensor(tensor(3, [8, 3], 1.0, &gpu.device)),
        };
        model.convolution.weight = Param::from_tensor(tensor(1, [5, 3, 3, 2], 1.0, &gpu.device));
        model.transposed.weight = Param::from_tensor(tensor(2, [4, 6, 2, 3], 1.0, &gpu.device));
        model
    }

    /// One of each, of some length.
    fn grads(&self, gpu: &Gpu) -> GradientsParams {
        let device = gpu.device.clone().inner();
        let mut grads = GradientsParams::new();
        grads.register(self.convolution.weight.id, tensor::<4>(11, [5, 3, 3, 2], 9.0, &device));
        grads.register(self.transposed.weight.id, tensor::<4>(12, [4, 6, 2, 3], 9.0, &device));
        grads.register(self.tokens.weight.id, tensor::<2>(13, [11, 4], 9.0, &device));
        grads.register(self.layers[0].weight.id, tensor::<2>(14, [7, 9], 9.0, &device));
        grads.register(self.layers[0].bias.as_ref().unwrap().id, tensor::<1>(15, [9], 9.0, &device));
        grads.register(self.own.id, tensor::<2>(16, [8, 3], 9.0, &device));
        grads
    }
}

/// The axis that counts outputs, as the layers' documentation has it; none where the tensor is one unit.
fn axis(path: &str) -> Option<usize> {
    match path {
        "convolution.weight" | "tokens.weight" => Some(0),
        "transposed.weight" | "layers.0.weight" => Some(1),
        // The clip's own: outputs first.
        "own" => Some(0),
        _ => None,
    }
}

/// The elements of each unit, by their places.
fn units(c: &Copied, axis: Option<usize>) -> Vec<Vec<usize>> {
    let Some(axis) = axis else { return vec![(0..c.values.len()).collect()] };
    let after: usize = c.shape[axis + 1..].iter().product::<u64>() as usize;
    let count = c.shape[axis] as usize;
    let mut units = vec![Vec::new(); count];
    (0..c.values.len()).for_each(|i| units[i / after % count].push(i));
    units
}

fn some(c: &Copied, places: &[usize]) -> Copied {
    Copied { values: places.iter().map(|&i| c.values[i]).collect(), ..c.clone() }
}

/// Every element is what f64 makes of its unit, whose threshold is given.
#[track_caller]
fn assert_clipped(after: &[Copied], before: &[Copied], threshold: impl Fn(usize, &[usize]) -> f64) {
    let mut clipped = 0;
    for (i, (a, b)) in after.iter().zip(before).enumerate() {
        for unit in units(b, axis(&b.path)) {
            let (exact, most) = (norm(&[some(b, &unit)]), threshold(i, &unit));
            let factor = (most / exact).min(1.0);
            clipped += usize::from(factor < 1.0);
            for &place in &unit {
                // The norms are off by 0.65 ulp each, the quotient and the product by half a one; thresholds are norms too.
                let required = f64::from(b.values[place]) * factor;
                let given = f64::from(a.values[place]);
                assert!(
                    (given - required).abs() <= 4.0 * 2f64.powi(-23) * required.abs(),
                    "{} {place}",
                    a.path
                );
            }
        }
    }
    assert!(clipped > 25, "{clipped} units were clipped");
}

#[test]
fn each_kind_of_module_has_its_own_units() {
    let Some(gpu) = gpu() else { return };
    let model = Mixed::new(gpu);
    let clip = Clip::per_unit_norm(2.0, Units::OutputFirst);
    let clipper = Clipper::new(&gpu.device, &gpu.setup, clip).unwrap().units_by_module();
    let mut grads = model.grads(gpu);
    let before = read(&model, &grads);
    assert_eq!(before.len(), 6);
    clipper.clip(&model, &mut grads).unwrap();
    assert_clipped(&read(&model, &grads), &before, |_, _| 2.0);
    // All alike it would be otherwise.
    let alike = Clipper::new(&gpu.device, &gpu.setup, clip).unwrap();
    let mut other = model.grads(gpu);
    alike.clip(&model, &mut other).unwrap();
    let differ = read(&model, &grads).iter().zip(read(&model, &other)).filter(|(a, b)| *a != b).count();
    assert_eq!(differ, 2, "Linear and the transposed convolution");
}

#[test]
fn agc_clips_a_whole_model_by_the_units_of_each_kind() {
    let Some(gpu) = gpu() else { return };
    let model = Mixed::new(gpu);
    let factor = 0.01f32;
    let clip = Clip::agc(factor, Units::OutputFirst);
    let clipper = Clipper::new(&gpu.device, &gpu.setup, clip).unwrap().units_by_module();
    let mut grads = model.grads(gpu);
    let before = read(&model, &grads);
    let mut parameters = read_parameters(&model);
    parameters.retain(|p| before.iter().any(|b| b.path == p.path));
    clipper.clip(&model, &mut grads).unwrap();
    assert_clipped(&read(&model, &grads), &before, |i, unit| {
        f64::from(factor) * norm(&[some(&parameters[i], unit)]).max(1e-3)
    });
}

#[test]
fn units_can_be_told_by_path_and_are_checked() {
    let Some(gpu) = gpu() else { return };
    let model = Mixed::new(gpu);
    let told = |axis_of: fn(&str) -> Option<usize>, units| {
        let clip = Clip::per_unit_norm(2.0, units);
        let clipper = Clipper::new(&gpu.device, &gpu.setup, clip).unwrap();
        let clipper = clipper.units_by(move |parameter| axis_of(parameter.path));
        let mut grads = model.grads(gpu);
        let before = read(&model, &grads);
        clipper.clip(&model, &mut grads).map(|()| (read(&model, &grads), before))
    };
    let (after, before) = told(axis, Units::over(&[7])).unwrap();
    assert_clipped(&after, &before, |_, _| 2.0);
    // Nothing said, and the clip's own rule is not known here.
    let error = told(|path| axis(path).filter(|_| path != "own"), Units::over(&[1])).unwrap_err();
    assert!(matches!(&error, Error::Units { parameter, .. } if parameter == "own"), "{error}");
    let error = told(|_| Some(2), Units::OutputFirst).unwrap_err();
    let words = error.to_string();
    assert!(
        words.contains("tokens.weight") && words.contains("Embedding") && words.contains("axis 2"),
        "{words}"
    );
}
