//! Sums over clipped examples, with noise: the bound as integers, noise against its distribution, the device against the CPU path to the
//! bit.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::files::{self, number};
use common::{Data, Element, Gpu, Named, Placing, Random, Tensor, assert_close, gpu};
use gradclip::cpu::{self, GradRef};
use gradclip::{
    Adapt, Clip, ClipError, ClipperOptions, DType, Grad, History, LossScale, NoisyQuantile, NonFinite,
    NormType, PrepareError, Private, PrivateError, Rule, Scope, Skip, Units, wgpu,
};

/// Tensors of so many examples.
fn set(shapes: &[&[u64]], examples: u64, kind: Element, mut element: impl FnMut() -> f32) -> Vec<Tensor> {
    let tensor = |(i, shape): (usize, &&[u64])| {
        let shape = [&[examples], *shape].concat();
        let values: Vec<f32> = (0..shape.iter().product()).map(|_| element()).collect();
        Tensor::new(format!("t{i}"), Data::rounded(kind, &values)).shape(&shape)
    };
    shapes.iter().enumerate().map(tensor).collect()
}

fn refs(tensors: &[Tensor]) -> Vec<GradRef<'_>> {
    tensors.iter().map(Tensor::to_read).collect()
}

/// Sums of a lot before its release, and what is released.
#[derive(Debug, PartialEq)]
struct Made {
    sums: Vec<Vec<i64>>,
    /// As bits.
    means: Vec<Vec<u32>>,
}

/// Lots of batches on the CPU path, released one after the other.
fn on_cpu(lots: &[Vec<Vec<Tensor>>], like: &[Tensor], clip: &Clip, private: Private) -> Vec<Made> {
    let mut sum = cpu::prepare_private(&refs(like), clip, private).unwrap();
    let lot = |batches: &Vec<Vec<Tensor>>| {
        for batch in batches {
            sum.add(batch.iter().map(|t| t.data.slice())).unwrap();
        }
        let mut means: Vec<Vec<f32>> = sum.sums().iter().map(|sums| vec![f32::NAN; sums.len()]).collect();
        let sums = if batches.is_empty() { Vec::new() } else { sum.sums().to_vec() };
        sum.release(means.iter_mut().map(|m| &mut m[..])).unwrap();
        Made { sums, means: means.iter().map(|m| m.iter().map(|x| x.to_bits()).collect()).collect() }
    };
    lots.iter().map(lot).collect()
}

/// The same on a device, all lots in one submit, with what is released in one buffer.
fn on_device(
    gpu: &Gpu,
    (lots, like): (&[Vec<Vec<Tensor>>], &[Tensor]),
    (clip, private): (&Clip, Private),
    placing: Placing,
) -> Vec<Made> {
    let mut placed = gpu.place(like, placing);
    let width = |t: &Tensor| t.data.len() as u64 / t.shape.as_ref().unwrap()[0];
    let widths: Vec<u64> = like.iter().map(width).collect();
    let released = gpu.upload(&vec![0xff; 4 * widths.iter().sum::<u64>() as usize + 4]);
    let mut at = 0;
    let grads: Vec<Grad> = placed
        .grads
        .iter()
        .zip(&widths)
        .map(|(grad, width)| {
            at += 4 * width;
            grad.clone().accumulator(&released, at - 4 * width)
        })
        .collect();
    let sum = gpu.clipper.prepare_private(&grads, clip, private).unwrap();
    let mut made = Vec::new();
    for batches in lots {
        for batch in batches {
            placed.put(gpu, batch);
            gpu.submit(|encoder| sum.record(encoder).unwrap());
            assert!(placed.read(gpu).is_ok(), "gradients are only read");
        }
        let own = |i: usize| {
            let place = sum.sums(i).unwrap();
            let words = gpu.read::<i64>(&place.buffer)[place.offset as usize / 8..].to_vec();
            words[..place.elements as usize / 2].to_vec()
        };
        let sums = if batches.is_empty() { Vec::new() } else { (0..like.len()).map(own).collect() };
        gpu.submit(|encoder| sum.release(encoder).unwrap());
        let mut all = gpu.read::<u32>(&released).into_iter();
        let means = widths.iter().map(|&width| all.by_ref().take(width as usize).collect()).collect();
        assert_eq!(all.next(), Some(u32::MAX), "what lies behind stays");
        made.push(Made { sums, means });
    }
    let number = gpu.read::<u32>(sum.release_number())[0];
    assert_eq!(Some(number), sum.next_release());
    made
}

/// On both, to the bit.
fn same(lots: &[Vec<Vec<Tensor>>], like: &[Tensor], clip: &Clip, private: impl Fn() -> Private) -> Vec<Made> {
    let made = on_cpu(lots, like, clip, private());
    if let Some(gpu) = gpu() {
        for placing in [Placing::APART, Placing::arena(4, 12)] {
            let there = on_device(&gpu, (lots, like), (clip, private()), placing);
            assert_eq!(there, made, "{clip:?} on {}", gpu.name);
        }
    }
    made
}

/// C in units of the grid, from its bits: the unit is 2^-40 of its power of two.
fn bound_in_units(c: f32) -> u128 {
    u128::from((c.to_bits() & 0x7f_ffff) | 0x80_0000) << 17
}

/// Values as adversarial as they come: a row of one norm, just at C, far above, of subnormals, with one spike.
fn adversarial(random: &mut Random, c: f32, width: usize) -> Vec<f32> {
    let kind = random.bits() % 8;
    let sign = if random.bits().is_multiple_of(2) { 1.0 } else { -1.0 };
    let equal = c / (width as f32).sqrt();
    (0..width)
        .map(|i| match kind {
            0 => sign * equal,
            1 => sign * equal.next_up(),
            2 => sign * c * 1e30,
            3 => f32::from_bits(1 + random.bits() as u32 % 100) * sign,
            4 => {
                if i == 0 {
                    sign * c.next_up()
                } else {
                    random.unit() * c * 1e-9
                }
            }
            5 => {
                if i == 0 {
                    sign * c
                } else {
                    0.0
                }
            }
            6 => random.unit() * c * 2f32.powi(-(random.bits() as i32 % 60).abs()),
            _ => random.unit() * 4.0 * c,
        })
        .collect()
}

/// Privacy's bound as a property, in integers: taking one example away moves the sums by at most C, exactly.
#[test]
fn taking_an_example_away_moves_sums_by_at_most_c() {
    let mut random = Random(11);
    let (mut least, mut moved) = (f64::INFINITY, 0);
    for turn in 0..300 {
        let c = [1.0f32, 0.1, 3.0, 1.5e-3, 7.3e5, 1e-30, 1.999_999_9][turn % 7];
        let kind = Element::ON_DEVICES[turn % 3];
        // Halves hold no such numbers.
        let c = if kind == Element::F16 { c.clamp(1e-2, 10.0) } else { c };
        let examples = 1 + random.bits() % 9;
        let rows: Vec<Vec<f32>> = (0..examples).map(|_| adversarial(&mut random, c, 17)).collect();
        let tensors = |rows: &[Vec<f32>]| {
            let part = |i: usize, range: std::ops::Range<usize>, shape: &[u64]| {
                let values: Vec<f32> = rows.iter().flat_map(|row| row[range.clone()].to_vec()).collect();
                let shape = [&[rows.len() as u64], shape].concat();
                Tensor::new(format!("t{i}"), Data::rounded(kind, &values)).shape(&shape)
            };
            vec![
                part(0, 0..12, &[3, 4]),
                part(1, 12..12, &[0]),
                part(2, 12..16, &[2, 2]),
                part(3, 16..17, &[]),
            ]
        };
        let clip =
            if turn % 5 == 4 { Clip::automatic(0.01).rule(Rule::Normalize) } else { Clip::per_row_norm(c) };
        let clip = if turn % 4 == 3 { clip.unscale(0.37) } else { clip };
        let bound = bound_in_units(if turn % 5 == 4 { 1.0 } else { c });
        let all = tensors(&rows);
        let sums = |batch: &[Tensor]| {
            on_cpu(&[vec![batch.to_vec()]], batch, &clip, Private::new(0.0, 0)).remove(0).sums
        };
        let whole = sums(&all);
        for without in 0..rows.len() {
            let mut rest = rows.clone();
            rest.remove(without);
            // No batch has no examples; zeros add nothing.
            if rest.is_empty() {
                rest.push(vec![0.0; 17]);
            }
            let rest = sums(&tensors(&rest));
            let differences = whole.iter().flatten().zip(rest.iter().flatten()).map(|(a, b)| a.abs_diff(*b));
            let square: u128 = differences.map(|d| u128::from(d).pow(2)).sum();
            assert!(square <= bound.pow(2), "{turn}: {kind:?}, {c:e}: {square} above {bound}^2");
            let share = (square as f64).sqrt() / bound as f64;
            if share > 0.999 {
                moved += 1;
                least = least.min(share);
            }
        }
    }
    // Examples that are clipped have about C: the bound is not kept by adding nothing.
    assert!(moved > 300, "{moved}");
}

/// What an example adds is its clipped gradient in f64, cut towards zero.
#[test]
fn terms_are_clipped_gradients() {
    let mut random = Random(5);
    for kind in Element::ON_DEVICES {
        for c in [0.5f32, 1.0, 100.0] {
            let batch = set(&[&[5], &[2, 3]], 40, kind, || random.unit() * random.unit() * 2.0);
            let like = &batch[..];
            let made = same(&[vec![batch.clone()]], like, &Clip::per_row_norm(c), || Private::new(0.0, 1));
            let unit = 2f64.powi(f64::from(c).log2().floor() as i32 - 40);
            let values: Vec<Vec<f64>> = batch.iter().map(|t| t.data.values().collect()).collect();
            for (tensor, width) in [(0, 5), (1, 6)] {
                for (i, sum) in made[0].sums[tensor].iter().enumerate() {
                    let (mut want, mut sizes) = (0.0, 0.0);
                    for row in 0..40 {
                        let own =
                            |t: usize, w: usize| values[t][row * w..][..w].iter().map(|x| x * x).sum::<f64>();
                        let norm = (own(0, 5) + own(1, 6)).sqrt();
                        let term = values[tensor][row * width + i] * (f64::from(c) / norm).min(1.0);
                        (want, sizes) = (want + term, sizes + term.abs());
                    }
                    // Coefficients are rounded down by less than 2^-21, each product cut by a unit.
                    let most = sizes * 2f64.powi(-21) + 40.0 * unit;
                    assert!((want - *sum as f64 * unit).abs() <= most, "{kind:?} {c}: {want} {sum}");
                    // What is not clipped is cut to the grid, and nothing else.
                    let cut = (0..40).map(|row| (values[tensor][row * width + i] / unit).trunc() as i64);
                    assert!(c != 100.0 || cut.sum::<i64>() == *sum, "{kind:?}: {want} {sum}");
                }
            }
        }
    }
}

/// One lot has the same sums, noise and release whatever batches it comes in; a lot begins anew; and empty ones release noise alone.
#[test]
fn lots_of_several_batches_equal_one() {
    let mut random = Random(7);
    let shapes: [&[u64]; 5] = [&[300], &[], &[7, 5], &[0], &[257]];
    for kind in Element::ON_DEVICES {
        let whole = set(&shapes, 24, kind, || random.unit() * random.unit() * 0.2);
        let part = |from: usize, count: usize| -> Vec<Tensor> {
            let part = |t: &Tensor| {
                let width = t.data.len() / 24;
                let values: Vec<f32> = t.data.floats()[from * width..][..count * width].to_vec();
                let shape = [&[count as u64], &t.shape.as_ref().unwrap()[1..]].concat();
                Tensor::new(t.name.clone(), Data::rounded(kind, &values)).shape(&shape)
            };
            whole.iter().map(part).collect()
        };
        let clip = Clip::per_row_norm(0.7f32);
        let private = || Private::new(1.3, 99).expected_batch_size(24);
        let at_once = vec![vec![whole.clone()], vec![], vec![whole.clone()]];
        let in_parts = |count: usize| -> Vec<Vec<Vec<Tensor>>> {
            let lot: Vec<Vec<Tensor>> = (0..24).step_by(count).map(|from| part(from, count)).collect();
            vec![lot.clone(), vec![], lot]
        };
        let made = same(&at_once, &whole, &clip, private);
        for count in [1, 8, 12] {
            assert_eq!(same(&in_parts(count), &part(0, count), &clip, private), made, "{kind:?}, {count}");
        }
        assert_eq!(made[0].sums, made[2].sums);
        // Each has noise of its own, also the one without examples.
        for (a, b) in [(0, 1), (0, 2), (1, 2)] {
            let equal = made[a].means[0].iter().zip(&made[b].means[0]).filter(|(a, b)| a == b).count();
            assert!(equal < 3, "{a} and {b}: {equal} of 300 alike");
        }
    }
}

/// Numbers that `f64` programs make of the same bits: Random123's generator, Box and Muller.
fn threefry(counter: [u32; 2], key: [u32; 2]) -> u64 {
    let keys = [key[0], key[1], 0x1bd1_1bda ^ key[0] ^ key[1]];
    let mut x = [counter[0].wrapping_add(keys[0]), counter[1].wrapping_add(keys[1])];
    for round in 0..20u32 {
        let by = [13, 15, 26, 6, 17, 29, 16, 24][round as usize % 8];
        x[0] = x[0].wrapping_add(x[1]);
        x[1] = x[1].rotate_left(by) ^ x[0];
        if round % 4 == 3 {
            let turn = round / 4 + 1;
            x[0] = x[0].wrapping_add(keys[turn as usize % 3]);
            x[1] = x[1].wrapping_add(keys[(turn as usize + 1) % 3]).wrapping_add(turn);
        }
    }
    u64::from(x[1]) << 32 | u64::from(x[0])
}

fn halves(word: u64) -> [u32; 2] {
    [word as u32, (word >> 32) as u32]
}

/// The number of a thing at a place and a time, for sums (purpose 0) or thresholds (1).
fn z(seed: u64, (thing, purpose): (u32, u32), place: u32, time: u32) -> f64 {
    let key = |i: u32| halves(threefry([thing, 2 * purpose + i], halves(seed)));
    let bits = [0, 1].map(|i| threefry([place, time], key(i)));
    let u = (bits[0] | 1) as f64 / 2f64.powi(64);
    // Near 1 by its distance, which an f64 holds.
    let ln = if u > 0.5 { (-((bits[0] | 1).wrapping_neg() as f64) / 2f64.powi(64)).ln_1p() } else { u.ln() };
    let f = (bits[1] << 1) as f64 / 2f64.powi(64);
    let size = (-2.0 * ln).sqrt() * (std::f64::consts::FRAC_PI_2 * f).cos();
    if bits[1] >> 63 == 1 { -size } else { size }
}

/// Noise alone: of no example, as numbers of standard deviations.
fn noise(seed: u64, elements: u64, releases: usize) -> Vec<Vec<f32>> {
    let like = [Tensor::new("t", vec![0.0f32; elements as usize]).shape(&[1, elements])];
    let made = same(&vec![vec![]; releases], &like, &Clip::per_row_norm(1.0), || Private::new(1.0, seed));
    made.into_iter().map(|m| m.means[0].iter().map(|&bits| f32::from_bits(bits)).collect()).collect()
}

/// Every number is that of an `f64` program of the same bits: f32 rounds to 2^-25, the program is off by less than 2^-45.
#[test]
fn noise_is_box_and_mullers() {
    for seed in [0, 1, 0x0123_4567_89ab_cdef, u64::MAX] {
        for (release, own) in noise(seed, 3000, 3).iter().enumerate() {
            for (element, &got) in own.iter().enumerate() {
                let want = z(seed, (0, 0), element as u32, release as u32);
                let most = want.abs() * 2f64.powi(-24) + 2f64.powi(-40);
                assert!((f64::from(got) - want).abs() <= most, "{seed:x} {release} {element}: {got} {want}");
            }
        }
    }
}

/// The complementary error function, by its continued fraction or series: within 1e-12 of erfc for what a test needs.
fn normal_distribution(x: f64) -> f64 {
    let t = x.abs();
    let upper = if t < 3.0 {
        let mut term = t;
        let sum = (1..200).fold(t, |sum, n| {
            term *= t * t / (2.0 * f64::from(n) + 1.0);
            sum + term
        });
        0.5 - sum * (-t * t / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt()
    } else {
        let fraction = (1..200).rev().fold(t, |below, n| t + f64::from(n) / below);
        (-t * t / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt() / fraction
    };
    if x < 0.0 { upper } else { 1.0 - upper }
}

/// Moments, Kolmogorov and Smirnov's distance, tails, and nothing in common of neighbours: of a fixed seed, bounds that chance exceeds
/// once in 10,000 or less.
#[test]
fn noise_has_its_distribution() {
    const N: usize = 200_000;
    let all = noise(2024, N as u64, 2);
    let [a, b] = [&all[0], &all[1]].map(|own| own.iter().map(|&x| f64::from(x)).collect::<Vec<f64>>());
    let n = N as f64;
    let moment = |k: i32| a.iter().map(|x| x.powi(k)).sum::<f64>() / n;
    // Four standard errors: of the moments 1 to 4 these are sqrt(1, 2, 15, 96) / sqrt(n).
    for (k, want, variance) in [(1, 0.0, 1.0), (2, 1.0, 2.0), (3, 0.0, 15.0), (4, 3.0, 96f64)] {
        assert!((moment(k) - want).abs() < 4.0 * (variance / n).sqrt(), "moment {k}: {}", moment(k));
    }
    let mut sorted = a.clone();
    sorted.sort_unstable_by(f64::total_cmp);
    let distance = sorted.iter().enumerate().map(|(i, &x)| {
        let p = normal_distribution(x);
        (p - i as f64 / n).max((i as f64 + 1.0) / n - p)
    });
    let distance = distance.fold(0.0, f64::max);
    // 2 exp(-2 n d²) = 1e-4.
    assert!(distance < (2e4f64.ln() / (2.0 * n)).sqrt(), "{distance}");
    for at in [1.0, 2.0, 3.0, 4.0] {
        let p = 2.0 * (1.0 - normal_distribution(at));
        let beyond = a.iter().filter(|x| x.abs() > at).count() as f64;
        assert!((beyond - n * p).abs() < 4.0 * (n * p).sqrt() + 1.0, "{beyond} beyond {at}, of {}", n * p);
    }
    // Of neighbours, of the next release, and of another seed and tensor.
    let other = noise(2025, N as u64, 1).remove(0);
    let product = |b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>() / n.sqrt();
    let shifted: Vec<f64> = a[1..].to_vec();
    for (what, b) in
        [("release", &b), ("neighbour", &shifted), ("seed", &other.iter().map(|&x| x.into()).collect())]
    {
        assert!(product(b).abs() < 4.0, "{what}: {}", product(b));
    }
}

/// Andrew et al. with noise on the count, against an f64 program of the same bits; device and CPU path to the bit.
#[test]
fn quantiles_with_noise() {
    const STEPS: usize = 200;
    let (rows, width, seed) = (40usize, 3usize, 0xfeed_f00d_0123);
    let mut random = Random(41);
    let mut batch =
        || -> Vec<f32> { (0..rows * width).map(|e| random.unit() * (1.0 + (e / width) as f32)).collect() };
    let batches: Vec<Vec<f32>> = (0..STEPS).map(|_| batch()).collect();
    let tensor = |batch: &[f32]| Tensor::new("t", batch.to_vec()).shape(&[rows as u64, width as u64]);
    for (noise, rate) in [(0.0f32, 0.2f32), (2.0, 0.2), (500.0, 0.01), (1e6, 16.0)] {
        // Fewer are expected than there are.
        let own = NoisyQuantile::new(0.5, rate, noise, 32, seed);
        let clip = Clip::per_row_norm(0.1f32).adapt(Adapt::NoisyQuantile(own)).at_least(1e-3).at_most(1e3);
        let (mut history, mut c, mut inside) = (History::default(), f64::from(0.1f32), 0);
        for (step, batch) in (0u32..).zip(&batches) {
            if step > 0 {
                let before = &batches[step as usize - 1];
                let norm = |row: &[f32]| row.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
                let halves = before.chunks(width).map(|row| if norm(row) <= c { 0.5 } else { -0.5 });
                let sum = halves.sum::<f64>() + f64::from(noise) * z(seed, (0, 1), 0, step);
                c = (c * (-f64::from(rate) * (sum / 32.0)).exp()).clamp(f64::from(1e-3f32), 1e3);
            }
            let mut g = tensor(batch);
            cpu::clip_with(&mut [g.grad()], &clip, &mut history).unwrap();
            let got = f64::from(history.thresholds()[0]);
            // Each step's factor is that of an f32 program; a multiple of 2^-20 of a segment is what noise is rounded to.
            let most = (f64::from(step) + 1.0) * (2e-6 + 4e-6 * f64::from(rate));
            assert!((got / c - 1.0).abs() < most, "{noise} {rate}, step {step}: {got} {c}");
            // From here on: what is off does not decide about a norm that lies near C.
            c = got;
            inside += usize::from((0.5..35.0).contains(&c));
        }
        assert!(noise > 2.0 || inside > STEPS * 3 / 5, "{noise}: {inside}");
        // The seed is not in what is saved, and another one goes on from there.
        let bytes = history.to_bytes();
        assert!(!bytes.windows(4).any(|w| w == (seed as u32).to_le_bytes()));
        let mut resumed = History::from_bytes(&bytes).unwrap();
        let other = NoisyQuantile::new(0.5, rate, noise, 32, 5);
        let other = clip.adapt(Adapt::NoisyQuantile(other));
        let mut g = tensor(&batches[0]);
        cpu::clip_with(&mut [g.grad()], &other, &mut resumed).unwrap();
        assert_eq!(resumed.steps(), STEPS as u64 + 1);
        let Some(gpu) = gpu() else { continue };
        for finish in [false, true] {
            if finish && gpu.compiles_slowly() {
                continue;
            }
            let clipper = gpu.clipper_with(ClipperOptions::default().finish(finish));
            let mut placed = gpu.place(&[tensor(&batches[0])], Placing::APART);
            let pass = clipper.prepare(&placed.grads, &clip).unwrap();
            for batch in &batches {
                placed.put(&gpu, &[tensor(batch)]);
                gpu.submit(|encoder| pass.record(encoder));
            }
            assert_eq!(gpu.save(&pass), history, "{noise} {rate}, {finish} on {}", gpu.name);
        }
    }
    for (own, says) in [
        (NoisyQuantile::new(1.5, 0.2, 1.0, 32, 1), "quantile of 0 to 1, given 1.5"),
        (NoisyQuantile::new(0.5, -0.2, 1.0, 32, 1), "rate of 0 to 16"),
        (NoisyQuantile::new(0.5, 0.2, -1.0, 32, 1), "noise of 0 to 1048576, given -1"),
        (NoisyQuantile::new(0.5, 0.2, f32::NAN, 32, 1), "given NaN"),
        (NoisyQuantile::new(0.5, 0.2, 1.0, 0, 1), "number of segments of 1 to 16777216, given 0"),
    ] {
        let error = Clip::per_row_norm(1.0).adapt(Adapt::NoisyQuantile(own)).validate().unwrap_err();
        assert!(error.to_string().contains(says), "{error}");
    }
    let infinite = Clip::per_row_norm(f32::INFINITY);
    assert!(
        infinite.adapt(Adapt::NoisyQuantile(NoisyQuantile::new(0.5, 0.2, 1.0, 32, 1))).validate().is_err()
    );
}

/// Every integer of the grid can be met: the lowest bits of noise are as even as chance has it, for the least and the largest multiplier.
#[test]
fn noise_leaves_no_gaps_in_the_grid() {
    const N: usize = 40_000;
    for multiplier in [1e-9, 0.3, 1.0, 1024.0] {
        // Sums of 1 unit less than noise, released as they are: f32 holds 24 bits, so the noise is made small by large sums.
        let like = [Tensor::new("t", vec![0.0f32; N]).shape(&[1, N as u64])];
        let made = same(&[vec![]], &like, &Clip::per_row_norm(1.0), || Private::new(multiplier, 3));
        if multiplier == 1e-9 {
            // Below 2^24 units, f32 holds every integer.
            let units: Vec<i64> = made[0].means[0]
                .iter()
                .map(|&b| (f64::from(f32::from_bits(b)) * 2f64.powi(40)) as i64)
                .collect();
            for bit in 0..8 {
                let odd = units.iter().filter(|u| **u >> bit & 1 == 1).count() as f64;
                assert!((odd - N as f64 / 2.0).abs() < 4.0 * (N as f64 / 4.0).sqrt(), "bit {bit}: {odd}");
            }
        }
        let variance =
            made[0].means[0].iter().map(|&b| f64::from(f32::from_bits(b)).powi(2)).sum::<f64>() / N as f64;
        let off = variance / (multiplier * multiplier) - 1.0;
        assert!(off.abs() < 4.0 * (2.0 / N as f64).sqrt(), "{multiplier}: {variance}");
    }
}

/// Releases are totals over the lot, rounded once, as 128-bit integers have them.
#[test]
fn releases_are_rounded_once() {
    let mut random = Random(13);
    for lot in [1u32, 2, 3, 10, 255, 65_537, 2_097_151] {
        for c in [1.0f32, 0.3, 1e-40, 3e38] {
            let batch = set(&[&[200]], 3, Element::F32, || random.unit() * random.unit() * c * 0.3);
            let private = || Private::new(0.0, 0).expected_batch_size(lot);
            let made = same(&[vec![batch.clone()]], &batch, &Clip::per_row_norm(c), private);
            let unit = {
                let sum = cpu::prepare_private(&refs(&batch), &Clip::per_row_norm(c), private()).unwrap();
                sum.unit()
            };
            for (sum, &got) in made[0].sums[0].iter().zip(&made[0].means[0]) {
                let got = f32::from_bits(got);
                // A quotient to 2^-40 of a unit, and what is left: f32's own rounding is that of an f64 whose last bit tells of more.
                let wide = u128::from(sum.unsigned_abs()) << 40;
                let (mut q, rest) = (wide / u128::from(lot), wide % u128::from(lot));
                let mut exponent = unit - 40;
                let mut lost = rest != 0;
                while q >> 52 != 0 {
                    lost |= q & 1 == 1;
                    (q, exponent) = (q >> 1, exponent + 1);
                }
                let odd = (q << 1 | u128::from(lost)) as f64;
                let want = odd * 2f64.powi((exponent - 1) / 2) * 2f64.powi(exponent - 1 - (exponent - 1) / 2);
                let want = if *sum < 0 { -want as f32 } else { want as f32 };
                assert_eq!(got.to_bits(), want.to_bits(), "{sum} * 2^{unit} / {lot}");
            }
        }
    }
}

/// An example that is not finite adds nothing, or what is left of it, and takes nothing from the others.
#[test]
fn what_is_not_finite_adds_nothing() {
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let rows = [3.0f32, 4.0, 0.3, bad, 0.1, 0.2];
        let batch = vec![Tensor::new("t", rows.to_vec()).shape(&[3, 2])];
        for (policy, left) in [(NonFinite::Skip, 0.0), (NonFinite::Zero, 0.0), (NonFinite::Sanitize, 0.3f64)]
        {
            let clip = Clip::per_row_norm(1.0).on_non_finite(policy);
            let made = same(&[vec![batch.clone()]], &batch, &clip, || Private::new(0.0, 0));
            let means = made[0].means[0].iter().map(|&b| f64::from(f32::from_bits(b)));
            assert_close(
                means,
                [0.6 + f64::from(0.1f32) + left, 0.8 + f64::from(0.2f32)],
                1e-6,
                0.0,
                "policy",
            );
        }
    }
    // What unscaling takes above the largest f32 is not finite, either.
    let batch = vec![Tensor::new("t", vec![3e38f32, 1.0, 1.0, 1.0]).shape(&[2, 2])];
    for policy in [NonFinite::Skip, NonFinite::Sanitize] {
        let clip = Clip::per_row_norm(1.0).unscale(4.0).on_non_finite(policy);
        same(&[vec![batch.clone()]], &batch, &clip, || Private::new(0.0, 0));
    }
}

/// Tensors that one binding does not hold: the same bits on a device with the smallest bindings there are.
#[test]
fn tensors_may_be_larger_than_bindings() {
    let Some(gpu) = gpu() else { return };
    let small = gpu.other(|d| d.required_limits.max_storage_buffer_binding_size = 1 << 17);
    let mut random = Random(17);
    for kind in Element::ON_DEVICES {
        // Examples of 160 or 80 KB, some of which no binding holds; of 20 KB, of which it holds some; and others.
        let batch = set(&[&[40_000], &[5001], &[3]], 20, kind, || random.unit() * 0.01);
        let clip = Clip::per_row_norm(0.4f32);
        let private = || Private::new(0.5, 4).expected_batch_size(100);
        let lots = [vec![batch.clone(), batch.clone()]];
        let made = on_cpu(&lots, &batch, &clip, private());
        for placing in [Placing::APART, Placing::PACKED] {
            assert_eq!(on_device(&small, (&lots, &batch), (&clip, private()), placing), made, "{kind:?}");
        }
    }
}

/// Cases of other libraries, added up on the device.
#[test]
fn sums_of_other_libraries() {
    let cases = [("opacus_flat_sum", "sum"), ("optax_dp_mean_none", "mean"), ("f64_autos_mean_wide", "mean")];
    for (name, kind) in cases {
        let folder = files::folder("library_cases").join(name);
        let of = |file: &str, prefix: &str| {
            let mut tensors = files::tensors(&folder.join(file)).unwrap();
            tensors.retain(|t| t.name.starts_with(&format!("{prefix}.")));
            tensors
        };
        let json = files::json(&folder.join("case.json")).unwrap();
        let argument = |name: &str| number(&json["args"][name]).unwrap();
        let clip = match name {
            "opacus_flat_sum" => Clip::per_row_norm(argument("max_grad_norm")).eps(1e-6),
            "optax_dp_mean_none" => Clip::per_row_norm(argument("l2_norm_clip")),
            _ => Clip::automatic(argument("gamma")),
        };
        let batch = of("input.safetensors", "g");
        let examples = batch[0].shape.as_ref().unwrap()[0] as u32;
        let private = || match kind {
            "mean" => Private::new(0.0, 0).expected_batch_size(examples),
            _ => Private::new(0.0, 0),
        };
        let made = same(&[vec![batch.clone()]], &batch, &clip, private);
        let tolerance = |key: &str| number(&json[key]).unwrap();
        for (got, want) in made[0].means.iter().zip(&of("expected.safetensors", kind)) {
            let got = got.iter().map(|&bits| f64::from(f32::from_bits(bits)));
            assert_close(got, want.data.values(), tolerance("rtol"), tolerance("atol"), name);
        }
    }
}

/// What has no bound, or cannot be held, is refused by name, and nothing of it is written.
#[test]
fn what_has_no_bound_is_refused() {
    let rows = Tensor::new("t", vec![1.0f32; 6]).shape(&[3, 2]);
    let clip = Clip::per_row_norm(1.0);
    let refused = |tensors: &[Tensor], clip: Clip, private: fn() -> Private| {
        let error = cpu::prepare_private(&refs(tensors), &clip, private()).unwrap_err();
        if let Some(gpu) = gpu() {
            let placed = gpu.place(tensors, Placing::APART);
            let released = gpu.upload(&[0; 64]);
            let grads: Vec<Grad> = placed.grads.iter().map(|g| g.clone().accumulator(&released, 0)).collect();
            let there = gpu.clipper.prepare_private(&grads, &clip, private()).unwrap_err();
            assert_eq!(there.to_string(), error.to_string());
        }
        error.to_string()
    };
    let plain = || Private::new(1.0, 1);
    for (clip, says) in [
        (Clip::global_norm(1.0), "Scope::Row"),
        (Clip::per_unit_norm(1.0, Units::OutputFirst), "Scope::Row"),
        (clip.norm_type(NormType::One), "norm type 2"),
        (Clip::value(1.0).scope(Scope::Row), "norm type 2"),
        (clip.rule(Rule::Rms), "rule Norm or Normalize"),
        (clip.never_above(false), "never_above"),
        (Clip::per_row_norm(f32::INFINITY), "threshold above 0 and finite"),
        (Clip::per_row_norm(0.0), "threshold above 0 and finite"),
        (Clip::per_row_norm(1e-46), "threshold above 0 and finite"),
        (Clip::per_row_norm(1e39), "threshold above 0 and finite"),
        (clip.adapt(Adapt::Quantile { quantile: 0.5, rate: 0.2 }), "fixed threshold"),
        (clip.total(1.0), "no limit of the whole set"),
        (clip.skip(Skip::non_finite().above(1.0)), "no rule that leaves out steps"),
        (clip.loss_scale(LossScale::default()), "no loss scale"),
        (clip.on_non_finite(NonFinite::Nan), "NonFinite::Skip"),
    ] {
        let error = refused(std::slice::from_ref(&rows), clip, plain);
        assert!(error.contains("a private sum") && error.contains(says), "{error}");
    }
    type Asked = fn() -> Private;
    let private: [(Asked, &str); 4] = [
        (|| Private::new(-1.0, 1), "noise multiplier of 0 to 1024, given -1"),
        (|| Private::new(f64::NAN, 1), "given NaN"),
        (
            || Private::new(1.0, 1).expected_batch_size(0),
            "expected batch size of 1 to 2097151 examples, given 0",
        ),
        (|| Private::new(1.0, 1).expected_batch_size(1 << 21), "given 2097152"),
    ];
    for (private, says) in private {
        let error = refused(std::slice::from_ref(&rows), clip, private);
        assert!(error.contains(says), "{error}");
    }
    let excluded = rows.clone().group(Named::excluded("head"));
    assert!(refused(&[excluded], clip, plain).contains("tensor `t`: required no excluded group"));
    let none = Tensor::new("t", Vec::<f32>::new()).shape(&[0, 2]);
    assert!(refused(&[none], clip, plain).contains("at least one example"));
    let flat = Tensor { shape: None, ..rows.clone() };
    let error = cpu::prepare_private(&[GradRef::new("t", flat.data.slice())], &clip, plain()).unwrap_err();
    assert!(matches!(error, PrivateError::Clip(ClipError::Tensor { .. })), "{error}");
    let double = cpu::prepare_private(&[GradRef::new("t", &[1.0f64; 4][..]).shape(&[2, 2])], &clip, plain());
    assert!(double.unwrap_err().to_string().contains("given f64"));
}

#[test]
fn lots_have_a_size_and_releases_a_number() {
    let rows = Tensor::new("t", vec![0.25f32; 2 << 20]).shape(&[2 << 20, 1]);
    let clip = Clip::per_row_norm(1.0);
    let mut sum =
        cpu::prepare_private(&refs(std::slice::from_ref(&rows)), &clip, Private::new(0.0, 1)).unwrap();
    // The largest lot, all of one sign.
    sum.add([rows.data.slice()]).unwrap();
    assert_eq!(sum.sums()[0][0], 1i64 << (21 + 38));
    let error = sum.add([rows.data.slice()]).unwrap_err();
    assert_eq!(error, PrivateError::Examples { required: 1 << 21, given: 1 << 22 });
    assert!(matches!(sum.set_threshold(2.0), Err(PrivateError::InLot { given: 0x20_0000 })));
    let mut mean = [0.0f32];
    let wrong = sum.release([&mut [0.0f32; 2][..]]).unwrap_err();
    assert!(wrong.to_string().contains("required 1 elements"), "{wrong}");
    sum.release([&mut mean[..]]).unwrap();
    assert_eq!(mean, [524_288.0]);
    // C can be changed now, and the grid follows.
    let unit = sum.unit();
    sum.set_threshold(0.125).unwrap();
    assert_eq!((sum.unit(), sum.set_threshold(-1.0).is_err()), (unit - 3, true));
    sum.add([rows.data.slice()]).unwrap();
    sum.release([&mut mean[..]]).unwrap();
    // Norms that are compared are rounded up, by a share of 2^-22 at most.
    assert!(mean[0] <= 262_144.0 && mean[0] > 262_143.9, "{mean:?}");

    let last = Private::new(1.0, 1).first_release(u32::MAX);
    let rows = Tensor::new("t", vec![0.25f32; 2]).shape(&[2, 1]);
    let like = std::slice::from_ref(&rows);
    let mut sum = cpu::prepare_private(&refs(like), &clip, last).unwrap();
    sum.release([&mut mean[..]]).unwrap();
    assert_eq!(sum.next_release(), None);
    assert_eq!(sum.release([&mut mean[..]]), Err(PrivateError::Releases));
    let Some(gpu) = gpu() else { return };
    let placed = gpu.place(like, Placing::APART);
    let error = gpu.clipper.prepare_private(&placed.grads, &clip, Private::new(1.0, 1)).unwrap_err();
    assert!(error.to_string().contains("tensor `t`: required an accumulator"), "{error}");
    let released = gpu.upload(&[0; 4]);
    let grads = [placed.grads[0].clone().accumulator(&released, 0)];
    let sum =
        gpu.clipper.prepare_private(&grads, &clip, Private::new(1.0, 1).first_release(u32::MAX)).unwrap();
    let release = |encoder: &mut wgpu::CommandEncoder| sum.release(encoder);
    assert_eq!(gpu.submit(release), Ok(()));
    assert_eq!(gpu.read::<f32>(&released)[0], mean[0]);
    assert_eq!(gpu.submit(release), Err(PrivateError::Releases));
    assert_eq!(gpu.submit(|encoder| sum.record(encoder)), Ok(()));
    assert!(matches!(sum.set_threshold(&gpu.queue, 2.0), Err(PrivateError::InLot { given: 2 })));
    // Where what is released does not fit, or lies on the gradient.
    for (buffer, offset) in [(&released, 4), (&placed.buffers[0], 0)] {
        let grads = [placed.grads[0].clone().accumulator(buffer, offset)];
        let error = gpu.clipper.prepare_private(&grads, &clip, Private::new(1.0, 1)).unwrap_err();
        assert!(matches!(error, PrepareError::Plan(_)), "{error}");
    }
    let double = [placed.grads[0].clone().dtype(DType::F64).shape(&[1, 1]).accumulator(&released, 0)];
    assert!(gpu.clipper.prepare_private(&double, &clip, Private::new(1.0, 1)).is_err());
}

/// On the device C changes between lots, fewer rows take part, and several releases in one submit have numbers of their own.
#[test]
fn what_is_set_between_lots() {
    let Some(gpu) = gpu() else { return };
    let mut random = Random(23);
    let batch = set(&[&[50]], 6, Element::F32, || random.unit());
    let placed = gpu.place(&batch, Placing::APART);
    let released = gpu.upload(&[0; 200]);
    let grads = [placed.grads[0].clone().accumulator(&released, 0)];
    let private = || Private::new(0.5, 8).expected_batch_size(6);
    let clip = Clip::per_row_norm(1.0);
    let sum = gpu.clipper.prepare_private(&grads, &clip, private()).unwrap();
    let mut host = cpu::prepare_private(&refs(&batch), &clip, private()).unwrap();
    let mut mean = [0.0f32; 50];
    for (c, rows) in [(0.7f32, 6usize), (1e-3, 4), (5.0, 0), (2.0, 6)] {
        sum.set_threshold(&gpu.queue, c).unwrap();
        sum.set_rows(&gpu.queue, rows as u64).unwrap();
        gpu.submit(|encoder| {
            sum.record(encoder).unwrap();
            sum.release(encoder).unwrap();
            sum.release(encoder).unwrap();
            sum.record(encoder).unwrap();
            sum.release(encoder).unwrap();
        });
        host.set_threshold(c).unwrap();
        assert_eq!(host.unit(), sum.unit());
        let mut values = batch[0].data.floats();
        values[50 * rows..].fill(0.0);
        for with in [true, false, true] {
            if with {
                host.add([&values[..]]).unwrap();
            }
            host.release([&mut mean[..]]).unwrap();
        }
        let there: Vec<u32> = gpu.read(&released);
        assert_eq!(there, mean.map(f32::to_bits), "C of {c}, {rows} rows");
    }
    assert_eq!(gpu.read::<u32>(sum.release_number())[0], 12);
}
