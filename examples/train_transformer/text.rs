//! What is learnt: characters as numbers, and how far simpler models get.

use std::collections::BTreeMap;

use super::model::{CONTEXT, SEED, VOCABULARY};

/// The licences as symbols, numbered in the order of their characters.
pub(super) struct Text {
    pub(super) symbols: Vec<u32>,
}

impl Text {
    pub(super) fn licences() -> Text {
        let text = concat!(include_str!("../../LICENSE-APACHE"), include_str!("../../LICENSE-MIT"));
        let characters: BTreeMap<char, u32> = text.chars().map(|c| (c, 0)).collect();
        let numbers: BTreeMap<char, u32> = characters.into_keys().zip(0..).collect();
        assert!(numbers.len() <= VOCABULARY, "{} characters are more than the vocabulary", numbers.len());
        Text { symbols: text.chars().map(|c| numbers[&c]).collect() }
    }

    /// Sequence `index` of a micro-batch, with the symbol that follows it: chosen as `common.wgsl` does.
    pub(super) fn sequence(&self, batch: u32, index: u32) -> &[u32] {
        let choices = (self.symbols.len() - CONTEXT) as u32;
        let begin = hash(hash(hash(SEED).wrapping_add(batch)).wrapping_add(index)) % choices;
        &self.symbols[begin as usize..][..=CONTEXT]
    }

    /// The cross-entropy of guessing among the whole vocabulary, in nats.
    pub(super) fn chance(&self) -> f64 {
        (VOCABULARY as f64).ln()
    }

    /// The least cross-entropy, in nats, of a model that sees one character: that of a character given the
    /// one before it.
    pub(super) fn bigram_entropy(&self) -> f64 {
        let mut pairs: BTreeMap<&[u32], u32> = BTreeMap::new();
        let mut firsts: BTreeMap<u32, u32> = BTreeMap::new();
        for pair in self.symbols.windows(2) {
            *pairs.entry(pair).or_default() += 1;
            *firsts.entry(pair[0]).or_default() += 1;
        }
        let all = (self.symbols.len() - 1) as f64;
        let surprise = |(pair, &count): (&&[u32], &u32)| {
            f64::from(count) / all * (f64::from(firsts[&pair[0]]) / f64::from(count)).ln()
        };
        pairs.iter().map(surprise).sum()
    }
}

/// PCG's output function (O'Neill 2014) as a hash.
fn hash(x: u32) -> u32 {
    let state = x.wrapping_mul(747_796_405).wrapping_add(2_891_336_453);
    let word = ((state >> ((state >> 28) + 4)) ^ state).wrapping_mul(277_803_737);
    (word >> 22) ^ word
}
