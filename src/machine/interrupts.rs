//! `/proc/interrupts` and `/proc/irq`: which interrupt is whose, and which CPUs may take it.

use super::cpus::Cpus;
use super::tree::{Target, Tree};

/// What an interrupt of a network card tells of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Packets of a queue.
    Queue,
    /// The card itself: link changes, commands. It comes rarely, and where it runs does not matter.
    Control,
}

/// An interrupt of a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interrupt {
    /// Its number.
    pub number: u32,
    /// What the driver calls it.
    pub name: String,
    /// How often it came, on all CPUs.
    pub count: u64,
    /// What it is for.
    pub purpose: Purpose,
    /// CPUs that may take it.
    pub affinity: Cpus,
    /// CPUs that do; none where the kernel does not say.
    pub effective: Option<Cpus>,
}

impl Interrupt {
    /// Where its CPUs are set.
    #[must_use]
    pub fn target(&self) -> Target {
        Target::File(format!("proc/irq/{}/smp_affinity_list", self.number))
    }

    /// The queue that it is of, after its name: drivers count them at its end, in front of what says the place of the card
    /// (`mlx5_comp3@pci:0000:3b:00.0`, `ens5-Tx-Rx-3`, `virtio2-input.3`).
    #[must_use]
    pub fn queue(&self) -> Option<usize> {
        let name = self.name.split('@').next()?;
        name[name.trim_end_matches(|c: char| c.is_ascii_digit()).len()..].parse().ok()
    }

    /// The CPUs that take it, as far as that is known.
    #[must_use]
    pub fn cpus(&self) -> &Cpus {
        self.effective.as_ref().filter(|cpus| !cpus.is_empty()).unwrap_or(&self.affinity)
    }
}

/// A line of `/proc/interrupts`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) number: u32,
    pub(super) count: u64,
    pub(super) name: String,
}

/// The numbered lines.
pub(super) fn parse(text: &str) -> Vec<Line> {
    let mut lines = text.lines();
    let cpu_count = lines.next().unwrap_or_default().split_whitespace().count();
    let parse = |line: &str| {
        let (number, rest) = line.split_once(':')?;
        let number = number.trim().parse().ok()?;
        let words: Vec<&str> = rest.split_whitespace().collect();
        let counts: Vec<u64> = words.iter().take(cpu_count).map_while(|word| word.parse().ok()).collect();
        let name = words.get(counts.len()..)?.last()?;
        Some(Line { number, count: counts.iter().sum(), name: (*name).to_owned() })
    };
    lines.filter_map(parse).collect()
}

/// How the interrupts of a device are found.
#[derive(Clone, Copy, Debug)]
pub(super) struct Owner<'a> {
    /// The network device.
    pub(super) device: &'a str,
    /// Its place on the PCI bus.
    pub(super) slot: Option<&'a str>,
    /// The numbers that the bus device lists.
    pub(super) listed: &'a [u32],
}

impl Owner<'_> {
    fn has(&self, line: &Line) -> bool {
        if !self.listed.is_empty() {
            return self.listed.contains(&line.number);
        }
        let of_device = line.name.split('-').any(|part| part == self.device);
        of_device || self.slot.is_some_and(|slot| line.name.contains(slot))
    }

    fn purpose(&self, name: &str) -> Purpose {
        // mlx5_async0@pci, virtio2-config, ena-mgmnt@pci; ixgbe names its link interrupt after the device alone.
        let rare = ["async", "config", "mgmnt", "pages", "cmd", "ctrl", "control", "health", "event", "misc"];
        let is_rare = name == self.device || rare.iter().any(|word| name.contains(word));
        if is_rare { Purpose::Control } else { Purpose::Queue }
    }
}

/// The interrupts of a device, by number.
pub(super) fn of_device(tree: &Tree, lines: &[Line], owner: Owner<'_>) -> Vec<Interrupt> {
    let list = |number: u32, file: &str| Cpus::parse_list(&tree.text(&format!("proc/irq/{number}/{file}"))?);
    let interrupt = |line: &Line| {
        Some(Interrupt {
            number: line.number,
            name: line.name.clone(),
            count: line.count,
            purpose: owner.purpose(&line.name),
            affinity: list(line.number, "smp_affinity_list")?,
            effective: list(line.number, "effective_affinity_list"),
        })
    };
    lines.iter().filter(|line| owner.has(line)).filter_map(interrupt).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "           CPU0       CPU1\n \
         28:          1          2 PCI-MSIX-0000:00:01.0   0-edge      virtio0-config\n \
        129:        100         23 IR-PCI-MSIX-0000:3b:00.0   1-edge      mlx5_comp0@pci:0000:3b:00.0\n \
        130:          0          0 IR-PCI-MSI 2097153-edge      eno1-TxRx-0\n\
        NMI:          0          0   Non-maskable interrupts\n\
        ERR:          0\n";

    #[test]
    fn numbered_lines_have_a_count_and_a_name() {
        let shown: Vec<_> = parse(TEXT).into_iter().map(|line| (line.number, line.count, line.name)).collect();
        let expected = [
            (28, 3, "virtio0-config".to_owned()),
            (129, 123, "mlx5_comp0@pci:0000:3b:00.0".to_owned()),
            (130, 0, "eno1-TxRx-0".to_owned()),
        ];
        assert_eq!(shown, expected);
        assert_eq!(parse(""), []);
        assert_eq!(parse("CPU0\n7:"), []);
    }

    #[test]
    fn an_owner_is_known_by_number_slot_or_name() {
        let lines = parse(TEXT);
        let check = |owner: Owner<'_>, expected: &[u32]| {
            let found: Vec<u32> = lines.iter().filter(|line| owner.has(line)).map(|line| line.number).collect();
            assert_eq!(found, expected, "{owner:?}");
        };
        check(Owner { device: "x", slot: None, listed: &[28, 5] }, &[28]);
        check(Owner { device: "x", slot: Some("0000:3b:00.0"), listed: &[] }, &[129]);
        check(Owner { device: "eno1", slot: None, listed: &[] }, &[130]);
        check(Owner { device: "eno", slot: None, listed: &[] }, &[]);
    }

    #[test]
    fn names_of_known_drivers_tell_the_purpose() {
        let check = |name: &str, expected| {
            let owner = Owner { device: "eno1", slot: None, listed: &[] };
            assert_eq!(owner.purpose(name), expected, "{name}");
        };
        check("mlx5_comp11@pci:0000:3b:00.0", Purpose::Queue);
        check("mlx5_async0@pci:0000:3b:00.0", Purpose::Control);
        check("eno1-TxRx-3", Purpose::Queue);
        check("eno1", Purpose::Control);
        check("i40e-eno1-TxRx-0", Purpose::Queue);
        check("virtio2-input.0", Purpose::Queue);
        check("virtio2-config", Purpose::Control);
        check("ena-mgmnt@pci:0000:00:05.0", Purpose::Control);
        check("eno1-Tx-Rx-0", Purpose::Queue);
        check("bnxt_en-eno1-fp-0", Purpose::Queue);
    }

    #[test]
    fn names_of_known_drivers_tell_the_queue() {
        let check = |name: &str, expected: Option<usize>| {
            let (affinity, name) = (Cpus::default(), name.to_owned());
            let interrupt = Interrupt { number: 1, name, count: 0, purpose: Purpose::Queue, affinity, effective: None };
            assert_eq!(interrupt.queue(), expected, "{}", interrupt.name);
        };
        check("mlx5_comp11@pci:0000:3b:00.0", Some(11));
        check("i40e-eno1-TxRx-3", Some(3));
        check("ens5-Tx-Rx-0", Some(0));
        check("virtio2-output.7", Some(7));
        check("eth0-rx", None);
        check("", None);
    }
}
