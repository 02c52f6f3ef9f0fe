//! A disk that is full: writes are answered with an error that says so, reads go on, and so do writes when there is
//! room again. Needs root, for a file system of its own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::single::{connect, write};
use crate::support::client::{ANY, event};
use crate::support::cluster::{Node, scratch};
use crate::support::wait_until;

/// A mounted tmpfs, gone when dropped.
struct Mount(PathBuf);

impl Mount {
    fn new(place: &Path, size: &str) -> Option<Mount> {
        fs::create_dir_all(place).unwrap();
        let options = format!("size={size}");
        let mount = ["-t", "tmpfs", "-o", &options, "ringstore-test"];
        let status = Command::new("mount").args(mount).arg(place).status().ok()?;
        status.success().then(|| Mount(place.to_path_buf()))
    }

    fn resize(&self, size: &str) {
        let options = format!("remount,size={size}");
        assert!(Command::new("mount").args(["-o", &options]).arg(&self.0).status().unwrap().success());
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk_stops_writes_and_nothing_else() {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: mounting a small file system needs root");
        return;
    }
    let folder = scratch("disk-full");
    let Some(mount) = Mount::new(&folder, "96m") else {
        println!("skipped: this machine does not allow mount(2)");
        return;
    };
    let mut node = Node::single(&folder, &["--chunk-size", "4194304", "--max-append-size", "1048576"]);
    node.start_and_wait().unwrap();
    let mut client = connect(&node);
    let mut count = 0_u64;
    let mut one_more = |client: &mut _| {
        count += 1;
        write(client, "filling", ANY, vec![event(u128::from(count).to_le_bytes(), vec![7; 512 << 10])])
    };
    let mut acknowledged = 0;
    let refusal = loop {
        match one_more(&mut client) {
            Ok(_) => acknowledged += 1,
            Err(refusal) => break refusal,
        }
        assert!(acknowledged < 400, "more was acknowledged than the disk can hold");
    };
    assert!(refusal.to_string().to_lowercase().contains("disk"), "the error does not say why: {refusal}");
    assert!(acknowledged > 10, "only {acknowledged} writes fitted a disk of 96 MiB");

    assert_eq!(client.read_to_end("filling").unwrap().len(), acknowledged, "reads go on, of what was acknowledged");
    assert!(node.is_running(), "the node ended\n{}", node.tail());

    mount.resize("256m");
    let again = || one_more(&mut client).is_ok();
    wait_until("writes go on", Duration::from_secs(30), again)
        .unwrap_or_else(|error| panic!("{error}\n{}", node.tail()));
    assert!(connect(&node).read_to_end("filling").unwrap().len() > acknowledged);
    assert!(node.stop().unwrap().success());
    drop(mount);
    fs::remove_dir(folder).unwrap();
}
