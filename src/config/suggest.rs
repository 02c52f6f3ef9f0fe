//! The known name that is most like an unknown one.

/// The candidate nearest to `unknown`, if one is near enough to be what was meant.
pub(super) fn nearest(unknown: &str, candidates: impl Iterator<Item = String>) -> Option<String> {
    // A third of the letters may differ, which "--gossip-seeds" and "IntTcpPrt" keep well below.
    let distance_max = (unknown.chars().count() / 3).clamp(1, 5);
    let unknown = unknown.to_lowercase();
    let length = unknown.chars().count();
    candidates
        // No less than this must be inserted or removed.
        .filter(|candidate| candidate.chars().count().abs_diff(length) <= distance_max)
        .map(|candidate| (distance(&unknown, &candidate.to_lowercase()), candidate))
        .filter(|(distance, _)| *distance <= distance_max)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Levenshtein's distance: letters to insert, remove or replace.
fn distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, left_letter) in left.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, right_letter) in right.iter().enumerate() {
            let replaced = diagonal + usize::from(left_letter != *right_letter);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances() {
        let check = |left: &str, right: &str, expected: usize| {
            assert_eq!(distance(left, right), expected, "{left} {right}");
            assert_eq!(distance(right, left), expected, "{right} {left}");
        };
        check("", "", 0);
        check("", "abc", 3);
        check("intip", "intip", 0);
        check("intip", "extip", 2);
        check("kitten", "sitting", 3);
        check("clustersize", "clustersze", 1);
    }

    #[test]
    fn only_a_near_name_is_suggested_and_the_first_of_equals() {
        let check = |unknown: &str, expected: Option<&str>| {
            let candidates = ["IntIp", "ExtIp", "GossipSeed"].map(String::from).into_iter();
            assert_eq!(nearest(unknown, candidates).as_deref(), expected, "{unknown}");
        };
        check("IntIpp", Some("IntIp"));
        check("GOSSIPSEEDS", Some("GossipSeed"));
        check("xntip", Some("IntIp"));
        check("Banana", None);
        check("", None);
    }
}
