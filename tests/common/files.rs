//! Cases that other libraries computed: tensors in files, and numbers in `case.json`.
#![allow(dead_code, unreachable_pub)]

use std::path::{Path, PathBuf};

use safetensors::{Dtype, SafeTensors};
use serde_json::Value;

use gradclip_verify::tensor::{Data, Element, Tensor};

/// Where cases are.
pub fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
}

/// The indices in a file by their names, or what is wrong with it.
pub fn indices(path: &Path) -> Result<Vec<(String, Vec<u32>)>, String> {
    let of_file = |e: String| format!("{}: {e}", path.display());
    let bytes = std::fs::read(path).map_err(|e| of_file(e.to_string()))?;
    let parsed = SafeTensors::deserialize(&bytes).map_err(|e| of_file(e.to_string()))?;
    let named = parsed.tensors().into_iter().filter(|(_, view)| view.dtype() == Dtype::I64);
    let word = |index: i64| u32::try_from(index).map_err(|e| of_file(e.to_string()));
    let of = |(name, view): (String, safetensors::tensor::TensorView<'_>)| {
        let all: Vec<i64> = bytemuck::pod_collect_to_vec(view.data());
        Ok((name, all.into_iter().map(word).collect::<Result<_, _>>()?))
    };
    named.map(of).collect()
}

/// The tensors of a file with their shapes, by their names and without [`indices`], or what is wrong with it.
pub fn tensors(path: &Path) -> Result<Vec<Tensor>, String> {
    let of_file = |e: String| format!("{}: {e}", path.display());
    let bytes = std::fs::read(path).map_err(|e| of_file(e.to_string()))?;
    let parsed = SafeTensors::deserialize(&bytes).map_err(|e| of_file(e.to_string()))?;
    let tensor = |(name, view): (String, safetensors::tensor::TensorView<'_>)| {
        let element = match view.dtype() {
            Dtype::F64 => Element::F64,
            Dtype::F32 => Element::F32,
            Dtype::F16 => Element::F16,
            Dtype::BF16 => Element::Bf16,
            other => return Err(of_file(format!("`{name}`: element type {other:?}"))),
        };
        let shape: Vec<u64> = view.shape().iter().map(|&n| n as u64).collect();
        Ok(Tensor::new(name, Data::from_bytes(element, view.data())).shape(&shape))
    };
    let floats = parsed.tensors().into_iter().filter(|(_, view)| view.dtype() != Dtype::I64);
    let mut tensors: Vec<Tensor> = floats.map(tensor).collect::<Result<_, _>>()?;
    tensors.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(tensors)
}

/// The JSON of a file, or what is wrong with it.
pub fn json(path: &Path) -> Result<Value, String> {
    let of_file = |e: String| format!("{}: {e}", path.display());
    let bytes = std::fs::read(path).map_err(|e| of_file(e.to_string()))?;
    serde_json::from_slice(&bytes).map_err(|e| of_file(e.to_string()))
}

/// A number, or one of the strings `inf`, `-inf` and `nan`.
pub fn number(value: &Value) -> Option<f64> {
    value.as_f64().or_else(|| value.as_str()?.parse().ok())
}
