//! Finds the known word nearest to a mistyped one.

/// Longer words are not compared, since no typing error is that long.
const WORD_BYTES_MAX: usize = 64;

/// The candidate with the fewest changed letters, if they are few enough for a typing error.
pub(crate) fn nearest<'a>(
    word: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    if word.len() > WORD_BYTES_MAX {
        return None;
    }
    let normal = word.to_ascii_lowercase().replace('_', "-");
    let near = |candidate: &&'a str| {
        let distance = distance(normal.as_bytes(), candidate.as_bytes());
        let allowed = (candidate.len().max(normal.len()) / 3).clamp(1, 3);
        (distance <= allowed).then_some(distance)
    };
    candidates
        .into_iter()
        .filter(|candidate| candidate.len() <= WORD_BYTES_MAX)
        .filter_map(|candidate| near(&candidate).map(|distance| (distance, candidate)))
        .min_by_key(|&(distance, _)| distance)
        .map(|(_, candidate)| candidate)
}

/// Letters to insert, remove, replace or swap with their neighbour (optimal string alignment).
fn distance(a: &[u8], b: &[u8]) -> usize {
    let mut before = vec![0; b.len() + 1];
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for (i, &x) in a.iter().enumerate() {
        let mut row = vec![i + 1; b.len() + 1];
        for (j, &y) in b.iter().enumerate() {
            let replaced = last[j] + usize::from(x != y);
            row[j + 1] = replaced.min(last[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && x == b[j - 1] && a[i - 1] == y {
                row[j + 1] = row[j + 1].min(before[j - 1] + 1);
            }
        }
        before = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_typing_error_is_recognised() {
        let known = ["user", "workers", "listen", "cache", "upstream", "upstreams", "client-head"];
        for (word, meant) in [
            ("chache", Some("cache")),
            ("cahce", Some("cache")),
            ("worker", Some("workers")),
            ("Listen", Some("listen")),
            ("client_head", Some("client-head")),
            ("upsteam", Some("upstream")),
            ("proxy", None),
            ("", None),
            ("x", None),
        ] {
            assert_eq!(nearest(word, known), meant, "{word}");
        }
        assert_eq!(nearest(&"x".repeat(100_000), known), None);
    }

    #[test]
    fn the_distance_counts_letters() {
        assert_eq!(distance(b"", b"abc"), 3);
        assert_eq!(distance(b"kitten", b"sitting"), 3);
        assert_eq!(distance(b"ab", b"ba"), 1);
    }
}
