//! Tests of making changes and putting back what was there before, on captured hosts.

use super::*;
use crate::machine::cpus::Cpus;
use crate::machine::plan::PlaneKind;
use crate::machine::testing::{Folder, contents, unpack};

fn wishes(internal: &str, external: &str) -> [PlaneWish; 2] {
    let wish = |kind, device: &str, cpus| {
        let cpus = Cpus::parse_list(cpus);
        PlaneWish { kind, device: device.to_owned(), cpus }
    };
    [wish(PlaneKind::Internal, internal, "0-1"), wish(PlaneKind::External, external, "2-3")]
}

#[test]
fn what_was_applied_is_put_back_to_the_last_byte() {
    for (name, internal, external) in [("two_cards", "ens1f0np0", "ens2f0np0"), ("bonded", "ens1f0", "bond0.20")] {
        let (folder, tree) = unpack(name);
        let own = Folder::new();
        let file = own.path().join("deep/state.json");
        let before = contents(folder.path());
        let wishes = wishes(internal, external);
        let applied = apply(&tree, &wishes, &file).unwrap();
        assert!(applied.done.len() > 10 && applied.refused.is_empty(), "{name}: {applied:?}");
        assert_ne!(contents(folder.path()), before, "{name}");
        // What is applied needs nothing more, and a second run does not forget what was there first.
        assert_eq!(plan(&Machine::read(&tree).unwrap(), &wishes).steps, [], "{name}");
        fs::write(folder.path().join("proc/sys/net/core/somaxconn"), "128\n").unwrap();
        assert_eq!(apply(&tree, &wishes, &file).unwrap().done.len(), 1, "{name}");
        let reverted = revert(&tree, &file).unwrap();
        assert_eq!(reverted.done.len(), applied.done.len() + 1, "{name}: {reverted:?}");
        assert!(reverted.refused.is_empty() && reverted.gone.is_empty(), "{name}: {reverted:?}");
        fs::write(folder.path().join("proc/sys/net/core/somaxconn"), "4096\n").unwrap();
        assert_eq!(contents(folder.path()), before, "{name}");
        assert!(!file.exists(), "{name}");
        assert!(matches!(revert(&tree, &file), Err(MachineError::NothingKept { .. })), "{name}");
    }
}

#[test]
fn what_is_refused_stops_nothing_and_is_not_kept() {
    let (folder, tree) = unpack("two_cards");
    let own = Folder::new();
    let file = own.path().join("state.json");
    // A folder in the place of a file cannot be written; nor can the kernel's own choice of an interrupt's CPU.
    let refusing = folder.path().join("proc/irq/129/smp_affinity_list");
    let mut machine = Machine::read(&tree).unwrap();
    let steps = plan(&machine, &wishes("ens1f0np0", "ens2f0np0")).steps;
    fs::remove_file(&refusing).unwrap();
    fs::create_dir(&refusing).unwrap();
    machine.devices.clear();
    let mut state = State::empty(&tree);
    let mut applied = Applied::default();
    carry_out(&tree, &steps, &mut state, &file, &mut applied).unwrap();
    assert_eq!((applied.refused.len(), applied.done.len()), (1, steps.len() - 1));
    assert!(applied.refused[0].error.to_string().starts_with("/proc/irq/129/smp_affinity_list cannot be set to \"0\""));
    let kept = State::load(&file).unwrap().unwrap().kept;
    assert!(kept.len() == steps.len() - 1 && !kept.iter().any(|kept| kept.target.contains("/129/")));
}

#[test]
fn a_setting_that_cannot_be_put_back_stays_in_the_file() {
    let (folder, tree) = unpack("two_cards");
    let own = Folder::new();
    let file = own.path().join("state.json");
    apply(&tree, &wishes("ens1f0np0", "ens2f0np0"), &file).unwrap();
    let refusing = folder.path().join("proc/irq/129/smp_affinity_list");
    fs::remove_file(&refusing).unwrap();
    fs::create_dir(&refusing).unwrap();
    assert_eq!(revert(&tree, &file).unwrap().refused.len(), 1);
    let kept = State::load(&file).unwrap().unwrap().kept;
    assert_eq!(kept.iter().map(|kept| kept.target.as_str()).collect::<Vec<_>>(), ["/proc/irq/129/smp_affinity_list"]);
}

#[test]
fn a_state_file_of_something_else_is_refused() {
    let (_folder, tree) = unpack("two_cards");
    let own = Folder::new();
    let file = own.path().join("state.json");
    let check = |text: &str, expected: &str| {
        fs::write(&file, text).unwrap();
        let words = revert(&tree, &file).unwrap_err().to_string();
        assert!(words.contains(expected), "{words}");
        assert!(file.exists());
    };
    check("{}", "missing field");
    check(r#"{"format":2,"root":"/","boot":"","kept":[]}"#, "it has format 2, expected 1");
    check(r#"{"format":1,"root":"/elsewhere","boot":"","kept":[]}"#, "keeps settings of the root /elsewhere");
    let kept = r#"[{"target":"/etc/shadow","former":"","written":""}]"#;
    check(
        &format!(r#"{{"format":1,"root":"/","boot":"","kept":{kept}}}"#),
        "\"/etc/shadow\" is nothing that a plan changes",
    );
}

/// A card that takes queues away when their number falls, and whose driver takes no times while it chooses them itself.
fn as_a_card(root: &Path, target: &Target, value: &str) -> io::Result<()> {
    match target {
        Target::Ethtool { group, .. } if group == "channels" && value.trim() == "4" => {
            fs::remove_dir_all(root.join("sys/class/net/ens1f0np0/queues/tx-1"))?;
            fs::remove_dir_all(root.join("proc/irq/132"))?;
            let shown = root.join("proc/interrupts");
            let lines = fs::read_to_string(&shown)?.replace("mlx5_comp2@pci:0000:3b:00.0", "nvme7q1");
            fs::write(shown, lines)
        }
        Target::Ethtool { device, field, .. } if field == "rx-usecs" => {
            let adaptive = fs::read_to_string(root.join(format!("ethtool/{device}/coalesce/adaptive-rx")))?;
            let refused = io::Error::from_raw_os_error(libc::EINVAL);
            if adaptive.trim() == "on" { Err(refused) } else { Ok(()) }
        }
        _ => Ok(()),
    }
}

#[test]
fn what_a_card_has_no_more_is_not_put_back_and_the_rest_backwards() {
    let (folder, mut tree) = unpack("two_cards");
    tree.before_set = Some(as_a_card);
    let own = Folder::new();
    let file = own.path().join("state.json");
    let wishes = [PlaneWish { cpus: Cpus::parse_list("0-5"), ..wishes("ens1f0np0", "x")[0].clone() }];
    let applied = apply(&tree, &wishes, &file).unwrap();
    assert!(applied.refused.is_empty() && applied.done[0].is_channels(), "{applied:?}");
    let reverted = revert(&tree, &file).unwrap();
    assert!(reverted.refused.is_empty() && !file.exists(), "{reverted:?}");
    let mut gone: Vec<_> = reverted.gone.iter().map(|(kept, why)| format!("{}: {why}", kept.target)).collect();
    gone.sort();
    let expected = [
        "/proc/irq/131/smp_affinity_list: interrupt 131 was that of mlx5_comp2@pci:0000:3b:00.0 and is that of nvme7q1 now",
        "/proc/irq/132/smp_affinity_list: it is not there any more",
        "/sys/class/net/ens1f0np0/queues/tx-1/xps_cpus: it is not there any more",
    ];
    assert_eq!(gone, expected);
    let text = |path: &str| fs::read_to_string(folder.path().join(path)).unwrap();
    assert_eq!(text("ethtool/ens1f0np0/coalesce/rx-usecs"), "64\n");
    assert_eq!(text("ethtool/ens1f0np0/coalesce/adaptive-rx"), "on\n");
    assert_eq!(text("proc/irq/131/smp_affinity_list"), "2\n", "another's by now");
}

#[test]
fn what_an_earlier_boot_has_kept_counts_for_nothing() {
    let (folder, tree) = unpack("two_cards");
    let own = Folder::new();
    let file = own.path().join("state.json");
    let boot = |id: &str| {
        let path = folder.path().join(BOOT_ID);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, id).unwrap();
    };
    boot("first\n");
    let wishes = wishes("ens1f0np0", "ens2f0np0");
    apply(&tree, &wishes, &file).unwrap();
    boot("second\n");
    let before = contents(folder.path());
    assert!(matches!(revert(&tree, &file), Err(MachineError::OtherBoot { .. })));
    assert_eq!(contents(folder.path()), before);
    let usecs = folder.path().join("ethtool/ens1f0np0/coalesce/rx-usecs");
    fs::write(&usecs, "50\n").unwrap();
    let applied = apply(&tree, &wishes, &file).unwrap();
    assert!(applied.remarks[0].contains("of an earlier boot"), "{applied:?}");
    assert_eq!(State::load(&file).unwrap().unwrap().kept.len(), 1);
    revert(&tree, &file).unwrap();
    assert_eq!(fs::read_to_string(usecs).unwrap(), "50\n");
}

#[test]
fn no_link_is_followed_and_nobody_elses_file_is_believed() {
    let (_folder, tree) = unpack("two_cards");
    let own = Folder::new();
    let (file, other) = (own.path().join("state.json"), own.path().join("precious"));
    fs::write(&other, "precious").unwrap();
    std::os::unix::fs::symlink(&other, own.path().join("state.new")).unwrap();
    let wishes = wishes("ens1f0np0", "ens2f0np0");
    apply(&tree, &wishes, &file).unwrap();
    assert_eq!(fs::read_to_string(&other).unwrap(), "precious");
    assert_eq!(fs::metadata(&file).unwrap().mode() & 0o777, 0o600);
    fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o606)).unwrap();
    let words = revert(&tree, &file).unwrap_err().to_string();
    assert!(words.contains("everybody may write it (mode 606)"), "{words}");
    fs::rename(&file, own.path().join("moved.json")).unwrap();
    std::os::unix::fs::symlink("moved.json", &file).unwrap();
    let words = revert(&tree, &file).unwrap_err().to_string();
    assert!(words.contains("cannot be read"), "{words}");
}

#[test]
fn what_somebody_has_changed_since_is_left() {
    let (folder, tree) = unpack("two_cards");
    let own = Folder::new();
    let file = own.path().join("state.json");
    let wishes = wishes("ens1f0np0", "ens2f0np0");
    let applied = apply(&tree, &wishes, &file).unwrap();
    let path = |path: &str| folder.path().join(path);
    let (backlog, usecs) = ("proc/sys/net/core/netdev_max_backlog", "ethtool/ens1f0np0/coalesce/rx-usecs");
    fs::write(path(backlog), "9999\n").unwrap();
    fs::write(path(usecs), "20\n").unwrap();
    // The same in other words.
    fs::write(path("sys/class/net/ens1f0np0/queues/tx-2/xps_cpus"), "00000000,00000001\n").unwrap();
    fs::write(path("proc/sys/net/ipv4/tcp_rmem"), "4096 131072 16777216\n").unwrap();
    let reverted = revert(&tree, &file).unwrap();
    let mut changed: Vec<_> = reverted.changed.iter().map(|kept| kept.target.as_str()).collect();
    changed.sort_unstable();
    assert_eq!(changed, ["/proc/sys/net/core/netdev_max_backlog", "ethtool ens1f0np0 coalesce rx-usecs"]);
    assert_eq!(reverted.done.len(), applied.done.len() - 2, "{reverted:?}");
    let text = |name: &str| fs::read_to_string(path(name)).unwrap();
    assert_eq!((text(backlog).as_str(), text(usecs).as_str()), ("9999\n", "20\n"));
    assert!(!file.exists(), "nothing is left to put back");
}

#[test]
fn what_a_second_run_is_refused_can_still_be_put_back() {
    let (folder, mut tree) = unpack("two_cards");
    let own = Folder::new();
    let file = own.path().join("state.json");
    let first = wishes("ens1f0np0", "ens2f0np0");
    apply(&tree, &first, &file).unwrap();
    tree.before_set = Some(|_, target, _| {
        let is_first = target.to_string() == "/proc/irq/129/smp_affinity_list";
        if is_first { Err(io::Error::from_raw_os_error(libc::EIO)) } else { Ok(()) }
    });
    let second = [PlaneWish { cpus: Cpus::parse_list("2-3"), ..first[0].clone() }];
    assert_eq!(apply(&tree, &second, &file).unwrap().refused.len(), 1);
    tree.before_set = None;
    let reverted = revert(&tree, &file).unwrap();
    assert!(reverted.changed.is_empty(), "{reverted:?}");
    let text = fs::read_to_string(folder.path().join("proc/irq/129/smp_affinity_list")).unwrap();
    assert_eq!(text, "0-7\n");
}

#[test]
fn a_number_that_is_another_interrupts_by_now_is_kept_anew() {
    let (folder, tree) = unpack("two_cards");
    let own = Folder::new();
    let file = own.path().join("state.json");
    let wishes = wishes("ens1f0np0", "ens2f0np0");
    apply(&tree, &wishes, &file).unwrap();
    let shown = folder.path().join("proc/interrupts");
    let lines = fs::read_to_string(&shown).unwrap().replace("mlx5_comp0@pci:0000:3b", "mlx5_comp7@pci:0000:3b");
    fs::write(&shown, lines).unwrap();
    let affinity = folder.path().join("proc/irq/129/smp_affinity_list");
    fs::write(&affinity, "6\n").unwrap();
    apply(&tree, &wishes, &file).unwrap();
    let kept = State::load(&file).unwrap().unwrap().kept;
    let kept: Vec<_> = kept.iter().filter(|kept| kept.target.contains("/129/")).collect();
    assert_eq!((kept.len(), kept[0].former.as_str()), (1, "6\n"), "{kept:?}");
    assert_eq!(kept[0].interrupt.as_deref(), Some("mlx5_comp7@pci:0000:3b:00.0"));
    revert(&tree, &file).unwrap();
    assert_eq!(fs::read_to_string(affinity).unwrap(), "6\n");
}

/// Cards whose driver makes all queues anew when their number changes, each time with settings of its own.
fn that_makes_queues_anew(root: &Path, target: &Target, value: &str) -> io::Result<()> {
    let Target::Ethtool { device, group, .. } = target else { return Ok(()) };
    if group != "channels" {
        return Ok(());
    }
    let queue = |name: &str| root.join(format!("sys/class/net/{device}/queues/{name}"));
    let interrupts = if device == "eno1" { [61, 62] } else { [65, 66] };
    let interrupt = |index: usize| root.join(format!("proc/irq/{}", interrupts[index]));
    let count: usize = value.trim().parse().unwrap();
    for index in 0..2 {
        for (name, file, text) in [("rx", "rps_cpus", "00\n"), ("tx", "xps_cpus", "0\n")] {
            let folder = queue(&format!("{name}-{index}"));
            fs::remove_dir_all(&folder).or_else(ignore_missing)?;
            if index < count {
                fs::create_dir(&folder)?;
                fs::write(folder.join(file), text)?;
            }
        }
        fs::remove_dir_all(interrupt(index)).or_else(ignore_missing)?;
        if index < count {
            fs::create_dir(interrupt(index))?;
            fs::write(interrupt(index).join("smp_affinity_list"), "0-3\n")?;
        }
    }
    Ok(())
}

fn ignore_missing(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
}

/// What was set for a queue must outlive the queue: the number of queues fell, and only then was kept what they were set to.
#[test]
fn settings_of_queues_that_went_are_put_back_with_them() {
    let (folder, mut tree) = unpack("bonded");
    tree.before_set = Some(that_makes_queues_anew);
    let own = Folder::new();
    let file = own.path().join("state.json");
    let before = contents(folder.path());
    let wishes = [PlaneWish { cpus: Cpus::parse_list("0"), ..wishes("x", "bond0.20")[1].clone() }];
    let applied = apply(&tree, &wishes, &file).unwrap();
    assert_eq!(applied.done.iter().filter(|step| step.is_channels()).count(), 2, "{applied:?}");
    assert!(!folder.path().join("sys/class/net/eno1/queues/rx-1").exists());
    let reverted = revert(&tree, &file).unwrap();
    assert!(reverted.gone.is_empty() && reverted.changed.is_empty() && reverted.refused.is_empty(), "{reverted:?}");
    assert!(contents(folder.path()) == before, "{reverted:#?}");
    assert!(!file.exists());
}

#[test]
fn a_card_that_keeps_its_queues_leaves_nothing_to_put_back() {
    let (_folder, mut tree) = unpack("bonded");
    tree.before_set = Some(|_, target, _| match target {
        Target::Ethtool { group, .. } if group == "channels" => Err(io::Error::from_raw_os_error(libc::EBUSY)),
        _ => Ok(()),
    });
    let own = Folder::new();
    let file = own.path().join("state.json");
    let wishes = [PlaneWish { cpus: Cpus::parse_list("0"), ..wishes("x", "bond0.20")[1].clone() }];
    let applied = apply(&tree, &wishes, &file).unwrap();
    assert_eq!(applied.refused.len(), 2, "{applied:?}");
    assert_eq!(State::load(&file).unwrap().unwrap().kept.len(), applied.done.len());
}

/// The same, and one card's does not do it while somebody uses it.
fn that_is_busy_at_times(root: &Path, target: &Target, value: &str) -> io::Result<()> {
    let is_busy = root.join("busy").exists();
    match target {
        Target::Ethtool { device, group, .. } if group == "channels" && device == "eno2" && is_busy => {
            Err(io::Error::from_raw_os_error(libc::EBUSY))
        }
        _ => that_makes_queues_anew(root, target, value),
    }
}

#[test]
fn settings_of_queues_wait_until_all_queues_are_back() {
    let (folder, mut tree) = unpack("bonded");
    tree.before_set = Some(that_is_busy_at_times);
    let own = Folder::new();
    let file = own.path().join("state.json");
    let before = contents(folder.path());
    let wishes = [PlaneWish { cpus: Cpus::parse_list("0"), ..wishes("x", "bond0.20")[1].clone() }];
    apply(&tree, &wishes, &file).unwrap();
    fs::write(folder.path().join("busy"), "").unwrap();
    let reverted = revert(&tree, &file).unwrap();
    assert_eq!((reverted.refused.len(), reverted.remarks.len()), (1, 1), "{reverted:?}");
    assert!(reverted.gone.is_empty() && reverted.changed.is_empty() && file.exists(), "{reverted:?}");
    fs::remove_file(folder.path().join("busy")).unwrap();
    let reverted = revert(&tree, &file).unwrap();
    assert!(reverted.gone.is_empty() && reverted.changed.is_empty() && reverted.refused.is_empty(), "{reverted:?}");
    assert!(contents(folder.path()) == before && !file.exists(), "{reverted:#?}");
}

/// Cards of a bond whose links fall for a moment when the number of queues changes.
fn whose_link_falls(root: &Path, target: &Target, _value: &str) -> io::Result<()> {
    let Target::Ethtool { device, group, .. } = target else { return Ok(()) };
    if group != "channels" {
        return Ok(());
    }
    let state = |device: &str| root.join(format!("sys/class/net/{device}/operstate"));
    let other = if device == "eno1" { "eno2" } else { "eno1" };
    assert_eq!(fs::read_to_string(state(other))?.trim(), "up", "the bond is down");
    let own = state(device);
    fs::write(&own, "down\n")?;
    std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(200));
        fs::write(own, "up\n").unwrap();
    });
    Ok(())
}

#[test]
fn one_card_of_a_bond_is_up_whatever_is_done_to_the_other() {
    let (_folder, mut tree) = unpack("bonded");
    tree.before_set = Some(whose_link_falls);
    let own = Folder::new();
    let file = own.path().join("state.json");
    let wishes = [PlaneWish { cpus: Cpus::parse_list("0"), ..wishes("x", "bond0.20")[1].clone() }];
    let applied = apply(&tree, &wishes, &file).unwrap();
    assert_eq!(applied.done.iter().filter(|step| step.is_channels()).count(), 2, "{applied:?}");
    let reverted = revert(&tree, &file).unwrap();
    assert!(reverted.remarks.is_empty() && !file.exists(), "{reverted:?}");
}

#[test]
fn a_link_that_stays_down_is_waited_for_so_long_only() {
    let (folder, tree) = unpack("bonded");
    let before = Machine::read(&tree).unwrap();
    let check = |device: &str, expected: Result<(), &str>| {
        let target = Target::parse(&format!("ethtool {device} channels combined")).unwrap();
        let found = await_link(&tree, &before, &target, Duration::from_millis(60));
        assert_eq!(found, expected.map_err(str::to_owned), "{device}");
    };
    fs::write(folder.path().join("sys/class/net/eno1/operstate"), "down\n").unwrap();
    check("eno1", Err("eno1 is still down 60ms after its number of queues was set"));
    check("eno2", Ok(()));
    check("lo", Ok(()));
}
