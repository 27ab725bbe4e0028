//! What is learnt: the characters of a text as numbers.

use std::collections::BTreeMap;

use crate::error::WebError;

/// Characters that are told apart; rarer ones are one symbol together.
const MOST: usize = 96;
/// Kernels take symbols by four.
const BY: usize = 4;

/// A text as symbols.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text {
    /// One number a character.
    pub symbols: Vec<u32>,
    /// How many numbers there may be: a multiple of four, of which the last may never occur.
    pub vocabulary: u32,
}

impl Text {
    /// Numbers the characters of a text by how often they occur, the most frequent first.
    ///
    /// # Errors
    ///
    /// [`WebError::Text`] where the text has no sequence of `length` symbols and one to follow it, with a choice of where to
    /// begin.
    pub fn new(text: &str, length: u32) -> Result<Text, WebError> {
        let mut counts: BTreeMap<char, usize> = BTreeMap::new();
        text.chars().for_each(|c| *counts.entry(c).or_default() += 1);
        let given = text.chars().count();
        let required = length as usize + 1;
        if given <= required {
            return Err(WebError::Text { required, given });
        }
        let mut characters: Vec<(char, usize)> = counts.into_iter().collect();
        // Stable: of characters that are as frequent, those of smaller numbers come first.
        characters.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        let rare = characters.len().min(MOST - 1) as u32;
        let numbers: BTreeMap<char, u32> =
            characters.iter().take(MOST - 1).map(|(c, _)| *c).zip(0..).collect();
        let symbols = text.chars().map(|c| numbers.get(&c).copied().unwrap_or(rare)).collect();
        let distinct = characters.len().min(MOST);
        Ok(Text { symbols, vocabulary: distinct.next_multiple_of(BY) as u32 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frequent_characters_come_first() {
        let text = Text::new("abbccc bb", 4).unwrap();
        // b four times, c three times; of the others the space has the smallest number.
        assert_eq!(text.symbols, [3, 0, 0, 1, 1, 1, 2, 0, 0]);
        assert_eq!(text.vocabulary, 4);
        assert!(matches!(Text::new("abcde", 4), Err(WebError::Text { required: 5, given: 5 })));
    }

    #[test]
    fn rare_characters_are_one_symbol() {
        let many: String = (0..300).filter_map(|c| char::from_u32(0x4e00 + c)).collect();
        let text = Text::new(&many, 4).unwrap();
        assert_eq!(text.vocabulary, 96);
        assert_eq!(text.symbols[94], 94);
        assert!(text.symbols[95..].iter().all(|&symbol| symbol == 95));
    }
}
