//! The node under a service manager: what it tells to `NOTIFY_SOCKET`, and when.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::net::TcpListener;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::bit_flips::{chunk_name, fill_with};
use crate::support::cluster::{Cluster, Node, command, scratch, small_chunks};
use crate::support::http;

const LIMIT: Duration = Duration::from_secs(60);

/// The manager's socket. Its path is short: there is room for 107 bytes.
struct Manager {
    socket: UnixDatagram,
    path: PathBuf,
}

impl Manager {
    fn new(name: &str) -> Manager {
        let path = std::env::temp_dir().join(format!("ringstore-{name}-{}", std::process::id()));
        let _ = fs::remove_file(&path);
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(LIMIT)).unwrap();
        Manager { socket, path }
    }

    /// The next message.
    fn hear(&self) -> String {
        let mut bytes = [0; 4096];
        let length = self.socket.recv(&mut bytes).expect("the node tells something");
        String::from_utf8_lossy(&bytes[..length]).into_owned()
    }

    fn has_heard_nothing(&self) -> bool {
        self.socket.set_nonblocking(true).unwrap();
        let outcome = self.socket.recv(&mut [0; 1]);
        self.socket.set_nonblocking(false).unwrap();
        outcome.is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// A process that ends with the test.
struct Service(Child);

impl Service {
    fn start(manager: &Manager, node: &Node, options: &[String]) -> Service {
        fs::create_dir_all(&node.folder).unwrap();
        let output = File::options().create(true).append(true).open(node.folder.join("service-output")).unwrap();
        let mut command = command();
        command.env("NOTIFY_SOCKET", &manager.path).args(node.place()).args(options);
        Service(command.stdout(output.try_clone().unwrap()).stderr(output).spawn().unwrap())
    }

    fn tell_to_stop(&self) {
        kill_process(Pid::from_raw(self.0.id().cast_signed()).unwrap(), Signal::TERM).unwrap();
    }

    fn wait(&mut self) -> ExitStatus {
        self.0.wait().unwrap()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn is_alive(node: &Node) -> bool {
    let answers = |address| http::get(address, "/health/live", LIMIT).is_ok_and(|answer| answer.status == 204);
    answers(node.ext_http()) && answers(node.int_http())
}

fn log_of(folder: &Path) -> String {
    fs::read_to_string(folder.join("service-output")).unwrap_or_default()
}

#[test]
fn ready_is_told_when_the_node_answers_and_stopping_when_it_ends() {
    let (folder, manager) = (scratch("notify"), Manager::new("notify"));
    let node = Node::single(&folder, &[]);
    let mut service = Service::start(&manager, &node, &small_chunks(4 << 20));
    assert_eq!(manager.hear(), "READY=1\nSTATUS=serving", "{}", log_of(&folder));
    assert!(is_alive(&node), "told to be ready, but {}", log_of(&folder));
    assert!(manager.has_heard_nothing());
    service.tell_to_stop();
    assert_eq!(manager.hear(), "STOPPING=1\nSTATUS=stopping");
    assert_eq!(service.wait().code(), Some(0), "{}", log_of(&folder));
    assert!(manager.has_heard_nothing());
    fs::remove_dir_all(folder).unwrap();
}

#[test]
fn a_node_that_does_not_come_up_is_never_ready() {
    let (folder, manager) = (scratch("notify-taken"), Manager::new("taken"));
    let node = Node::single(&folder, &[]);
    let _taken = TcpListener::bind(node.ext_http()).unwrap();
    let mut service = Service::start(&manager, &node, &small_chunks(4 << 20));
    assert_eq!(service.wait().code(), Some(5), "{}", log_of(&folder));
    assert!(manager.has_heard_nothing());
    fs::remove_dir_all(folder).unwrap();
}

/// A start that waits for other nodes to repair the log may take any time: it asks for more of it, and is not ready.
#[test]
fn a_node_that_mends_its_log_asks_for_time() {
    let (folder, manager) = (scratch("notify-mend"), Manager::new("mend"));
    let options = small_chunks(1 << 20);
    let mut cluster = Cluster::start(&folder, &options).unwrap();
    let leader = cluster.leader().unwrap();
    // All in the first chunk: what is not sealed is what a start looks at.
    fill_with(&cluster.nodes[leader], 30, 1_000);
    cluster.wait_until_even().unwrap();
    cluster.nodes.iter_mut().for_each(|node| assert!(node.stop().unwrap().success()));
    // Far below what is committed.
    let damaged = cluster.nodes[0].db().join(chunk_name(0));
    let mut bytes = fs::read(&damaged).unwrap();
    bytes[300_000] ^= 1;
    fs::write(&damaged, bytes).unwrap();
    let seeds: Vec<String> = cluster.nodes[1..].iter().map(|node| node.int_http().to_string()).collect();
    let own = ["--cluster-size", "3", "--gossip-seed", &seeds.join(",")].map(str::to_owned);
    let service = Service::start(&manager, &cluster.nodes[0], &[&own[..], &options].concat());
    for _ in 0..2 {
        let words = manager.hear();
        let is_sign = words.starts_with("EXTEND_TIMEOUT_USEC=120000000\nSTATUS=");
        assert!(is_sign && words.contains("chunk 0"), "{words}\n{}", log_of(&cluster.nodes[0].folder));
    }
    cluster.nodes[1..].iter_mut().for_each(|node| node.start().unwrap());
    let mut words = manager.hear();
    while words.starts_with("EXTEND_TIMEOUT_USEC=") {
        words = manager.hear();
    }
    assert_eq!(words, "READY=1\nSTATUS=serving", "{}", log_of(&cluster.nodes[0].folder));
    assert!(is_alive(&cluster.nodes[0]));
    drop(service);
    drop(cluster);
    fs::remove_dir_all(folder).unwrap();
}
