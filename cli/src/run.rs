//! Roles as processes: from a configuration file to a running driver and back.
//!
use std::io;
use std::net::SocketAddr;

/// The error of a listener that could not be opened, with what to do about it.
pub fn listen_error(
    key: &str,
    address: SocketAddr,
    protocol: &str,
    error: &io::Error,
) -> anyhow::Error {
    let port = address.port();
    let advice = match error.kind() {
        io::ErrorKind::AddrInUse => {
            let family = if protocol == "tcp" { "ltnp" } else { "lunp" };
            format!(
                "the {protocol} port is taken; `ss -{family} 'sport = :{port}'` shows by whom, \
                 or set {key} to another one"
            )
        }
        io::ErrorKind::AddrNotAvailable => {
            format!("this host has no such address (`ip address` lists them); set {key}")
        }
        io::ErrorKind::PermissionDenied => {
            format!("not allowed: ports below 1024 need CAP_NET_BIND_SERVICE; set {key}")
        }
        _ => format!("{error}; set {key}"),
    };
    anyhow::anyhow!("cannot listen on {address}: {advice}")
}
