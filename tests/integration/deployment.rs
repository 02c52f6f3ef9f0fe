//! The files that bring a node to a host: the unit, the container's, and the example of a configuration, held against the
//! program and the README.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::support::cluster::{Node, command, program, scratch};

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn text(name: &str) -> String {
    fs::read_to_string(path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// The values of a key of the unit.
fn values(unit: &str, key: &str) -> Vec<String> {
    unit.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix('=')).map(str::to_owned).collect()
}

fn statuses(unit: &str, key: &str) -> BTreeSet<u8> {
    values(unit, key).iter().flat_map(|value| value.split_whitespace()).map(|word| word.parse().unwrap()).collect()
}

/// The README's table of the server's exit statuses: status, and what it says to "try again?".
fn table() -> Vec<(u8, String)> {
    let readme = text("README.md");
    let (_, rest) = readme.split_once("| exit status | why the node ended | try again? |\n").expect("the table");
    let rows = rest.lines().skip(1).take_while(|line| line.starts_with('|'));
    let row = |line: &str| {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        (cells[0].parse().expect("a status"), cells[2].to_owned())
    };
    rows.map(row).collect()
}

#[test]
fn the_unit_restarts_after_the_statuses_that_the_readme_says() {
    let (unit, table) = (text("scripts/systemd/ringstore.service"), table());
    let numbers: Vec<u8> = table.iter().map(|(status, _)| *status).collect();
    assert_eq!(numbers, [0, 1, 2, 3, 4, 5, 6], "the README's table");
    let never: BTreeSet<u8> =
        table.iter().filter(|(_, again)| again.starts_with("no")).map(|(status, _)| *status).collect();
    assert_eq!(statuses(&unit, "RestartPreventExitStatus"), never);
    assert_eq!(values(&unit, "Restart"), ["on-failure"], "all others are tried again");
    // Told to stop twice, by SIGINT or SIGTERM.
    assert_eq!(statuses(&unit, "SuccessExitStatus"), BTreeSet::from([128 + 2, 128 + 15]));
    // The module's own words have the same rows.
    let source = text("src/node/error.rs");
    for status in numbers {
        assert!(source.contains(&format!("//! | {status} | ")), "src/node/error.rs does not list {status}");
    }
    assert_eq!(values(&unit, "Type"), ["notify"]);
    assert_eq!(values(&unit, "LimitMEMLOCK"), ["infinity"]);
}

#[test]
fn the_doctor_is_run_with_the_rights_of_the_unit() {
    let unit = text("scripts/systemd/ringstore.service");
    let head: String = unit.lines().map_while(|line| line.strip_prefix('#')).collect::<Vec<_>>().join("\n");
    let (_, order) = head.split_once("systemd-run").expect("the head says how to run the doctor");
    let given: BTreeSet<String> = order.split(" -p ").skip(1).map(property).collect();
    for key in [
        "User",
        "StateDirectory",
        "LimitMEMLOCK",
        "LimitNOFILE",
        "NoNewPrivileges",
        "RestrictAddressFamilies",
        "SystemCallFilter",
        "SystemCallErrorNumber",
    ] {
        let expected = format!("{key}={}", values(&unit, key).concat());
        assert!(given.contains(&expected), "{expected} is not in {given:?}");
    }
    assert_eq!(given.len(), 8, "{given:?}");
}

/// What stands behind a `-p`, in quotes or up to the next space.
fn property(text: &str) -> String {
    let (rest, end) = text.strip_prefix('"').map_or((text, ' '), |rest| (rest, '"'));
    rest.split([end, '\n']).next().unwrap_or_default().to_owned()
}

#[test]
fn the_unit_is_one_for_systemd() {
    let folder = scratch("unit");
    let unit = text("scripts/systemd/ringstore.service");
    let start = values(&unit, "ExecStart").remove(0);
    let words: Vec<&str> = start.split(' ').collect();
    assert_eq!(words[..2], ["/usr/bin/ringstore", "--config"]);
    // Verified with the program where it is, for it is looked for.
    let unit = unit.replace(words[0], program().to_str().unwrap());
    fs::write(folder.join("ringstore.service"), unit).unwrap();
    let verify =
        Command::new("systemd-analyze").args(["--man=no", "verify"]).arg(folder.join("ringstore.service")).output();
    match verify {
        Ok(output) => {
            let words = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(output.status.success() && !words.contains("ringstore.service:"), "{words}");
        }
        Err(error) => eprintln!("skipped: systemd-analyze: {error}"),
    }
    fs::remove_dir_all(folder).unwrap();
}

#[test]
fn the_example_configuration_is_accepted() {
    let example = path("scripts/eventstore.conf.example");
    let output = command().args(["--what-if", "--config"]).arg(&example).output().unwrap();
    let words = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && !words.contains("warning"), "{words}");
    // Each plane has its card and its CPUs, and the internal one is closed.
    for option in ["IntDevice", "ExtDevice", "IntCpus", "ExtCpus", "UseInternalSsl", "GossipSeed", "ClusterSize"] {
        let line = words.lines().find(|line| line.split_whitespace().next() == Some(option));
        assert!(line.is_some_and(|line| line.ends_with("(config file)")), "{option}: {line:?}");
    }
    // What is commented out can be used, too: with the secret in the place of the certificates.
    let folder = scratch("example");
    let alternative: String = text("scripts/eventstore.conf.example")
        .lines()
        .filter(|line| !line.starts_with("UseInternalSsl") && !line.starts_with("CertificateAuthorityFile"))
        .map(|line| {
            let is_option = line.strip_prefix("# ").is_some_and(|rest| {
                let name = rest.split(':').next().unwrap_or_default();
                rest.contains(": ") && name.chars().all(char::is_alphanumeric)
            });
            format!("{}\n", if is_option { &line[2..] } else { line })
        })
        .collect();
    for option in ["ClusterSecretFile", "ExtSecureTcpPort", "ExtSecureHttpPort", "DisableInsecureTCP"] {
        assert!(alternative.contains(&format!("\n{option}: ")), "{option} is not in the example");
    }
    fs::write(folder.join("conf"), alternative).unwrap();
    let output = command().args(["--what-if", "--config"]).arg(folder.join("conf")).output().unwrap();
    let words = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && !words.contains("warning"), "{words}");
    fs::remove_dir_all(folder).unwrap();
}

/// The README's code blocks of one language, without the spaces that a list puts before them.
fn blocks(language: &str) -> Vec<String> {
    let (mut found, mut inside): (Vec<String>, Option<bool>) = (Vec::new(), None);
    for line in text("README.md").lines().map(str::trim_end) {
        match (line.trim_start().strip_prefix("```"), inside) {
            (Some(name), None) => {
                inside = Some(name == language);
                found.extend((name == language).then(String::new));
            }
            (Some(_), Some(_)) => inside = None,
            (None, Some(true)) => {
                let block = found.last_mut().expect("one was begun");
                block.push_str(line.strip_prefix("  ").filter(|_| line.starts_with("  ")).unwrap_or(line));
                block.push('\n');
            }
            (None, _) => {}
        }
    }
    found
}

/// The commands of the shell blocks, each in one line and without its comment.
fn commands() -> Vec<String> {
    let joined = blocks("sh").concat().replace("\\\n", " ");
    let lines = joined.lines().map(|line| line.split(" #").next().unwrap_or_default().trim().to_owned());
    lines.filter(|line| !line.is_empty() && !line.starts_with('#')).collect()
}

fn accepted(what: &str, arguments: &[&str]) {
    let output = command().arg("--what-if").args(arguments).output().unwrap();
    let words = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && !words.contains("warning"), "{what}\n{words}");
}

#[test]
fn the_readme_starts_nodes_that_start() {
    let starts: Vec<String> = commands().into_iter().filter(|line| line.starts_with("ringstore --int-ip")).collect();
    assert!(!starts.is_empty(), "the README starts no node by flags");
    for line in starts {
        accepted(&line, &line.split_whitespace().skip(1).collect::<Vec<_>>());
    }
    let folder = scratch("readme");
    let conf = folder.join("conf");
    let (files, plane) = (blocks("yaml"), "IntIp: 10.0.0.1");
    assert!(files.len() >= 4 && files.iter().any(|file| file.contains(plane)), "{files:?}");
    for file in files {
        fs::write(&conf, &file).unwrap();
        accepted(&file, &["--config", conf.to_str().unwrap()]);
    }
    fs::remove_dir_all(folder).unwrap();
}

#[test]
fn what_the_readme_makes_is_what_the_example_configuration_reads() {
    let (commands, folder) = (commands(), scratch("hosts"));
    let begun = |word: &str| commands.iter().filter(move |line| line.starts_with(word)).collect::<Vec<_>>();
    // Certificates: the command works, and each file that is installed has been made.
    let made = begun("target/release/ringstore certificates").into_iter().chain(begun("ringstore certificates"));
    let made: Vec<&String> = made.collect();
    assert_eq!(made.len(), 2, "{made:?}");
    for (index, line) in made.iter().enumerate() {
        let place = folder.join(index.to_string());
        fs::create_dir(&place).unwrap();
        let words = line.split_whitespace().skip(1);
        let output = command().args(words).current_dir(&place).output().unwrap();
        assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
        for name in ["ca.pem", "ca.key", "node1.pem", "node1.key", "node3.key"] {
            assert!(place.join("certificates").join(name).is_file(), "{line} makes no {name}");
        }
    }
    // The key is its user's, and everything is where the options say.
    let installs = begun("install ");
    let options: Vec<String> = blocks("yaml").concat().lines().map(str::to_owned).collect();
    let example = text("scripts/eventstore.conf.example");
    for key in ["CertificateFile", "CertificatePrivateKeyFile", "CertificateAuthorityFile", "ClusterSecretFile"] {
        let named: BTreeSet<&str> = options
            .iter()
            .map(String::as_str)
            .chain(example.lines().map(|line| line.trim_start_matches("# ")))
            .filter_map(|line| line.strip_prefix(key)?.strip_prefix(": "))
            .filter_map(|value| value.split_whitespace().next())
            .collect();
        assert_eq!(named.len(), 1, "{key} has one place: {named:?}");
        let place = named.first().unwrap();
        assert!(commands.iter().any(|line| line.contains(place)), "nothing brings {place} there");
    }
    let keys: Vec<_> = installs.iter().filter(|line| line.ends_with("/etc/eventstore/node.key")).collect();
    assert_eq!(keys.len(), 2, "{installs:?}");
    assert!(keys.iter().all(|line| line.contains("-o ringstore -g ringstore -m 600")), "{keys:?}");
    // The example is made that of each host.
    let edit = commands.iter().find(|line| line.starts_with("sed ")).expect("the example is edited");
    let rights = commands.iter().find(|line| line.starts_with("chmod ")).expect("the node's user may read it");
    // With the umask of a host that is careful.
    let edit = format!("umask 027; {edit} && {rights}").replace("/etc/eventstore/eventstore.conf", "made.conf");
    for n in ["1", "2", "3"] {
        fs::copy(path("scripts/eventstore.conf.example"), folder.join("eventstore.conf.example")).unwrap();
        let shell = Command::new("bash").args(["-c", &edit]).env("n", n).current_dir(&folder).status().unwrap();
        assert!(shell.success(), "{edit}");
        let conf = folder.join("made.conf");
        assert_eq!(fs::metadata(&conf).unwrap().permissions().mode() & 0o777, 0o644, "{edit}");
        let words = fs::read_to_string(&conf).unwrap();
        for expected in [format!("IntIp: 10.1.0.{n}\n"), format!("ExtIp: 192.168.7.{n}\n")] {
            assert!(words.contains(&expected), "{expected} is not in {words}");
        }
        accepted(&edit, &["--config", conf.to_str().unwrap()]);
    }
    fs::remove_dir_all(folder).unwrap();
}

#[test]
fn the_container_takes_what_is_there() {
    let file = text("scripts/container/Containerfile");
    for line in file.lines().filter(|line| line.starts_with("COPY scripts/")) {
        let source = line.split_whitespace().nth(1).unwrap();
        assert!(path(source).is_file(), "{line}");
    }
    for port in [1113, 2113, 1112, 2112] {
        let exposed = file.lines().find_map(|line| line.strip_prefix("EXPOSE ")).unwrap();
        assert!(exposed.split(' ').any(|word| word == port.to_string()), "{port}");
    }
    let user = file.lines().filter_map(|line| line.strip_prefix("USER ")).next_back();
    assert!(user.is_some_and(|user| user != "root"), "{user:?}");
    // Files of the host are given to the user's numbers.
    for words in ["groupadd --gid 1113 ", "useradd --uid 1113 --gid 1113 ", "install -o 1113 -g 1113 -m 600 node1.key "]
    {
        assert!(file.contains(words), "{words}");
    }
    // podman's own format of images has no health check.
    assert!(file.contains("\nHEALTHCHECK ") && file.contains("`--format docker`"));
    // The command asks for the node's health where the example configuration has it.
    let example = text("scripts/eventstore.conf.example");
    let ext_ip = example.lines().find_map(|line| line.strip_prefix("ExtIp: ")).expect("ExtIp");
    assert!(file.contains(&format!("-e RINGSTORE_HEALTH={ext_ip}:2113 ")), "{ext_ip}");
    // The program is built with the toolchain that it asks for.
    let manifest = text("Cargo.toml");
    let version = manifest.lines().find_map(|line| line.strip_prefix("rust-version = ")).unwrap().trim_matches('"');
    assert!(file.contains(&format!("rust:{version}-")), "rust-version is {version}");
}

#[test]
fn keys_that_are_made_here_stay_out_of_images_and_commits() {
    assert!(commands().iter().any(|line| line.contains("ringstore certificates --out certificates ")), "the folder");
    for (file, line) in
        [(".dockerignore", "certificates/"), (".dockerignore", "**/target/"), (".gitignore", "/certificates")]
    {
        assert!(text(file).lines().any(|found| found == line), "{file} has no line {line}");
    }
}

#[test]
fn the_health_check_of_the_container_tells_a_node_that_lives() {
    let folder = scratch("health");
    let mut node = Node::single(&folder, &[]);
    let place = node.ext_http().to_string();
    let is_healthy = || {
        let script = path("scripts/container/health.sh");
        Command::new("bash").arg(script).env("RINGSTORE_HEALTH", &place).output().unwrap().status.success()
    };
    assert!(!is_healthy(), "nobody is there");
    node.start_and_wait().unwrap();
    assert!(is_healthy());
    node.kill();
    assert!(!is_healthy(), "it is gone");
    fs::remove_dir_all(folder).unwrap();
}

#[test]
fn the_seccomp_profile_allows_io_uring_and_nothing_else() {
    let folder = scratch("profile");
    let calls = ["io_uring_setup", "io_uring_enter", "io_uring_register"];
    let given = json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "syscalls": [
            { "names": ["read", "write"], "action": "SCMP_ACT_ALLOW" },
            { "names": ["io_uring_setup", "clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38 },
            { "names": ["io_uring_enter"], "action": "SCMP_ACT_ERRNO" },
        ]
    });
    let file = folder.join("default.json");
    fs::write(&file, given.to_string()).unwrap();
    let output = Command::new("python3").arg(path("scripts/container/seccomp.py")).arg(&file).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let made: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(made["defaultAction"], "SCMP_ACT_ERRNO");
    let rules = made["syscalls"].as_array().unwrap();
    let names = |rule: &Value| -> Vec<String> {
        rule["names"].as_array().unwrap().iter().map(|name| name.as_str().unwrap().to_owned()).collect()
    };
    let shown: Vec<_> = rules.iter().map(|rule| (names(rule), rule["action"].as_str().unwrap())).collect();
    let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    let expected = [
        (owned(&["read", "write"]), "SCMP_ACT_ALLOW"),
        (owned(&["clone3"]), "SCMP_ACT_ERRNO"),
        (owned(&calls), "SCMP_ACT_ALLOW"),
    ];
    assert_eq!(shown, expected);
    fs::write(&file, "{}").unwrap();
    let output = Command::new("python3").arg(path("scripts/container/seccomp.py")).arg(&file).output().unwrap();
    assert!(!output.status.success() && String::from_utf8_lossy(&output.stderr).contains("is no seccomp profile"));
    fs::remove_dir_all(folder).unwrap();
}
