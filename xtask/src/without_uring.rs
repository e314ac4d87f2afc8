//! Runs a command under a seccomp filter that forbids io_uring, as container
//! runtimes do by default, so that the same tests show the other engine.
//!
//! The filter can't be taken off again; it goes on right before the command
//! takes this process over, and its children inherit it.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use anyhow::Context;
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};

/// Set for the command, so that a test can tell a missing ring from a broken one.
const VARIABLE: &str = "SALLYPORT_TEST_WITHOUT_URING";

/// Becomes the command; comes back only if that fails.
pub fn run(command: &[OsString]) -> anyhow::Result<ExitCode> {
    let (program, arguments) = command.split_first().context("no command is given")?;
    let filter = filter()?;
    seccompiler::apply_filter(&filter).context("installing the seccomp filter")?;
    let error = Command::new(program)
        .args(arguments)
        .env(VARIABLE, "1")
        .exec();
    Err(error).with_context(|| format!("running {}", program.display()))
}

fn filter() -> anyhow::Result<BpfProgram> {
    let calls = [
        libc::SYS_io_uring_setup,
        libc::SYS_io_uring_enter,
        libc::SYS_io_uring_register,
    ];
    let filter = SeccompFilter::new(
        calls
            .map(|call| (call, Vec::new()))
            .into_iter()
            .collect::<BTreeMap<_, _>>(),
        SeccompAction::Allow,
        SeccompAction::Errno(libc::EPERM as u32),
        std::env::consts::ARCH
            .try_into()
            .context("seccomp filters do not know this architecture")?,
    )?;
    Ok(filter.try_into()?)
}

/// `available`, or the error of setting up a ring.
pub fn probe() -> String {
    match io_uring::IoUring::new(1) {
        Ok(_) => "available".to_owned(),
        Err(error) => error.to_string(),
    }
}
