//! Devices on ranks beside the CPU path of one rank.

use gradclip::{Clipper, Grad, wgpu};
use gradclip_mpi::Ranks;

use crate::set::{Placing, Single, TENSORS, bits, broken, clips, gradients, held, order, own, pieces, told};

pub fn devices_have_the_bits_of_one_rank(ranks: &Ranks) {
    let Some((device, queue)) = device() else {
        assert!(std::env::var("GRADCLIP_REQUIRE_GPU").is_err(), "no adapter");
        return;
    };
    let clipper = Clipper::new(&device).unwrap();
    for (placing, clip) in
        [Placing::Cut, Placing::Whole, Placing::Mixed(1)].into_iter().zip(clips().into_iter().step_by(3))
    {
        let held = held(placing, ranks.rank(), ranks.size());
        let order = order(&held, ranks.rank());
        let agreed = ranks.agree(&clip, &pieces(&held, &order)).unwrap();
        let mut single = Single::new(&clip);
        let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_DST | wgpu::BufferUsages::COPY_SRC;
        let buffer = |size: usize, usage| {
            let size = (4 * size as u64).max(16);
            device.create_buffer(&wgpu::BufferDescriptor {
                label: None,
                size,
                usage,
                mapped_at_creation: false,
            })
        };
        let mine = own(&gradients(0), &held, &order);
        let buffers: Vec<wgpu::Buffer> = mine.iter().map(|g| buffer(g.len(), usage)).collect();
        let grads: Vec<Grad> = order
            .iter()
            .zip(&mine)
            .zip(&buffers)
            .map(|((&i, g), buffer)| Grad::range(TENSORS[i].0, buffer, 0, g.len() as u64))
            .collect();
        let mut over = agreed.prepare_on(&clipper, (&device, &queue), &grads).unwrap();
        for step in 0..4 {
            let mut all = gradients(300 + step);
            broken(step, &mut all);
            let mine = own(&all, &held, &order);
            for (g, to) in mine.iter().zip(&buffers).filter(|(g, _)| !g.is_empty()) {
                queue.write_buffer(to, 0, bytemuck::cast_slice(g));
            }
            let mut encoder = device.create_command_encoder(&Default::default());
            over.record_norm(&mut encoder).unwrap();
            queue.submit([encoder.finish()]);
            over.wait().unwrap();
            let mut encoder = device.create_command_encoder(&Default::default());
            over.record_apply(&mut encoder).unwrap();
            let report = over.pass().read_back(&mut encoder).unwrap();
            queue.submit([encoder.finish()]);
            let report = report.wait().unwrap();
            let want = single.clip(&mut all);
            assert_eq!(told(&report), told(&want), "{placing:?} {clip:?} step {step}");
            for (want, from) in own(&all, &held, &order).iter().zip(&buffers) {
                let to = buffer(want.len(), wgpu::BufferUsages::COPY_DST | wgpu::BufferUsages::MAP_READ);
                let mut encoder = device.create_command_encoder(&Default::default());
                encoder.copy_buffer_to_buffer(from, 0, &to, 0, to.size());
                queue.submit([encoder.finish()]);
                to.map_async(wgpu::MapMode::Read, .., |_| {});
                device.poll(wgpu::PollType::wait_indefinitely()).unwrap();
                let view = to.get_mapped_range(..).unwrap();
                let got: Vec<f32> = bytemuck::pod_collect_to_vec(&view[..4 * want.len()]);
                assert_eq!(
                    bits(&[got]),
                    bits(std::slice::from_ref(want)),
                    "{placing:?} {clip:?} step {step}"
                );
            }
        }
    }
}

fn device() -> Option<(wgpu::Device, wgpu::Queue)> {
    let instance = wgpu::Instance::default();
    let adapter =
        pollster::block_on(instance.request_adapter(&wgpu::RequestAdapterOptions::default())).ok()?;
    let required_limits = Clipper::recommended_limits(&adapter);
    let descriptor = wgpu::DeviceDescriptor { required_limits, ..Default::default() };
    pollster::block_on(adapter.request_device(&descriptor)).ok()
}
