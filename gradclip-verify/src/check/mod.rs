//! Cases run on the CPU path and on adapters, and compared.

mod cpu;
mod gpu;
mod history;
mod placed;
mod progress;
mod steps;
mod sums;
mod training;

use crate::failure::Failure;
use crate::gpu::Gpu;
use crate::inputs::{Recipe, recipes};
use crate::tally::Tally;

use history::Course;
use progress::Advance;
use sums::Sums;
use training::Training;

/// All that there is to check.
#[derive(Debug)]
pub struct Checks {
    recipes: Vec<Recipe>,
    courses: Vec<Course>,
    advances: Vec<Advance>,
    trainings: Vec<Training>,
    sums: Vec<Sums>,
}

impl Checks {
    /// Every recipe of gradients and settings, every course of thresholds and loss scales, every training and every sum.
    pub fn all() -> Checks {
        Checks {
            recipes: recipes::recipes(),
            courses: history::courses(),
            advances: progress::advances(),
            trainings: training::trainings(),
            sums: sums::sums(),
        }
    }

    /// How many an adapter has, or the CPU path.
    pub fn count(&self, adapter: bool) -> usize {
        let both = self.recipes.len() + self.trainings.len() + self.sums.len();
        both + if adapter { self.courses.len() + self.advances.len() } else { 0 }
    }

    /// An adapter against the CPU path. Calls `done` after each check.
    ///
    /// # Errors
    ///
    /// Where a check could not be made.
    pub fn on_adapter(&self, gpu: &Gpu, mut done: impl FnMut()) -> Result<Vec<Tally>, Failure> {
        let mut tallies = gpu::tallies();
        for recipe in &self.recipes {
            gpu::check(gpu, &recipe.to_string(), recipe.cook(), &mut tallies)?;
            done();
        }
        for course in &self.courses {
            gpu::check_course(gpu, course, &mut tallies)?;
            done();
        }
        for advance in &self.advances {
            gpu::check_advance(gpu, advance, &mut tallies)?;
            done();
        }
        for training in &self.trainings {
            gpu::check_training(gpu, training, &mut tallies)?;
            done();
        }
        for sums in &self.sums {
            gpu::check_sums(gpu, sums, &mut tallies)?;
            done();
        }
        Ok(tallies)
    }

    /// The CPU path against `f64`. Calls `done` after each check.
    ///
    /// # Errors
    ///
    /// Where a check could not be made.
    pub fn on_cpu(&self, mut done: impl FnMut()) -> Result<Vec<Tally>, Failure> {
        let mut tallies = cpu::tallies();
        for recipe in &self.recipes {
            cpu::check(&recipe.to_string(), recipe.cook(), &mut tallies)?;
            done();
        }
        for training in &self.trainings {
            cpu::check_training(training, &mut tallies)?;
            done();
        }
        for sums in &self.sums {
            cpu::check_sums(sums, &mut tallies)?;
            done();
        }
        Ok(tallies)
    }
}
