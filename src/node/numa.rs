//! The NUMA node of the internal network device, so that the log thread's memory can come from it.

use std::fs;
use std::path::Path;

use crate::ring::prefer_memory_node;

/// Devices below a device that are looked at: a bond of VLANs of a bond is not meant.
const DEPTH_MAX: usize = 4;

/// Has the memory of the calling thread come from the NUMA node of this device, on a machine that has several, and says so.
pub(super) fn take_memory_near(device: &str) {
    let root = Path::new("/sys");
    let Some(node) = node_near(root, device) else { return };
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

/// The node of a device, on a machine with several; `root` is that of `/sys`.
fn node_near(root: &Path, device: &str) -> Option<usize> {
    let online = fs::read_to_string(root.join("devices/system/node/online")).ok()?;
    // "0" is one node; "0-1" and "0,2" are several.
    online.contains(['-', ',']).then(|| node_of(root, device, DEPTH_MAX)).flatten()
}

/// A bond, bridge or VLAN has no node of its own: that of the first device below it counts.
fn node_of(root: &Path, device: &str, depth: usize) -> Option<usize> {
    let folder = root.join("class/net").join(device);
    let own = fs::read_to_string(folder.join("device/numa_node")).ok();
    // -1 where the machine does not say.
    if let Some(node) = own.and_then(|text| text.trim().parse().ok()) {
        return Some(node);
    }
    let names = fs::read_dir(&folder).ok().filter(|_| depth > 0)?;
    let mut below: Vec<String> =
        names.filter_map(|entry| entry.ok()?.file_name().to_str()?.strip_prefix("lower_").map(str::to_owned)).collect();
    below.sort_unstable();
    below.iter().find_map(|lower| node_of(root, lower, depth - 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_node_is_that_of_the_device_or_of_one_below_it() {
        let root = std::env::temp_dir().join(format!("ringstore-numa-{}", std::process::id()));
        let put = |path: &str, text: &str| {
            let path = root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        put("devices/system/node/online", "0-1\n");
        put("class/net/eth0/device/numa_node", "1\n");
        put("class/net/eth1/device/numa_node", "-1\n");
        put("class/net/bond0/lower_eth1", "");
        put("class/net/bond0/lower_eth0", "");
        put("class/net/bond0.20/lower_bond0", "");
        put("class/net/loop/lower_loop", "");
        let check = |device: &str, expected: Option<usize>| assert_eq!(node_near(&root, device), expected, "{device}");
        check("eth0", Some(1));
        check("eth1", None);
        check("bond0", Some(1));
        check("bond0.20", Some(1));
        check("loop", None);
        check("nothing", None);
        put("devices/system/node/online", "0\n");
        check("eth0", None);
        fs::remove_dir_all(&root).unwrap();
    }
}
