//! Runs of optimisers that PyTorch, Keras, Optax, torch-optimi and timm made, in `tests/data/step_cases`, step for step on the
//! CPU path and on the adapter. `GRADCLIP_STEP_CASES` names more: a case folder, a folder of such, or
//! several, separated as in `PATH`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;
#[path = "common/trajectory/mod.rs"]
mod trajectory;

use std::path::{Path, PathBuf};

use common::{files, gpu};
use gradclip::NonFinite;
use serde_json::{Value, json};
use trajectory::{Attempt, Case, PLACINGS, Replay, folders, settings};

/// The names of a family's cases begin with one of its words; the first family that fits has a case.
const FAMILIES: [(&str, &[&str]); 12] = [
    ("skips", &["optax_skip_", "optax_if_finite_", "olmo_skip_", "f64_zscore_"]),
    ("limits of updates", &["optax_adam_update_", "optax_la", "optimi_", "timm_"]),
    ("masters", &["torch_master_"]),
    ("keras", &["keras_"]),
    ("optax", &["optax_"]),
    ("loss scale", &["torch_amp_"]),
    ("groups", &["torch_groups_"]),
    ("short types", &["torch_step_f16", "torch_step_bf16"]),
    ("adam", &["torch_step_adam"]),
    ("nadam", &["torch_step_nadam"]),
    ("radam", &["torch_step_radam", "torch_radam"]),
    ("sgd", &["torch_step_sgd", "torch_lstm_"]),
];

fn family(folder: &Path) -> Option<&'static str> {
    let name = folder.file_name()?.to_str()?;
    FAMILIES.iter().find(|(_, words)| words.iter().any(|w| name.starts_with(w))).map(|(family, _)| *family)
}

fn own() -> Vec<PathBuf> {
    folders(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/step_cases")).unwrap()
}

/// What does not match, on the CPU path and on the adapter in both placings.
fn mismatches(case: &Case) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut add = |what: &str, replay: Attempt<Replay>| {
        let failures = replay.map_or_else(|error| vec![error], |replay| replay.failures);
        wrong.extend(failures.into_iter().map(|f| format!("{} on {what}: {f}", case.name)));
    };
    add("the CPU path", case.on_cpu());
    if let Some(gpu) = gpu() {
        for placing in PLACINGS {
            add(&format!("{}, {placing:?}", gpu.name), case.on_device(&gpu, placing));
        }
    }
    wrong
}

fn read(folder: &Path) -> Case {
    Case::read(folder).unwrap().unwrap_or_else(|| panic!("{} has no steps", folder.display()))
}

fn follows(name: &str, at_least: usize) {
    let cases: Vec<Case> =
        own().iter().filter(|f| family(f) == Some(name)).map(|folder| read(folder)).collect();
    assert!(cases.len() >= at_least, "only {} cases of {name}", cases.len());
    let wrong: Vec<String> = cases.iter().flat_map(mismatches).collect();
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn keras() {
    follows("keras", 4);
}

#[test]
fn optax() {
    follows("optax", 8);
}

#[test]
fn steps_left_out() {
    follows("skips", 5);
}

#[test]
fn limits_of_updates() {
    follows("limits of updates", 7);
}

#[test]
fn torch_loss_scale() {
    follows("loss scale", 2);
}

#[test]
fn torch_gradients_of_short_types() {
    follows("short types", 2);
}

#[test]
fn torch_masters() {
    follows("masters", 2);
}

#[test]
fn torch_groups() {
    follows("groups", 1);
}

#[test]
fn torch_adam() {
    follows("adam", 8);
}

#[test]
fn torch_nadam() {
    follows("nadam", 3);
}

#[test]
fn torch_radam() {
    follows("radam", 4);
}

#[test]
fn torch_sgd() {
    follows("sgd", 7);
}

#[test]
fn every_case_has_a_family() {
    let without: Vec<PathBuf> = own().into_iter().filter(|f| family(f).is_none()).collect();
    assert!(without.is_empty(), "{without:?}");
}

#[test]
fn cases_given() {
    let Some(paths) = std::env::var_os("GRADCLIP_STEP_CASES") else { return };
    let found: Vec<PathBuf> = std::env::split_paths(&paths).flat_map(|p| folders(&p).unwrap()).collect();
    let (mut wrong, mut count) = (Vec::new(), 0);
    for folder in found {
        match Case::read(&folder) {
            Ok(None) => eprintln!("skipped: {} has no steps", folder.display()),
            Ok(Some(case)) => {
                count += 1;
                wrong.extend(mismatches(&case));
            }
            Err(error) => wrong.push(error),
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
    assert!(count > 0, "GRADCLIP_STEP_CASES has no case with steps");
}

/// A comparison that saw nothing would pass everything.
#[test]
fn what_is_wrong_is_seen() {
    let folder = own().into_iter().find(|f| f.ends_with("torch_amp_gradscaler")).unwrap();
    type Change = (&'static str, fn(&mut Case));
    let changes: [Change; 7] = [
        ("s2.p.0001[3]", |case| {
            let p = &mut case.steps[1].expected[1][3];
            *p += 1.01 * (2e-5 * p.abs() + 1e-7);
        }),
        ("s5.p.0000[7]", |case| case.steps[4].expected[0][7] = f32::NAN),
        ("norm of step 1", |case| case.steps[0].norm.as_mut().unwrap().0 *= 1.0 + 4e-5),
        ("norm of step 3", |case| case.steps[2].norm.as_mut().unwrap().0 = 1.0),
        ("loss scale before step 3", |case| case.steps[2].scale = Some(1024.0)),
        ("loss scale at the end", |case| case.final_scale = Some(1024.0)),
        ("step 4 skipped", |case| case.steps[3].skipped = Some(true)),
    ];
    for (what, change) in changes {
        let mut case = read(&folder);
        assert!(case.on_cpu().unwrap().failures.is_empty());
        change(&mut case);
        let failures = case.on_cpu().unwrap().failures;
        assert!(failures.len() == 1 && failures[0].contains(what), "{what}: {failures:?}");
    }
}

/// Without a group's own decay, or with a policy other than the peer's, the runs do not match: what these
/// cases are for takes part in the comparison.
#[test]
fn groups_and_skipped_steps_are_seen() {
    let of = |name: &str| read(&own().into_iter().find(|f| f.ends_with(name)).unwrap());
    let mut case = of("torch_groups_decay_matrix_only_global_clip");
    assert_eq!(
        case.tensors.iter().map(|tensor| tensor.weight_decay).collect::<Vec<_>>(),
        [None, Some(0.0), Some(0.0), None]
    );
    case.tensors.iter_mut().for_each(|tensor| (tensor.lr_scale, tensor.weight_decay) = (1.0, None));
    assert!(case.on_cpu().unwrap().failures[0].contains("s1.p.000"));
    let mut case = of("torch_groups_decay_matrix_only_global_clip");
    case.tensors[3].lr_scale = 1.01;
    assert!(case.on_cpu().unwrap().failures[0].contains("s1.p.0003"));
    let mut case = of("optax_if_finite_clip_adamw");
    case.clip = case.clip.on_non_finite(NonFinite::Zero);
    assert!(case.on_cpu().unwrap().failures[0].contains("step 5 skipped"));
}

#[test]
fn what_is_unknown_is_named() {
    let wrong = |peer: &str, function: &str, args: Value, named: &str| {
        let error = settings(&json!({"peer": peer, "function": function, "args": args})).unwrap_err();
        assert!(error.contains(named), "{function} {args}: {error}");
    };
    let torch = |function: &str, args, named: &str| wrong("torch 2.15.0", function, args, named);
    torch("clip_grad_norm_ then torch.optim.Lion", json!({"max_norm": 1}), "`Lion`");
    torch("SGD then clip_grad_norm_", json!({"max_norm": 1}), "`clip_grad_norm_`");
    torch("clip_grad_norm_", json!({"max_norm": 1}), "no known optimiser");
    torch("GradScaler: clip_grad_norm_, SGD", json!({"max_norm": 1}), "not unscaled");
    torch("clip_grad_norm_ then SGD", json!({"lr": 1}), "`max_norm`");
    torch("clip_grad_norm_ then SGD", json!({"max_norm": 1, "betas": [0.9, 0.99]}), "`betas`");
    torch("clip_grad_norm_ then SGD", json!({"max_norm": 1, "amsgrad": true}), "`amsgrad`");
    torch("clip_grad_norm_ then SGD", json!({"max_norm": "much"}), "`max_norm`");
    torch("clip_grad_norm_ then SGD", json!({"max_norm": -1}), "threshold");
    torch("torch.optim.Adam", json!({"decoupled": true}), "`decoupled`");
    torch("torch.optim.Adam", json!({"betas": [0.9]}), "`betas`");
    torch("torch.optim.RAdam", json!({"momentum_decay": 0.1}), "`momentum_decay`");
    torch("torch.optim.NAdam", json!({"amsgrad": true}), "`amsgrad`");
    torch("torch.optim.Adam", json!({"init_scale": 8}), "`init_scale`");
    wrong("keras 3.15.1", "keras.optimizers.SGD", json!({"weight_decay": 0.1}), "`weight_decay`");
    wrong("keras 3.15.1", "keras.optimizers.SGD", json!({"clipnorm": 1, "clipvalue": 1}), "`clipvalue`");
    wrong("keras 3.15.1", "keras.optimizers.Ftrl", json!({}), "`Ftrl`");
    let agc = "optax.chain(optax.adaptive_grad_clip, optax.adam)";
    wrong("optax 0.2.8", agc, json!({"clipping": 1, "learning_rate": 1, "eps": 1}), "`eps`");
    wrong("optax 0.2.8", "optax.sgd", json!({}), "`learning_rate`");
    wrong("mxnet 1", "mxnet.sgd", json!({}), "`mxnet 1`");
}
