//! Checkpoints as safetensors files.

use std::collections::{BTreeMap, HashMap};

use safetensors::tensor::{Dtype, TensorView};
use safetensors::{SafeTensors, serialize};

use crate::error::CheckpointError;
use crate::history::History;
use crate::tensor::DType;

use super::saved::{Checkpoint, HISTORY, Saved};

const VERSION: &str = "gradclip.version";
const ACCUMULATED: &str = "gradclip.accumulated";
/// The version that is written, and the only one that is read.
const THIS: &str = "1";

impl Checkpoint {
    /// As a safetensors file.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::File`] where the format cannot hold it.
    pub fn to_bytes(&self) -> Result<Vec<u8>, CheckpointError> {
        let history = self.history.as_ref().map(History::to_bytes);
        let mut views = Vec::with_capacity(self.tensors.len() + 1);
        for (name, Saved { dtype, shape, bytes }) in &self.tensors {
            views.push((
                name.as_str(),
                TensorView::new(named(*dtype), shape.clone(), bytes).map_err(CheckpointError::file)?,
            ));
        }
        if let Some(history) = &history {
            views.push((
                HISTORY,
                TensorView::new(Dtype::U8, vec![history.len()], history).map_err(CheckpointError::file)?,
            ));
        }
        let header = [(VERSION, THIS.to_owned()), (ACCUMULATED, self.accumulated.to_string())];
        let header: HashMap<String, String> = header.map(|(key, value)| (key.to_owned(), value)).into();
        serialize(views, Some(header)).map_err(CheckpointError::file)
    }

    /// From a safetensors file.
    ///
    /// # Errors
    ///
    /// Bytes that are no such file or some of one, another version, a history that no run leaves.
    pub fn from_bytes(bytes: &[u8]) -> Result<Checkpoint, CheckpointError> {
        let header = SafeTensors::read_metadata(bytes).map_err(CheckpointError::file)?.1;
        let header = header.metadata().clone().unwrap_or_default();
        // Files of other programs have none.
        if let Some(given) = header.get(VERSION).filter(|version| *version != THIS) {
            let (what, required) = ("version", THIS.into());
            return Err(CheckpointError::Header { what, required, given: given.clone() });
        }
        let accumulated = match header.get(ACCUMULATED) {
            None => 0,
            Some(given) => given.parse().map_err(|_| CheckpointError::Header {
                what: "micro-batches since the last step",
                required: "as a number".into(),
                given: given.clone(),
            })?,
        };
        let (mut tensors, mut history) = (BTreeMap::new(), None);
        for (name, view) in SafeTensors::deserialize(bytes).map_err(CheckpointError::file)?.iter() {
            if name == HISTORY {
                history = Some(History::from_bytes(view.data())?);
                continue;
            }
            let Some(dtype) = known(view.dtype()) else {
                let (required, given) = ("F32, F16 or BF16".into(), view.dtype().to_string());
                return Err(CheckpointError::Tensor { name: name.into(), required, given });
            };
            let (shape, bytes) = (view.shape().to_vec(), view.data().to_vec());
            tensors.insert(name.to_owned(), Saved { dtype, shape, bytes });
        }
        Ok(Checkpoint { tensors, history, accumulated })
    }
}

fn named(dtype: DType) -> Dtype {
    match dtype {
        DType::F32 => Dtype::F32,
        DType::F16 => Dtype::F16,
        DType::Bf16 => Dtype::BF16,
        DType::F64 => Dtype::F64,
    }
}

fn known(dtype: Dtype) -> Option<DType> {
    match dtype {
        Dtype::F32 => Some(DType::F32),
        Dtype::F16 => Some(DType::F16),
        Dtype::BF16 => Some(DType::Bf16),
        _ => None,
    }
}
