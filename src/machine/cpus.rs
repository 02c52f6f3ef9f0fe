//! Sets of CPUs as the kernel writes them: lists (`0-3,8`) and masks (`00000001,0000000f`); CPUs and memory nodes of a host.

use std::collections::BTreeSet;
use std::fmt;

use crate::limits::CPU_COUNT_MAX;
use crate::machine::tree::Tree;

/// A set of CPUs, shown as a list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cpus(BTreeSet<usize>);

impl Cpus {
    /// Reads `0-3,8`; an empty text is the empty set. None when it is no list, or names a CPU beyond
    /// [`CPU_COUNT_MAX`].
    #[must_use]
    pub fn parse_list(text: &str) -> Option<Cpus> {
        let mut cpus = Cpus::default();
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last) = (number(first)?, number(last)?);
            if last < first {
                return None;
            }
            cpus.0.extend(first..=last);
        }
        Some(cpus)
    }

    /// Reads `00000001,0000000f`: words of 32 bits, the highest first. None when it is no mask.
    #[must_use]
    pub fn parse_mask(text: &str) -> Option<Cpus> {
        let mut cpus = Cpus::default();
        let words: Vec<&str> = text.trim().split(',').collect();
        for (index, word) in words.iter().rev().enumerate() {
            let bits = u32::from_str_radix(word, 16).ok().filter(|_| word.len() <= 8)?;
            let in_word = (0..32).filter(|bit| bits >> bit & 1 == 1).map(|bit| index * 32 + bit);
            cpus.0.extend(in_word);
        }
        Some(cpus).filter(|cpus| cpus.0.last().is_none_or(|last| *last < CPU_COUNT_MAX))
    }

    /// The mask, in words of 32 bits as the kernel reads it.
    #[must_use]
    pub fn mask(&self) -> String {
        let words = self.0.last().map_or(1, |last| last / 32 + 1);
        let word = |index: usize| {
            let bits = self.0.range(index * 32..(index + 1) * 32).map(|cpu| 1u32 << (cpu % 32));
            bits.fold(0, |word, bit| word | bit)
        };
        let shown: Vec<String> = (0..words).rev().map(|index| format!("{:08x}", word(index))).collect();
        shown.join(",")
    }

    /// The CPUs, in order.
    pub fn iter(&self) -> impl Iterator<Item = usize> + Clone + '_ {
        self.0.iter().copied()
    }

    /// How many.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// True without any.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// True when all of these are in `other`.
    #[must_use]
    pub fn is_within(&self, other: &Cpus) -> bool {
        self.0.is_subset(&other.0)
    }

    /// Those that are in both.
    #[must_use]
    pub fn common(&self, other: &Cpus) -> Cpus {
        Cpus(self.0.intersection(&other.0).copied().collect())
    }

    /// Those that are not in `other`.
    #[must_use]
    pub fn without(&self, other: &Cpus) -> Cpus {
        Cpus(self.0.difference(&other.0).copied().collect())
    }

    /// Adds all of `other`.
    pub fn extend(&mut self, other: &Cpus) {
        self.0.extend(&other.0);
    }
}

impl FromIterator<usize> for Cpus {
    fn from_iter<I: IntoIterator<Item = usize>>(cpus: I) -> Cpus {
        Cpus(cpus.into_iter().collect())
    }
}

impl fmt::Display for Cpus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut ranges: Vec<(usize, usize)> = Vec::new();
        for cpu in self.iter() {
            match ranges.last_mut() {
                Some((_, last)) if *last + 1 == cpu => *last = cpu,
                _ => ranges.push((cpu, cpu)),
            }
        }
        let shown = |(first, last): &(usize, usize)| match first == last {
            true => first.to_string(),
            false => format!("{first}-{last}"),
        };
        f.write_str(&ranges.iter().map(shown).collect::<Vec<_>>().join(","))
    }
}

fn number(text: &str) -> Option<usize> {
    let is_number = !text.trim().is_empty() && text.trim().bytes().all(|byte| byte.is_ascii_digit());
    text.trim().parse().ok().filter(|number| is_number && *number < CPU_COUNT_MAX)
}

/// A NUMA node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Its number.
    pub number: usize,
    /// The CPUs that are next to its memory.
    pub cpus: Cpus,
}

/// CPUs and memory nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Topology {
    /// CPUs that run.
    pub online: Cpus,
    /// CPUs kept from the scheduler (`isolcpus`).
    pub isolated: Cpus,
    /// CPUs that the asking process may run on.
    pub allowed: Cpus,
    /// NUMA nodes; a machine of one kind of memory has one, or shows none.
    pub nodes: Vec<Node>,
}

impl Topology {
    pub(super) fn read(tree: &Tree) -> Topology {
        let list = |path: &str| tree.text(path).and_then(|text| Cpus::parse_list(&text)).unwrap_or_default();
        let number = |name: &String| name.strip_prefix("node").and_then(|rest| rest.parse::<usize>().ok());
        let mut numbers: Vec<usize> = tree.list("sys/devices/system/node").iter().filter_map(number).collect();
        numbers.sort_unstable();
        let node =
            |number: usize| Node { number, cpus: list(&format!("sys/devices/system/node/node{number}/cpulist")) };
        let allowed = super::kernel::status_field(tree, "Cpus_allowed_list");
        Topology {
            online: list("sys/devices/system/cpu/online"),
            isolated: list("sys/devices/system/cpu/isolated"),
            allowed: allowed.and_then(|text| Cpus::parse_list(&text)).unwrap_or_default(),
            nodes: numbers.into_iter().map(node).collect(),
        }
    }

    /// The CPUs next to a node's memory; none where the node is not known.
    #[must_use]
    pub fn cpus_of(&self, node: usize) -> Option<&Cpus> {
        self.nodes.iter().find(|known| known.number == node).map(|known| &known.cpus)
    }

    /// The nodes that these CPUs are of.
    #[must_use]
    pub fn nodes_of(&self, cpus: &Cpus) -> Vec<usize> {
        let touches = |node: &&Node| !node.cpus.common(cpus).is_empty();
        self.nodes.iter().filter(touches).map(|node| node.number).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read_and_shown() {
        let check = |text: &str, expected: Option<&str>| {
            assert_eq!(Cpus::parse_list(text).map(|cpus| cpus.to_string()).as_deref(), expected, "{text}");
        };
        check("", Some(""));
        check("0", Some("0"));
        check("0-3,8", Some("0-3,8"));
        check("8, 0-2 ,3\n", Some("0-3,8"));
        check("1,0,1", Some("0-1"));
        check("1023", Some("1023"));
        check("1024", None);
        check("3-2", None);
        check("a", None);
        check("-1", None);
        check("+1", None);
        check("1-", None);
        check("0-9999999999999999999999", None);
    }

    #[test]
    fn masks_are_read_and_shown() {
        let check = |text: &str, list: &str, mask: &str| {
            let cpus = Cpus::parse_mask(text).unwrap_or_else(|| panic!("{text}"));
            assert_eq!((cpus.to_string().as_str(), cpus.mask().as_str()), (list, mask), "{text}");
            assert_eq!(Cpus::parse_mask(&cpus.mask()), Some(cpus), "{text}");
        };
        check("3", "0-1", "00000003");
        check("00", "", "00000000");
        check("00000001,00000000\n", "32", "00000001,00000000");
        check("ff000000,0000000f", "0-3,56-63", "ff000000,0000000f");
        assert_eq!(Cpus::parse_mask(""), None);
        assert_eq!(Cpus::parse_mask("xyz"), None);
        assert_eq!(Cpus::parse_mask("100000000"), None);
        let far = format!("1{}", ",00000000".repeat(32));
        assert_eq!(Cpus::parse_mask(&far), None, "CPU 1024");
    }

    #[test]
    fn sets_are_compared() {
        let cpus = |text: &str| Cpus::parse_list(text).unwrap();
        assert!(cpus("1-2").is_within(&cpus("0-3")) && !cpus("1-4").is_within(&cpus("0-3")));
        assert_eq!(cpus("0-4").common(&cpus("3-9")), cpus("3-4"));
        assert_eq!(cpus("0-4").without(&cpus("3-9")), cpus("0-2"));
    }

    #[test]
    fn nodes_of_a_host_with_two() {
        let (_folder, tree) = crate::machine::testing::unpack("two_cards");
        let topology = Topology::read(&tree);
        assert_eq!(topology.online.to_string(), "0-7");
        let shown: Vec<String> = topology.nodes.iter().map(|node| node.cpus.to_string()).collect();
        assert_eq!(shown, ["0-3", "4-7"]);
        assert_eq!(topology.nodes_of(&Cpus::parse_list("3-4").unwrap()), [0, 1]);
        assert_eq!(topology.cpus_of(1).unwrap().to_string(), "4-7");
        assert_eq!(topology.cpus_of(2), None);
    }
}
