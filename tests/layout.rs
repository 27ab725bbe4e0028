//! The records of Rust and WGSL have the same offsets, sizes and constants; the shaders are valid.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::mem::offset_of;

use gradclip::layout::*;
use gradclip::records;
use naga::{Module, TypeInner};

fn parsed(source: &str) -> Module {
    naga::front::wgsl::parse_str(source).unwrap_or_else(|e| panic!("{}", e.emit_to_string(source)))
}

/// Offsets of the members of a WGSL struct, and its size.
fn wgsl(module: &Module, name: &str) -> (Vec<u32>, u32) {
    let found = module.types.iter().find(|(_, ty)| ty.name.as_deref() == Some(name));
    match &found.unwrap_or_else(|| panic!("no struct {name}")).1.inner {
        TypeInner::Struct { members, span } => (members.iter().map(|m| m.offset).collect(), *span),
        other => panic!("{name} is {other:?}"),
    }
}

macro_rules! same {
    ($module:expr, $prefix:expr, $record:ident, $($field:ident),+) => {{
        let (offsets, size) = wgsl($module, &format!("{}{}", $prefix, stringify!($record)));
        assert_eq!(offsets, [$(offset_of!($record, $field) as u32),+], stringify!($record));
        assert_eq!(size, size_of::<$record>() as u32, stringify!($record));
    }};
}

#[test]
fn records_have_the_offsets_that_naga_computes() {
    let shared = wgsl_constants()
        + include_str!("../shaders/shared/rows.wgsl")
        + include_str!("../shaders/shared/records.wgsl");
    let shared = &parsed(&shared);
    same!(shared, "", ChunkRow, start, slot_len, partial, segment);
    same!(shared, "", SeamRow, slot, word, low, high);
    same!(shared, "", Partial, lo, hi, exponent, non_finite);
    same!(
        shared,
        "",
        UnitRow,
        base,
        slot,
        first_unit,
        units,
        first,
        len,
        partial,
        segment,
        kept,
        kept_high,
        kept_low,
        reduced,
        reduced_high,
        reduced_low
    );
    same!(shared, "", MapRow, start, slot_len, first, segment, low, kept, high, outer);
    same!(shared, "", Run, first, count, target, stride, lanes, tensor, segment, before, after);
    same!(shared, "", SegmentRow, first, count, limit, step, parameters);
    same!(
        shared,
        "",
        Job,
        serial,
        runs,
        first_row,
        rows,
        until,
        unscale,
        largest,
        total,
        adaptive,
        begins,
        parameters,
        measures,
        stages,
        segment_serial,
        segment_runs,
        decided
    );
    same!(shared, "", Setting, threshold, lift, unscale, eps, floor, policy, rule, total, below, raised);
    same!(shared, "", Adaptation, rule, window, steps, reaction, a, b, c, d, e, f, least, most);
    same!(shared, "", Skipping, above, sigma, window, first, most, flags);
    same!(shared, "", State, steps, observed, mean, variance, threshold, alone, counted, over, raised);
    same!(
        shared,
        "",
        Hyper,
        lr,
        decay,
        share,
        second_decay,
        second_share,
        eps,
        momentum_share,
        rectification,
        growth,
        backoff,
        interval,
        flags,
        limit,
        limit_eps,
        limit_most,
        reset_interval,
        reset_warmup,
        limit_delay
    );
    same!(
        shared,
        "",
        FusedRow,
        start,
        slot_len,
        first,
        segment,
        parameter,
        moment,
        second_moment,
        largest_moment,
        half,
        tensor
    );
    same!(shared, "", Counting, micro_batches, sums, steps, ends);
    same!(shared, "", MeasuredRow, row, pad, update, parameter);
    same!(
        shared,
        "",
        FusedTensor,
        lr_scale,
        weight_decay,
        ratio,
        pair,
        elements,
        seed,
        low,
        kept,
        high,
        outer
    );
    same!(shared, "", Coalescing, rows, width, entries, added, first_index, count, first_value, window_bits);
    same!(&parsed(include_str!("../shaders/shared/long_sum.wgsl")), "", LongSum, top, not_in_all, sum);
    same!(shared, "", TablePart, first, len, width);
    same!(shared, "", ExampleRow, start, slot_len, first, segment, to, stride, examples, tensor);
    same!(shared, "", Releasing, unit, lot, scale_low, scale_high, drop, seed_low, seed_high);
    // Those that programs bind are declared once more for them.
    for (module, prefix) in [(shared, ""), (&parsed(&records::wgsl("Clip")), "Clip")] {
        same!(module, prefix, Sum, mantissa, exponent, non_finite, nan, first, pad);
        same!(
            module,
            prefix,
            Tally,
            steps,
            clipped_steps,
            skipped_steps,
            clipped,
            skipped,
            changed,
            unscale,
            non_finite
        );
        same!(
            module,
            prefix,
            Progress,
            scale,
            unscale,
            finite_steps,
            updates,
            moves,
            share,
            correction,
            second_correction,
            skips,
            mean_correction,
            momentum_product,
            gradient_correction,
            reasons,
            strikes,
            spikes,
            watched
        );
        same!(module, prefix, Inputs, loss, norm);
        same!(
            module,
            prefix,
            Outcome,
            norm,
            norm_mantissa,
            norm_exponent,
            threshold,
            coefficient,
            scale,
            rescale,
            action,
            flags,
            non_finite,
            first_non_finite,
            unscale
        );
    }
}

#[test]
fn records_for_programs_have_the_names_that_they_ask_for() {
    let plain = parsed(&records::wgsl(""));
    wgsl(&plain, "Outcome");
    let constants = |module: &Module| -> Vec<String> {
        module.constants.iter().filter_map(|(_, constant)| constant.name.clone()).collect()
    };
    assert!(constants(&plain).contains(&"SKIPPED".into()));
    assert!(constants(&parsed(&records::wgsl("Clip"))).iter().all(|name| name.starts_with("CLIP_")));
}

#[test]
fn a_length_and_a_slot_fit_their_word() {
    assert_eq!(CHUNK, ROWS * COLUMNS);
    const { assert!(CHUNK < 1 << LEN_BITS) };
}
