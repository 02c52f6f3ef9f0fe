//! The server: options, logging, then [`ringstore::node::run`] until it is told to stop. With a command's name as its
//! first argument it is that command instead ([`ringstore::operator`]).

use std::fs;
use std::process::ExitCode;

use ringstore::config::{self, Outcome};
use ringstore::{node, operator};

/// Options that cannot be used.
const EXIT_OPTIONS: u8 = 1;

fn main() -> ExitCode {
    if operator::is_command(std::env::args_os().nth(1).as_ref()) {
        return ExitCode::from(operator::run(std::env::args_os().skip(1)));
    }
    let outcome = config::load(std::env::args_os().skip(1), std::env::vars_os(), |path| fs::read_to_string(path));
    match outcome {
        Ok(Outcome::Help(text)) => {
            println!("{}\n\n{}", text.trim_end(), operator::COMMANDS_HELP.trim_end());
            ExitCode::SUCCESS
        }
        Ok(Outcome::Version(text)) => {
            print!("{text}");
            if !text.ends_with('\n') {
                println!();
            }
            ExitCode::SUCCESS
        }
        Ok(Outcome::Run(loaded)) => start(&loaded),
        Err(error) => {
            eprintln!("ringstore: {:#}", anyhow::Error::new(error));
            ExitCode::from(EXIT_OPTIONS)
        }
    }
}

fn start(loaded: &config::Loaded) -> ExitCode {
    if loaded.what_if {
        print!("{}", loaded.report);
        loaded.warnings.iter().for_each(|warning| println!("warning: {warning}"));
        println!("WhatIf: nothing was started");
        return ExitCode::SUCCESS;
    }
    let guard = node::start_logging(loaded.config.log.as_deref());
    let result = node::run(loaded);
    let code = match &result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(status = error.exit_status(), "{error:#}");
            ExitCode::from(error.exit_status())
        }
    };
    drop(guard);
    code
}
