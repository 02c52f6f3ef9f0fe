//! The load generator against one node, as a user runs it: each workload for a second, and what its JSON says; what it
//! says and how it ends when there is no node; and that a node which dies in the midst loses nothing acknowledged.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use crate::support::cluster::{Node, scratch};

fn bench(node: &Node, arguments: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringstore-bench"));
    command.args(arguments.split_whitespace());
    command.args(["--seed", &node.ext_http().to_string()]);
    command
}

fn texts(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Runs it and gives its JSON; the run must end well.
fn run(node: &Node, folder: &Path, arguments: &str) -> Value {
    let json = folder.join("result.json");
    let mut command = bench(node, arguments);
    let output = command.args(["--seconds", "1", "--warm-up", "0.1", "--json"]).arg(&json).output().unwrap();
    assert!(output.status.success(), "{arguments}: {}\n{}\n{}", output.status, texts(&output), node.tail());
    serde_json::from_str(&std::fs::read_to_string(json).unwrap()).unwrap()
}

fn figure(result: &Value, series: &str, name: &str) -> u64 {
    let all = result["series"].as_array().unwrap();
    let found = all.iter().find(|one| one["name"] == series).unwrap_or_else(|| panic!("no {series} in {result}"));
    found[name].as_u64().unwrap()
}

/// The run read back what was acknowledged and found it.
fn verified(result: &Value) -> &str {
    let text = result["settings"]["verified"].as_str().unwrap_or_default();
    assert!(text.starts_with("ok: "), "{text}");
    text
}

fn no_troubles(result: &Value) {
    for trouble in ["reconnects", "retries", "notHandled", "refused"] {
        assert_eq!(result["troubles"][trouble], 0, "{trouble}: {}", result["troubles"]);
    }
}

#[test]
fn every_workload_runs_and_is_verified() {
    let folder = scratch("bench");
    let mut node = Node::single(&folder, &[]);
    node.start_and_wait().unwrap();

    let result = run(&node, &folder, "writes --connections 4 --in-flight 4 --events 3 --size 100-300 --verify");
    let (operations, events) = (figure(&result, "write", "operations"), figure(&result, "write", "events"));
    assert!(operations > 0 && events == 3 * operations, "{operations} writes, {events} events");
    let mean = figure(&result, "write", "payloadBytes") / events;
    assert!((100..=300).contains(&mean), "{mean} bytes in each");
    verified(&result);
    no_troubles(&result);

    for expected in ["exact", "no-stream"] {
        let arguments = format!("writes --connections 2 --in-flight 3 --streams 2 --expected {expected} --verify");
        let result = run(&node, &folder, &arguments);
        assert!(figure(&result, "write", "operations") > 0);
        verified(&result);
        no_troubles(&result);
    }

    for direction in ["forward", "backward", "all", "all-backward", "forward --cold", "all --cold"] {
        let arguments = format!("reads --span 1000 --page 100 --in-flight 2 --direction {direction}");
        let result = run(&node, &folder, &arguments);
        let (pages, events) = (figure(&result, "read", "operations"), figure(&result, "read", "events"));
        assert!(pages > 0 && events > 0 && events <= pages * 100, "{direction}: {events} events in {pages} pages");
        if !arguments.contains("cold") {
            // A node cuts a page short that takes it long, as on a busy machine.
            assert!(events > pages * 90, "{direction}: whole pages, but {events} events in {pages}");
        }
        no_troubles(&result);
    }

    for all in ["", "--all"] {
        let arguments = format!("subscriptions --subscribers 2 --streams 4 --in-flight 2 --verify {all}");
        let result = run(&node, &folder, &arguments);
        assert!(figure(&result, "delivery", "events") > 0 && figure(&result, "write", "events") > 0);
        assert!(verified(&result).contains("deliveries due"), "subscribers are verified too");
    }

    let result = run(&node, &folder, "mixed --writes 50 --span 1000 --page 50 --connections 2");
    assert!(figure(&result, "write", "operations") > 0 && figure(&result, "read", "operations") > 0);

    let result = run(&node, &folder, "connections --idle 50 --connections 2 --threads 2");
    assert!(figure(&result, "write", "operations") > 0);
    let memory = result["settings"]["memory of idle connections"].as_str().unwrap();
    assert!(memory.contains("for each"), "{memory}");
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn an_open_loop_keeps_its_rate_and_writes_its_files() {
    let folder = scratch("bench-rate");
    let mut node = Node::single(&folder, &[]);
    node.start_and_wait().unwrap();
    let files = ["latency.hgrm", "plot.svg"].map(|name| folder.join(name));
    let arguments = format!(
        "writes --connections 2 --in-flight 64 --rate 200 --hgrm {} --plot {}",
        files[0].display(),
        files[1].display()
    );
    let result = run(&node, &folder, &arguments);
    let operations = figure(&result, "write", "operations");
    // Those at the ends may fall on either side.
    assert!((150..=250).contains(&operations), "{operations} at a rate of 200 a second");
    assert!(files.iter().all(|file| std::fs::metadata(file).is_ok_and(|found| found.len() > 0)));
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn a_node_that_dies_and_comes_back_loses_nothing_acknowledged() {
    let folder = scratch("bench-kill");
    let mut node = Node::single(&folder, &[]);
    node.start_and_wait().unwrap();
    let json = folder.join("result.json");
    let mut command = bench(&node, "writes --connections 3 --in-flight 4 --seconds 4 --warm-up 0 --timeout 2 --verify");
    let mut load = command.arg("--json").arg(&json).stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    let mut progress = BufReader::new(load.stderr.take().unwrap()).lines();
    // A second of it has passed: requests are on their way.
    let first = progress.next().unwrap().unwrap();
    assert!(first.contains("requests"), "{first}");
    node.kill();
    node.start_and_wait().unwrap();
    let rest: Vec<_> = progress.map(Result::unwrap).collect();
    let status = load.wait().unwrap();
    assert!(status.success(), "{status}\n{}\n{}", rest.join("\n"), node.tail());
    let result: Value = serde_json::from_str(&std::fs::read_to_string(json).unwrap()).unwrap();
    verified(&result);
    assert!(result["troubles"]["reconnects"].as_u64().unwrap() >= 3, "{}", result["troubles"]);
    assert!(result["troubles"]["retries"].as_u64().unwrap() > 0, "{}", result["troubles"]);
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn without_a_node_it_says_so() {
    let folder = scratch("bench-nobody");
    let node = Node::single(&folder, &[]);
    let output = bench(&node, "writes --seconds 1").output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let text = texts(&output);
    assert!(text.contains("nothing to connect to within 10 s"), "{text}");
    assert!(text.contains(&node.ext_http().to_string()), "which seed it asked: {text}");

    let wrong = bench(&node, "writes --size none").output().unwrap();
    assert_eq!(wrong.status.code(), Some(2));
    assert!(texts(&wrong).contains("not a size"), "{}", texts(&wrong));
    std::fs::remove_dir_all(folder).unwrap();
}
