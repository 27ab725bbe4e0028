//! Paths that Rust code names, as far as `tests/rooms.rs` needs them.

use std::collections::BTreeSet;

/// The length of a literal in quotes.
fn quoted(text: &str) -> usize {
    let mut escaped = true;
    let ends = |c: char| {
        let ends = c == '"' && !escaped;
        escaped = c == '\\' && !escaped;
        ends
    };
    text.find(ends).map_or(text.len(), |at| at + 1)
}

/// Names, `::`, and other characters one by one: without comments, literals and lifetimes.
pub(crate) fn tokens(text: &str) -> Vec<&str> {
    let mut tokens = Vec::new();
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let word = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
        let until = |end: &str| rest.find(end).map_or(rest.len(), |at| at + end.len());
        let (length, kept) = match c {
            '/' if rest.starts_with("//") => (until("\n"), false),
            '/' if rest.starts_with("/*") => (until("*/"), false),
            '"' => (quoted(rest), false),
            // A character, or else a lifetime's mark.
            '\'' if rest.starts_with("'\\") => (3 + rest[3..].find('\'').map_or(0, |at| at + 1), false),
            '\'' => {
                (rest.char_indices().nth(2).filter(|(_, c)| *c == '\'').map_or(1, |(at, _)| at + 1), false)
            }
            _ if word > 0 => (word, true),
            ':' if rest.starts_with("::") => (2, true),
            _ => (c.len_utf8(), !c.is_whitespace()),
        };
        if kept {
            tokens.push(&rest[..length]);
        }
        rest = &rest[length..];
    }
    tokens
}

/// What is left without items for tests alone, and the modules in other files among those.
pub(crate) fn without_tests(mut tokens: &[&str]) -> (Vec<String>, BTreeSet<String>) {
    const TEST: [&str; 7] = ["#", "[", "cfg", "(", "test", ")", "]"];
    let (mut kept, mut left_out) = (Vec::new(), BTreeSet::new());
    while let Some((&token, rest)) = tokens.split_first() {
        if !tokens.starts_with(&TEST) {
            kept.push(token.to_owned());
            tokens = rest;
            continue;
        }
        let (mut depth, mut length) = (0, 0);
        for &token in &tokens[TEST.len()..] {
            length += 1;
            depth +=
                i32::from(matches!(token, "{" | "(" | "[")) - i32::from(matches!(token, "}" | ")" | "]"));
            if depth == 0 && matches!(token, ";" | "}") {
                break;
            }
        }
        let (item, after) = tokens[TEST.len()..].split_at(length);
        if let [.., "mod", name, ";"] = item {
            left_out.insert((*name).to_owned());
        }
        tokens = after;
    }
    (kept, left_out)
}

/// The paths of a tree of `use` after `before`, and how many tokens it has.
fn tree(tokens: &[String], before: &[String], paths: &mut Vec<Vec<String>>) -> usize {
    let mut path = before.to_vec();
    let mut at = 0;
    while let Some(token) = tokens.get(at).map(String::as_str) {
        match token {
            "{" => loop {
                // Past the brace, or a comma.
                at += 1;
                if tokens.get(at).is_some_and(|token| token != "}") {
                    at += tree(&tokens[at..], &path, paths);
                }
                if tokens.get(at).is_none_or(|token| token != ",") {
                    return at + 1;
                }
            },
            "," | ";" | "}" => break,
            "::" => at += 1,
            "as" => at += 2,
            name => {
                path.push(name.to_owned());
                at += 1;
            }
        }
    }
    paths.push(path);
    at
}

/// All paths of `use` lines and of code.
pub(crate) fn paths(tokens: &[String]) -> Vec<Vec<String>> {
    let mut paths = Vec::new();
    let mut at = 0;
    while let Some(token) = tokens.get(at) {
        let next = tokens.get(at + 1).map_or("", String::as_str);
        let visibility = at > 1 && tokens[at - 1] == "in" && tokens[at - 2] == "(";
        at += match token.as_str() {
            // `use<..>` is no import.
            "use" if next != "<" => 1 + tree(&tokens[at + 1..], &[], &mut paths),
            name if name != "::" && next == "::" && !visibility => {
                let names = tokens[at..].chunks(2).take_while(|pair| pair.get(1).is_some_and(|t| t == "::"));
                let length = 2 * names.count() + 1;
                let path = tokens[at..(at + length).min(tokens.len())].iter().step_by(2).cloned();
                paths.push(path.collect());
                length
            }
            _ => 1,
        };
    }
    paths
}
