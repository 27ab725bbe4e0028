//! Tensors, how they may lie on ranks, and what one rank that holds everything makes of them.

use std::ops::Range;

use gradclip::cpu::{self, GradMut};
use gradclip::{Adapt, Clip, Group, History, LossScale, NonFinite, NormType, Report, Skip};
use gradclip_mpi::{Piece, Ranks, shard_ranges};
use gradclip_verify::inputs::Random;

pub const CHUNK: u64 = 16_384;
/// Name, elements, group.
pub const TENSORS: [(&str, u64, usize); 7] = [
    ("embedding", 5 * CHUNK + 77, 0),
    ("norm", 5, 1),
    ("mlp", 3 * CHUNK, 0),
    ("head", 40_000, 1),
    ("scale", 1, 0),
    ("tied", 20_000, 2),
    ("empty", 0, 0),
];

/// Gradients whose chunks differ by many powers of two, so that alignment drops bits in every sum. The same on every rank.
pub fn gradients(step: u64) -> Vec<Vec<f32>> {
    let mut random = Random(step);
    let one = |&(_, len, _): &(&str, u64, usize)| {
        let mut values: Vec<f32> = (0..len).map(|_| random.unit()).collect();
        for chunk in values.chunks_mut(CHUNK as usize) {
            let scale = 2f32.powi(random.below(24) as i32 - 12);
            chunk.iter_mut().for_each(|x| *x *= scale);
        }
        values
    };
    TENSORS.iter().map(one).collect()
}

pub fn group(number: usize) -> Option<Group> {
    [None, Some(Group::new("b", 0.5)), Some(Group::excluded("c"))][number].clone()
}

/// What a rank holds of each tensor: a range, or nothing at all.
pub type Held = Vec<Option<Range<u64>>>;

/// How tensors may lie.
#[derive(Clone, Copy, Debug)]
pub enum Placing {
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

pub fn held(placing: Placing, rank: usize, ranks: usize) -> Held {
    let mut random = Random(if let Placing::Mixed(seed) = placing { seed } else { 0 });
    let one = |(i, &(_, len, _)): (usize, &(&str, u64, usize))| {
        let (kind, owner, copies) = (random.below(4), random.below(ranks) as u64, random.bits() | 1);
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
pub fn order(held: &Held, rank: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..held.len()).filter(|&i| held[i].is_some()).collect();
    let len = order.len().max(1);
    order.rotate_left(rank % len);
    order
}

pub fn pieces(held: &Held, order: &[usize]) -> Vec<Piece> {
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

pub fn own(all: &[Vec<f32>], held: &Held, order: &[usize]) -> Vec<Vec<f32>> {
    let cut = |&i: &usize| {
        let Range { start, end } = held[i].clone().unwrap();
        all[i][start as usize..end as usize].to_vec()
    };
    order.iter().map(cut).collect()
}

pub fn bits(all: &[Vec<f32>]) -> Vec<Vec<u32>> {
    all.iter().map(|values| values.iter().map(|x| x.to_bits()).collect()).collect()
}

/// What a report says of norms, whatever the order and place of tensors.
pub fn told(report: &Report) -> String {
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

pub fn clips() -> Vec<Clip> {
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
pub struct Single {
    clip: Clip,
    history: History,
}

impl Single {
    pub fn new(clip: &Clip) -> Single {
        Single { clip: *clip, history: History::default() }
    }

    pub fn clip(&mut self, all: &mut [Vec<f32>]) -> Report {
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
pub fn broken(step: u64, all: &mut [Vec<f32>]) {
    if step == 3 {
        all[0][3 * CHUNK as usize + 5] = f32::NAN;
    }
}

pub fn placings(ranks: &Ranks) -> Vec<Placing> {
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
