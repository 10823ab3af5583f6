//! What was probably meant by a misspelt word.

/// The one of `known` that is nearest to `word`; `None` if none is near: more than one letter in
/// three would have to change (insertions, deletions, replacements and swaps of neighbours; case,
/// hyphens and underscores do not count).
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let wanted = plain(word);
    let distance = |known: &str| strsim::damerau_levenshtein(&wanted, &plain(known));
    let (distance, near) = known.into_iter().map(|known| (distance(known), known)).min_by_key(|(d, _)| *d)?;
    (distance * 3 <= wanted.chars().count()).then_some(near)
}

fn plain(word: &str) -> String {
    word.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_find_the_word_and_other_words_none() {
        let known = ["score_threshold", "deadline_ms", "model"];
        for (word, near) in [
            ("score_treshold", Some("score_threshold")),
            ("Score-Threshold", Some("score_threshold")),
            ("deadilne_ms", Some("deadline_ms")),
            ("modle", Some("model")),
            ("jpeg_quality", None),
            ("a", None),
            ("", None),
        ] {
            assert_eq!(nearest(word, known), near, "{word}");
        }
    }
}
