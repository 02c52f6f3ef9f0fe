//! The configuration file: one flat YAML mapping of option names to scalars or lists.

use std::path::{Path, PathBuf};

use serde_yaml_ng::{Mapping, Value};

use crate::config::error::ConfigError;
use crate::config::raw::{RawOptions, Source};
use crate::config::suggest::nearest;
use crate::config::table::{self, Kind, OptionSpec};

/// Takes in the text of the file at `path`.
pub(super) fn collect(path: &Path, text: &str, raw: &mut RawOptions) -> Result<(), ConfigError> {
    for (key, value) in mapping(path, text)? {
        let Value::String(key) = key else {
            let expected = "the name of an option";
            return Err(shape(path, "a key".into(), kind_of(&key), expected));
        };
        let has_rules = table::find(&key).is_some_and(|spec| spec.kind == Kind::AddressRules);
        if matches!(value, Value::Mapping(_)) && !has_rules {
            // Plug-ins of v5 have their sections here.
            raw.warnings.push(format!("the section {key} in {} is ignored: options have no sections", path.display()));
            continue;
        }
        let spec = table::find(&key).ok_or_else(|| unknown_key(&key))?;
        let value = if has_rules { rules(path, &key, value)? } else { value };
        let Some(text) = scalar_or_list(path, &key, value)? else { continue };
        if spec.name == "Config" {
            raw.warnings.push(format!("Config in {} has no effect: the file is read already", path.display()));
            continue;
        }
        raw.offer(spec, text, Source::ConfigFile)?;
    }
    Ok(())
}

fn mapping(path: &Path, text: &str) -> Result<Mapping, ConfigError> {
    let parsed = serde_yaml_ng::from_str(text);
    match parsed.map_err(|cause| ConfigError::FileNotYaml { path: path.to_owned(), cause })? {
        Value::Mapping(mapping) => Ok(mapping),
        // An empty file, or one with comments only.
        Value::Null => Ok(Mapping::new()),
        other => Err(shape(path, "the top level".into(), kind_of(&other), "a mapping of option names to values")),
    }
}

/// Rules written as mappings, `{ for: NETWORK, address: ADDRESS }`, in the form that other sources have too.
fn rules(path: &Path, key: &str, value: Value) -> Result<Value, ConfigError> {
    let rule = |item: Value| match item {
        Value::Mapping(mapping) => rule(path, key, mapping),
        other => Ok(other),
    };
    match value {
        Value::Sequence(items) => Ok(Value::Sequence(items.into_iter().map(rule).collect::<Result<_, _>>()?)),
        other => rule(other),
    }
}

fn rule(path: &Path, key: &str, mapping: Mapping) -> Result<Value, ConfigError> {
    let (mut network, mut address) = (None, None);
    for (part, value) in mapping {
        let slot = match part.as_str().map(str::to_ascii_lowercase).as_deref() {
            Some("for") => &mut network,
            Some("address") => &mut address,
            _ => return Err(not_a_rule(path, key)),
        };
        *slot = scalar(path, key, value)?;
    }
    let (Some(network), Some(address)) = (network, address) else { return Err(not_a_rule(path, key)) };
    Ok(Value::String(format!("{network}={address}")))
}

fn not_a_rule(path: &Path, key: &str) -> ConfigError {
    let expected = "a mapping with for and address, as { for: 10.1.0.0/16, address: 10.1.0.5 }";
    shape(path, format!("a rule of {key}"), "another mapping", expected)
}

/// The text of a value; none for `Name:` with nothing behind it, which counts as not set.
fn scalar_or_list(path: &Path, key: &str, value: Value) -> Result<Option<String>, ConfigError> {
    let Value::Sequence(items) = value else {
        return scalar(path, key, value);
    };
    let items = items.into_iter().map(|item| scalar(path, key, item)).collect::<Result<Vec<_>, _>>()?;
    Ok(Some(items.into_iter().flatten().collect::<Vec<_>>().join(",")))
}

fn scalar(path: &Path, key: &str, value: Value) -> Result<Option<String>, ConfigError> {
    match value {
        Value::Null => Ok(None),
        Value::Bool(value) => Ok(Some(value.to_string())),
        Value::Number(value) => Ok(Some(value.to_string())),
        Value::String(value) => Ok(Some(value)),
        other => {
            Err(shape(path, format!("the value of {key}"), kind_of(&other), "a text, a number, or a list of them"))
        }
    }
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "empty",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Sequence(_) => "a list",
        Value::Mapping(_) => "a mapping",
        Value::Tagged(_) => "a tagged value",
    }
}

fn shape(path: &Path, place: String, found: &'static str, expected: &'static str) -> ConfigError {
    ConfigError::FileShape { path: PathBuf::from(path), place, found, expected }
}

fn unknown_key(key: &str) -> ConfigError {
    let nearest = nearest(&table::folded(key), table::all().map(|spec| table::folded(spec.name)));
    ConfigError::UnknownOption {
        spelling: key.to_owned(),
        origin: Source::ConfigFile,
        nearest: nearest.and_then(|name| table::find(&name)).map(|spec: &OptionSpec| spec.name.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn collected(text: &str) -> Result<RawOptions, ConfigError> {
        let mut raw = RawOptions::default();
        collect(Path::new("/x.conf"), text, &mut raw)?;
        Ok(raw)
    }

    #[test]
    fn forms_of_keys_and_values() {
        let check = |text: &str, name: &str, expected: &str| {
            let raw = collected(text).unwrap();
            assert_eq!((raw.get(name).1, raw.get(name).2), (expected, Source::ConfigFile), "{text}");
        };
        check("IntIp: 10.0.0.1", "IntIp", "10.0.0.1");
        check("intIp: 10.0.0.1", "IntIp", "10.0.0.1");
        check("int-ip: '10.0.0.1'", "IntIp", "10.0.0.1");
        check("---\n# comment\nINTIP: \"10.0.0.1\" # more\n", "IntIp", "10.0.0.1");
        check("IntIp: \"::1\"", "IntIp", "::1");
        check("ClusterSize: 3", "ClusterSize", "3");
        check("NodePriority: -3", "NodePriority", "-3");
        check("WhatIf: yes", "WhatIf", "yes");
        check("WhatIf: True", "WhatIf", "true");
        check("Log: ''", "Log", "");
        check("GossipSeed: 10.0.0.2:2112,10.0.0.3:2112", "GossipSeed", "10.0.0.2:2112,10.0.0.3:2112");
        check("GossipSeed: [10.0.0.2:2112, '10.0.0.3:2112']", "GossipSeed", "10.0.0.2:2112,10.0.0.3:2112");
        check("GossipSeed:\n  - 10.0.0.2:2112\n  - 10.0.0.3:2112\n", "GossipSeed", "10.0.0.2:2112,10.0.0.3:2112");
        check("GossipSeed: []", "GossipSeed", "");
        check("CpuPinning: [log=0, edges=1]", "CpuPinning", "log=0,edges=1");
    }

    #[test]
    fn rules_are_mappings_or_texts() {
        let check = |text: &str, expected: &str| {
            assert_eq!(collected(text).unwrap().get("ExtAdvertise").1, expected, "{text}");
        };
        let both = "10.1.0.0/16=10.1.0.5,10.2.0.0/16=10.2.0.5";
        check("ExtAdvertise: [{ for: 10.1.0.0/16, address: 10.1.0.5 }, { address: 10.2.0.5, for: 10.2.0.0/16 }]", both);
        check("ext-advertise:\n  - for: 10.1.0.0/16\n    address: 10.1.0.5\n  - 10.2.0.0/16=10.2.0.5", both);
        check("ExtAdvertise: 10.1.0.0/16=10.1.0.5,10.2.0.0/16=10.2.0.5", both);
        check("ExtAdvertise: { For: 10.1.0.0/16, Address: 10.1.0.5 }", "10.1.0.0/16=10.1.0.5");
        for text in ["[{ for: 10.1.0.0/16 }]", "[{ for: 10.1.0.0/16, address: 1.2.3.4, port: 5 }]", "[{ 5: x }]", "{}"]
        {
            let message = collected(&format!("ExtAdvertise: {text}")).unwrap_err().to_string();
            let expected =
                "a rule of ExtAdvertise in the configuration file /x.conf is another mapping, but must be a mapping";
            assert!(message.starts_with(expected), "{text}: {message}");
        }
    }

    #[test]
    fn nothing_is_not_set() {
        for text in ["", "# only a comment\n", "---\n", "IntIp:", "IntIp: ~", "{}"] {
            assert_eq!(collected(text).unwrap().get("IntIp").2, Source::Default, "{text}");
        }
    }

    #[test]
    fn sections_and_missing_options_are_warned_of() {
        let raw = collected("LdapsAuth:\n  Host: 1.2.3.4\nRunProjections: All\nClusterSize: 3\nConfig: /y").unwrap();
        assert_eq!(raw.get("ClusterSize").1, "3");
        assert_eq!(
            raw.warnings,
            [
                "the section LdapsAuth in /x.conf is ignored: options have no sections",
                "RunProjections (config file) is an option of v5 that ringstore does not have yet; it is ignored: \
                 no projection runs",
                "Config in /x.conf has no effect: the file is read already",
            ]
        );
    }

    #[test]
    fn mistakes_are_answered_with_the_next_step() {
        let check = |text: &str, expected: &str| {
            let message = format!("{:#}", anyhow::Error::new(collected(text).unwrap_err()));
            assert!(message.contains(expected), "{text}: {message}");
        };
        check("ClusterSise: 3", "ClusterSise (config file) is not an option; did you mean ClusterSize?");
        check("cluster_size: 3", "did you mean ClusterSize?");
        check("Banana: 3", "Banana (config file) is not an option; `ringstore --help`");
        check("IntIp: 1\nint-ip: 2", "IntIp is given twice (config file), as \"1\" and as \"2\"; remove one");
        check("IntIp: 1\nIntIp: 2", "duplicate entry");
        check("- a\n- b", "the top level in the configuration file /x.conf is a list, but must be a mapping");
        check("just text", "the top level in the configuration file /x.conf is a text");
        check("5: x", "a key in the configuration file /x.conf is a number, but must be the name of an option");
        check("GossipSeed: [[a]]", "the value of GossipSeed in the configuration file /x.conf is a list, but must be");
        check("IntIp: !odd x", "is a tagged value");
        check("IntIp: [", "/x.conf is not valid YAML");
        check("IntIp: \t[", "/x.conf is not valid YAML");
    }
}
