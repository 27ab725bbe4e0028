//! Sparse gradients on a device.

use gradclip::wgpu;
use gradclip::{Clipper, Coalescer, PrepareError, SparseGrad};

use crate::failure::Failure;
use crate::gpu::Gpu;
use crate::inputs::Entries;

/// Entries on a device, with what adds them.
#[derive(Debug)]
pub struct PlacedEntries {
    /// What adds them.
    pub coalescer: Coalescer,
    /// Indices and values.
    pub buffers: [wgpu::Buffer; 2],
}

impl PlacedEntries {
    /// Indices after one word, beside the number of entries where there is one; values after eight bytes.
    ///
    /// # Errors
    ///
    /// What the library refuses.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn upload(gpu: &Gpu, clipper: &Clipper, entries: &Entries) -> Result<PlacedEntries, PrepareError> {
        pollster::block_on(PlacedEntries::upload_async(gpu, clipper, entries))
    }

    /// As `PlacedEntries::upload`, for a page.
    ///
    /// # Errors
    ///
    /// What the library refuses.
    pub async fn upload_async(
        gpu: &Gpu,
        clipper: &Clipper,
        entries: &Entries,
    ) -> Result<PlacedEntries, PrepareError> {
        let words: Vec<u32> =
            std::iter::once(entries.count.unwrap_or(7)).chain(entries.indices.iter().copied()).collect();
        let indices = gpu.upload(bytemuck::cast_slice(&words));
        let values = gpu.upload(&[&[0xff; 8], entries.values.bytes()].concat());
        let table = entries.table.map(|n| n as u64);
        let sparse = SparseGrad::new("table", &indices, &values, entries.indices.len() as u64, table)
            .offsets(4, 8)
            .dtype(entries.values.dtype());
        let sparse = if entries.count.is_some() { sparse.count(&indices, 0) } else { sparse };
        let coalescer = clipper.prepare_coalescing_async(&sparse).await?;
        Ok(PlacedEntries { coalescer, buffers: [indices, values] })
    }

    /// Adds them: the list of rows, and the sums.
    ///
    /// # Errors
    ///
    /// Where the device fails.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn added(&self, gpu: &Gpu) -> Result<(Vec<u32>, Vec<f32>), Failure> {
        pollster::block_on(self.added_async(gpu))
    }

    /// As `PlacedEntries::added`, for a page.
    ///
    /// # Errors
    ///
    /// Where the device fails.
    pub async fn added_async(&self, gpu: &Gpu) -> Result<(Vec<u32>, Vec<f32>), Failure> {
        let grad = self.coalescer.grad();
        let staged = gpu.submit(|encoder| {
            self.coalescer.record(encoder);
            gpu.stage(encoder, [self.coalescer.rows(), grad.buffer()])
        });
        let got = gpu.collect_async(&staged).await?;
        let sums: Vec<f32> = bytemuck::pod_collect_to_vec(&got[1]);
        Ok((bytemuck::pod_collect_to_vec(&got[0]), sums[..grad.elements() as usize].to_vec()))
    }
}

/// What `PlacedEntries::added` should be by the CPU path, and how much of the list of rows counts.
///
/// # Errors
///
/// What the library refuses.
pub fn expected(entries: &Entries) -> Result<(Vec<u32>, Vec<f32>), Failure> {
    let (valid, left_out) = entries.valid();
    let coalesced = valid.coalesced()?;
    let [rows, width] = entries.table;
    let mut sums = coalesced.values;
    let added = entries.indices.len().min(rows + 1);
    sums.resize(added * width, 0.0);
    if left_out > 0 && added * width > 0 {
        sums[(added - 1) * width] = f32::NAN;
    }
    let list = [coalesced.rows.len() as u32, left_out].into_iter().chain(coalesced.rows).collect();
    Ok((list, sums))
}
