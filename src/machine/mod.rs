//! The machine that a node runs on, as `/proc`, `/sys` and the kernel's network interfaces tell it: kernel, limits, CPUs,
//! network devices with their queues and interrupts; and the plan for what could be set better on it.
//!
//! Everything is read below a [`Tree`]: the real root, or a folder with what was captured on another host. So the parsing
//! and the planning ([`plan()`], a pure function of a [`Machine`]) are tested on hosts that are not at hand.
//!
//! It promises to change nothing but by [`apply()`] and [`revert()`], which keep what was there before; and that what a machine
//! does not show is missing in the model, not guessed. It leaves judging to the commands (`doctor`, `tune`), and options.
#![forbid(unsafe_code)]

mod addresses;
mod apply;
mod cpus;
mod devices;
mod error;
mod ethtool;
mod file_system;
mod interrupts;
mod kernel;
mod plan;
mod sysctls;
#[cfg(test)]
pub(crate) mod testing;
mod tree;

pub use apply::{Applied, Kept, Refusal, Reverted, State, apply, revert};
pub use cpus::{Cpus, Node, Topology};
pub use devices::{Device, Queue};
pub use error::MachineError;
pub use ethtool::{Channels, Coalescing};
pub use file_system::FileSystem;
pub use interrupts::{Interrupt, Purpose};
pub use kernel::{Kernel, Limit, Limits};
pub use plan::{Plan, PlaneKind, PlaneWish, Step, irqbalance_advice, plan};
pub use sysctls::{SYSCTLS, Sysctl};
pub use tree::{Target, Tree};

/// All of a machine that the commands look at.
#[derive(Clone, Debug, Default)]
pub struct Machine {
    /// Kernel, clock, and what a process may do.
    pub kernel: Kernel,
    /// Limits of the process that asks.
    pub limits: Limits,
    /// CPUs and memory nodes.
    pub topology: Topology,
    /// Network devices, by name.
    pub devices: Vec<Device>,
    /// Why the devices' addresses are not known; then they have none here.
    pub addresses_refused: Option<String>,
    /// The parameters of [`SYSCTLS`] as they are, in that order.
    pub sysctls: Vec<Option<String>>,
    /// True when irqbalance runs: it moves interrupts again that someone has placed.
    pub has_irqbalance: bool,
}

impl Machine {
    /// Reads the machine below `tree`. What is not there is missing in the model.
    ///
    /// # Errors
    /// When `tree` has no network devices to list: then it is no root of `/proc` and `/sys`.
    pub fn read(tree: &Tree) -> Result<Machine, MachineError> {
        let (addresses, addresses_refused) = match addresses::read(tree) {
            Ok(addresses) => (addresses, None),
            Err(error) => (addresses::Addresses::new(), Some(error.to_string())),
        };
        Ok(Machine {
            kernel: Kernel::read(tree),
            limits: Limits::read(tree),
            topology: Topology::read(tree),
            devices: devices::read_all(tree, &addresses)?,
            addresses_refused,
            sysctls: SYSCTLS.iter().map(|sysctl| tree.text(sysctl.path)).collect(),
            has_irqbalance: kernel::runs(tree, "irqbalance"),
        })
    }

    /// The device with this name.
    #[must_use]
    pub fn device(&self, name: &str) -> Option<&Device> {
        self.devices.iter().find(|device| device.name == name)
    }

    /// The device that has this address.
    #[must_use]
    pub fn device_with(&self, address: std::net::IpAddr) -> Option<&Device> {
        self.devices.iter().find(|device| device.has(address))
    }

    /// The device that packets of this address should take. None for one that is on the loopback device and no loopback address:
    /// routed hosts have theirs there, and any card may carry it.
    #[must_use]
    pub fn carrier_of(&self, address: std::net::IpAddr) -> Option<&Device> {
        self.device_with(address).filter(|device| !device.is_loopback() || address.is_loopback())
    }

    /// The devices that do the work of `name`: itself, or those below a bond, a bridge or a VLAN.
    #[must_use]
    pub fn working_devices(&self, name: &str) -> Vec<&Device> {
        let mut found: Vec<&Device> = Vec::new();
        let mut open = vec![name];
        // A device is below another at most once; the bound is for a tree that someone has made by hand.
        for _ in 0..=self.devices.len() {
            let Some(device) = open.pop().and_then(|name| self.device(name)) else { continue };
            if device.lower.is_empty() && !found.iter().any(|known| known.name == device.name) {
                found.push(device);
            }
            open.extend(device.lower.iter().map(String::as_str));
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_can_be_read() {
        let machine = Machine::read(&Tree::real()).unwrap();
        assert!(!machine.kernel.release.is_empty());
        assert!(!machine.topology.online.is_empty());
        assert!(machine.limits.open_files.is_some());
        assert_eq!(machine.device_with("127.0.0.1".parse().unwrap()).map(|device| device.name.as_str()), Some("lo"));
    }

    #[test]
    fn the_work_of_a_bond_is_done_by_its_devices() {
        let (_folder, tree) = testing::unpack("bonded");
        let machine = Machine::read(&tree).unwrap();
        let names = |name: &str| {
            let mut names: Vec<String> =
                machine.working_devices(name).iter().map(|device| device.name.clone()).collect();
            names.sort();
            names
        };
        assert_eq!(names("bond0"), ["eno1", "eno2"]);
        assert_eq!(names("bond0.20"), ["eno1", "eno2"]);
        assert_eq!(names("ens1f0"), ["ens1f0"]);
        assert_eq!(names("nothing"), [""; 0]);
    }
}
