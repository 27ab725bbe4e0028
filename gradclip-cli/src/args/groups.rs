//! `--group` and `--exclude`: tensors with a threshold of their own, and tensors left out.

use gradclip::Group;

use crate::args::options::Own;
use crate::args::precision::Precision;
use crate::failure::Failure;
use crate::input::Set;
use crate::text;

#[derive(clap::Args)]
pub(crate) struct GroupArgs {
    /// Tensors whose names match PATTERN (`*` and `?` match within names) get the threshold C of their own: with
    /// --max-norm and --sign they share one norm, and so do the tensors in no group; with the other rules C is
    /// that of each of them. May be repeated; no tensor may be in two groups
    #[arg(long, value_name = "PATTERN=C", allow_hyphen_values = true, value_parser = crate::args::options::own)]
    pub(crate) group: Vec<Own>,
    /// Tensors whose names match PATTERN are neither in a shared norm nor clipped. May be repeated; wins over
    /// --group
    #[arg(long, value_name = "PATTERN", allow_hyphen_values = true)]
    pub(crate) exclude: Vec<String>,
}

/// What the options say of a tensor.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Part {
    /// Nothing.
    Rest,
    /// In a group with a threshold of its own.
    Own(Group),
    /// Left out.
    Excluded(Group),
}

impl Part {
    /// The group, where the tensor has one.
    pub(crate) fn group(&self) -> Option<&Group> {
        match self {
            Part::Rest => None,
            Part::Own(group) | Part::Excluded(group) => Some(group),
        }
    }
}

impl GroupArgs {
    /// One part a gradient.
    pub(crate) fn parts(&self, set: &Set, precision: Precision) -> Result<Vec<Part>, Failure> {
        let names = set.names();
        let matched = |pattern: &str| -> Vec<bool> {
            names.iter().map(|names| names.iter().any(|name| matches(pattern, name))).collect()
        };
        let mut parts = vec![Part::Rest; names.len()];
        let mut owner: Vec<Option<&str>> = vec![None; names.len()];
        for Own { pattern, threshold } in &self.group {
            let found = matched(pattern);
            some("--group", pattern, &found)?;
            let option = format!("--group {}", text::escaped(pattern));
            let group = Group::new(pattern.as_str(), precision.scalar(&option, *threshold)?);
            for i in (0..names.len()).filter(|&i| found[i]) {
                if let Some(first) = owner[i].replace(pattern) {
                    let (first, second) = (text::escaped(first), text::escaped(pattern));
                    let name = &set.gradients[i].shown;
                    return Err(Failure::Usage(format!(
                        "--group: expected every tensor in one group at most, but both `{first}` and `{second}` match \
                         tensor `{name}`"
                    )));
                }
                parts[i] = Part::Own(group.clone());
            }
        }
        let excluded = self.excluded(set)?;
        let out = Group::excluded("--exclude");
        (0..names.len()).filter(|&i| excluded[i]).for_each(|i| parts[i] = Part::Excluded(out.clone()));
        Ok(parts)
    }

    /// Whether each gradient is left out.
    pub(crate) fn excluded(&self, set: &Set) -> Result<Vec<bool>, Failure> {
        let names = set.names();
        let mut excluded = vec![false; names.len()];
        for pattern in &self.exclude {
            let found: Vec<bool> =
                names.iter().map(|names| names.iter().any(|name| matches(pattern, name))).collect();
            some("--exclude", pattern, &found)?;
            excluded.iter_mut().zip(found).for_each(|(out, found)| *out |= found);
        }
        Ok(excluded)
    }
}

fn some(option: &str, pattern: &str, found: &[bool]) -> Result<(), Failure> {
    match found.contains(&true) {
        true => Ok(()),
        false => {
            let pattern = text::escaped(pattern);
            let expected =
                "expected a pattern that matches the name of a tensor to clip, and it matches none";
            Err(Failure::Usage(format!("{option} `{pattern}`: {expected}")))
        }
    }
}

/// Whether a name is one of a pattern, in which `*` stands for any characters and `?` for one.
fn matches(pattern: &str, name: &str) -> bool {
    let (pattern, name): (Vec<char>, Vec<char>) = (pattern.chars().collect(), name.chars().collect());
    let (mut p, mut n) = (0, 0);
    // Where the last star was, and how much of the name it has taken: it takes more where the rest fails.
    let mut star: Option<(usize, usize)> = None;
    while n < name.len() {
        match pattern.get(p) {
            Some('*') => {
                star = Some((p, n));
                p += 1;
            }
            Some(&c) if c == '?' || c == name[n] => (p, n) = (p + 1, n + 1),
            _ => match star {
                Some((at, taken)) => {
                    star = Some((at, taken + 1));
                    (p, n) = (at + 1, taken + 1);
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|&c| c == '*')
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn patterns() {
        let yes = [
            ("*", ""),
            ("*", "a"),
            ("a", "a"),
            ("?", "é"),
            ("*.bias", "layers.0.bias"),
            ("layers.?.*", "layers.3.weight"),
            ("*a*b*", "xxaybz"),
            ("a*a*a", "aaaa"),
            ("**", "x"),
        ];
        let no = [
            ("", "a"),
            ("a", ""),
            ("?", ""),
            ("a", "ab"),
            ("*.bias", "bias"),
            ("a*a*a", "aba"),
            ("[ab]", "a"),
        ];
        assert!(yes.iter().all(|(pattern, name)| matches(pattern, name)), "{yes:?}");
        assert!(!no.iter().any(|(pattern, name)| matches(pattern, name)), "{no:?}");
        // No backtracking beyond the last star, or this would never end.
        assert!(!matches(&"a*".repeat(40), &"a".repeat(39)));
    }
}
