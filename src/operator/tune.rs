//! `ringstore tune`: shows, makes and takes back what could be set better on this host for the two planes of a node.

use std::path::{Path, PathBuf};

use super::error::OperatorError;
use crate::config::Config;
use crate::machine::{Applied, Cpus, Machine, Plan, PlaneKind, PlaneWish, Reverted, Tree, apply, plan, revert};

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// Show the plan.
    DryRun,
    /// Make the changes.
    Apply,
    /// Take them back.
    Revert,
}

/// What the command line says beside the node's options.
#[derive(Clone, Debug)]
pub(super) struct Order {
    pub(super) action: Action,
    pub(super) state_file: PathBuf,
    pub(super) root: PathBuf,
}

/// What the options want for each plane that has a device on this host.
pub(super) fn wishes(machine: &Machine, config: &Config) -> Vec<PlaneWish> {
    let planes = [
        (PlaneKind::Internal, config.int_ip, &config.int_device, &config.int_cpus),
        (PlaneKind::External, config.ext_ip, &config.ext_device, &config.ext_cpus),
    ];
    let wish = |(kind, address, bound, cpus): (PlaneKind, _, &Option<String>, &Vec<usize>)| {
        let device = bound.clone().or_else(|| machine.device_with(address).map(|device| device.name.clone()))?;
        let cpus: Cpus = cpus.iter().copied().collect();
        Some(PlaneWish { kind, device, cpus: Some(cpus).filter(|cpus| !cpus.is_empty()) })
    };
    planes.into_iter().filter_map(wish).collect()
}

/// Shows or makes the changes, and says so line by line. True when nothing was refused.
pub(super) fn run(order: &Order, config: &Config, tell: &mut dyn FnMut(&str)) -> Result<bool, OperatorError> {
    let tree = Tree::at(&order.root);
    let machine = Machine::read(&tree)?;
    let wishes = wishes(&machine, config);
    if let Some(error) = &machine.addresses_refused {
        tell(&format!(
            "the kernel does not tell which device has which address: {error}; name IntDevice and ExtDevice"
        ));
    }
    for (kind, address) in [(PlaneKind::Internal, config.int_ip), (PlaneKind::External, config.ext_ip)] {
        match wishes.iter().find(|wish| wish.kind == kind) {
            Some(wish) => tell(&format!(
                "{kind} plane: {address} on {}, CPUs {}",
                wish.device,
                wish.cpus.as_ref().map_or("not named".to_owned(), ToString::to_string)
            )),
            None => tell(&format!(
                "{kind} plane: {address} is on no single device that is known; nothing is planned for it"
            )),
        }
    }
    match order.action {
        Action::Apply => {
            let applied = apply(&tree, &wishes, &order.state_file)?;
            Ok(report(&applied, &order.state_file, tell))
        }
        Action::DryRun | Action::Revert => {
            show(&plan(&machine, &wishes), tell);
            Ok(true)
        }
    }
}

fn show(plan: &Plan, tell: &mut dyn FnMut(&str)) {
    for step in &plan.steps {
        tell(&format!("would set  {}: {} -> {}", step.target, plain(&step.found), plain(&step.value)));
        tell(&format!("           {}", step.reason));
    }
    plan.remarks.iter().for_each(|remark| tell(&format!("remark     {remark}")));
    match plan.steps.len() {
        0 => tell("nothing to change"),
        count => tell(&format!(
            "{count} changes; nothing was changed. `ringstore tune --apply` with the same options makes them"
        )),
    }
}

fn report(applied: &Applied, state_file: &Path, tell: &mut dyn FnMut(&str)) -> bool {
    for step in &applied.done {
        tell(&format!("set        {}: {} -> {}", step.target, plain(&step.found), plain(&step.value)));
    }
    applied.stopped.iter().chain(&applied.remarks).for_each(|remark| tell(&format!("remark     {remark}")));
    applied.refused.iter().for_each(|refused| tell(&format!("refused    {}", refused.error)));
    if !applied.refused.is_empty() {
        tell(&format!(
            "{} refused and left as they were, the others do not hang on them; it takes root, and a driver that has the setting",
            applied.refused.len()
        ));
    }
    match applied.done.len() {
        0 => tell("nothing was changed"),
        count => tell(&format!(
            "{count} changes were made until the next boot; what was there before is in {}: `ringstore tune --revert` puts it \
             back",
            state_file.display()
        )),
    }
    applied.refused.is_empty() && applied.stopped.is_none()
}

/// Puts back what the state file has. True when nothing was refused.
pub(super) fn take_back(order: &Order, tell: &mut dyn FnMut(&str)) -> Result<bool, OperatorError> {
    let state_file = &order.state_file;
    let Reverted { done, gone, changed, refused, remarks } = revert(&Tree::at(&order.root), state_file)?;
    done.iter().for_each(|kept| tell(&format!("put back   {}: {}", kept.target, plain(kept.former.trim()))));
    gone.iter().for_each(|(kept, why)| tell(&format!("gone       {}: {why}; nothing to put back", kept.target)));
    changed.iter().for_each(|kept| {
        tell(&format!("left       {}: changed since; it was {} before", kept.target, plain(&kept.former)));
    });
    refused.iter().for_each(|refused| tell(&format!("refused    {}", refused.error)));
    if !refused.is_empty() {
        tell(&format!("what was refused stays in {}: try again as root", state_file.display()));
    }
    remarks.iter().for_each(|remark| tell(&format!("remark     {remark}")));
    Ok(refused.is_empty() && remarks.is_empty())
}

/// On one line.
fn plain(value: &str) -> String {
    let shown = value.split_whitespace().collect::<Vec<_>>().join(" ");
    if shown.is_empty() { "none".to_owned() } else { shown }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::testing::{contents, unpack};

    #[test]
    fn a_captured_host_is_planned_tuned_and_put_back() {
        let (folder, _tree) = unpack("two_cards");
        let before = contents(folder.path());
        let own = crate::machine::testing::Folder::new();
        let state_file = own.path().join("state.json");
        let mut config = Config::default();
        (config.int_ip, config.ext_ip) = ("10.1.0.1".parse().unwrap(), "192.168.7.1".parse().unwrap());
        (config.int_cpus, config.ext_cpus) = (vec![0, 1], vec![4, 5]);
        let told = |action| {
            let order = Order { action, state_file: state_file.clone(), root: folder.path().to_owned() };
            let mut lines = Vec::new();
            let mut tell = |line: &str| lines.push(line.to_owned());
            let is_whole =
                if action == Action::Revert { take_back(&order, &mut tell) } else { run(&order, &config, &mut tell) };
            assert!(is_whole.unwrap());
            lines
        };
        let shown = told(Action::DryRun);
        assert_eq!(shown[0], "internal plane: 10.1.0.1 on ens1f0np0, CPUs 0-1");
        assert!(shown.contains(&"would set  /proc/irq/129/smp_affinity_list: 0-7 -> 0".to_owned()), "{shown:#?}");
        assert!(shown.last().unwrap().contains("nothing was changed"), "{shown:#?}");
        assert!(contents(folder.path()) == before && !state_file.exists());
        assert!(told(Action::Apply).last().unwrap().contains("`ringstore tune --revert` puts it back"));
        assert!(contents(folder.path()) != before && state_file.exists());
        assert_eq!(told(Action::DryRun).last().unwrap(), "nothing to change");
        std::fs::write(folder.path().join("proc/irq/130/smp_affinity_list"), "5\n").unwrap();
        let shown = told(Action::Revert);
        assert!(shown.contains(&"put back   /proc/irq/129/smp_affinity_list: 0-7".to_owned()), "{shown:#?}");
        let left = "left       /proc/irq/130/smp_affinity_list: changed since; it was 0-7 before";
        assert!(shown.contains(&left.to_owned()), "{shown:#?}");
        std::fs::write(folder.path().join("proc/irq/130/smp_affinity_list"), "0-7\n").unwrap();
        assert_eq!(contents(folder.path()), before);
    }

    #[test]
    fn a_change_that_is_refused_in_the_middle_is_said_and_the_rest_can_be_taken_back() {
        let (folder, _tree) = unpack("two_cards");
        let own = crate::machine::testing::Folder::new();
        let state_file = own.path().join("state.json");
        let file = |number: u32| folder.path().join(format!("proc/irq/{number}/smp_affinity_list"));
        // A list of CPUs that nobody can write, not even root.
        let refuse = |number: u32| {
            std::fs::remove_file(file(number)).unwrap();
            std::os::unix::fs::symlink("/sys/devices/system/cpu/possible", file(number)).unwrap();
        };
        let mut config = Config::default();
        (config.int_ip, config.ext_ip) = ("10.1.0.1".parse().unwrap(), "192.168.7.1".parse().unwrap());
        (config.int_cpus, config.ext_cpus) = (vec![0, 1], vec![4, 5]);
        let told = |action, is_whole: bool| {
            let order = Order { action, state_file: state_file.clone(), root: folder.path().to_owned() };
            let mut lines = Vec::new();
            let mut tell = |line: &str| lines.push(line.to_owned());
            let found =
                if action == Action::Revert { take_back(&order, &mut tell) } else { run(&order, &config, &mut tell) };
            assert_eq!(found.unwrap(), is_whole, "{lines:#?}");
            lines
        };
        let before = contents(folder.path());
        refuse(130);
        let lines = told(Action::Apply, false);
        let refusal = "refused    /proc/irq/130/smp_affinity_list cannot be set to";
        assert_eq!(lines.iter().filter(|line| line.starts_with("refused")).count(), 1, "{lines:#?}");
        assert!(lines.iter().any(|line| line.starts_with(refusal)), "{lines:#?}");
        assert!(lines.iter().any(|line| line.starts_with("1 refused and left as they were")), "{lines:#?}");
        assert!(lines.iter().any(|line| line.starts_with("set        /proc/sys/net/")), "what comes later is done");
        // What cannot be put back is kept for another try.
        std::fs::remove_file(file(130)).unwrap();
        std::fs::write(file(130), "0-7\n").unwrap();
        // A folder can neither be read nor written.
        std::fs::remove_file(file(129)).unwrap();
        std::fs::create_dir(file(129)).unwrap();
        let lines = told(Action::Revert, false);
        assert!(lines.last().unwrap().contains("what was refused stays in"), "{lines:#?}");
        std::fs::remove_dir(file(129)).unwrap();
        std::fs::write(file(129), "0\n").unwrap();
        assert_eq!(told(Action::Revert, true), ["put back   /proc/irq/129/smp_affinity_list: 0-7"]);
        assert!(contents(folder.path()) == before && !state_file.exists());
    }
}
