//! Thresholds that follow earlier norms: a history on the CPU and the same one on a device, step by step.

use std::fmt;

use gradclip::cpu;
use gradclip::layout::{Adaptation, Inputs, Skipping};
use gradclip::{
    Adapt, Aggc, Clip, GiveUp, History, LossScale, NoisyQuantile, NonFinite, NormType, Reaction, Remembers,
    Rule, Scope, Skip, Units,
};

use crate::budget::COURSE_STEPS;
use crate::check::gpu::{outcome_error, records};
use crate::failure::Failure;
use crate::gpu::{Gpu, Placed};
use crate::inputs::values::{Values, spoil};
use crate::inputs::{Case, Random};
use crate::tally::Findings;
use crate::tensor::{Element, grads, named};

/// All have as many rows.
const SHAPES: [&[u64]; 3] = [&[300, 3], &[300], &[300, 2]];
/// Bytes of a saved history before the words that a device keeps: format, rules, number of states.
const HEAD: usize = 8 + size_of::<Adaptation>() + size_of::<Skipping>() + size_of::<Inputs>() + 4;

/// A clip from step to step.
#[derive(Clone, Debug)]
pub(crate) struct Course {
    clip: Clip,
    /// Steps on the CPU before those compared.
    before: usize,
    seed: u64,
}

/// Every rule, at the beginning of its history and past the end of its window.
pub(crate) fn courses() -> Vec<Course> {
    let score = |warm_up, reaction| Adapt::ZScore { decay: 0.9, z: 1.5, warm_up, reaction };
    let adagc = |warm_up| Adapt::AdaGc { factor: 1.05, decay: 0.98, warm_up };
    let quantile = |quantile, rate| Adapt::Quantile { quantile, rate };
    let everywhere = [
        (Adapt::Mean { factor: 1.5, window: 1 }, 0),
        (Adapt::Mean { factor: 1.2, window: 5 }, 3),
        (Adapt::Mean { factor: 1.0, window: 700 }, 694),
        (Adapt::Average { factor: 1.5, decay: 0.9 }, 0),
        (Adapt::Average { factor: 0.0, decay: 0.0 }, 0),
        (Adapt::Percentile { percentile: 10.0, window: 7 }, 0),
        (Adapt::Percentile { percentile: 33.0, window: 1 }, 0),
        (Adapt::Percentile { percentile: 0.0, window: 300 }, 294),
        (Adapt::Percentile { percentile: 100.0, window: 300 }, 600),
        (Adapt::Percentile { percentile: 99.9, window: 2000 }, 1500),
        (score(1, Reaction::Mean), 0),
        (score(5, Reaction::Max), 0),
        (score(25, Reaction::Reciprocal), 20),
        (score(400, Reaction::Reciprocal), 396),
        (quantile(0.5, 0.2), 0),
        (quantile(0.9, 16.0), 5),
        (Adapt::PastPercentile { percentile: 90.0, window: 7 }, 0),
        (Adapt::PastPercentile { percentile: 50.0, window: 300 }, 296),
    ];
    let mut courses = Vec::new();
    for (adapt, before) in everywhere {
        for scope in [Scope::Global, Scope::Group, Scope::Tensor] {
            courses.push(course(courses.len(), adapt, before, scope));
        }
    }
    let noisy = |noise, seed| Adapt::NoisyQuantile(NoisyQuantile::new(0.4, 0.5, noise, 290, seed));
    for adapt in
        [quantile(0.5, 0.2), quantile(0.0, 1.0), quantile(1.0, 0.3), noisy(15.0, 1), noisy(1e3, u64::MAX)]
    {
        for scope in [Scope::Row, Scope::Unit(Units::OutputFirst), Scope::Unit(Units::OutputLast)] {
            courses.push(course(courses.len(), adapt, 0, scope));
        }
    }
    for (warm_up, before) in [(0, 0), (5, 0), (5, 0), (100, 95)] {
        for scope in [Scope::Tensor, Scope::Group] {
            courses.push(course(courses.len(), adagc(warm_up), before, scope));
        }
    }
    for aggc in [
        Aggc::new(0.5, 1.5, 0.9),
        Aggc::new(0.9, 1.1, 0.5).from_zero(true),
        Aggc::new(0.0, 2.0, 0.97).min_norm(1.0),
        Aggc::new(1.0, 1.0, 0.0).scales(0.5, 1.5),
    ] {
        for scope in [Scope::Global, Scope::Group, Scope::Tensor] {
            courses.push(course(courses.len(), Adapt::Aggc(aggc), 0, scope));
        }
    }
    courses.extend(bounded(&courses));
    // Twice, with other gradients.
    for skip in skips().into_iter().chain(skips()) {
        for scope in [Scope::Global, Scope::Group, Scope::Tensor, Scope::Row, Scope::Unit(Units::OutputFirst)]
        {
            courses.push(skipping(courses.len(), skip, scope));
        }
    }
    for norm in [NormType::Two, NormType::One, NormType::Inf, NormType::P(3.0)].repeat(4) {
        for policy in [NonFinite::Skip, NonFinite::Sanitize, NonFinite::Zero, NonFinite::Nan] {
            courses.push(given(courses.len(), norm, policy));
        }
    }
    courses
}

/// Every fifth of them within bounds.
fn bounded(courses: &[Course]) -> Vec<Course> {
    let within = |course: &Course| Course { clip: course.clip.at_least(0.5).at_most(3.0), ..course.clone() };
    courses.iter().step_by(5).map(within).collect()
}

/// Every way to tell a spike, to remember, and to give up, each after so many steps; windows that begin, are full, and are long.
fn skips() -> [(Skip, usize); 8] {
    let score = |sigma, window| Skip::z_score(sigma).window(window).with_loss();
    [
        (Skip::non_finite().above(20.0), 0),
        (Skip::non_finite().max_consecutive(0, GiveUp::LetAllThrough), 0),
        (score(1.0, 4), 0),
        (score(2.0, 40).first(41).above(1e35), 60),
        (score(0.5, 6).first(3).remembers(Remembers::Passed), 0),
        (score(1.5, 5).remembers(Remembers::All), 9),
        (score(0.1, 20).first(3).max_consecutive(2, GiveUp::LetThrough), 0),
        (Skip::z_score(0.3).window(1000).max_consecutive(1, GiveUp::Tell), 700),
    ]
}

/// Rules of thresholds and loss scaling take turns, policies go by scopes.
fn skipping(turn: usize, (skip, before): (Skip, usize), scope: Scope) -> Course {
    let average = Adapt::Average { factor: 1.5, decay: 0.9 };
    let policy = match scope {
        Scope::Global | Scope::Group => NonFinite::Skip,
        Scope::Tensor => NonFinite::Sanitize,
        _ => NonFinite::Nan,
    };
    let fixed = Clip::global_norm(2.0).scope(scope).norm_type([NormType::Two, NormType::One][turn % 2]);
    let clip = fixed.on_non_finite(policy).unscale([1.0, 0.3][turn / 3 % 2]).skip(skip);
    let lets_all = skip.give_up == GiveUp::LetAllThrough;
    let clip = match (turn % 3, scope) {
        (1, Scope::Row | Scope::Unit(_)) | (0, _) => clip,
        (1, _) => clip.adapt(average),
        _ if lets_all => clip,
        _ => clip.loss_scale(LossScale::default().initial(8.0)),
    };
    Course { clip, before, seed: 20_000 + turn as u64 }
}

/// A norm that is handed in, of every type and under every policy.
fn given(turn: usize, norm: NormType, policy: NonFinite) -> Course {
    let clip = Clip::global_norm(2.0).norm_type(norm).on_non_finite(policy).use_norm(true);
    let clip = if turn.is_multiple_of(2) { clip.adapt(Adapt::autoclip(50.0)) } else { clip.unscale(0.3) };
    Course { clip, before: 0, seed: 20_000 + turn as u64 }
}

/// Norms, rules, policies and the limit on the whole set take turns.
fn course(turn: usize, adapt: Adapt, before: usize, scope: Scope) -> Course {
    let rule = [Rule::Norm, Rule::Norm, Rule::Sign, Rule::Norm, Rule::Normalize][turn % 5];
    let rule = if matches!(adapt, Adapt::AdaGc { .. } | Adapt::Aggc(_)) { Rule::Norm } else { rule };
    let policies = [NonFinite::Skip, NonFinite::Sanitize, NonFinite::Zero, NonFinite::Nan];
    let clip = Clip::global_norm(2.0)
        .scope(scope)
        .rule(rule)
        .norm_type([NormType::Two, NormType::One, NormType::Two, NormType::Inf][turn % 4])
        .on_non_finite(policies[turn / 3 % 4])
        .unscale([1.0, 1.0, 0.3][turn / 2 % 3])
        .adapt(adapt);
    let raises = matches!(adapt, Adapt::Aggc(_));
    let limited = rule == Rule::Norm && scope != Scope::Global && turn.is_multiple_of(2) && !raises;
    Course { clip: if limited { clip.total(30.0) } else { clip }, before, seed: 20_000 + turn as u64 }
}

impl Course {
    /// The shader that it is about.
    pub(crate) fn shader(&self) -> &'static str {
        match self.clip {
            clip if clip.use_norm => "given",
            clip if clip.skip.is_some() => "skip",
            _ => "threshold",
        }
    }

    /// Both are given the right sums, so that thresholds are judged by themselves.
    pub(crate) async fn check(&self, gpu: &Gpu) -> Result<Findings, Failure> {
        let mut random = Random(self.seed);
        let mut history = History::default();
        for _ in 0..self.before {
            handed_in(&mut random, &mut history);
            cpu::clip_with(&mut grads(&mut self.case(&mut random).tensors), &self.clip, &mut history)?;
        }
        let case = self.case(&mut random);
        let placed = Placed::upload(gpu, &case.tensors, case.placing);
        let pass = gpu.clipper.prepare_async(&placed.grads, &self.clip).await?;
        pass.restore_history(&gpu.queue, &history)?;
        let mut findings = Findings::default();
        for _ in 0..COURSE_STEPS {
            let mut case = self.case(&mut random);
            let inputs = handed_in(&mut random, &mut history);
            gpu.queue.write_buffer(pass.inputs(), 0, bytemuck::bytes_of(&inputs));
            let expected = cpu::clip_traced_with(&mut grads(&mut case.tensors), &self.clip, &mut history)?;
            let sums = bytemuck::cast_slice(&expected.segment_sums);
            gpu.queue.write_buffer(pass.segment_sums(), 0, sums);
            let mut encoder = gpu.encoder();
            pass.record_apply(&mut encoder);
            let saved = pass.save_history_async(&mut encoder).await?;
            let outcomes = gpu.stage(&mut encoder, [pass.outcomes()]);
            gpu.queue.submit([encoder.finish()]);
            let outcomes = gpu.collect_async(&outcomes).await?;
            findings.join(records(&outcomes[0], &expected.outcomes, outcome_error, |_| true));
            let saved = saved.await?;
            findings.join(words(&saved.to_bytes()[HEAD..], &history.to_bytes()[HEAD..]));
        }
        Ok(findings)
    }

    /// Gradients of one step: mostly alike, with spikes and nothings among them.
    fn case(&self, random: &mut Random) -> Case {
        let scale = match random.below(16) {
            0 => 1e3,
            1 => 0.0,
            2 => 1e30,
            3 => 1e-40,
            // The norm exceeds the largest f32.
            4 => 3e38,
            _ => 1.0 + random.unit() * 0.9,
        };
        let elements = |shape: &&[u64]| shape.iter().product::<u64>() as usize;
        let values = |shape| Values::Spread(scale).data(random, Element::F32, elements(shape));
        let mut tensors = named(SHAPES.iter().map(values).collect::<Vec<_>>());
        if random.below(6) == 0 {
            let tensor = random.below(SHAPES.len());
            spoil(&mut tensors[tensor].data, [f32::NAN, f32::INFINITY][random.below(2)]);
        }
        Case::plain(tensors, &SHAPES, self.clip)
    }
}

/// A loss, mostly alike, and a norm that may be any, or none.
fn handed_in(random: &mut Random, history: &mut History) -> Inputs {
    let loss = [1.0 + random.unit(), -2.0, 1e3, f32::INFINITY][random.below(8).min(3)];
    let norm = [1.0 + random.unit(), 0.0, f32::NAN, -1.0, f32::INFINITY, 1e-40, 3e38, 1e20][random.below(8)];
    history.set_loss(loss);
    history.set_norm(norm);
    Inputs { loss, norm }
}

/// Words that must be equal. As floats they are so many steps apart.
fn words(got: &[u8], expected: &[u8]) -> Findings {
    let words = |bytes: &[u8]| -> Vec<u32> { bytemuck::pod_collect_to_vec(bytes) };
    let steps = |a: &u32, b: &u32| f64::from(a.abs_diff(*b));
    records(got, &words(expected), steps, |_| true)
}

impl fmt::Display for Course {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Clip { adapt, rule, scope, norm, total, non_finite, unscale, skip, at_least, at_most, .. } =
            self.clip;
        write!(f, "{adapt:?} after {} steps, {rule:?}, {scope:?}, {norm:?}, ", self.before)?;
        if let Some(skip) = skip {
            write!(f, "{skip:?}, ")?;
        }
        if let Some((least, most)) = at_least.zip(at_most) {
            write!(f, "within {least} and {most}, ")?;
        }
        write!(f, "total {total:?}, unscale {unscale}, {non_finite:?}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A rule that never finds anything would be compared in vain.
    #[test]
    fn every_rule_finds_something() {
        for (skip, _) in skips() {
            let (mut found, mut let_through, mut gave_up) = (0, 0, 0);
            for course in courses().iter().filter(|course| course.clip.skip == Some(skip)) {
                let (mut random, mut history) = (Random(course.seed), History::default());
                for _ in 0..course.before + COURSE_STEPS {
                    handed_in(&mut random, &mut history);
                    let mut case = course.case(&mut random);
                    let report = cpu::clip_with(&mut grads(&mut case.tensors), &course.clip, &mut history);
                    let report = report.unwrap().skip.unwrap();
                    found += u32::from(report.is_spike());
                    let_through += u32::from(report.let_through);
                    gave_up += u32::from(report.gave_up);
                }
            }
            let lets_all = skip.give_up == GiveUp::LetAllThrough;
            assert!(found > 3 || lets_all, "{found} spikes: {skip:?}");
            assert_eq!(let_through > 0, skip.give_up != GiveUp::Tell, "{skip:?}");
            assert_eq!(gave_up > 0, skip.max_consecutive.is_some(), "{skip:?}");
        }
    }
}
