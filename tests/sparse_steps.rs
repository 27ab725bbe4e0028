//! Steps on rows of tables: rows that are named by the optimisers' formulas in f64, every other bit as it was, GPU and CPU path.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::tolerance::SCALED;
use common::{
    Distribution, Element, Entries, Gpu, Naming, PlacedEntries, Tensor, assert_close, data, files, gpu, norm,
};
use gradclip::cpu::{self, Moments, StepMut};
use gradclip::{
    Adam, Adopt, Checkpoint, Clip, ClipError, DType, Grad, Group, History, Lion, Optimizer, PlanError,
    PrepareError, RAdam, Report, Sgd, Stepper, Units, wgpu,
};
use gradclip_verify::oracle::near::{Machine, Near};
use gradclip_verify::oracle::optimizer::Step;

/// A table and a dense parameter on the CPU path.
struct Here {
    clip: Clip,
    optimizer: Optimizer,
    history: History,
    moments: Moments,
    parameters: [Vec<f32>; 2],
}

impl Here {
    fn new(parameters: &[Vec<f32>; 2], clip: &Clip, optimizer: Optimizer) -> Here {
        let (history, moments) = (History::default(), Moments::default());
        Here { clip: *clip, optimizer, history, moments, parameters: parameters.clone() }
    }

    fn step(&mut self, entries: &Entries, dense: &[f32]) -> Report {
        let added = entries.valid().0.coalesced().unwrap();
        let [table, w] = &mut self.parameters;
        let shape = [added.rows.len() as u64, entries.table[1] as u64];
        let mut steps = [
            StepMut::new("table", &added.values[..], table).rows(&added.rows).shape(&shape),
            StepMut::new("w", dense, w).shape(&[dense.len() as u64, 1]),
        ];
        let Here { clip, optimizer, history, moments, .. } = self;
        cpu::step(&mut steps, clip, *optimizer, history, moments).unwrap()
    }
}

/// The same on a device. How many entries there are at most stays, and so do buffers.
struct There<'g> {
    gpu: &'g Gpu,
    entries: PlacedEntries,
    parameters: [wgpu::Buffer; 2],
    dense: wgpu::Buffer,
    stepper: Stepper,
}

impl<'g> There<'g> {
    fn new(gpu: &'g Gpu, first: &Entries, here: &Here) -> There<'g> {
        let entries = PlacedEntries::upload(gpu, &gpu.clipper, first).unwrap();
        let parameters = here.parameters.each_ref().map(|p| gpu.upload(bytemuck::cast_slice(p)));
        let dense = gpu.storage(4 * here.parameters[1].len() as u64);
        let grads = [
            entries.coalescer.grad().parameter(&parameters[0], 0, DType::F32),
            Grad::new("w", &dense).shape(&[dense.size() / 4, 1]).parameter(&parameters[1], 0, DType::F32),
        ];
        let stepper = gpu.clipper.prepare_step(&grads, &here.clip, here.optimizer).unwrap();
        There { gpu, entries, parameters, dense, stepper }
    }

    fn step(&self, entries: &Entries, dense: &[f32]) -> Report {
        let [indices, values] = &self.entries.buffers;
        self.gpu.queue.write_buffer(indices, 4, bytemuck::cast_slice(&entries.indices));
        self.gpu.queue.write_buffer(values, 8, entries.values.bytes());
        self.gpu.queue.write_buffer(&self.dense, 0, bytemuck::cast_slice(dense));
        let report = self.gpu.submit(|encoder| {
            self.entries.coalescer.record(encoder);
            self.stepper.record_step(encoder);
            self.stepper.read_back(encoder).unwrap()
        });
        report.wait().unwrap()
    }

    /// Parameters, and moments of each.
    fn state(&self) -> ([Vec<f32>; 2], Vec<Vec<Vec<f32>>>) {
        let parameters = self.parameters.each_ref().map(|p| self.gpu.read(p));
        let moment = |m: &gradclip::Moment| {
            let words: Vec<f32> = self.gpu.read(&m.buffer);
            words[m.offset as usize / 4..][..m.elements as usize].to_vec()
        };
        (parameters, self.stepper.moments().iter().map(|of| of.iter().map(moment).collect()).collect())
    }
}

/// Parameter and moments of one element; 0 for those that there are not.
fn element(parameters: &[f32], moments: &[Vec<f32>], i: usize) -> [f64; 4] {
    let moment = |k: usize| moments.get(k).or(moments.last()).map_or(0.0, |m| f64::from(m[i]));
    [parameters[i].into(), moment(0), moment(1), moment(2)]
}

/// As peers have Adam for rows.
fn by_rows(optimizer: Optimizer) -> Optimizer {
    match optimizer {
        Optimizer::Adam(adam) => adam.eps_hat(true).into(),
        other => other,
    }
}

type State = ([Vec<f32>; 2], Vec<Vec<Vec<f32>>>);

/// Rows that are named are where the formula has them from what they were, and every bit of others is as it was.
fn assert_moved(
    (machine, optimizer, t): (Machine, Optimizer, u32),
    entries: &Entries,
    factor: f64,
    [before, after]: [&State; 2],
    what: &str,
) {
    let added = entries.coalesced().unwrap();
    let width = entries.table[1];
    let step = Step::new(machine, by_rows(optimizer), t, 1.0, optimizer.weight_decay());
    for row in 0..entries.table[0] {
        let named = added.rows.binary_search(&(row as u32)).ok();
        for column in 0..width {
            let i = row * width + column;
            let from = element(&before.0[0], &before.1[0], i);
            let got = element(&after.0[0], &after.1[0], i);
            let Some(k) = named else {
                assert_eq!(from.map(f64::to_bits), got.map(f64::to_bits), "{what}: row {row} is not named");
                continue;
            };
            let g = f64::from(added.values[k * width + column]) * factor;
            let near = step.of(Near::within(g, SCALED * g.abs()), from);
            for (role, (near, got)) in near.iter().zip(got).enumerate() {
                let (off, most) = (near.off(got), near.most());
                assert!(
                    off <= most,
                    "{what}, role {role} of row {row}: {got} is not {}: {off} of {most} ulp",
                    near.value
                );
            }
        }
    }
}

fn optimizers() -> Vec<Optimizer> {
    vec![
        Sgd::new(0.1).into(),
        Sgd::new(0.1).weight_decay(0.05).into(),
        Sgd::new(0.1).momentum(0.9).nesterov(true).into(),
        Adam::new(0.01).eps(1e-3).into(),
        Adam::adamw(0.01).weight_decay(0.1).betas(0.8, 0.9).into(),
        Adam::new(0.01).betas(0.9, 0.5).amsgrad(true).maximize(true).into(),
        RAdam::new(0.01).into(),
        Adopt::new(0.01).into(),
        Lion::new(0.01).into(),
    ]
}

#[test]
fn rows_follow_their_formulas_and_no_other_moves() {
    let gpu = gpu();
    let (rows, width, n) = (300, 7, 120);
    let parameters =
        [data(Distribution::Uniform(1.0), rows * width, 1), data(Distribution::Uniform(1.0), 5, 2)];
    let clip = Clip::global_norm(1.0);
    let entries = |t: u32| {
        Entries::new(Naming::Words, n, [rows, width], Element::F32, Distribution::Uniform(1.0), u64::from(t))
    };
    let dense = |t: u32| data(Distribution::Uniform(1.0), 5, 50 + u64::from(t));
    for optimizer in optimizers() {
        let mut here = Here::new(&parameters, &clip, optimizer);
        // Gradient, table and three moments beside four tables of ours.
        let has_room = |gpu: &Gpu| {
            optimizer.moments() < 3 || gpu.device.limits().max_storage_buffers_per_shader_stage > 8
        };
        let there = gpu.as_ref().filter(|gpu| has_room(gpu)).map(|gpu| There::new(gpu, &entries(0), &here));
        let zeros = [rows * width, 5].map(|n| vec![vec![0.0; n]; optimizer.moments()]).to_vec();
        let mut before = [(parameters.clone(), zeros.clone()), (parameters.clone(), zeros)];
        for t in 1..=4 {
            let (entries, dense) = (entries(t), dense(t));
            let factor = 1.0 / norm(&[entries.coalesced().unwrap().values, dense.clone()]);
            assert!(factor < 1.0);
            let what = |who: &str| format!("{who}, {optimizer:?}, step {t}");
            let report = here.step(&entries, &dense);
            let after = (here.parameters.clone(), here.moments.tensors.clone());
            assert_moved((Machine::CPU, optimizer, t), &entries, factor, [&before[0], &after], &what("CPU"));
            before[0] = after;
            let Some(there) = &there else { continue };
            assert_eq!(there.step(&entries, &dense).norm(), report.norm());
            let after = there.state();
            let known = (Machine::DEVICE, optimizer, t);
            assert_moved(known, &entries, factor, [&before[1], &after], &what(&there.gpu.name));
            before[1] = after;
        }
    }
}

/// What is not finite, or no row of the table, leaves everything as it is and does not count.
#[test]
fn a_step_that_is_left_out_moves_nothing() {
    let gpu = gpu();
    let parameters = [vec![1.0f32; 40], vec![1.0; 3]];
    let mut entries = Entries::new(Naming::Any, 12, [10, 4], Element::F32, Distribution::Uniform(1.0), 1);
    let mut here = Here::new(&parameters, &Clip::global_norm(1.0), Adam::new(0.1).into());
    let there = gpu.as_ref().map(|gpu| There::new(gpu, &entries, &here));
    here.step(&entries, &[1.0; 3]);
    let kept = (here.parameters.clone(), here.moments.clone());
    let mut state = there.as_ref().map(|there| {
        there.step(&entries, &[1.0; 3]);
        there.state()
    });
    let right = entries.indices[5];
    for (row, dense) in [(right, f32::NAN), (10, 1.0), (u32::MAX, 1.0)] {
        entries.indices[5] = row;
        if row == right {
            assert!(here.step(&entries, &[dense; 3]).segments[0].skipped);
            assert!((&here.parameters, &here.moments) == (&kept.0, &kept.1));
        }
        if let (Some(there), Some(state)) = (&there, &state) {
            let report = there.step(&entries, &[dense; 3]);
            assert_eq!(
                (report.updates, report.segments[0].skipped),
                (1, true),
                "{row} on {}",
                there.gpu.name
            );
            assert!(there.state() == *state, "{row} on {}", there.gpu.name);
        }
    }
    // And goes on.
    entries.indices[5] = right;
    if let (Some(there), Some(state)) = (&there, &mut state) {
        assert_eq!(there.step(&entries, &[1.0; 3]).updates, 2);
        assert!(there.state() != *state);
    }
}

/// Entries beyond the number that holds are no rows of the step.
#[test]
fn no_entry_is_no_row() {
    let gpu = gpu();
    let parameters = [data(Distribution::Uniform(1.0), 40, 1), vec![1.0; 3]];
    let mut entries = Entries::new(Naming::Each, 8, [10, 4], Element::F16, Distribution::Uniform(1.0), 1);
    entries.count = Some(0);
    let mut here = Here::new(&parameters, &Clip::global_norm(1.0), Sgd::new(0.5).into());
    here.step(&entries, &[1.0; 3]);
    assert!(here.parameters[0] == parameters[0] && here.parameters[1] != parameters[1]);
    let Some(gpu) = &gpu else { return };
    let there = There::new(gpu, &entries, &Here::new(&parameters, &here.clip, here.optimizer));
    there.step(&entries, &[1.0; 3]);
    assert!(there.state().0[0] == parameters[0] && there.state().0[1] != parameters[1], "{}", gpu.name);
}

/// Rows are units: each by its own norm, and its row moves by that.
#[test]
fn units_are_rows_that_are_named() {
    let gpu = gpu();
    let parameters = [vec![0.0f32; 50 * 6], vec![0.0; 4]];
    let entries = Entries::new(Naming::Words, 60, [50, 6], Element::F32, Distribution::Uniform(1.0), 8);
    let clip = Clip::per_unit_norm(0.5, Units::OutputFirst);
    let mut here = Here::new(&parameters, &clip, Sgd::new(1.0).into());
    here.step(&entries, &[2.0; 4]);
    let added = entries.coalesced().unwrap();
    let mut want = vec![0.0f64; 300];
    for (row, values) in added.rows.iter().zip(added.values.chunks(6)) {
        let factor = (0.5 / norm(&[values.to_vec()])).min(1.0);
        let to = &mut want[*row as usize * 6..][..6];
        to.iter_mut().zip(values).for_each(|(to, g)| *to = -f64::from(*g) * factor);
    }
    assert_close(here.parameters[0].iter().copied(), want, SCALED, 0.0, "CPU");
    let Some(gpu) = &gpu else { return };
    let there = There::new(gpu, &entries, &Here::new(&parameters, &clip, here.optimizer));
    there.step(&entries, &[2.0; 4]);
    assert_eq!(there.state().0, here.parameters, "{}", gpu.name);
}

/// A table larger than a binding takes a dispatch for each part of it.
#[test]
fn tables_are_as_large_as_bindings_or_larger() {
    let Some(gpu) = gpu() else { return };
    let gpu = gpu.other(|descriptor| descriptor.required_limits.max_storage_buffer_binding_size = 1 << 17);
    for (rows, width, n) in [(32_000, 3, 500), (900, 100, 400), (5, 9_000, 9), (30_000, 1, 5_000)] {
        let parameters = [data(Distribution::Uniform(1.0), rows * width, 1), vec![1.0; 3]];
        let entries =
            Entries::new(Naming::Any, n, [rows, width], Element::F32, Distribution::Uniform(1.0), 4);
        for optimizer in [Optimizer::from(Sgd::new(0.5)), Adam::new(0.1).into()] {
            let mut here = Here::new(&parameters, &Clip::global_norm(f64::INFINITY), optimizer);
            let there = There::new(&gpu, &entries, &here);
            there.step(&entries, &[1.0; 3]);
            here.step(&entries, &[1.0; 3]);
            let (got, _) = there.state();
            let what = format!("{rows} rows of {width}, {optimizer:?} on {}", gpu.name);
            let want = here.parameters[0].iter().map(|&p| f64::from(p));
            assert_close(got[0].iter().copied(), want, SCALED, 1e-7, &what);
        }
    }
}

/// A table beside its moments in one buffer, at an odd place, in another order: the same bits.
#[test]
fn tables_and_moments_may_share_a_buffer() {
    let Some(gpu) = gpu() else { return };
    let (rows, width) = (90, 5);
    let table = data(Distribution::Uniform(1.0), rows * width, 1);
    let entries = Entries::new(Naming::Words, 40, [rows, width], Element::F32, Distribution::Uniform(1.0), 4);
    let step = |grad: &dyn Fn(Grad) -> Grad| {
        let placed = PlacedEntries::upload(&gpu, &gpu.clipper, &entries).unwrap();
        let grads = [grad(placed.coalescer.grad())];
        let stepper = gpu.clipper.prepare_step(&grads, &Clip::global_norm(1.0), Adam::new(0.1)).unwrap();
        gpu.submit(|encoder| {
            placed.coalescer.record(encoder);
            stepper.record_step(encoder);
        });
    };
    let apart = gpu.upload(bytemuck::cast_slice(&table));
    step(&|grad| grad.parameter(&apart, 0, DType::F32));
    let len = rows * width;
    let mut words = vec![0.0f32; 3 * len + 3];
    words[len + 1..2 * len + 1].copy_from_slice(&table);
    (words[0], words[3 * len + 1]) = (7.0, 7.0);
    let arena = gpu.upload(bytemuck::cast_slice(&words));
    let at = |word: usize| 4 * word as u64;
    step(&|grad| {
        let grad = grad.parameter(&arena, at(len + 1), DType::F32);
        grad.moment(&arena, at(2 * len + 1)).moment(&arena, at(1))
    });
    let got: Vec<f32> = gpu.read(&arena);
    assert_eq!(got[len + 1..2 * len + 1], gpu.read::<f32>(&apart), "{}", gpu.name);
    assert_eq!((got[0], &got[3 * len + 1..]), (7.0, &[7.0, 0.0][..]), "{}", gpu.name);
    assert!(got[len + 1..2 * len + 1] != table);
}

/// `torch.optim.SparseAdam` for the table beside `torch.optim.Adam` for the rest, all clipped by one norm.
#[test]
fn pytorch_steps_rows_lazily() {
    let folder = files::folder("library_cases").join("torch_sparse_adam_lazy");
    let json = files::json(&folder.join("case.json")).unwrap();
    let number = |value: &serde_json::Value| files::number(value).unwrap();
    let input = files::tensors(&folder.join("input.safetensors")).unwrap();
    let indices = files::indices(&folder.join("input.safetensors")).unwrap();
    let expected = files::tensors(&folder.join("expected.safetensors")).unwrap();
    let find = |all: &[Tensor], name: &str| all.iter().find(|t| t.name == name).unwrap().clone();
    let (rtol, atol) = (number(&json["rtol"]), number(&json["atol"]));
    let args = &json["args"];
    let betas = (number(&args["betas"][0]), number(&args["betas"][1]));
    let adam = Adam::new(number(&args["lr"])).betas(betas.0, betas.1).eps(number(&args["eps"]));
    let clip = Clip::global_norm(number(&args["max_norm"])).eps(1e-6);
    let rows = args["rows"]["p.0000"].as_u64().unwrap() as usize;

    let names = ["p.0000", "p.0001", "p.0002"];
    let mut here = names.map(|name| find(&input, name).data.floats());
    let (mut history, mut moments) = (History::default(), Moments::default());
    let gpu = gpu();
    let there = gpu.as_ref().map(|gpu| {
        let parameters = here.each_ref().map(|p| gpu.upload(bytemuck::cast_slice(p)));
        let dense = [1, 2].map(|i| gpu.storage(parameters[i].size()));
        (gpu, parameters, dense)
    });
    let mut stepper: Option<(PlacedEntries, Stepper)> = None;
    let steps = json["steps"].as_u64().unwrap();
    for t in 1..=steps {
        let gradient = |i: usize| find(&input, &format!("s{t}.g.000{i}"));
        let values = find(&input, &format!("s{t}.g.0000.values")).data;
        let name = format!("s{t}.g.0000.indices");
        let indices = indices.iter().find(|(own, _)| *own == name).unwrap().1.clone();
        let entries = Entries { table: [rows, values.len() / indices.len()], indices, values, count: None };
        let added = entries.coalesced().unwrap();
        let dense = [gradient(1).data.floats(), gradient(2).data.floats()];
        let [table, w, b] = &mut here;
        let mut tensors = [
            StepMut::new("table", &added.values[..], table).rows(&added.rows),
            StepMut::new("w", &dense[0][..], w),
            StepMut::new("b", &dense[1][..], b),
        ];
        let report = cpu::step(&mut tensors, &clip, adam, &mut history, &mut moments).unwrap();
        let close = |got: &[f32], i: usize, who: &str| {
            let want = find(&expected, &format!("s{t}.{}", names[i]));
            assert_close(
                got.iter().copied(),
                want.data.values(),
                rtol,
                atol,
                &format!("{who}, step {t}, {}", names[i]),
            );
        };
        (0..3).for_each(|i| close(&here[i], i, "CPU"));

        let Some((gpu, parameters, grads)) = &there else { continue };
        grads.iter().zip(&dense).for_each(|(b, g)| gpu.queue.write_buffer(b, 0, bytemuck::cast_slice(g)));
        // Other buffers in every step, with the state of the last.
        let placed = PlacedEntries::upload(gpu, &gpu.clipper, &entries).unwrap();
        let set = [
            placed.coalescer.grad().parameter(&parameters[0], 0, DType::F32),
            Grad::new("w", &grads[0]).parameter(&parameters[1], 0, DType::F32),
            Grad::new("b", &grads[1]).parameter(&parameters[2], 0, DType::F32),
        ];
        let next = match &stepper {
            None => gpu.clipper.prepare_step(&set, &clip, adam).unwrap(),
            Some((_, last)) => gpu.clipper.prepare_step_after(last, &set, &clip, adam).unwrap(),
        };
        gpu.submit(|encoder| {
            placed.coalescer.record(encoder);
            next.record_step(encoder);
        });
        stepper = Some((placed, next));
        assert!(report.clipped());
        (0..3).for_each(|i| close(&gpu.read::<f32>(&parameters[i])[..here[i].len()], i, &gpu.name));
    }
}

/// A trainer without accumulation takes rows; a saved run has the whole table and its moments.
#[test]
fn a_saved_run_has_the_table() {
    let Some(gpu) = gpu() else { return };
    let gpu = &*gpu;
    let entries = Entries::new(Naming::Words, 30, [50, 6], Element::F32, Distribution::Uniform(1.0), 8);
    let table = data(Distribution::Uniform(1.0), 300, 3);
    let prepared = |micro_batches| {
        let placed = PlacedEntries::upload(gpu, &gpu.clipper, &entries).unwrap();
        let parameter = gpu.upload(bytemuck::cast_slice(&table));
        let grad = placed.coalescer.grad().parameter(&parameter, 0, DType::F32);
        let clip = Clip::global_norm(1.0);
        let trainer = gpu.clipper.prepare_training(&[grad], &clip, Adam::new(0.1), micro_batches);
        trainer.map(|trainer| (placed, parameter, trainer))
    };
    let run = |(placed, _, trainer): &(PlacedEntries, wgpu::Buffer, gradclip::Trainer)| {
        gpu.submit(|encoder| {
            placed.coalescer.record(encoder);
            assert!(trainer.record(encoder));
        });
    };
    let first = prepared(1).unwrap();
    run(&first);
    let saving = gpu.submit(|encoder| first.2.save(encoder).unwrap());
    let bytes = saving.wait().unwrap().to_bytes().unwrap();
    run(&first);
    let second = prepared(1).unwrap();
    second.2.load(&gpu.queue, &Checkpoint::from_bytes(&bytes).unwrap()).unwrap();
    run(&second);
    let [a, b] = [&first, &second].map(|(_, parameter, _)| gpu.read::<f32>(parameter));
    assert!(a == b && a != table, "{}", gpu.name);
    let refused = prepared(2).unwrap_err();
    assert!(matches!(refused, PrepareError::Clip(ClipError::Tensor { .. })), "{refused}");
}

#[test]
fn what_steps_on_rows_need_is_asked_for_by_name() {
    let (g, mut table) = ([1.0f32; 6], [0.0f32; 12]);
    let (mut history, mut moments) = (History::default(), Moments::default());
    let clip = Clip::global_norm(1.0);
    let mut refused = |rows: &[u32], g: &[f32], clip: &Clip| {
        let mut steps = [StepMut::new("t", g, &mut table).rows(rows)];
        cpu::step(&mut steps, clip, Sgd::new(0.1), &mut history, &mut moments).unwrap_err().to_string()
    };
    for (rows, g, words) in [
        (&[0, 4][..], &g[..], "rows below 4, given 4"),
        (&[1, 1], &g, "ascending rows, each once, given 1 before 1"),
        (&[2, 1], &g, "ascending rows, each once, given 2 before 1"),
        (&[0, 1, 2, 3], &g, "as many elements for each of 4 rows, given 6"),
        (&[0], &g[..5], "a table of rows of 5 elements, given 12"),
        (&[], &g[..3], "as many elements for each of 0 rows, given 3"),
    ] {
        let given = refused(rows, g, &clip);
        assert!(given.contains(words), "{given} does not say: {words}");
    }
    assert!(refused(&[0, 1], &g, &Clip::agc(0.1, Units::OutputFirst)).contains("adaptive gradient clipping"));
    let like = [StepMut::new("t", &g[..], &mut table).rows(&[0, 1])];
    assert!(
        cpu::prepare_step(&like, &clip, Sgd::new(0.1))
            .unwrap_err()
            .to_string()
            .contains("`cpu::step` takes rows")
    );
    assert!(cpu::prepare_training(&like, &clip, Sgd::new(0.1), 2).is_err());

    let Some(gpu) = gpu() else { return };
    let entries = Entries::new(Naming::Any, 2, [4, 3], Element::F32, Distribution::Uniform(1.0), 1);
    let placed = PlacedEntries::upload(&gpu, &gpu.clipper, &entries).unwrap();
    let [buffer, sum] = [48, 48].map(|size| gpu.storage(size));
    let grad = || placed.coalescer.grad();
    let step = |grad: Grad| gpu.clipper.prepare_step(&[grad], &clip, Adam::new(0.1));
    assert!(step(grad().parameter(&buffer, 0, DType::F32)).is_ok());
    if gpu.device.limits().max_storage_buffers_per_shader_stage == 8 {
        let grads = [grad().parameter(&buffer, 0, DType::F32)];
        let amsgrad = gpu.clipper.prepare_step(&grads, &clip, Adam::new(0.1).amsgrad(true)).unwrap_err();
        let limit = "max_storage_buffers_per_shader_stage";
        assert_eq!(amsgrad, PrepareError::Plan(PlanError::Limit { limit, required: 9, given: 8 }));
    }
    let halves = step(grad().parameter(&buffer, 0, DType::Bf16)).unwrap_err().to_string();
    assert!(halves.contains("a table of f32"), "{halves}");
    let short = step(grad().parameter(&buffer, 4, DType::F32)).unwrap_err().to_string();
    assert!(short.contains("required a buffer of at least 52 bytes, given one of 48"), "{short}");
    let agc = gpu
        .clipper
        .prepare(&[grad().parameter(&buffer, 0, DType::F32)], &Clip::agc(0.1, Units::OutputFirst))
        .unwrap_err();
    assert!(agc.to_string().contains("own shape, for adaptive gradient clipping"), "{agc}");
    // Excluded ones have no part in it.
    let free = grad().group(&Group::excluded("tables")).parameter(&buffer, 0, DType::F32);
    assert!(gpu.clipper.prepare(&[free], &Clip::agc(0.1, Units::OutputFirst)).is_ok());
    let summed = gpu.clipper.prepare_accumulation(&[grad().accumulator(&sum, 0)]).unwrap_err();
    assert!(summed.to_string().contains("one after the other"), "{summed}");
}
