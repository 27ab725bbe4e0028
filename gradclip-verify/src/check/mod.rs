//! Cases run on the CPU path and on adapters, and compared.

mod coalesce;
mod cpu;
mod gpu;
mod history;
mod private;
mod progress;
mod steps;
mod sums;
mod training;

use std::collections::HashMap;

use crate::failure::Failure;
use crate::gpu::Gpu;
use crate::inputs::{Recipe, recipes};
use crate::tally::{Findings, Tally};

use coalesce::Sparse;
use history::Course;
use private::Examples;
use progress::Advance;
use sums::Sums;
use training::Training;

/// What a check showed of each thing that is checked.
type Found = Vec<(&'static str, Findings)>;

/// One thing to check.
#[derive(Debug)]
enum Check {
    /// Gradients and settings.
    Recipe(Recipe),
    /// A threshold from step to step.
    Course(Course),
    /// Loss scale, counts and corrections from step to step.
    Advance(Advance),
    /// An optimiser's steps.
    Training(Training),
    /// Sums of micro-batches.
    Sums(Sums),
    /// Sums of duplicates.
    Sparse(Sparse),
    /// Sums over examples, with noise.
    Private(Examples),
}

impl Check {
    /// Whether the CPU path has an oracle for it that is not itself.
    fn on_both(&self) -> bool {
        !matches!(self, Check::Course(_) | Check::Advance(_))
    }

    /// What it checks first of all.
    fn kind(&self) -> String {
        match self {
            Check::Recipe(recipe) => recipe.kind(),
            Check::Course(course) => course.shader().into(),
            Check::Advance(_) => "advance".into(),
            Check::Training(training) => training.shader().into(),
            Check::Sums(_) => "sums".into(),
            Check::Sparse(sparse) => sparse.kind(),
            Check::Private(_) => "private".into(),
        }
    }

    fn name(&self) -> String {
        match self {
            Check::Recipe(recipe) => recipe.to_string(),
            Check::Course(course) => course.to_string(),
            Check::Advance(advance) => advance.to_string(),
            Check::Training(training) => training.to_string(),
            Check::Sums(sums) => sums.to_string(),
            Check::Sparse(sparse) => sparse.to_string(),
            Check::Private(examples) => examples.to_string(),
        }
    }

    async fn on_adapter(&self, gpu: &Gpu) -> Result<Found, Failure> {
        Ok(match self {
            Check::Recipe(recipe) => gpu::check(gpu, recipe.cook()).await?,
            Check::Course(course) => vec![(course.shader(), course.check(gpu).await?)],
            Check::Advance(advance) => vec![("advance", advance.check(gpu).await?)],
            Check::Training(training) => {
                let [update, advance] = steps::on_gpu(gpu, training).await?;
                vec![(training.shader(), update), ("advance", advance)]
            }
            Check::Sums(sums) => vec![("accumulate", sums.on_gpu(gpu).await?)],
            Check::Sparse(sparse) => sparse.on_gpu(gpu).await?,
            Check::Private(examples) => {
                let [sums, released] = examples.on_gpu(gpu).await?;
                vec![("private_sum", sums), ("private_release", released)]
            }
        })
    }

    fn on_cpu(&self) -> Result<Found, Failure> {
        Ok(match self {
            Check::Recipe(recipe) => cpu::check(recipe.cook())?,
            Check::Course(_) | Check::Advance(_) => Vec::new(),
            Check::Training(training) => vec![("steps", steps::on_cpu(training)?)],
            Check::Sums(sums) => vec![("accumulate", sums.on_cpu()?)],
            Check::Sparse(sparse) => vec![("coalesce", sparse.on_cpu()?)],
            Check::Private(examples) => vec![("private", examples.on_cpu()?)],
        })
    }
}

/// All that there is to check.
#[derive(Debug)]
pub struct Checks(Vec<Check>);

impl Checks {
    /// Every recipe of gradients and settings, every course of thresholds and loss scales, every training, every sum, private ones too, and
    /// every sparse gradient.
    pub fn all() -> Checks {
        let recipes = recipes::recipes().into_iter().map(Check::Recipe);
        let all = recipes.chain(history::courses().into_iter().map(Check::Course));
        let all = all.chain(progress::advances().into_iter().map(Check::Advance));
        let all = all.chain(training::trainings().into_iter().map(Check::Training));
        let all = all.chain(sums::sums().into_iter().map(Check::Sums));
        let sparse = coalesce::sparse().into_iter().map(Check::Sparse);
        let private = private::examples().into_iter().map(Check::Private);
        Checks(all.chain(sparse).chain(private).collect())
    }

    /// One in so many of each kind, the first of each among them, for where all take too long: every kernel is checked still.
    ///
    /// ```
    /// use gradclip_verify::check::Checks;
    ///
    /// let (all, some) = (Checks::all().count(true), Checks::all().one_in(50).count(true));
    /// assert!(some > all / 50 && some < all / 5);
    /// ```
    #[must_use]
    pub fn one_in(self, share: usize) -> Checks {
        let mut seen: HashMap<String, usize> = HashMap::new();
        let kept = |check: &Check| {
            let before = seen.entry(check.kind()).or_default();
            *before += 1;
            (*before - 1).is_multiple_of(share.max(1))
        };
        Checks(self.0.into_iter().filter(kept).collect())
    }

    /// How many an adapter has, or the CPU path.
    pub fn count(&self, adapter: bool) -> usize {
        self.0.iter().filter(|check| adapter || check.on_both()).count()
    }

    /// An adapter against the CPU path. Calls `done` after each check.
    ///
    /// # Errors
    ///
    /// Where a check could not be made.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn on_adapter(&self, gpu: &Gpu, mut done: impl FnMut()) -> Result<Vec<Tally>, Failure> {
        pollster::block_on(self.on_adapter_async(gpu, async |_: &[Tally]| done()))
    }

    /// As `Checks::on_adapter`, for a page: after each check `done` is shown what was found so far and awaited, so that the page can draw it.
    ///
    /// # Errors
    ///
    /// Where a check could not be made.
    pub async fn on_adapter_async(
        &self,
        gpu: &Gpu,
        done: impl AsyncFnMut(&[Tally]),
    ) -> Result<Vec<Tally>, Failure> {
        run(&gpu::WHAT, self.0.iter(), async |check: &Check| check.on_adapter(gpu).await, done).await
    }

    /// The CPU path against `f64`. Calls `done` after each check.
    ///
    /// # Errors
    ///
    /// Where a check could not be made.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn on_cpu(&self, mut done: impl FnMut()) -> Result<Vec<Tally>, Failure> {
        pollster::block_on(self.on_cpu_async(async |_: &[Tally]| done()))
    }

    /// As `Checks::on_cpu`, in the form of [`Checks::on_adapter_async`]. A single check may take seconds: a page has a worker do them.
    ///
    /// # Errors
    ///
    /// Where a check could not be made.
    pub async fn on_cpu_async(&self, done: impl AsyncFnMut(&[Tally])) -> Result<Vec<Tally>, Failure> {
        let both = self.0.iter().filter(|check| check.on_both());
        run(&cpu::WHAT, both, async |check: &Check| check.on_cpu(), done).await
    }
}

async fn run<'c>(
    what: &[&'static str],
    checks: impl Iterator<Item = &'c Check>,
    check: impl AsyncFn(&Check) -> Result<Found, Failure>,
    mut done: impl AsyncFnMut(&[Tally]),
) -> Result<Vec<Tally>, Failure> {
    let mut tallies: Vec<Tally> = what.iter().map(|what| Tally::new(what)).collect();
    for one in checks {
        for (what, findings) in check(one).await?.iter().filter(|(_, findings)| findings.compared > 0) {
            tallies.iter_mut().filter(|t| t.what == *what).for_each(|t| t.add(&one.name(), findings));
        }
        done(&tallies).await;
    }
    Ok(tallies)
}
