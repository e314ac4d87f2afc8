//! What the roles' crates want, made of the configuration; and a role that runs.
//!
//! Owns the conversion of configurations and keys into the settings of
//! `gateway` and `backend`, and the checks that need the machine. Starts
//! drivers, carries no frame. Invariant: a role that was started has bound its
//! listener.

mod backends;
mod gateways;

use std::net::{SocketAddr, ToSocketAddrs as _};
use std::sync::Arc;

use tokio::sync::oneshot;

use crate::admin::RoleView;
use crate::config::{GameConfig, HostPort, RoleConfig};

/// A role that was started.
pub struct Running {
    /// As in `role = "…"`.
    pub name: &'static str,
    /// Where it listens, the port filled in.
    pub address: SocketAddr,
    is_draining: bool,
    /// Tells it to end in order. Calling it again changes nothing.
    drain: Box<dyn FnMut() + Send>,
    /// Takes over what it can of a new configuration, if it can any.
    reload: Option<Box<Reload>>,
    /// Its end, with why if it was not asked for.
    ended: oneshot::Receiver<anyhow::Result<()>>,
}

/// Whether it changed anything.
type Reload = dyn FnMut(&RoleConfig) -> anyhow::Result<bool> + Send;

impl Running {
    /// Lets the role take over what it can of a new configuration, and of the files that
    /// it names. Whether that changed anything.
    ///
    /// # Errors
    /// Something of it can't be used; all is as before.
    pub fn reload(&mut self, role: &RoleConfig) -> anyhow::Result<bool> {
        self.reload
            .as_mut()
            .map_or(Ok(false), |reload| reload(role))
    }

    /// Tells the role to end in order.
    pub fn drain(&mut self) {
        self.is_draining = true;
        (self.drain)();
    }

    /// Waits for its end; to be awaited until it yields, once.
    ///
    /// # Errors
    /// It failed, or ended without having been told to.
    pub async fn ended(&mut self) -> anyhow::Result<()> {
        match (&mut self.ended).await {
            Ok(Ok(())) if !self.is_draining => anyhow::bail!("{}: ended by itself", self.name),
            Ok(result) => result,
            Err(_) => anyhow::bail!("{}: its thread has panicked", self.name),
        }
    }

    /// A started role with its ends of what its threads hold.
    fn new(
        name: &'static str,
        address: SocketAddr,
        drain: impl FnMut() + Send + 'static,
        ended: oneshot::Receiver<anyhow::Result<()>>,
    ) -> Self {
        Self {
            name,
            address,
            is_draining: false,
            drain: Box::new(drain),
            reload: None,
            ended,
        }
    }
}

/// Starts a role on threads of its own. The second half is for the admin port.
///
/// # Errors
/// Why it cannot run here, with what to do about it.
pub fn start(role: &RoleConfig) -> anyhow::Result<(Running, Arc<RoleView>)> {
    let (running, view) = match role {
        RoleConfig::Gateway(config) => gateways::start(config),
        RoleConfig::Center(config) => backends::start_center(config),
        RoleConfig::Game(config) => backends::start_game(config),
    }?;
    Ok((running, Arc::new(view)))
}

/// Starts several games, which show their sum, on threads of their own.
///
/// # Errors
/// As for one role.
pub fn start_games(games: &[GameConfig]) -> anyhow::Result<(Vec<Running>, Arc<RoleView>)> {
    let (running, view) = backends::start_games(games)?;
    Ok((running, Arc::new(view)))
}

/// Looks a configured address up.
fn resolve(key: &str, address: &HostPort) -> anyhow::Result<SocketAddr> {
    let text = address.as_str();
    text.to_socket_addrs()
        .map_err(|error| anyhow::anyhow!("{key}: cannot look {text} up: {error}"))?
        .next()
        .ok_or_else(|| anyhow::anyhow!("{key}: {text} has no address"))
}

/// A number that differs from start to start, so that others tell a restart
/// from a reconnect.
fn boot() -> anyhow::Result<u64> {
    let [a, b, c, d, e, f, g, h, ..] = crate::keys::random32()?;
    Ok(u64::from_le_bytes([a, b, c, d, e, f, g, h]))
}
