//! The options of `suggest` that simulate rules over the norms.

use gradclip::{Clip, Skip};

use crate::commands::suggest::rule::{self, Rule};
use crate::failure::Failure;

#[derive(clap::Args)]
pub(crate) struct RuleArgs {
    /// Simulate a rule over the norms, and tell which steps it clips and which it leaves out. May be repeated: rules then
    /// stand side by side. RULE is, with what holds unless given in brackets, max-norm[=C] (the suggested threshold),
    /// autoclip[=P,WINDOW] (10,10000), past-percentile[=P,WINDOW] (10,10000), mean[=FACTOR,WINDOW] (2,100),
    /// average[=FACTOR,DECAY] (2,0.99), zclip[=Z,DECAY,WARM_UP] (2.5,0.97,25), aggc=LOW,HIGH,DECAY, or
    /// skip-z[=SIGMA,WINDOW] (6,128), which leaves out spikes and clips nothing
    #[arg(long = "rule", value_name = "RULE", value_parser = rule::rule)]
    rules: Vec<Rule>,
    /// Simulate max-norm, autoclip, zclip, average and skip-z, before what --rule names
    #[arg(long)]
    simulate: bool,
    /// In every simulated rule: leave out steps whose norm exceeds T. Without --rule, as --simulate
    #[arg(long, value_name = "T", allow_hyphen_values = true, value_parser = rule::threshold)]
    skip_above: Option<f64>,
    /// In simulated rules that adapt: what the threshold is at least. Without --rule, as --simulate
    #[arg(long, value_name = "A", allow_hyphen_values = true, value_parser = rule::threshold)]
    at_least: Option<f64>,
    /// In simulated rules that adapt: what the threshold is at most. Without --rule, as --simulate
    #[arg(long, value_name = "B", allow_hyphen_values = true, value_parser = rule::threshold)]
    at_most: Option<f64>,
}

impl RuleArgs {
    /// What is simulated, in this order.
    pub(crate) fn chosen(&self) -> Result<Vec<Rule>, Failure> {
        let bounds = [("--at-least", self.at_least), ("--at-most", self.at_most)];
        let mut given = bounds.iter().filter_map(|(name, bound)| bound.map(|bound| (name, bound)));
        let bound = given.next();
        let alone = self.rules.is_empty() && (bound.is_some() || self.skip_above.is_some());
        let usual = if self.simulate || alone { rule::usual().to_vec() } else { Vec::new() };
        let rules: Vec<Rule> = usual.into_iter().chain(self.rules.iter().copied()).collect();
        if let Some((name, bound)) = bound
            && !rules.iter().any(|rule| rule.adapts())
        {
            return Err(Failure::Usage(format!(
                "{name} {bound:?}: expected a --rule whose threshold adapts, which are autoclip, past-percentile, mean, \
                 average, zclip and aggc"
            )));
        }
        match self.at_least.zip(self.at_most) {
            Some((least, most)) if least > most => Err(Failure::Usage(format!(
                "--at-least {least:?}: expected at most what --at-most says, which is {most:?}"
            ))),
            _ => Ok(rules),
        }
    }

    /// The clip of a rule, with what holds for all of them.
    pub(crate) fn clip(&self, rule: Rule, suggested: f64) -> Clip {
        let clip = rule.clip(suggested);
        let clip = match self.skip_above {
            Some(bound) => clip.skip(clip.skip.unwrap_or_else(Skip::non_finite).above(bound)),
            None => clip,
        };
        if !rule.adapts() {
            return clip;
        }
        let clip = self.at_least.map_or(clip, |bound| clip.at_least(bound));
        self.at_most.map_or(clip, |bound| clip.at_most(bound))
    }

    /// The norm above which steps are left out.
    pub(crate) fn skip_above(&self) -> Option<f64> {
        self.skip_above
    }
}
