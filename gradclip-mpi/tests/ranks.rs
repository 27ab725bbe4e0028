//! Run by mpirun with any number of ranks (`tests/run.sh`): every rank has the bits of a single one that holds everything, which each computes
//! for itself.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::ops::Range;
use std::time::Duration;

use gradclip::cpu::{self, GradMut, StepMut};
use gradclip::{
    Adam, Adapt, Clip, Clipper, Grad, Group, History, LossScale, NonFinite, NormType, Report, Skip, wgpu,
};
use gradclip_mpi::{Agreed, Error, Piece, Ranks, shard_ranges};

const CHUNK: u64 = 16_384;
/// Name, elements, group.
const TENSORS: [(&str, u64, usize); 7] = [
    ("embedding", 5 * CHUNK + 77, 0),
    ("norm", 5, 1),
    ("mlp", 3 * CHUNK, 0),
    ("head", 40_000, 1),
    ("scale", 1, 0),
    ("tied", 20_000, 2),
    ("empty", 0, 0),
];

/// SplitMix64 (Steele, Lea and Flood 2014).
struct Random(u64);

impl Random {
    fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.bits() % n
    }
}

/// Gradients whose chunks differ by many powers of two, so that alignment drops bits in every sum. The same on every rank.
fn gradients(step: u64) -> Vec<Vec<f32>> {
    let mut random = Random(step);
    let one = |&(_, len, _): &(&str, u64, usize)| {
        let mut values: Vec<f32> =
            (0..len).map(|_| (random.bits() >> 40) as f32 * 2f32.powi(-23) - 1.0).collect();
        for chunk in values.chunks_mut(CHUNK as usize) {
            let scale = 2f32.powi(random.below(24) as i32 - 12);
            chunk.iter_mut().for_each(|x| *x *= scale);
        }
        values
    };
    TENSORS.iter().map(one).collect()
}

fn group(number: usize) -> Option<Group> {
    [None, Some(Group::new("b", 0.5)), Some(Group::excluded("c"))][number].clone()
}

/// What a rank holds of each tensor: a range, or nothing at all.
type Held = Vec<Option<Range<u64>>>;

/// How tensors may lie.
#[derive(Clone, Copy, Debug)]
enum Placing {
    /// Each cut over all ranks.
    Cut,
    /// Each whole on one rank.
    Whole,
    /// Copies on every rank.
    Copies,
    /// All of rank 0 alone.
    First,
    /// Any of these, tensor by tensor, in another order on every rank.
    Mixed(u64),
}

fn held(placing: Placing, rank: usize, ranks: usize) -> Held {
    let mut random = Random(if let Placing::Mixed(seed) = placing { seed } else { 0 });
    let one = |(i, &(_, len, _)): (usize, &(&str, u64, usize))| {
        let (kind, owner, copies) = (random.below(4), random.below(ranks as u64), random.bits() | 1);
        let kind = match placing {
            Placing::Cut => 0,
            Placing::Whole => 1,
            Placing::Copies => 2,
            Placing::First => 3,
            Placing::Mixed(_) => kind,
        };
        let owner = if kind == 1 { (owner + i as u64) % ranks as u64 } else { 0 };
        match kind {
            0 => Some(shard_ranges(len, ranks)[rank].clone()),
            2 => (!matches!(placing, Placing::Mixed(_)) || copies >> rank & 1 == 1).then_some(0..len),
            _ => (owner == rank as u64).then_some(0..len),
        }
    };
    TENSORS.iter().enumerate().map(one).collect()
}

/// The tensors of which this rank holds something, in an order of its own.
fn order(held: &Held, rank: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..held.len()).filter(|&i| held[i].is_some()).collect();
    let len = order.len().max(1);
    order.rotate_left(rank % len);
    order
}

fn pieces(held: &Held, order: &[usize]) -> Vec<Piece> {
    let one = |&i: &usize| {
        let (name, whole, number) = TENSORS[i];
        let piece = Piece::part(name, whole, held[i].clone().unwrap());
        match number {
            0 => piece,
            1 => piece.group("b", 0.5),
            _ => piece.excluded("c"),
        }
    };
    order.iter().map(one).collect()
}

fn own(all: &[Vec<f32>], held: &Held, order: &[usize]) -> Vec<Vec<f32>> {
    let cut = |&i: &usize| {
        let Range { start, end } = held[i].clone().unwrap();
        all[i][start as usize..end as usize].to_vec()
    };
    order.iter().map(cut).collect()
}

fn bits(all: &[Vec<f32>]) -> Vec<Vec<u32>> {
    all.iter().map(|values| values.iter().map(|x| x.to_bits()).collect()).collect()
}

/// What a report says of norms, whatever the order and place of tensors.
fn told(report: &Report) -> String {
    let mut report = report.clone();
    report.tensors.iter_mut().for_each(|t| (t.elements, t.segment) = (0, 0));
    report.tensors.sort_by(|a, b| a.name.cmp(&b.name));
    report.segments.iter_mut().for_each(|s| s.first_non_finite = None);
    if let Some(total) = &mut report.total {
        total.first_non_finite = None;
    }
    let mut segments: Vec<String> = report.segments.iter().map(|s| format!("{s:?}")).collect();
    segments.sort();
    report.segments.clear();
    // A sum over segments in doubles, whose order differs.
    report.clipped_norm = None;
    format!("{report:?} {segments:?}")
}

fn clips() -> Vec<Clip> {
    vec![
        Clip::per_group_norm(1.0),
        Clip::per_group_norm(1.0).norm_type(NormType::One).loss_scale(LossScale::default().interval(2)),
        Clip::per_group_norm(0.1).norm_type(NormType::Inf).on_non_finite(NonFinite::Sanitize),
        Clip::per_tensor_norm(0.7).total(2.0),
        Clip::adagc(5.0),
        Clip::per_group_norm(1.0).adapt(Adapt::Mean { factor: 0.9, window: 3 }),
        Clip::per_tensor_norm(0.5).skip(Skip::z_score(2.0).window(4).first(3)),
    ]
}

/// One rank that holds everything.
struct Single {
    clip: Clip,
    history: History,
}

impl Single {
    fn new(clip: &Clip) -> Single {
        Single { clip: *clip, history: History::default() }
    }

    fn clip(&mut self, all: &mut [Vec<f32>]) -> Report {
        let mut grads: Vec<GradMut<'_>> = all
            .iter_mut()
            .zip(TENSORS)
            .map(|(values, (name, _, number))| {
                let grad = GradMut::new(name, values);
                if let Some(group) = group(number) { grad.group(&group) } else { grad }
            })
            .collect();
        cpu::clip_with(&mut grads, &self.clip, &mut self.history).unwrap()
    }
}

/// A NaN in one element of a tensor, which lies on one rank or its copies.
fn broken(step: u64, all: &mut [Vec<f32>]) {
    if step == 3 {
        all[0][3 * CHUNK as usize + 5] = f32::NAN;
    }
}

fn placings(ranks: &Ranks) -> Vec<Placing> {
    let all = vec![
        Placing::Cut,
        Placing::Whole,
        Placing::Copies,
        Placing::First,
        Placing::Mixed(1),
        Placing::Mixed(2),
    ];
    if ranks.size() > 4 { all.into_iter().step_by(2).collect() } else { all }
}

fn the_cpu_path_has_the_bits_of_one_rank(ranks: &Ranks) {
    for placing in placings(ranks) {
        for clip in clips() {
            let held = held(placing, ranks.rank(), ranks.size());
            let order = order(&held, ranks.rank());
            let agreed = ranks.agree(&clip, &pieces(&held, &order)).unwrap();
            assert!(agreed.exact());
            let mut single = Single::new(&clip);
            let mut mine = own(&gradients(0), &held, &order);
            let mut over = agreed.prepare(mine.iter_mut().map(|g| &mut g[..])).unwrap();
            for step in 0..5 {
                let mut all = gradients(100 + step);
                broken(step, &mut all);
                mine = own(&all, &held, &order);
                if step % 2 == 0 {
                    over.clip(mine.iter_mut().map(|g| &mut g[..])).unwrap();
                } else {
                    over.measure(mine.iter().map(|g| &g[..])).unwrap();
                    while !over.poll().unwrap() {}
                    over.apply(mine.iter_mut().map(|g| &mut g[..])).unwrap();
                }
                let want = single.clip(&mut all);
                let what = format!("{placing:?} {clip:?} step {step} rank {}", ranks.rank());
                assert_eq!(bits(&mine), bits(&own(&all, &held, &order)), "{what}");
                let report = over.report().unwrap();
                assert_eq!(told(&report), told(&want), "{what}");
                assert_eq!(report.first_non_finite(), want.first_non_finite(), "{what}");
                ranks.alike("histories", &over.prepared().history().to_bytes()).unwrap();
                ranks.alike("reports", format!("{:?}", report.segments).as_bytes()).unwrap();
            }
        }
    }
}

fn steps_have_the_bits_of_one_rank(ranks: &Ranks) {
    let clip = Clip::per_group_norm(0.1).loss_scale(LossScale::default().interval(3));
    for placing in placings(ranks) {
        let held = held(placing, ranks.rank(), ranks.size());
        let order = order(&held, ranks.rank());
        let agreed = ranks.agree(&clip, &pieces(&held, &order)).unwrap();
        let (mut all, first) = (gradients(7), gradients(0));
        let mut mine = own(&all, &held, &order);
        let first_own = own(&first, &held, &order);
        let both = first_own.iter().zip(&mut mine).map(|(g, p)| (&g[..], &mut p[..]));
        let mut over = agreed.prepare_step(both, Adam::adamw(0.01)).unwrap();
        let steps: Vec<StepMut<'_>> = first
            .iter()
            .zip(&mut all)
            .zip(TENSORS)
            .map(|((g, p), (name, _, number))| {
                let step = StepMut::new(name, &g[..], &mut p[..]);
                if let Some(group) = group(number) { step.group(&group) } else { step }
            })
            .collect();
        let mut single = cpu::prepare_step(&steps, &clip, Adam::adamw(0.01)).unwrap();
        for step in 0..6 {
            let mut gradients = gradients(200 + step);
            broken(step, &mut gradients);
            let own_gradients = own(&gradients, &held, &order);
            over.measure(own_gradients.iter().map(|g| &g[..])).unwrap();
            over.update(own_gradients.iter().zip(&mut mine).map(|(g, p)| (&g[..], &mut p[..]))).unwrap();
            single.step(gradients.iter().zip(&mut all).map(|(g, p)| (&g[..], &mut p[..]))).unwrap();
            assert_eq!(bits(&mine), bits(&own(&all, &held, &order)), "{placing:?} step {step}");
            assert_eq!(over.report().unwrap().skips, u64::from(step == 3));
        }
    }
}

fn devices_have_the_bits_of_one_rank(ranks: &Ranks) {
    let Some((device, queue)) = device() else {
        assert!(std::env::var("GRADCLIP_REQUIRE_GPU").is_err(), "no adapter");
        return;
    };
    let clipper = Clipper::new(&device).unwrap();
    for (placing, clip) in
        [Placing::Cut, Placing::Whole, Placing::Mixed(1)].into_iter().zip(clips().into_iter().step_by(3))
    {
        let held = held(placing, ranks.rank(), ranks.size());
        let order = order(&held, ranks.rank());
        let agreed = ranks.agree(&clip, &pieces(&held, &order)).unwrap();
        let mut single = Single::new(&clip);
        let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_DST | wgpu::BufferUsages::COPY_SRC;
        let buffer = |size: usize, usage| {
            let size = (4 * size as u64).max(16);
            device.create_buffer(&wgpu::BufferDescriptor {
                label: None,
                size,
                usage,
                mapped_at_creation: false,
            })
        };
        let mine = own(&gradients(0), &held, &order);
        let buffers: Vec<wgpu::Buffer> = mine.iter().map(|g| buffer(g.len(), usage)).collect();
        let grads: Vec<Grad> = order
            .iter()
            .zip(&mine)
            .zip(&buffers)
            .map(|((&i, g), buffer)| Grad::range(TENSORS[i].0, buffer, 0, g.len() as u64))
            .collect();
        let mut over = agreed.prepare_on(&clipper, (&device, &queue), &grads).unwrap();
        for step in 0..4 {
            let mut all = gradients(300 + step);
            broken(step, &mut all);
            let mine = own(&all, &held, &order);
            for (g, to) in mine.iter().zip(&buffers).filter(|(g, _)| !g.is_empty()) {
                queue.write_buffer(to, 0, bytemuck::cast_slice(g));
            }
            let mut encoder = device.create_command_encoder(&Default::default());
            over.record_norm(&mut encoder).unwrap();
            queue.submit([encoder.finish()]);
            over.wait().unwrap();
            let mut encoder = device.create_command_encoder(&Default::default());
            over.record_apply(&mut encoder).unwrap();
            let report = over.pass().read_back(&mut encoder).unwrap();
            queue.submit([encoder.finish()]);
            let report = report.wait().unwrap();
            let want = single.clip(&mut all);
            assert_eq!(told(&report), told(&want), "{placing:?} {clip:?} step {step}");
            for (want, from) in own(&all, &held, &order).iter().zip(&buffers) {
                let to = buffer(want.len(), wgpu::BufferUsages::COPY_DST | wgpu::BufferUsages::MAP_READ);
                let mut encoder = device.create_command_encoder(&Default::default());
                encoder.copy_buffer_to_buffer(from, 0, &to, 0, to.size());
                queue.submit([encoder.finish()]);
                to.map_async(wgpu::MapMode::Read, .., |_| {});
                device.poll(wgpu::PollType::wait_indefinitely()).unwrap();
                let view = to.get_mapped_range(..).unwrap();
                let got: Vec<f32> = bytemuck::pod_collect_to_vec(&view[..4 * want.len()]);
                assert_eq!(
                    bits(&[got]),
                    bits(std::slice::from_ref(want)),
                    "{placing:?} {clip:?} step {step}"
                );
            }
        }
    }
}

fn device() -> Option<(wgpu::Device, wgpu::Queue)> {
    let instance = wgpu::Instance::default();
    let adapter =
        pollster::block_on(instance.request_adapter(&wgpu::RequestAdapterOptions::default())).ok()?;
    let required_limits = Clipper::recommended_limits(&adapter);
    let descriptor = wgpu::DeviceDescriptor { required_limits, ..Default::default() };
    pollster::block_on(adapter.request_device(&descriptor)).ok()
}

/// Every rank is told, and all go on.
fn what_ranks_disagree_about_is_an_error_on_all(ranks: &Ranks) {
    let clip = Clip::global_norm(1.0);
    let last = ranks.rank() + 1 == ranks.size();
    let disagree = |result: Result<Agreed, Error>, words: &str| match result {
        Err(Error::Disagree(told)) => assert!(told.contains(words), "{told}"),
        other => panic!("{other:?}"),
    };
    if ranks.size() > 1 {
        let other = if last { Clip::global_norm(2.0) } else { clip };
        disagree(ranks.agree(&other, &[]), "threshold 1.0 on rank 0 and 2.0 on rank");
        let scope = if last { Clip::per_tensor_norm(1.0) } else { clip };
        disagree(ranks.agree(&scope, &[]), "scope");
        let cuts = shard_ranges(100_000, ranks.size());
        let name = if last { "w.weigth" } else { "w" };
        disagree(
            ranks.agree(&clip, &[Piece::part(name, 100_000, cuts[ranks.rank()].clone())]),
            "are on no rank",
        );
        let result = ranks.alike("a checkpoint", &[u8::from(last)]);
        assert!(matches!(result, Err(Error::Disagree(_))), "{result:?}");
    }
    disagree(ranks.agree(&clip, &[Piece::part("w", 10, 0..4)]), "elements 4..10 are on no rank");
    ranks.alike("a checkpoint", &[1, 2, 3]).unwrap();
    let agreed = ranks.agree(&clip, &[]).unwrap();
    let mut over = agreed.prepare(std::iter::empty::<&mut [f32]>()).unwrap();
    over.clip(std::iter::empty::<&mut [f32]>()).unwrap();
    assert_eq!(over.prepared().norm(), Some(0.0));
    // A piece that is not as declared, refused before anything is exchanged.
    let piece = [Piece::whole(format!("own {}", ranks.rank()), 3)];
    let agreed = ranks.agree(&clip, &piece).unwrap();
    assert!(agreed.prepare([&mut [0.0f32; 2][..]]).is_err());
    let mut over = agreed.prepare([&mut [0.0f32; 3][..]]).unwrap();
    assert!(over.apply([&mut [0.0f32; 3][..]]).is_err());
    let mut g = [2.0f32, 0.0, 0.0];
    over.clip([&mut g[..]]).unwrap();
    let norm = 2.0 * (ranks.size() as f64).sqrt();
    assert_eq!(over.prepared().norm(), Some(f64::from(norm as f32)));
}

fn main() {
    let universe = gradclip_mpi::mpi::initialize().unwrap();
    let ranks = Ranks::new(&universe.world(), Duration::from_secs(120)).unwrap();
    let on_device = std::env::args().any(|arg| arg == "--device");
    let tests: &[(&str, fn(&Ranks))] = if on_device {
        &[("devices_have_the_bits_of_one_rank", devices_have_the_bits_of_one_rank)]
    } else {
        &[
            ("what_ranks_disagree_about_is_an_error_on_all", what_ranks_disagree_about_is_an_error_on_all),
            ("the_cpu_path_has_the_bits_of_one_rank", the_cpu_path_has_the_bits_of_one_rank),
            ("steps_have_the_bits_of_one_rank", steps_have_the_bits_of_one_rank),
        ]
    };
    // A rank that fails would leave the others waiting.
    std::panic::set_hook(Box::new(|panic| {
        eprintln!("{panic}");
        std::process::abort();
    }));
    for (name, test) in tests {
        test(&ranks);
        if ranks.rank() == 0 {
            println!("test {name} on {} ranks ... ok", ranks.size());
        }
    }
}
