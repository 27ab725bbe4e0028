//! Everything that a run needs to go on with the bits that it would have had, and its file.

use std::error::Error;
use std::path::Path;

use gradclip::History;

/// Batches are a function of the step, the learning rate too, and parameters of bf16 one of the masters: so
/// this is all.
pub(super) struct Checkpoint {
    /// The next one.
    pub(super) step: u64,
    /// Masters and both moments, an arena each.
    pub(super) arenas: [Vec<f32>; 3],
    /// Loss scale and counts of steps.
    pub(super) history: History,
}

impl Checkpoint {
    pub(super) fn write(&self, file: &Path) -> Result<(), Box<dyn Error>> {
        let mut bytes = Vec::new();
        bytes.extend(self.step.to_le_bytes());
        bytes.extend((self.arenas[0].len() as u64).to_le_bytes());
        self.arenas.iter().flatten().for_each(|value| bytes.extend(value.to_le_bytes()));
        bytes.extend(self.history.to_bytes());
        Ok(std::fs::write(file, bytes)?)
    }

    pub(super) fn read(file: &Path) -> Result<Checkpoint, Box<dyn Error>> {
        let bytes = std::fs::read(file).map_err(|e| format!("{}: {e}", file.display()))?;
        Checkpoint::parse(&bytes).ok_or_else(|| format!("{} is no checkpoint", file.display()).into())
    }

    fn parse(bytes: &[u8]) -> Option<Checkpoint> {
        let (step, bytes) = bytes.split_first_chunk()?;
        let (elements, mut bytes) = bytes.split_first_chunk()?;
        let elements = usize::try_from(u64::from_le_bytes(*elements)).ok()?;
        let mut arena = || {
            let (arena, rest) = bytes.split_at_checked(elements.checked_mul(4)?)?;
            bytes = rest;
            Some(arena.as_chunks().0.iter().map(|&word| f32::from_le_bytes(word)).collect())
        };
        let arenas = [arena()?, arena()?, arena()?];
        let history = History::from_bytes(bytes).ok()?;
        Some(Checkpoint { step: u64::from_le_bytes(*step), arenas, history })
    }
}
