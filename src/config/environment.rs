//! The environment: variables whose names begin with `EVENTSTORE_`.
//!
//! Names are compared without regard to case, because users have `EVENTSTORE_Int_IP` in their files. A variable that no
//! option has is a warning and not an error: Kubernetes puts `EVENTSTORE_SERVICE_HOST` and the like into the
//! environment of every container when there is a service of that name.

use std::ffi::{OsStr, OsString};

use crate::config::error::ConfigError;
use crate::config::raw::{RawOptions, Source};
use crate::config::suggest::nearest;
use crate::config::table::{self, ENVIRONMENT_PREFIX, OptionSpec};

/// Takes in the environment.
pub(super) fn collect(mut variables: Vec<(OsString, OsString)>, raw: &mut RawOptions) -> Result<(), ConfigError> {
    // Sorted, because the order of an environment means nothing and ours should not depend on it. Upper case sorts
    // first, so that the official spelling wins over the others.
    variables.sort();
    let mut taken: Vec<(&'static str, &str)> = Vec::new();
    for (name, value) in &variables {
        let Some(name) = name.to_str().filter(|name| has_prefix(name)) else { continue };
        let Some(spec) = table::find_environment(name) else {
            raw.warnings.push(unknown_variable(name));
            continue;
        };
        let value = unicode(name, value, spec)?;
        let Some(value) = resolved(name, value, spec, &variables, raw)? else { continue };
        if let Some((_, first)) = taken.iter().find(|(known, _)| *known == spec.name) {
            raw.warnings.push(format!("{name} is ignored: {first} is set too, and names are compared without case"));
            continue;
        }
        taken.push((spec.name, name));
        raw.offer(spec, value, Source::Environment)?;
    }
    Ok(())
}

fn has_prefix(name: &str) -> bool {
    name.get(..ENVIRONMENT_PREFIX.len()).is_some_and(|prefix| prefix.eq_ignore_ascii_case(ENVIRONMENT_PREFIX))
}

fn unicode<'a>(name: &str, value: &'a OsStr, spec: &OptionSpec) -> Result<&'a str, ConfigError> {
    value.to_str().ok_or_else(|| ConfigError::NotUnicode {
        what: format!("the environment variable {name}"),
        lossy: spec.shown(&value.to_string_lossy()).to_owned(),
    })
}

/// The value, with `${env:OTHER}` replaced; none when it is empty, which counts as not set.
fn resolved(
    name: &str,
    value: &str,
    spec: &OptionSpec,
    variables: &[(OsString, OsString)],
    raw: &mut RawOptions,
) -> Result<Option<String>, ConfigError> {
    let Some(other) = value.strip_prefix("${env:").and_then(|rest| rest.strip_suffix('}')) else {
        return Ok(Some(value.to_owned()).filter(|value| !value.is_empty()));
    };
    // Once only, as in v5: what OTHER holds is taken as it is.
    match variables.iter().find(|(candidate, _)| candidate == other) {
        Some((_, value)) => Ok(Some(unicode(other, value, spec)?.to_owned()).filter(|value| !value.is_empty())),
        None => {
            raw.warnings.push(format!("{name} is ignored: it refers to {other}, which is not set"));
            Ok(None)
        }
    }
}

fn unknown_variable(name: &str) -> String {
    let upper = name.to_ascii_uppercase();
    // Without the prefix, or any two names would look alike.
    let candidates = table::all().map(|spec| spec.environment_name()[ENVIRONMENT_PREFIX.len()..].to_owned());
    let hint = nearest(&upper[ENVIRONMENT_PREFIX.len()..], candidates)
        .and_then(|rest| table::find_environment(&format!("{ENVIRONMENT_PREFIX}{rest}")))
        .map(OptionSpec::environment_name)
        .map_or_else(String::new, |nearest| format!("; did you mean {nearest}?"));
    format!("the environment variable {name} is no option and is ignored{hint}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn collected(variables: &[(&str, &str)]) -> RawOptions {
        let mut raw = RawOptions::default();
        let variables = variables.iter().map(|(name, value)| (OsString::from(name), OsString::from(value))).collect();
        collect(variables, &mut raw).unwrap();
        raw
    }

    #[test]
    fn names_are_compared_without_case() {
        for name in ["EVENTSTORE_INT_IP", "EVENTSTORE_Int_IP", "eventstore_int_ip", "EventStore_Int_Ip"] {
            let raw = collected(&[(name, "10.0.0.1"), ("PATH", "/bin"), ("X_EVENTSTORE_INT_IP", "x")]);
            assert_eq!((raw.get("IntIp").1, raw.get("IntIp").2), ("10.0.0.1", Source::Environment), "{name}");
            assert_eq!(raw.warnings, Vec::<String>::new(), "{name}");
        }
    }

    #[test]
    fn empty_is_not_set() {
        assert_eq!(collected(&[("EVENTSTORE_INT_IP", "")]).get("IntIp").2, Source::Default);
        let raw = collected(&[("EVENTSTORE_INT_IP", ""), ("EVENTSTORE_Int_Ip", "10.0.0.1")]);
        assert_eq!(raw.get("IntIp").1, "10.0.0.1");
        assert!(raw.warnings.is_empty());
    }

    #[test]
    fn a_reference_is_replaced_once() {
        let check = |other: &str, expected: &str, warning_count: usize| {
            let raw = collected(&[("EVENTSTORE_INT_IP", "${env:POD_IP}"), ("POD_IP", other)]);
            assert_eq!(raw.get("IntIp").1, expected);
            assert_eq!(raw.warnings.len(), warning_count);
        };
        check("10.0.0.7", "10.0.0.7", 0);
        check("${env:POD_IP}", "${env:POD_IP}", 0);
        check("", "127.0.0.1", 0);
        let raw = collected(&[("EVENTSTORE_INT_IP", "${env:POD_IP}")]);
        assert_eq!(raw.get("IntIp").2, Source::Default);
        assert_eq!(raw.warnings, ["EVENTSTORE_INT_IP is ignored: it refers to POD_IP, which is not set"]);
    }

    #[test]
    fn the_official_spelling_wins_over_others() {
        let raw = collected(&[("EVENTSTORE_Int_IP", "10.0.0.2"), ("EVENTSTORE_INT_IP", "10.0.0.1")]);
        assert_eq!(raw.get("IntIp").1, "10.0.0.1");
        assert_eq!(raw.warnings.len(), 1);
        assert!(raw.warnings[0].starts_with("EVENTSTORE_Int_IP is ignored"), "{}", raw.warnings[0]);
    }

    #[test]
    fn unknown_variables_are_warned_of() {
        let check = |name: &str, expected: &str| assert_eq!(collected(&[(name, "x")]).warnings, [expected]);
        check(
            "EVENTSTORE_CLUSTERSIZE",
            "the environment variable EVENTSTORE_CLUSTERSIZE is no option and is ignored; \
             did you mean EVENTSTORE_CLUSTER_SIZE?",
        );
        check(
            "EVENTSTORE_SERVICE_HOST",
            "the environment variable EVENTSTORE_SERVICE_HOST is no option and is ignored",
        );
    }

    #[test]
    fn options_of_v5_that_are_missing_are_warned_of() {
        let raw = collected(&[("EVENTSTORE_RUN_PROJECTIONS", "All"), ("EVENTSTORE_CERTIFICATE_PASSWORD", "hush")]);
        assert_eq!(raw.warnings.len(), 2);
        assert!(raw.warnings.iter().all(|warning| warning.contains("does not have yet") && !warning.contains("hush")));
    }

    #[test]
    fn values_that_are_not_unicode_are_refused_only_for_our_variables() {
        use std::os::unix::ffi::OsStringExt;
        let check = |name: &str, is_refused: bool| {
            let variables = vec![(OsString::from(name), OsString::from_vec(vec![0xFF]))];
            assert_eq!(collect(variables, &mut RawOptions::default()).is_err(), is_refused, "{name}");
        };
        check("EVENTSTORE_DB", true);
        check("OTHER", false);
    }
}
