//! Makes the changes of a plan and puts back what was there before.
//!
//! What was there is on disk before anything is changed, so a run that is cut off can be put back. A second run keeps
//! the values of the first one. A setting that the kernel refuses does not hinder the others.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::Machine;
use super::error::MachineError;
use super::plan::{Plan, PlaneWish, Step, plan};
use super::tree::{Target, Tree};

const FORMAT: u32 = 1;
/// A host with a thousand queues needs some 200 KiB.
const STATE_BYTES_MAX: u64 = 16 << 20;
/// What a plan may touch below the root: a state file that names something else is refused.
const FOLDERS: [&str; 3] = ["proc/irq/", "proc/sys/net/", "sys/class/net/"];

/// A setting as it was before the first change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kept {
    /// The text form of the [`Target`].
    pub target: String,
    /// What it was, to the last byte.
    pub former: String,
    /// What was written.
    pub written: String,
}

/// The state file: what was there before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    format: u32,
    /// The root that the settings are of.
    pub root: PathBuf,
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
}

impl State {
    /// Reads the state file; none where there is none.
    ///
    /// # Errors
    /// When it cannot be read, is not one, or names what no plan touches.
    pub fn load(path: &Path) -> Result<Option<State>, MachineError> {
        let failed = |source| MachineError::StateFile { path: path.to_owned(), attempt: "read", source };
        let text = match fs::File::open(path) {
            Ok(file) => io::read_to_string(io::Read::take(file, STATE_BYTES_MAX)).map_err(failed)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
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

    fn load_for(path: &Path, tree: &Tree) -> Result<Option<State>, MachineError> {
        let state = State::load(path)?;
        if let Some(state) = state.as_ref().filter(|state| state.root != tree.root()) {
            let (kept, root) = (state.root.clone(), tree.root().to_owned());
            return Err(MachineError::OtherRoot { path: path.to_owned(), kept, root });
        }
        Ok(state)
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
            let mut file = fs::File::create(&fresh)?;
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

    fn is_channels(&self) -> bool {
        matches!(Target::parse(&self.target), Some(Target::Ethtool { group, .. }) if group == "channels")
    }
}

/// Plans for `wishes` and makes the changes, keeping in `state_file` what was there before.
///
/// # Errors
/// When the machine or the state file cannot be used; then nothing was changed that is not kept. What the kernel refuses
/// is in the answer.
pub fn apply(tree: &Tree, wishes: &[PlaneWish], state_file: &Path) -> Result<Applied, MachineError> {
    let empty = || State { format: FORMAT, root: tree.root().to_owned(), kept: Vec::new() };
    let mut state = State::load_for(state_file, tree)?.unwrap_or_else(empty);
    let mut applied = Applied::default();
    let first = plan(&Machine::read(tree)?, wishes);
    let channels: Vec<Step> = first.steps.into_iter().filter(Step::is_channels).collect();
    carry_out(tree, &channels, &mut state, state_file, &mut applied)?;
    // Queues and interrupts may be others now.
    let Plan { steps, remarks } = plan(&Machine::read(tree)?, wishes);
    let rest: Vec<Step> = steps.into_iter().filter(|step| !step.is_channels()).collect();
    carry_out(tree, &rest, &mut state, state_file, &mut applied)?;
    applied.remarks = remarks;
    Ok(applied)
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
    for step in steps {
        keep(tree, step, state);
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

/// Remembers what is there now, unless an earlier run has changed it already.
fn keep(tree: &Tree, step: &Step, state: &mut State) {
    let target = step.target.to_string();
    match state.kept.iter_mut().find(|kept| kept.target == target) {
        Some(kept) => kept.written.clone_from(&step.value),
        None => {
            let former = tree.value(&step.target).unwrap_or_else(|_| step.found.clone());
            state.kept.push(Kept { target, former, written: step.value.clone() });
        }
    }
}

/// Puts back everything in `state_file`, and removes it when nothing is left in it.
///
/// # Errors
/// When there is no state file, or it cannot be used. What the kernel refuses is in the answer, and stays in the file.
pub fn revert(tree: &Tree, state_file: &Path) -> Result<(Vec<Kept>, Vec<Refusal>), MachineError> {
    let missing = || MachineError::NothingKept { path: state_file.to_owned() };
    let mut state = State::load_for(state_file, tree)?.ok_or_else(missing)?;
    // The number of queues first: the driver gives new ones its own settings.
    state.kept.sort_by_key(|kept| !kept.is_channels());
    let (mut done, mut refused, mut left) = (Vec::new(), Vec::new(), Vec::new());
    for kept in state.kept {
        let target = Target::parse(&kept.target).expect("checked when it was loaded");
        match tree.set(&target, &kept.former) {
            Ok(()) => done.push(kept),
            Err(source) => {
                let error =
                    MachineError::Write { target: kept.target.clone(), value: kept.former.trim().to_owned(), source };
                refused.push(Refusal { target, error });
                left.push(kept);
            }
        }
    }
    state.kept = left;
    state.save(state_file)?;
    Ok((done, refused))
}

#[cfg(test)]
mod tests {
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
            let (done, refused) = revert(&tree, &file).unwrap();
            assert_eq!((done.len(), refused.len()), (applied.done.len() + 1, 0), "{name}");
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
        let mut state = State { format: FORMAT, root: tree.root().to_owned(), kept: Vec::new() };
        let mut applied = Applied::default();
        carry_out(&tree, &steps, &mut state, &file, &mut applied).unwrap();
        assert_eq!((applied.refused.len(), applied.done.len()), (1, steps.len() - 1));
        assert!(
            applied.refused[0].error.to_string().starts_with("/proc/irq/129/smp_affinity_list cannot be set to \"0\"")
        );
        let kept = State::load(&file).unwrap().unwrap().kept;
        assert!(kept.len() == steps.len() - 1 && !kept.iter().any(|kept| kept.target.contains("/129/")));
    }

    #[test]
    fn a_setting_that_cannot_be_put_back_stays_in_the_file() {
        let (folder, tree) = unpack("two_cards");
        let own = Folder::new();
        let file = own.path().join("state.json");
        apply(&tree, &wishes("ens1f0np0", "ens2f0np0"), &file).unwrap();
        fs::remove_file(folder.path().join("proc/irq/129/smp_affinity_list")).unwrap();
        let (_, refused) = revert(&tree, &file).unwrap();
        assert_eq!(refused.len(), 1);
        let kept = State::load(&file).unwrap().unwrap().kept;
        assert_eq!(
            kept.iter().map(|kept| kept.target.as_str()).collect::<Vec<_>>(),
            ["/proc/irq/129/smp_affinity_list"]
        );
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
        check(r#"{"format":2,"root":"/","kept":[]}"#, "it has format 2, expected 1");
        check(r#"{"format":1,"root":"/elsewhere","kept":[]}"#, "keeps settings of the root /elsewhere");
        let kept = r#"[{"target":"/etc/shadow","former":"","written":""}]"#;
        check(&format!(r#"{{"format":1,"root":"/","kept":{kept}}}"#), "\"/etc/shadow\" is nothing that a plan changes");
    }
}
