//! Rules as `--rule` names them: a name, and constants after `=`.

use std::fmt;

use gradclip::{Adapt, Aggc, Clip, Reaction, Skip};

use crate::args::options;
use crate::text;

/// What may be named.
const FORMS: &str = "max-norm[=C], autoclip[=P,WINDOW], past-percentile[=P,WINDOW], mean[=FACTOR,WINDOW], \
     average[=FACTOR,DECAY], zclip[=Z,DECAY,WARM_UP], aggc=LOW,HIGH,DECAY or skip-z[=SIGMA,WINDOW]";

/// A rule that is simulated.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Rule {
    /// A fixed threshold, the suggested one unless given.
    MaxNorm(Option<f32>),
    Adapt(Adapt),
    /// No threshold: spikes are left out.
    SkipZ {
        sigma: f32,
        window: u32,
    },
}

/// What people compare first.
pub(crate) fn usual() -> [Rule; 5] {
    [
        Rule::MaxNorm(None),
        Rule::Adapt(Adapt::autoclip(10.0)),
        Rule::Adapt(Adapt::zclip()),
        Rule::Adapt(Adapt::Average { factor: 2.0, decay: 0.99 }),
        Rule::SkipZ { sigma: 6.0, window: 128 },
    ]
}

/// `--rule`: constants that are not given are those of the papers, where there is one.
pub(crate) fn rule(text: &str) -> Result<Rule, String> {
    let (name, constants) = match text.split_once('=') {
        Some((name, list)) => (name, Constants(list.split(',').collect())),
        None => (text, Constants(Vec::new())),
    };
    let rule = named(name.trim(), &constants)?;
    rule.clip(1.0).validate().map_err(|error| error.to_string())?;
    Ok(rule)
}

fn named(name: &str, constants: &Constants<'_>) -> Result<Rule, String> {
    let adapt = |adapt| Ok(Rule::Adapt(adapt));
    match name {
        "max-norm" => {
            constants.at_most(&["C"])?;
            Ok(Rule::MaxNorm(constants.0.first().map(|c| threshold(c)).transpose()?.map(|c| c as f32)))
        }
        "autoclip" => {
            let (percentile, window) = constants.with_window(["P", "WINDOW"], 10.0, 10_000)?;
            adapt(Adapt::Percentile { percentile, window })
        }
        "past-percentile" => {
            let (percentile, window) = constants.with_window(["P", "WINDOW"], 10.0, 10_000)?;
            adapt(Adapt::PastPercentile { percentile, window })
        }
        "mean" => {
            let (factor, window) = constants.with_window(["FACTOR", "WINDOW"], 2.0, 100)?;
            adapt(Adapt::Mean { factor, window })
        }
        "average" => {
            constants.at_most(&["FACTOR", "DECAY"])?;
            let factor = constants.number(0, "FACTOR", Some(2.0))?;
            adapt(Adapt::Average { factor, decay: constants.number(1, "DECAY", Some(0.99))? })
        }
        "zclip" => {
            constants.at_most(&["Z", "DECAY", "WARM_UP"])?;
            let z = constants.number(0, "Z", Some(2.5))?;
            let decay = constants.number(1, "DECAY", Some(0.97))?;
            let warm_up = constants.whole(2, "WARM_UP", 25)?;
            adapt(Adapt::ZScore { decay, z, warm_up, reaction: Reaction::Reciprocal })
        }
        "aggc" => {
            constants.at_most(&["LOW", "HIGH", "DECAY"])?;
            let [low, high] = [constants.number(0, "LOW", None)?, constants.number(1, "HIGH", None)?];
            adapt(Adapt::Aggc(Aggc::new(low, high, constants.number(2, "DECAY", None)?)))
        }
        "skip-z" => {
            let (sigma, window) = constants.with_window(["SIGMA", "WINDOW"], 6.0, 128)?;
            Ok(Rule::SkipZ { sigma, window })
        }
        _ => Err(format!("expected {FORMS}")),
    }
}

/// What follows `=`, by its commas.
struct Constants<'a>(Vec<&'a str>);

impl Constants<'_> {
    fn at_most(&self, names: &[&str]) -> Result<(), String> {
        let (most, given) = (text::counted(names.len() as u64, "constant"), self.0.len());
        match given <= names.len() {
            true => Ok(()),
            false => Err(format!("expected at most {most}, {}, given {given}", names.join(","))),
        }
    }

    /// A number and a count of norms.
    fn with_window(&self, names: [&str; 2], first: f32, window: u32) -> Result<(f32, u32), String> {
        self.at_most(&names)?;
        Ok((self.number(0, names[0], Some(first))?, self.whole(1, names[1], window)?))
    }

    fn number(&self, place: usize, name: &str, unless_given: Option<f32>) -> Result<f32, String> {
        match (self.0.get(place), unless_given) {
            (Some(text), _) => parsed(text, name, "a number"),
            (None, Some(value)) => Ok(value),
            (None, None) => Err(format!("expected {name}, a number, which has no default")),
        }
    }

    fn whole(&self, place: usize, name: &str, unless_given: u32) -> Result<u32, String> {
        self.0.get(place).map_or(Ok(unless_given), |text| parsed(text, name, "a whole number"))
    }
}

fn parsed<T: std::str::FromStr>(given: &str, name: &str, what: &str) -> Result<T, String> {
    let given = given.trim();
    given.parse().map_err(|_| format!("expected {name}, {what}, given `{}`", text::escaped(given)))
}

/// A threshold of a simulation: norms in it are at most the largest `f32`.
pub(crate) fn threshold(given: &str) -> Result<f64, String> {
    let value = options::threshold(given)?;
    match value <= f32::MAX.into() || value == f64::INFINITY {
        true => Ok(value),
        false => Err(format!("expected at most {:e}, the largest f32, or `inf`", f32::MAX)),
    }
}

impl Rule {
    /// What the library is to do. Until there are norms to adapt to, nothing limits.
    pub(crate) fn clip(self, suggested: f64) -> Clip {
        match self {
            Rule::MaxNorm(given) => Clip::global_norm(given.unwrap_or(suggested as f32)),
            Rule::Adapt(adapt) => Clip::measure().adapt(adapt),
            Rule::SkipZ { sigma, window } => Clip::measure().skip(Skip::z_score(sigma).window(window)),
        }
    }

    pub(crate) fn adapts(self) -> bool {
        matches!(self, Rule::Adapt(_))
    }

    /// Itself with every constant, as one would type it.
    pub(crate) fn words(self, suggested: f64) -> String {
        match self {
            Rule::MaxNorm(given) => format!("max-norm={}", Digits(given.unwrap_or(suggested as f32))),
            Rule::SkipZ { sigma, window } => format!("skip-z={},{window}", Digits(sigma)),
            Rule::Adapt(Adapt::Percentile { percentile, window }) => {
                format!("autoclip={},{window}", Digits(percentile))
            }
            Rule::Adapt(Adapt::PastPercentile { percentile, window }) => {
                format!("past-percentile={},{window}", Digits(percentile))
            }
            Rule::Adapt(Adapt::Mean { factor, window }) => format!("mean={},{window}", Digits(factor)),
            Rule::Adapt(Adapt::Average { factor, decay }) => {
                format!("average={},{}", Digits(factor), Digits(decay))
            }
            Rule::Adapt(Adapt::ZScore { decay, z, warm_up, .. }) => {
                format!("zclip={},{},{warm_up}", Digits(z), Digits(decay))
            }
            Rule::Adapt(Adapt::Aggc(aggc)) => {
                format!("aggc={},{},{}", Digits(aggc.low), Digits(aggc.high), Digits(aggc.decay))
            }
            Rule::Adapt(other) => format!("{other:?}"),
        }
    }
}

/// The shortest digits that give a number back.
struct Digits(f32);

impl fmt::Display for Digits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            value if value == 0.0 || (1e-4..1e7).contains(&value) || value.is_infinite() => {
                write!(f, "{value}")
            }
            value => write!(f, "{value:e}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_typed_comes_back_with_every_constant() {
        let cases = [
            ("max-norm", "max-norm=2.5"),
            ("max-norm=0.1", "max-norm=0.1"),
            ("max-norm=1e38", "max-norm=1e38"),
            ("max-norm=inf", "max-norm=inf"),
            ("autoclip", "autoclip=10,10000"),
            ("autoclip=25", "autoclip=25,10000"),
            ("past-percentile=90,50", "past-percentile=90,50"),
            ("mean", "mean=2,100"),
            ("average=1.5, 0.9", "average=1.5,0.9"),
            ("zclip", "zclip=2.5,0.97,25"),
            ("zclip=3,0.9", "zclip=3,0.9,25"),
            ("aggc=0.5,2,0.9", "aggc=0.5,2,0.9"),
            ("skip-z=4", "skip-z=4,128"),
        ];
        for (typed, words) in cases {
            assert_eq!(rule(typed).map(|rule| rule.words(2.5)), Ok(words.into()), "{typed}");
            assert_eq!(rule(words).map(|rule| rule.words(2.5)), Ok(words.into()), "{typed}");
        }
        let usual = usual().map(|rule| rule.words(2.5));
        for (name, words) in ["max-norm", "autoclip", "zclip", "average", "skip-z"].iter().zip(usual) {
            assert_eq!(rule(name).map(|rule| rule.words(2.5)), Ok(words), "{name}");
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        let cases = [
            ("", "expected max-norm[=C]"),
            ("clip=1", "aggc=LOW,HIGH,DECAY or skip-z"),
            ("max-norm=", "0 or more"),
            ("max-norm=-1", "0 or more"),
            ("max-norm=1e39", "the largest f32"),
            ("max-norm=1,2", "at most 1 constant, C, given 2"),
            ("autoclip=101", "percentile of 0 to 100, given 101"),
            ("mean=x", "expected FACTOR, a number, given `x`"),
            ("mean=2,0.5", "expected WINDOW, a whole number, given `0.5`"),
            ("mean=2,70000", "1 to 65536 norms, given 70000"),
            ("mean=2,0", "1 to 65536 norms, given 0"),
            ("average=2,1", "decay of 0 or more and below 1, given 1"),
            ("zclip=0", "z of above 0 and finite, given 0"),
            ("zclip=1,0.9,5,6", "at most 3 constants, Z,DECAY,WARM_UP, given 4"),
            ("aggc", "expected LOW, a number, which has no default"),
            ("aggc=0.5,2", "expected DECAY"),
            ("aggc=2,1,0.5", "at most `high`, given 2"),
            ("skip-z=-1", "0 to 2^20, given -1"),
            ("skip-z=nan", "0 to 2^20, given NaN"),
            ("skip-z=6,1", "2 to 65536 values, given 1"),
        ];
        for (typed, message) in cases {
            let error = rule(typed).unwrap_err();
            assert!(error.contains(message), "{typed}: {error}");
        }
    }
}
