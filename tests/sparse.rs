//! Duplicates of sparse gradients, added: the CPU path against exact integers, the device against the CPU path to the bit.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::files;
use common::tolerance::SEVEN_DIGITS;
use common::{
    DISTRIBUTIONS, Distribution, Element, Entries, Gpu, Naming, PlacedEntries, Placing, Random, assert_close,
    expected, gpu,
};
use gradclip::cpu::{self, GradMut};
use gradclip::{
    Clip, ClipError, Clipper, DType, Grad, NonFinite, NormType, PlanError, PrepareError, Scope, SparseGrad,
    Units,
};
use num_bigint::BigInt;

/// Of 2^-149, which every `f32` is a multiple of.
fn units(value: f32) -> BigInt {
    let bits = value.to_bits() & 0x7fff_ffff;
    let field = (bits >> 23).max(1);
    let size = BigInt::from(bits - ((field - 1) << 23)) << (field - 1);
    if value.is_sign_negative() { -size } else { size }
}

/// The nearest `f32`, ties to even.
fn nearest(units: &BigInt) -> f32 {
    let size = units.magnitude();
    let drop = size.bits().saturating_sub(24);
    let kept = size >> drop;
    let rest = size - (&kept << drop);
    let half = BigInt::from(1) << drop >> 1u32;
    let tie = drop > 0 && &rest == half.magnitude();
    let kept = u64::try_from(&kept).unwrap();
    let up = drop > 0 && (&rest > half.magnitude() || (tie && kept % 2 == 1));
    let bits = ((drop << 23) + kept + u64::from(up)).min(u64::from(f32::INFINITY.to_bits())) as u32;
    let size = f32::from_bits(bits);
    if units < &BigInt::ZERO { -size } else { size }
}

/// Each row that is named with the values of its entries, in the order of rows.
fn lists(entries: &Entries) -> Vec<(u32, Vec<Vec<f32>>)> {
    let floats = entries.values.floats();
    let mut rows: Vec<u32> = entries.indices.clone();
    rows.sort_unstable();
    rows.dedup();
    let row = |i: usize| floats[i * entries.table[1]..(i + 1) * entries.table[1]].to_vec();
    let of = |r: u32| (0..entries.indices.len()).filter(|&i| entries.indices[i] == r).map(row).collect();
    rows.into_iter().map(|r| (r, of(r))).collect()
}

/// Sums by the definition's bound: rounded once from within `2^-32` of the largest value's last place a value; exactly rounded where no
/// value has bits below those units.
fn assert_sums(entries: &Entries, what: &str) {
    let got = entries.coalesced().unwrap();
    let width = entries.table[1];
    let lists = lists(entries);
    assert_eq!(got.rows, lists.iter().map(|(row, _)| *row).collect::<Vec<_>>(), "{what}");
    for (k, (row, values)) in lists.iter().enumerate() {
        for column in 0..width {
            let own: Vec<f32> = values.iter().map(|v| v[column]).collect();
            let sum = got.values[k * width + column];
            let field = own.iter().map(|v| (v.to_bits() >> 23) & 0xff).max().unwrap().max(1);
            // Units of 2^-32 of its last place, cut to whole ones of 2^-149.
            let unit = field.saturating_sub(33);
            let exact: BigInt = own.iter().map(|&v| units(v)).sum();
            let whole = own.iter().all(|&v| (units(v) >> unit) << unit == units(v));
            let what = format!("{what}: row {row}, column {column} of {own:?}");
            if whole || own.len() == 1 {
                assert_eq!(sum, nearest(&exact), "{what}");
                continue;
            }
            let off = BigInt::from(own.len()) << unit;
            let (low, high) = (nearest(&(&exact - &off)), nearest(&(&exact + &off)));
            assert!((low..=high).contains(&sum), "{what}: {sum:e} is not in {low:e} ..= {high:e}");
        }
    }
}

#[test]
fn sums_are_rounded_once() {
    for (seed, kind) in (0..).zip(DISTRIBUTIONS) {
        for (entries, table) in [(40, [7, 5]), (300, [2, 3]), (5_000, [3, 1]), (20, [1_000, 40])] {
            for element in Element::ON_DEVICES {
                // What is above the largest of its type is infinite, for another test.
                if element == Element::F16 && matches!(kind, Distribution::Uniform(m) if m > 1.0) {
                    continue;
                }
                let entries = Entries::new(Naming::Any, entries, table, element, kind, seed);
                if entries.values.floats().iter().all(|v| v.is_finite()) {
                    assert_sums(&entries, &format!("{kind:?} {element:?} {table:?}"));
                }
            }
        }
    }
}

/// What sums of floats in any order lose: 1 beside 2^24, and what cancels.
#[test]
fn nothing_is_lost_on_the_way() {
    let mut values = vec![1.0f32; 1_000];
    values[0] = 2f32.powi(24);
    let sum = |values: &[f32]| cpu::coalesce("t", &vec![0; values.len()], values, [1, 1]).unwrap().values[0];
    assert_eq!(sum(&values), 2f32.powi(24) + 1_000.0);
    assert_eq!(sum(&[1e8, 1.0, -1e8]), 1.0);
    // Units of 2^-32 of the last place of 1.
    assert_eq!(sum(&[1.0, 2f32.powi(-55), -1.0]), 2f32.powi(-55));
    assert_eq!(sum(&[1.0, 2f32.powi(-56), -1.0]), 0.0);
    // A tie and what breaks it.
    assert_eq!(sum(&[1.0, 2f32.powi(-24)]), 1.0);
    assert_eq!(sum(&[1.0, 2f32.powi(-24), 2f32.powi(-40)]).to_bits(), 1f32.to_bits() + 1);
    assert_eq!(sum(&[f32::MAX, f32::MAX]), f32::INFINITY);
    assert_eq!(sum(&[f32::MAX, f32::MAX, -f32::MAX]), f32::MAX);
}

#[test]
fn what_is_not_finite_and_zeros_add_up_as_ieee_has_it() {
    let (inf, nan) = (f32::INFINITY, f32::NAN);
    let specials = [
        0.0,
        -0.0,
        1.0,
        -1.0,
        inf,
        -inf,
        nan,
        -nan,
        f32::MAX,
        f32::from_bits(1),
        f32::from_bits(0x7f80_0001),
    ];
    let mut entries = Entries::new(Naming::Each, 0, [1, 1], Element::F32, Distribution::Bits, 0);
    let mut want = Vec::new();
    let mut rows = 0;
    let mut values = Vec::new();
    for a in specials {
        for b in specials {
            entries.indices.extend([rows; 2]);
            values.extend([a, b]);
            want.push(a + b);
            rows += 1;
        }
        // One alone keeps its bits.
        entries.indices.push(rows);
        values.push(a);
        want.push(a);
        rows += 1;
    }
    entries.values = values.into();
    entries.table[0] = rows as usize;
    let got = entries.coalesced().unwrap().values;
    for (i, (got, want)) in got.iter().zip(&want).enumerate() {
        assert!(
            got.to_bits() == want.to_bits() || got.is_nan() && want.is_nan(),
            "{i}: {got:e}, not {want:e}"
        );
    }
    if let Some(gpu) = gpu() {
        assert_same(&gpu, &gpu.clipper, &entries, "specials");
    }
}

/// The same in lists that many invocations share, to the left and to the right of others.
#[test]
fn what_is_not_finite_is_seen_in_long_lists() {
    let (inf, nan) = (f32::INFINITY, f32::NAN);
    let columns: [(f32, &[f32], f32); 9] = [
        (-0.0, &[], -0.0),
        (-0.0, &[0.0], 0.0),
        (1.0, &[inf], inf),
        (1.0, &[-inf, 3.0], -inf),
        (1.0, &[inf, -inf], nan),
        (-1.0, &[nan], nan),
        (f32::MAX, &[], inf),
        (-f32::MAX, &[], -inf),
        (-1.0, &[700.0, 3.0], 4.0), // beside 699 others
    ];
    let (n, width) = (701usize, columns.len());
    // The first and the last entries of all are other rows'.
    let indices: Vec<u32> =
        (0..n + 80).map(|i| if i < 40 { 0 } else { u32::from(i >= n + 40) + 1 }).collect();
    let value = |i: usize| columns.map(|(most, few, _)| *few.get(i.wrapping_sub(333usize)).unwrap_or(&most));
    let values: Vec<f32> = (0..n + 80).flat_map(|i| value(i.wrapping_sub(40))).collect();
    let entries = Entries { indices, values: values.into(), table: [3, width], count: None };
    let got = entries.coalesced().unwrap().values;
    for (i, (got, (_, _, want))) in got[width..].iter().zip(&columns).enumerate() {
        assert!(
            got.to_bits() == want.to_bits() || got.is_nan() && want.is_nan(),
            "{i}: {got:e}, not {want:e}"
        );
    }
    if let Some(gpu) = gpu() {
        assert_same(&gpu, &gpu.clipper, &entries, "long lists");
    }
}

/// A device adds to the CPU path's bits.
fn assert_same(gpu: &Gpu, clipper: &Clipper, entries: &Entries, what: &str) {
    let placed = PlacedEntries::upload(gpu, clipper, entries).unwrap();
    let (want_rows, want) = expected(entries).unwrap();
    // Twice: nothing is left of a step.
    for _ in 0..2 {
        let (rows, got) = placed.added(gpu).unwrap();
        assert_eq!(rows[..want_rows.len()], want_rows, "{what} on {}", gpu.name);
        assert_eq!(got.len(), want.len(), "{what}");
        let differs = |(a, b): (&f32, &f32)| a.to_bits() != b.to_bits() && !(a.is_nan() && b.is_nan());
        if let Some(i) = got.iter().zip(&want).position(differs) {
            let place = (i / entries.table[1], i % entries.table[1]);
            panic!("{what} on {}: {:e} at {place:?}, {:e} on the CPU", gpu.name, got[i], want[i]);
        }
    }
}

#[test]
fn a_device_adds_to_the_same_bits() {
    let Some(gpu) = gpu() else { return };
    let sizes = [
        (Naming::Any, 0, [5, 4]),
        (Naming::Any, 1, [1, 1]),
        (Naming::Any, 5_000, [1, 3]),
        (Naming::One(77), 3_000, [100, 1]),
        // Lists that are just short enough for one invocation, and of two blocks.
        (Naming::One(0), 128, [5_000, 33]),
        (Naming::One(0), 129, [5_000, 33]),
        (Naming::One(2), 256, [3, 300]),
        (Naming::Words, 4_000, [50_000, 16]),
        (Naming::Words, 300, [2_000, 3_000]),
        (Naming::Each, 4_097, [4_097, 2]),
        (Naming::Each, 3_000, [1_000_000, 5]),
        (Naming::Any, 20_000, [1_000_000, 1]),
    ];
    for (seed, (naming, n, table)) in (0..).zip(sizes) {
        for (element, kind) in
            Element::ON_DEVICES.into_iter().zip(DISTRIBUTIONS.into_iter().cycle().skip(seed))
        {
            let entries = Entries::new(naming, n, table, element, kind, seed as u64);
            assert_same(
                &gpu,
                &gpu.clipper,
                &entries,
                &format!("{naming:?} {n} {table:?} {element:?} {kind:?}"),
            );
        }
    }
    for kind in DISTRIBUTIONS {
        let entries = Entries::new(Naming::Words, 700, [200, 7], Element::F32, kind, 5);
        assert_same(&gpu, &gpu.clipper, &entries, &format!("{kind:?}"));
    }
}

/// Where the largest cancel, all bits of the smallest are seen, down to those that are cut.
#[test]
fn what_cancels_leaves_the_same_bits() {
    let (rows, width) = (200, 4);
    let mut random = Random(4);
    let mut values = Vec::new();
    for _ in 0..rows * width {
        let large = random.unit() * 2f32.powi(random.below(100) as i32 - 20);
        let mut small = || large * random.unit() * 2f32.powi(-20 - random.below(40) as i32);
        values.push([large, small(), -large, small(), small()]);
    }
    let entry = |i: usize| (0..width).map(move |column| (i % rows * width + column, i / rows));
    let flat = (0..5 * rows).flat_map(entry).map(|(element, k)| values[element][k]).collect::<Vec<f32>>();
    let indices = (0..5 * rows as u32).map(|i| i % rows as u32).collect();
    let entries = Entries { indices, values: flat.into(), table: [rows, width], count: None };
    assert_sums(&entries, "what cancels");
    if let Some(gpu) = gpu() {
        assert_same(&gpu, &gpu.clipper, &entries, "what cancels");
    }
}

#[test]
fn order_is_not_seen() {
    let gpu = gpu();
    for kind in [Distribution::Bits, Distribution::Alternating, Distribution::Uniform(1.0)] {
        let entries = Entries::new(Naming::Words, 2_000, [50, 9], Element::F32, kind, 1);
        let want = entries.coalesced().unwrap();
        let want_bits = common::bits(&[want.values]);
        for seed in 0..3 {
            let other = entries.shuffled(seed);
            let got = other.coalesced().unwrap();
            assert_eq!(got.rows, want.rows, "{kind:?}");
            assert!(common::bits(&[got.values]) == want_bits, "{kind:?}");
            if let Some(gpu) = &gpu {
                assert_same(gpu, &gpu.clipper, &other, "another order");
            }
        }
    }
}

/// How many hold is read on the device in each step.
#[test]
fn a_count_from_a_buffer_holds() {
    let Some(gpu) = gpu() else { return };
    let mut entries =
        Entries::new(Naming::Words, 500, [300, 6], Element::Bf16, Distribution::Uniform(1.0), 3);
    entries.count = Some(0);
    let placed = PlacedEntries::upload(&gpu, &gpu.clipper, &entries).unwrap();
    for count in [0u32, 1, 2, 499, 500, 17, 501, u32::MAX] {
        gpu.queue.write_buffer(&placed.buffers[0], 0, bytemuck::bytes_of(&count));
        entries.count = Some(count);
        let (rows, got) = placed.added(&gpu).unwrap();
        let (want_rows, want) = expected(&entries).unwrap();
        assert_eq!(rows[..want_rows.len()], want_rows, "{count} on {}", gpu.name);
        assert_eq!(format!("{got:?}"), format!("{want:?}"), "{count} on {}", gpu.name);
    }
}

/// Nothing is written out of bounds, the step is left out, and the report names the tensor.
#[test]
fn what_is_left_out_is_told() {
    let Some(gpu) = gpu() else { return };
    for (table, n) in [([10, 3], 40), ([10, 3], 8), ([1, 1], 2), ([1_000, 2], 1)] {
        let mut entries = Entries::new(Naming::Any, n, table, Element::F32, Distribution::Uniform(1.0), 2);
        for row in [table[0] as u32, u32::MAX] {
            entries.indices[n / 2] = row;
            assert_same(&gpu, &gpu.clipper, &entries, &format!("{table:?}, row {row}"));
            let refused = entries.coalesced().unwrap_err();
            let words = format!(
                "tensor `table`: required indices below {}, given {row} for entry {}",
                table[0],
                n / 2
            );
            assert_eq!(refused.to_string(), words);
        }
        let placed = PlacedEntries::upload(&gpu, &gpu.clipper, &entries).unwrap();
        let dense = gpu.separate(&[vec![3.0, 4.0]]).remove(0);
        let grads = [dense.clone(), placed.coalescer.grad()];
        let pass = gpu.clipper.prepare(&grads, &Clip::global_norm(1.0)).unwrap();
        gpu.submit(|encoder| placed.coalescer.record(encoder));
        let report = gpu.run(&pass);
        assert!(report.segments[0].skipped, "{report:?}");
        assert_eq!((report.non_finite(), report.first_non_finite()), (1, Some("table")));
        assert_eq!(gpu.read::<f32>(dense.buffer()), [3.0, 4.0]);
    }
}

/// Small bindings cut values and sums into windows.
#[test]
fn windows_are_as_large_as_bindings() {
    let Some(gpu) = gpu() else { return };
    let gpu = gpu.other(|descriptor| descriptor.required_limits.max_storage_buffer_binding_size = 1 << 17);
    for (naming, n, table) in [
        (Naming::Any, 3_000, [500, 33]),
        (Naming::Each, 900, [2_000, 130]),
        (Naming::One(3), 100_000 / 8, [30_000, 8]),
    ] {
        let entries = Entries::new(naming, n, table, Element::F32, Distribution::Uniform(1.0), 9);
        assert_same(&gpu, &gpu.clipper, &entries, &format!("{table:?}"));
        let halves = Entries::new(naming, n, table, Element::F16, Distribution::Uniform(1.0), 9);
        assert_same(&gpu, &gpu.clipper, &halves, &format!("{table:?} of f16"));
    }
    let entries = Entries::new(Naming::Any, 600, [5, 220], Element::F32, Distribution::Uniform(1.0), 9);
    let refused = PlacedEntries::upload(&gpu, &gpu.clipper, &entries).unwrap_err();
    assert!(matches!(refused, PrepareError::Plan(PlanError::TooLarge { .. })), "{refused}");
}

/// Sums are gradients as any other: every scope, beside dense ones and each other, to the CPU path's bits.
#[test]
fn every_scope_takes_added_rows() {
    let gpu = gpu();
    let sparse = [
        Entries::new(Naming::Words, 90, [40, 12], Element::F32, Distribution::Uniform(1.0), 1),
        Entries::new(Naming::Any, 30, [1_000, 5], Element::Bf16, Distribution::Uniform(1.0), 2),
    ];
    for clip in [
        Clip::global_norm(1.0),
        Clip::global_norm(1.0).norm_type(NormType::Inf),
        Clip::per_tensor_norm(0.5),
        Clip::per_unit_norm(0.3, Units::OutputFirst),
        Clip::value(0.1),
        Clip::global_norm(0.2).on_non_finite(NonFinite::Sanitize),
    ] {
        let mut dense = vec![0.25f32; 300];
        let mut sums: Vec<_> = sparse.iter().map(|s| expected(s).unwrap().1).collect();
        let mut grads = vec![GradMut::new("dense", &mut dense).shape(&[30, 10])];
        grads.extend(sums.iter_mut().zip(&sparse).map(|(sum, s)| {
            let width = s.table[1] as u64;
            let shape = [sum.len() as u64 / width, width];
            GradMut::new("table", sum).shape(&shape)
        }));
        let report = cpu::clip(&mut grads, &clip).unwrap();
        // Zeros change no norm: those that are named alone have the same.
        if !matches!(clip.scope, Scope::Unit(_)) {
            let mut dense = vec![0.25f32; 300];
            let mut named: Vec<_> = sparse.iter().map(|s| s.coalesced().unwrap().values).collect();
            let mut grads = vec![GradMut::new("dense", &mut dense)];
            grads.extend(named.iter_mut().map(|named| GradMut::new("table", named)));
            assert_eq!(cpu::clip(&mut grads, &clip).unwrap().global_norm, report.global_norm);
            for (named, sum) in named.iter().zip(&sums) {
                assert_eq!(named[..], sum[..named.len()]);
            }
        }
        let Some(gpu) = &gpu else { continue };
        let placed: Vec<_> =
            sparse.iter().map(|s| PlacedEntries::upload(gpu, &gpu.clipper, s).unwrap()).collect();
        let there = gpu.upload(bytemuck::cast_slice(&[0.25f32; 300]));
        let mut grads = vec![Grad::new("dense", &there).shape(&[30, 10])];
        grads.extend(placed.iter().map(|p| p.coalescer.grad()));
        let pass = gpu.clipper.prepare(&grads, &clip).unwrap();
        gpu.submit(|encoder| placed.iter().for_each(|p| p.coalescer.record(encoder)));
        assert_eq!(format!("{:?}", gpu.run(&pass)), format!("{report:?}"), "{clip:?} on {}", gpu.name);
        for (placed, sum) in placed.iter().zip(&sums) {
            let got: Vec<f32> = gpu.read(placed.coalescer.grad().buffer());
            assert!(got == *sum, "{clip:?} on {}", gpu.name);
        }
    }
}

/// `torch.sparse_coo_tensor(...).coalesce()`, then `clip_grad_norm_` of type infinity.
#[test]
fn pytorch_clips_what_is_coalesced() {
    let folder = files::folder("library_cases").join("torch_sparse_norm_inf");
    let json = files::json(&folder.join("case.json")).unwrap();
    let number = |value: &serde_json::Value| files::number(value).unwrap();
    let (input, output) = (folder.join("input.safetensors"), folder.join("expected.safetensors"));
    let rows = json["args"]["rows"]["g.0000"].as_u64().unwrap() as usize;
    let mut tensors = files::tensors(&input).unwrap();
    let values = tensors.remove(0).data;
    let indices = files::indices(&input).unwrap().remove(0).1;
    let entries = Entries { table: [rows, values.len() / indices.len()], indices, values, count: None };

    let mut added = entries.coalesced().unwrap();
    assert_eq!(added.rows, files::indices(&output).unwrap()[0].1);
    let mut want = files::tensors(&output).unwrap();
    assert_eq!((added.rows.len(), want.len()), (json["rows_out"].as_u64().unwrap() as usize, 4));
    let clip = Clip::global_norm(number(&json["args"]["max_norm"])).norm_type(NormType::Inf).eps(1e-6);
    let mut dense = tensors.clone();
    let mut grads = vec![GradMut::new("g.0000", &mut added.values)];
    grads.extend(dense.iter_mut().map(|t| t.grad()));
    let report = cpu::clip(&mut grads, &clip).unwrap();
    assert_close([report.norm().unwrap() as f32], [number(&json["true_norm"])], SEVEN_DIGITS, 0.0, "norm");
    let (rtol, atol) = (number(&json["rtol"]), number(&json["atol"]));
    let table = want.remove(0);
    assert_close(added.values.iter().copied(), table.data.values(), rtol, atol, "rows");
    for (got, want) in dense.iter().zip(&want) {
        assert_close(got.data.floats(), want.data.values(), rtol, atol, &want.name);
    }

    let Some(gpu) = gpu() else { return };
    let placed = PlacedEntries::upload(&gpu, &gpu.clipper, &entries).unwrap();
    let beside = gpu.place(&tensors, Placing::APART);
    let sum = placed.coalescer.grad();
    let pass = gpu.clipper.prepare(&[std::slice::from_ref(&sum), &beside.grads].concat(), &clip).unwrap();
    gpu.submit(|encoder| placed.coalescer.record(encoder));
    assert_eq!(gpu.run(&pass).norm(), report.norm(), "{}", gpu.name);
    let got: Vec<f32> = gpu.read(sum.buffer());
    assert_eq!(got[..added.values.len()], added.values, "{}", gpu.name);
    for (got, want) in beside.read(&gpu).unwrap().iter().zip(&dense) {
        assert_eq!(got.floats(), want.data.floats(), "{}", gpu.name);
    }
}

#[test]
fn what_a_sparse_gradient_needs_is_asked_for_by_name() {
    let wrong = |values: usize| cpu::coalesce("t", &[0, 1], &vec![0.0f32; values][..], [2, 3]).unwrap_err();
    assert_eq!(wrong(5).to_string(), "tensor `t`: required 3 values for each of 2 entries, given 5");
    let double = cpu::coalesce("t", &[0], &[0.0f64][..], [1, 1]).unwrap_err();
    assert!(matches!(double, ClipError::Tensor { .. }), "{double}");
    let Some(gpu) = gpu() else { return };
    let (indices, values) = (gpu.storage(16), gpu.storage(64));
    let sparse = |indices, values| SparseGrad::new("t", indices, values, 4, [10, 4]);
    let refused = |sparse: &SparseGrad| gpu.clipper.prepare_coalescing(sparse).unwrap_err();
    assert!(gpu.clipper.prepare_coalescing(&sparse(&indices, &values)).is_ok());
    let short = refused(&sparse(&indices, &indices).offsets(0, 16));
    assert!(
        short.to_string().starts_with("tensor `t (values)`: required a buffer of at least 80"),
        "{short}"
    );
    let overlap = refused(&sparse(&values, &values));
    assert!(matches!(overlap, PrepareError::Plan(PlanError::Overlap { .. })), "{overlap}");
    let double = refused(&sparse(&indices, &values).dtype(DType::F64));
    assert!(matches!(double, PrepareError::Plan(PlanError::DType { .. })), "{double}");
    let no_storage = gpu.buffer(64, gradclip::wgpu::BufferUsages::COPY_DST);
    let usage = refused(&sparse(&indices, &no_storage));
    assert!(matches!(usage, PrepareError::Usage { .. }), "{usage}");
    let odd = refused(&sparse(&indices, &values).count(&values, 2));
    assert!(matches!(odd, PrepareError::Plan(PlanError::Unaligned { .. })), "{odd}");
}
