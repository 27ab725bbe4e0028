//! The gradient sets that `bench` knows: the tensor sizes of well-known models.

/// Name, and the number of elements of each tensor.
pub(crate) struct Preset {
    pub(crate) name: &'static str,
    pub(crate) sizes: fn() -> Vec<u64>,
}

pub(crate) const PRESETS: [Preset; 11] = [
    Preset { name: "gpt2", sizes: || gpt2(12, 768) },
    Preset { name: "gpt2-medium", sizes: || gpt2(24, 1024) },
    Preset { name: "gpt2-xl", sizes: || gpt2(48, 1600) },
    Preset { name: "bert-base", sizes: bert_base },
    Preset { name: "resnet50", sizes: resnet50 },
    Preset { name: "vit-b16", sizes: vit_b16 },
    Preset { name: "llama-7b", sizes: llama_7b },
    Preset { name: "lstm", sizes: lstm },
    Preset { name: "splats", sizes: || [3, 3, 45, 3, 4, 1].map(|n| n * 1_000_000).to_vec() },
    Preset { name: "tiny", sizes: || vec![768; 1000] },
    Preset { name: "single", sizes: || vec![25_000_000] },
];

/// What is measured unless something else is asked for: large enough to show, quick everywhere.
pub(crate) const DEFAULT: &str = "resnet50";

pub(crate) fn preset(name: &str) -> Option<Vec<u64>> {
    PRESETS.iter().find(|preset| preset.name == name).map(|preset| (preset.sizes)())
}

/// `first`, then `layers` times `layer`, then `last`.
fn stacked(first: &[u64], layers: usize, layer: &[u64], last: &[u64]) -> Vec<u64> {
    [first, &layer.repeat(layers), last].concat()
}

fn gpt2(layers: usize, d: u64) -> Vec<u64> {
    let layer = [d, d, 3 * d * d, 3 * d, d * d, d, d, d, 4 * d * d, 4 * d, 4 * d * d, d];
    stacked(&[50_257 * d, 1024 * d], layers, &layer, &[d, d])
}

fn bert_base() -> Vec<u64> {
    let d = 768;
    let attention = [d * d, d].repeat(4);
    let rest = [d, d, 4 * d * d, 4 * d, 4 * d * d, d, d, d];
    stacked(&[30_522 * d, 512 * d, 2 * d, d, d], 12, &[&attention[..], &rest].concat(), &[d * d, d])
}

/// Bottlenecks of three convolutions with batch norms, the first of a stage with a projection.
fn resnet50() -> Vec<u64> {
    let mut sizes = vec![3 * 64 * 49, 64, 64];
    let mut inputs = 64;
    for (blocks, width) in [(3, 64), (4, 128), (6, 256), (3, 512)] {
        let outputs = 4 * width;
        for block in 0..blocks {
            for (convolution, norm) in
                [(inputs * width, width), (9 * width * width, width), (width * outputs, outputs)]
            {
                sizes.extend([convolution, norm, norm]);
            }
            if block == 0 {
                sizes.extend([inputs * outputs, outputs, outputs]);
            }
            inputs = outputs;
        }
    }
    sizes.extend([2048 * 1000, 1000]);
    sizes
}

fn vit_b16() -> Vec<u64> {
    let d = 768;
    let layer = [d, d, 3 * d * d, 3 * d, d * d, d, d, d, 4 * d * d, 4 * d, 4 * d * d, d];
    stacked(&[d, 197 * d, 3 * 16 * 16 * d, d], 12, &layer, &[d, d, 1000 * d, 1000])
}

fn llama_7b() -> Vec<u64> {
    let d = 4096;
    let layer = [d * d, d * d, d * d, d * d, 11_008 * d, 11_008 * d, 11_008 * d, d, d];
    stacked(&[32_000 * d], 32, &layer, &[d, 32_000 * d])
}

fn lstm() -> Vec<u64> {
    let (vocabulary, h) = (10_000, 1500);
    stacked(&[vocabulary * h], 2, &[4 * h * h, 4 * h * h, 4 * h, 4 * h], &[vocabulary * h, vocabulary])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn presets_have_the_sizes_of_their_models() {
        let models = [
            ("gpt2", 148, 124_439_808),
            ("gpt2-medium", 292, 354_823_168),
            ("gpt2-xl", 580, 1_557_611_200),
            ("bert-base", 199, 109_482_240),
            ("resnet50", 161, 25_557_032),
            ("vit-b16", 152, 86_567_656),
            ("llama-7b", 291, 6_738_415_616),
            ("lstm", 11, 66_034_000),
            ("splats", 6, 59_000_000),
            ("tiny", 1000, 768_000),
            ("single", 1, 25_000_000),
        ];
        assert_eq!(models.len(), PRESETS.len());
        for (name, tensors, elements) in models {
            let sizes = preset(name).unwrap_or_default();
            assert_eq!((sizes.len(), sizes.iter().sum::<u64>()), (tensors, elements), "{name}");
        }
        assert!(preset(DEFAULT).is_some());
    }
}
