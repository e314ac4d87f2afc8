//! `sallyport doctor`: what this machine gives, what that limits, how to fix it.
//!
//! Owns reading limits and judging them. Changes nothing. Invariant: what is
//! reported as a limit names its consequence and a command that lifts it.

use std::fs;

use gateway::engine;
use rustix::process::{Resource, getrlimit};

use crate::Verdict;
use crate::config::SPARE_DESCRIPTORS;
use crate::output::say;

/// Fewer open files than this leave even the ring engine, whose clients cost
/// no descriptor of the process, with too small tables.
const OPEN_FILES_MIN: u64 = 4_096;

/// What rings and their buffers of two shards need to lock on old kernels; also
/// the usual default.
const MEMLOCK_BYTES_MIN: u64 = 8 << 20;

/// A backlog below this drops connects of a herd.
const BACKLOG_MIN: u64 = 1_024;

/// The usual default; QUIC bursts of an uplink fit.
const UDP_BUFFER_BYTES_MIN: u64 = 212_992;

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Finding {
    name: &'static str,
    value: String,
    limit: Option<Limit>,
}

/// What a finding costs.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Limit {
    what: String,
    fix: String,
}

/// Prints every finding; [`Verdict::Wrong`] if anything is in the way.
pub fn run() -> Verdict {
    let findings = examine();
    for finding in &findings {
        let state = if finding.limit.is_some() {
            "limits"
        } else {
            "ok"
        };
        say!("{state:<7} {:<24} {}", finding.name, finding.value);
        if let Some(limit) = &finding.limit {
            say!("        limits: {}", limit.what);
            say!("        fix:    {}", limit.fix);
        }
    }
    let limits = findings
        .iter()
        .filter(|finding| finding.limit.is_some())
        .count();
    if limits == 0 {
        say!("nothing is in the way");
        Verdict::Good
    } else {
        say!("{limits} of {} are in the way", findings.len());
        Verdict::Wrong
    }
}

/// The limit of open files, soft and hard; without a limit, [`u64::MAX`].
pub fn open_files() -> (u64, u64) {
    let limit = getrlimit(Resource::Nofile);
    (
        limit.current.unwrap_or(u64::MAX),
        limit.maximum.unwrap_or(u64::MAX),
    )
}

fn examine() -> Vec<Finding> {
    vec![
        kernel(),
        cores(),
        uring(),
        seccomp(),
        open_files_finding(),
        memlock(),
        sysctl(
            "somaxconn",
            "net.core.somaxconn",
            BACKLOG_MIN,
            "connects at once that wait to be accepted",
        ),
        sysctl(
            "tcp_max_syn_backlog",
            "net.ipv4.tcp_max_syn_backlog",
            BACKLOG_MIN,
            "half-open connects at once",
        ),
        local_ports(),
        sysctl(
            "UDP receive buffer",
            "net.core.rmem_max",
            UDP_BUFFER_BYTES_MIN,
            "bursts on uplinks",
        ),
        sysctl(
            "UDP send buffer",
            "net.core.wmem_max",
            UDP_BUFFER_BYTES_MIN,
            "bursts on uplinks",
        ),
    ]
}

fn good(name: &'static str, value: impl Into<String>) -> Finding {
    Finding {
        name,
        value: value.into(),
        limit: None,
    }
}

fn limited(
    name: &'static str,
    value: impl Into<String>,
    what: impl Into<String>,
    fix: impl Into<String>,
) -> Finding {
    Finding {
        name,
        value: value.into(),
        limit: Some(Limit {
            what: what.into(),
            fix: fix.into(),
        }),
    }
}

fn kernel() -> Finding {
    let name = rustix::system::uname();
    let release = name.release().to_string_lossy().into_owned();
    let mut parts = release.split(|c: char| !c.is_ascii_digit());
    let mut number = || {
        parts
            .next()
            .and_then(|part| part.parse::<u32>().ok())
            .unwrap_or(0)
    };
    // Multishot receive and rings with DEFER_TASKRUN: 6.0 and 6.1.
    if (number(), number()) >= (6, 1) {
        good("kernel", release)
    } else {
        limited(
            "kernel",
            release,
            "the ring engine needs 6.1; epoll takes about half as much CPU again",
            "a kernel from 6.1 on",
        )
    }
}

fn cores() -> Finding {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    if cores > 1 {
        good("cores", cores.to_string())
    } else {
        limited(
            "cores",
            "1",
            "gateway and backends take turns on one core",
            "allow more (taskset, cpuset, the container's cpus)",
        )
    }
}

fn uring() -> Finding {
    match engine::probe() {
        Ok(()) => good("io_uring", "usable"),
        Err(reason) => limited(
            "io_uring",
            reason.to_string(),
            "the gateway runs on epoll: more CPU a frame, and a client costs an open file",
            uring_fix(),
        ),
    }
}

/// How io_uring becomes usable here.
pub fn uring_fix() -> &'static str {
    let disabled = read_number("/proc/sys/kernel/io_uring_disabled").unwrap_or(0);
    if seccomp_mode() == 2 {
        "allow io_uring_setup, io_uring_enter and io_uring_register in the seccomp profile \
         (docker: --security-opt seccomp=PROFILE), or set engine.kind = \"epoll\""
    } else if disabled == 2 {
        "sysctl -w kernel.io_uring_disabled=0, or set engine.kind = \"epoll\""
    } else if disabled == 1 {
        "sysctl -w kernel.io_uring_disabled=0, or run as root or in kernel.io_uring_group"
    } else {
        "a kernel from 6.1 on with CONFIG_IO_URING, or set engine.kind = \"epoll\""
    }
}

fn seccomp_mode() -> u64 {
    status_number("Seccomp:").unwrap_or(0)
}

fn seccomp() -> Finding {
    // Whether the filter forbids what is needed shows in the io_uring probe.
    good(
        "seccomp",
        match seccomp_mode() {
            0 => "off",
            1 => "strict",
            _ => "filter",
        },
    )
}

fn open_files_finding() -> Finding {
    let (soft, hard) = open_files();
    let shown = |limit: u64| {
        if limit == u64::MAX {
            "unlimited".to_owned()
        } else {
            limit.to_string()
        }
    };
    let value = format!("soft {}, hard {}", shown(soft), shown(hard));
    if soft < OPEN_FILES_MIN {
        let clients = soft.saturating_sub(SPARE_DESCRIPTORS);
        return limited(
            "open files",
            value,
            format!("about {clients} clients on epoll, small tables for the ring engine"),
            format!(
                "ulimit -n {}, or LimitNOFILE= in the unit file",
                if hard > soft {
                    shown(hard.min(1 << 20))
                } else {
                    "1048576 as root".to_owned()
                }
            ),
        );
    }
    good("open files", value)
}

fn memlock() -> Finding {
    match getrlimit(Resource::Memlock).current {
        None => good("locked memory", "unlimited"),
        Some(bytes) if bytes >= MEMLOCK_BYTES_MIN => {
            good("locked memory", format!("{bytes} bytes"))
        }
        Some(bytes) => limited(
            "locked memory",
            format!("{bytes} bytes"),
            "the number and size of rings",
            "ulimit -l 8192, or LimitMEMLOCK=8M in the unit file",
        ),
    }
}

fn sysctl(name: &'static str, key: &str, least: u64, what: &str) -> Finding {
    let path = format!("/proc/sys/{}", key.replace('.', "/"));
    match read_number(&path) {
        // Some are not shown in a network namespace; the host's count then.
        None => good(name, "not visible here"),
        Some(value) if value >= least => good(name, value.to_string()),
        Some(value) => limited(
            name,
            value.to_string(),
            what,
            format!("sysctl -w {key}={least}"),
        ),
    }
}

fn local_ports() -> Finding {
    let name = "ip_local_port_range";
    let text = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let mut numbers = text
        .split_whitespace()
        .filter_map(|part| part.parse::<u32>().ok());
    let (Some(low), Some(high)) = (numbers.next(), numbers.next()) else {
        return good(name, "not visible here");
    };
    let value = format!("{low} to {high}");
    let ports = high.saturating_sub(low) + 1;
    if ports >= 20_000 {
        good(name, value)
    } else {
        limited(
            name,
            value,
            format!("a load test from here: {ports} clients from one address"),
            "sysctl -w net.ipv4.ip_local_port_range='10240 65535'",
        )
    }
}

fn read_number(path: &str) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// A number from `/proc/self/status`.
fn status_number(field: &str) -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    status
        .lines()
        .find_map(|line| line.strip_prefix(field)?.trim().parse().ok())
}
