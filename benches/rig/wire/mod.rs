//! What the rig's mock engine and its load generator share: readiness with an exact timer, HTTP/1.1 as far as the two
//! need it, and the words by which a prompt says what the engine is to do.
//!
//! Both run on one thread and share one core, so they have to cost much less than what stands between them.

pub mod clock;
pub mod message;
#[cfg(target_os = "linux")]
pub mod poller;
pub mod script;

use std::io;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Lets this process open as many files as its hard limit allows: each stream needs one.
///
/// # Errors
/// What the system says.
pub fn raise_file_limit() -> io::Result<()> {
    let maximum = getrlimit(Resource::Nofile).maximum;
    Ok(setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })?)
}
