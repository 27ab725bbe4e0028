//! What the tests share: a device, held by one test at a time, what gradclip-verify has for them, and that the device does
//! what the CPU path does.
#![allow(dead_code, unreachable_pub, unused_imports, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

pub mod files;
pub mod run;
pub mod stepping;

use std::ops::Deref;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use gradclip::cpu::Trace;
use gradclip::layout::{Outcome, Partial, Sum, Tally};
use gradclip::{Clip, Clipper, ClipperOptions, Grad, History, NonFinite, Pass, Report, wgpu};
pub use gradclip_verify::compare::{
    assert_all_close, assert_close, assert_same, assert_scaled, bits, norm, norm_as, ulps,
};
pub use gradclip_verify::gpu::{Operands, Placed, PlacedEntries, Placing, expected};
pub use gradclip_verify::inputs::{
    DISTRIBUTIONS, Distribution, Entries, NORMS, Naming, RULES, Random, SCOPES, data,
};
pub use gradclip_verify::oracle::plain;
pub use gradclip_verify::tensor::{
    Data, Element, Named, Tensor, floats, grads, named, shaped, steps, traced,
};
pub use gradclip_verify::{budget, tolerance};

/// A device, compiled for once for all tests of a process.
pub struct Gpu {
    pub name: String,
    gpu: gradclip_verify::gpu::Gpu,
}

impl Deref for Gpu {
    type Target = gradclip_verify::gpu::Gpu;

    fn deref(&self) -> &Self::Target {
        &self.gpu
    }
}

/// The device, for as long as a test holds it: wgpu's GL backend panics where two threads want its
/// context at once, and software adapters use all cores anyway.
pub struct Held {
    gpu: &'static Gpu,
    _alone: MutexGuard<'static, ()>,
}

impl Deref for Held {
    type Target = Gpu;

    fn deref(&self) -> &Gpu {
        self.gpu
    }
}

/// The device of this process. `None` where there is no adapter and nobody requires one.
///
/// `GRADCLIP_REQUIRE_GPU=1` makes a missing adapter a failure; `GRADCLIP_TEST_ADAPTER` picks the
/// adapter whose `backend/name` contains it; `GRADCLIP_TEST_LIMITS=default` asks for
/// `Limits::default()` and no features; `GRADCLIP_TEST_FORM=hardware` takes the kernels that hardware runs.
pub fn gpu() -> Option<Held> {
    static ALONE: Mutex<()> = Mutex::new(());
    static GPU: OnceLock<Option<Gpu>> = OnceLock::new();
    // A test that failed while holding the device left it usable.
    let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let gpu = GPU.get_or_init(open).as_ref();
    let required = std::env::var("GRADCLIP_REQUIRE_GPU").is_ok_and(|v| v == "1");
    assert!(gpu.is_some() || !required, "GRADCLIP_REQUIRE_GPU=1, but there is no such adapter");
    if gpu.is_none() {
        eprintln!("skipped: no adapter, and GRADCLIP_REQUIRE_GPU is not set");
    }
    gpu.map(|gpu| Held { gpu, _alone: alone })
}

fn open() -> Option<Gpu> {
    let adapter = gradclip_verify::gpu::adapter().ok()?;
    let plain = std::env::var("GRADCLIP_TEST_LIMITS").is_ok_and(|v| v == "default");
    let required_limits = if plain { wgpu::Limits::default() } else { Clipper::recommended_limits(&adapter) };
    let descriptor = wgpu::DeviceDescriptor { required_limits, ..Default::default() };
    Some(Gpu::with(&adapter, &descriptor, formed(ClipperOptions::default())))
}

/// With the kernels that the environment asks for, where other options leave the choice.
fn formed(options: ClipperOptions) -> ClipperOptions {
    let hardware = std::env::var("GRADCLIP_TEST_FORM").is_ok_and(|v| v == "hardware");
    if hardware && options.vector_loads.is_none() && options.workgroup_size.is_none_or(|size| size == 256) {
        let (rounded, finish) = (options.rounded_slots.unwrap_or(true), options.finish.unwrap_or(true));
        let options = options.trusted_shaders(options.trusted_shaders.unwrap_or(true));
        return options.vector_loads(true).full_multiply(true).rounded_slots(rounded).finish(finish);
    }
    options
}

impl Gpu {
    fn with(
        adapter: &wgpu::Adapter,
        descriptor: &wgpu::DeviceDescriptor<'_>,
        options: ClipperOptions,
    ) -> Gpu {
        let gpu = gradclip_verify::gpu::Gpu::with(adapter, descriptor, options).expect("a device");
        Gpu { name: gpu.name(), gpu }
    }

    /// Another device of the same adapter, with the least limits but for what is changed.
    pub fn other(&self, change: impl FnOnce(&mut wgpu::DeviceDescriptor<'_>)) -> Gpu {
        let required_limits = wgpu::Limits::default().or_worse_values_from(&self.adapter.limits());
        let mut descriptor = wgpu::DeviceDescriptor { required_limits, ..Default::default() };
        change(&mut descriptor);
        Gpu::with(&self.adapter, &descriptor, ClipperOptions::default())
    }

    /// Whether tests of many kernels should take fewer.
    pub fn compiles_slowly(&self) -> bool {
        self.name.to_lowercase().contains("swiftshader")
    }

    pub fn clipper_with(&self, options: ClipperOptions) -> Clipper {
        Clipper::with_options(&self.device, formed(options)).expect("a clipper")
    }

    /// Software's kernels and hardware's.
    pub fn forms(&self) -> [Clipper; 2] {
        let plain = ClipperOptions::default().workgroup_size(256);
        [plain.vector_loads(false), plain.vector_loads(true)].map(|options| self.clipper_with(options))
    }

    /// The exact norms, of which one has to do where kernels take ten times as long to compile as elsewhere.
    pub fn norms(&self) -> &'static [gradclip::NormType] {
        if self.compiles_slowly() { &NORMS[..1] } else { &NORMS }
    }

    pub fn place(&self, tensors: &[Tensor], placing: Placing) -> Placed {
        Placed::upload(self, tensors, placing)
    }

    /// Each tensor in a buffer of its own.
    pub fn separate(&self, tensors: &[Vec<f32>]) -> Vec<Grad> {
        self.place(&named(tensors), Placing::APART).grads
    }

    /// All tensors in one buffer, `gap` words apart, the first after `lead` words.
    pub fn arena(&self, tensors: &[Vec<f32>], lead: usize, gap: usize) -> Vec<Grad> {
        self.place(&named(tensors), Placing::arena(4 * lead, 4 * gap)).grads
    }

    /// Other numbers where gradients in buffers of their own are.
    pub fn write(&self, grads: &[Grad], tensors: &[impl AsRef<[f32]>]) {
        for (grad, t) in grads.iter().zip(tensors) {
            self.queue.write_buffer(grad.buffer(), 0, bytemuck::cast_slice(t.as_ref()));
        }
    }

    pub fn read<T: bytemuck::Pod>(&self, buffer: &wgpu::Buffer) -> Vec<T> {
        self.gpu.read(buffer, 0..buffer.size()).unwrap()
    }

    /// Runs a prepared pass once.
    pub fn run(&self, pass: &Pass) -> Report {
        let report = self.submit(|encoder| {
            pass.record(encoder);
            pass.read_back(encoder).expect("a free place")
        });
        report.wait().expect("a report")
    }

    /// The history of a pass.
    pub fn save(&self, pass: &Pass) -> History {
        self.submit(|encoder| pass.save_history(encoder).unwrap()).wait().unwrap()
    }

    /// Clips tensors in buffers of their own and returns what became of them.
    pub fn clip(&self, tensors: &[Vec<f32>], clip: &Clip) -> (Report, Vec<Vec<f32>>) {
        let placed = self.place(&named(tensors), Placing::APART);
        let report = self.run(&self.clipper.prepare(&placed.grads, clip).expect("a pass"));
        (report, placed.read(self).unwrap().iter().map(Data::floats).collect())
    }

    /// Every record that a pass left, against the CPU's.
    pub fn assert_records(&self, pass: &Pass, trace: &Trace, what: &str) {
        let partials = self.read::<Partial>(pass.partials());
        for (i, (ours, theirs)) in trace.partials.iter().zip(&partials).enumerate() {
            assert_eq!(theirs, ours, "{what}: partial of chunk {i}");
        }
        let sums = |buffer| self.read::<Sum>(buffer);
        assert_eq!(sums(pass.tensor_sums())[..trace.tensor_sums.len()], trace.tensor_sums, "{what}: tensors");
        assert_eq!(
            sums(pass.segment_sums())[..trace.segment_sums.len()],
            trace.segment_sums,
            "{what}: segments"
        );
        // As words: a NaN norm equals itself.
        let words = |outcome: &Outcome| -> [u32; 12] { bytemuck::cast(*outcome) };
        let outcomes = self.read::<Outcome>(pass.outcomes());
        for (i, (ours, theirs)) in trace.outcomes.iter().zip(&outcomes).enumerate() {
            assert_eq!(words(theirs), words(ours), "{what}: {theirs:?} of segment {i}, {ours:?} on the CPU");
        }
        assert!(partials.len() >= trace.partials.len() && outcomes.len() >= trace.outcomes.len(), "{what}");
        let mut tally = self.read::<Tally>(pass.tally())[0];
        if trace.outcomes.is_empty() {
            // Whoever decides writes the factor, and there is nothing to decide.
            tally.unscale = trace.tally.unscale;
        }
        assert_eq!(tally, trace.tally, "{what}: tally");
    }

    /// Clips on the CPU path, and on the device to the same bits: records, report and gradients, and nothing beside.
    pub fn same(&self, tensors: &[Tensor], clip: &Clip) -> (Trace, Vec<Tensor>) {
        self.same_in(&self.clipper, tensors, Placing::APART, clip)
    }

    pub fn same_in(
        &self,
        clipper: &Clipper,
        tensors: &[Tensor],
        placing: Placing,
        clip: &Clip,
    ) -> (Trace, Vec<Tensor>) {
        let (trace, after) = traced(tensors, clip).unwrap();
        self.assert_does(clipper, &self.place(tensors, placing), clip, &(trace.clone(), after.clone()));
        (trace, after)
    }

    /// A clip of what is placed does what the CPU path did, as it was uploaded.
    pub fn assert_does(
        &self,
        clipper: &Clipper,
        placed: &Placed,
        clip: &Clip,
        (trace, after): &(Trace, Vec<Tensor>),
    ) {
        let what = format!("{clip:?} on {}", self.name);
        placed.restore(self);
        let pass = clipper.prepare(&placed.grads, clip).unwrap();
        let report = self.run(&pass);
        self.assert_records(&pass, trace, &what);
        // NaN is not equal to itself, but it prints alike.
        assert_eq!(format!("{report:?}"), format!("{:?}", trace.report), "{what}");
        let nan = matches!(clip.non_finite, NonFinite::Nan | NonFinite::Keep);
        assert_same(&placed.read(self).unwrap(), after, nan, &what);
    }
}

/// On the CPU path, and where there is a device on that, to the same bits.
pub fn on_both(gpu: &Option<Held>, tensors: &[Tensor], clip: &Clip) -> (Report, Vec<Tensor>) {
    let (trace, after) = match gpu {
        Some(gpu) => gpu.same(tensors, clip),
        None => traced(tensors, clip).unwrap(),
    };
    (trace.report, after)
}

/// On the CPU path alone.
pub fn on_cpu(tensors: &[Vec<f32>], clip: &Clip) -> (Report, Vec<Vec<f32>>) {
    let (trace, after) = traced(&named(tensors), clip).unwrap();
    (trace.report, floats(&after))
}

/// What lies in separate buffers.
pub fn contents(gpu: &Gpu, grads: &[Grad], tensors: &[Vec<f32>]) -> Vec<Vec<f32>> {
    let one = |(g, t): (&Grad, &Vec<f32>)| gpu.read::<f32>(g.buffer())[..t.len()].to_vec();
    grads.iter().zip(tensors).map(one).collect()
}
