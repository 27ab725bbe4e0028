//! Devices on ranks beside the CPU path of one rank.

use gradclip::cpu::{self, StepMut};
use gradclip::{Adam, Clip, Clipper, DType, Grad, LossScale, wgpu};
use gradclip_mpi::Ranks;

use crate::set::{
    Held, Placing, Single, TENSORS, bits, broken, clips, gradients, group, held, order, own, pieces, told,
};

/// A device of this rank's own.
struct Device {
    device: wgpu::Device,
    queue: wgpu::Queue,
    clipper: Clipper,
}

impl Device {
    /// None where there is no adapter.
    fn new() -> Option<Device> {
        let instance = wgpu::Instance::default();
        let options = wgpu::RequestAdapterOptions::default();
        let Ok(adapter) = pollster::block_on(instance.request_adapter(&options)) else {
            assert!(std::env::var("GRADCLIP_REQUIRE_GPU").is_err(), "no adapter");
            return None;
        };
        let required_limits = Clipper::recommended_limits(&adapter);
        let descriptor = wgpu::DeviceDescriptor { required_limits, ..Default::default() };
        let (device, queue) = pollster::block_on(adapter.request_device(&descriptor)).unwrap();
        let clipper = Clipper::new(&device).unwrap();
        Some(Device { device, queue, clipper })
    }

    fn buffer(&self, elements: usize, usage: wgpu::BufferUsages) -> wgpu::Buffer {
        let size = (4 * elements as u64).max(16);
        self.device.create_buffer(&wgpu::BufferDescriptor {
            label: None,
            size,
            usage,
            mapped_at_creation: false,
        })
    }

    /// One for each of these, with its elements.
    fn buffers(&self, all: &[Vec<f32>]) -> Vec<wgpu::Buffer> {
        let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_DST | wgpu::BufferUsages::COPY_SRC;
        let buffers = all.iter().map(|values| self.buffer(values.len(), usage)).collect::<Vec<_>>();
        self.write(&buffers, all);
        buffers
    }

    fn write(&self, buffers: &[wgpu::Buffer], all: &[Vec<f32>]) {
        for (to, values) in buffers.iter().zip(all).filter(|(_, values)| !values.is_empty()) {
            self.queue.write_buffer(to, 0, bytemuck::cast_slice(values));
        }
    }

    fn read(&self, from: &wgpu::Buffer, elements: usize) -> Vec<f32> {
        let to = self.buffer(elements, wgpu::BufferUsages::COPY_DST | wgpu::BufferUsages::MAP_READ);
        self.submit(|encoder| encoder.copy_buffer_to_buffer(from, 0, &to, 0, to.size()));
        to.map_async(wgpu::MapMode::Read, .., |_| {});
        self.device.poll(wgpu::PollType::wait_indefinitely()).unwrap();
        let view = to.get_mapped_range(..).unwrap();
        bytemuck::pod_collect_to_vec(&view[..4 * elements])
    }

    fn submit<T>(&self, record: impl FnOnce(&mut wgpu::CommandEncoder) -> T) -> T {
        let mut encoder = self.device.create_command_encoder(&Default::default());
        let recorded = record(&mut encoder);
        self.queue.submit([encoder.finish()]);
        recorded
    }

    /// That buffers hold what this rank holds of `all`.
    fn assert_holds(
        &self,
        buffers: &[wgpu::Buffer],
        all: &[Vec<f32>],
        (held, order): (&Held, &[usize]),
        what: &str,
    ) {
        for ((want, from), &i) in own(all, held, order).iter().zip(buffers).zip(order) {
            let got = self.read(from, want.len());
            assert_eq!(bits(&[got]), bits(std::slice::from_ref(want)), "{what}, {}", TENSORS[i].0);
        }
    }
}

fn grads(order: &[usize], mine: &[Vec<f32>], buffers: &[wgpu::Buffer]) -> Vec<Grad> {
    let each = order.iter().zip(mine).zip(buffers);
    each.map(|((&i, g), buffer)| Grad::range(TENSORS[i].0, buffer, 0, g.len() as u64)).collect()
}

pub fn devices_have_the_bits_of_one_rank(ranks: &Ranks) {
    let Some(on) = Device::new() else { return };
    let placings = [Placing::Cut, Placing::Whole, Placing::Mixed(1)];
    for (placing, clip) in placings.into_iter().zip(clips().into_iter().step_by(3)) {
        let held = held(placing, ranks.rank(), ranks.size());
        let order = order(&held, ranks.rank());
        let agreed = ranks.agree(&clip, &pieces(&held, &order)).unwrap();
        let mut single = Single::new(&clip);
        let mine = own(&gradients(0), &held, &order);
        let buffers = on.buffers(&mine);
        let grads = grads(&order, &mine, &buffers);
        let mut over = agreed.prepare_on(&on.clipper, (&on.device, &on.queue), &grads).unwrap();
        for step in 0..4 {
            let mut all = gradients(300 + step);
            broken(step, &mut all);
            on.write(&buffers, &own(&all, &held, &order));
            on.submit(|encoder| over.record_norm(encoder)).unwrap();
            over.wait().unwrap();
            let report = on.submit(|encoder| {
                over.record_apply(encoder).unwrap();
                over.pass().read_back(encoder).unwrap()
            });
            let report = report.wait().unwrap();
            let want = single.clip(&mut all);
            let what = format!("{placing:?} {clip:?} step {step}");
            assert_eq!(told(&report), told(&want), "{what}");
            on.assert_holds(&buffers, &all, (&held, &order), &what);
        }
    }
}

pub fn steps_on_devices_have_the_bits_of_one_rank(ranks: &Ranks) {
    let Some(on) = Device::new() else { return };
    let clip = Clip::per_group_norm(0.1).loss_scale(LossScale::default().interval(3));
    for placing in [Placing::Cut, Placing::Mixed(2)] {
        let held = held(placing, ranks.rank(), ranks.size());
        let order = order(&held, ranks.rank());
        let agreed = ranks.agree(&clip, &pieces(&held, &order)).unwrap();
        let (mut all, first) = (gradients(7), gradients(0));
        let mine = own(&first, &held, &order);
        let (gradient_buffers, parameters) = (on.buffers(&mine), on.buffers(&own(&all, &held, &order)));
        let with = |(grad, at): (Grad, &wgpu::Buffer)| grad.parameter(at, 0, DType::F32);
        let grads: Vec<Grad> =
            grads(&order, &mine, &gradient_buffers).into_iter().zip(&parameters).map(with).collect();
        let pair = (&on.device, &on.queue);
        let mut over = agreed.prepare_step_on(&on.clipper, pair, &grads, Adam::adamw(0.01)).unwrap();
        let mut single = {
            let each = first.iter().zip(&mut all).zip(TENSORS);
            let steps: Vec<StepMut<'_>> = each
                .map(|((g, p), (name, _, number))| {
                    let step = StepMut::new(name, &g[..], &mut p[..]);
                    if let Some(group) = group(number) { step.group(&group) } else { step }
                })
                .collect();
            cpu::prepare_step(&steps, &clip, Adam::adamw(0.01)).unwrap()
        };
        for step in 0..5 {
            let mut gradients = gradients(200 + step);
            broken(step, &mut gradients);
            on.write(&gradient_buffers, &own(&gradients, &held, &order));
            on.submit(|encoder| over.record_norm(encoder)).unwrap();
            over.wait().unwrap();
            let report = on.submit(|encoder| {
                over.record_update(encoder).unwrap();
                over.stepper().read_back(encoder).unwrap()
            });
            let report = report.wait().unwrap();
            single.step(gradients.iter().zip(&mut all).map(|(g, p)| (&g[..], &mut p[..]))).unwrap();
            let what = format!("{placing:?} step {step}");
            assert_eq!(report.skips, u64::from(step == 3), "{what}");
            assert_eq!(report.loss_scale, single.report().unwrap().loss_scale, "{what}");
            on.assert_holds(&parameters, &all, (&held, &order), &what);
        }
    }
}
