//! Network devices of a host, after `/sys/class/net`.

use std::net::IpAddr;

use super::addresses::Addresses;
use super::cpus::Cpus;
use super::error::MachineError;
use super::ethtool::{Channels, Coalescing};
use super::interrupts::{self, Interrupt, Line, Owner, Purpose};
use super::tree::{Target, Tree};

const FOLDER: &str = "sys/class/net";

/// A queue of a device, for one direction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Queue {
    /// Its number.
    pub number: usize,
    /// Receiving: CPUs that packets are handed to (RPS). Sending: CPUs that use this queue (XPS). Empty is "off".
    pub cpus: Cpus,
    /// Where that is set; none where the device has no such choice.
    pub target: Option<Target>,
}

/// A network device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Device {
    /// Its name.
    pub name: String,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// The driver; none for devices without hardware.
    pub driver: Option<String>,
    /// Its place on the PCI bus.
    pub slot: Option<String>,
    /// Up, down, or unknown, in the kernel's words.
    pub state: String,
    /// Largest packet, bytes.
    pub mtu: Option<u32>,
    /// Link speed, Mbit/s; none where the device has none, or is down.
    pub speed_mbits: Option<u32>,
    /// The memory node that it is next to.
    pub node: Option<usize>,
    /// Devices that do its work: those of a bond or a bridge, or that below a VLAN.
    pub lower: Vec<String>,
    /// Receive queues.
    pub receive: Vec<Queue>,
    /// Send queues.
    pub send: Vec<Queue>,
    /// Its interrupts, by number. Devices without hardware have none.
    pub interrupts: Vec<Interrupt>,
    /// When the card interrupts; none where that is not shown.
    pub coalescing: Option<Coalescing>,
    /// How many queues it uses and could use; none where that is not shown.
    pub channels: Option<Channels>,
}

impl Device {
    /// True when it has this address; all of 127.0.0.0/8 is the loopback device's.
    #[must_use]
    pub fn has(&self, address: IpAddr) -> bool {
        (self.is_loopback() && address.is_loopback()) || self.addresses.contains(&address)
    }

    /// True for the loopback device.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        self.name == "lo"
    }

    /// The interrupts of its queues.
    pub fn queue_interrupts(&self) -> impl Iterator<Item = &Interrupt> {
        self.interrupts.iter().filter(|interrupt| interrupt.purpose == Purpose::Queue)
    }
}

/// All devices, by name.
pub(super) fn read_all(tree: &Tree, addresses: &Addresses) -> Result<Vec<Device>, MachineError> {
    let names = tree.try_list(FOLDER);
    let names = names.map_err(|source| MachineError::NoDevices { path: tree.root().join(FOLDER), source })?;
    let lines = interrupts::parse(&tree.text("proc/interrupts").unwrap_or_default());
    // Beside the devices there may be files, as `bonding_masters`.
    let is_device = |name: &String| tree.exists(&format!("{FOLDER}/{name}/ifindex"));
    Ok(names.into_iter().filter(is_device).map(|name| read(tree, name, &lines, addresses)).collect())
}

fn read(tree: &Tree, name: String, lines: &[Line], addresses: &Addresses) -> Device {
    let path = |file: &str| format!("{FOLDER}/{name}/{file}");
    let uevent = tree.text(&path("device/uevent")).unwrap_or_default();
    let field = |key: &str| uevent.lines().find_map(|line| line.strip_prefix(key)).map(str::to_owned);
    // A virtio device lies in the PCI device that has the interrupts.
    let near = |file: &str| [path(&format!("device/{file}")), path(&format!("device/../{file}"))];
    let listed = near("msi_irqs").iter().map(|folder| tree.list(folder)).find(|names| !names.is_empty());
    let listed: Vec<u32> = listed.unwrap_or_default().iter().filter_map(|number| number.parse().ok()).collect();
    let slot = field("PCI_SLOT_NAME=");
    let has_hardware = tree.exists(&path("device"));
    let owner = Owner { device: &name, slot: slot.as_deref(), listed: &listed };
    let interrupts = if has_hardware { interrupts::of_device(tree, lines, owner) } else { Vec::new() };
    Device {
        addresses: addresses.get(&name).cloned().unwrap_or_default(),
        driver: field("DRIVER="),
        state: tree.text(&path("operstate")).unwrap_or_default(),
        mtu: tree.number(&path("mtu")),
        // -1 is "unknown", and so are the virtual cards' largest numbers.
        speed_mbits: tree.number(&path("speed")).filter(|speed| (1..u32::from(u16::MAX) * 64).contains(speed)),
        node: near("numa_node").iter().find_map(|file| tree.number(file)),
        lower: tree
            .list(&path(""))
            .iter()
            .filter_map(|entry| entry.strip_prefix("lower_").map(str::to_owned))
            .collect(),
        receive: queues(tree, &name, "rx-", "rps_cpus"),
        send: queues(tree, &name, "tx-", "xps_cpus"),
        coalescing: Coalescing::read(tree, &name),
        channels: Channels::read(tree, &name),
        slot,
        interrupts,
        name,
    }
}

fn queues(tree: &Tree, device: &str, prefix: &str, file: &str) -> Vec<Queue> {
    let folder = format!("{FOLDER}/{device}/queues");
    let names = tree.list(&folder);
    let numbers = names.iter().filter_map(|name| name.strip_prefix(prefix)?.parse().ok());
    let queue = |number: usize| {
        let path = format!("{folder}/{prefix}{number}/{file}");
        let cpus = tree.text(&path).and_then(|text| Cpus::parse_mask(&text));
        Queue { number, target: cpus.is_some().then_some(Target::File(path)), cpus: cpus.unwrap_or_default() }
    };
    let mut queues: Vec<Queue> = numbers.map(queue).collect();
    queues.sort_by_key(|queue| queue.number);
    queues
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::Machine;
    use crate::machine::testing::unpack;

    #[test]
    fn a_card_of_a_host_with_two() {
        let (_folder, tree) = unpack("two_cards");
        let machine = Machine::read(&tree).unwrap();
        let names: Vec<&str> = machine.devices.iter().map(|device| device.name.as_str()).collect();
        assert_eq!(names, ["ens1f0np0", "ens2f0np0", "lo"]);
        let card = machine.device_with("10.1.0.1".parse().unwrap()).unwrap();
        assert_eq!((card.name.as_str(), card.driver.as_deref()), ("ens1f0np0", Some("mlx5_core")));
        assert_eq!((card.slot.as_deref(), card.node), (Some("0000:3b:00.0"), Some(0)));
        assert_eq!((card.mtu, card.speed_mbits, card.state.as_str()), (Some(9000), Some(25_000), "up"));
        assert_eq!((card.receive.len(), card.send.len()), (4, 4));
        assert_eq!(card.send[1].cpus.to_string(), "1");
        let names: Vec<&str> = card.queue_interrupts().map(|interrupt| interrupt.name.as_str()).collect();
        assert_eq!(names.len(), 4);
        assert_eq!(names[3], "mlx5_comp3@pci:0000:3b:00.0");
        assert_eq!(card.interrupts.len(), 5);
        let first = card.queue_interrupts().next().unwrap();
        assert_eq!(
            (first.number, first.affinity.to_string().as_str(), first.cpus().to_string().as_str()),
            (129, "0-7", "4")
        );
        assert_eq!(machine.device("ens2f0np0").unwrap().node, Some(1));
    }

    #[test]
    fn loopback_has_no_hardware() {
        let (_folder, tree) = unpack("two_cards");
        let machine = Machine::read(&tree).unwrap();
        let lo = machine.device_with("127.0.0.9".parse().unwrap()).unwrap();
        assert_eq!((lo.driver.as_deref(), lo.interrupts.len(), lo.speed_mbits, lo.node), (None, 0, None, None));
        assert_eq!(lo.send[0].target, None, "no XPS with a single queue");
    }

    #[test]
    fn a_bond_has_devices_below_it() {
        let (_folder, tree) = unpack("bonded");
        let machine = Machine::read(&tree).unwrap();
        assert_eq!(machine.device("bond0").unwrap().lower, ["eno1", "eno2"]);
        assert_eq!(machine.device("bond0.20").unwrap().lower, ["bond0"]);
        let eno1 = machine.device("eno1").unwrap();
        let names: Vec<&str> = eno1.queue_interrupts().map(|interrupt| interrupt.name.as_str()).collect();
        assert_eq!(names, ["eno1-TxRx-0", "eno1-TxRx-1"]);
        assert_eq!(eno1.receive[0].cpus.to_string(), "0-3");
        assert!(machine.device("bonding_masters").is_none());
    }

    #[test]
    fn a_folder_without_devices_is_no_root() {
        let error = Machine::read(&Tree::at(std::path::Path::new("/proc/self/nothing"))).unwrap_err();
        assert!(error.to_string().contains("sys/class/net"), "{error}");
    }
}
