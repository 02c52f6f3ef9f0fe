//! What the program as a whole does.

use crate::config::table::{Group, Kind, OptionSpec, Support};

pub(super) const OPTIONS: &[OptionSpec] = &[
    OptionSpec {
        name: "Help",
        kind: Kind::Switch,
        default: "false",
        example: "true",
        group: Group::Application,
        help: "Print this text and exit.",
        is_secret: false,
        support: Support::Present,
    },
    OptionSpec {
        name: "Version",
        kind: Kind::Switch,
        default: "false",
        example: "true",
        group: Group::Application,
        help: "Print the version and exit.",
        is_secret: false,
        support: Support::Present,
    },
    OptionSpec {
        name: "WhatIf",
        kind: Kind::Switch,
        default: "false",
        example: "true",
        group: Group::Application,
        help: "Check the options, print all of them with their sources, and exit without starting anything.",
        is_secret: false,
        support: Support::Present,
    },
    OptionSpec {
        name: "Config",
        kind: Kind::Path,
        default: "",
        example: "/etc/eventstore/eventstore.conf",
        group: Group::Application,
        help: "YAML file with options. When none is named, /etc/eventstore/eventstore.conf is read if it exists.",
        is_secret: false,
        support: Support::Present,
    },
    OptionSpec {
        name: "Log",
        kind: Kind::Path,
        default: "/var/log/ringstore",
        example: "./log",
        group: Group::Application,
        help: "Directory for log files; an empty value logs to the console only.",
        is_secret: false,
        support: Support::Present,
    },
];
