//! One norm over several ranks, which are simulated here: the bits of one rank that holds everything, however tensors are cut, copied and
//! placed, on the CPU path and on a device. What carries the messages is tested in `gradclip-mpi`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::ops::Range;

use common::{Distribution, Gpu, NORMS, Named, Placing, Random, Tensor, bits, data, gpu, grads, named};
use gradclip::cpu::{self, GradMut, Prepared, StepMut};
use gradclip::exchange::{CHUNK, Exchange, MOST_RANKS};
use gradclip::layout::Sum;
use gradclip::{
    Adam, Adapt, Clip, ClipError, History, LossScale, NonFinite, NormType, Report, Scope, Skip, Units, wgpu,
};

const RANKS: [usize; 5] = [1, 2, 3, 4, 7];
const SIZES: [usize; 6] = [5, 20_000, 3 * CHUNK as usize, 70_000, 1, 0];

/// What each rank holds of each tensor, and whether it counts it.
type Holdings = Vec<Vec<(Range<usize>, bool)>>;

/// Tensors whose chunks differ by many powers of two, so that alignment drops bits in every sum.
fn tensors(seed: u64) -> Vec<Tensor> {
    let mut random = Random(seed);
    let one = |(i, &len): (u64, &usize)| {
        let mut values = data(Distribution::Uniform(1.0), len, seed + i);
        for chunk in values.chunks_mut(CHUNK as usize) {
            let scale = 2f32.powi(random.below(24) as i32 - 12);
            chunk.iter_mut().for_each(|x| *x *= scale);
        }
        values
    };
    let mut all = named((0..).zip(&SIZES).map(one).collect::<Vec<_>>());
    let groups = [Named::new("a", 2.0), Named::new("b", 0.5), Named::excluded("c")];
    all.iter_mut().zip([0, 1, 0, 1, 2, 0]).for_each(|(t, group)| t.group = Some(groups[group]));
    all
}

/// Whole on one rank, cut between all at multiples of a chunk, or copied.
fn holdings(ranks: usize, random: &mut Random) -> Holdings {
    let mut held: Holdings = vec![Vec::new(); ranks];
    for len in SIZES {
        let owner = random.below(ranks);
        let chunk = CHUNK as usize;
        let (how, copies) = (random.below(3), random.below(1 << ranks) | (1 << owner));
        let mut cuts: Vec<usize> =
            (1..ranks).map(|_| random.below(len.div_ceil(chunk) + 1) * chunk).collect();
        cuts.push(0);
        cuts.sort_unstable();
        cuts.push(len);
        for (rank, own) in held.iter_mut().enumerate() {
            own.push(match how {
                0 => (if rank == owner { 0..len } else { 0..0 }, true),
                1 => (cuts[rank].min(len)..cuts[rank + 1].min(len), true),
                _ => {
                    let holds = copies >> rank & 1 == 1;
                    (if holds { 0..len } else { 0..0 }, rank == copies.trailing_zeros() as usize)
                }
            });
        }
    }
    held
}

/// The elements of a rank.
fn pieces(tensors: &[Tensor], own: &[(Range<usize>, bool)]) -> Vec<Tensor> {
    let cut = |(t, (range, _)): (&Tensor, &(Range<usize>, bool))| Tensor {
        data: t.data.floats()[range.clone()].to_vec().into(),
        ..t.clone()
    };
    tensors.iter().zip(own).map(cut).collect()
}

fn counts(own: &[(Range<usize>, bool)]) -> Vec<bool> {
    own.iter().map(|(_, counts)| *counts).collect()
}

/// What MPI would do, in a random order.
fn all_reduce(exchanges: &mut [Exchange], random: &mut Random) {
    let mut order: Vec<usize> = (0..exchanges.len()).collect();
    random.shuffle(&mut order);
    let mut maxima = vec![0; exchanges[0].maxima().len()];
    for &rank in &order {
        maxima.iter_mut().zip(exchanges[rank].maxima()).for_each(|(all, own)| *all = (*all).max(*own));
    }
    exchanges.iter_mut().for_each(|own| own.maxima().copy_from_slice(&maxima));
    let mut sums = vec![0u64; exchanges[0].aligned().len()];
    random.shuffle(&mut order);
    for &rank in &order {
        sums.iter_mut().zip(exchanges[rank].aligned()).for_each(|(all, own)| *all += *own);
    }
    exchanges.iter_mut().for_each(|own| own.aligned().copy_from_slice(&sums));
}

/// What does not say where elements lie.
fn placeless(report: Report) -> Report {
    let mut report = report;
    report.tensors.iter_mut().for_each(|t| t.elements = 0);
    report
}

/// The words of a history: a NaN equals itself.
fn words(history: &History) -> Vec<u8> {
    history.to_bytes()
}

struct Here {
    prepared: Prepared,
    tensors: Vec<Tensor>,
}

/// Clips on simulated ranks, and returns what became of the elements of each.
fn clip_on(ranks: &mut [Here], exchanges: &mut [Exchange], random: &mut Random) {
    for (rank, exchange) in ranks.iter_mut().zip(&mut *exchanges) {
        rank.prepared.measure(rank.tensors.iter().map(|t| t.data.slice())).unwrap();
        rank.prepared.begin_exchange(exchange).unwrap();
    }
    all_reduce(exchanges, random);
    for (rank, exchange) in ranks.iter_mut().zip(exchanges) {
        rank.prepared.end_exchange(exchange).unwrap();
        let mut all: Vec<Vec<f32>> = rank.tensors.iter().map(|t| t.data.floats()).collect();
        rank.prepared.apply(all.iter_mut().map(|g| &mut g[..])).unwrap();
        rank.tensors.iter_mut().zip(all).for_each(|(t, g)| t.data = g.into());
    }
}

fn clips() -> Vec<Clip> {
    let mut all = vec![
        Clip::per_group_norm(1.0),
        Clip::per_group_norm(1.0).total(3.0).loss_scale(LossScale::default().interval(2)),
        Clip::per_tensor_norm(0.7),
        Clip::per_tensor_norm(f32::INFINITY).total(2.0),
        Clip::adagc(5.0),
        Clip::per_group_norm(1.0).adapt(Adapt::Mean { factor: 0.9, window: 3 }),
        Clip::per_tensor_norm(0.5).skip(Skip::z_score(2.0).window(4).first(3)),
        Clip::value(0.01),
        Clip::per_group_norm(1.0).on_non_finite(NonFinite::Sanitize),
        Clip::per_group_norm(1.0).on_non_finite(NonFinite::Nan).unscale(0.37),
        Clip::sign(0.5).scope(Scope::Group),
    ];
    all.extend(NORMS.map(|norm| Clip::per_group_norm(1.0).norm_type(norm)));
    all
}

/// Every rank has the bits of one rank, step after step, whoever holds what: elements, reports, and what is remembered.
#[test]
fn ranks_have_the_bits_of_one() {
    let mut random = Random(20);
    for clip in clips() {
        for ranks in RANKS {
            let held = holdings(ranks, &mut random);
            let mut history = History::default();
            let mut here: Vec<Here> = held.iter().map(|own| prepared(own, &clip)).collect();
            let mut exchanges: Vec<Exchange> = held
                .iter()
                .zip(&here)
                .map(|(own, rank)| rank.prepared.exchange(&counts(own)).unwrap())
                .collect();
            for step in 0..5u64 {
                let mut all = tensors(1000 + step);
                // Elements of the tensor that is cut most, and of one that is whole or copied.
                if step == 3 {
                    let broken = &mut all[if ranks % 2 == 0 { 3 } else { 0 }];
                    let mut values = broken.data.floats();
                    *values.last_mut().unwrap() = f32::NAN;
                    values[0] = f32::INFINITY;
                    broken.data = values.into();
                }
                for (rank, own) in here.iter_mut().zip(&held) {
                    rank.tensors = pieces(&all, own);
                }
                clip_on(&mut here, &mut exchanges, &mut random);
                let trace = cpu::clip_traced_with(&mut grads(&mut all), &clip, &mut history).unwrap();
                let want = &trace.report;
                for ((rank, own), exchange) in here.iter().zip(&held).zip(&exchanges) {
                    let what = format!("{clip:?}, {ranks} ranks, step {step}");
                    // Of 96 bits, of which a norm shows 32.
                    assert_eq!(exchange.sums(), [&trace.tensor_sums[..], &trace.segment_sums], "{what}");
                    let of = |tensors: &[Tensor]| -> Vec<Vec<f32>> {
                        tensors.iter().map(|t| t.data.floats()).collect()
                    };
                    assert_eq!(bits(&of(&rank.tensors)), bits(&of(&pieces(&all, own))), "{what}");
                    let report = placeless(rank.prepared.report().unwrap());
                    assert_eq!(format!("{report:?}"), format!("{:?}", placeless(want.clone())), "{what}");
                    assert_eq!(words(rank.prepared.history()), words(&history), "{what}");
                }
            }
        }
    }
}

fn prepared(own: &[(Range<usize>, bool)], clip: &Clip) -> Here {
    let mut tensors = pieces(&tensors(1), own);
    let prepared = cpu::prepare(&grads(&mut tensors), clip).unwrap();
    Here { prepared, tensors }
}

/// Cuts beside chunks: the same bits on all ranks, and a norm within two of the bounds of one ulp that each way of cutting has.
#[test]
fn other_cuts_are_near() {
    let mut random = Random(21);
    for ranks in RANKS {
        for clip in NORMS.map(|norm| Clip::global_norm(1.0).norm_type(norm)) {
            let values = tensors(7)[3].data.floats();
            let mut cuts: Vec<usize> = (1..ranks).map(|_| random.below(values.len())).collect();
            cuts.extend([0, values.len()]);
            cuts.sort_unstable();
            let mut parts: Vec<Vec<f32>> = cuts.windows(2).map(|c| values[c[0]..c[1]].to_vec()).collect();
            let mut here: Vec<Here> = parts
                .iter_mut()
                .map(|part| Here {
                    prepared: cpu::prepare(&[GradMut::new("w", part)], &clip).unwrap(),
                    tensors: vec![Tensor::new("w", part.clone())],
                })
                .collect();
            let mut exchanges: Vec<Exchange> =
                here.iter().map(|rank| rank.prepared.exchange(&[true]).unwrap()).collect();
            clip_on(&mut here, &mut exchanges, &mut random);
            let norms: Vec<f64> = here.iter().map(|rank| rank.prepared.norm().unwrap()).collect();
            let exact = values.iter().map(|x| f64::from(*x).abs());
            let exact = match clip.norm {
                NormType::One => exact.sum(),
                NormType::Inf => exact.fold(0.0, f64::max),
                _ => exact.map(|x| x * x).sum::<f64>().sqrt(),
            };
            assert!(norms.iter().all(|norm| norm.to_bits() == norms[0].to_bits()), "{norms:?}");
            let ulp = f64::from((exact as f32).next_up() - exact as f32);
            assert!((norms[0] - exact).abs() <= 0.65 * ulp, "{ranks} ranks: {} and {exact}", norms[0]);
        }
    }
}

/// Of any p: the same bits on all ranks. Each of 7 tensors' sums is rounded to f32 once where chunks are added and once here, and the p-th
/// root of 3 and more divides what is left of it.
#[test]
fn any_p_is_near() {
    let mut random = Random(22);
    for p in [2.5, 3.0, 7.0] {
        let clip = Clip::global_norm(1.0).norm_type(NormType::P(p));
        let mut all = tensors(9);
        all.iter_mut().for_each(|t| t.group = None);
        for ranks in RANKS {
            let held = holdings(ranks, &mut random);
            let one = |own: &Vec<(Range<usize>, bool)>| {
                let mut tensors = pieces(&all, own);
                let prepared = cpu::prepare(&grads(&mut tensors), &clip).unwrap();
                Here { prepared, tensors }
            };
            let mut here: Vec<Here> = held.iter().map(one).collect();
            let mut exchanges: Vec<Exchange> =
                held.iter().zip(&here).map(|(own, r)| r.prepared.exchange(&counts(own)).unwrap()).collect();
            clip_on(&mut here, &mut exchanges, &mut random);
            let norms: Vec<f64> = here.iter().map(|rank| rank.prepared.norm().unwrap()).collect();
            assert!(norms.iter().all(|norm| norm.to_bits() == norms[0].to_bits()), "{norms:?}");
            let powers = all.iter().flat_map(|t| t.data.floats()).map(|x| f64::from(x).abs().powf(p));
            let exact = powers.sum::<f64>().powf(1.0 / p);
            assert!((norms[0] / exact - 1.0).abs() < 4.0 * f64::from(f32::EPSILON), "{p}: {norms:?} {exact}");
        }
    }
}

/// Units lie whole on one rank, which decides about them alone; the norm of the whole set is that of all ranks.
#[test]
fn units_are_decided_where_they_lie() {
    let mut random = Random(23);
    let clip = Clip::per_unit_norm(0.3, Units::OutputFirst).total(1.0);
    let shape = [40u64, 500];
    let values = data(Distribution::Uniform(1.0), 20_000, 3);
    let mut whole = [Tensor::new("w", values.clone()).shape(&shape)];
    let want = cpu::clip(&mut grads(&mut whole), &clip).unwrap();
    for ranks in RANKS {
        let mut here: Vec<Here> = (0..ranks)
            .map(|rank| {
                let rows = 40 * rank / ranks..40 * (rank + 1) / ranks;
                let part = values[500 * rows.start..500 * rows.end].to_vec();
                let mut tensors = vec![Tensor::new("w", part).shape(&[rows.len() as u64, 500])];
                Here { prepared: cpu::prepare(&grads(&mut tensors), &clip).unwrap(), tensors }
            })
            .collect();
        let mut exchanges: Vec<Exchange> =
            here.iter().map(|rank| rank.prepared.exchange(&[true]).unwrap()).collect();
        clip_on(&mut here, &mut exchanges, &mut random);
        let got: Vec<f32> = here.iter().flat_map(|rank| rank.tensors[0].data.floats()).collect();
        for rank in &here {
            let (got, want) = (rank.prepared.report().unwrap().total, want.total.clone());
            let (got, want) = (got.unwrap().norm, want.unwrap().norm);
            // Two roundings to an f32 of sums that differ in what alignment drops.
            assert!((got / want - 1.0).abs() <= f64::from(f32::EPSILON), "{got} {want}");
        }
        let want = whole[0].data.floats();
        let near = |(a, b): (&f32, &f32)| (a - b).abs() <= 2.0 * f32::EPSILON * b.abs();
        assert!(got.iter().zip(&want).all(near), "{ranks} ranks");
    }
}

/// A step on ranks moves parameters as one rank's step does, and its halves as the whole of it.
#[test]
fn steps_have_the_bits_of_one() {
    let mut random = Random(24);
    let clip = Clip::per_group_norm(0.1).loss_scale(LossScale::default().interval(3));
    for ranks in RANKS {
        let held = holdings(ranks, &mut random);
        let mut whole: Vec<Tensor> = tensors(1).into_iter().map(with_parameter).collect();
        let mut single = cpu::prepare_step(&common::steps(&mut whole), &clip, Adam::adamw(0.01)).unwrap();
        let mut parameters: Vec<Vec<f32>> = common::stepping::parameters(&whole);
        let mut own_parameters: Vec<Vec<Vec<f32>>> = held.iter().map(|own| cut(&parameters, own)).collect();
        let mut own_steps: Vec<_> = held
            .iter()
            .zip(&mut own_parameters)
            .map(|(own, parameters)| {
                let pieces = pieces(&whole, own);
                let steps: Vec<StepMut<'_>> = pieces
                    .iter()
                    .zip(parameters)
                    .map(|(t, p)| {
                        let step = StepMut::new(t.name.as_str(), t.data.slice(), &mut p[..]);
                        step.group(&t.group.unwrap().group())
                    })
                    .collect();
                cpu::prepare_step(&steps, &clip, Adam::adamw(0.01)).unwrap()
            })
            .collect();
        let mut exchanges: Vec<Exchange> =
            held.iter().zip(&own_steps).map(|(own, step)| step.exchange(&counts(own)).unwrap()).collect();
        for step in 0..6u64 {
            let mut all = tensors(50 + step);
            if step == 2 {
                let mut values = all[3].data.floats();
                values[69_999] = f32::NAN;
                all[3].data = values.into();
            }
            let own: Vec<Vec<Tensor>> = held.iter().map(|own| pieces(&all, own)).collect();
            for ((step, tensors), exchange) in own_steps.iter_mut().zip(&own).zip(&mut exchanges) {
                step.measure(tensors.iter().map(|t| t.data.slice())).unwrap();
                step.begin_exchange(exchange).unwrap();
            }
            all_reduce(&mut exchanges, &mut random);
            let ranks_of = own_steps.iter_mut().zip(&mut exchanges).zip(own.iter().zip(&mut own_parameters));
            for ((step, exchange), (tensors, parameters)) in ranks_of {
                step.end_exchange(exchange).unwrap();
                let both = tensors.iter().zip(parameters).map(|(t, p)| (t.data.slice(), &mut p[..]));
                step.update(both).unwrap();
            }
            let both = all.iter().zip(&mut parameters).map(|(t, p)| (t.data.slice(), &mut p[..]));
            single.step(both).unwrap();
            for ((own, parts), prepared) in held.iter().zip(&own_parameters).zip(&own_steps) {
                assert_eq!(bits(parts), bits(&cut(&parameters, own)), "{ranks} ranks, step {step}");
                assert_eq!(words(prepared.history()), words(single.history()));
            }
        }
    }
}

fn with_parameter(t: Tensor) -> Tensor {
    let parameter = data(Distribution::Uniform(1.0), t.data.len(), 77);
    t.parameter(parameter)
}

fn cut(all: &[Vec<f32>], own: &[(Range<usize>, bool)]) -> Vec<Vec<f32>> {
    all.iter().zip(own).map(|(values, (range, _))| values[range.clone()].to_vec()).collect()
}

/// A device's pass beside the CPU path of one rank that holds everything.
#[test]
fn devices_have_the_bits_of_one() {
    let Some(gpu) = gpu() else { return };
    let mut random = Random(25);
    let clips = [
        Clip::per_group_norm(1.0),
        Clip::per_tensor_norm(0.7).total(2.0),
        Clip::per_group_norm(1.0).norm_type(NormType::One).loss_scale(LossScale::default().interval(2)),
        Clip::per_tensor_norm(0.5).skip(Skip::z_score(2.0).window(4).first(3)),
    ];
    for clip in clips {
        for ranks in [1, 3, 4] {
            let held = holdings(ranks, &mut random);
            let placed: Vec<_> =
                held.iter().map(|own| gpu.place(&pieces(&tensors(1), own), Placing::APART)).collect();
            let passes: Vec<_> =
                placed.iter().map(|p| gpu.clipper.prepare(&p.grads, &clip).unwrap()).collect();
            let mut exchanges: Vec<Exchange> =
                held.iter().zip(&passes).map(|(own, pass)| pass.exchange(&counts(own)).unwrap()).collect();
            let mut history = History::default();
            let mut placed = placed;
            for step in 0..4u64 {
                let mut all = tensors(1000 + step);
                if step == 2 {
                    let mut values = all[2].data.floats();
                    values[40_000] = f32::NEG_INFINITY;
                    all[2].data = values.into();
                }
                for ((placed, own), (pass, exchange)) in
                    placed.iter_mut().zip(&held).zip(passes.iter().zip(&mut exchanges))
                {
                    placed.put(&gpu, &pieces(&all, own));
                    exchange.begin(&measured(&gpu, pass, exchange.measured_bytes())).unwrap();
                }
                all_reduce(&mut exchanges, &mut random);
                let trace = cpu::clip_traced_with(&mut grads(&mut all), &clip, &mut history).unwrap();
                let want = &trace.report;
                let each = placed.iter().zip(&held).zip(passes.iter().zip(&mut exchanges));
                for ((placed, own), (pass, exchange)) in each {
                    pass.write_sums(&gpu.queue, exchange).unwrap();
                    let report = gpu.submit(|encoder| {
                        pass.record_apply(encoder);
                        pass.read_back(encoder).unwrap()
                    });
                    let report = report.wait().unwrap();
                    let what = format!("{clip:?}, {ranks} ranks, step {step} on {}", gpu.name);
                    let got: Vec<Vec<f32>> = placed.read(&gpu).unwrap().iter().map(|d| d.floats()).collect();
                    let there: Vec<Vec<f32>> = pieces(&all, own).iter().map(|t| t.data.floats()).collect();
                    assert_eq!(bits(&got), bits(&there), "{what}");
                    let (report, want) = (placeless(report), placeless(want.clone()));
                    assert_eq!(format!("{report:?}"), format!("{want:?}"), "{what}");
                    assert_eq!(words(&gpu.save(pass)), words(&history), "{what}");
                    assert_eq!(gpu.read::<Sum>(pass.tensor_sums()), trace.tensor_sums, "{what}");
                    assert_eq!(gpu.read::<Sum>(pass.segment_sums()), trace.segment_sums, "{what}");
                }
            }
        }
    }
}

/// What the norm half leaves.
fn measured(gpu: &Gpu, pass: &gradclip::Pass, bytes: u64) -> Vec<u8> {
    let to = gpu.buffer(bytes, wgpu::BufferUsages::COPY_DST | wgpu::BufferUsages::COPY_SRC);
    gpu.submit(|encoder| {
        pass.record_norm(encoder);
        pass.record_measured(encoder, &to).unwrap();
    });
    gpu.read(&to)
}

/// Refused with words, and nothing half done.
#[test]
fn what_means_nothing_over_ranks_is_refused() {
    let one = |clip: &Clip| {
        let mut w = [1.0f32; 4];
        cpu::prepare(&[GradMut::new("w", &mut w).shape(&[2, 2])], clip).unwrap()
    };
    let refused = |clip: Clip, word: &str| {
        let error = one(&clip).exchange(&[true]).unwrap_err().to_string();
        assert!(error.contains("several ranks") && error.contains(word), "{error}");
    };
    refused(Clip::global_norm(1.0).use_norm(true), "measured");
    refused(Clip::per_row_norm(1.0), "rows");
    refused(Clip::block_rms(1.0), "number of elements");
    refused(Clip::per_unit_norm(1.0, Units::OutputFirst).loss_scale(LossScale::default()), "loss scale");
    let mut prepared = one(&Clip::global_norm(1.0));
    assert_eq!(prepared.exchange(&[]).unwrap_err(), ClipError::Count { required: 1, given: 0 });
    let mut exchange = prepared.exchange(&[true]).unwrap();
    let order = |error: ClipError| assert!(matches!(error, ClipError::Combination { .. }), "{error}");
    order(prepared.begin_exchange(&mut exchange).unwrap_err());
    let mut w = [3.0f32, 4.0, 0.0, 0.0];
    order(prepared.apply([&mut w[..]]).unwrap_err());
    prepared.measure([&w[..]]).unwrap();
    order(prepared.end_exchange(&mut exchange).unwrap_err());
    prepared.begin_exchange(&mut exchange).unwrap();
    order(prepared.end_exchange(&mut exchange).unwrap_err());
    assert_eq!(exchange.aligned().len(), 3);
    prepared.end_exchange(&mut exchange).unwrap();
    assert!(exchange.aligned().is_empty());
    order(prepared.end_exchange(&mut exchange).unwrap_err());
    prepared.apply([&mut w[..]]).unwrap();
    assert_eq!((w[0], w[1]), (0.6, 0.8));
    order(prepared.apply([&mut w[..]]).unwrap_err());
    // A whole step between the halves is a step of its own.
    prepared.measure([&w[..]]).unwrap();
    prepared.clip([&mut w[..]]).unwrap();
    order(prepared.apply([&mut w[..]]).unwrap_err());
    assert!(prepared.measure([&w[..2]]).unwrap_err().to_string().contains("4 elements"));
    let mut other =
        cpu::prepare(&[GradMut::new("v", &mut [1.0]), GradMut::new("w", &mut [1.0])], &Clip::measure())
            .unwrap();
    other.measure([&[1.0f32][..], &[1.0]]).unwrap();
    assert!(matches!(other.begin_exchange(&mut exchange), Err(ClipError::Count { .. })));
    let limits = Adam::lamb(0.1);
    let mut p = [1.0f32];
    let step =
        cpu::prepare_step(&[StepMut::new("w", &[1.0f32][..], &mut p[..])], &Clip::measure(), limits).unwrap();
    order(step.exchange(&[true]).unwrap_err());
    assert_eq!(MOST_RANKS, 65_535);
}
