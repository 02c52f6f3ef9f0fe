//! Where a machine is read: the real root, or a folder with what was captured on another host.
//!
//! A captured folder has `proc` and `sys` as they were, and beside them `ethtool/DEVICE/GROUP/FIELD` and `addresses/DEVICE` for
//! what the kernel tells over netlink only. On the real root these two are asked for there.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::ethtool;

/// The longest file that is read: `/proc/interrupts` of a host with a thousand CPUs.
const TEXT_BYTES_MAX: u64 = 32 << 20;

/// A setting of a machine that can be read and perhaps changed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Target {
    /// A file below the root, without a slash in front.
    File(String),
    /// A field of a device that `ethtool` shows, in one of its groups.
    Ethtool {
        /// The device.
        device: String,
        /// `coalesce` or `channels`.
        group: String,
        /// The field, in ethtool's spelling.
        field: String,
    },
}

impl Target {
    /// The text form, which [`Target::parse`] reads.
    #[must_use]
    pub fn parse(text: &str) -> Option<Target> {
        if let Some(path) = text.strip_prefix('/') {
            let is_plain = !path.is_empty() && !path.split('/').any(|part| matches!(part, "" | "." | ".."));
            return is_plain.then(|| Target::File(path.to_owned()));
        }
        let parts: Vec<&str> = text.strip_prefix("ethtool ")?.split(' ').collect();
        let [device, group, field] = parts[..] else { return None };
        let owned = str::to_owned;
        let is_name = |part: &str| !part.is_empty() && !part.contains('/') && part != "..";
        let is_plain = [device, group, field].into_iter().all(is_name);
        is_plain.then(|| Target::Ethtool { device: owned(device), group: owned(group), field: owned(field) })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::File(path) => write!(f, "/{path}"),
            Target::Ethtool { device, group, field } => write!(f, "ethtool {device} {group} {field}"),
        }
    }
}

#[cfg(test)]
pub(super) type BeforeSet = fn(&Path, &Target, &str) -> io::Result<()>;

/// A root below which `/proc` and `/sys` are read.
#[derive(Clone, Debug)]
pub struct Tree {
    root: PathBuf,
    /// What a driver would do first when a setting is written, or why it refuses.
    #[cfg(test)]
    pub(super) before_set: Option<BeforeSet>,
}

impl Tree {
    /// The machine that this runs on.
    #[must_use]
    pub fn real() -> Tree {
        Tree::at(Path::new("/"))
    }

    /// A folder; `/` is the machine that this runs on.
    #[must_use]
    pub fn at(root: &Path) -> Tree {
        Tree {
            root: root.to_owned(),
            #[cfg(test)]
            before_set: None,
        }
    }

    /// The folder.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// True for the machine that this runs on.
    #[must_use]
    pub fn is_real(&self) -> bool {
        self.root == Path::new("/")
    }

    /// A file's text without the white space around it; none where it cannot be read.
    #[must_use]
    pub fn text(&self, path: &str) -> Option<String> {
        self.raw(path).ok().map(|text| text.trim().to_owned())
    }

    /// A number in a file.
    pub(super) fn number<T: std::str::FromStr>(&self, path: &str) -> Option<T> {
        self.text(path).and_then(|text| text.parse().ok())
    }

    /// The names in a folder, sorted; none where it cannot be listed.
    pub(super) fn list(&self, path: &str) -> Vec<String> {
        self.try_list(path).unwrap_or_default()
    }

    pub(super) fn try_list(&self, path: &str) -> io::Result<Vec<String>> {
        let entries = fs::read_dir(self.root.join(path))?;
        let mut names: Vec<String> = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect();
        names.sort();
        Ok(names)
    }

    /// True where there is something.
    pub(super) fn exists(&self, path: &str) -> bool {
        self.root.join(path).exists()
    }

    /// A setting as it is, with its white space: what is put back must be what was there.
    pub(super) fn value(&self, target: &Target) -> io::Result<String> {
        match target {
            Target::File(path) => self.raw(path),
            Target::Ethtool { device, group, field } if self.is_real() => ethtool::read_field(device, group, field),
            Target::Ethtool { device, group, field } => self.raw(&captured(device, group, field)),
        }
    }

    /// Changes a setting that is there.
    pub(super) fn set(&self, target: &Target, value: &str) -> io::Result<()> {
        #[cfg(test)]
        self.before_set.map_or(Ok(()), |card| card(&self.root, target, value))?;
        let path = match target {
            Target::File(path) => path.clone(),
            Target::Ethtool { device, group, field } if self.is_real() => {
                return ethtool::write_field(device, group, field, value);
            }
            Target::Ethtool { device, group, field } => captured(device, group, field),
        };
        // Never made: a setting that is not there is a kernel without it.
        let file = fs::OpenOptions::new().write(true).truncate(true).open(self.root.join(path))?;
        // The kernel takes a setting in one write.
        io::Write::write_all(&mut &file, value.as_bytes())
    }

    fn raw(&self, path: &str) -> io::Result<String> {
        use std::io::Read as _;
        let mut text = String::new();
        fs::File::open(self.root.join(path))?.take(TEXT_BYTES_MAX).read_to_string(&mut text)?;
        Ok(text)
    }
}

fn captured(device: &str, group: &str, field: &str) -> String {
    format!("ethtool/{device}/{group}/{field}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_have_a_text_form() {
        let check = |text: &str| {
            assert_eq!(Target::parse(text).map(|target| target.to_string()).as_deref(), Some(text), "{text}");
        };
        check("/proc/irq/41/smp_affinity_list");
        check("ethtool ens1f0 coalesce rx-usecs");
        check("ethtool bond0.20 channels combined");
        for bad in
            ["", "/", "proc/x", "/proc/../etc/shadow", "/proc//x", "ethtool a b", "ethtool a/b c d", "ethtool .. a b"]
        {
            assert_eq!(Target::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_setting_that_is_not_there_is_not_made() {
        let (folder, tree) = crate::machine::testing::unpack("two_cards");
        let target = Target::File("proc/sys/net/core/no_such".to_owned());
        assert!(tree.set(&target, "1\n").is_err());
        assert!(!folder.path().join("proc/sys/net/core/no_such").exists());
        let target = Target::File("proc/sys/net/core/rmem_max".to_owned());
        tree.set(&target, "7\n").unwrap();
        assert_eq!(
            (tree.value(&target).unwrap().as_str(), tree.text("proc/sys/net/core/rmem_max").as_deref()),
            ("7\n", Some("7"))
        );
    }
}
