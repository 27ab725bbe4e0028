//! Trains a small net on the ranks of an MPI job, by data or with its parameters and the optimiser's state sharded as ZeRO shards them. The losses
//! are the same to the bit on 1, 2, 4 and 8 ranks, in either way:
//!
//! ```text
//! cargo build --example train
//! for n in 1 2 4; do mpirun --oversubscribe -n $n target/debug/examples/train sharded; done
//! ```
//!
//! That takes two things. The norm is that of one rank (this library). And gradients are added up in one order: here each rank computes some of eight
//! micro-batches, all ranks have the gradients of all of them, and add them from the first to the last. A sum by `MPI_Allreduce` of floats would
//! hang on the number of ranks.

use std::error::Error;
use std::ops::Range;
use std::time::Duration;

use gradclip_mpi::gradclip::{Adam, Clip};
use gradclip_mpi::mpi::traits::*;
use gradclip_mpi::{Piece, Ranks, mpi, shard_ranges};

const INPUTS: usize = 64;
const HIDDEN: usize = 1024;
/// The weights of the first layer, four chunks of a norm, and those of the second.
const SIZES: [usize; 2] = [INPUTS * HIDDEN, HIDDEN];
const MICRO_BATCHES: usize = 8;
const SAMPLES: usize = 4;
const STEPS: usize = 30;

/// SplitMix64 (Steele, Lea and Flood 2014), uniform in [-1, 1).
fn uniform(seed: u64) -> f32 {
    let mut z = seed.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((z ^ (z >> 31)) >> 40) as f32 * 2f32.powi(-23) - 1.0
}

/// Adds the gradients of one sample of the squared error of w2 · relu(w1 x) to `grads`, and returns its loss.
fn backward(w: &[Vec<f32>; 2], x: &[f32], target: f32, grads: &mut [f32]) -> f32 {
    let mut hidden = [0.0f32; HIDDEN];
    let mut out = 0.0;
    for (h, (row, w2)) in hidden.iter_mut().zip(w[0].chunks(INPUTS).zip(&w[1])) {
        *h = row.iter().zip(x).map(|(w, x)| w * x).sum::<f32>().max(0.0);
        out += w2 * *h;
    }
    let error = out - target;
    let (first, second) = grads.split_at_mut(SIZES[0]);
    let rows = first.chunks_mut(INPUTS).zip(second).zip(hidden.iter().zip(&w[1]));
    for ((row, g2), (h, w2)) in rows.filter(|(_, (h, _))| **h > 0.0) {
        *g2 += error * h;
        row.iter_mut().zip(x).for_each(|(g, x)| *g += error * w2 * x);
    }
    0.5 * error * error
}

/// A micro-batch's gradients, and its loss after them.
fn micro_batch(w: &[Vec<f32>; 2], step: usize, number: usize) -> Vec<f32> {
    let mut out = vec![0.0f32; SIZES[0] + SIZES[1] + 1];
    let mut loss = 0.0;
    for sample in 0..SAMPLES {
        let seed = ((step * MICRO_BATCHES + number) * SAMPLES + sample) as u64 * 1000;
        let x: Vec<f32> = (0..INPUTS as u64).map(|i| uniform(seed + i)).collect();
        let target = x[0] * x[1] + 3.0 * x[2];
        loss += backward(w, &x, target, &mut out[..SIZES[0] + SIZES[1]]);
    }
    out[SIZES[0] + SIZES[1]] = loss;
    out
}

fn main() -> Result<(), Box<dyn Error>> {
    let sharded = match std::env::args().nth(1).as_deref() {
        Some("sharded") => true,
        Some("data") | None => false,
        Some(other) => return Err(format!("`data` or `sharded`, not `{other}`").into()),
    };
    let universe = mpi::initialize().ok_or("MPI was initialised before")?;
    let world = universe.world();
    let ranks = Ranks::new(&world, Duration::from_secs(60))?;
    let (rank, size) = (ranks.rank(), ranks.size());
    if !MICRO_BATCHES.is_multiple_of(size) {
        return Err(format!("1, 2, 4 or 8 ranks, not {size}").into());
    }
    let own = MICRO_BATCHES / size * rank..MICRO_BATCHES / size * (rank + 1);

    // What this rank steps: all of both tensors, as every rank does, or its share of each.
    let share = |rank: usize, t: usize| -> Range<usize> {
        let cut = shard_ranges(SIZES[t] as u64, size)[rank].clone();
        if sharded { cut.start as usize..cut.end as usize } else { 0..SIZES[t] }
    };
    let piece = |(t, name): (usize, &str)| {
        let Range { start, end } = share(rank, t);
        Piece::part(name, SIZES[t] as u64, start as u64..end as u64)
    };
    let pieces: Vec<Piece> = ["first", "second"].into_iter().enumerate().map(piece).collect();
    let mut w = SIZES.map(|n| (0..n as u64).map(|i| 0.1 * uniform(i + n as u64)).collect::<Vec<f32>>());
    let mut grads = SIZES.map(|n| vec![0.0f32; n]);
    let agreed = ranks.agree(&Clip::global_norm(1.0), &pieces)?;
    let both = |grads: &[Vec<f32>; 2], t: usize| grads[t][share(rank, t)].to_vec();
    let mut parameters = [both(&w, 0), both(&w, 1)];
    let first = [both(&grads, 0), both(&grads, 1)];
    let tensors = first.iter().zip(&mut parameters).map(|(g, p)| (&g[..], &mut p[..]));
    let mut stepper = agreed.prepare_step(tensors, Adam::adamw(1e-2))?;

    for step in 0..STEPS {
        let mine: Vec<f32> = own.clone().flat_map(|number| micro_batch(&w, step, number)).collect();
        let mut all = vec![0.0f32; mine.len() * size];
        world.all_gather_into(&mine[..], &mut all[..]);
        grads.iter_mut().for_each(|g| g.fill(0.0));
        let mut loss = 0.0;
        for of_one in all.chunks(SIZES[0] + SIZES[1] + 1) {
            let sums = grads.iter_mut().flatten().zip(of_one);
            sums.for_each(|(sum, g)| *sum += g / (MICRO_BATCHES * SAMPLES) as f32);
            loss += of_one[SIZES[0] + SIZES[1]];
        }
        let own_grads = [both(&grads, 0), both(&grads, 1)];
        stepper.measure(own_grads.iter().map(|g| &g[..]))?;
        stepper.update(own_grads.iter().zip(&mut parameters).map(|(g, p)| (&g[..], &mut p[..])))?;
        // Every rank has all parameters again.
        for t in 0..2 {
            w[t][share(rank, t)].copy_from_slice(&parameters[t]);
            for owner in 0..if sharded { size } else { 0 } {
                world.process_at_rank(owner as i32).broadcast_into(&mut w[t][share(owner, t)]);
            }
        }
        if rank == 0 {
            let loss = loss / (MICRO_BATCHES * SAMPLES) as f32;
            let norm = stepper.prepared().norm().unwrap_or_default();
            println!("step {step:2}  loss {loss:.6} ({:08x})  norm {norm:.6}", loss.to_bits());
        }
    }
    Ok(())
}
