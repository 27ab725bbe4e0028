//! The forms of the kernels that hardware runs (loads by 16 bytes, whole chunks in flight) have the bits of the
//! definition, whatever elements are, wherever they begin and however a device multiplies.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::{
    DISTRIBUTIONS, Data, Element, Gpu, Placed, Placing, Random, Tensor, assert_same, data, gpu, named, traced,
};
use gradclip::layout::{CHUNK, COLUMNS, NONE, Partial, ROWS, Sum};
use gradclip::{Clip, Clipper, ClipperOptions, NonFinite, NormType, Units};
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

/// Magnitudes of elements as f32 bits, by conversions of another crate.
fn magnitudes(data: &Data) -> Vec<u32> {
    data.floats().iter().map(|x| x.to_bits() & 0x7fff_ffff).collect()
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
    for element in [Element::F16, Element::Bf16] {
        let own = named([Data::from_bytes(element, bytemuck::cast_slice(&patterns))]);
        let magnitudes = magnitudes(&own[0].data);
        for &norm in gpu.norms() {
            let expected: Vec<Partial> =
                magnitudes.chunks(CHUNK_).map(|chunk| definition(chunk, norm)).collect();
            // From whole vectors, from whole words, and from the middle of a word.
            for start in [0, 2, 1] {
                let placed = Placed::at(&gpu, &own, &[(0, 2 * start)]);
                // The others differ in products of L2, and compile as long.
                let forms = if norm == NormType::Two { &forms[..] } else { &forms[..2] };
                for (form, clipper) in forms.iter().enumerate() {
                    let pass = clipper.prepare(&placed.grads, &Clip::measure().norm_type(norm)).unwrap();
                    assert_eq!(pass.plan().dispatches[0].vectors, form > 0 && start == 0);
                    gpu.run(&pass);
                    let partials = gpu.read::<Partial>(pass.partials());
                    for (i, (ours, right)) in partials.iter().zip(&expected).enumerate() {
                        assert_eq!(ours, right, "{element:?} {norm:?} from {start}, form {form}, chunk {i}");
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
        DISTRIBUTIONS.iter().enumerate().map(|(i, &kind)| data(kind, LENGTHS[i], i as u64)).collect();
    // Columns with what is not finite beside columns without.
    tensors.extend(LENGTHS.map(|len| data(DISTRIBUTIONS[0], len, 99)));
    let forms = forms(&gpu);
    (tensors[20][700], tensors[21][3], tensors[23][40_000]) = (f32::NAN, f32::INFINITY, f32::NEG_INFINITY);
    for &norm in gpu.norms() {
        let clip = Clip::measure().norm_type(norm);
        let expected: Vec<Partial> = tensors
            .iter()
            .flat_map(|t| {
                magnitudes(&t.into()).chunks(CHUNK_).map(|c| definition(c, norm)).collect::<Vec<_>>()
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
fn elements(len: usize, element: Element, seed: u64, finite: bool) -> Data {
    let mut random = Random(seed);
    let mut one = || loop {
        let bits = random.bits() as u32;
        let (bits, is_finite) = match element {
            Element::F16 => (bits & 0xffff, f16::from_bits(bits as u16).is_finite()),
            Element::Bf16 => (bits & 0xffff, bf16::from_bits(bits as u16).is_finite()),
            _ if seed.is_multiple_of(3) => (bits & 0xc7ff_ffff, true),
            _ => (bits, f32::from_bits(bits).is_finite()),
        };
        if is_finite || !finite {
            break bits;
        }
    };
    let bytes: Vec<u8> =
        (0..len).flat_map(|_| one().to_le_bytes().into_iter().take(element.size())).collect();
    Data::from_bytes(element, &bytes)
}

/// With the last byte of each element changed.
fn with_tops(data: &Data, change: impl Fn(u8) -> u8) -> Data {
    let mut bytes = data.bytes().to_vec();
    let tops = bytes.iter_mut().skip(data.element().size() - 1).step_by(data.element().size());
    tops.for_each(|byte| *byte = change(*byte));
    Data::from_bytes(data.element(), &bytes)
}

/// Elements of like size, whose products are all ones for float code.
fn alike(data: &Data) -> Data {
    let top = if data.element() == Element::F16 { 0x3c } else { 0x3f };
    with_tops(data, |byte| byte & 0x80 | top)
}

/// In every form, two of a tensor, one behind the other, become what is expected: what one writes beyond its end is seen.
fn check_written(
    gpu: &Gpu,
    forms: &[Clipper],
    placed: &Placed,
    clip: &Clip,
    expected: &[Tensor],
    what: &str,
) {
    for (form, clipper) in forms.iter().enumerate() {
        placed.restore(gpu);
        gpu.run(&clipper.prepare(&placed.grads, clip).unwrap());
        let what = format!("{what}, form {form} on {}", gpu.name);
        assert_same(&placed.read(gpu).unwrap(), expected, false, &what);
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
        for element in Element::ON_DEVICES {
            // At boundaries of 16 bytes, and by words with ends of all kinds.
            let starts =
                [(8, 64), (1000, 64), (16_384, 64), (40_008, 64), (1001, 66), (20_003, 70), (33_333, 68)];
            for (len, lead) in starts {
                let lead = if element == Element::F32 { lead & !3 } else { lead };
                let own = elements(len, element, (i + len) as u64, i < 6);
                let own = if i == 0 { alike(&own) } else { own };
                let places = [(0, lead), (0, lead + own.bytes().len())];
                let tensors = named([own.clone(), own]);
                let (_, written) = traced(&tensors, clip).unwrap();
                let placed = Placed::at(&gpu, &tensors, &places);
                let what = format!("{what}, {element:?} of {len}");
                check_written(&gpu, &forms[..2], &placed, clip, &written, &what);
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
    for (i, units) in [Units::OutputFirst, Units::OutputLast, Units::over(&[1]), Units::over(&[0, 2])]
        .into_iter()
        .enumerate()
    {
        for element in Element::ON_DEVICES {
            let mut own = elements(len, element, i as u64, true);
            if element != Element::F16 {
                // Below 2, so that norms are finite.
                own = with_tops(&own, |byte| byte & 0xbf);
            }
            if i >= 2 {
                own = alike(&own);
            }
            if i % 2 == 1 {
                // An infinity in one unit.
                let mut values = own.floats();
                values[50] = f32::INFINITY;
                own = Data::rounded(element, &values);
            }
            let places = [(0, 68), (0, 68 + own.bytes().len())];
            let tensors: Vec<Tensor> =
                named([own.clone(), own]).into_iter().map(|t| t.shape(&shape)).collect();
            let placed = Placed::at(&gpu, &tensors, &places);
            // The middle one of all units' norms clips half of them.
            let (measured, _) = traced(&tensors, &Clip::per_unit_norm(f64::INFINITY, units)).unwrap();
            let norms = measured.outcomes.iter().map(|outcome| outcome.norm);
            let mut norms: Vec<f32> = norms.filter(|n| n.is_finite()).collect();
            norms.sort_by(f32::total_cmp);
            let clip = Clip::per_unit_norm(norms[norms.len() / 2], units);
            for (what, clip) in [
                ("clipped", clip),
                ("below", clip.never_above(true)),
                ("zeros", clip.on_non_finite(NonFinite::Sanitize)),
                ("unscaled", clip.unscale(0.5).lossy_unscale(true)),
            ] {
                let (_, written) = traced(&tensors, &clip).unwrap();
                let what = format!("{what}, {element:?}, {units:?}");
                check_written(&gpu, &forms[..2], &placed, &clip, &written, &what);
            }
        }
    }
}

/// Unscaling may take an element of 16 bits beyond the largest of its type, though not of f32: it becomes that.
#[test]
fn what_would_be_beyond_the_largest_half_becomes_that() {
    let Some(gpu) = gpu() else { return };
    let clip = Clip::measure().unscale(1.003f32).lossy_unscale(true);
    for (element, largest, one, next) in
        [(Element::F16, 0x7bffu16, 0x3c00u16, 0x3c03u16), (Element::Bf16, 0x7f7f, 0x3f80, 0x3f80)]
    {
        // 1 becomes 1.003: of f16 the third above 1 (2^-10 each), of bf16 1 again (2^-7).
        let own: Vec<u16> = (0..40_000).map(|i| if i % 977 == 5 { largest } else { one }).collect();
        let right: Vec<u16> = own.iter().map(|&x| if x == largest { x } else { next }).collect();
        let [own, right] = [own, right].map(|e| named([Data::from_bytes(element, bytemuck::cast_slice(&e))]));
        let placed = gpu.place(&own, Placing::PACKED);
        check_written(&gpu, &forms(&gpu)[..2], &placed, &clip, &right, "largest");
    }
}

/// Sums that were put between the halves may not tell of what is not finite: it stays in every form, as in f32.
#[test]
fn infinity_stays_whatever_sums_say() {
    let Some(gpu) = gpu() else { return };
    for (element, infinity, quiet) in [(Element::F16, 0x7c00, 0x200), (Element::Bf16, 0x7f80, 0x40)] {
        for start in [0, 2] {
            infinity_stays(&gpu, element, [infinity, quiet], start);
        }
    }
}

/// `quiet` makes it a NaN that a product leaves as it is.
fn infinity_stays(gpu: &Gpu, element: Element, [infinity, quiet]: [u16; 2], start: usize) {
    let mut own: Vec<u16> = (0..20_000).map(|i| 0x3c00 + (i % 64) as u16).collect();
    (own[7], own[9000], own[19_999]) = (infinity, infinity | 0x8000, infinity | quiet);
    let own = named([Data::from_bytes(element, bytemuck::cast_slice(&own))]);
    let placed = Placed::at(gpu, &own, &[(0, start)]);
    for clipper in &forms(gpu)[..2] {
        placed.restore(gpu);
        let pass = clipper.prepare(&placed.grads, &Clip::global_norm(0.5)).unwrap();
        gpu.submit(|encoder| pass.record_norm(encoder));
        let sum = gpu.read::<Sum>(pass.segment_sums())[0];
        let finite = Sum { non_finite: 0, nan: 0, first: NONE, ..sum };
        gpu.queue.write_buffer(pass.segment_sums(), 0, bytemuck::bytes_of(&finite));
        gpu.submit(|encoder| pass.record_apply(encoder));
        let (after, own) = (&placed.read(gpu).unwrap()[0], &own[0].data);
        assert!(after.bits(0) < own.bits(0), "{:x}", after.bits(0));
        for i in [7, 9000, 19_999] {
            assert_eq!(after.bits(i), own.bits(i), "{element:?} on {}", gpu.name);
        }
    }
}
