//! Actor and critic on the pole-balancing task of Barto, Sutton and Anderson (1983), as small reinforcement learners in Burn are
//! written: a configuration with `max_grad_norm`, rollouts, one optimiser. README shows the three lines that make the norm
//! global.
//!
//!     cargo run --release --example cart_pole [-- --per-tensor]
//!
//! `--per-tensor` leaves clipping to Burn's optimiser, which clips each tensor by itself.

use burn::config::Config;
use burn::grad_clipping::GradientClippingConfig;
use burn::module::Module;
use burn::nn::{Linear, LinearConfig};
use burn::optim::{AdamConfig, GradientsParams};
use burn::tensor::activation::{log_softmax, softmax};
use burn::tensor::{Device, Int, Tensor, TensorData};
use gradclip_burn::{Clip, Clipper};

#[derive(Config, Debug)]
struct A2cConfig {
    #[config(default = 16)]
    environments: usize,
    #[config(default = 32)]
    rollout: usize,
    #[config(default = 60)]
    updates: usize,
    #[config(default = 0.98)]
    discount: f32,
    #[config(default = 3e-3)]
    learning_rate: f64,
    #[config(default = 0.5)]
    max_grad_norm: f32,
}

#[derive(Module, Debug)]
struct ActorCritic {
    body: Linear,
    actor: Linear,
    critic: Linear,
}

impl ActorCritic {
    fn new(device: &Device) -> ActorCritic {
        ActorCritic {
            body: LinearConfig::new(4, 64).init(device),
            actor: LinearConfig::new(64, 2).init(device),
            critic: LinearConfig::new(64, 1).init(device),
        }
    }

    /// Scores of both actions, and the value of each state.
    fn forward(&self, states: Tensor<2>) -> (Tensor<2>, Tensor<2>) {
        let hidden = self.body.forward(states).tanh();
        (self.actor.forward(hidden.clone()), self.critic.forward(hidden))
    }
}

/// A cart on a track with a pole on it: position, speed, angle and its speed.
#[derive(Clone, Copy, Default)]
struct CartPole {
    state: [f32; 4],
    steps: u32,
}

impl CartPole {
    /// Moves for 20 ms. Whether the pole fell, or stood for 200 steps.
    fn step(&mut self, right: bool) -> bool {
        let [x, speed, angle, turn] = self.state;
        let force = if right { 10.0 } else { -10.0 };
        let (sin, cos) = angle.sin_cos();
        let pull = (force + 0.05 * turn * turn * sin) / 1.1;
        let spin = (9.8 * sin - cos * pull) / (0.5 * (4.0 / 3.0 - 0.1 * cos * cos / 1.1));
        let push = pull - 0.05 * spin * cos / 1.1;
        self.state = [x + 0.02 * speed, speed + 0.02 * push, angle + 0.02 * turn, turn + 0.02 * spin];
        self.steps += 1;
        self.state[0].abs() > 2.4 || self.state[2].abs() > 0.21 || self.steps >= 200
    }
}

/// Numbers from 0 to 1, the same everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> f32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 40) as f32 / (1u64 << 24) as f32
    }

    fn cart(&mut self) -> CartPole {
        CartPole { state: std::array::from_fn(|_| 0.1 * self.next() - 0.05), steps: 0 }
    }
}

/// What the environments did: per step and environment.
#[derive(Default)]
struct Rollout {
    states: Vec<f32>,
    actions: Vec<i32>,
    ended: Vec<bool>,
    lengths: Vec<u32>,
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let per_tensor = std::env::args().any(|argument| argument == "--per-tensor");
    let config = A2cConfig::new();
    let (device, setup) = Device::wgpu_options().init_with_setup()?;
    let device = device.autodiff();
    let mut random = Random(1);
    device.seed(1);

    let mut model = ActorCritic::new(&device);
    let clipper = Clipper::new(&device, &setup, Clip::global_norm(config.max_grad_norm))?;
    let mut optimizer = match per_tensor {
        true => {
            let clipping = GradientClippingConfig::Norm(config.max_grad_norm);
            AdamConfig::new().with_grad_clipping(Some(clipping)).init()
        }
        false => AdamConfig::new().init(),
    };
    let mut carts: Vec<CartPole> = (0..config.environments).map(|_| random.cart()).collect();
    let mut recent = Vec::new();
    for update in 1..=config.updates {
        let rollout = play(&model, &mut carts, &mut random, &config, &device)?;
        recent.extend(&rollout.lengths);
        let loss = loss(&model, &rollout, &carts, &config, &device)?;
        let mut grads = GradientsParams::from_grads(loss.backward(), &model);
        if !per_tensor {
            clipper.clip(&model, &mut grads)?;
        }
        model = optimizer.step(config.learning_rate, model, grads);
        if update % 10 == 0 {
            let mean = recent.iter().sum::<u32>() as f32 / recent.len().max(1) as f32;
            print!("update {update}: {} episodes of {mean:.0} steps", recent.len());
            while let Some(report) = clipper.poll() {
                let report = report?;
                if clipper.dropped() == 0 && report.step % 10 == 0 {
                    print!(", norm {:.2} in step {}", report.norm().unwrap_or(f64::NAN), report.step);
                }
            }
            println!();
            recent.clear();
        }
    }
    Ok(())
}

/// Plays all environments for one rollout.
fn play(
    model: &ActorCritic,
    carts: &mut [CartPole],
    random: &mut Random,
    config: &A2cConfig,
    device: &Device,
) -> Result<Rollout, Box<dyn std::error::Error>> {
    let model = model.valid();
    let mut rollout = Rollout::default();
    for _ in 0..config.rollout {
        let states: Vec<f32> = carts.iter().flat_map(|cart| cart.state).collect();
        let data = TensorData::new::<f32, _>(states.clone(), [carts.len(), 4]);
        let (scores, _) = model.forward(Tensor::from_data(data, &device.clone().inner()));
        let right = softmax(scores, 1).into_data().try_to_vec::<f32>()?;
        rollout.states.extend(states);
        for (i, cart) in carts.iter_mut().enumerate() {
            let action = random.next() < right[2 * i + 1];
            let ended = cart.step(action);
            rollout.actions.push(action.into());
            rollout.ended.push(ended);
            if ended {
                rollout.lengths.push(cart.steps);
                *cart = random.cart();
            }
        }
    }
    Ok(rollout)
}

/// Loss of the actor, of the critic and of too little entropy.
fn loss(
    model: &ActorCritic,
    rollout: &Rollout,
    carts: &[CartPole],
    config: &A2cConfig,
    device: &Device,
) -> Result<Tensor<1>, Box<dyn std::error::Error>> {
    let (count, width) = (rollout.actions.len(), carts.len());
    let last: Vec<f32> = carts.iter().flat_map(|cart| cart.state).collect();
    let last = TensorData::new::<f32, _>(last, [width, 4]);
    let (_, last) = model.valid().forward(Tensor::from_data(last, &device.clone().inner()));
    let mut ahead = last.into_data().try_to_vec::<f32>()?;
    let mut returns = vec![0.0; count];
    for at in (0..count).rev() {
        let ahead = &mut ahead[at % width];
        *ahead = 1.0 + if rollout.ended[at] { 0.0 } else { config.discount * *ahead };
        returns[at] = *ahead;
    }
    let states = TensorData::new::<f32, _>(rollout.states.clone(), [count, 4]);
    let returns = Tensor::<2>::from_data(TensorData::new::<f32, _>(returns, [count, 1]), device);
    let actions = TensorData::new::<i32, _>(rollout.actions.clone(), [count, 1]);
    let actions = Tensor::<2, Int>::from_data(actions, device);
    let (scores, values) = model.forward(Tensor::from_data(states, device));
    let likely = log_softmax(scores, 1);
    let entropy = (likely.clone().exp() * likely.clone()).sum_dim(1).neg().mean();
    let advantage = returns - values;
    let chosen = likely.gather(1, actions);
    let actor = (chosen * advantage.clone().detach()).mean().neg();
    Ok(actor + advantage.powi_scalar(2).mean().mul_scalar(0.5) - entropy.mul_scalar(0.01))
}
