//! What any p and a million rows cost beside the global L2 norm, on the prepared CPU path.
//!
//! In each round every arm has a turn, kept and clipped, with gradients restored outside the timing; norms are compared with
//! f64 before. Prints medians in ms; `--csv FILE` appends them. `--rounds N`, 11 by default.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic)]

use std::fs::OpenOptions;
use std::io::Write;
use std::time::Instant;

use gradclip::cpu::{self, GradMut, Prepared};
use gradclip::{Clip, NormType, Scope};
use gradclip_verify::tolerance;

mod common;

use common::random;

const ROWS: u64 = 1_000_000;
/// Attributes of a splat, by their elements.
const SPLATS: [u64; 6] = [3, 3, 45, 3, 4, 1];

struct Arm {
    name: &'static str,
    shapes: Vec<[u64; 2]>,
    clip: Clip,
}

impl Arm {
    fn rows(&self) -> bool {
        self.clip.scope == Scope::Row
    }
}

fn arms() -> Vec<Arm> {
    let single = || vec![[ROWS, 25]];
    let p = |name, p| Arm {
        name,
        shapes: single(),
        clip: Clip::global_norm(f32::INFINITY).norm_type(NormType::P(p)),
    };
    let rows = |name, shapes| Arm { name, shapes, clip: Clip::global_norm(f32::INFINITY).scope(Scope::Row) };
    let splats: Vec<_> = SPLATS.iter().map(|&width| [ROWS, width]).collect();
    vec![
        p("p = 2", 2.0),
        p("p = 1", 1.0),
        p("p = infinity", f64::INFINITY),
        p("p = 3", 3.0),
        p("p = 2.5", 2.5),
        p("p = 2.6", 2.6),
        rows("rows of 25", single()),
        Arm { name: "splats", shapes: splats.clone(), clip: Clip::global_norm(f32::INFINITY) },
        rows("rows of splats", splats),
    ]
}

/// An arm with its gradients, and both of its clips.
struct State {
    arm: Arm,
    pristine: Vec<Vec<f32>>,
    tensors: Vec<Vec<f32>>,
    /// In f64, of all elements or of the first row.
    norm: f64,
    /// A threshold, the clip with it, and milliseconds.
    regimes: [(f64, Prepared, Vec<f64>); 2],
}

impl State {
    fn new(arm: Arm) -> State {
        let pristine: Vec<_> =
            (0u64..).zip(&arm.shapes).map(|(seed, s)| random((s[0] * s[1]) as usize, seed, 1e-3)).collect();
        let norm = norm_of(&arm, &pristine);
        let mut tensors = pristine.clone();
        let regimes = [f64::INFINITY, if arm.rows() { 1e-5 } else { norm / 2.0 }].map(|threshold| {
            let grads = tensors.iter_mut().zip(&arm.shapes);
            let like: Vec<_> = grads.map(|(t, shape)| GradMut::new("g", t).shape(shape)).collect();
            let mut clip = arm.clip;
            clip.threshold = threshold;
            (threshold, cpu::prepare(&like, &clip).unwrap(), Vec::new())
        });
        State { arm, pristine, tensors, norm, regimes }
    }

    /// Both regimes once.
    fn turn(&mut self) {
        for (threshold, prepared, times) in &mut self.regimes {
            self.tensors.iter_mut().zip(&self.pristine).for_each(|(to, from)| to.copy_from_slice(from));
            let start = Instant::now();
            prepared.clip(self.tensors.iter_mut().map(|t| &mut t[..])).unwrap();
            times.push(start.elapsed().as_secs_f64() * 1e3);
            let expected = f64::from(self.pristine[0][0]) * (*threshold / self.norm).min(1.0);
            let found = f64::from(self.tensors[0][0]);
            // The threshold is rounded too, and a power's norm twice.
            assert!(
                (found / expected - 1.0).abs() < tolerance::SCALED + tolerance::NORM,
                "{}: {found}, not {expected}",
                self.arm.name
            );
        }
    }
}

fn norm_of(arm: &Arm, tensors: &[Vec<f32>]) -> f64 {
    let row = |t: &'_ [f32], width: u64| t[..if arm.rows() { width as usize } else { t.len() }].to_vec();
    let magnitudes =
        tensors.iter().zip(&arm.shapes).flat_map(|(t, s)| row(t, s[1])).map(|x| f64::from(x).abs());
    match arm.clip.norm {
        NormType::P(p) if p.is_infinite() => magnitudes.fold(0.0, f64::max),
        NormType::P(p) => magnitudes.map(|x| x.powf(p)).sum::<f64>().powf(1.0 / p),
        _ => magnitudes.map(|x| x * x).sum::<f64>().sqrt(),
    }
}

fn quartiles(times: &[f64]) -> [f64; 3] {
    let mut times = times.to_vec();
    times.sort_by(f64::total_cmp);
    [1, 2, 3].map(|quarter| times[(times.len() - 1) * quarter / 4])
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    let value = |flag: &str| arguments.iter().position(|a| a == flag).and_then(|at| arguments.get(at + 1));
    // `cargo test --benches` runs every bench and asks for nothing.
    if arguments.iter().any(|a| a == "--test") {
        return;
    }
    let rounds: usize = value("--rounds").map_or(11, |n| n.parse().unwrap());
    let mut states: Vec<State> = arms().into_iter().map(State::new).collect();
    for round in 0..=rounds {
        states.iter_mut().for_each(State::turn);
        if round == 0 {
            states.iter_mut().flat_map(|s| &mut s.regimes).for_each(|(_, _, times)| times.clear());
        }
    }
    let mut rows = String::from("arm,elements,regime,median_ms,lower_quartile_ms,upper_quartile_ms\n");
    for State { arm, pristine, regimes, .. } in &states {
        let elements: usize = pristine.iter().map(Vec::len).sum();
        for (threshold, _, times) in regimes {
            let [lower, median, upper] = quartiles(times);
            let regime = if threshold.is_finite() { "clipped" } else { "not clipped" };
            rows += &format!("{},{elements},{regime},{median:.2},{lower:.2},{upper:.2}\n", arm.name);
        }
    }
    print!("{rows}");
    if let Some(file) = value("--csv") {
        let mut file = OpenOptions::new().create(true).append(true).open(file).unwrap();
        file.write_all(rows.as_bytes()).unwrap();
    }
}
