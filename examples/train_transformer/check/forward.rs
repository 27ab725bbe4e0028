//! The forward pass as one would write it down: f64, a sequence at a time, one loop after the other.

use crate::model::{CONTEXT, HEADS, Model, Tensor, WIDTH};

const HEAD: usize = WIDTH / HEADS;

/// The mean cross-entropy of all symbols but the first of each sequence, each given those before it.
pub(super) fn loss(model: &Model, parameters: &[f64], sequences: &[&[u32]]) -> f64 {
    let sum: f64 = sequences.iter().map(|sequence| of_sequence(model, parameters, sequence)).sum();
    sum / (sequences.len() * CONTEXT) as f64
}

fn of_sequence(model: &Model, parameters: &[f64], symbols: &[u32]) -> f64 {
    let of = |tensor: &Tensor| &parameters[tensor.range()];
    let mut stream: Vec<f64> = Vec::with_capacity(CONTEXT * WIDTH);
    for (t, &symbol) in symbols[..CONTEXT].iter().enumerate() {
        let embedding = &of(&model.embedding)[symbol as usize * WIDTH..][..WIDTH];
        let position = &of(&model.position)[t * WIDTH..][..WIDTH];
        stream.extend(embedding.iter().zip(position).map(|(e, p)| e + p));
    }
    for layer in &model.layers {
        let inward = linear(&norm(&stream, of(&layer.attention_norm)), of(&layer.attention_in), WIDTH);
        add(&mut stream, &linear(&attention(&inward), of(&layer.attention_out), WIDTH));
        let mut wide = linear(&norm(&stream, of(&layer.mlp_norm)), of(&layer.mlp_in), WIDTH);
        wide.iter_mut().for_each(|x| *x = gelu(*x));
        add(&mut stream, &linear(&wide, of(&layer.mlp_out), 4 * WIDTH));
    }
    let logits = linear(&norm(&stream, of(&model.norm)), of(&model.output), WIDTH);
    let rows = logits.chunks(model.output.outputs).zip(&symbols[1..]);
    rows.map(|(row, &follows)| row.iter().map(|x| x.exp()).sum::<f64>().ln() - row[follows as usize]).sum()
}

fn norm(rows: &[f64], gain: &[f64]) -> Vec<f64> {
    let of_row = |row: &[f64]| {
        let mean = row.iter().map(|x| x * x).sum::<f64>() / WIDTH as f64;
        let rms = (mean + 1e-5).sqrt();
        row.iter().zip(gain).map(|(x, gain)| gain * x / rms).collect::<Vec<_>>()
    };
    rows.chunks(WIDTH).flat_map(of_row).collect()
}

fn linear(rows: &[f64], weights: &[f64], inputs: usize) -> Vec<f64> {
    let outputs = weights.len() / inputs;
    let of_row = |row: &[f64]| {
        let mut sums = vec![0.0; outputs];
        for (x, weights) in row.iter().zip(weights.chunks(outputs)) {
            sums.iter_mut().zip(weights).for_each(|(sum, weight)| *sum += x * weight);
        }
        sums
    };
    rows.chunks(inputs).flat_map(of_row).collect()
}

/// Of queries, keys and values side by side.
fn attention(rows: &[f64]) -> Vec<f64> {
    let part = |t: usize, which: usize, head: usize| &rows[(3 * t + which) * WIDTH + head * HEAD..][..HEAD];
    let mut output = vec![0.0; CONTEXT * WIDTH];
    for (t, head) in (0..CONTEXT).flat_map(|t| (0..HEADS).map(move |head| (t, head))) {
        let score = |k: usize| {
            let products = part(t, 0, head).iter().zip(part(k, 1, head)).map(|(q, k)| q * k);
            (products.sum::<f64>() / (HEAD as f64).sqrt()).exp()
        };
        let scores: Vec<f64> = (0..=t).map(score).collect();
        let total: f64 = scores.iter().sum();
        let output = &mut output[t * WIDTH + head * HEAD..][..HEAD];
        for (k, score) in scores.iter().enumerate() {
            output.iter_mut().zip(part(k, 2, head)).for_each(|(o, v)| *o += score / total * v);
        }
    }
    output
}

fn gelu(x: f64) -> f64 {
    0.5 * x * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3))).tanh())
}

fn add(to: &mut [f64], values: &[f64]) {
    to.iter_mut().zip(values).for_each(|(to, value)| *to += value);
}
