//! Makes the changes of a plan and puts back what was there before.
//!
//! What was there is in a file before anything is changed, so a run that is cut off can be put back. A second run keeps
//! values of the first one. A setting that the kernel refuses does not hinder the others. What somebody has changed since is
//! left to him.
//!
//! Settings end with the boot, and so does what a file keeps of them: one of an earlier boot counts as none. This runs as
//! root, so it follows no link to the file and trusts none that belongs to somebody else.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::Machine;
use super::cpus::Cpus;
use super::error::MachineError;
use super::interrupts;
use super::plan::{Plan, PlaneWish, Step, plan};
use super::tree::{Target, Tree};

/// A link is up again within some seconds: the two sides agree on speed and errors anew.
const LINK_LIMIT: Duration = Duration::from_secs(10);
const LINK_LOOKS: Duration = Duration::from_millis(50);

const FORMAT: u32 = 1;
/// A host with a thousand queues needs some 200 KiB.
const STATE_BYTES_MAX: u64 = 16 << 20;
/// What a plan may touch below the root: a state file that names something else is refused.
const FOLDERS: [&str; 3] = ["proc/irq/", "proc/sys/net/", "sys/class/net/"];

/// Which boot it is: another text after the next one.
const BOOT_ID: &str = "proc/sys/kernel/random/boot_id";

/// A setting as it was before the first change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kept {
    /// The text form of the [`Target`].
    pub target: String,
    /// What it was, to the last byte.
    pub former: String,
    /// What the kernel has shown after the change: a driver may round what it is given. None while a run is at it, and of
    /// what is gone after it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub written: Option<String>,
    /// Of an interrupt: whose it is. The kernel may give its number to another one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interrupt: Option<String>,
}

/// The state file: what was there before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    format: u32,
    /// The root that the settings are of.
    pub root: PathBuf,
    /// The boot that they were made in; empty where the root does not show it.
    boot: String,
    /// In the order of the changes.
    pub kept: Vec<Kept>,
}

/// A setting that was refused.
#[derive(Debug)]
pub struct Refusal {
    /// What was tried.
    pub target: Target,
    /// Why it was not done.
    pub error: MachineError,
}

/// What was done.
#[derive(Debug, Default)]
pub struct Applied {
    /// Changes that were made.
    pub done: Vec<Step>,
    /// Changes that were refused.
    pub refused: Vec<Refusal>,
    /// What the plan had to say.
    pub remarks: Vec<String>,
    /// A link that did not come back; the number of queues of the cards after it was left as it is.
    pub stopped: Option<String>,
}

/// What was put back.
#[derive(Debug, Default)]
pub struct Reverted {
    /// As they were before.
    pub done: Vec<Kept>,
    /// Not there any more, so that there was nothing to put back, with the reason.
    pub gone: Vec<(Kept, String)>,
    /// Changed by somebody after the last run, and left as they are.
    pub changed: Vec<Kept>,
    /// Refused; they stay in the state file.
    pub refused: Vec<Refusal>,
    /// Why something else stays there.
    pub remarks: Vec<String>,
}

/// What a state file holds for a machine as it is now.
#[derive(Debug)]
enum Found {
    Nothing,
    /// Settings that the last boot has undone.
    OtherBoot,
    Of(State),
}

impl State {
    fn empty(tree: &Tree) -> State {
        State { format: FORMAT, root: tree.root().to_owned(), boot: boot_of(tree), kept: Vec::new() }
    }

    /// Reads the state file; none where there is none.
    ///
    /// # Errors
    /// When it cannot be read, is not one, is somebody else's, or names what no plan touches.
    pub fn load(path: &Path) -> Result<Option<State>, MachineError> {
        let failed = |source| MachineError::StateFile { path: path.to_owned(), attempt: "read", source };
        let file = match fs::OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW).open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        check_owner(&file).map_err(failed)?;
        let text = io::read_to_string(io::Read::take(file, STATE_BYTES_MAX)).map_err(failed)?;
        let invalid = |words: String| failed(io::Error::new(io::ErrorKind::InvalidData, words));
        let state: State = serde_json::from_str(&text).map_err(|error| invalid(error.to_string()))?;
        if state.format != FORMAT {
            return Err(invalid(format!("it has format {}, expected {FORMAT}", state.format)));
        }
        match state.kept.iter().find(|kept| !kept.is_allowed()) {
            Some(kept) => Err(invalid(format!("\"{}\" is nothing that a plan changes", kept.target))),
            None => Ok(Some(state)),
        }
    }

    fn load_for(path: &Path, tree: &Tree) -> Result<Found, MachineError> {
        let Some(state) = State::load(path)? else { return Ok(Found::Nothing) };
        if state.root != tree.root() {
            let root = tree.root().to_owned();
            return Err(MachineError::OtherRoot { path: path.to_owned(), kept: state.root, root });
        }
        Ok(if state.boot == boot_of(tree) { Found::Of(state) } else { Found::OtherBoot })
    }

    /// Writes the file so that it is whole whatever happens; without anything kept it goes.
    fn save(&self, path: &Path) -> Result<(), MachineError> {
        let failed = |source| MachineError::StateFile { path: path.to_owned(), attempt: "written", source };
        if self.kept.is_empty() {
            return match fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed(error)),
                _ => Ok(()),
            };
        }
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        fs::create_dir_all(folder).map_err(failed)?;
        let fresh = path.with_extension("new");
        let write = || {
            // What a run that was cut off has left; a link goes, not what it names.
            match fs::remove_file(&fresh) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            let mut options = fs::OpenOptions::new();
            options.write(true).create_new(true).mode(0o600).custom_flags(libc::O_NOFOLLOW);
            let mut file = options.open(&fresh)?;
            file.write_all(&serde_json::to_vec_pretty(self)?)?;
            file.write_all(b"\n")?;
            file.sync_all()?;
            fs::rename(&fresh, path)?;
            fs::File::open(folder)?.sync_all()
        };
        write().map_err(failed)
    }
}

impl Kept {
    fn is_allowed(&self) -> bool {
        match Target::parse(&self.target) {
            Some(Target::File(path)) => FOLDERS.iter().any(|folder| path.starts_with(folder)),
            Some(Target::Ethtool { .. }) => true,
            None => false,
        }
    }

    /// True when it is not as the last run has left it. What cannot be read, or was not seen then, counts as left.
    fn is_changed(&self, tree: &Tree) -> bool {
        let now = Target::parse(&self.target).and_then(|target| tree.value(&target).ok());
        now.zip(self.written.as_ref()).is_some_and(|(now, written)| !is_same(&self.target, &now, written))
    }

    fn is_channels(&self) -> bool {
        matches!(Target::parse(&self.target), Some(Target::Ethtool { group, .. }) if group == "channels")
    }

    /// True for what comes and goes with a queue: which CPUs it and its interrupt use.
    fn is_of_queue(&self) -> bool {
        self.target.contains("/queues/")
            || Target::parse(&self.target).is_some_and(|target| interrupt_of(&target).is_some())
    }
}

/// True for two texts of one value: kernels write sets of CPUs in several ways, and parts of a value with tabs or spaces.
fn is_same(target: &str, one: &str, other: &str) -> bool {
    let set = |text: &str| match target.rsplit('/').next() {
        Some("smp_affinity_list") => Cpus::parse_list(text.trim()),
        Some("rps_cpus" | "xps_cpus") => Cpus::parse_mask(text),
        _ => None,
    };
    match (set(one), set(other)) {
        (Some(one), Some(other)) => one == other,
        _ => one.split_whitespace().eq(other.split_whitespace()),
    }
}

fn boot_of(tree: &Tree) -> String {
    tree.text(BOOT_ID).unwrap_or_default()
}

/// Root does what the file says: only root, or whoever runs this, may have written it.
fn check_owner(file: &fs::File) -> io::Result<()> {
    let found = file.metadata()?;
    let own = rustix::process::geteuid().as_raw();
    let words = if !found.is_file() {
        "it is no file".to_owned()
    } else if found.uid() != 0 && found.uid() != own {
        format!("it belongs to user {}, expected root or user {own}", found.uid())
    } else if found.mode() & 0o002 != 0 {
        format!("everybody may write it (mode {:o})", found.mode() & 0o777)
    } else {
        return Ok(());
    };
    Err(io::Error::new(io::ErrorKind::PermissionDenied, words))
}

/// Plans for `wishes` and makes the changes, keeping in `state_file` what was there before.
///
/// # Errors
/// When the machine or the state file cannot be used; then nothing was changed that is not kept. What the kernel refuses
/// is in the answer.
pub fn apply(tree: &Tree, wishes: &[PlaneWish], state_file: &Path) -> Result<Applied, MachineError> {
    let mut applied = Applied::default();
    let found = State::load_for(state_file, tree)?;
    if matches!(found, Found::OtherBoot) {
        applied.remarks.push(format!(
            "{} was of an earlier boot, which has undone what it kept: it is begun anew",
            state_file.display()
        ));
    }
    let mut state = if let Found::Of(state) = found { state } else { State::empty(tree) };
    let machine = Machine::read(tree)?;
    for step in plan(&machine, wishes).steps.iter().filter(|step| step.is_channels()) {
        if applied.stopped.is_some() {
            applied.remarks.push(format!("{} was left as it is, for the links that are up", step.target));
            continue;
        }
        carry_out_channels(tree, &machine, step, &mut state, state_file, &mut applied)?;
        applied.stopped = await_link(tree, &machine, &step.target, LINK_LIMIT).err();
    }
    // Queues and interrupts may be others now.
    let Plan { steps, remarks } = plan(&Machine::read(tree)?, wishes);
    let rest: Vec<Step> = steps.into_iter().filter(|step| !step.is_channels()).collect();
    carry_out(tree, &rest, &mut state, state_file, &mut applied)?;
    applied.remarks.extend(remarks);
    note_written(tree, &mut state, state_file)?;
    Ok(applied)
}

/// Remembers what the changes have come to, for [`revert`] to see what somebody has changed since.
fn note_written(tree: &Tree, state: &mut State, state_file: &Path) -> Result<(), MachineError> {
    let mut is_news = false;
    for kept in state.kept.iter_mut().filter(|kept| kept.written.is_none()) {
        kept.written = Target::parse(&kept.target).and_then(|target| tree.value(&target).ok());
        is_news |= kept.written.is_some();
    }
    if is_news { state.save(state_file) } else { Ok(()) }
}

/// Changes the number of queues of a card. A driver takes queues away for that, or makes all of them anew: what they and their
/// interrupts are set to is gone then, so it is kept before.
fn carry_out_channels(
    tree: &Tree,
    machine: &Machine,
    step: &Step,
    state: &mut State,
    state_file: &Path,
    applied: &mut Applied,
) -> Result<(), MachineError> {
    let (kept, refused) = (state.kept.len(), applied.refused.len());
    let names = interrupt_names(tree);
    for (target, found) in queue_settings(machine, step) {
        keep(tree, &target, &found, &names, state);
    }
    carry_out(tree, std::slice::from_ref(step), state, state_file, applied)?;
    if applied.refused.len() > refused {
        state.kept.truncate(kept);
        state.save(state_file)?;
    }
    Ok(())
}

/// Waits until the link of a target's device is up, if it was so in `before`: a driver may take it down to change its queues,
/// and with the next card of a bond at once the whole bond would be down.
fn await_link(tree: &Tree, before: &Machine, target: &Target, limit: Duration) -> Result<(), String> {
    let Target::Ethtool { device, .. } = target else { return Ok(()) };
    if before.device(device).is_none_or(|found| found.state != "up") {
        return Ok(());
    }
    let began = Instant::now();
    loop {
        let state = tree.text(&format!("sys/class/net/{device}/operstate")).unwrap_or_default();
        if state == "up" {
            return Ok(());
        }
        if began.elapsed() >= limit {
            return Err(format!("{device} is still {state} {limit:?} after its number of queues was set"));
        }
        thread::sleep(LINK_LOOKS);
    }
}

/// What is set for each queue of the step's device, and what it is set to.
fn queue_settings(machine: &Machine, step: &Step) -> Vec<(Target, String)> {
    let Target::Ethtool { device, .. } = &step.target else { return Vec::new() };
    let Some(device) = machine.device(device) else { return Vec::new() };
    let queues = device.receive.iter().chain(&device.send);
    let queues = queues.filter_map(|queue| Some((queue.target.clone()?, queue.cpus.mask())));
    let interrupts = device.queue_interrupts();
    queues.chain(interrupts.map(|interrupt| (interrupt.target(), interrupt.affinity.to_string()))).collect()
}

fn carry_out(
    tree: &Tree,
    steps: &[Step],
    state: &mut State,
    state_file: &Path,
    applied: &mut Applied,
) -> Result<(), MachineError> {
    if steps.is_empty() {
        return Ok(());
    }
    let before = state.kept.len();
    let names = interrupt_names(tree);
    for step in steps {
        keep(tree, &step.target, &step.found, &names, state);
    }
    state.save(state_file)?;
    let mut undone = Vec::new();
    for step in steps {
        match tree.set(&step.target, &format!("{}\n", step.value)) {
            Ok(()) => applied.done.push(step.clone()),
            Err(source) => {
                let (target, value) = (step.target.to_string(), step.value.clone());
                undone.push(target.clone());
                let error = MachineError::Write { target, value, source };
                applied.refused.push(Refusal { target: step.target.clone(), error });
            }
        }
    }
    if undone.is_empty() {
        return Ok(());
    }
    // What an earlier run has changed stays kept, even when this one was refused.
    let mut index = 0;
    state.kept.retain(|kept| {
        index += 1;
        index <= before || !undone.contains(&kept.target)
    });
    state.save(state_file)
}

/// Remembers what is there now, unless an earlier run has changed it already. An interrupt whose number is another's by now
/// is another one.
fn keep(tree: &Tree, setting: &Target, found: &str, names: &BTreeMap<u32, String>, state: &mut State) {
    let target = setting.to_string();
    let interrupt = interrupt_of(setting).and_then(|number| names.get(&number).cloned());
    let known = state.kept.iter_mut().find(|kept| kept.target == target);
    let fresh = |target| {
        let former = tree.value(setting).unwrap_or_else(|_| found.to_owned());
        Kept { target, former, written: None, interrupt: interrupt.clone() }
    };
    match known {
        Some(kept) if kept.interrupt == interrupt => kept.written = None,
        Some(kept) => *kept = fresh(target),
        None => state.kept.push(fresh(target)),
    }
}

/// The number of the interrupt that a target places.
fn interrupt_of(target: &Target) -> Option<u32> {
    let Target::File(path) = target else { return None };
    path.strip_prefix("proc/irq/")?.split('/').next()?.parse().ok()
}

fn interrupt_names(tree: &Tree) -> BTreeMap<u32, String> {
    let lines = interrupts::parse(&tree.text("proc/interrupts").unwrap_or_default());
    lines.into_iter().map(|line| (line.number, line.name)).collect()
}

/// Puts back everything in `state_file` that is still there, and removes it when nothing is left in it.
///
/// # Errors
/// When there is no state file of this boot, or it cannot be used. What the kernel refuses is in the answer, and stays in
/// the file.
pub fn revert(tree: &Tree, state_file: &Path) -> Result<Reverted, MachineError> {
    let path = || state_file.to_owned();
    let mut state = match State::load_for(state_file, tree)? {
        Found::Of(state) => state,
        Found::Nothing => return Err(MachineError::NothingKept { path: path() }),
        Found::OtherBoot => return Err(MachineError::OtherBoot { path: path() }),
    };
    let machine = Machine::read(tree)?;
    // Before anything is put back: a driver that makes its queues anew sets them as it likes.
    let changed = |kept: &Kept| kept.is_changed(tree).then(|| kept.target.clone());
    let changed: BTreeSet<String> = state.kept.iter().filter_map(changed).collect();
    // The number of queues first: the driver gives new ones its own settings. Then backwards: what was changed last could be
    // changed only because of what was changed before it.
    forget_written(&mut state, &changed, state_file)?;
    let (channels, rest): (Vec<Kept>, Vec<Kept>) = state.kept.drain(..).partition(Kept::is_channels);
    let mut reverted = Reverted::default();
    let mut now = Now { names: BTreeMap::new(), changed };
    let mut down = None;
    for kept in channels {
        if down.is_some() {
            state.kept.push(kept);
            continue;
        }
        let target = Target::parse(&kept.target).expect("checked when it was loaded");
        put_back(tree, kept, &now, &mut state.kept, &mut reverted);
        down = await_link(tree, &machine, &target, LINK_LIMIT).err();
    }
    // What queues are set to waits for a card that has not all of them yet.
    let has_all_queues = state.kept.is_empty();
    if !has_all_queues {
        let words =
            "a card has not its former number of queues: this and all that is set for queues stays in the state file";
        reverted.remarks.push(words.to_owned());
    }
    reverted.remarks.extend(down);
    // Interrupts may be others now.
    now.names = interrupt_names(tree);
    for kept in rest.into_iter().rev() {
        if !has_all_queues && kept.is_of_queue() {
            state.kept.push(kept);
        } else {
            put_back(tree, kept, &now, &mut state.kept, &mut reverted);
        }
    }
    // In the order of the changes again.
    state.kept.reverse();
    state.save(state_file)?;
    Ok(reverted)
}

/// A driver may make its queues anew when their number is put back, with settings of its own: after that, nobody can tell what
/// somebody else has changed. A run that goes on where this one ends takes none of it for that.
fn forget_written(state: &mut State, changed: &BTreeSet<String>, state_file: &Path) -> Result<(), MachineError> {
    if !state.kept.iter().any(Kept::is_channels) {
        return Ok(());
    }
    for kept in state.kept.iter_mut().filter(|kept| kept.is_of_queue() && !changed.contains(&kept.target)) {
        kept.written = None;
    }
    state.save(state_file)
}

/// What there is to know before a setting is put back.
struct Now {
    /// Of the interrupts, by number.
    names: BTreeMap<u32, String>,
    /// Targets that somebody has changed after the last run.
    changed: BTreeSet<String>,
}

fn put_back(tree: &Tree, kept: Kept, now: &Now, left: &mut Vec<Kept>, reverted: &mut Reverted) {
    let target = Target::parse(&kept.target).expect("checked when it was loaded");
    if let (Some(number), Some(name)) = (interrupt_of(&target), &kept.interrupt) {
        let found = now.names.get(&number);
        if found != Some(name) {
            let found = found.map_or("nobody's".to_owned(), |found| format!("that of {found}"));
            let reason = format!("interrupt {number} was that of {name} and is {found} now");
            reverted.gone.push((kept, reason));
            return;
        }
    }
    // Of queues much is kept that no run has changed.
    if tree.value(&target).is_ok_and(|found| found == kept.former) {
        return;
    }
    if now.changed.contains(&kept.target) {
        reverted.changed.push(kept);
        return;
    }
    match tree.set(&target, &kept.former) {
        Ok(()) => reverted.done.push(kept),
        Err(error) if error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ENODEV) => {
            reverted.gone.push((kept, "it is not there any more".to_owned()));
        }
        Err(source) => {
            let (words, value) = (kept.target.clone(), kept.former.trim().to_owned());
            reverted.refused.push(Refusal { target, error: MachineError::Write { target: words, value, source } });
            left.push(kept);
        }
    }
}

#[cfg(test)]
#[path = "apply_tests.rs"]
mod tests;
