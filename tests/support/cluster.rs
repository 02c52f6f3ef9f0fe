//! Real nodes as processes on loopback, each with its own ports and data directory.

use std::ffi::OsString;
use std::fs::{self, File};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::Duration;

use anyhow::Context as _;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::keys::{Keys, Lock};
use super::{http, wait_until};

/// How long a node may take to come up, to elect, to stop. Far above what it needs: performance is not what fails.
const PATIENCE: Duration = Duration::from_secs(60);

/// The program under test. `RINGSTORE_BIN` names another build of it.
pub(crate) fn program() -> PathBuf {
    std::env::var_os("RINGSTORE_BIN").map_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_ringstore")), PathBuf::from)
}

/// A command for the program that sees none of the caller's own options.
pub(crate) fn command() -> Command {
    command_through(&[])
}

/// The same, called by another program that becomes it: `launcher` is that program and its arguments.
fn command_through(launcher: &[String]) -> Command {
    // A test that is itself killed must not leave nodes behind: they end with the thread that started them.
    let keeper = ["/usr/bin/setpriv", "--pdeathsig", "KILL", "--"].map(OsString::from);
    let kept = Path::new(&keeper[0]).exists();
    let mut words = keeper.into_iter().filter(|_| kept).chain(launcher.iter().map(OsString::from));
    let mut command = match words.next() {
        Some(first) => {
            let mut command = Command::new(first);
            command.args(words).arg(program());
            command
        }
        None => Command::new(program()),
    };
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().to_uppercase().starts_with("EVENTSTORE_") {
            command.env_remove(name);
        }
    }
    command
}

fn owned(options: &[&str]) -> Vec<String> {
    options.iter().map(|option| (*option).to_owned()).collect()
}

/// Options for chunks of this size. Small ones end often, and three nodes do not fill the disk with prepared files.
pub(crate) fn small_chunks(chunk_size: u64) -> [String; 4] {
    // A chunk must hold two of the largest appends.
    let append = (chunk_size / 4).min(16 << 20);
    ["--chunk-size", &chunk_size.to_string(), "--max-append-size", &append.to_string()].map(str::to_owned)
}

/// A new empty folder on the disk of the build, with a name that shows whose it is.
pub(crate) fn scratch(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}", std::process::id()));
    if folder.exists() {
        fs::remove_dir_all(&folder).expect("an old folder can be removed");
    }
    fs::create_dir_all(&folder).expect("a folder can be made");
    folder
}

/// What a node says of itself in its statistics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Figures {
    pub(crate) role: String,
    pub(crate) term: u64,
    pub(crate) log_end: u64,
    pub(crate) writer_checkpoint: u64,
    pub(crate) commit_position: u64,
}

impl Figures {
    pub(crate) fn leads(&self) -> bool {
        self.role == "leader"
    }

    pub(crate) fn follows(&self) -> bool {
        self.role == "follower"
    }
}

/// What the node at `ext_http` says of itself.
///
/// # Errors
/// When it does not answer within `limit`.
pub(crate) fn figures(ext_http: SocketAddr, limit: Duration) -> anyhow::Result<Figures> {
    let stats = http::get(ext_http, "/stats", limit)?.json()?;
    let position = |name: &str| stats["positions"][name].as_u64().with_context(|| format!("positions.{name}"));
    Ok(Figures {
        role: stats["node"]["role"].as_str().context("node.role")?.to_owned(),
        term: stats["node"]["term"].as_u64().context("node.term")?,
        log_end: position("logEnd")?,
        writer_checkpoint: position("writerCheckpoint")?,
        commit_position: position("commit")?,
    })
}

/// Where a node lives when it does not share the caller's network and disk.
#[derive(Clone, Debug)]
pub(crate) struct Home {
    pub(crate) int_ip: Ipv4Addr,
    pub(crate) ext_ip: Ipv4Addr,
    /// Internal TCP, external TCP, internal HTTP, external HTTP.
    pub(crate) ports: [u16; 4],
    /// For the output of the process and its text logs.
    pub(crate) folder: PathBuf,
    pub(crate) db: PathBuf,
    /// The program that brings the node there, with its arguments.
    pub(crate) launcher: Vec<String>,
    pub(crate) environment: Vec<(String, String)>,
    /// Options of this node alone.
    pub(crate) options: Vec<String>,
}

impl Home {
    /// Both planes at `ip`, on free ports.
    pub(crate) fn new(ip: Ipv4Addr, folder: PathBuf, db: PathBuf) -> Home {
        let first = free_ports(ip);
        let ports = [first, first + 1, first + 2, first + 3];
        let (launcher, environment, options) = (Vec::new(), Vec::new(), Vec::new());
        Home { int_ip: ip, ext_ip: ip, ports, folder, db, launcher, environment, options }
    }
}

/// One node: two ports on each of its addresses, a folder, and a process while it runs.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) ip: Ipv4Addr,
    pub(crate) folder: PathBuf,
    home: Home,
    options: Vec<String>,
    child: Option<Child>,
}

impl Node {
    fn new(ip: Ipv4Addr, folder: PathBuf) -> Node {
        let db = folder.join("db");
        Node::at(Home::new(ip, folder, db))
    }

    /// A node at a home, not started.
    pub(crate) fn at(home: Home) -> Node {
        Node { ip: home.int_ip, folder: home.folder.clone(), home, options: Vec::new(), child: None }
    }

    /// A node on its own, not started; without `options` one with small chunks.
    pub(crate) fn single(folder: &Path, options: &[&str]) -> Node {
        let mut node = Node::new(Ipv4Addr::new(127, 0, 0, 101), folder.to_path_buf());
        node.options = if options.is_empty() { small_chunks(4 << 20).into() } else { owned(options) };
        node
    }

    pub(crate) fn int_tcp(&self) -> SocketAddr {
        SocketAddr::new(IpAddr::V4(self.home.int_ip), self.home.ports[0])
    }

    pub(crate) fn ext_tcp(&self) -> SocketAddr {
        SocketAddr::new(IpAddr::V4(self.home.ext_ip), self.home.ports[1])
    }

    pub(crate) fn int_http(&self) -> SocketAddr {
        SocketAddr::new(IpAddr::V4(self.home.int_ip), self.home.ports[2])
    }

    pub(crate) fn ext_http(&self) -> SocketAddr {
        SocketAddr::new(IpAddr::V4(self.home.ext_ip), self.home.ports[3])
    }

    /// Where its log lies.
    pub(crate) fn db(&self) -> PathBuf {
        self.home.db.clone()
    }

    /// The options that say where this node is.
    pub(crate) fn place(&self) -> Vec<String> {
        let ports = ["--int-tcp-port", "--ext-tcp-port", "--int-http-port", "--ext-http-port"];
        let mut options = Vec::new();
        options.extend(["--int-ip".into(), self.home.int_ip.to_string()]);
        options.extend(["--ext-ip".into(), self.home.ext_ip.to_string()]);
        for (name, port) in ports.iter().zip(self.home.ports) {
            options.extend([(*name).to_owned(), port.to_string()]);
        }
        options.extend(["--db".into(), self.db().display().to_string()]);
        options.extend(["--log".into(), self.folder.join("log").display().to_string()]);
        options
    }

    /// Starts the process; what it prints is appended to `output` in its folder.
    pub(crate) fn start(&mut self) -> anyhow::Result<()> {
        self.start_through(&[])
    }

    /// The same; it gets the processors when nobody else wants them (SCHED_IDLE).
    pub(crate) fn start_idle(&mut self) -> anyhow::Result<()> {
        self.start_through(&["chrt", "--idle", "0"])
    }

    fn start_through(&mut self, changer: &[&str]) -> anyhow::Result<()> {
        assert!(self.child.is_none(), "{} runs already", self.ip);
        fs::create_dir_all(&self.folder)?;
        let output = File::options().create(true).append(true).open(self.output())?;
        let launcher: Vec<String> =
            self.home.launcher.iter().cloned().chain(changer.iter().map(|word| (*word).to_owned())).collect();
        let mut command = command_through(&launcher);
        command.envs(self.home.environment.iter().map(|(name, value)| (name, value)));
        command
            .args(self.place())
            .args(&self.options)
            .args(&self.home.options)
            .stdout(output.try_clone()?)
            .stderr(output);
        self.child = Some(command.spawn().with_context(|| format!("{} does not start", program().display()))?);
        Ok(())
    }

    /// Starts the process and waits until it answers on its client ports.
    pub(crate) fn start_and_wait(&mut self) -> anyhow::Result<()> {
        self.start()?;
        let up = wait_until("the node answers", PATIENCE, || {
            !self.is_running() || self.figures().is_some_and(|figures| figures.leads())
        });
        up.with_context(|| self.tail())?;
        anyhow::ensure!(self.is_running(), "the node ended at once\n{}", self.tail());
        Ok(())
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    pub(crate) fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Sends a signal to the process, which must have been started and not yet waited for.
    pub(crate) fn signal(&self, signal: Signal) {
        let pid = self.pid().and_then(|pid| Pid::from_raw(pid.cast_signed())).expect("a started process");
        kill_process(pid, signal).expect("our own child can be signalled");
    }

    /// SIGKILL, and waits for the end.
    pub(crate) fn kill(&mut self) {
        self.signal(Signal::KILL);
        self.child.take().expect("a started process").wait().expect("our own child ends");
    }

    /// SIGTERM, and waits for the end.
    pub(crate) fn stop(&mut self) -> anyhow::Result<ExitStatus> {
        self.signal(Signal::TERM);
        self.wait()
    }

    /// Waits for the process to end by itself or by a signal that was sent.
    pub(crate) fn wait(&mut self) -> anyhow::Result<ExitStatus> {
        let mut status = None;
        let child = self.child.as_mut().expect("a started process");
        let ended = wait_until("the process ends", PATIENCE, || {
            status = child.try_wait().expect("our own child");
            status.is_some()
        });
        ended.with_context(|| self.tail())?;
        self.child = None;
        Ok(status.expect("it ended"))
    }

    /// What the node says of itself now; `None` when it does not answer soon.
    pub(crate) fn figures(&self) -> Option<Figures> {
        figures(self.ext_http(), Duration::from_millis(500)).ok()
    }

    /// The client TCP endpoints of the leaders that the node would tell a client by gossip.
    pub(crate) fn leaders_in_gossip(&self) -> Vec<String> {
        let gossip = http::get(self.ext_http(), "/gossip", Duration::from_millis(500)).ok();
        let gossip = gossip.and_then(|response| response.json().ok()).unwrap_or_default();
        let members = gossip["members"].as_array().map(Vec::as_slice).unwrap_or_default();
        let leading = members.iter().filter(|member| member["state"] == "Master" && member["isAlive"] == true);
        let text = |ip: &Value| ip.as_str().unwrap_or_default().to_owned();
        leading.map(|member| format!("{}:{}", text(&member["externalTcpIp"]), member["externalTcpPort"])).collect()
    }

    fn output(&self) -> PathBuf {
        self.folder.join("output")
    }

    /// All that the process has printed so far.
    pub(crate) fn said(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.output()).unwrap_or_default()).into_owned()
    }

    /// Adds options; they hold from the next start on.
    pub(crate) fn add_options(&mut self, options: &[String]) {
        self.options.extend_from_slice(options);
    }

    /// Runs a command of the program where the node lives, with what it needs to be let in.
    pub(crate) fn operate(&self, keys: &Keys, words: &[&str]) -> anyhow::Result<Output> {
        let mut command = command_through(&self.home.launcher);
        command.args(words).args(keys.command_options(self.home.int_ip)).stdin(Stdio::null());
        command.output().with_context(|| format!("{} does not start", program().display()))
    }

    /// What the node says of itself, and the last lines that the process printed.
    pub(crate) fn tail(&self) -> String {
        let text = self.said();
        let lines: Vec<&str> = text.lines().collect();
        let figures = self.figures().map_or_else(|| "no answer".to_owned(), |figures| format!("{figures:?}"));
        format!("{}: {figures}; last words:\n{}", self.ip, lines[lines.len().saturating_sub(20)..].join("\n"))
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if self.is_running() {
            self.kill();
        }
    }
}

/// Three nodes, or as many as there are homes, that know each other as seeds.
#[derive(Debug)]
pub(crate) struct Cluster {
    pub(crate) nodes: Vec<Node>,
}

impl Cluster {
    /// Starts three nodes below `folder` and waits until one leads and two follow.
    pub(crate) fn start(folder: &Path, options: &[String]) -> anyhow::Result<Cluster> {
        Cluster::start_locked(folder, Lock::default(), options)
    }

    /// The same with an internal plane that is closed.
    pub(crate) fn start_locked(folder: &Path, lock: Lock, options: &[String]) -> anyhow::Result<Cluster> {
        let addresses = [101, 102, 103].map(|last| Ipv4Addr::new(127, 0, 0, last));
        let keys = Keys::make(folder, "keys", lock, &addresses)?;
        let place = |ip: Ipv4Addr| {
            let mut node = Node::new(ip, folder.join(format!("node-{}", ip.octets()[3])));
            node.home.options = keys.options(ip);
            node
        };
        Cluster::start_nodes(addresses.map(place).into(), options)
    }

    /// Starts a node in each of `homes` and waits until one leads and all others follow.
    pub(crate) fn start_at(homes: Vec<Home>, options: &[String]) -> anyhow::Result<Cluster> {
        Cluster::start_nodes(homes.into_iter().map(Node::at).collect(), options)
    }

    fn start_nodes(nodes: Vec<Node>, options: &[String]) -> anyhow::Result<Cluster> {
        let mut cluster = Cluster { nodes };
        let count = cluster.nodes.len();
        let seeds: Vec<String> = cluster.nodes.iter().map(|node| node.int_http().to_string()).collect();
        for (index, node) in cluster.nodes.iter_mut().enumerate() {
            let others: Vec<&str> =
                (0..count).filter(|other| *other != index).map(|other| seeds[other].as_str()).collect();
            node.options =
                ["--cluster-size", &count.to_string(), "--gossip-seed", &others.join(",")].map(str::to_owned).into();
            node.options.extend_from_slice(options);
            node.start()?;
        }
        cluster.wait_until_whole()?;
        Ok(cluster)
    }

    /// Waits until one node leads, the others follow it, and clients would hear so by gossip from each.
    pub(crate) fn wait_until_whole(&self) -> anyhow::Result<Duration> {
        let count = self.nodes.len();
        let whole = wait_until("one leader, and all others follow", PATIENCE, || {
            let roles: Vec<_> = self.nodes.iter().filter_map(Node::figures).collect();
            let Some(leader) = roles.iter().position(Figures::leads) else { return false };
            let told = [self.nodes[leader].ext_tcp().to_string()];
            roles.len() == count
                && roles.iter().filter(|figures| figures.follows()).count() == count - 1
                && self.nodes.iter().all(|node| node.leaders_in_gossip() == told)
        });
        whole.with_context(|| self.tails())
    }

    /// The node that leads, once one does.
    pub(crate) fn leader(&self) -> anyhow::Result<usize> {
        let mut found = None;
        let leads = wait_until("a node leads", PATIENCE, || {
            let all = self.nodes.iter().enumerate().filter_map(|(index, node)| Some((index, node.figures()?)));
            let newest = all.filter(|(_, figures)| figures.leads()).max_by_key(|(_, figures)| figures.term);
            found = newest.map(|(index, _)| index);
            found.is_some()
        });
        leads.with_context(|| self.tails())?;
        Ok(found.expect("a leader was found"))
    }

    /// Waits until `index` takes part again: follows, close to the leader's end, or leads.
    pub(crate) fn wait_until_in_step(&mut self, index: usize, limit: Duration) -> anyhow::Result<Duration> {
        let node = &mut self.nodes[index];
        let in_step = wait_until("the node follows again", limit, || {
            !node.is_running() || node.figures().is_some_and(|figures| figures.follows() || figures.leads())
        });
        let time = in_step.with_context(|| self.tails())?;
        anyhow::ensure!(self.nodes[index].is_running(), "the node ended\n{}", self.nodes[index].tail());
        Ok(time)
    }

    /// Waits until every node has flushed and committed the same log; its end.
    pub(crate) fn wait_until_even(&self) -> anyhow::Result<u64> {
        let mut last = Vec::new();
        let count = self.nodes.len();
        let even = wait_until("all logs end at the same position", PATIENCE, || {
            let now: Vec<_> = self.nodes.iter().filter_map(Node::figures).collect();
            let place = |of: &Figures| (of.term, of.log_end, of.writer_checkpoint, of.commit_position);
            let same = now.len() == count && now.iter().all(|figures| place(figures) == place(&now[0]));
            let settled = same && now == last && now[0].commit_position == now[0].log_end;
            last = now;
            settled
        });
        even.with_context(|| format!("{last:?}\n{}", self.tails()))?;
        Ok(last[0].log_end)
    }

    pub(crate) fn tails(&self) -> String {
        self.nodes.iter().map(Node::tail).collect::<Vec<_>>().join("\n")
    }
}

/// The first of four neighbouring ports that nobody listens on.
///
/// They lie below the range that the kernel gives to outgoing connections, so no client can hold one while its node is
/// down.
fn free_ports(ip: Ipv4Addr) -> u16 {
    // Other test programs may run at the same time: begin at a place of our own.
    let mut random = fastrand::Rng::new();
    for _ in 0..200 {
        let first = 20_000 + 4 * random.u16(0..3_000);
        if (first..first + 4).all(|port| TcpListener::bind((ip, port)).is_ok()) {
            return first;
        }
    }
    panic!("no four free ports on {ip}");
}
