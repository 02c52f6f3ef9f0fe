//! Findings about the two planes: which device each has, and how it goes with the CPUs that are named for it.

use std::net::IpAddr;

use super::finding::Group;
use crate::config::Config;
use crate::machine::{Cpus, Device, Machine, PlaneKind, PlaneWish, SYSCTLS, Topology, irqbalance_advice};
use crate::operator::tune::wishes;

/// Packets of the internal plane are large: fewer of them is less work.
const MTU_LARGE: u32 = 9000;
/// A packet that waits longer in the card delays each write noticeably.
const RX_USECS_LONG: u32 = 50;

const TUNE: &str = "`ringstore tune --dry-run` shows what it would do about it";

pub(super) fn findings(machine: &Machine, config: &Config) -> Vec<Group> {
    let planes = [
        (PlaneKind::Internal, config.int_ip, config.int_device.as_deref()),
        (PlaneKind::External, config.ext_ip, config.ext_device.as_deref()),
    ];
    let wishes = wishes(machine, config);
    let mut groups: Vec<Group> = Vec::new();
    for (kind, address, bound) in planes {
        let mut group = Group::new(if kind == PlaneKind::Internal { "internal" } else { "external" });
        match device_of(&mut group, machine, kind, address, bound) {
            Some(device) if device.is_loopback() => loopback(&mut group, address),
            Some(device) => plane(&mut group, machine, kind, device, &wishes),
            None => {}
        }
        groups.push(group);
    }
    let mut host = host(machine, &wishes);
    processors(&mut host, &machine.topology, config);
    sysctls(&mut host, machine);
    groups.push(host);
    groups
}

/// The device of a plane; where there is none the group says why.
fn device_of<'a>(
    group: &mut Group,
    machine: &'a Machine,
    kind: PlaneKind,
    address: IpAddr,
    bound: Option<&str>,
) -> Option<&'a Device> {
    let (ip, option) = if kind == PlaneKind::Internal { ("IntIp", "IntDevice") } else { ("ExtIp", "ExtDevice") };
    let found = machine.device_with(address);
    if let Some(name) = bound {
        let Some(device) = machine.device(name) else {
            group.problem(
                format!("{option} is {name}, and there is no such device"),
                format!("correct {option}: {}", names(machine)),
            );
            return None;
        };
        let is_known = machine.addresses_refused.is_none();
        if is_known && !device.has(address) && !address.is_unspecified() {
            elsewhere(group, [ip, option], name, address, found);
        }
        return Some(device);
    }
    if address.is_unspecified() {
        group.advice(
            format!("{ip} is {address}: it listens on all devices, so the planes are not kept apart"),
            format!("set {ip} to the address of one device"),
        );
        return None;
    }
    if found.is_none() && machine.addresses_refused.is_some() {
        group.fine(format!("which device has {ip} {address} is not known"));
    } else if found.is_none() {
        group.problem(
            format!("{ip} is {address}, and no device of this host has that address"),
            format!("correct {ip}, or give the address to a device: {}", names(machine)),
        );
    }
    found
}

/// What is sent to an address may come by another device than the one that has it: routed hosts have theirs on the loopback
/// device. A loopback address itself never leaves the host.
fn elsewhere(group: &mut Group, [ip, option]: [&str; 2], bound: &str, address: IpAddr, found: Option<&Device>) {
    let has = found.map_or("no device", |other| &other.name);
    let words = format!("{option} is {bound}, but {ip} {address} is on {has}");
    if found.is_none() || address.is_loopback() {
        group.problem(words, format!("correct {ip} or {option}: nobody would reach the listener"));
    } else {
        group.advice(
            words,
            format!("it works only if the network routes {address} to {bound}; else correct {ip} or {option}"),
        );
    }
}

fn loopback(group: &mut Group, address: IpAddr) {
    let words = "there are no queues and interrupts to look at";
    if address.is_loopback() || address.is_unspecified() {
        group.fine(format!("{address} on the loopback device: only this host reaches it; {words}"));
    } else {
        group.fine(format!("{address} is on the loopback device, and the routes say which cards carry it; {words}"));
    }
}

fn names(machine: &Machine) -> String {
    let shown = machine.devices.iter().map(|device| match device.addresses.first() {
        Some(address) => format!("{} ({address})", device.name),
        None => device.name.clone(),
    });
    format!("there are {}", shown.collect::<Vec<_>>().join(", "))
}

fn plane(group: &mut Group, machine: &Machine, kind: PlaneKind, device: &Device, wishes: &[PlaneWish]) {
    link(group, kind, device);
    let working = machine.working_devices(&device.name);
    if working.len() != 1 || working[0].name != device.name {
        let names: Vec<&str> = working.iter().map(|device| device.name.as_str()).collect();
        group.fine(format!("{} hands its work to {}", device.name, names.join(", ")));
    }
    let wish = |kind| wishes.iter().find(move |wish| wish.kind == kind);
    let cpus = wish(kind).and_then(|wish| wish.cpus.as_ref());
    let other = wish(PlaneKind::Internal).filter(|_| kind == PlaneKind::External);
    let planned = other.map(|wish| machine.working_devices(&wish.device)).unwrap_or_default();
    for device in working {
        if planned.iter().any(|other| other.name == device.name) {
            group.fine(format!("{} does the work of both planes: it is looked at, and tuned, by IntCpus", device.name));
            continue;
        }
        card(group, device);
        interrupts(group, machine, kind, device, cpus);
        steering(group, kind, device, cpus);
        coalescing(group, kind, device);
        memory_node(group, machine, device, cpus);
    }
}

fn link(group: &mut Group, kind: PlaneKind, device: &Device) {
    if matches!(device.state.as_str(), "down" | "lowerlayerdown" | "notpresent") {
        group.problem(
            format!("{} is {}", device.name, device.state),
            format!("ip link set {} up; check the cable and the switch", device.name),
        );
    }
    match device.mtu {
        Some(mtu) if mtu < MTU_LARGE && kind == PlaneKind::Internal && device.driver.is_some() => group.fine(format!(
            "{} has MTU {mtu}; with {MTU_LARGE} on all nodes and the switch replication costs fewer packets",
            device.name
        )),
        Some(mtu) => group.fine(format!("{} has MTU {mtu}", device.name)),
        None => group.fine(format!("{} does not show its MTU", device.name)),
    }
}

fn card(group: &mut Group, device: &Device) {
    let Some(driver) = &device.driver else {
        group.fine(format!("{} is a device without hardware", device.name));
        return;
    };
    let speed = device.speed_mbits.map_or("speed not shown".to_owned(), |speed| format!("{speed} Mbit/s"));
    let node = device.node.map_or("memory node not shown".to_owned(), |node| format!("memory node {node}"));
    let (receive, send) = (device.receive.len(), device.send.len());
    group.fine(format!("{}: driver {driver}, {speed}, {receive} receive and {send} send queues, {node}", device.name));
}

fn interrupts(group: &mut Group, machine: &Machine, kind: PlaneKind, device: &Device, cpus: Option<&Cpus>) {
    let all: Vec<_> = device.queue_interrupts().collect();
    if all.is_empty() {
        group.fine(format!("{} shows no interrupts of its own: there is nothing to place", device.name));
        return;
    }
    let mut taken = Cpus::default();
    all.iter().for_each(|interrupt| taken.extend(interrupt.cpus()));
    let words = format!("{}: {} interrupts of queues, taken by CPU {taken}", device.name, all.len());
    let option = cpus_option(kind);
    match cpus {
        Some(cpus) => {
            let outside = all.iter().filter(|interrupt| !interrupt.cpus().is_within(cpus)).count();
            if outside == 0 {
                group.fine(format!("{words}, all within {option} ({cpus})"));
            } else {
                group.advice(format!("{words}: {outside} of them outside {option} ({cpus})"), TUNE);
            }
        }
        None if all.len() > 1 && taken.len() == 1 && machine.topology.online.len() > 1 => {
            group.advice(format!("{words}: one CPU does it all"), format!("name CPUs with {option}; {TUNE}"));
        }
        None => group.fine(format!("{words}; {option} names none")),
    }
    if machine.has_irqbalance && cpus.is_some() {
        group.advice(
            "irqbalance runs: it moves interrupts that someone has placed",
            irqbalance_advice(all.iter().map(|interrupt| interrupt.number)),
        );
    }
}

fn cpus_option(kind: PlaneKind) -> &'static str {
    if kind == PlaneKind::Internal { "IntCpus" } else { "ExtCpus" }
}

/// RPS and XPS.
fn steering(group: &mut Group, kind: PlaneKind, device: &Device, cpus: Option<&Cpus>) {
    let mut handed = Cpus::default();
    device.receive.iter().for_each(|queue| handed.extend(&queue.cpus));
    if handed.is_empty() {
        group.fine(format!("{}: RPS off", device.name));
    } else if device.receive.len() > 1 {
        group.advice(
            format!(
                "{}: RPS hands packets to CPU {handed} although there are {} queues",
                device.name,
                device.receive.len()
            ),
            match cpus {
                Some(_) => format!("switch it off, the card spreads them already; {TUNE}"),
                None => {
                    let option = cpus_option(kind);
                    format!("switch it off, the card spreads them already; name CPUs with {option}, and {TUNE}")
                }
            },
        );
    } else {
        group.fine(format!("{}: RPS hands the packets of its single queue to CPU {handed}", device.name));
    }
    if !device.send.iter().any(|queue| queue.target.is_some()) {
        group.fine(format!("{}: no XPS, there is no choice of a send queue", device.name));
        return;
    }
    let shown = device.send.iter().map(|queue| format!("{}:{}", queue.number, queue.cpus));
    let words = format!("{}: XPS, queue:CPUs, {}", device.name, shown.collect::<Vec<_>>().join(" "));
    let mut mapped = Cpus::default();
    device.send.iter().for_each(|queue| mapped.extend(&queue.cpus));
    match cpus {
        Some(cpus) if device.send.len() > 1 && !cpus.is_within(&mapped) => {
            group.advice(format!("{words}: CPU {} has no queue of its own", cpus.without(&mapped)), TUNE);
        }
        _ if mapped.is_empty() => group.fine(format!("{}: XPS off", device.name)),
        _ => group.fine(words),
    }
}

fn coalescing(group: &mut Group, kind: PlaneKind, device: &Device) {
    let Some(found) = device.coalescing else {
        group.fine(format!("{} does not show its coalescing", device.name));
        return;
    };
    let adaptive = if found.adaptive_rx == Some(true) { ", adaptive" } else { "" };
    let waits = match found.rx_usecs {
        None => "how long a received packet waits in the card is not shown".to_owned(),
        Some(0) => "a received packet does not wait in the card".to_owned(),
        Some(usecs) => format!("a received packet waits up to {usecs} µs in the card"),
    };
    let words = format!("{}: {waits}{adaptive}", device.name);
    let is_long = found.rx_usecs.is_some_and(|usecs| usecs > RX_USECS_LONG) || found.adaptive_rx == Some(true);
    if kind == PlaneKind::Internal && is_long {
        group.advice(format!("{words}; each write waits for two such packets"), TUNE);
    } else {
        group.fine(words);
    }
}

fn memory_node(group: &mut Group, machine: &Machine, device: &Device, cpus: Option<&Cpus>) {
    if machine.topology.nodes.len() < 2 {
        return;
    }
    let (Some(node), Some(cpus)) = (device.node, cpus) else { return };
    let nodes = machine.topology.nodes_of(cpus);
    if nodes == [node] {
        group.fine(format!("{} and its CPUs {cpus} are on memory node {node}", device.name));
    } else {
        let near = machine.topology.cpus_of(node).map(ToString::to_string).unwrap_or_default();
        group.advice(
            format!(
                "{} is on memory node {node}, its CPUs {cpus} are on {nodes:?}: packets cross between the nodes",
                device.name
            ),
            format!("take CPUs of {near}"),
        );
    }
}

/// The cards that do the work of both planes: two VLANs may be of one bond.
fn shared(machine: &Machine, first: &PlaneWish, second: &PlaneWish) -> Option<String> {
    let (first, second) = (machine.working_devices(&first.device), machine.working_devices(&second.device));
    let mut names: Vec<&str> = first
        .into_iter()
        .filter(|device| !device.is_loopback() && second.iter().any(|other| other.name == device.name))
        .map(|device| device.name.as_str())
        .collect();
    names.sort_unstable();
    (!names.is_empty()).then(|| names.join(" and "))
}

/// What both planes share.
fn host(machine: &Machine, wishes: &[PlaneWish]) -> Group {
    let mut group = Group::new("host");
    let topology = &machine.topology;
    group.fine(format!(
        "CPU {} online, this process may use {}; memory nodes shown: {}",
        topology.online,
        topology.allowed,
        topology.nodes.len()
    ));
    if let Some(error) = &machine.addresses_refused {
        group.advice(
            format!("netlink is denied to this process ({error}): addresses and routes were not looked at"),
            "allow AF_NETLINK (RestrictAddressFamilies= of the unit, the container's seccomp profile), or name the devices with \
             IntDevice and ExtDevice",
        );
    }
    if let [first, second] = wishes
        && let Some(shared) = shared(machine, first, second)
    {
        group.advice(
            format!("both planes are on {shared}: clients can take the room of replication"),
            "give each plane a card of its own",
        );
    }
    if let [PlaneWish { cpus: Some(first), .. }, PlaneWish { cpus: Some(second), .. }] = wishes
        && !first.common(second).is_empty()
    {
        group
            .advice(format!("CPU {} is named for both planes", first.common(second)), "keep IntCpus and ExtCpus apart");
    }
    group
}

/// The CPUs that threads are placed on: are they there, and may the threads run on them?
fn processors(group: &mut Group, topology: &Topology, config: &Config) {
    let pinning = &config.cpu_pinning;
    let single = |cpu: Option<usize>| cpu.into_iter().collect::<Cpus>();
    let lists = [
        ("IntCpus", config.int_cpus.iter().copied().collect()),
        ("ExtCpus", config.ext_cpus.iter().copied().collect()),
        ("CpuPinning log", single(pinning.log)),
        ("CpuPinning control", single(pinning.control)),
        ("CpuPinning background", single(pinning.background)),
        ("CpuPinning edges", pinning.edges.iter().copied().collect()),
    ];
    for (option, cpus) in lists {
        let (missing, denied) = (cpus.without(&topology.online), cpus.without(&topology.allowed));
        // Of a machine that does not show which CPUs it has nothing is known.
        if !missing.is_empty() && !topology.online.is_empty() {
            group.problem(format!("CPU {missing} of {option} is not online"), format!("correct {option}"));
        } else if !denied.is_empty() && !topology.allowed.is_empty() {
            group.advice(
                format!("this process may use CPU {} only, without {denied} of {option}", topology.allowed),
                format!("correct {option}, or what keeps the node from them: CPUAffinity=, AllowedCPUs=, a container's cpuset"),
            );
        }
    }
    // An edge has a processor of its own; the other threads may run on any of their list.
    let list: Cpus = config.int_cpus.iter().copied().collect();
    let isolated = list.common(&topology.isolated);
    if list.len() > 1 && !isolated.is_empty() {
        group.advice(
            format!("CPU {isolated} of IntCpus is isolated: the scheduler spreads no threads over isolated CPUs"),
            "name them one by one with CpuPinning, one for each thread",
        );
    }
}

fn sysctls(group: &mut Group, machine: &Machine) {
    let mut worse = 0;
    for (sysctl, found) in SYSCTLS.iter().zip(&machine.sysctls) {
        if let Some((found, better)) = found.as_ref().and_then(|found| Some((found, sysctl.better(found)?))) {
            worse += 1;
            let (found, better) = (found.replace('\t', " "), better.replace('\t', " "));
            group.advice(
                format!("{} is {found}: {}", sysctl.name, sysctl.reason),
                format!("sysctl -w {}=\"{better}\", or `ringstore tune --apply`", sysctl.name),
            );
        }
    }
    let hidden = SYSCTLS.iter().zip(&machine.sysctls).filter(|(_, found)| found.is_none());
    let hidden: Vec<&str> = hidden.map(|(sysctl, _)| sysctl.name).collect();
    if !hidden.is_empty() {
        group.fine(format!("not shown here, a network namespace hides it: {}", hidden.join(", ")));
    }
    if worse == 0 {
        group.fine(format!("{} network sysctls are as they should be", SYSCTLS.len() - hidden.len()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::testing::unpack;
    use crate::operator::doctor::finding::Grade;

    fn lines(tree: &str, change: impl FnOnce(&mut Config)) -> Vec<(Grade, String)> {
        let (_folder, tree) = unpack(tree);
        told(&Machine::read(&tree).unwrap(), change)
    }

    fn told(machine: &Machine, change: impl FnOnce(&mut Config)) -> Vec<(Grade, String)> {
        let mut config = Config::default();
        change(&mut config);
        let groups = findings(machine, &config);
        groups.iter().flat_map(|group| &group.findings).map(|finding| (finding.grade, finding.line())).collect()
    }

    fn check(lines: &[(Grade, String)], grade: Grade, words: &str) {
        let found = lines.iter().find(|(_, line)| line.contains(words));
        assert_eq!(found.map(|(grade, _)| *grade), Some(grade), "{words}: {lines:#?}");
    }

    #[test]
    fn two_cards_with_lists_that_do_not_fit() {
        let lines = lines("two_cards", |config| {
            config.int_ip = "10.1.0.1".parse().unwrap();
            config.ext_ip = "192.168.7.1".parse().unwrap();
            (config.int_cpus, config.ext_cpus) = (vec![0, 1], vec![1, 2]);
        });
        check(
            &lines,
            Grade::Fine,
            "ens1f0np0: driver mlx5_core, 25000 Mbit/s, 4 receive and 4 send queues, memory node 0",
        );
        check(&lines, Grade::Advice, "4 interrupts of queues, taken by CPU 4-7: 4 of them outside IntCpus (0-1)");
        check(&lines, Grade::Advice, "waits up to 64 µs in the card, adaptive");
        check(&lines, Grade::Fine, "ens1f0np0 and its CPUs 0-1 are on memory node 0");
        check(&lines, Grade::Advice, "ens2f0np0 is on memory node 1, its CPUs 1-2 are on [0]");
        check(&lines, Grade::Advice, "CPU 1 is named for both planes");
        check(&lines, Grade::Advice, "net.ipv4.tcp_rmem is 4096 131072 6291456");
        assert!(lines.iter().all(|(grade, _)| *grade < Grade::Problem), "{lines:#?}");
    }

    #[test]
    fn a_bond_is_looked_through() {
        let lines = lines("bonded", |config| {
            config.int_ip = "10.1.0.2".parse().unwrap();
            config.ext_ip = "192.168.20.2".parse().unwrap();
            config.int_cpus = vec![2];
        });
        check(&lines, Grade::Fine, "bond0.20 hands its work to");
        check(&lines, Grade::Advice, "ban the interrupts of the cards: --banirq=71, or");
        check(&lines, Grade::Advice, "eno1: 2 interrupts of queues, taken by CPU 0: one CPU does it all");
        check(&lines, Grade::Advice, "eno2: RPS hands packets to CPU 0-3 although there are 2 queues");
        check(&lines, Grade::Advice, "already; name CPUs with ExtCpus, and `ringstore tune --dry-run`");
    }

    #[test]
    fn a_card_of_both_planes_is_looked_at_once() {
        let (_folder, tree) = unpack("two_cards");
        let mut machine = Machine::read(&tree).unwrap();
        let second: IpAddr = "10.1.0.77".parse().unwrap();
        machine.devices.iter_mut().find(|device| device.name == "ens1f0np0").unwrap().addresses.push(second);
        let lines = told(&machine, |config| {
            (config.int_ip, config.ext_ip) = ("10.1.0.1".parse().unwrap(), second);
            (config.int_cpus, config.ext_cpus) = (vec![0, 1], vec![2, 3]);
        });
        check(&lines, Grade::Advice, "of them outside IntCpus (0-1)");
        check(&lines, Grade::Fine, "ens1f0np0 does the work of both planes");
        check(&lines, Grade::Advice, "both planes are on ens1f0np0");
        assert!(!lines.iter().any(|(_, line)| line.contains("outside ExtCpus")), "tune follows IntCpus: {lines:#?}");
    }

    #[test]
    fn planes_that_share_their_cards_are_found() {
        let (_folder, tree) = unpack("bonded");
        let machine = Machine::read(&tree).unwrap();
        let wish = |device: &str| PlaneWish { kind: PlaneKind::Internal, device: device.to_owned(), cpus: None };
        let check = |first: &str, second: &str, expected: Option<&str>| {
            let found = shared(&machine, &wish(first), &wish(second));
            assert_eq!(found.as_deref(), expected, "{first} {second}");
        };
        check("bond0", "bond0.20", Some("eno1 and eno2"));
        check("ens1f0", "ens1f0", Some("ens1f0"));
        check("ens1f0", "bond0.20", None);
        check("lo", "lo", None);
    }

    #[test]
    fn addresses_and_devices_that_are_not_there() {
        let with = |int_ip: &str, device: Option<&str>| {
            lines("two_cards", |config| {
                config.int_ip = int_ip.parse().unwrap();
                config.int_device = device.map(str::to_owned);
            })
        };
        check(&with("10.9.9.9", None), Grade::Problem, "no device of this host has that address");
        check(&with("10.1.0.1", Some("eth9")), Grade::Problem, "IntDevice is eth9, and there is no such device");
        check(&with("10.1.0.1", Some("ens2f0np0")), Grade::Advice, "but IntIp 10.1.0.1 is on ens1f0np0");
        check(&with("10.9.9.9", Some("ens2f0np0")), Grade::Problem, "but IntIp 10.9.9.9 is on no device");
        check(&with("127.0.0.1", Some("ens2f0np0")), Grade::Problem, "nobody would reach the listener");
        check(&with("0.0.0.0", None), Grade::Advice, "listens on all devices");
        check(&with("127.0.0.5", None), Grade::Fine, "only this host reaches it");
    }

    #[test]
    fn processors_that_threads_cannot_have_are_told() {
        let cpus = |text: &str| Cpus::parse_list(text).unwrap();
        let with = |change: &dyn Fn(&mut Config), expected: Option<(Grade, &str)>| {
            let (online, allowed) = (cpus("0-3"), cpus("0-2"));
            let topology = Topology { online, allowed, isolated: cpus("2"), ..Topology::default() };
            let (mut config, mut group) = (Config::default(), Group::new("host"));
            change(&mut config);
            processors(&mut group, &topology, &config);
            let found = group.findings.first().map(|finding| (finding.grade, finding.what.as_str()));
            assert_eq!(found, expected, "{group:?}");
            assert!(group.findings.len() < 2, "{group:?}");
        };
        let problem = |words| Some((Grade::Problem, words));
        let advice = |words| Some((Grade::Advice, words));
        with(&|config| config.int_cpus = vec![0, 1], None);
        with(&|config| config.int_cpus = vec![4], problem("CPU 4 of IntCpus is not online"));
        let denied = "this process may use CPU 0-2 only, without 3 of ExtCpus";
        with(&|config| config.ext_cpus = vec![2, 3], advice(denied));
        with(&|config| config.cpu_pinning.edges = vec![77], problem("CPU 77 of CpuPinning edges is not online"));
        let denied = "this process may use CPU 0-2 only, without 3 of CpuPinning log";
        with(&|config| config.cpu_pinning.log = Some(3), advice(denied));
        let isolated = "CPU 2 of IntCpus is isolated: the scheduler spreads no threads over isolated CPUs";
        with(&|config| config.int_cpus = vec![1, 2], advice(isolated));
        with(&|config| config.int_cpus = vec![2], None);
        with(&|config| config.ext_cpus = vec![1, 2], None);
    }

    #[test]
    fn addresses_that_the_kernel_does_not_tell_are_not_judged() {
        let (_folder, tree) = unpack("two_cards");
        let mut machine = Machine::read(&tree).unwrap();
        machine.devices.iter_mut().for_each(|device| device.addresses.clear());
        machine.addresses_refused = Some("EAFNOSUPPORT".to_owned());
        let lines = told(&machine, |config| {
            (config.int_ip, config.ext_ip) = ("10.1.0.1".parse().unwrap(), "192.168.7.1".parse().unwrap());
            config.ext_device = Some("ens2f0np0".to_owned());
        });
        assert!(lines.iter().all(|(grade, _)| *grade < Grade::Problem), "{lines:#?}");
        assert_eq!(lines.iter().filter(|(_, line)| line.contains("netlink is denied")).count(), 1, "{lines:#?}");
        check(&lines, Grade::Advice, "(EAFNOSUPPORT): addresses and routes were not looked at");
        check(&lines, Grade::Fine, "which device has IntIp 10.1.0.1 is not known");
        check(&lines, Grade::Fine, "ens2f0np0: driver mlx5_core");
    }

    #[test]
    fn an_address_of_a_routed_host_is_carried_by_its_cards() {
        let (_folder, tree) = unpack("two_cards");
        let mut machine = Machine::read(&tree).unwrap();
        let own: IpAddr = "10.77.0.1".parse().unwrap();
        machine.devices.iter_mut().find(|device| device.is_loopback()).unwrap().addresses.push(own);
        let with = |device: Option<&str>| {
            told(&machine, |config| (config.int_ip, config.int_device) = (own, device.map(str::to_owned)))
        };
        check(&with(None), Grade::Fine, "10.77.0.1 is on the loopback device, and the routes say which cards carry it");
        let bound = with(Some("ens1f0np0"));
        check(&bound, Grade::Advice, "it works only if the network routes 10.77.0.1 to ens1f0np0");
        check(&bound, Grade::Fine, "ens1f0np0: driver mlx5_core");
        assert!(bound.iter().all(|(grade, _)| *grade < Grade::Problem), "{bound:?}");
    }
}
