//! Those who do not belong to the cluster, and are kept out: each says something to the internal side, is refused, and both
//! logs say why; then the cluster is what it was before.
//!
//! Each comes from a host and an address of its own: what is said of strangers is limited by address.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};

use crate::Arguments;
use crate::house::{House, NODES, STRANGER};
use crate::replay::{Overheard, Recorder, say};
use crate::support::client::{ANY, Client, event};
use crate::support::cluster::Node;
use crate::support::keys::{Keys, Lock};
use crate::support::messages::WriteEvents;
use crate::support::wires::{self, Plane};
use crate::support::{http, wait_until};
use crate::tls;

/// How long a refusal may take to be seen in both logs.
const PATIENCE: Duration = Duration::from_secs(20);

/// How long a single exchange may take; greetings have five seconds.
const LIMIT: Duration = Duration::from_secs(8);

/// Words of which a line about a refusal has at least one.
const REFUSALS: [&str; 6] = ["refus", "secret", "certificate", "proof", "TLS", "belongs to cluster"];

/// "Accepted" in the answer to a greeting, and "RSNO" its opposite.
const ACCEPTED: &[u8] = b"RSOK";

/// Runs it with both locks, or with the one that was asked for.
pub(crate) fn run(arguments: &Arguments, folder: &Path) -> anyhow::Result<()> {
    ensure!(!arguments.open, "an open plane lets everybody in: there is nothing to look at");
    let locks = if arguments.tls { vec![Lock::TLS] } else { vec![Lock::SECRET, Lock::TLS] };
    let mut broken = Vec::new();
    for lock in locks {
        let place = folder.join(lock.name());
        std::fs::create_dir_all(&place)?;
        let mut scene = Scene::start(&place, lock)?;
        scene.all().with_context(|| format!("closed by {}", lock.name()))?;
        let (cases, failed) = (scene.cases, scene.broken.len());
        println!("result mode=strangers lock={} cases={cases} refused={} broken={failed}", lock.name(), cases - failed);
        broken.append(&mut scene.broken);
    }
    if !broken.is_empty() {
        bail!("strangers that were not refused as they should be:\n{}", broken.join("\n"));
    }
    Ok(())
}

/// What must not change.
#[derive(Clone, Debug, PartialEq, Eq)]
struct State {
    leader: usize,
    term: u64,
    members: Vec<String>,
}

struct Scene {
    house: House,
    lock: Lock,
    folder: std::path::PathBuf,
    state: State,
    next_host: usize,
    cases: usize,
    broken: Vec<String>,
}

impl Scene {
    fn start(folder: &Path, lock: Lock) -> anyhow::Result<Scene> {
        let house = House::start(folder, lock, &[])?;
        let state = state(&house)?;
        let folder = folder.to_path_buf();
        Ok(Scene { house, lock, folder, state, next_host: STRANGER, cases: 0, broken: Vec::new() })
    }

    fn all(&mut self) -> anyhow::Result<()> {
        if self.lock.secret {
            let wrong = Keys::make(&self.folder, "keys-wrong", self.lock, &[])?;
            let host = self.host()?;
            self.node("a node with the wrong secret", host, &wrong, false)?;
        }
        if self.lock.tls {
            let host = self.host()?;
            let address = self.house.wires.address(Plane::Internal, host);
            let keys = self.house.keys.other_authority(&self.folder.join("keys-other"), address)?;
            self.node("a node with a certificate of an authority of its own", host, &keys, false)?;
            for port in ["1112", "2112"] {
                self.self_signed(port)?;
            }
            let host = self.host()?;
            self.wrong_name(host)?;
        }
        let host = self.host()?;
        let open = Keys::make(&self.folder, "keys-none", Lock::default(), &[])?;
        self.node("a node without any", host, &open, false)?;
        let host = self.host()?;
        let keys = self.house.keys.clone();
        if self.lock.tls {
            keys.add(self.house.wires.address(Plane::Internal, host))?;
        }
        self.node("a node of another cluster with the right keys", host, &keys, true)?;
        self.client()?;
        self.posts()?;
        self.replays()
    }

    /// A new host on the internal side.
    fn host(&mut self) -> anyhow::Result<usize> {
        let host = self.next_host;
        self.next_host += 1;
        self.house.wires.add_host(host, &Plane::BOTH)?;
        Ok(host)
    }

    /// Ends a case: what was found, and whether the cluster is as before.
    fn end(&mut self, name: &str, found: anyhow::Result<String>) -> anyhow::Result<()> {
        self.cases += 1;
        let after = state(&self.house).with_context(|| format!("after {name}"))?;
        let found = found.and_then(|words| {
            ensure!(after == self.state, "the cluster has changed from {:?} to {after:?}", self.state);
            Ok(words)
        });
        match found {
            Ok(words) => println!("refused: {name}\n{words}"),
            Err(error) => {
                println!("NOT AS IT SHOULD BE: {name}: {error:#}");
                self.broken.push(format!("{}: {name}", self.lock.name()));
                self.state = after;
            }
        }
        Ok(())
    }

    /// A node that takes the cluster's nodes for its seeds. With `founds` it has made a cluster of its own before.
    fn node(&mut self, name: &str, host: usize, keys: &Keys, founds: bool) -> anyhow::Result<()> {
        self.node_with(name, host, keys, founds, &[])
    }

    fn node_with(
        &mut self,
        name: &str,
        host: usize,
        keys: &Keys,
        founds: bool,
        options: &[String],
    ) -> anyhow::Result<()> {
        let mut node = self.house.another(&format!("stranger-{host}"), host, keys);
        node.add_options(options);
        if founds {
            node.start().and_then(|()| alone(&mut node)).with_context(|| name.to_owned())?;
        }
        node.add_options(&["--cluster-size", "3", "--gossip-seed", &self.house.seeds()].map(str::to_owned));
        let before: Vec<usize> = self.house.cluster.nodes.iter().map(|node| node.said().len()).collect();
        let own = node.said().len();
        node.start()?;
        let found = self.refused_in_both_logs(&mut node, own, &before).and_then(|lines| {
            let role = node.figures().map_or_else(|| "unseen".to_owned(), |figures| figures.role);
            // What it founded before it may lead.
            let is_in = ["follower", "clone", "catchingUp"].contains(&&*role) || (role == "leader" && !founds);
            ensure!(!is_in, "the stranger is {role}\n{lines}");
            Ok(lines)
        });
        if node.is_running() {
            node.kill();
        }
        self.end(name, found)
    }

    /// Waits for the words in both logs; gives the lines.
    fn refused_in_both_logs(&self, node: &mut Node, own: usize, before: &[usize]) -> anyhow::Result<String> {
        let stranger = node.ip.to_string();
        let nodes: Vec<String> = self.house.cluster.nodes.iter().map(|node| node.ip.to_string()).collect();
        let (mut there, mut here) = (None, None);
        let waited = wait_until("both logs tell of the refusal", PATIENCE, || {
            let all = self.house.cluster.nodes.iter().zip(before);
            there = there
                .take()
                .or_else(|| all.into_iter().find_map(|(node, from)| line(&node.said()[*from..], &[&stranger])));
            let names: Vec<&str> = nodes.iter().map(String::as_str).collect();
            here = here.take().or_else(|| line(&node.said()[own..], &names));
            (there.is_some() && here.is_some()) || !node.is_running()
        });
        let lines = format!(
            "  here:  {}\n  there: {}",
            there.as_deref().unwrap_or("nothing about it"),
            here.as_deref().unwrap_or("nothing about it")
        );
        waited.with_context(|| format!("{lines}\n{}", node.tail()))?;
        ensure!(there.is_some() && here.is_some(), "the stranger ended by itself\n{lines}\n{}", node.tail());
        Ok(lines)
    }

    /// The right authority has signed, but for another address. It says that it lives there: else it would not start with it.
    fn wrong_name(&mut self, host: usize) -> anyhow::Result<()> {
        let keys = self.house.keys.clone();
        let (address, other) =
            (self.house.wires.address(Plane::Internal, host), self.house.wires.address(Plane::Internal, host + 100));
        keys.add(other)?;
        for (from, to) in keys.certificate(other).iter().zip(keys.certificate(address)).take(2) {
            std::fs::copy(from, to)?;
        }
        let options = ["--int-ip-advertise-as".to_owned(), other.to_string()];
        self.node_with("a node with a certificate for another address", host, &keys, false, &options)
    }

    /// Somebody who speaks TLS, trusts the cluster, and shows a certificate that only itself has signed. No node of ours would
    /// start with one.
    fn self_signed(&mut self, port: &str) -> anyhow::Result<()> {
        let (host, leader) = (self.host()?, self.state.leader);
        let from = self.house.wires.address(Plane::Internal, host);
        let node = &self.house.cluster.nodes[leader];
        let to = if port == "1112" { node.int_tcp() } else { node.int_http() };
        let before = node.said().len();
        let [_, _, authorities] = self.house.keys.certificate(node.ip);
        let said = wires::inside(&self.house.wires.name(host), || tls::knock(to, from, &authorities, LIMIT))?;
        let found = said.and_then(|said| {
            let line = self.told(leader, before, host)?;
            Ok(format!("  here:  {line}\n  there: {said}"))
        });
        self.end(&format!("a certificate signed by itself on {port}"), found)
    }

    /// A client that took the wrong port.
    fn client(&mut self) -> anyhow::Result<()> {
        let (host, leader) = (self.host()?, self.state.leader);
        let address = self.house.cluster.nodes[leader].int_tcp();
        let before = self.house.cluster.nodes[leader].said().len();
        let said = wires::inside(&self.house.wires.name(host), || -> anyhow::Result<String> {
            let mut client = Client::connect(address, LIMIT)?;
            let events = vec![event([1; 16], b"a stranger's".to_vec())];
            let stream = "strangers".to_owned();
            let request = WriteEvents { stream, expected_version: ANY, events, require_master: false };
            match client.write(&request, LIMIT, &|| false) {
                Ok(Ok(written)) => bail!("it was acknowledged: {written:?}"),
                Ok(Err(refusal)) => Ok(refusal.to_string()),
                Err(error) => Ok(format!("the connection ended, {}", error.kind())),
            }
        })?;
        let found = said.and_then(|said| {
            let line = self.told(leader, before, host)?;
            Ok(format!("  here:  {line}\n  there: {said}"))
        });
        self.end("a client on 1112", found)
    }

    /// What a node's log says of a host since `before`.
    fn told(&self, node: usize, before: usize, host: usize) -> anyhow::Result<String> {
        let address = self.house.wires.address(Plane::Internal, host).to_string();
        let node = &self.house.cluster.nodes[node];
        let mut found = None;
        let told = wait_until("the log tells of it", LIMIT, || {
            found = line(&node.said()[before..], &[&address]);
            found.is_some()
        });
        told.with_context(|| node.tail())?;
        Ok(found.unwrap_or_default())
    }

    /// Requests to 2112 without a proof.
    fn posts(&mut self) -> anyhow::Result<()> {
        const PATHS: [(&str, &str); 8] = [
            ("POST", "/gossip"),
            ("POST", "/elections/pre-vote"),
            ("POST", "/elections/vote"),
            ("POST", "/elections/transfer"),
            ("POST", "/admin/resign"),
            ("POST", "/admin/members/remove"),
            ("GET", "/admin/status"),
            ("GET", "/log/info"),
        ];
        for (method, path) in PATHS {
            let (host, leader) = (self.host()?, self.state.leader);
            let address = self.house.cluster.nodes[leader].int_http();
            let before = self.house.cluster.nodes[leader].said().len();
            let body = if method == "POST" { "{}" } else { "" };
            let answer =
                wires::inside(&self.house.wires.name(host), || http::request(address, method, path, body, LIMIT))?;
            let said = match answer {
                Ok(answer) if answer.status == 401 => Ok(format!("401, {}", answer.body)),
                // Said in plain, to whoever did not know that the port speaks TLS.
                Ok(answer) if self.lock.tls && answer.status == 400 && answer.body.contains("TLS") => {
                    Ok(format!("400, {}", answer.body))
                }
                Err(error) if self.lock.tls => Ok(format!("no answer, {}", error.kind())),
                Ok(answer) => Err(anyhow::anyhow!("answered with {}: {}", answer.status, answer.body)),
                Err(error) => Err(anyhow::anyhow!("no answer: {error}")),
            };
            let found = said.and_then(|said| {
                let line = self.told(leader, before, host)?;
                Ok(format!("  here:  {line}\n  there: {said}"))
            });
            self.end(&format!("{method} {path} without a proof"), found)?;
        }
        Ok(())
    }

    /// What a follower said to the leader when it began, said again from the follower's own address.
    fn replays(&mut self) -> anyhow::Result<()> {
        let leader = self.state.leader;
        let follower = (leader + 1) % NODES;
        let from = self.house.cluster.nodes[follower].ip;
        let targets = [self.house.cluster.nodes[leader].int_tcp(), self.house.cluster.nodes[leader].int_http()];
        let hub = self.house.wires.hub(Plane::Internal);
        let recorders: Vec<Recorder> = targets
            .iter()
            .map(|target| Recorder::start(&hub, (self.house.cluster.nodes[leader].ip, target.port())))
            .collect::<anyhow::Result<_>>()?;
        self.house.cluster.nodes[follower].kill();
        self.house.cluster.nodes[follower].start()?;
        // The restarted node has another instance id.
        let restarted = state(&self.house)?;
        ensure!(
            (restarted.leader, restarted.term) == (leader, self.state.term),
            "the restart of a follower changed the leader"
        );
        self.state = restarted;
        for (target, recorder) in targets.into_iter().zip(recorders) {
            let all: Vec<Overheard> =
                recorder.stop()?.into_iter().filter(|one| one.from == from && !one.bytes.is_empty()).collect();
            println!("{} connections of the restarted follower to {target} were overheard", all.len());
            let name = format!("what a follower said to {target}, said again from its address");
            let found = if all.is_empty() {
                Err(anyhow::anyhow!("no connection of {from} to {target} was overheard"))
            } else {
                all.iter().take(4).try_fold(String::new(), |text, one| Ok(text + &self.again(follower, target, one)?))
            };
            self.end(&name, found)?;
        }
        Ok(())
    }

    fn again(&self, follower: usize, target: SocketAddr, heard: &Overheard) -> anyhow::Result<String> {
        let leader = &self.house.cluster.nodes[self.state.leader];
        let before = leader.said().len();
        let treated =
            wires::inside(&self.house.wires.name(follower), || say(heard.from, target, &heard.bytes, LIMIT))??;
        let (answer, count) = (&treated.answer, heard.bytes.len());
        ensure!(treated.is_closed, "{count} bytes said again: the connection stands; {} bytes came back", answer.len());
        ensure!(!has(answer, ACCEPTED), "{count} bytes said again: the link was accepted");
        let text = String::from_utf8_lossy(answer);
        let statuses: Vec<&str> = text.lines().filter(|line| line.starts_with("HTTP/1.1")).collect();
        // The challenge itself is for everybody.
        let is_answered = statuses.iter().skip(1).any(|line| line.contains(" 200 "));
        ensure!(!is_answered, "{count} bytes said again were answered: {statuses:?}");
        let said = leader.said()[before..].to_owned();
        ensure!(!said.contains("link accepted"), "{count} bytes said again made a link:\n{said}");
        let line = self.told(self.state.leader, before, follower)?;
        Ok(format!("  {count} bytes: closed, {} bytes came back {statuses:?}\n  here:  {line}\n", answer.len()))
    }
}

fn has(bytes: &[u8], word: &[u8]) -> bool {
    bytes.windows(word.len()).any(|window| window == word)
}

/// The first line with one of these names and a word of refusal.
fn line(text: &str, names: &[&str]) -> Option<String> {
    let tells =
        |line: &&str| names.iter().any(|name| mentions(line, name)) && REFUSALS.iter().any(|word| line.contains(word));
    // Lines of the start name all options.
    text.lines().filter(|line| line.contains("WARN") || line.contains("ERROR")).find(tells).map(plain)
}

/// The line without colours.
fn plain(line: &str) -> String {
    let mut parts = line.split('\u{1b}');
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |text, part| text + part.split_once('m').map_or("", |(_, rest)| rest))
}

/// True when the address is there, and not only as the beginning of another.
fn mentions(line: &str, address: &str) -> bool {
    line.match_indices(address)
        .any(|(at, _)| !line[at + address.len()..].starts_with(|next: char| next.is_ascii_digit()))
}

/// Waits until a node that has nobody leads.
fn alone(node: &mut Node) -> anyhow::Result<()> {
    let up = wait_until("the node leads its own cluster", PATIENCE, || {
        node.figures().is_some_and(|figures| figures.leads())
    });
    up.with_context(|| node.tail())?;
    let status = node.stop()?;
    ensure!(status.success(), "it ended with {status}\n{}", node.tail());
    Ok(())
}

/// Leader, term and members as the nodes say; each of them takes a write.
fn state(house: &House) -> anyhow::Result<State> {
    house.cluster.wait_until_whole()?;
    let leader = house.cluster.leader()?;
    let figures = house.cluster.nodes[leader].figures().context("the leader answers")?;
    let mut all = Vec::new();
    for node in &house.cluster.nodes {
        let gossip = http::get(node.ext_http(), "/gossip", Duration::from_secs(5))?.json()?;
        let members = gossip["members"].as_array().context("members")?;
        let mut members: Vec<String> =
            members.iter().map(|member| format!("{} {}", member["instanceId"], member["externalTcpIp"])).collect();
        members.sort();
        all.push(members);
        let events = vec![event(fastrand::u128(..).to_be_bytes(), b"still here".to_vec())];
        let stream = "members".to_owned();
        let request = WriteEvents { stream, expected_version: ANY, events, require_master: false };
        let answer = Client::connect(node.ext_tcp(), Duration::from_secs(5))?.write(&request, PATIENCE, &|| false)?;
        ensure!(answer.is_ok(), "a write at {} is refused: {answer:?}", node.ip);
    }
    ensure!(all.windows(2).all(|two| two[0] == two[1]), "the nodes know different members: {all:?}");
    let members = all.swap_remove(0);
    Ok(State { leader, term: figures.term, members })
}
