//! What the tests share: a device, small models, what plain Burn operations give, and gradients on the host.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::OnceLock;

use burn::module::{Module, ModuleVisitor, Param, ParamId};
use burn::nn::{Linear, LinearConfig};
use burn::optim::GradientsParams;
use burn::tensor::wgpu::WgpuSetup;
use burn::tensor::{DType, Device, Tensor, TensorData};
use gradclip::cpu::{self, GradMut};
use gradclip::{Clip, Group, History, Report};
use gradclip_burn::Clipper;

pub struct Gpu {
    /// With autodiff.
    pub device: Device,
    pub setup: WgpuSetup,
}

/// The device of this process: Burn registers it once. `None` where there is no adapter and nobody
/// requires one (`GRADCLIP_REQUIRE_GPU=1`).
pub fn gpu() -> Option<&'static Gpu> {
    static GPU: OnceLock<Option<Gpu>> = OnceLock::new();
    let gpu = GPU.get_or_init(|| match Device::wgpu_options().init_with_setup() {
        Ok((device, setup)) => {
            eprintln!("on {}", setup.adapter.get_info().name);
            Some(Gpu { device: device.autodiff(), setup })
        }
        Err(error) => {
            eprintln!("skipped: {error}");
            None
        }
    });
    let required = std::env::var("GRADCLIP_REQUIRE_GPU").is_ok_and(|v| v == "1");
    assert!(gpu.is_some() || !required, "GRADCLIP_REQUIRE_GPU=1, but Burn finds no wgpu device");
    gpu.as_ref()
}

/// Numbers from -1 to 1, the same everywhere.
pub fn numbers(seed: u64, count: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    (0..count).map(|_| next()).collect()
}

pub fn tensor<const D: usize>(seed: u64, shape: [usize; D], scale: f32, device: &Device) -> Tensor<D> {
    let values = numbers(seed, shape.iter().product()).iter().map(|v| v * scale).collect();
    Tensor::from_data(TensorData::new::<f32, _>(values, shape), device)
}

/// Three layers with tanh between them.
#[derive(Module, Debug)]
pub struct Mlp {
    pub layers: Vec<Linear>,
}

impl Mlp {
    pub fn new(sizes: &[usize], device: &Device) -> Mlp {
        let layer = |(i, s): (usize, &[usize])| {
            let mut linear = LinearConfig::new(s[0], s[1]).init(device);
            let scale = (s[0] as f32).sqrt().recip();
            linear.weight = Param::from_tensor(tensor(10 + i as u64, [s[0], s[1]], scale, device));
            linear.bias = Some(Param::from_tensor(tensor(50 + i as u64, [s[1]], scale, device)));
            linear
        };
        Mlp { layers: sizes.windows(2).enumerate().map(layer).collect() }
    }

    pub fn forward(&self, mut x: Tensor<2>) -> Tensor<2> {
        let last = self.layers.len() - 1;
        for (i, layer) in self.layers.iter().enumerate() {
            x = layer.forward(x);
            if i < last {
                x = x.tanh();
            }
        }
        x
    }

    /// `scale` times the mean square.
    pub fn loss(&self, input: Tensor<2>, target: Tensor<2>, scale: f32) -> Tensor<1> {
        (self.forward(input) - target).powi_scalar(2).mean().mul_scalar(scale)
    }

    /// Gradients of the loss on a batch of 16.
    pub fn grads(&self, seed: u64, scale: f32, device: &Device) -> GradientsParams {
        let first = self.layers[0].weight.dims()[0];
        let last = self.layers[self.layers.len() - 1].weight.dims()[1];
        let (input, target) =
            (tensor(seed, [16, first], 1.0, device), tensor(seed + 1, [16, last], 1.0, device));
        GradientsParams::from_grads(self.loss(input, target, scale).backward(), self)
    }
}

/// Two parameters whose gradients the tests make up.
#[derive(Module, Debug)]
pub struct Pair {
    pub matrix: Param<Tensor<2>>,
    pub vector: Param<Tensor<1>>,
}

impl Pair {
    pub fn new(device: &Device) -> Pair {
        Pair {
            matrix: Param::from_tensor(tensor(1, [6, 5], 1.0, device)),
            vector: Param::from_tensor(tensor(2, [7], 1.0, device)),
        }
    }
}

/// A gradient, or a parameter, on the host.
#[derive(Clone, Debug, PartialEq)]
pub struct Copied {
    pub path: String,
    pub shape: Vec<u64>,
    pub dtype: DType,
    pub values: Vec<f32>,
}

impl Copied {
    pub fn bits(&self) -> Vec<u32> {
        self.values.iter().map(|v| v.to_bits()).collect()
    }
}

struct Reader<'a> {
    /// Parameters where there are none.
    grads: Option<&'a GradientsParams>,
    path: Vec<String>,
    copied: Vec<Copied>,
}

impl ModuleVisitor for Reader<'_> {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.into());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let tensor = self.grads.map_or(Some(param.val().inner()), |grads| grads.get::<D>(param.id));
        if let Some(tensor) = tensor {
            let shape = tensor.dims().iter().map(|&n| n as u64).collect();
            let dtype = tensor.dtype();
            let values = tensor.into_data().convert::<f32>().try_to_vec().unwrap();
            self.copied.push(Copied { path: self.path.join("."), shape, dtype, values });
        }
    }
}

/// The gradients, read to the host.
pub fn read<M: Module>(model: &M, grads: &GradientsParams) -> Vec<Copied> {
    let mut reader = Reader { grads: Some(grads), path: Vec::new(), copied: Vec::new() };
    model.visit(&mut reader);
    reader.copied
}

pub fn read_parameters<M: Module>(model: &M) -> Vec<Copied> {
    let mut reader = Reader { grads: None, path: Vec::new(), copied: Vec::new() };
    model.visit(&mut reader);
    reader.copied
}

/// What the CPU path of the library makes of them.
pub fn on_cpu(
    copied: &mut [Copied],
    parameters: &[Copied],
    clip: &Clip,
    history: &mut History,
    group_of: impl Fn(&str) -> Option<Group>,
) -> Report {
    let mut halves: Vec<Vec<half::f16>> =
        copied.iter().map(|c| c.values.iter().map(|&v| half::f16::from_f32(v)).collect()).collect();
    let is_half: Vec<bool> = copied.iter().map(|c| c.dtype == DType::F16).collect();
    let mut grads: Vec<GradMut<'_>> = Vec::new();
    for (i, (c, h)) in copied.iter_mut().zip(&mut halves).enumerate() {
        let grad = if is_half[i] {
            GradMut::f16(c.path.as_str(), h)
        } else {
            GradMut::new(c.path.as_str(), &mut c.values)
        };
        let mut grad = grad.shape(&c.shape);
        if let Some(group) = group_of(&c.path) {
            grad = grad.group(&group);
        }
        if let Some(parameter) = parameters.iter().find(|p| p.path == c.path) {
            grad = grad.parameter(&parameter.values[..]);
        }
        grads.push(grad);
    }
    let report = cpu::clip_with(&mut grads, clip, history).unwrap();
    drop(grads);
    for (i, c) in copied.iter_mut().enumerate().filter(|(i, _)| is_half[*i]) {
        c.values = halves[i].iter().map(|h| h.to_f32()).collect();
    }
    report
}

pub fn no_group(_path: &str) -> Option<Group> {
    None
}

pub fn mlp(gpu: &Gpu) -> Mlp {
    Mlp::new(&[12, 33, 20, 3], &gpu.device)
}

/// Steps with one clipper, each bit for bit as on the CPU.
pub fn same_as_cpu(gpu: &Gpu, clip: Clip, steps: u64, group_of: fn(&str) -> Option<Group>) -> Clipper {
    let model = mlp(gpu);
    let parameters = read_parameters(&model);
    let clipper = Clipper::new(&gpu.device, &gpu.setup, clip).unwrap().groups(group_of);
    let mut history = History::default();
    for step in 0..steps {
        let scale = [1e3, 1.0, 30.0, 1e4][step as usize % 4];
        let mut grads = model.grads(2 * step, scale, &gpu.device);
        let mut required = read(&model, &grads);
        let expected = on_cpu(&mut required, &parameters, &clip, &mut history, group_of);
        clipper.clip(&model, &mut grads).unwrap();
        assert_same_bits(&format!("step {step} of {clip:?}"), &read(&model, &grads), &required);
        assert_eq!(clipper.report().unwrap(), expected);
    }
    clipper
}

/// The norm of all of them, in f64.
pub fn norm(copied: &[Copied]) -> f64 {
    let squares = copied.iter().flat_map(|c| &c.values).map(|&v| f64::from(v) * f64::from(v));
    squares.sum::<f64>().sqrt()
}

/// A global clip of plain Burn operations, on the device.
pub fn composed<M: Module>(model: &M, grads: &mut GradientsParams, max_norm: f32) {
    let mut squares = Squares { grads, sums: Vec::new() };
    model.visit(&mut squares);
    let norm = Tensor::cat(squares.sums, 0).sum().sqrt();
    let coefficient = norm.recip().mul_scalar(max_norm).clamp_max(1.0);
    model.visit(&mut Scale { grads, coefficient });
}

struct Squares<'a> {
    grads: &'a GradientsParams,
    sums: Vec<Tensor<1>>,
}

impl ModuleVisitor for Squares<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(grad) = self.grads.get::<D>(param.id) {
            self.sums.push(grad.square().sum());
        }
    }
}

struct Scale<'a> {
    grads: &'a mut GradientsParams,
    coefficient: Tensor<1>,
}

impl ModuleVisitor for Scale<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(grad) = self.grads.remove::<D>(param.id) {
            self.grads.register(param.id, grad.mul(self.coefficient.clone().unsqueeze()));
        }
    }
}

/// The largest difference, relative to the largest magnitude of the tensor it is in.
pub fn difference(a: &[Copied], b: &[Copied]) -> f64 {
    assert_eq!(a.len(), b.len());
    let largest = |v: &[f32]| v.iter().fold(0.0f64, |m, &x| m.max(f64::from(x.abs())));
    let one = |(a, b): (&Copied, &Copied)| {
        assert_eq!((&a.path, a.values.len()), (&b.path, b.values.len()));
        let pairs = a.values.iter().zip(&b.values);
        let most = pairs.fold(0.0f64, |m, (&x, &y)| m.max((f64::from(x) - f64::from(y)).abs()));
        most / largest(&b.values).max(f64::MIN_POSITIVE)
    };
    a.iter().zip(b).map(one).fold(0.0, f64::max)
}

pub fn assert_same_bits(what: &str, given: &[Copied], required: &[Copied]) {
    assert_eq!(given.len(), required.len(), "{what}");
    for (g, r) in given.iter().zip(required) {
        assert_eq!((&g.path, &g.shape, g.dtype), (&r.path, &r.shape, r.dtype), "{what}");
        assert_eq!(g.bits(), r.bits(), "{what}: {}", g.path);
    }
}

pub fn id_of(param: &Param<Tensor<2>>) -> ParamId {
    param.id
}
