//! What the controls of the page say, as the library takes it.

use gradclip::{Adapt, Clip, Skip, Units};
use serde::Deserialize;

use crate::error::WebError;
use crate::model::BATCH;

/// Sequences may be so long; longer ones only take longer.
const LENGTHS: std::ops::RangeInclusive<u32> = 4..=128;

/// A run: what is clipped and how, at which rate, over which sequences.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// What is limited.
    pub rule: Rule,
    /// C of the rule: the largest norm, or for [`Rule::Agc`] its share of the parameters' norm.
    pub threshold: f64,
    /// Learning rate.
    pub rate: f64,
    /// Symbols of a sequence, through which gradients go back.
    pub length: u32,
    /// Of parameters and batches.
    pub seed: u32,
}

/// The rules that the page offers.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Rule {
    /// The norm of the whole set.
    Norm,
    /// The norm of each tensor.
    Tensor,
    /// Every element.
    Value,
    /// The norm of each unit, by that of its parameters.
    Agc,
    /// ZClip: a z-score of the norm, with C until there is a history.
    Zclip,
    /// AutoClip: a percentile of the norms so far.
    Autoclip,
    /// AdaGC, with C as the limit of the whole set while it warms up.
    Adagc,
    /// The norm of the whole set; steps whose norm or loss is a spike are left out besides.
    Spikes,
    /// The whole set is scaled to the norm C.
    Normalize,
}

/// The percentile of AutoClip's paper.
const PERCENTILE: f32 = 10.0;
/// Standard deviations above the mean from which a step is left out.
const SIGMA: f32 = 4.0;

impl Settings {
    /// From the page's JSON.
    ///
    /// # Errors
    ///
    /// [`WebError::Settings`] for what is no such JSON, or a number out of its range.
    pub fn parse(json: &str) -> Result<Settings, WebError> {
        let settings: Settings =
            serde_json::from_str(json).map_err(|error| WebError::Settings(error.to_string()))?;
        let wrong = |what: &str, required: &str, given: f64| {
            Err(WebError::Settings(format!("{what}: expected {required}, given {given}")))
        };
        if !LENGTHS.contains(&settings.length) {
            return wrong("length", "4 to 128 symbols", settings.length.into());
        }
        if !settings.rate.is_finite() || settings.rate < 0.0 {
            return wrong("rate", "a finite number, 0 or more", settings.rate);
        }
        settings.clip().validate().map_err(|error| WebError::Settings(error.to_string()))?;
        Ok(settings)
    }

    /// The clip that the rule is.
    pub fn clip(&self) -> Clip {
        let c = self.threshold;
        match self.rule {
            Rule::Norm => Clip::global_norm(c),
            Rule::Tensor => Clip::per_tensor_norm(c),
            Rule::Value => Clip::value(c),
            // Parameters lie as inputs by outputs.
            Rule::Agc => Clip::agc(c, Units::OutputLast),
            Rule::Zclip => Clip::global_norm(c).adapt(Adapt::zclip()),
            Rule::Autoclip => Clip::global_norm(c).adapt(Adapt::autoclip(PERCENTILE)),
            Rule::Adagc => Clip::adagc(c),
            Rule::Spikes => Clip::global_norm(c).skip(Skip::z_score(SIGMA).window(32).with_loss()),
            Rule::Normalize => Clip::normalize(c),
        }
    }

    /// Symbols that a step reads.
    pub fn symbols(&self) -> u32 {
        BATCH * self.length
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(rule: &str, threshold: &str, length: u32) -> Result<Settings, WebError> {
        let rest = format!("\"rate\":0.5,\"length\":{length},\"seed\":1");
        Settings::parse(&format!("{{\"rule\":\"{rule}\",\"threshold\":{threshold},{rest}}}"))
    }

    #[test]
    fn every_rule_is_a_clip() {
        let rules = ["norm", "tensor", "value", "agc", "zclip", "autoclip", "adagc", "spikes", "normalize"];
        let clips: Vec<Clip> = rules.map(|rule| settings(rule, "0.25", 40).unwrap().clip()).into();
        for (i, a) in clips.iter().enumerate() {
            assert!(clips[..i].iter().all(|b| a != b), "{} is one of those before it", rules[i]);
        }
        assert_eq!(clips[0], Clip::global_norm(0.25));
    }

    #[test]
    fn what_is_out_of_range_is_named() {
        let said = |result: Result<Settings, WebError>| result.unwrap_err().to_string();
        assert!(said(settings("norm", "-1", 40)).contains("threshold"));
        assert!(said(settings("norm", "1", 3)).contains("length: expected 4 to 128 symbols, given 3"));
        assert!(said(settings("nothing", "1", 40)).contains("unknown variant"));
    }
}
