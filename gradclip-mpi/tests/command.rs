//! The command under mpirun, beside one rank: checkpoints of several files.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Output};

use gradclip::Clip;
use gradclip::cpu::{self, GradMut};
use half::f16;
use safetensors::tensor::{Dtype, TensorView};

fn mpirun(ranks: usize, arguments: &[&str]) -> Output {
    let program = env!("CARGO_BIN_EXE_gradclip-mpi");
    let ranks = ranks.to_string();
    let mut command = Command::new("mpirun");
    command.args(["--oversubscribe", "-n", &ranks, program, "clip"]).args(arguments);
    command.env("OMPI_ALLOW_RUN_AS_ROOT", "1").env("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1");
    command.output().unwrap()
}

fn values(seed: usize, len: usize) -> Vec<f32> {
    (0..len).map(|i| ((i * 2_654_435_761 + seed * 97) % 2_003) as f32 / 1000.0 - 1.0).collect()
}

/// Of a type and a number that fill no whole word.
fn halves() -> Vec<f16> {
    values(9, 3).into_iter().map(f16::from_f32).collect()
}

/// Six tensors in three files, one of them of integers, and one of [`halves`], which is not returned.
fn checkpoint(folder: &Path, broken: bool) -> Vec<Vec<f32>> {
    let mut all: Vec<Vec<f32>> =
        [40_000, 5, 17_000, 1].iter().enumerate().map(|(i, &n)| values(i, n)).collect();
    if broken {
        all[2][16_999] = f32::NAN;
    }
    let mut map = BTreeMap::new();
    for (number, own) in [vec![0, 1], vec![2], vec![3]].into_iter().enumerate() {
        let file = format!("model-{number}.safetensors");
        let name = |i: &usize| format!("t{i}");
        let mut views: Vec<(String, TensorView<'_>)> = own
            .iter()
            .map(|i| {
                (
                    name(i),
                    TensorView::new(Dtype::F32, vec![all[*i].len()], bytemuck::cast_slice(&all[*i])).unwrap(),
                )
            })
            .collect();
        let steps = 7i64.to_le_bytes();
        let halves = halves();
        if number == 1 {
            let bytes = bytemuck::cast_slice(&halves);
            views.push(("h".into(), TensorView::new(Dtype::F16, vec![3], bytes).unwrap()));
            views.push(("steps".into(), TensorView::new(Dtype::I64, vec![1], &steps).unwrap()));
        }
        views.iter().for_each(|(name, _)| drop(map.insert(name.clone(), file.clone())));
        std::fs::write(folder.join(&file), safetensors::serialize(views, None).unwrap()).unwrap();
    }
    let index = serde_json::json!({ "metadata": {}, "weight_map": map });
    std::fs::write(folder.join("model.safetensors.index.json"), index.to_string()).unwrap();
    all
}

fn written(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries
        .map(|path| (path.file_name().unwrap().to_string_lossy().into(), std::fs::read(&path).unwrap()))
        .collect()
}

/// On the CPU path and on an adapter.
#[test]
fn any_number_of_ranks_writes_what_one_does() {
    let adapters = !gradclip::adapters().is_empty();
    assert!(adapters || std::env::var("GRADCLIP_REQUIRE_GPU").is_err(), "no adapter");
    let folder = tempfile::tempdir().unwrap();
    let mut all = checkpoint(folder.path(), false);
    let names = ["t0", "t1", "t2", "t3"];
    let mut grads: Vec<GradMut<'_>> =
        names.iter().zip(&mut all).map(|(name, g)| GradMut::new(*name, g)).collect();
    let mut half = halves();
    grads.insert(2, GradMut::f16("h", &mut half[..]));
    let want = cpu::clip(&mut grads, &Clip::global_norm(1.0)).unwrap();
    let index = folder.path().join("model.safetensors.index.json");
    let mut first = None;
    let on_adapter = [("gpu", 1), ("gpu", 3)].into_iter().filter(|_| adapters);
    for (device, ranks) in [("cpu", 1), ("cpu", 2), ("auto", 5)].into_iter().chain(on_adapter) {
        let out = folder.path().join(format!("{device}{ranks}"));
        let to = out.to_str().unwrap();
        let arguments = [index.to_str().unwrap(), "--max-norm", "1", "--out", to, "--device", device];
        let done = mpirun(ranks, &arguments);
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        let report: serde_json::Value = serde_json::from_slice(&done.stdout).unwrap();
        assert_eq!(report["segments"][0]["norm"].as_f64(), want.norm());
        assert_eq!(report["tensors"].as_array().unwrap().len(), 5);
        let files = written(&out);
        assert_eq!(files.len(), 4);
        for (i, name) in names.iter().enumerate() {
            let file = &files[&format!("model-{}.safetensors", [0, 0, 1, 2][i])];
            let parsed = safetensors::SafeTensors::deserialize(file).unwrap();
            assert_eq!(parsed.tensor(name).unwrap().data(), bytemuck::cast_slice::<f32, u8>(&all[i]));
        }
        let steps = safetensors::SafeTensors::deserialize(&files["model-1.safetensors"]).unwrap();
        assert_eq!(steps.tensor("h").unwrap().data(), bytemuck::cast_slice::<f16, u8>(&half));
        assert_eq!(steps.tensor("steps").unwrap().data(), 7i64.to_le_bytes());
        assert_eq!(*first.get_or_insert_with(|| files.clone()), files, "{ranks} ranks, {device}");
    }
}

/// A NaN in a file of one rank leaves the files of all as they are; a file that one rank cannot read ends all with nothing written.
#[test]
fn faults_of_one_rank_are_those_of_all() {
    let folder = tempfile::tempdir().unwrap();
    checkpoint(folder.path(), true);
    let index = folder.path().join("model.safetensors.index.json");
    let out = folder.path().join("out");
    let arguments = [index.to_str().unwrap(), "--max-norm", "1", "--out", out.to_str().unwrap()];
    let done = mpirun(3, &arguments);
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let report: serde_json::Value = serde_json::from_slice(&done.stdout).unwrap();
    assert_eq!(report["segments"][0]["skipped"], true);
    for (name, bytes) in written(&out) {
        assert_eq!(std::fs::read(folder.path().join(&name)).unwrap(), bytes, "{name}");
    }
    std::fs::remove_dir_all(&out).unwrap();
    std::fs::write(folder.path().join("model-2.safetensors"), [1, 2, 3]).unwrap();
    let done = mpirun(3, &arguments);
    let words = String::from_utf8_lossy(&done.stderr);
    assert!(!done.status.success() && words.contains("model-2.safetensors"), "{words}");
    assert!(!out.exists());
    // An adapter that no machine has.
    checkpoint(folder.path(), false);
    let done = mpirun(2, &[&arguments[..], &["--device", "no such adapter"]].concat());
    let words = String::from_utf8_lossy(&done.stderr);
    assert!(!done.status.success() && words.contains("`no such adapter`"), "{words}");
    assert!(!out.exists());
}
