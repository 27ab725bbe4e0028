//! Optimisers that PyTorch began, gone on with from `examples/torch_state.py`'s files.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::gpu;
use gradclip::cpu::{self, StepMut};
use gradclip::{Adam, Checkpoint, Clip, DType, Grad, NAdam, Optimizer, Sgd};

/// Five steps by PyTorch, the next three here, beside PyTorch's own (`tests/data/make_torch_state.py`).
#[test]
fn what_pytorch_began_is_gone_on_with() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/torch_state");
    let adam: Optimizer = Adam::adamw(0.01).weight_decay(0.1).into();
    let sgd: Optimizer = Sgd::new(0.05).momentum(0.9).dampening(0.1).weight_decay(0.01).into();
    let gpu = gpu();
    let nadam: Optimizer = NAdam::new(0.01).weight_decay(0.1).into();
    for (name, optimizer) in [("adamw", adam), ("nadam", nadam), ("sgd", sgd)] {
        let file = |of: &str| std::fs::read(folder.join(name).join(of)).unwrap();
        let run = Checkpoint::from_bytes(&file("run.safetensors")).unwrap();
        let further = file("further.safetensors");
        let further = safetensors::SafeTensors::deserialize(&further).unwrap();
        let names = ["0.weight", "0.bias", "2.weight", "2.bias"];
        let shapes: [&[u64]; 4] = [&[5, 7], &[5], &[3, 5], &[3]];
        let floats =
            |key: String| -> Vec<f32> { bytemuck::pod_collect_to_vec(further.tensor(&key).unwrap().data()) };
        let of = |k: usize, what: &str| names.map(|n| floats(format!("s{k}.{what}.{n}")));
        let clip = Clip::pytorch(2.0);
        // Eight roundings of f32 a step on either side, at parameters below 1; the learning rate takes the rest below that.
        let near = |got: &[f32], want: &[f32], who: &str| {
            assert_eq!(got.len(), want.len());
            for (got, want) in got.iter().zip(want) {
                assert!((got - want).abs() <= 8.0 * f32::EPSILON, "{name} on {who}: {got}, not {want}");
            }
        };

        let like = of(1, "g");
        let mut p: Vec<Vec<f32>> = like.iter().map(|g| vec![0.0; g.len()]).collect();
        let each = names.iter().zip(&shapes).zip(like.iter().zip(&mut p));
        let steps: Vec<StepMut<'_>> =
            each.map(|((name, shape), (g, p))| StepMut::new(*name, &g[..], p).shape(shape)).collect();
        let mut here = cpu::prepare_training(&steps, &clip, optimizer, 1).unwrap();
        drop(steps);
        here.load(&run, &mut p).unwrap();
        for k in 1..=3 {
            let g = of(k, "g");
            here.record(g.iter().map(|g| &g[..]).zip(&mut p)).unwrap();
            p.iter().zip(&of(k, "p")).for_each(|(got, want)| near(got, want, "the CPU path"));
        }

        let Some(gpu) = &gpu else { continue };
        let gradients = like.each_ref().map(|g| gpu.upload(bytemuck::cast_slice(g)));
        let parameters = like.each_ref().map(|g| gpu.upload(&vec![0; 4 * g.len()]));
        let grad = |t: usize| {
            let grad = Grad::new(names[t], &gradients[t]).shape(shapes[t]);
            grad.parameter(&parameters[t], 0, DType::F32)
        };
        let grads: Vec<Grad> = (0..4).map(grad).collect();
        let there = gpu.clipper.prepare_training(&grads, &clip, optimizer, 1).unwrap();
        there.load(&gpu.queue, &run).unwrap();
        for k in 1..=3 {
            for (buffer, g) in gradients.iter().zip(of(k, "g")) {
                gpu.queue.write_buffer(buffer, 0, bytemuck::cast_slice(&g));
            }
            gpu.submit(|encoder| there.record(encoder));
            for (buffer, want) in parameters.iter().zip(of(k, "p")) {
                near(&gpu.read::<f32>(buffer)[..want.len()], &want, &gpu.name);
            }
        }
    }
}
