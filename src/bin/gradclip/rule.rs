//! The options of `gradclip clip` that say what is limited.

use std::path::PathBuf;

use clap::{ArgGroup, ValueEnum};
use gradclip::{Clip, NonFinite, NormType, Rule, Scope, Units};

use crate::options;

#[derive(clap::Args)]
#[group(skip)]
#[command(group = ArgGroup::new("rule").required(true).args(["max_norm", "value", "block_rms", "agc", "sign"]))]
pub(crate) struct RuleArgs {
    /// Clip to this norm: 0 makes zeros, `inf` only measures
    #[arg(long, value_name = "C", allow_hyphen_values = true, value_parser = options::threshold)]
    max_norm: Option<f32>,
    /// Clamp every element to [-V, V]. NaN stays NaN, which is no error unless `--on-nonfinite` says
    /// otherwise
    #[arg(long, value_name = "V", allow_hyphen_values = true, value_parser = options::threshold)]
    value: Option<f32>,
    /// Limit the root mean square of each tensor to R
    #[arg(long, value_name = "R", allow_hyphen_values = true, value_parser = options::threshold)]
    block_rms: Option<f32>,
    /// Adaptive gradient clipping: limit the norm of each unit to L times that of its parameters
    #[arg(long, value_name = "L", allow_hyphen_values = true, value_parser = options::threshold,
        requires = "params")]
    agc: Option<f32>,
    /// Where the norm exceeds E, make every element E with its own sign
    #[arg(long, value_name = "E", allow_hyphen_values = true, value_parser = options::threshold)]
    sign: Option<f32>,
    /// With --max-norm: what shares one norm
    #[arg(long, value_enum, default_value_t = Sharing::Global,
        conflicts_with_all = ["value", "block_rms", "agc", "sign"])]
    scope: Sharing,
    /// With --max-norm and --sign: norm type 2, 1, inf or any P above 0
    #[arg(long, value_name = "P", default_value = "2", allow_hyphen_values = true,
        value_parser = options::norm_type, conflicts_with_all = ["value", "block_rms", "agc"])]
    norm: NormType,
    /// With --max-norm: added to the norm in the quotient C / (norm + E); 1e-6 reproduces PyTorch
    #[arg(long, value_name = "E", default_value = "0", allow_hyphen_values = true,
        value_parser = options::eps, conflicts_with_all = ["value", "block_rms", "agc", "sign"])]
    eps: f32,
    /// With --agc: safetensors file with the parameters, of the same names and shapes as their
    /// gradients and of type F32, F16 or BF16; what else it has is ignored
    #[arg(long, value_name = "FILE", conflicts_with_all = ["max_norm", "value", "block_rms", "sign"])]
    pub(crate) params: Option<PathBuf>,
    /// With --agc: least norm that parameters are taken to have
    #[arg(long, value_name = "E", default_value = "1e-3", allow_hyphen_values = true,
        value_parser = options::eps, conflicts_with_all = ["max_norm", "value", "block_rms", "sign"])]
    agc_eps: f32,
    /// With --agc: which axis of a tensor counts its units
    #[arg(long, value_enum, default_value_t = Layout::OutputFirst,
        conflicts_with_all = ["max_norm", "value", "block_rms", "sign"])]
    agc_layout: Layout,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Sharing {
    /// The whole set
    Global,
    /// Each tensor by itself
    Tensor,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Layout {
    /// The first, as in PyTorch; tensors with one axis are one unit
    OutputFirst,
    /// The last, as in Flax and Keras; in rank 3 the last two. Tensors with one axis longer than 1
    /// are one unit
    OutputLast,
}

impl RuleArgs {
    /// What to do; `policy` is what a non-finite element does, `None` where it is an error.
    pub(crate) fn clip(&self, policy: Option<NonFinite>) -> Clip {
        let set = |clip: Clip| clip.on_non_finite(policy.unwrap_or(NonFinite::Skip));
        if let Some(value) = self.value {
            return values(value, policy);
        }
        if let Some(threshold) = self.block_rms {
            return set(Clip::block_rms(threshold));
        }
        if let Some(clipping) = self.agc {
            let units = match self.agc_layout {
                Layout::OutputFirst => Units::OutputFirst,
                Layout::OutputLast => Units::OutputLast,
            };
            return set(Clip::agc(clipping, units).rule(Rule::Agc { eps: self.agc_eps.into() }));
        }
        if let Some(magnitude) = self.sign {
            return set(Clip::sign(magnitude).norm_type(self.norm));
        }
        // One of the five is there, or clap refuses.
        let threshold = self.max_norm.unwrap_or(f32::INFINITY);
        let clip = match self.scope {
            Sharing::Global => Clip::global_norm(threshold),
            Sharing::Tensor => Clip::per_tensor_norm(threshold),
        };
        set(clip.norm_type(self.norm).eps(self.eps))
    }
}

/// `--value`: a non-finite element is an error only to norms.
fn values(value: f32, policy: Option<NonFinite>) -> Clip {
    match policy {
        None => Clip::value(value),
        Some(NonFinite::Sanitize) => Clip::value(value).on_non_finite(NonFinite::Sanitize),
        // These do something to all gradients; a segment of Clip::value is a tensor.
        Some(policy) => Clip::value(value).scope(Scope::Global).on_non_finite(policy),
    }
}
