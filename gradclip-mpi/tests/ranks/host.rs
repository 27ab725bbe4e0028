//! The CPU path on ranks beside one rank.

use gradclip::cpu::{self, GradMut, StepMut};
use gradclip::{Adam, Clip, LossScale, Units};
use gradclip_mpi::{Piece, Ranks};

use crate::set::{
    Single, TENSORS, bits, broken, clips, gradients, group, held, order, own, pieces, placings, told,
};

pub fn the_cpu_path_has_the_bits_of_one_rank(ranks: &Ranks) {
    for placing in placings(ranks) {
        for clip in clips() {
            let held = held(placing, ranks.rank(), ranks.size());
            let order = order(&held, ranks.rank());
            let agreed = ranks.agree(&clip, &pieces(&held, &order)).unwrap();
            assert!(agreed.exact());
            let mut single = Single::new(&clip);
            let mut mine = own(&gradients(0), &held, &order);
            let mut over = agreed.prepare(mine.iter_mut().map(|g| &mut g[..])).unwrap();
            for step in 0..5 {
                let mut all = gradients(100 + step);
                broken(step, &mut all);
                mine = own(&all, &held, &order);
                if step % 2 == 0 {
                    over.clip(mine.iter_mut().map(|g| &mut g[..])).unwrap();
                } else {
                    over.measure(mine.iter().map(|g| &g[..])).unwrap();
                    while !over.poll().unwrap() {}
                    over.apply(mine.iter_mut().map(|g| &mut g[..])).unwrap();
                }
                let want = single.clip(&mut all);
                let what = format!("{placing:?} {clip:?} step {step} rank {}", ranks.rank());
                assert_eq!(bits(&mine), bits(&own(&all, &held, &order)), "{what}");
                let report = over.report().unwrap();
                assert_eq!(told(&report), told(&want), "{what}");
                assert_eq!(report.first_non_finite(), want.first_non_finite(), "{what}");
                ranks.alike("histories", &over.prepared().history().to_bytes()).unwrap();
                ranks.alike("reports", format!("{:?}", report.segments).as_bytes()).unwrap();
            }
        }
    }
}

pub fn steps_have_the_bits_of_one_rank(ranks: &Ranks) {
    let clip = Clip::per_group_norm(0.1).loss_scale(LossScale::default().interval(3));
    for placing in placings(ranks) {
        let held = held(placing, ranks.rank(), ranks.size());
        let order = order(&held, ranks.rank());
        let agreed = ranks.agree(&clip, &pieces(&held, &order)).unwrap();
        let (mut all, first) = (gradients(7), gradients(0));
        let mut mine = own(&all, &held, &order);
        let first_own = own(&first, &held, &order);
        let both = first_own.iter().zip(&mut mine).map(|(g, p)| (&g[..], &mut p[..]));
        let mut over = agreed.prepare_step(both, Adam::adamw(0.01)).unwrap();
        let steps: Vec<StepMut<'_>> = first
            .iter()
            .zip(&mut all)
            .zip(TENSORS)
            .map(|((g, p), (name, _, number))| {
                let step = StepMut::new(name, &g[..], &mut p[..]);
                if let Some(group) = group(number) { step.group(&group) } else { step }
            })
            .collect();
        let mut single = cpu::prepare_step(&steps, &clip, Adam::adamw(0.01)).unwrap();
        for step in 0..6 {
            let mut gradients = gradients(200 + step);
            broken(step, &mut gradients);
            let own_gradients = own(&gradients, &held, &order);
            over.measure(own_gradients.iter().map(|g| &g[..])).unwrap();
            over.update(own_gradients.iter().zip(&mut mine).map(|(g, p)| (&g[..], &mut p[..]))).unwrap();
            single.step(gradients.iter().zip(&mut all).map(|(g, p)| (&g[..], &mut p[..]))).unwrap();
            assert_eq!(bits(&mine), bits(&own(&all, &held, &order)), "{placing:?} step {step}");
            assert_eq!(over.report().unwrap().skips, u64::from(step == 3));
        }
    }
}

/// Rows of a matrix on each rank, which decides about them alone, and a matrix that one rank has to itself.
pub fn units_have_the_bits_of_one_rank(ranks: &Ranks) {
    let clip = Clip::per_unit_norm(0.3, Units::OutputFirst);
    let (rank, size) = (ranks.rank() as u64, ranks.size() as u64);
    let rows = 40 * rank / size..40 * (rank + 1) / size;
    let mut pieces = vec![Piece::rows("cut", &[40, 500], rows.clone())];
    if rank == 0 {
        pieces.push(Piece::rows("own", &[4, 10], 0..4));
    }
    let all = [gradients(1)[5].clone(), gradients(2)[3][..40].to_vec()];
    let here = |all: &[Vec<f32>]| {
        let mut own = vec![all[0][500 * rows.start as usize..500 * rows.end as usize].to_vec()];
        own.extend((rank == 0).then(|| all[1].clone()));
        own
    };
    let mut mine = here(&all);
    let agreed = ranks.agree(&clip, &pieces).unwrap();
    let mut over = agreed.prepare(mine.iter_mut().map(|g| &mut g[..])).unwrap();
    over.clip(mine.iter_mut().map(|g| &mut g[..])).unwrap();
    let mut want = all.clone();
    let [cut, own] = &mut want;
    let mut grads = [GradMut::new("cut", cut).shape(&[40, 500]), GradMut::new("own", own).shape(&[4, 10])];
    let report = cpu::clip(&mut grads, &clip).unwrap();
    assert!(report.clipped());
    assert_eq!(bits(&mine), bits(&here(&want)));
    let scaled = ranks.agree(&clip.loss_scale(LossScale::default()), &pieces).unwrap();
    assert!(scaled.prepare(mine.iter_mut().map(|g| &mut g[..])).is_err());
}
