//! Which thread runs on which processor.

use std::fmt;

use crate::limits::CPU_COUNT_MAX;

/// Which thread runs on which processor; what is missing is left to the system.
///
/// Written `log=0,control=1,background=1,edges=2-3`. Only `edges` takes several processors, as a range, or as a list
/// whose parts follow each other: `edges=2-3,6`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CpuPinning {
    /// Processor of the log thread.
    pub log: Option<usize>,
    /// Processor of the control thread.
    pub control: Option<usize>,
    /// Processor of the background thread.
    pub background: Option<usize>,
    /// Processors of the edge threads, in turn. Each at most once.
    pub edges: Vec<usize>,
}

impl CpuPinning {
    /// The processor of the edge thread with this number; with more threads than processors they share.
    #[must_use]
    pub fn edge(&self, edge: usize) -> Option<usize> {
        if self.edges.is_empty() { None } else { Some(self.edges[edge % self.edges.len()]) }
    }

    /// True when the system places all threads.
    #[must_use]
    pub fn is_off(&self) -> bool {
        *self == CpuPinning::default()
    }

    /// Reads the text form; none when it is not one.
    pub(super) fn parse(text: &str) -> Option<CpuPinning> {
        let mut pinning = CpuPinning::default();
        let mut is_in_edges = false;
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            match part.split_once('=') {
                Some((thread, processors)) => {
                    is_in_edges = thread.trim().eq_ignore_ascii_case("edges");
                    pinning.assign(&thread.trim().to_ascii_lowercase(), processors)?;
                }
                None if is_in_edges => add(&mut pinning.edges, part)?,
                None => return None,
            }
        }
        Some(pinning)
    }

    fn assign(&mut self, thread: &str, processors: &str) -> Option<()> {
        let slot = match thread {
            "log" => &mut self.log,
            "control" => &mut self.control,
            "background" => &mut self.background,
            "edges" if self.edges.is_empty() => return add(&mut self.edges, processors),
            _ => return None,
        };
        if slot.is_some() {
            return None;
        }
        *slot = Some(processor(processors)?);
        Some(())
    }
}

impl fmt::Display for CpuPinning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let single = [("log", self.log), ("control", self.control), ("background", self.background)];
        let single = single.into_iter().filter_map(|(thread, cpu)| Some(format!("{thread}={}", cpu?)));
        let edges: Vec<String> = self.edges.iter().map(ToString::to_string).collect();
        let edges = Some(format!("edges={}", edges.join(","))).filter(|_| !self.edges.is_empty());
        f.write_str(&single.chain(edges).collect::<Vec<_>>().join(","))
    }
}

fn processor(text: &str) -> Option<usize> {
    text.trim().parse().ok().filter(|number| *number < CPU_COUNT_MAX)
}

/// Reads a list of processors, `0-3,8`, each at most once; none when it is not one. Empty means none.
pub(super) fn processors(text: &str) -> Option<Vec<usize>> {
    let mut list = Vec::new();
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        add(&mut list, part)?;
    }
    Some(list)
}

/// Adds one processor or a range of them, none of which may be there already.
fn add(list: &mut Vec<usize>, part: &str) -> Option<()> {
    let (first, last) = part.split_once('-').unwrap_or((part, part));
    let (first, last) = (processor(first)?, processor(last)?);
    let is_new = first <= last && !list.iter().any(|known| (first..=last).contains(known));
    list.extend(first..=last);
    is_new.then_some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepted_texts() {
        let check = |text: &str, expected: &str| {
            let pinning = CpuPinning::parse(text).unwrap_or_else(|| panic!("{text}"));
            assert_eq!(pinning.to_string(), expected, "{text}");
            assert_eq!(CpuPinning::parse(expected), Some(pinning), "{text}");
        };
        check("", "");
        check("log=0", "log=0");
        check("log=0,control=1,edges=2-3", "log=0,control=1,edges=2,3");
        check("edges=2-3,6, log = 1", "log=1,edges=2,3,6");
        check("Edges=5,background=7", "background=7,edges=5");
        check("log=1023", "log=1023");
    }

    #[test]
    fn refused_texts() {
        let texts = [
            "log",
            "log=",
            "log=a",
            "log=1024",
            "log=-1",
            "log=0-1",
            "log=0,log=1",
            "log=0,1",
            "edges=3-2",
            "edges=1,1",
            "edges=1-3,2",
            "edges=1,edges=2",
            "main=0",
            "edges=1,x",
            "edges=0-9999999999",
            "2",
        ];
        for text in texts {
            assert_eq!(CpuPinning::parse(text), None, "{text}");
        }
    }

    #[test]
    fn lists_of_processors() {
        let check =
            |text: &str, expected: Option<&[usize]>| assert_eq!(processors(text).as_deref(), expected, "{text}");
        check("", Some(&[]));
        check("0-3,8", Some(&[0, 1, 2, 3, 8]));
        check(" 8 , 0-1,", Some(&[8, 0, 1]));
        check("1023", Some(&[1023]));
        for refused in ["1024", "3-2", "1,1", "0-3,2", "a", "-1", "0--1", "log=0"] {
            check(refused, None);
        }
    }

    #[test]
    fn edges_take_processors_in_turn() {
        let pinning = CpuPinning::parse("edges=2-3").unwrap();
        assert_eq!([0, 1, 2].map(|edge| pinning.edge(edge)), [Some(2), Some(3), Some(2)]);
        assert_eq!(CpuPinning::default().edge(0), None);
        assert!(CpuPinning::default().is_off() && !pinning.is_off());
    }
}
