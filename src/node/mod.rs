//! The node: start-up order, threads and what connects them, shutdown.
//!
//! Everything that exists once is made here and handed down: queues between the threads, the index, the published
//! view. The main thread then only waits, for a signal or for a thread that ended.

mod error;
mod keys;
mod logging;
mod mend;
mod numa;
mod service;
mod sockets;
mod store;
mod threads;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::config::Loaded;
use crate::ring;
use crate::transport::LogThreadError;
use crate::types::Guid;

pub use self::error::NodeError;
use self::keys::{Keys, Reloader};
pub use self::logging::{LogGuard, start as start_logging};
use self::sockets::Sockets;
use self::store::Store;
use self::threads::Threads;

/// What the main thread waits for.
#[derive(Debug)]
pub(crate) enum Event {
    /// One more thread serves.
    Serving,
    /// The operator wants the process to stop.
    Signal(i32),
    /// A thread came to its end; before a shutdown that is the end of the node.
    Ended(Result<(), NodeError>),
}

/// Runs a node until it is told to stop (SIGTERM, SIGINT) or cannot go on. SIGHUP makes it read its certificates again.
///
/// # Errors
/// See [`NodeError`].
pub fn run(loaded: &Loaded) -> Result<(), NodeError> {
    tracing::info!("{} starts\n{}", crate::config::version(), loaded.report.trim_end());
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    let (events, inbox) = channel();
    let starting = Arc::new(AtomicBool::new(true));
    let loaded_keys = Arc::new(OnceLock::new());
    watch_signals(events.clone(), Arc::clone(&starting), Arc::clone(&loaded_keys))?;
    raise_limits();
    // Before anything is made or read: a refused io_uring must not be found out after minutes of recovery.
    ring::probe().map_err(LogThreadError::from)?;
    let mut config = loaded.config.clone();
    let keys = Keys::load(&config)?;
    let keys = loaded_keys.get_or_init(|| keys);
    let mut store = Store::open(&config, &keys.plane)?;
    store.check_membership(&config)?;
    let sockets = Sockets::bind(&mut config)?;
    store.found_alone(&config)?;
    starting.store(false, Ordering::SeqCst);
    let mut threads = Threads::start(&config, keys, store, sockets, &events)?;
    wait(&inbox, threads.count())?;
    service::stopping();
    let stopped = threads.stop();
    failed_meanwhile(&inbox)?;
    stopped?;
    tracing::info!("stopped");
    Ok(())
}

/// What threads ended with while they were stopped: a last flush may fail, too, and that must not pass for a clean end.
fn failed_meanwhile(inbox: &Receiver<Event>) -> Result<(), NodeError> {
    inbox
        .try_iter()
        .find_map(|event| if let Event::Ended(Err(error)) = event { Some(error) } else { None })
        .map_or(Ok(()), Err)
}

/// Waits for the reason to stop. An error is one of a thread that cannot go on: then nothing is shut down in order,
/// because nothing can be promised any more. When all of `threads` serve, the service manager is told.
fn wait(inbox: &Receiver<Event>, threads: usize) -> Result<(), NodeError> {
    let mut serving = 0;
    loop {
        match inbox.recv() {
            Ok(Event::Serving) => {
                serving += 1;
                if serving == threads {
                    tracing::info!("serving: all {threads} threads run");
                    service::ready();
                }
            }
            Ok(Event::Signal(signal)) => {
                tracing::info!("{}: stopping", name_of(signal));
                return Ok(());
            }
            Ok(Event::Ended(result)) => return result,
            Err(_) => return Ok(()),
        }
    }
}

/// The second signal does not wait for anything. Nor does the first one while the node is `starting`: reading a long log
/// takes minutes, nothing has been promised to anybody yet, and recovery can be cut off anywhere and begun again.
///
/// SIGHUP has the certificates read again, also while the node starts: one that mends its log needs the others.
fn watch_signals(events: Sender<Event>, starting: Arc<AtomicBool>, keys: Arc<OnceLock<Keys>>) -> Result<(), NodeError> {
    let failed = |error: std::io::Error| NodeError::Thread { thread: "signal", message: error.to_string() };
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP]).map_err(failed)?;
    let watch = move || {
        let (mut is_told, reloader) = (false, Reloader::default());
        for signal in signals.forever() {
            if signal == SIGHUP {
                match keys.get() {
                    Some(keys) => reloader.start(keys),
                    None => tracing::info!("SIGHUP: nothing was read yet"),
                }
                continue;
            }
            if starting.load(Ordering::SeqCst) {
                tracing::info!("{}: stopping, the node had not started yet", name_of(signal));
                leave(0);
            }
            if is_told {
                tracing::warn!("told to stop again: leaving at once");
                leave(128 + signal);
            }
            is_told = true;
            let _ = events.send(Event::Signal(signal));
        }
    };
    thread::Builder::new().name("signals".to_owned()).spawn(watch).map_err(failed)?;
    Ok(())
}

fn name_of(signal: i32) -> &'static str {
    if signal == SIGTERM { "SIGTERM" } else { "SIGINT" }
}

/// Ends the process from a thread that is not the main one; what was just logged gets a moment to be written.
fn leave(status: i32) -> ! {
    thread::sleep(Duration::from_millis(50));
    std::process::exit(status)
}

/// Before anything is opened, or a ring is made.
fn raise_limits() {
    for ring::NotRaised { what, limit, error } in ring::raise_limits() {
        let limit = limit.map_or("unlimited".to_owned(), |limit| limit.to_string());
        tracing::warn!(%error, "the limit of {what} stays at {limit}");
    }
}

/// A seed that nobody outside can guess.
fn random_seed() -> u64 {
    u64::from_le_bytes(Guid::random().0[..8].try_into().expect("eight bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_fails_while_it_is_stopped_is_no_clean_end() {
        let (events, inbox) = channel();
        events.send(Event::Ended(Ok(()))).unwrap();
        events.send(Event::Signal(SIGTERM)).unwrap();
        assert!(failed_meanwhile(&inbox).is_ok());
        events.send(Event::Ended(Ok(()))).unwrap();
        events.send(Event::Ended(Err(NodeError::Thread { thread: "log", message: "no flush".to_owned() }))).unwrap();
        assert_eq!(failed_meanwhile(&inbox).unwrap_err().exit_status(), 6);
    }
}
