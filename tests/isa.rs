//! What `benches/isa.rs` reads from listings of machine code, on small ones whose counts can be seen by eye.
#![allow(missing_docs, dead_code, clippy::unwrap_used)]

#[path = "../benches/isa/dominators.rs"]
mod dominators;
#[path = "../benches/isa/graph.rs"]
mod graph;
#[path = "../benches/isa/listing.rs"]
mod listing;
#[path = "../benches/isa/path.rs"]
mod path;

use graph::{Graph, Through};
use listing::{Does, blocks};
use path::{Counts, Flight, Work, counts};

/// Two slots, a rare case, a condition that is tested twice, and both sides of a branch that lanes take apart.
const LOOP: &str = include_str!("data/isa/loop.s");

fn work(names: &'static [&'static str]) -> Work<'static> {
    Work { elements: Some(64), loaded: 4, one_counter: false, through: Through { names, most: u32::MAX } }
}

fn counted(listing: &str, work: Work<'_>) -> Counts {
    counts(listing, work).unwrap()
}

/// Labels of the blocks of the hot part.
fn way(listing: &str, counts: &Counts) -> Vec<String> {
    let lines: Vec<&str> = listing.lines().collect();
    let blocks = blocks(listing);
    counts.way.iter().map(|&at| lines[blocks[at].line].trim_end_matches(':').to_owned()).collect()
}

#[test]
fn the_hot_way_takes_one_slot_skips_what_is_rare_and_one_side_of_a_branch() {
    let counts = counted(LOOP, work(&[]));
    // One of the slots by the switch, not both; not BB7, which nobody needs; not BB9, as nothing demands it; and
    // where lanes part, the cheaper side, BB15, but not neither.
    assert_eq!(
        way(LOOP, &counts),
        ["BB1", "BB2", "BB3", "BB4", "BB6", "BB8", "BB10", "BB12", "BB15", "BB13"]
    );
    assert_eq!(counts.elements, 8.0);
    // Address, two maxima, two comparisons, one move.
    assert_eq!(counts.vector, 6.0 / 8.0);
    // Two comparisons with the trip count and the threshold, two of the switch, the descriptors, three of exec and
    // its copies, the increment.
    assert_eq!(counts.scalar, 11.0 / 8.0);
}

#[test]
fn what_a_kernel_is_for_is_on_the_way() {
    let counts = counted(LOOP, work(&["v_mul_", "v_mad_"]));
    assert!(way(LOOP, &counts).contains(&"BB9".to_owned()));
    assert_eq!(counts.vector, 8.0 / 8.0);
    // Once before the loop, eight turns of eight elements, and after it the cheaper way.
    assert_eq!(counts.whole, Some((1.0 + 8.0 * 8.0 + 1.0) / 64.0));
}

/// A loop that only fetches is a turn of the one around it, where that does what the kernel is for.
#[test]
fn a_loop_that_only_fetches_belongs_to_the_one_around_it() {
    let nested = "BB0:\n s_load_dwordx4 s[4:7], s[0:1], null\n s_load_dwordx4 s[8:11], s[2:3], null\n buffer_load_dword v1, v0, s[4:7], 0 offen\n s_mov_b32 s12, 0\n\
                  BB1:\n s_mov_b32 s13, 0\n\
                  BB2:\n buffer_load_dwordx4 v[4:7], v0, s[8:11], 0 offen\n v_add_nc_u32_e32 v0, 4, v0\n \
                  s_add_i32 s13, s13, 1\n s_cmp_lt_u32 s13, s14\n s_cbranch_scc1 BB2\n\
                  BB3:\n v_mul_f32_e32 v4, v4, v4\n v_add_f32_e32 v5, v4, v5\n v_add_f32_e32 v6, v5, v6\n \
                  s_add_i32 s12, s12, 1\n s_cmp_lt_u32 s12, s15\n s_cbranch_scc1 BB1\n\
                  BB4:\n s_endpgm\n";
    let counts = counted(nested, work(&["v_mul_f32"]));
    assert_eq!((counts.elements, counts.vector), (4.0, 4.0 / 4.0));
    assert_eq!(counts.whole, Some(1.0));
    // Where the loop within does it, the one around is not counted.
    let within = nested.replace("v_add_nc_u32_e32 v0, 4, v0", "v_mul_f32_e32 v0, v0, v0");
    assert_eq!(counted(&within, work(&["v_mul_f32"])).vector, 1.0 / 4.0);
}

#[test]
fn a_condition_tested_twice_holds_twice_until_its_registers_are_written() {
    let both = "BB0:\n s_load_dwordx4 s[4:7], s[2:3], null\n s_load_dwordx4 s[8:11], s[0:1], null\n \
                buffer_load_dword v1, v0, s[4:7], 0 offen\n buffer_load_dword v1, v0, s[8:11], 0 offen\n \
                s_cmpk_ge_u32 s12, 0x1000\n s_cbranch_scc0 BB2\n\
                BB1:\n v_mul_f32_e32 v1, v1, v1\n s_nop 0\n\
                BB2:\n s_cmpk_ge_u32 s12, 0x1000\n s_cbranch_scc0 BB4\n\
                BB3:\n v_mov_b32_e32 v2, v1\n\
                BB4:\n s_endpgm\n";
    let through = work(&["v_mul_f32"]);
    assert_eq!(counted(both, through).vector, 2.0, "BB1 and so BB3");
    let written = both.replace("s_nop 0", "s_mov_b32 s12, 0");
    assert_eq!(counted(&written, through).vector, 1.0, "BB1 alone");
}

#[test]
fn loads_are_in_flight_until_a_wait_for_them() {
    // Those of the table beside them are waited for as well, but are not counted.
    assert_eq!(counted(LOOP, work(&[])).flight, Flight { loads: 2, bytes: 32 });
    let early = LOOP.replace("offset:4080 ;", "offset:4080\n\ts_waitcnt vmcnt(0) ;");
    assert_eq!(counted(&early, work(&[])).flight, Flight { loads: 2, bytes: 32 });
    let each = LOOP.replace("0 offen           ;", "0 offen\n\ts_waitcnt vmcnt(0) ;");
    assert_eq!(counted(&each, work(&[])).flight, Flight { loads: 1, bytes: 16 });
    // Nothing is waited for in a turn: what the next one loads comes on top.
    let never = LOOP.replace("s_waitcnt vmcnt", "s_nop vmcnt");
    assert_eq!(counted(&never, work(&[])).flight, Flight { loads: 4, bytes: 64 });
}

#[test]
fn stores_count_with_loads_where_there_is_one_counter() {
    let listing = "BB0:\n s_load_dwordx4 s[4:7], s[2:3], null\n s_load_dwordx4 s[8:11], s[0:1], null\n \
                   buffer_load_dword v9, v0, s[8:11], 0 offen\n s_waitcnt vmcnt(0)\n \
                   buffer_load_dword v1, v0, s[4:7], 0 offen\n buffer_store_dword v1, v0, s[4:7], 0 offen\n \
                   s_waitcnt vmcnt(1)\n buffer_load_dwordx2 v[2:3], v0, s[4:7], 0 offen\n s_endpgm\n";
    let counter = |one_counter| Work { one_counter, ..work(&[]) };
    // The wait for all but one leaves the store where both are counted, and the load where loads alone are.
    assert_eq!(counted(listing, counter(true)).flight, Flight { loads: 1, bytes: 8 });
    assert_eq!(counted(listing, counter(false)).flight, Flight { loads: 2, bytes: 12 });
}

#[test]
fn names_of_gfx11_are_the_same_instructions() {
    let renamed =
        LOOP.replace("_dwordx4 ", "_b128 ").replace("_dwordx8 ", "_b256 ").replace("_dword ", "_b32 ");
    let renamed = renamed.replace("s_andn2_b64", "s_and_not1_b64");
    assert_eq!(counted(&renamed, work(&[])), counted(LOOP, work(&[])));
}

#[test]
fn blocks_and_buffers_are_told_apart() {
    let blocks = blocks(LOOP);
    assert_eq!(blocks.len(), 18);
    assert_eq!(blocks[1].next, [2, 15], "on, or where the branch goes");
    assert_eq!(blocks[14].next, [1], "nothing falls through a branch without a condition");
    let loads = blocks.iter().flat_map(|b| &b.instructions).filter(|i| matches!(i.does, Does::Load(_)));
    // The table's descriptor came from the first of the two pointers, those of the slots through a copy of the second.
    assert_eq!(loads.map(|i| i.group).collect::<Vec<_>>(), [Some(0), Some(1), Some(1), Some(1), Some(1)]);
    let graph = Graph::new(blocks, Through::default());
    assert_eq!(graph.loops.len(), 1);
    assert_eq!((graph.loops[0].head, graph.loops[0].blocks.len()), (1, 14));
}

#[test]
fn a_listing_without_slots_has_no_counts() {
    assert_eq!(counts("BB0:\n v_mov_b32_e32 v1, 0\n s_endpgm\n", work(&[])), None);
    assert_eq!(counts("", work(&[])), None);
}
