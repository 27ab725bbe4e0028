//! The forms of the kernels that hardware runs (loads by 16 bytes, whole chunks in flight) have the bits of the
//! definition, whatever elements are, wherever they begin and however a device multiplies.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::{Gpu, KINDS, Random, data, gpu};
use gradclip::cpu::{self, GradMut};
use gradclip::layout::{CHUNK, COLUMNS, NONE, Outcome, Partial, ROWS, Sum};
use gradclip::{Clip, Clipper, ClipperOptions, DType, Grad, NonFinite, NormType, Units};
use half::{bf16, f16};

const COLUMNS_: usize = COLUMNS as usize;
const CHUNK_: usize = CHUNK as usize;

/// Every form there is, the first of them software's, each compiled once.
fn forms(gpu: &Gpu) -> Vec<Clipper> {
    let plain = ClipperOptions::default().workgroup_size(256);
    let vectors = plain.vector_loads(true);
    let options = [
        plain.vector_loads(false),
        vectors.full_multiply(false),
        vectors.full_multiply(true),
        vectors.full_multiply(false).resident_workgroups(2),
        vectors.full_multiply(true).resident_workgroups(2),
    ];
    options.into_iter().map(|options| gpu.clipper_with(options)).collect()
}

/// SwiftShader takes ten times as long as others to compile a kernel: one norm has to do there.
fn norms(gpu: &Gpu) -> Vec<NormType> {
    if gpu.compiles_slowly() {
        vec![NormType::Two]
    } else {
        vec![NormType::Two, NormType::One, NormType::Inf]
    }
}

/// Magnitude of an element as f32 bits, by conversions of another crate.
fn magnitude(bits: u16, dtype: DType) -> u32 {
    let value =
        if dtype == DType::F16 { f16::from_bits(bits).to_f32() } else { bf16::from_bits(bits).to_f32() };
    value.to_bits() & 0x7fff_ffff
}

/// The partial of a chunk of magnitudes as `gradclip::numbers` defines it, in integers of 128 bits.
fn definition(chunk: &[u32], norm: NormType) -> Partial {
    let (mut count, mut nan) = (0, 0);
    let finite: Vec<u32> = chunk
        .iter()
        .map(|&bits| {
            count += u32::from(bits >= 0x7f80_0000);
            nan |= u32::from(bits > 0x7f80_0000);
            if bits >= 0x7f80_0000 { 0 } else { bits }
        })
        .collect();
    let non_finite = count | nan << 31;
    if norm == NormType::Inf {
        return Partial { lo: 0, hi: 0, exponent: *finite.iter().max().unwrap(), non_finite };
    }
    let field = |bits: u32| (bits >> 23).max(1);
    let mantissa =
        |bits: u32| u128::from(if bits >> 23 == 0 { bits } else { (bits & 0x7f_ffff) | 0x80_0000 });
    let top = finite.iter().map(|&b| field(b)).max().unwrap();
    let mut sum = 0u128;
    for column in 0..COLUMNS_.min(finite.len()) {
        let elements = || finite.iter().skip(column).step_by(COLUMNS_);
        let exponent = elements().map(|&b| field(b)).max().unwrap();
        let (guard, lift) = if norm == NormType::One { (8, 1) } else { (4, 2) };
        let q = |b: u32| (mantissa(b) << guard) >> (exponent - field(b)).min(127);
        let own: u128 = match norm {
            NormType::One => elements().map(|&b| q(b)).sum::<u128>() << 16,
            _ => elements().map(|&b| q(b) * q(b)).sum::<u128>() >> 8,
        };
        sum += own >> (lift * (top - exponent)).min(127);
    }
    Partial { lo: sum as u32, hi: (sum >> 32) as u32, exponent: top, non_finite }
}

/// Every pattern of 16 bits stands once in every row of some column, beside fifteen others.
fn patterns() -> Vec<u16> {
    let one_row = |chunk: usize, row: usize| {
        let rotation = (chunk / 4 + row) % ROWS as usize;
        let first = (chunk % 4) * CHUNK_ + rotation * COLUMNS_;
        (first..first + COLUMNS_).map(|pattern| pattern as u16)
    };
    (0..64).flat_map(|chunk| (0..ROWS as usize).flat_map(move |row| one_row(chunk, row))).collect()
}

#[test]
fn every_half_in_every_row() {
    let Some(gpu) = gpu() else { return };
    let (patterns, forms) = (patterns(), forms(&gpu));
    for dtype in [DType::F16, DType::Bf16] {
        let magnitudes: Vec<u32> = patterns.iter().map(|&bits| magnitude(bits, dtype)).collect();
        for norm in norms(&gpu) {
            let expected: Vec<Partial> =
                magnitudes.chunks(CHUNK_).map(|chunk| definition(chunk, norm)).collect();
            // From whole vectors, from whole words, and from the middle of a word.
            for start in [0, 2, 1] {
                let bytes: Vec<u8> = bytemuck::cast_slice(&patterns).to_vec();
                let grads = gpu.placed(bytes.len() + 16, &[(2 * start, bytes, dtype)]);
                // The others differ in products of L2, and compile as long.
                let forms = if norm == NormType::Two { &forms[..] } else { &forms[..2] };
                for (form, clipper) in forms.iter().enumerate() {
                    let clip = Clip::measure().norm_type(norm);
                    let pass = clipper.prepare(&grads, &clip).unwrap();
                    assert_eq!(pass.plan().dispatches[0].vectors, form > 0 && start == 0);
                    gpu.run(&pass);
                    let partials = gpu.read::<Partial>(pass.partials());
                    for (i, (ours, right)) in partials.iter().zip(&expected).enumerate() {
                        assert_eq!(ours, right, "{dtype} {norm:?} from {start}, form {form}, chunk {i}");
                    }
                }
            }
        }
    }
}

/// Lengths about every edge of rows, vectors and chunks.
const LENGTHS: [usize; 12] = [1, 4, 1023, 1024, 1028, 4096, 5000, 15_000, 16_380, 16_384, 33_000, 65_536];

#[test]
fn f32_of_every_kind_length_and_start() {
    let Some(gpu) = gpu() else { return };
    let mut tensors: Vec<Vec<f32>> =
        KINDS.iter().enumerate().map(|(i, &kind)| data(kind, LENGTHS[i], i as u64)).collect();
    // Columns with what is not finite beside columns without.
    tensors.extend(LENGTHS.map(|len| data(KINDS[0], len, 99)));
    let forms = forms(&gpu);
    (tensors[20][700], tensors[21][3], tensors[23][40_000]) = (f32::NAN, f32::INFINITY, f32::NEG_INFINITY);
    for norm in norms(&gpu) {
        let clip = Clip::measure().norm_type(norm);
        let expected: Vec<Partial> = tensors
            .iter()
            .flat_map(|t| t.chunks(CHUNK_))
            .map(|chunk| {
                let bits: Vec<u32> = chunk.iter().map(|x| x.to_bits() & 0x7fff_ffff).collect();
                definition(&bits, norm)
            })
            .collect();
        for (lead, gap) in [(0, 0), (1, 3), (4, 4)] {
            let grads = gpu.arena(&tensors, lead, gap);
            for (form, clipper) in forms.iter().enumerate() {
                let pass = clipper.prepare(&grads, &clip).unwrap();
                gpu.run(&pass);
                assert_eq!(
                    gpu.read::<Partial>(pass.partials()),
                    expected,
                    "{norm:?} {lead} {gap} form {form}"
                );
            }
        }
    }
}

/// Any bits, of which some are not finite where asked, and some tensors are scaled to where products are subnormal.
fn elements(len: usize, dtype: DType, seed: u64, finite: bool) -> Vec<u8> {
    let mut random = Random(seed);
    let mut one = |out: &mut Vec<u8>| loop {
        let bits = random.bits() as u32;
        let (bytes, is_finite) = match dtype {
            DType::F16 => (bits.to_le_bytes()[..2].to_vec(), f16::from_bits(bits as u16).is_finite()),
            DType::Bf16 => (bits.to_le_bytes()[..2].to_vec(), bf16::from_bits(bits as u16).is_finite()),
            _ if seed.is_multiple_of(3) => ((bits & 0xc7ff_ffff).to_le_bytes().to_vec(), true),
            _ => (bits.to_le_bytes().to_vec(), f32::from_bits(bits).is_finite()),
        };
        if is_finite || !finite {
            out.extend(bytes);
            break;
        }
    };
    let mut out = Vec::new();
    (0..len).for_each(|_| one(&mut out));
    out
}

/// Elements of like size, whose products are all ones for float code.
fn alike(mut elements: Vec<u8>, dtype: DType) -> Vec<u8> {
    let bytes = dtype.size() as usize;
    let top = if dtype == DType::F16 { 0x3c } else { 0x3f };
    elements.chunks_mut(bytes).for_each(|element| element[bytes - 1] = element[bytes - 1] & 0x80 | top);
    elements
}

/// The CPU path on so many copies of a tensor: outcomes, and the bytes of one afterwards.
fn shaped_on_cpu(
    bytes: &[u8],
    dtype: DType,
    (shape, copies): (&[u64], usize),
    clip: &Clip,
) -> (Vec<Outcome>, Vec<u8>) {
    macro_rules! clipped {
        ($type:ty, $make:expr) => {{
            let mut all: Vec<Vec<$type>> = vec![bytemuck::pod_collect_to_vec(bytes); copies];
            let mut grads: Vec<GradMut<'_>> =
                all.iter_mut().enumerate().map(|(i, v)| $make(format!("t{i}"), v).shape(shape)).collect();
            let trace = cpu::clip_traced(&mut grads, clip).unwrap();
            (trace.outcomes, bytemuck::cast_slice(&all[0]).to_vec())
        }};
    }
    match dtype {
        DType::F16 => clipped!(f16, GradMut::f16),
        DType::Bf16 => clipped!(bf16, GradMut::bf16),
        _ => clipped!(f32, GradMut::new),
    }
}

fn check_written(gpu: &Gpu, forms: &[Clipper], grads: &[Grad], clip: &Clip, expected: &[u8], what: &str) {
    let before = gpu.read::<u8>(grads[0].buffer());
    for (form, clipper) in forms.iter().enumerate() {
        gpu.queue.write_buffer(grads[0].buffer(), 0, &before);
        let pass = clipper.prepare(grads, clip).unwrap();
        gpu.run(&pass);
        let after = gpu.read::<u8>(grads[0].buffer());
        let first = after.iter().zip(expected).position(|(a, b)| a != b);
        assert_eq!(first, None, "{what}, form {form} on {}", gpu.name);
    }
}

/// Every rule and policy, factors above 1 and far below, results that are subnormal or saturate: written as on the CPU path, and
/// no byte beside.
#[test]
fn every_element_is_written_as_on_the_cpu() {
    let Some(gpu) = gpu() else { return };
    let forms = forms(&gpu);
    let clips = [
        ("clipped", Clip::global_norm(1.0)),
        ("far down", Clip::global_norm(1e-30)),
        ("up", Clip::global_norm(1e30).unscale(3.0).lossy_unscale(true)),
        ("values", Clip::value(0.01)),
        ("signs", Clip::sign(0.5)),
        ("below", Clip::global_norm(2.0).never_above(true)),
        ("zeros for what is not finite", Clip::global_norm(1.0).on_non_finite(NonFinite::Sanitize)),
        ("what is not finite kept", Clip::value(0.01).on_non_finite(NonFinite::Keep)),
    ];
    for (i, (what, clip)) in clips.iter().enumerate() {
        for dtype in [DType::F32, DType::F16, DType::Bf16] {
            // At boundaries of 16 bytes, and by words with ends of all kinds.
            let starts =
                [(8, 64), (1000, 64), (16_384, 64), (40_008, 64), (1001, 66), (20_003, 70), (33_333, 68)];
            for (len, lead) in
                starts.map(|(len, lead)| (len, if dtype == DType::F32 { lead & !3 } else { lead }))
            {
                let seed = (i + len) as u64;
                let own = elements(len, dtype, seed, i < 6);
                let own = if i == 0 { alike(own, dtype) } else { own };
                // Two of them, one behind the other: what one writes beyond its end is seen in the next.
                let written = shaped_on_cpu(&own, dtype, (&[len as u64], 2), clip).1;
                let places = [lead, lead + own.len()];
                let size = (lead + 2 * own.len() + 48).next_multiple_of(4);
                let mut expected = vec![0xa5; size];
                places.iter().for_each(|&at| expected[at..at + own.len()].copy_from_slice(&written));
                let grads = gpu.placed(size, &places.map(|at| (at, own.clone(), dtype)));
                check_written(
                    &gpu,
                    &forms[..2],
                    &grads,
                    clip,
                    &expected,
                    &format!("{what}, {dtype} of {len}"),
                );
            }
        }
    }
}

/// The same with an outcome for each unit: units that are clipped beside such that are kept, of one axis and of several, with odd
/// starts and lengths.
#[test]
fn every_element_of_units_is_written_as_on_the_cpu() {
    let Some(gpu) = gpu() else { return };
    let forms = forms(&gpu);
    let shape = [31u64, 7, 45];
    let len = shape.iter().product::<u64>() as usize;
    for (i, units) in
        [Units::OutputFirst, Units::OutputLast, Units::over(&[1]), Units::over(&[0, 2])].iter().enumerate()
    {
        for dtype in [DType::F32, DType::F16, DType::Bf16] {
            let mut own = elements(len, dtype, i as u64, true);
            if dtype != DType::F16 {
                // Below 2, so that norms are finite.
                let bytes = dtype.size() as usize;
                own.chunks_mut(bytes).for_each(|element| element[bytes - 1] &= 0xbf);
            }
            if i >= 2 {
                own = alike(own, dtype);
            }
            if i % 2 == 1 {
                // An infinity in one unit.
                let infinity: &[u8] = match dtype {
                    DType::F32 => &[0, 0, 0x80, 0x7f],
                    DType::F16 => &[0, 0x7c],
                    _ => &[0x80, 0x7f],
                };
                own[50 * infinity.len()..][..infinity.len()].copy_from_slice(infinity);
            }
            // Two of them, one behind the other: what one writes beyond its end is seen in the next.
            let places = [68, 68 + own.len()];
            let size = (68 + 2 * own.len() + 48).next_multiple_of(4);
            let grads: Vec<Grad> = gpu
                .placed(size, &places.map(|at| (at, own.clone(), dtype)))
                .into_iter()
                .map(|grad| grad.shape(&shape))
                .collect();
            // The middle one of all units' norms clips half of them.
            let measured =
                shaped_on_cpu(&own, dtype, (&shape, 2), &Clip::per_unit_norm(f64::INFINITY, *units)).0;
            let mut norms: Vec<f32> =
                measured.iter().map(|outcome| outcome.norm).filter(|n| n.is_finite()).collect();
            norms.sort_by(f32::total_cmp);
            let clip = Clip::per_unit_norm(norms[norms.len() / 2], *units);
            for (what, clip) in [
                ("clipped", clip),
                ("below", clip.never_above(true)),
                ("zeros", clip.on_non_finite(NonFinite::Sanitize)),
                ("unscaled", clip.unscale(0.5).lossy_unscale(true)),
            ] {
                let mut expected = gpu.read::<u8>(grads[0].buffer());
                let written = shaped_on_cpu(&own, dtype, (&shape, 2), &clip).1;
                places.iter().for_each(|&at| expected[at..at + written.len()].copy_from_slice(&written));
                check_written(
                    &gpu,
                    &forms[..2],
                    &grads,
                    &clip,
                    &expected,
                    &format!("{what}, {dtype}, {units:?}"),
                );
                gpu.queue.write_buffer(grads[0].buffer(), 0, &{
                    places.iter().for_each(|&at| expected[at..at + own.len()].copy_from_slice(&own));
                    expected
                });
            }
        }
    }
}

/// Unscaling may take an element of 16 bits beyond the largest of its type, though not of f32: it becomes that.
#[test]
fn what_would_be_beyond_the_largest_half_becomes_that() {
    let Some(gpu) = gpu() else { return };
    let unscale = 1.003f32;
    let clip = Clip::measure().unscale(unscale).lossy_unscale(true);
    for (dtype, largest, one, next) in
        [(DType::F16, 0x7bffu16, 0x3c00u16, 0x3c03u16), (DType::Bf16, 0x7f7f, 0x3f80, 0x3f80)]
    {
        // 1 becomes 1.003: of f16 the third above 1 (2^-10 each), of bf16 1 again (2^-7).
        let own: Vec<u16> = (0..40_000).map(|i| if i % 977 == 5 { largest } else { one }).collect();
        let right: Vec<u16> = own.iter().map(|&x| if x == largest { x } else { next }).collect();
        let grads = gpu.placed(80_000, &[(0, bytemuck::cast_slice(&own).to_vec(), dtype)]);
        check_written(&gpu, &forms(&gpu)[..2], &grads, &clip, bytemuck::cast_slice(&right), "largest");
    }
}

/// Sums that were put between the halves may not tell of what is not finite: it stays in every form, as in f32.
#[test]
fn infinity_stays_whatever_sums_say() {
    let Some(gpu) = gpu() else { return };
    for (dtype, infinity, start) in
        [(DType::F16, 0x7c00, 0), (DType::F16, 0x7c00, 2), (DType::Bf16, 0x7f80, 0), (DType::Bf16, 0x7f80, 2)]
    {
        infinity_stays(&gpu, dtype, infinity, start);
    }
}

fn infinity_stays(gpu: &Gpu, dtype: DType, infinity: u16, start: usize) {
    let mut own: Vec<u16> = (0..20_000).map(|i| 0x3c00 + (i % 64) as u16).collect();
    // A quiet NaN, which a product leaves as it is.
    let quiet = if dtype == DType::F16 { 0x200 } else { 0x40 };
    (own[7], own[9000], own[19_999]) = (infinity, infinity | 0x8000, infinity | quiet);
    let grads = gpu.placed(40_004, &[(start, bytemuck::cast_slice(&own).to_vec(), dtype)]);
    let before = gpu.read::<u8>(grads[0].buffer());
    for clipper in &forms(gpu)[..2] {
        gpu.queue.write_buffer(grads[0].buffer(), 0, &before);
        let pass = clipper.prepare(&grads, &Clip::global_norm(0.5)).unwrap();
        let mut encoder = gpu.device.create_command_encoder(&Default::default());
        pass.record_norm(&mut encoder);
        gpu.queue.submit([encoder.finish()]);
        let sum = gpu.read::<Sum>(pass.segment_sums())[0];
        gpu.queue.write_buffer(
            pass.segment_sums(),
            0,
            bytemuck::bytes_of(&Sum { non_finite: 0, nan: 0, first: NONE, ..sum }),
        );
        let mut encoder = gpu.device.create_command_encoder(&Default::default());
        pass.record_apply(&mut encoder);
        gpu.queue.submit([encoder.finish()]);
        let after = &gpu.read::<u16>(grads[0].buffer())[start / 2..];
        assert!(after[0] < own[0], "{:x}", after[0]);
        let stayed = [7, 9000, 19_999].map(|i| after[i]);
        assert_eq!(stayed, [7, 9000, 19_999].map(|i| own[i]), "{dtype} on {}", gpu.name);
    }
}
