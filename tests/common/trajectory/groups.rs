//! Groups of an optimiser: tensors with a learning rate or a decay of their own.

use super::*;

/// How a `function` that steps group by group ends, after the clip that is common to them.
const BY_GROUP: &str = " on all, then each group's optimiser";

/// Clip and optimiser of a `case.json`, and tells tensors what they have of their own. The optimiser is that of the
/// first group.
pub(super) fn by_tensor(json: &Value, tensors: &mut [Tensor]) -> Attempt<(Clip, Optimizer)> {
    let Some(groups) = json["args"]["groups"].as_array() else { return settings(json) };
    let all: Vec<(Clip, Optimizer)> =
        groups.iter().map(|group| of_group(json, group)).collect::<Attempt<_>>()?;
    let &(clip, optimizer) = all.first().ok_or("`groups` is empty")?;
    if all.iter().any(|(_, other)| without_own(*other) != without_own(optimizer)) {
        return Err("groups that differ in more than learning rate and decay".into());
    }
    for tensor in tensors {
        let name = format!("p.{}", tensor.name);
        let has = |group: &&(&Value, &(Clip, Optimizer))| {
            group.0["tensors"].as_array().is_some_and(|tensors| tensors.iter().any(|t| *t == name))
        };
        let of_it: Vec<_> = groups.iter().zip(&all).filter(|group| has(&group)).collect();
        let [(_, (_, other))] = of_it[..] else {
            return Err(format!("`{name}` is in {} groups", of_it.len()));
        };
        let decay = other.weight_decay();
        tensor.lr_scale = other.lr() / optimizer.lr();
        tensor.weight_decay = (decay != optimizer.weight_decay()).then_some(decay);
    }
    Ok((clip, optimizer))
}

/// The common clip, then a group's optimiser, as if the group were all there is.
fn of_group(json: &Value, group: &Value) -> Attempt<(Clip, Optimizer)> {
    let function = json["function"].as_str().unwrap_or_default();
    let clip = function.strip_suffix(BY_GROUP).ok_or_else(|| format!("function `{function}`: no groups"))?;
    let optimizer = group["optimizer"].as_str().ok_or("a group without `optimizer`")?;
    if !group["max_norm"].is_null() {
        return Err("a group with a `max_norm` of its own".into());
    }
    let mut args = json["args"].as_object().cloned().unwrap_or_default();
    args.extend(group.as_object().cloned().unwrap_or_default());
    // `max_norm` is the common one again.
    args.insert("max_norm".into(), json["args"]["max_norm"].clone());
    ["groups", "tensors", "optimizer"].iter().for_each(|key| drop(args.remove(*key)));
    settings(&json!({"peer": json["peer"], "function": format!("{clip} then {optimizer}"), "args": args}))
}

/// With a learning rate and a decay that are the same for all.
fn without_own(optimizer: Optimizer) -> Optimizer {
    let optimizer = match optimizer {
        Optimizer::Sgd(sgd) => sgd.weight_decay(0.0).into(),
        Optimizer::Adam(adam) => adam.weight_decay(0.0).into(),
        other => other,
    };
    optimizer.with_lr(1.0)
}
