//! The gradient sets that `bench` knows: the tensors of well-known models.

pub mod scope;

/// Name, and the shape of each tensor: outputs first, but for `gpt2`, whose own code has them last.
#[derive(Debug)]
pub struct Preset {
    /// What it is called.
    pub name: &'static str,
    shapes: fn() -> Shapes,
}

type Shapes = Vec<Vec<u64>>;

/// All of them.
pub const PRESETS: [Preset; 11] = [
    Preset { name: "gpt2", shapes: || gpt2(12, 768) },
    Preset { name: "gpt2-medium", shapes: || gpt2(24, 1024) },
    Preset { name: "gpt2-xl", shapes: || gpt2(48, 1600) },
    Preset { name: "bert-base", shapes: bert_base },
    Preset { name: "resnet50", shapes: resnet50 },
    Preset { name: "vit-b16", shapes: vit_b16 },
    Preset { name: "llama-7b", shapes: llama_7b },
    Preset { name: "lstm", shapes: lstm },
    Preset { name: "splats", shapes: || [3, 3, 45, 3, 4, 1].map(|n| vec![1_000_000, n]).to_vec() },
    Preset { name: "tiny", shapes: || vec![vec![768]; 1000] },
    Preset { name: "single", shapes: || vec![vec![5000, 5000]] },
];

/// What is measured unless something else is asked for: large enough to show, quick everywhere.
pub const DEFAULT: &str = "resnet50";

/// The shapes of a preset's tensors.
pub fn shapes(name: &str) -> Option<Shapes> {
    PRESETS.iter().find(|preset| preset.name == name).map(|preset| (preset.shapes)())
}

/// `first`, then `layers` times `layer`, then `last`.
fn stacked(first: &[&[u64]], layers: usize, layer: &[&[u64]], last: &[&[u64]]) -> Shapes {
    [first, &layer.repeat(layers), last].concat().into_iter().map(<[u64]>::to_vec).collect()
}

fn gpt2(layers: usize, d: u64) -> Shapes {
    let one: &[u64] = &[d];
    let attention: [&[u64]; 6] = [one, one, &[d, 3 * d], &[3 * d], &[d, d], one];
    let mlp: [&[u64]; 6] = [one, one, &[d, 4 * d], &[4 * d], &[4 * d, d], one];
    stacked(&[&[50_257, d], &[1024, d]], layers, &[attention, mlp].concat(), &[one, one])
}

fn bert_base() -> Shapes {
    let d: u64 = 768;
    let (one, square): (&[u64], &[u64]) = (&[d], &[d, d]);
    let attention = [square, one].repeat(4);
    let rest: [&[u64]; 8] = [one, one, &[4 * d, d], &[4 * d], &[d, 4 * d], one, one, one];
    let first: [&[u64]; 5] = [&[30_522, d], &[512, d], &[2, d], one, one];
    stacked(&first, 12, &[&attention[..], &rest].concat(), &[square, one])
}

/// Bottlenecks of three convolutions with batch norms, the first of a stage with a projection.
fn resnet50() -> Shapes {
    let mut shapes = Vec::new();
    let mut convolution = |outputs: u64, inputs: u64, kernel: u64| {
        shapes.extend([vec![outputs, inputs, kernel, kernel], vec![outputs], vec![outputs]]);
    };
    convolution(64, 3, 7);
    let mut inputs = 64;
    for (blocks, width) in [(3, 64), (4, 128), (6, 256), (3, 512)] {
        let outputs = 4 * width;
        for block in 0..blocks {
            convolution(width, inputs, 1);
            convolution(width, width, 3);
            convolution(outputs, width, 1);
            if block == 0 {
                convolution(outputs, inputs, 1);
            }
            inputs = outputs;
        }
    }
    shapes.extend([vec![1000, 2048], vec![1000]]);
    shapes
}

fn vit_b16() -> Shapes {
    let d: u64 = 768;
    let one: &[u64] = &[d];
    let attention: [&[u64]; 6] = [one, one, &[3 * d, d], &[3 * d], &[d, d], one];
    let mlp: [&[u64]; 6] = [one, one, &[4 * d, d], &[4 * d], &[d, 4 * d], one];
    let first: [&[u64]; 4] = [one, &[197, d], &[d, 3, 16, 16], one];
    stacked(&first, 12, &[attention, mlp].concat(), &[one, one, &[1000, d], &[1000]])
}

fn llama_7b() -> Shapes {
    let d: u64 = 4096;
    let (one, square): (&[u64], &[u64]) = (&[d], &[d, d]);
    let (up, down): (&[u64], &[u64]) = (&[11_008, d], &[d, 11_008]);
    let layer = [square, square, square, square, up, up, down, one, one];
    stacked(&[&[32_000, d]], 32, &layer, &[one, &[32_000, d]])
}

fn lstm() -> Shapes {
    let (vocabulary, h): (u64, u64) = (10_000, 1500);
    let (gates, biases): (&[u64], &[u64]) = (&[4 * h, h], &[4 * h]);
    let words: &[u64] = &[vocabulary, h];
    stacked(&[words], 2, &[gates, gates, biases, biases], &[words, &[vocabulary]])
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
            let shapes = shapes(name).unwrap_or_default();
            let size: u64 = shapes.iter().map(|shape| shape.iter().product::<u64>()).sum();
            assert_eq!((shapes.len(), size), (tensors, elements), "{name}");
        }
        assert!(shapes(DEFAULT).is_some());
    }
}
