//! What error messages are made of.

/// The beginning of `text`, without anything that could play tricks on a terminal or break the line.
pub(super) fn shown(text: &str) -> String {
    let mut shown: String = text.chars().take(SHOWN_MAX).flat_map(char::escape_debug).collect();
    if text.chars().nth(SHOWN_MAX).is_some() {
        shown += "...";
    }
    shown
}

/// `a, b or c`
pub(super) fn words<'a>(words: impl Iterator<Item = &'a str>) -> String {
    let words: Vec<_> = words.collect();
    match words.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
        _ => words.concat(),
    }
}

/// The word that was likely meant by `text`, if one is close enough.
pub(super) fn nearest<'a>(text: &str, words: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let text = text.to_ascii_lowercase();
    words
        .map(|word| (edits(&text, word), word))
        .filter(|(edits, word)| *edits <= (word.len() / 3).min(EDITS_MAX))
        .min_by_key(|(edits, _)| *edits)
        .map(|(_, word)| word)
}

/// How many octets to change, insert or remove to make `a` into `b` (Levenshtein).
pub(super) fn edits(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let change = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = change.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

/// Of a slip of the pen: two letters changed places, one hyphen too many. A word that is farther away is
/// another word.
const EDITS_MAX: usize = 2;

/// Characters of an argument that an error repeats: errors are lines a person reads.
pub(super) const SHOWN_MAX: usize = 100;
