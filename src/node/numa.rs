//! The NUMA node of the internal network device, so that the log thread's memory can come from it.

use crate::machine::{Machine, Tree};
use crate::ring::prefer_memory_node;

/// Has the memory of the calling thread come from the NUMA node of this device, on a machine that has several, and says so.
pub(super) fn take_memory_near(device: &str) {
    let machine = match Machine::read(&Tree::real()) {
        Ok(machine) => machine,
        Err(error) => {
            return tracing::info!(%error, "on which NUMA node network device {device} is cannot be found out");
        }
    };
    let nodes = machine.topology.nodes.len();
    if nodes < 2 {
        return;
    }
    let Some(node) = node_of(&machine, device) else {
        tracing::info!(
            "the machine has {nodes} NUMA nodes and does not show on which network device {device} is: the log thread's memory \
             comes from anywhere"
        );
        return;
    };
    match prefer_memory_node(node) {
        Ok(()) => {
            tracing::info!("the log thread's memory comes from NUMA node {node}, where network device {device} is")
        }
        Err(error) => tracing::warn!(
            %error,
            "network device {device} is on NUMA node {node}, but the log thread's memory cannot be taken from there; it comes \
             from anywhere. A container may deny set_mempolicy"
        ),
    }
}

/// A bond, bridge or VLAN has no node of its own: that of the first device by name which does its work and shows one.
fn node_of(machine: &Machine, device: &str) -> Option<usize> {
    let mut working = machine.working_devices(device);
    working.sort_by(|one, other| one.name.cmp(&other.name));
    working.iter().find_map(|device| device.node)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::machine::testing::unpack;

    #[test]
    fn the_node_is_that_of_the_device_or_of_one_that_does_its_work() {
        let check = |machine: &Machine, device: &str, expected: Option<usize>| {
            assert_eq!(node_of(machine, device), expected, "{device}");
        };
        let (_folder, tree) = unpack("two_cards");
        let machine = Machine::read(&tree).unwrap();
        assert_eq!(machine.topology.nodes.len(), 2);
        check(&machine, "ens1f0np0", Some(0));
        check(&machine, "ens2f0np0", Some(1));
        check(&machine, "lo", None);
        check(&machine, "nothing", None);
        let (folder, tree) = unpack("bonded");
        let put = |device: &str, node: &str| {
            let file = folder.path().join(format!("sys/class/net/{device}/device/numa_node"));
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, node).unwrap();
        };
        // Not known of the first one.
        put("eno1", "-1\n");
        put("eno2", "1\n");
        check(&Machine::read(&tree).unwrap(), "bond0.20", Some(1));
    }

    /// It has it in its parent, which the tree has beside it.
    #[test]
    fn a_virtio_card_is_where_its_parent_is() {
        let (folder, tree) = unpack("virtual");
        fs::write(folder.path().join("sys/class/net/eth0/numa_node"), "1\n").unwrap();
        assert_eq!(node_of(&Machine::read(&tree).unwrap(), "eth0"), Some(1));
    }
}
