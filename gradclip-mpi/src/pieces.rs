//! Who holds what: pieces of tensors, and whether those of all ranks make whole ones.

use std::collections::HashMap;
use std::ops::Range;

use gradclip::exchange::{CHUNK, MOST_CHUNKS};
use gradclip::{Clip, DType, Group};
use serde::{Deserialize, Serialize};

/// What this rank holds of one tensor.
///
/// ```
/// use gradclip_mpi::{Piece, shard_ranges};
///
/// // A vector on this rank alone; rows 10 to 20 of a matrix of 100 × 768; this rank's share of an embedding.
/// let bias = Piece::whole("bias", 768);
/// let rows = Piece::rows("mlp", &[100, 768], 10..20);
/// let share = shard_ranges(154_389_504, 8)[3].clone();
/// let embedding = Piece::part("embedding", 154_389_504, share);
/// assert_eq!((bias.elements(), rows.elements(), embedding.elements()), (768, 7680, 19_300_352));
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Piece {
    pub(crate) name: String,
    /// Elements of the whole tensor.
    pub(crate) whole: u64,
    /// Which of them lie here.
    pub(crate) first: u64,
    pub(crate) elements: u64,
    pub(crate) dtype: DType,
    /// Name and threshold of its group; none of an excluded one.
    pub(crate) group: Option<(String, Option<f64>)>,
    /// Of what lies here, for units.
    pub(crate) shape: Option<Vec<u64>>,
    pub(crate) lr_scale: f64,
    pub(crate) weight_decay: Option<f64>,
}

impl Piece {
    /// All of a tensor: of `f32`, unless set. Ranks that hold the same elements have copies, of which one is counted.
    pub fn whole(name: impl Into<String>, elements: u64) -> Piece {
        Piece::part(name, elements, 0..elements)
    }

    /// Elements `held` of a tensor of `whole` elements, counted in the whole, row-major.
    pub fn part(name: impl Into<String>, whole: u64, held: Range<u64>) -> Piece {
        let (first, elements) = (held.start, held.end.saturating_sub(held.start));
        let dtype = DType::F32;
        let (group, shape, lr_scale, weight_decay) = (None, None, 1.0, None);
        Piece { name: name.into(), whole, first, elements, dtype, group, shape, lr_scale, weight_decay }
    }

    /// Rows `held` of a tensor of this shape: what cuts along the first axis are, those of ZeRO, FSDP and DTensor's `Shard(0)`.
    pub fn rows(name: impl Into<String>, shape: &[u64], held: Range<u64>) -> Piece {
        let row = shape.get(1..).unwrap_or_default().iter().product::<u64>();
        let whole = shape.iter().product();
        let rows = held.end.saturating_sub(held.start);
        let piece = Piece::part(name, whole, held.start.saturating_mul(row)..held.end.saturating_mul(row));
        piece.shape(&[&[rows], shape.get(1..).unwrap_or_default()].concat())
    }

    /// Sets the element type.
    #[must_use]
    pub fn dtype(self, dtype: DType) -> Piece {
        Piece { dtype, ..self }
    }

    /// Puts the tensor into a group with a threshold of its own, as [`Group::new`].
    #[must_use]
    pub fn group(self, name: impl Into<String>, threshold: impl Into<f64>) -> Piece {
        Piece { group: Some((name.into(), Some(threshold.into()))), ..self }
    }

    /// Puts the tensor into a group that is never clipped, as [`Group::excluded`].
    #[must_use]
    pub fn excluded(self, name: impl Into<String>) -> Piece {
        Piece { group: Some((name.into(), None)), ..self }
    }

    /// Sets the shape of what lies here, for scopes that cut tensors into units.
    #[must_use]
    pub fn shape(self, shape: &[u64]) -> Piece {
        Piece { shape: Some(shape.to_vec()), ..self }
    }

    /// Sets the factor of the learning rate, for steps.
    #[must_use]
    pub fn lr_scale(self, lr_scale: f64) -> Piece {
        Piece { lr_scale, ..self }
    }

    /// Sets a weight decay of its own, for steps.
    #[must_use]
    pub fn weight_decay(self, weight_decay: f64) -> Piece {
        Piece { weight_decay: Some(weight_decay), ..self }
    }

    /// What the tensor is called.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How many elements lie here.
    pub fn elements(&self) -> u64 {
        self.elements
    }

    fn end(&self) -> u64 {
        self.first.saturating_add(self.elements)
    }
}

/// Cuts `elements` for so many ranks at multiples of 16,384, as evenly as that allows: with such cuts every norm has the bits of one rank. Ranges
/// of the last ranks are empty where there are fewer chunks than ranks.
///
/// ```
/// let cuts = gradclip_mpi::shard_ranges(100_000, 3);
/// assert_eq!(cuts, [0..49_152, 49_152..81_920, 81_920..100_000]);
/// ```
pub fn shard_ranges(elements: u64, ranks: usize) -> Vec<Range<u64>> {
    let (chunks, count) = (elements.div_ceil(CHUNK), ranks.max(1) as u64);
    let (each, more) = (chunks / count, chunks % count);
    let cut = |rank: u64| ((each * rank + rank.min(more)) * CHUNK).min(elements);
    (0..ranks as u64).map(|rank| cut(rank)..cut(rank + 1)).collect()
}

/// What a rank begins with.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Declared {
    pub(crate) clip: Clip,
    pub(crate) pieces: Vec<Piece>,
}

/// A tensor of some rank, as all ranks prepare it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Tensor {
    pub(crate) name: String,
    pub(crate) dtype: DType,
    pub(crate) group: Option<(String, Option<f64>)>,
    /// Axes of what holds it, where that was told.
    pub(crate) axes: Option<usize>,
}

impl Tensor {
    pub(crate) fn group(&self) -> Option<Group> {
        let (name, threshold) = self.group.as_ref()?;
        Some(threshold.map_or_else(|| Group::excluded(name.as_str()), |t| Group::new(name.as_str(), t)))
    }
}

/// What all ranks hold together.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Table {
    /// In the order of rank 0, then what rank 1 has besides, and so on.
    pub(crate) tensors: Vec<Tensor>,
    /// Whether all cuts are at multiples of a chunk.
    pub(crate) exact: bool,
}

/// One tensor's pieces, with the ranks that hold them.
type Pieces<'d> = Vec<(usize, &'d Piece)>;

/// The table, and for each rank which tensors it counts; or what ranks disagree about.
pub(crate) fn agreed(all: &[Declared]) -> Result<(Table, Vec<Vec<bool>>), String> {
    let mut number: HashMap<&str, usize> = HashMap::new();
    let mut pieces: Vec<Pieces<'_>> = Vec::new();
    for (rank, declared) in all.iter().enumerate() {
        same_clip(&all[0].clip, rank, &declared.clip)?;
        for piece in &declared.pieces {
            let i = *number.entry(&piece.name).or_insert_with(|| {
                pieces.push(Vec::new());
                pieces.len() - 1
            });
            if pieces[i].last().is_some_and(|(last, _)| *last == rank) {
                return Err(format!("rank {rank} names tensor `{}` twice", piece.name.escape_debug()));
            }
            pieces[i].push((rank, piece));
        }
    }
    let mut counts = vec![vec![false; pieces.len()]; all.len()];
    let mut table = Table { tensors: Vec::with_capacity(pieces.len()), exact: true };
    let mut chunks = 0u64;
    for (i, own) in pieces.iter().enumerate() {
        table.tensors.push(same_tensor(own)?);
        for (rank, piece) in whole(own)? {
            counts[rank][i] = true;
            chunks = chunks.saturating_add(piece.elements.div_ceil(CHUNK));
            table.exact &= piece.first % CHUNK == 0;
        }
    }
    if chunks > MOST_CHUNKS {
        return Err(format!(
            "chunks of {CHUNK} elements on all ranks: required at most {MOST_CHUNKS}, given {chunks}"
        ));
    }
    Ok((table, counts))
}

/// That a rank has the clip of rank 0.
fn same_clip(first: &Clip, rank: usize, clip: &Clip) -> Result<(), String> {
    if first == clip {
        return Ok(());
    }
    let fields = |clip: &Clip| serde_json::to_value(clip).unwrap_or_default();
    let (first, own) = (fields(first), fields(clip));
    let names = first.as_object().into_iter().flat_map(|fields| fields.keys());
    let differs = names.filter(|name| first[name.as_str()] != own[name.as_str()]);
    let told =
        differs.map(|name| format!("{name} {} on rank 0 and {} on rank {rank}", first[name], own[name]));
    Err(format!("clip: {}", told.collect::<Vec<_>>().join(", ")))
}

/// That all that is told of a tensor is the same on all ranks.
fn same_tensor(pieces: &Pieces<'_>) -> Result<Tensor, String> {
    let &(holder, first) = &pieces[0];
    let axes = |piece: &Piece| piece.shape.as_ref().map(Vec::len);
    let rates = |piece: &Piece| (piece.lr_scale, piece.weight_decay);
    for (rank, piece) in pieces {
        let differs = [
            ("elements in all", first.whole != piece.whole, format!("{} and {}", first.whole, piece.whole)),
            ("element type", first.dtype != piece.dtype, format!("{} and {}", first.dtype, piece.dtype)),
            ("group", first.group != piece.group, format!("{:?} and {:?}", first.group, piece.group)),
            (
                "rate and decay of its own",
                rates(first) != rates(piece),
                format!("{:?} and {:?}", rates(first), rates(piece)),
            ),
            (
                "number of axes",
                axes(first) != axes(piece),
                format!("{:?} and {:?}", axes(first), axes(piece)),
            ),
        ];
        if let Some((what, _, given)) = differs.into_iter().find(|(_, differs, _)| *differs) {
            let name = first.name.escape_debug();
            return Err(format!("tensor `{name}`: {what} {given} on ranks {holder} and {rank}"));
        }
    }
    let Piece { name, dtype, group, .. } = first.clone();
    Ok(Tensor { name, dtype, group, axes: axes(first) })
}

/// The pieces that are counted, each by the first rank that holds it: together the whole tensor.
fn whole<'d>(pieces: &Pieces<'d>) -> Result<Pieces<'d>, String> {
    let name = pieces[0].1.name.escape_debug();
    let mut sorted: Pieces<'d> = pieces.iter().filter(|(_, piece)| piece.elements > 0).copied().collect();
    sorted.sort_by_key(|(rank, piece)| (piece.first, piece.elements, *rank));
    sorted.dedup_by_key(|(_, piece)| (piece.first, piece.elements));
    let mut until = 0;
    let mut before = 0;
    for (rank, piece) in &sorted {
        let held = piece.first..piece.end();
        if piece.first < until {
            return Err(format!(
                "tensor `{name}`: rank {rank} holds elements {held:?}, of which rank {before} has some: pieces are the same, or apart"
            ));
        }
        if piece.first > until {
            return Err(format!("tensor `{name}`: elements {:?} are on no rank", until..piece.first));
        }
        (until, before) = (held.end, *rank);
    }
    let all = pieces[0].1.whole;
    match until {
        _ if until < all => Err(format!("tensor `{name}`: elements {:?} are on no rank", until..all)),
        _ if until > all => {
            Err(format!("tensor `{name}`: rank {before} holds elements up to {until} of {all}"))
        }
        _ => Ok(sorted),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(pieces: &[&[Piece]]) -> Vec<Declared> {
        let clip = Clip::global_norm(1.0);
        pieces.iter().map(|pieces| Declared { clip, pieces: pieces.to_vec() }).collect()
    }

    #[test]
    fn whatever_makes_whole_tensors_is_agreed_on() {
        let [a, b] = [Piece::whole("a", 10), Piece::whole("b", 5)];
        let cut = |held| Piece::part("c", 40_000, held);
        let all = of(&[
            &[b.clone(), cut(0..CHUNK)],
            &[],
            &[a.clone(), b.clone(), cut(CHUNK..40_000)],
            &[cut(7..7), a.clone(), cut(CHUNK..40_000)].map(|p| p)[1..],
        ]);
        let (table, counts) = agreed(&all).unwrap();
        let names: Vec<&str> = table.tensors.iter().map(|t| t.name.as_str()).collect();
        assert_eq!((names, table.exact), (vec!["b", "c", "a"], true));
        assert_eq!(counts, [[true, true, false], [false; 3], [false, true, true], [false; 3]].map(Vec::from));
        let odd = of(&[&[cut(0..17)], &[cut(17..40_000)]]);
        assert!(!agreed(&odd).unwrap().0.exact);
    }

    #[test]
    fn what_ranks_disagree_about_is_told() {
        let cut = |held| Piece::part("c", 100, held);
        let told = |pieces: &[&[Piece]], words: &str| {
            let error = agreed(&of(pieces)).unwrap_err();
            assert!(error.contains(words), "{error}");
        };
        told(&[&[cut(0..50)], &[cut(60..100)]], "elements 50..60 are on no rank");
        told(&[&[cut(0..50)], &[]], "elements 50..100 are on no rank");
        told(&[&[cut(0..50)], &[cut(40..100)]], "rank 1 holds elements 40..100, of which rank 0 has some");
        told(&[&[cut(0..120)]], "up to 120 of 100");
        told(&[&[cut(0..50), cut(50..100)]], "twice");
        told(
            &[&[Piece::whole("c", 9)], &[Piece::whole("c", 10)]],
            "elements in all 9 and 10 on ranks 0 and 1",
        );
        told(&[&[cut(0..100)], &[cut(0..100).dtype(DType::F16)]], "element type f32 and f16");
        told(&[&[cut(0..100)], &[cut(0..100).excluded("x")]], "group None and");
        told(&[&[Piece::whole("c", 1 << 41)]], "at most 67108864");
        let mut all = of(&[&[], &[]]);
        all[1].clip = Clip::per_tensor_norm(2.0);
        let error = agreed(&all).unwrap_err();
        assert!(error.contains("scope \"Global\" on rank 0 and \"Tensor\" on rank 1"), "{error}");
        assert!(error.contains("threshold"), "{error}");
    }

    #[test]
    fn ranges_cover_all_at_chunks() {
        for elements in [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 10 * CHUNK + 3, 154_389_504] {
            for ranks in [1, 2, 3, 7, 64] {
                let cuts = shard_ranges(elements, ranks);
                assert_eq!((cuts.len(), cuts[0].start, cuts[ranks - 1].end), (ranks, 0, elements));
                assert!(cuts.windows(2).all(|c| c[0].end == c[1].start));
                assert!(cuts.iter().all(|c| c.start % CHUNK == 0 || c.start == elements));
                let chunks = cuts.iter().map(|c| (c.end - c.start).div_ceil(CHUNK));
                let (least, most) = (chunks.clone().min().unwrap(), chunks.max().unwrap());
                assert!(most - least <= 1);
            }
        }
    }
}
