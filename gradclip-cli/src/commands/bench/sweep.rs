//! The sweep of `bench --plot`: one tensor of more and more elements.

use std::time::{Duration, Instant};

use gradclip::adapter_name;
use gradclip::{Scope, wgpu};
use serde_json::{Value, json};

use crate::commands::bench::arm::{Arm, Regime};
use crate::commands::bench::crossing::Verdict;
use crate::commands::bench::picture::{self, Plot};
use crate::commands::bench::report::{self, ms};
use crate::commands::bench::room;
use crate::commands::bench::time::{self, Pace};
use crate::commands::bench::work::Work;
use crate::failure::Failure;
use crate::text;
use gradclip_verify::gpu::Gpu;
use gradclip_verify::sets::scope::Cut;

/// Time to spend on the whole sweep, about; sizes that would take longer are left out.
const BUDGET: Duration = Duration::from_secs(30);
/// Time to spend on a size, about.
const PACE: Pace = Pace { budget: Duration::from_secs(1), rounds: (3, 21) };
/// From 10^3 to 10^8 elements, two sizes a decade.
const HALF_DECADES: std::ops::RangeInclusive<i32> = 6..=16;
/// Fewer sizes make no line.
const LEAST: usize = 2;

/// One tensor's size, and the arms' times of it.
struct Point {
    elements: u64,
    /// The CPU first.
    arms: Vec<Arm>,
}

pub(crate) struct Sweep {
    /// Ascending.
    points: Vec<Point>,
}

/// Median seconds by elements.
pub(crate) struct Curve {
    pub(crate) what: Timed,
    pub(crate) regime: Regime,
    pub(crate) points: Vec<(f64, f64)>,
}

/// What a curve shows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Timed {
    Cpu,
    /// Until the host knows that the result is there.
    Gpu,
    /// The device's own time, by timestamps.
    OnDevice,
}

impl Sweep {
    /// Goes as far as time and memory allow.
    pub(crate) fn measure(adapter: Option<&wgpu::Adapter>, gpu: Option<&Gpu>) -> Result<Sweep, Failure> {
        let started = Instant::now();
        let mut last = Duration::ZERO;
        let mut points: Vec<Point> = Vec::new();
        for elements in HALF_DECADES.map(|k| 10f64.powf(f64::from(k) / 2.0).round() as u64) {
            let began = Instant::now();
            // The next size takes as many times longer as it is larger, if it is not less than that.
            let late = started.elapsed() + last.mul_f64(10f64.sqrt()) > BUDGET;
            let enough = points.len() >= LEAST;
            if enough && (late || room::missing(elements, elements, adapter).is_some()) {
                break;
            }
            match one_tensor(elements).and_then(|work| time::arms(&work, gpu, &PACE)) {
                Ok(arms) => points.push(Point { elements, arms }),
                // The device's memory does not say in advance how much of it is free.
                Err(Failure::Usage(_)) if enough => break,
                Err(failure) => return Err(failure),
            }
            last = began.elapsed();
        }
        Ok(Sweep { points })
    }

    /// Those that were measured.
    fn curves(&self) -> Vec<Curve> {
        let all = [Timed::Cpu, Timed::Gpu, Timed::OnDevice];
        let kinds = all.into_iter().flat_map(|what| Regime::BOTH.map(|regime| (what, regime)));
        let curve = |(what, regime): (Timed, Regime)| {
            let point = |point: &Point| Some((point.elements as f64, point.seconds(what, regime)?));
            Curve { what, regime, points: self.points.iter().filter_map(point).collect() }
        };
        kinds.map(curve).filter(|curve| !curve.points.is_empty()).collect()
    }

    /// Who is faster where, a regime each; none without a GPU.
    pub(crate) fn verdicts(&self) -> Vec<Verdict> {
        let curves = self.curves();
        let points = |what: Timed, regime: Regime| {
            let curve = curves.iter().find(|curve| (curve.what, curve.regime) == (what, regime));
            curve.map(|curve| curve.points.as_slice())
        };
        let verdict =
            |regime: Regime| Verdict::new(regime, points(Timed::Cpu, regime)?, points(Timed::Gpu, regime)?);
        Regime::BOTH.into_iter().filter_map(verdict).collect()
    }

    pub(crate) fn picture(&self) -> Result<String, Failure> {
        let name = |arm: &Arm| arm.adapter.as_ref().map(adapter_name);
        let adapter = self.points.first().and_then(|point| point.arms.iter().find_map(name));
        let (curves, verdicts) = (self.curves(), self.verdicts());
        picture::svg(&Plot { adapter: adapter.as_deref(), curves: &curves, verdicts: &verdicts })
    }

    pub(crate) fn json(&self) -> Value {
        let point = |point: &Point| {
            json!({
                "elements": point.elements,
                "arms": report::arms(&point.arms, point.elements),
            })
        };
        self.points.iter().map(point).collect()
    }

    pub(crate) fn text(&self) -> String {
        let mut header = vec!["one tensor", "elements", "cpu ms", "gpu ms", "on the device ms", "speed-up"];
        let gpu = self.points.iter().any(|point| point.arms.len() > 1);
        header.truncate(if gpu { 6 } else { 3 });
        let row = |(regime, point): (Regime, &Point)| {
            let time = |what| point.seconds(what, regime).map_or("-".into(), ms);
            let speed_up = point.seconds(Timed::Cpu, regime).zip(point.seconds(Timed::Gpu, regime));
            let mut row = vec![
                regime.name().to_owned(),
                text::count(point.elements),
                time(Timed::Cpu),
                time(Timed::Gpu),
                time(Timed::OnDevice),
                speed_up.map_or("-".into(), |(cpu, gpu)| report::times(cpu / gpu)),
            ];
            row.truncate(header.len());
            row
        };
        let rows = Regime::BOTH.into_iter().flat_map(|regime| self.points.iter().map(move |p| (regime, p)));
        let table = text::table(&header, 1..6, rows.map(row).collect());
        let verdicts = self.verdicts();
        std::iter::once(table).chain(verdicts.iter().map(Verdict::text)).collect::<Vec<String>>().join("\n")
    }
}

impl Point {
    fn seconds(&self, what: Timed, regime: Regime) -> Option<f64> {
        let arm = |gpu: bool| self.arms.iter().find(|arm| arm.adapter.is_some() == gpu);
        match what {
            Timed::Cpu => arm(false)?.total(regime),
            Timed::Gpu => arm(true)?.total(regime),
            Timed::OnDevice => arm(true)?.on_device(regime),
        }
    }
}

fn one_tensor(elements: u64) -> Result<Work, Failure> {
    let shapes = vec![vec![elements]];
    let cut = Cut::new(Scope::Global, &shapes);
    let cut = cut.ok_or_else(|| Failure::Check("bench: one tensor has no norm".into()))?;
    Ok(Work::new(shapes, Scope::Global, cut, elements))
}
