//! Every form of our kernels that options can ask for.

use gradclip::{Clip, Clipper, ClipperOptions, DType, Grad, Pass, wgpu};

use super::device::{Device, Result};

/// A form, compiled for each type once.
pub(crate) struct Form {
    pub(crate) name: String,
    clipper: Clipper,
    /// Whether gradients begin beside a boundary of 16 bytes, and are read word by word for that.
    beside: bool,
    /// Whether its apply kernel is one that no form before it has.
    pub(crate) applies: bool,
}

impl Form {
    /// The clipping of a whole buffer by half.
    pub(crate) fn prepare(&self, values: &wgpu::Buffer, dtype: DType, threshold: f32) -> Result<Pass> {
        let (skipped, elements) = (if self.beside { 4 } else { 0 }, values.size() / dtype.size());
        let elements = elements - skipped / dtype.size();
        let grad = Grad::range("all", values, skipped, elements).dtype(dtype);
        self.clipper.prepare(&[grad], &Clip::global_norm(threshold)).map_err(|e| e.to_string())
    }

    /// Whether its norm has to have the bits of others'.
    pub(crate) fn comparable(&self) -> bool {
        !self.beside
    }
}

/// All of them, software's first, then in order of how likely a device is to run them.
pub(crate) fn forms(device: &Device, resident: &[u32]) -> Result<Vec<Form>> {
    let none = ClipperOptions::default();
    let vectors = none.vector_loads(true);
    let mut asked = vec![
        ("few loads at a time".to_owned(), none.vector_loads(false), false, true),
        ("vectors, 24-bit products".to_owned(), vectors.full_multiply(false), false, true),
        ("vectors, 32-bit products".to_owned(), vectors.full_multiply(true), false, false),
    ];
    // How these multiply is the device's choice.
    let staying =
        |&n: &u32| (format!("vectors, {n} workgroups stay"), vectors.resident_workgroups(n), false, false);
    asked.extend(resident.iter().map(staying));
    asked.push(("words, beside a boundary".to_owned(), vectors, true, false));
    let form = |(name, options, beside, applies): (String, ClipperOptions, bool, bool)| {
        let clipper =
            Clipper::with_options(&device.gpu.device, options).map_err(|e| format!("{name}: {e}"))?;
        Ok(Form { name, clipper, beside, applies })
    };
    asked.into_iter().map(form).collect()
}
