//! The options of `gradclip clip` that say what is limited.

use std::path::PathBuf;

use clap::{ArgGroup, ValueEnum};
use gradclip::{Clip, NonFinite, NormType, Rule, Scope, Units};

use crate::args::options;
use crate::args::precision::{Precision, Scalar};
use crate::failure::Failure;

#[derive(clap::Args)]
#[group(skip)]
#[command(group = ArgGroup::new("rule").required(true).args(["max_norm", "value", "block_rms", "agc", "sign"]))]
pub(crate) struct RuleArgs {
    /// Clip to this norm: 0 makes zeros, `inf` only measures
    #[arg(long, value_name = "C", allow_hyphen_values = true, value_parser = options::threshold)]
    max_norm: Option<f64>,
    /// Clamp every element to [-V, V]. NaN stays NaN, which is no error unless `--on-nonfinite` says
    /// otherwise
    #[arg(long, value_name = "V", allow_hyphen_values = true, value_parser = options::threshold)]
    value: Option<f64>,
    /// Limit the root mean square of each tensor to R
    #[arg(long, value_name = "R", allow_hyphen_values = true, value_parser = options::threshold)]
    block_rms: Option<f64>,
    /// Adaptive gradient clipping: limit the norm of each unit to L times that of its parameters
    #[arg(long, value_name = "L", allow_hyphen_values = true, value_parser = options::threshold,
        requires = "params")]
    agc: Option<f64>,
    /// Where the norm exceeds E, make every element E with its own sign
    #[arg(long, value_name = "E", allow_hyphen_values = true, value_parser = options::threshold)]
    sign: Option<f64>,
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
    eps: f64,
    /// With --agc: safetensors file or index with the parameters, of the same shapes as their gradients and of the
    /// same names or aliases of them in `__metadata__`; what else it has is ignored. May be repeated
    #[arg(long, value_name = "FILE", conflicts_with_all = ["max_norm", "value", "block_rms", "sign"])]
    pub(crate) params: Vec<PathBuf>,
    /// With --agc: least norm that parameters are taken to have
    #[arg(long, value_name = "E", default_value = "1e-3", allow_hyphen_values = true,
        value_parser = options::eps, conflicts_with_all = ["max_norm", "value", "block_rms", "sign"])]
    agc_eps: f64,
    /// With --agc: which axis of a tensor counts its units
    #[arg(long, value_enum, default_value_t = Layout::OutputFirst,
        conflicts_with_all = ["max_norm", "value", "block_rms", "sign"])]
    agc_layout: Layout,
    /// A limit on the norm of the whole set besides, where what shares a norm is smaller: with --scope tensor,
    /// --group, --block-rms and --agc
    #[arg(long, value_name = "C", allow_hyphen_values = true, value_parser = options::threshold,
        conflicts_with_all = ["value", "sign"])]
    total: Option<f64>,
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
    /// What to do; `policy` is what a non-finite element does, `None` where it is an error. `grouped` says that some
    /// tensors have thresholds of their own.
    pub(crate) fn clip(
        &self,
        policy: Option<NonFinite>,
        grouped: bool,
        precision: Precision,
    ) -> Result<Clip, Failure> {
        if grouped && self.scope == Sharing::Tensor {
            let why = "the scope is groups then, the rest being one group";
            return Err(Failure::Usage(format!("--scope tensor: expected without --group; {why}")));
        }
        let clip = self.rule(policy, grouped, precision)?;
        Ok(match self.total {
            Some(total) => clip.total(precision.scalar("--total", total)?),
            None => clip,
        })
    }

    fn rule(&self, policy: Option<NonFinite>, grouped: bool, precision: Precision) -> Result<Clip, Failure> {
        let set = |clip: Clip| clip.on_non_finite(policy.unwrap_or(NonFinite::Skip));
        if let Some(value) = self.value {
            return Ok(values(precision.scalar("--value", value)?, policy, grouped));
        }
        if let Some(threshold) = self.block_rms {
            return Ok(set(Clip::block_rms(precision.scalar("--block-rms", threshold)?)));
        }
        if let Some(clipping) = self.agc {
            let units = match self.agc_layout {
                Layout::OutputFirst => Units::OutputFirst,
                Layout::OutputLast => Units::OutputLast,
            };
            let eps = precision.scalar("--agc-eps", self.agc_eps)?;
            return Ok(set(Clip::agc(precision.scalar("--agc", clipping)?, units).rule(Rule::Agc { eps })));
        }
        if let Some(magnitude) = self.sign {
            let clip = set(Clip::sign(precision.scalar("--sign", magnitude)?).norm_type(self.norm));
            return Ok(if grouped { clip.scope(Scope::Group) } else { clip });
        }
        // One of the five is there, or clap refuses.
        let threshold = precision.scalar("--max-norm", self.max_norm.unwrap_or(f64::INFINITY))?;
        let clip = match self.scope {
            Sharing::Global if grouped => Clip::per_group_norm(threshold),
            Sharing::Global => Clip::global_norm(threshold),
            Sharing::Tensor => Clip::per_tensor_norm(threshold),
        };
        Ok(set(clip.norm_type(self.norm).eps(precision.scalar("--eps", self.eps)?)))
    }
}

/// `--value`: a non-finite element is an error only to norms.
fn values(value: Scalar, policy: Option<NonFinite>, grouped: bool) -> Clip {
    match policy {
        None => Clip::value(value),
        Some(NonFinite::Sanitize) => Clip::value(value).on_non_finite(NonFinite::Sanitize),
        // These do something to all gradients, or where groups have values of their own to the tensor; a segment of
        // Clip::value is a tensor.
        Some(policy) if grouped => Clip::value(value).on_non_finite(policy),
        Some(policy) => Clip::value(value).scope(Scope::Global).on_non_finite(policy),
    }
}
