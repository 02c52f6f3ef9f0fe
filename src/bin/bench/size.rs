//! Payload sizes: one size, a range, or sizes with weights. Which size an event has follows from its number, so that a
//! request that is sent again is the same request.

use std::fmt;
use std::str::FromStr;

/// What one event may hold on the wire of the v5 protocol, less what the server keeps for itself.
pub(crate) const SIZE_MAX: u32 = 16_777_216 - 10_000 - 1_000;

/// A distribution of sizes in bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Sizes {
    One(u32),
    /// Both ends included, each size equally likely.
    Range(u32, u32),
    /// Sizes and their weights, and the weights' sum.
    Weighted(Vec<(u32, u32)>, u32),
}

impl Sizes {
    /// The size that belongs to `number`; any number has one, and neighbours differ.
    pub(crate) fn of(&self, number: u64) -> u32 {
        match self {
            Self::One(size) => *size,
            Self::Range(low, high) => low + below(number, high - low + 1),
            Self::Weighted(sizes, sum) => {
                let mut left = below(number, *sum);
                for (size, weight) in sizes {
                    match left.checked_sub(*weight) {
                        Some(rest) => left = rest,
                        None => return *size,
                    }
                }
                sizes[0].0
            }
        }
    }

    pub(crate) fn largest(&self) -> u32 {
        match self {
            Self::One(size) => *size,
            Self::Range(_, high) => *high,
            Self::Weighted(sizes, _) => sizes.iter().map(|(size, _)| *size).max().unwrap_or(0),
        }
    }
}

impl FromStr for Sizes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.contains(':') {
            return weighted(text);
        }
        let Some((low, high)) = text.split_once('-') else { return Ok(Self::One(bytes(text)?)) };
        let (low, high) = (bytes(low)?, bytes(high)?);
        if low > high {
            return Err(format!("the range begins at {low} and ends at {high}; write the smaller size first"));
        }
        Ok(Self::Range(low, high))
    }
}

impl fmt::Display for Sizes {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::One(size) => write!(out, "{size}"),
            Self::Range(low, high) => write!(out, "{low}-{high}"),
            Self::Weighted(sizes, _) => {
                let parts: Vec<_> = sizes.iter().map(|(size, weight)| format!("{size}:{weight}")).collect();
                write!(out, "{}", parts.join(","))
            }
        }
    }
}

fn weighted(text: &str) -> Result<Sizes, String> {
    let mut sizes = Vec::new();
    for part in text.split(',') {
        let (size, weight) =
            part.split_once(':').ok_or_else(|| format!("`{part}` has no weight; write SIZE:WEIGHT"))?;
        let weight: u32 = weight.trim().parse().map_err(|_| format!("the weight `{weight}` is not a whole number"))?;
        sizes.push((bytes(size)?, weight));
    }
    let sum = sizes.iter().try_fold(0_u32, |sum, (_, weight)| sum.checked_add(*weight));
    match sum {
        Some(0) => Err("all weights are 0; at least one must be more".into()),
        Some(sum) => Ok(Sizes::Weighted(sizes, sum)),
        None => Err(format!("the weights' sum is above {}; use smaller ones", u32::MAX)),
    }
}

/// A number of bytes; `k` and `m` at the end stand for 1,024 and 1,048,576.
fn bytes(text: &str) -> Result<u32, String> {
    let text = text.trim();
    let (digits, unit) = match text.as_bytes().last() {
        Some(b'k' | b'K') => (&text[..text.len() - 1], 1024),
        Some(b'm' | b'M') => (&text[..text.len() - 1], 1024 * 1024),
        _ => (text, 1),
    };
    let number: u32 = digits.parse().map_err(|_| format!("`{text}` is not a size; examples: 256, 16k, 100-2000"))?;
    match number.checked_mul(unit) {
        Some(size) if size <= SIZE_MAX => Ok(size),
        _ => Err(format!("{text} bytes; an event holds at most {SIZE_MAX}")),
    }
}

/// A number below `bound` that looks random, always the same for the same `number`.
fn below(number: u64, bound: u32) -> u32 {
    // The finish of SplitMix64: every bit of the number moves every bit of the result.
    let mut mixed = number.wrapping_add(0x9E37_79B9_7F4A_7C15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^= mixed >> 31;
    (((mixed >> 32) * u64::from(bound)) >> 32) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &Sizes) {
        assert_eq!(&text.parse::<Sizes>().unwrap(), expected, "{text}");
    }

    #[test]
    fn the_three_forms() {
        check("256", &Sizes::One(256));
        check("16k", &Sizes::One(16_384));
        check("0", &Sizes::One(0));
        check("100-2000", &Sizes::Range(100, 2000));
        check("1k-2K", &Sizes::Range(1024, 2048));
        check("256:90,4096:10", &Sizes::Weighted(vec![(256, 90), (4096, 10)], 100));
        for text in ["256", "100-2000", "256:90,4096:10"] {
            assert_eq!(text.parse::<Sizes>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_is_no_size_is_refused_with_the_reason() {
        for (text, reason) in [
            ("", "not a size"),
            ("big", "not a size"),
            ("-5", "not a size"),
            ("20-10", "smaller size first"),
            ("99m", "at most"),
            ("5000m", "at most"),
            ("10:0", "weights are 0"),
            ("10:1,20", "no weight"),
            ("10:x", "whole number"),
            ("1:4294967295,2:1", "smaller ones"),
        ] {
            let error = text.parse::<Sizes>().unwrap_err();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }

    #[test]
    fn a_range_is_used_evenly_and_to_its_ends() {
        let sizes = Sizes::Range(10, 19);
        let mut seen = [0_u32; 10];
        (0..10_000).for_each(|number| seen[(sizes.of(number) - 10) as usize] += 1);
        assert!(seen.iter().all(|count| (850..1150).contains(count)), "{seen:?}");
        assert_eq!(sizes.largest(), 19);
    }

    #[test]
    fn weights_are_kept_and_a_number_keeps_its_size() {
        let sizes = Sizes::Weighted(vec![(256, 90), (4096, 10), (1, 0)], 100);
        let count = |wanted| (0..10_000).filter(|number| sizes.of(*number) == wanted).count();
        assert!((8800..9200).contains(&count(256)), "{}", count(256));
        assert_eq!((count(256) + count(4096), count(1)), (10_000, 0));
        assert_eq!(sizes.of(77), sizes.of(77));
        assert_eq!(sizes.largest(), 4096);
    }
}
