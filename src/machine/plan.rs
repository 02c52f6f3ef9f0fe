//! What could be set better on a machine for the two planes of a node, and why. A pure function: it reads a [`Machine`] and
//! changes nothing.
//!
//! Interrupts and queues are placed only on CPUs that somebody has named for the plane. What a device does not show is not
//! planned for, and a remark says so.

use std::collections::BTreeSet;
use std::fmt;

use super::Machine;
use super::cpus::Cpus;
use super::devices::{Device, Queue};
use super::ethtool;
use super::sysctls::SYSCTLS;
use super::tree::Target;

/// Microseconds that a packet of the internal plane may wait for others in the card: each write waits for two of them.
const INTERNAL_RX_USECS_MAX: u32 = 8;

/// Which traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlaneKind {
    /// Between the nodes.
    Internal,
    /// From and to clients.
    External,
}

impl fmt::Display for PlaneKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if *self == PlaneKind::Internal { "internal" } else { "external" })
    }
}

/// What is wanted for a plane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlaneWish {
    /// Which.
    pub kind: PlaneKind,
    /// Its device.
    pub device: String,
    /// The CPUs for its work; none leaves interrupts and queues where they are.
    pub cpus: Option<Cpus>,
}

/// One change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// What is changed.
    pub target: Target,
    /// What it is.
    pub found: String,
    /// What it becomes.
    pub value: String,
    /// Why.
    pub reason: String,
}

impl Step {
    /// True for a change of the number of queues: it comes first, because queues and interrupts are others after it.
    #[must_use]
    pub fn is_channels(&self) -> bool {
        matches!(&self.target, Target::Ethtool { group, .. } if group == "channels")
    }
}

/// All changes, and what there is to say about what is not changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// In the order in which they are made.
    pub steps: Vec<Step>,
    /// One sentence each.
    pub remarks: Vec<String>,
}

impl Plan {
    fn remark(&mut self, words: impl Into<String>) {
        self.remarks.push(words.into());
    }

    /// Adds a change where it is one.
    fn set(&mut self, target: Target, found: impl ToString, value: impl ToString, reason: impl Into<String>) {
        let (found, value) = (found.to_string(), value.to_string());
        if found != value {
            self.steps.push(Step { target, found, value, reason: reason.into() });
        }
    }
}

/// Plans for both planes.
#[must_use]
pub fn plan(machine: &Machine, wishes: &[PlaneWish]) -> Plan {
    let mut plan = Plan::default();
    let mut done: Vec<&str> = Vec::new();
    for wish in wishes {
        let devices = machine.working_devices(&wish.device);
        if devices.is_empty() {
            plan.remark(format!("{}: there is no device {}", wish.kind, wish.device));
        }
        for device in devices {
            if done.contains(&device.name.as_str()) {
                plan.remark(format!(
                    "{}: {} is shared with the other plane, and planned for that one",
                    wish.kind, device.name
                ));
                continue;
            }
            done.push(&device.name);
            plan_device(&mut plan, machine, wish, device);
        }
    }
    if machine.has_irqbalance
        && plan.steps.iter().any(|step| matches!(&step.target, Target::File(path) if path.starts_with("proc/irq")))
    {
        let named = wishes.iter().filter(|wish| wish.cpus.is_some());
        let devices = named.flat_map(|wish| machine.working_devices(&wish.device));
        let numbers: BTreeSet<u32> =
            devices.flat_map(Device::queue_interrupts).map(|interrupt| interrupt.number).collect();
        plan.remark(format!("irqbalance runs and moves interrupts again: {}", irqbalance_advice(numbers)));
    }
    plan_sysctls(&mut plan, machine);
    // Stable: within each part the order stays.
    plan.steps.sort_by_key(|step| !step.is_channels());
    plan
}

/// How interrupts are kept from irqbalance. Its lists of banned CPUs would do the opposite: keep them off CPUs.
#[must_use]
pub fn irqbalance_advice(interrupts: impl IntoIterator<Item = u32>) -> String {
    let banned: Vec<String> = interrupts.into_iter().map(|number| format!("--banirq={number}")).collect();
    format!(
        "stop it (systemctl disable --now irqbalance), or ban the interrupts of the cards: {}, or a policy script that answers \
         ban=true for them",
        banned.join(" ")
    )
}

fn plan_device(plan: &mut Plan, machine: &Machine, wish: &PlaneWish, device: &Device) {
    if device.driver.is_none() {
        plan.remark(format!(
            "{}: {} is a device without hardware: it has no interrupts to place and no coalescing",
            wish.kind, device.name
        ));
        return;
    }
    plan_coalescing(plan, wish.kind, device);
    let Some(wanted) = &wish.cpus else {
        let option = if wish.kind == PlaneKind::Internal { "IntCpus" } else { "ExtCpus" };
        plan.remark(format!(
            "{}: no CPUs are named for {}, so its interrupts and queues stay where they are; {option} names them",
            wish.kind, device.name
        ));
        return;
    };
    let cpus = wanted.common(&machine.topology.online);
    if !wanted.is_within(&machine.topology.online) {
        let missing = wanted.without(&machine.topology.online);
        plan.remark(format!("{}: CPU {missing} is not there or offline, and is left out", wish.kind));
    }
    if cpus.is_empty() {
        return;
    }
    note_distance(plan, machine, wish.kind, device, &cpus);
    plan_channels(plan, device, &cpus);
    plan_interrupts(plan, device, &cpus);
    plan_send_queues(plan, device, &cpus);
    plan_receive_queues(plan, device, &cpus);
}

/// CPUs beside the wrong memory are the operator's choice; the plan follows it, but says so.
fn note_distance(plan: &mut Plan, machine: &Machine, kind: PlaneKind, device: &Device, cpus: &Cpus) {
    let Some((node, near)) = device.node.and_then(|node| Some((node, machine.topology.cpus_of(node)?))) else { return };
    if !cpus.is_within(near) {
        plan.remark(format!(
            "{kind}: {} is next to memory node {node} (CPU {near}), but CPU {} of its list is not: packets cross between \
             the nodes",
            device.name,
            cpus.without(near)
        ));
    }
}

/// A queue for each CPU: more interrupt the same CPUs more often, fewer leave some without work.
fn plan_channels(plan: &mut Plan, device: &Device, cpus: &Cpus) {
    let Some(channels) = device.channels else {
        plan.remark(format!("{} shows no queues for both directions: their number stays as it is", device.name));
        return;
    };
    let count = u32::try_from(cpus.len()).unwrap_or(u32::MAX).min(channels.combined_max).max(1);
    let reason = format!(
        "one queue for each of the CPUs {cpus}; the driver may take the link down for a moment, and interrupts and queues \
         are placed after it"
    );
    plan.set(ethtool::target(&device.name, "channels", "combined"), channels.combined, count, reason);
}

fn plan_interrupts(plan: &mut Plan, device: &Device, cpus: &Cpus) {
    let interrupts: Vec<_> = device.queue_interrupts().collect();
    if interrupts.is_empty() {
        plan.remark(format!("{} shows no interrupts: there is nothing to place", device.name));
    }
    let all: Vec<usize> = cpus.iter().collect();
    for (index, interrupt) in interrupts.into_iter().enumerate() {
        // Some drivers have two interrupts for a queue, and both belong on the CPU that sends on it.
        let cpu = all[interrupt.queue().unwrap_or(index) % all.len()];
        let reason = format!("{} of {} on its own CPU of the plane's list {cpus}", interrupt.name, device.name);
        plan.set(interrupt.target(), &interrupt.affinity, cpu, reason);
    }
}

/// Each CPU sends on a queue whose interrupt it also takes, so that what was sent is freed where it was made.
fn plan_send_queues(plan: &mut Plan, device: &Device, cpus: &Cpus) {
    let settable = |queue: &&Queue| queue.target.is_some();
    let queues: Vec<&Queue> = device.send.iter().filter(settable).collect();
    // With a single queue there is nothing to choose.
    if queues.len() < 2 {
        return;
    }
    let all: Vec<usize> = cpus.iter().collect();
    for (index, queue) in queues.iter().enumerate() {
        let own = if queues.len() > all.len() {
            Cpus::from_iter([all[index % all.len()]])
        } else {
            all.iter().skip(index).step_by(queues.len()).copied().collect()
        };
        let reason = format!("XPS: CPU {own} sends on queue {} of {}", queue.number, device.name);
        set_mask(plan, queue, &own, reason);
    }
}

fn plan_receive_queues(plan: &mut Plan, device: &Device, cpus: &Cpus) {
    let is_single = device.receive.len() == 1;
    // A card with a queue for each CPU has spread the packets already; handing them on costs an interrupt between CPUs.
    let wanted = if is_single && cpus.len() > 1 { cpus.clone() } else { Cpus::default() };
    for queue in &device.receive {
        let reason = if wanted.is_empty() {
            format!("RPS off: the queues of {} are spread over the CPUs already", device.name)
        } else {
            format!("RPS: {} has a single queue; its packets are handed to the CPUs {cpus}", device.name)
        };
        set_mask(plan, queue, &wanted, reason);
    }
}

fn set_mask(plan: &mut Plan, queue: &Queue, wanted: &Cpus, reason: String) {
    if let Some(target) = &queue.target
        && queue.cpus != *wanted
    {
        plan.set(target.clone(), queue.cpus.mask(), wanted.mask(), reason);
    }
}

fn plan_coalescing(plan: &mut Plan, kind: PlaneKind, device: &Device) {
    let Some(coalescing) = device.coalescing else {
        plan.remark(format!("{kind}: {} does not show its coalescing", device.name));
        return;
    };
    if kind == PlaneKind::External {
        return;
    }
    let target = |field: &str| ethtool::target(&device.name, "coalesce", field);
    let is_adaptive = coalescing.adaptive_rx == Some(true);
    if is_adaptive {
        let reason =
            "a write is acknowledged after one round trip: the time that the driver waits must not change by itself";
        plan.set(target("adaptive-rx"), "on", "off", reason);
    }
    if let Some(found) = coalescing.rx_usecs.filter(|found| *found > INTERNAL_RX_USECS_MAX) {
        let reason = format!("each write waits for two packets, and each of them up to {found} µs in the card");
        plan.set(target("rx-usecs"), found, INTERNAL_RX_USECS_MAX, reason);
    }
}

fn plan_sysctls(plan: &mut Plan, machine: &Machine) {
    for (sysctl, found) in SYSCTLS.iter().zip(&machine.sysctls) {
        let Some(found) = found else {
            plan.remark(format!("{} is not there (a network namespace may hide it)", sysctl.name));
            continue;
        };
        if let Some(better) = sysctl.better(found) {
            plan.set(Target::File(sysctl.path.to_owned()), found, better, sysctl.reason);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::testing::unpack;

    fn wish(kind: PlaneKind, device: &str, cpus: Option<&str>) -> PlaneWish {
        PlaneWish { kind, device: device.to_owned(), cpus: cpus.map(|text| Cpus::parse_list(text).unwrap()) }
    }

    fn planned(tree: &str, wishes: &[PlaneWish]) -> (Vec<String>, Vec<String>) {
        let (_folder, tree) = unpack(tree);
        let plan = plan(&Machine::read(&tree).unwrap(), wishes);
        let shown = |step: &Step| format!("{}: {} -> {}", step.target, step.found, step.value).replace('\t', " ");
        (plan.steps.iter().map(shown).collect(), plan.remarks)
    }

    #[test]
    fn two_cards_on_two_nodes() {
        let wishes =
            [wish(PlaneKind::Internal, "ens1f0np0", Some("0-1")), wish(PlaneKind::External, "ens2f0np0", Some("3-6"))];
        let (steps, remarks) = planned("two_cards", &wishes);
        let expected = [
            "ethtool ens1f0np0 channels combined: 4 -> 2",
            "ethtool ens1f0np0 coalesce adaptive-rx: on -> off",
            "ethtool ens1f0np0 coalesce rx-usecs: 64 -> 8",
            "/proc/irq/129/smp_affinity_list: 0-7 -> 0",
            "/proc/irq/130/smp_affinity_list: 0-7 -> 1",
            "/proc/irq/131/smp_affinity_list: 0-7 -> 0",
            "/proc/irq/132/smp_affinity_list: 0-7 -> 1",
            "/sys/class/net/ens1f0np0/queues/tx-2/xps_cpus: 00000004 -> 00000001",
            "/sys/class/net/ens1f0np0/queues/tx-3/xps_cpus: 00000008 -> 00000002",
            "/proc/irq/141/smp_affinity_list: 0-7 -> 3",
            "/proc/irq/142/smp_affinity_list: 0-7 -> 4",
            "/proc/irq/143/smp_affinity_list: 0-7 -> 5",
            "/proc/irq/144/smp_affinity_list: 0-7 -> 6",
            "/sys/class/net/ens2f0np0/queues/tx-0/xps_cpus: 00000001 -> 00000008",
            "/sys/class/net/ens2f0np0/queues/tx-1/xps_cpus: 00000002 -> 00000010",
            "/sys/class/net/ens2f0np0/queues/tx-2/xps_cpus: 00000004 -> 00000020",
            "/sys/class/net/ens2f0np0/queues/tx-3/xps_cpus: 00000008 -> 00000040",
            "/proc/sys/net/ipv4/tcp_rmem: 4096 131072 6291456 -> 4096 131072 16777216",
            "/proc/sys/net/ipv4/tcp_wmem: 4096 16384 4194304 -> 4096 16384 16777216",
            "/proc/sys/net/ipv4/tcp_slow_start_after_idle: 1 -> 0",
            "/proc/sys/net/core/netdev_max_backlog: 1000 -> 4096",
        ];
        assert_eq!(steps, expected);
        assert_eq!(remarks.len(), 1, "{remarks:?}");
        assert!(remarks[0].contains("next to memory node 1 (CPU 4-7), but CPU 3 of"), "{remarks:?}");
    }

    #[test]
    fn a_bond_a_single_queue_and_irqbalance() {
        let wishes =
            [wish(PlaneKind::Internal, "ens1f0", Some("2-3")), wish(PlaneKind::External, "bond0.20", Some("0-1"))];
        let (steps, remarks) = planned("bonded", &wishes);
        let expected = [
            "ethtool ens1f0 channels combined: 1 -> 2",
            "ethtool ens1f0 coalesce rx-usecs: 100 -> 8",
            "/sys/class/net/ens1f0/queues/rx-0/rps_cpus: 00000000 -> 0000000c",
        ];
        assert_eq!(steps[..3], expected);
        for (number, cpu) in [(62, 1), (66, 1)] {
            assert!(steps.contains(&format!("/proc/irq/{number}/smp_affinity_list: 0 -> {cpu}")), "{steps:#?}");
        }
        let rps = |device: &str| format!("/sys/class/net/{device}/queues/rx-1/rps_cpus: 0000000f -> 00000000");
        assert!(steps.contains(&rps("eno1")) && steps.contains(&rps("eno2")), "{steps:#?}");
        assert!(!steps.iter().any(|step| step.contains("somaxconn") || step.contains("/63/")), "{steps:#?}");
        let bans = "--banirq=61 --banirq=62 --banirq=65 --banirq=66 --banirq=71, or";
        assert!(
            remarks.iter().any(|remark| remark.contains("irqbalance runs") && remark.contains(bans)),
            "{remarks:?}"
        );
    }

    #[test]
    fn both_interrupts_of_a_virtio_queue_are_where_it_sends() {
        let wishes = [wish(PlaneKind::Internal, "ens5", Some("0-1")), wish(PlaneKind::External, "eth0", Some("2-3"))];
        let (steps, remarks) = planned("virtual", &wishes);
        let expected = [
            "ethtool ens5 channels combined: 4 -> 2",
            "ethtool eth0 channels combined: 4 -> 2",
            "ethtool ens5 coalesce adaptive-rx: on -> off",
            "/proc/irq/31/smp_affinity_list: 2 -> 0",
            "/proc/irq/32/smp_affinity_list: 3 -> 1",
            "/sys/class/net/ens5/queues/tx-2/xps_cpus: 00000004 -> 00000001",
            "/sys/class/net/ens5/queues/tx-3/xps_cpus: 00000008 -> 00000002",
            "/proc/irq/38/smp_affinity_list: 0-3 -> 2",
            "/proc/irq/39/smp_affinity_list: 0-3 -> 2",
            "/proc/irq/40/smp_affinity_list: 0-3 -> 3",
            "/proc/irq/41/smp_affinity_list: 0-3 -> 3",
            "/proc/irq/42/smp_affinity_list: 0-3 -> 2",
            "/proc/irq/43/smp_affinity_list: 0-3 -> 2",
            "/proc/irq/44/smp_affinity_list: 0-3 -> 3",
            "/proc/irq/45/smp_affinity_list: 0-3 -> 3",
            "/sys/class/net/eth0/queues/tx-0/xps_cpus: 00000001 -> 00000004",
            "/sys/class/net/eth0/queues/tx-1/xps_cpus: 00000002 -> 00000008",
            "/proc/sys/net/ipv4/tcp_wmem: 4096 16384 4194304 -> 4096 16384 16777216",
            "/proc/sys/net/ipv4/tcp_slow_start_after_idle: 1 -> 0",
            "/proc/sys/net/core/netdev_max_backlog: 1000 -> 4096",
        ];
        assert_eq!(steps, expected);
        assert!(remarks.is_empty(), "{remarks:?}");
    }

    #[test]
    fn nothing_is_placed_without_cpus_or_hardware() {
        let places = |steps: &[String]| steps.iter().any(|step| step.contains("/irq/") || step.contains("/queues/"));
        let (steps, remarks) = planned("two_cards", &[wish(PlaneKind::External, "ens2f0np0", None)]);
        assert!(!places(&steps) && remarks[0].contains("ExtCpus"), "{steps:?} {remarks:?}");
        let (steps, remarks) = planned("two_cards", &[wish(PlaneKind::Internal, "lo", Some("0"))]);
        assert!(!places(&steps) && remarks[0].contains("without hardware"), "{steps:?} {remarks:?}");
        let (steps, remarks) = planned("two_cards", &[wish(PlaneKind::Internal, "eth7", Some("0"))]);
        assert!(!places(&steps) && remarks[0].contains("no device eth7"), "{steps:?} {remarks:?}");
        let (steps, remarks) = planned("two_cards", &[wish(PlaneKind::Internal, "ens1f0np0", Some("8-9"))]);
        assert!(!places(&steps) && remarks[0].contains("CPU 8-9 is not there"), "{steps:?} {remarks:?}");
    }

    #[test]
    fn a_card_without_combined_queues_is_named() {
        let (_folder, tree) = unpack("two_cards");
        let mut machine = Machine::read(&tree).unwrap();
        machine.devices[0].channels = None;
        let plan = plan(&machine, &[wish(PlaneKind::Internal, "ens1f0np0", Some("0-1"))]);
        assert!(!plan.steps.iter().any(Step::is_channels));
        assert_eq!(plan.remarks, ["ens1f0np0 shows no queues for both directions: their number stays as it is"]);
    }

    #[test]
    fn a_shared_device_is_planned_once() {
        let wishes =
            [wish(PlaneKind::Internal, "ens1f0np0", Some("0-3")), wish(PlaneKind::External, "ens1f0np0", Some("4-7"))];
        let (steps, remarks) = planned("two_cards", &wishes);
        assert_eq!(steps.iter().filter(|step| step.contains("/irq/129/")).count(), 1);
        assert!(remarks.iter().any(|remark| remark.contains("shared with the other plane")), "{remarks:?}");
    }
}
