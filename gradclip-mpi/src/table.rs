//! What all ranks hold together: whether clips are alike and pieces make whole tensors, as rank 0 looks at it.

use std::collections::HashMap;

use gradclip::exchange::{CHUNK, MOST_CHUNKS};
use gradclip::{Clip, DType, Group};
use serde::{Deserialize, Serialize};

use crate::pieces::Piece;

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
}
