//! Scenario files: commands and the trace that they must give, as text, read as a diff. `RINGSTORE_REWRITE=1 cargo
//! test scenario` writes the files anew; look at the diff before committing it.

use std::fs;
use std::path::Path;

use super::changing::Change;
use super::harness::Table;

fn at(word: &str) -> usize {
    usize::from(word.as_bytes()[0] - b'a')
}

/// Runs one file. Lines beginning with `>` are commands; the lines behind one are what it printed.
fn run(text: &str) -> String {
    let mut table = Table::new(3, 0);
    let mut out = String::new();
    for line in text.lines() {
        if line.starts_with('#') || line.is_empty() {
            out.push_str(line);
            out.push('\n');
        }
        let Some(command) = line.strip_prefix("> ") else {
            continue;
        };
        command_on(&mut table, &command.split(' ').collect::<Vec<_>>());
        out.push_str(&format!("{line}\n{}", std::mem::take(&mut table.trace)));
    }
    out
}

fn command_on(table: &mut Table, words: &[&str]) {
    match words {
        ["nodes", members] => *table = Table::new(members.parse().unwrap(), 0),
        ["nodes", members, "clones", clones] => *table = Table::new(members.parse().unwrap(), clones.parse().unwrap()),
        ["advance", millis] => table.advance(millis.parse().unwrap()),
        ["time-out", node] => table.time_out(at(node)),
        ["announce", node] => table.announce(at(node)),
        ["stop", node] => table.hosts[at(node)].stopped = true,
        ["go", node] => table.hosts[at(node)].stopped = false,
        ["silence", node] => {
            table.hosts[at(node)].replica.as_mut().unwrap().leader_heard = None;
        }
        ["rumour", node, leader, term] => {
            let term = crate::types::Term(term.parse().unwrap());
            let leader = super::harness::node(at(leader));
            table.run(at(node), |replica, now, effects| replica.handle_leader_seen(now, leader, term, effects));
            table.deliver();
        }
        ["append", node] => {
            table.append(at(node));
            table.deliver();
        }
        ["auto-flush", node, on] => table.hosts[at(node)].auto_flush = *on == "on",
        ["flush", node] => {
            table.flush(at(node));
            table.deliver();
        }
        ["cut", one, other] => table.cut(at(one), at(other)),
        ["heal"] => table.cut.clear(),
        ["crash", node] => table.crash(at(node)),
        ["restart", node] => table.restart(at(node)),
        ["deliver"] => table.deliver(),
        ["resign", node] => {
            let result = table.run(at(node), |replica, now, effects| replica.resign(now, None, effects));
            table.trace.push_str(&format!("resign: {}\n", if result.unwrap().is_ok() { "begun" } else { "refused" }));
            table.deliver();
        }
        ["resign", node, "to", to] => {
            let to = Some(super::harness::node(at(to)));
            let result = table.run(at(node), |replica, now, effects| replica.resign(now, to, effects));
            table.trace.push_str(&format!("resign: {}\n", shown(&result.unwrap())));
            table.deliver();
        }
        ["add", leader, node] => change(table, at(leader), Change::Add(super::harness::node(at(node)))),
        ["remove", leader, node] => change(table, at(leader), Change::Remove(super::harness::node(at(node)))),
        ["lose", node, records] => table.lose(at(node), records.parse().unwrap()),
        ["trust", node] => {
            let refused = table.run(at(node), |replica, _, effects| replica.trust_log(effects)).and_then(Result::err);
            refused.into_iter().for_each(|reason| table.trace.push_str(&format!("{node}: {reason}\n")));
        }
        ["priority", node, priority] => {
            table.hosts[at(node)].options.priority = priority.parse().unwrap();
            table.crash(at(node));
            table.restart(at(node));
        }
        ["flush-time", node, micros] => {
            table.hosts[at(node)].replica.as_mut().unwrap().note_flush_time(micros.parse().unwrap());
        }
        ["full", node, from] => {
            let full_from = Some(crate::types::LogPosition(from.parse().unwrap()));
            table.run(at(node), |replica, _, effects| replica.note_room(full_from, effects));
            table.deliver();
        }
        ["room", node] => {
            table.run(at(node), |replica, _, effects| replica.note_room(None, effects));
            table.deliver();
        }
        ["ready", node] => ready(table, at(node), true),
        ["unready", node] => ready(table, at(node), false),
        ["auto-save", node, on] => table.hosts[at(node)].auto_save = *on == "on",
        ["save", node] => {
            table.save(at(node));
            table.deliver();
        }
        ["show"] => table.show(),
        other => panic!("unknown command {other:?}"),
    }
}

fn ready(table: &mut Table, node: usize, is_ready: bool) {
    table.run(node, |replica, _, effects| replica.note_ready(is_ready, effects));
    table.deliver();
}

/// Begins a change; what it says goes to the trace.
fn change(table: &mut Table, leader: usize, change: Change) {
    let result = table.change(leader, change);
    table.trace.push_str(&format!("change: {}\n", shown(&result)));
    table.deliver();
}

/// Nodes by their letters.
fn shown<T>(result: &Result<T, String>) -> String {
    let mut words = result.as_ref().map_or_else(Clone::clone, |_| "begun".to_owned());
    for (index, letter) in ('a'..='h').enumerate() {
        words = words.replace(&super::harness::node(index).to_string(), &letter.to_string());
    }
    words
}

#[test]
fn scenario_files() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/consensus/testdata");
    let mut count = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let text = fs::read_to_string(&path).unwrap();
        let found = run(&text);
        if std::env::var_os("RINGSTORE_REWRITE").is_some() {
            fs::write(&path, &found).unwrap();
        } else {
            assert_eq!(found, text, "{}", path.display());
        }
        count += 1;
    }
    assert!(count >= 5, "{count} scenario files were found");
}
