//! What a [`Clip`] must be, and what goes together.

use super::{Adapt, Clip, LossScale, NonFinite, NormType, Rule, Scope, Skip, Summation};
use crate::error::ClipError;

impl Clip {
    /// Checks every field, and that they go together.
    ///
    /// # Errors
    ///
    /// A threshold or eps that is negative or NaN, an infinite eps, an unscale factor that is not
    /// positive and finite (as `f32`, like the eps), a p that is not above 0, constants of an adaptive threshold or of loss
    /// scaling out of their range; and combinations that mean nothing, which [`ClipError::Combination`] names.
    pub fn validate(&self) -> Result<(), ClipError> {
        let bounds = self.at_least.into_iter().chain(self.at_most);
        for threshold in std::iter::once(self.threshold).chain(self.total).chain(bounds) {
            if threshold.is_nan() || threshold < 0.0 {
                return Err(ClipError::Threshold { given: threshold });
            }
        }
        if let NormType::P(p) = self.norm
            && (p.is_nan() || (p as f32) < f32::MIN_POSITIVE)
        {
            return Err(ClipError::NormType { given: p });
        }
        let narrow = self.unscale as f32;
        if !(narrow > 0.0 && narrow.is_finite()) {
            return Err(ClipError::Unscale { given: self.unscale });
        }
        let agc_eps = if let Rule::Agc { eps } = self.rule { eps } else { 0.0 };
        for eps in [self.eps, agc_eps] {
            if !(eps >= 0.0 && (eps as f32).is_finite()) {
                return Err(ClipError::Eps { given: eps });
            }
        }
        self.adapt.map_or(Ok(()), Adapt::validate)?;
        self.loss_scale.map_or(Ok(()), LossScale::validate)?;
        self.skip.map_or(Ok(()), Skip::validate)?;
        self.wrong_combination()
            .map_or(Ok(()), |(what, required)| Err(ClipError::Combination { what, required }))
    }

    /// What does not go together, and what would.
    fn wrong_combination(&self) -> Option<(&'static str, &'static str)> {
        let units = matches!(self.scope, Scope::Unit(_) | Scope::Row);
        let scales = matches!(self.rule, Rule::Norm | Rule::Rms | Rule::Average | Rule::Agc { .. });
        let quantile = self.adapt.is_some_and(Adapt::counts);
        let wrong = [
            (
                self.rule == Rule::Value && Summation::from(self.norm) != Summation::Inf,
                ("value clipping", "norm type infinity, the largest magnitude"),
            ),
            (
                self.non_finite == NonFinite::Keep && self.rule != Rule::Value,
                ("NonFinite::Keep", "value clipping; a norm has to be finite"),
            ),
            (
                self.never_above == Some(true) && matches!(Summation::from(self.norm), Summation::P(_)),
                ("never_above", "a norm of type 1, 2 or infinity; others are not exact"),
            ),
            (
                self.rule == Rule::Normalize && self.threshold.is_infinite(),
                ("normalising", "a finite target norm"),
            ),
            (
                matches!(self.rule, Rule::Agc { .. }) && self.scope == Scope::Row,
                ("adaptive gradient clipping", "a scope other than rows"),
            ),
            (
                self.total.is_some() && (!scales || self.scope == Scope::Global),
                ("a total limit", "segments smaller than the whole set, and a rule that scales them"),
            ),
            (
                self.adapt.is_some() && !matches!(self.rule, Rule::Norm | Rule::Sign | Rule::Normalize),
                ("an adaptive threshold", "the rule Norm, Sign or Normalize"),
            ),
            (
                self.adapt.is_some() && units && !quantile,
                ("an adaptive threshold other than Adapt::Quantile", "the scope Global, Group or Tensor"),
            ),
            (
                quantile && !(self.threshold as f32 > 0.0 && (self.threshold as f32).is_finite()),
                ("Adapt::Quantile", "a first threshold above 0 and finite"),
            ),
            (
                matches!(self.adapt, Some(Adapt::AdaGc { .. }))
                    && !matches!(self.scope, Scope::Tensor | Scope::Group),
                ("Adapt::AdaGc", "the scope Tensor or Group"),
            ),
            (
                matches!(self.adapt, Some(Adapt::Aggc(_))) && self.rule != Rule::Norm,
                ("Adapt::Aggc", "the rule Norm"),
            ),
            (
                self.adapt.is_none() && (self.at_least.is_some() || self.at_most.is_some()),
                ("a bound of the threshold", "a threshold that adapts"),
            ),
            (
                self.use_norm
                    && (self.scope != Scope::Global || matches!(self.rule, Rule::Value | Rule::Agc { .. })),
                ("a norm that is handed in", "the scope Global, and a rule about the norm"),
            ),
            (
                self.loss_scale.is_some() && self.skip.is_some_and(|skip| skip.lets_all_through()),
                ("GiveUp::LetAllThrough", "no loss scale, whose steps overflow until it has found its size"),
            ),
            (
                self.total.is_some() && matches!(self.adapt, Some(Adapt::Aggc(aggc)) if aggc.raises()),
                ("a total limit", "segments that are not raised; it is of their norms before"),
            ),
            (
                self.at_least.zip(self.at_most).is_some_and(|(least, most)| least > most),
                ("a threshold of at least more than it is at most", "the lesser bound first"),
            ),
        ];
        wrong.into_iter().find(|(is, _)| *is).map(|(_, message)| message)
    }
}

impl Clip {
    /// The clip that decides which micro-batches are left out before they are summed for this one.
    pub(crate) fn of_micro_batches(&self, skip: Skip, micro_batches: u32) -> Result<Clip, ClipError> {
        let error = |required| {
            let what = "a rule that leaves out micro-batches";
            Err(ClipError::Combination { what, required })
        };
        if micro_batches < 2 {
            return error("two or more of them a step; `Clip::skip` leaves out steps");
        }
        if self.loss_scale.is_some() {
            return error("no loss scale");
        }
        let clip = Clip::measure().norm_type(self.norm).unscale(self.unscale);
        let clip = clip.on_non_finite(NonFinite::Skip).skip(skip);
        clip.validate()?;
        Ok(clip)
    }
}
