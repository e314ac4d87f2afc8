//! The admin port of a process: `/metrics`, `/healthz`, `/readyz`, `/stats`, `/drain`, a gateway's
//! `/sessions`, `/top`, `/kick` and `/limits`, center's `/bans`, and a game's `/broadcast`.
//!
//! Owns the HTTP server, its thread (`admin`) and who may ask. Knows no
//! counter: each role hands in a [`RoleView`]. What changes
//! something in a role is handed to it (`bans`). Invariants: a connection lives for a bounded time and only so
//! many exist, so that nobody starves a role through this port; without a
//! token it listens on loopback alone (the configuration refuses the rest), and then no web page of
//! this host's browsers gets anywhere.

mod bans;
mod bounded;
mod guard;
pub mod metrics;
mod process;
mod sessions;
#[cfg(test)]
mod tests;

use std::fmt::Write as _;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::middleware;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use backend::center_driver::Desk;
use backend::game::Notices;
use gateway::drive::Operator;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::sync::Notify;

use crate::config::AdminConfig;
pub use guard::Guard;

/// From the answer to who asks for the end to its begin: a process without clients has ended in a
/// millisecond, and the answer has to leave first.
const DRAIN_AFTER: Duration = Duration::from_millis(100);

/// Bytes of what all players are told at once.
const NOTICE_BYTES_MAX: usize = 1_024;

/// Adds a role's own figures to its object in `/stats`.
pub type AddStats = Box<dyn Fn(&mut Map<String, Value>) + Send + Sync>;

/// What a role shows of itself. The functions are called from the admin
/// thread, must not block, and take what they read from atomics.
pub struct RoleView {
    /// As in `role = "…"`.
    pub name: &'static str,
    /// How the names of its threads begin.
    pub thread_prefixes: &'static [&'static str],
    /// Appends its counters in Prometheus' text format.
    pub metrics: Box<dyn Fn(&mut String) + Send + Sync>,
    /// Adds its own figures to `/stats`.
    pub stats: AddStats,
    /// Why it cannot serve, if so.
    pub not_ready: Box<dyn Fn() -> Option<String> + Send + Sync>,
    /// Asks the shards, in a role that holds connections.
    pub operator: Option<Operator>,
    /// Takes bans, in center.
    pub desk: Option<Desk>,
    /// Take what all players are to be told, in games.
    pub notices: Vec<Notices>,
    /// What is known of the limits of networks and accounts, in a gateway.
    pub limits: Option<Box<dyn Fn() -> Value + Send + Sync>>,
}

/// The roles of this process and who may see them.
struct Site {
    roles: Vec<Arc<RoleView>>,
    guard: Guard,
    /// Where the end of the process is asked for.
    drain: Arc<Notify>,
}

/// A bound admin port that does not answer yet.
pub struct AdminPort {
    listener: TcpListener,
    guard: Guard,
}

impl AdminPort {
    /// Binds the port and reads the token, so that a start fails early.
    ///
    /// # Errors
    /// The port is taken, or the token file cannot be used.
    pub fn bind(config: &AdminConfig) -> anyhow::Result<Self> {
        let token = guard::read_token(config)?;
        let listener = TcpListener::bind(config.listen).map_err(|error| {
            crate::run::listen_error("admin.listen", config.listen, "tcp", &error)
        })?;
        listener.set_nonblocking(true)?;
        let guard = Guard::new(token, listener.local_addr()?.ip().is_loopback());
        Ok(Self { listener, guard })
    }

    /// Who may ask, to be changed later.
    pub fn guard(&self) -> Guard {
        self.guard.clone()
    }

    /// Where it listens, the port filled in.
    ///
    /// # Errors
    /// The system does not say.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Answers from now on, until the process ends, which may be asked for through `drain`.
    ///
    /// # Errors
    /// No thread or no reactor could be made.
    pub fn serve(self, roles: Vec<Arc<RoleView>>, drain: Arc<Notify>) -> io::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let site = Arc::new(Site {
            roles,
            guard: self.guard,
            drain,
        });
        let listener = {
            let _inside = runtime.enter();
            bounded::Bounded::new(tokio::net::TcpListener::from_std(self.listener)?)
        };
        thread::Builder::new()
            .name("admin".to_owned())
            .spawn(move || {
                if let Err(error) =
                    runtime.block_on(async { axum::serve(listener, router(site)).await })
                {
                    tracing::error!(%error, "the admin port has stopped");
                }
            })?;
        Ok(())
    }
}

fn router(site: Arc<Site>) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/stats", get(stats))
        .route("/sessions", get(sessions::list))
        .route("/top", get(sessions::top))
        .route("/kick", post(sessions::kick))
        .route("/limits", get(limits))
        .route("/broadcast", post(broadcast))
        .route("/drain", post(drain))
        .route("/bans", get(bans::list))
        .route("/ban", post(bans::ban))
        .route("/unban", post(bans::unban))
        .layer(middleware::from_fn_with_state(
            site.clone(),
            guard::authorize,
        ))
        .with_state(site)
}

async fn healthz() -> &'static str {
    "ok\n"
}

async fn readyz(State(site): State<Arc<Site>>) -> Response {
    let mut reasons = String::new();
    for role in &site.roles {
        if let Some(reason) = (role.not_ready)() {
            let _ = writeln!(reasons, "{}: {reason}", role.name);
        }
    }
    if reasons.is_empty() {
        "ready\n".into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, reasons).into_response()
    }
}

async fn metrics(State(site): State<Arc<Site>>) -> Response {
    let mut text = String::new();
    let memory = process::rss_bytes().unwrap_or(0);
    let _ = write!(
        text,
        "# HELP sallyport_process_resident_memory_bytes Memory of the process in RAM.\n\
         # TYPE sallyport_process_resident_memory_bytes gauge\n\
         sallyport_process_resident_memory_bytes {memory}\n\
         # HELP sallyport_process_open_files Open descriptors of the process.\n\
         # TYPE sallyport_process_open_files gauge\n\
         sallyport_process_open_files {}\n\
         # HELP sallyport_process_cpu_seconds_total CPU time of a role's threads.\n\
         # TYPE sallyport_process_cpu_seconds_total counter\n",
        process::open_files().unwrap_or(0)
    );
    for role in &site.roles {
        let seconds = site.cpu_seconds(role);
        let _ = writeln!(
            text,
            "sallyport_process_cpu_seconds_total{{role=\"{}\"}} {seconds}",
            role.name
        );
    }
    for role in &site.roles {
        (role.metrics)(&mut text);
    }
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response()
}

async fn stats(State(site): State<Arc<Site>>) -> axum::Json<Value> {
    let memory = process::rss_bytes();
    let mut roles = Map::new();
    for role in &site.roles {
        let mut own = Map::new();
        own.insert("cpu_seconds".to_owned(), json!(site.cpu_seconds(role)));
        own.insert("rss_bytes".to_owned(), json!(memory));
        (role.stats)(&mut own);
        roles.insert(role.name.to_owned(), Value::Object(own));
    }
    axum::Json(json!({ "roles": roles }))
}

/// Asks the process to end in order, as SIGTERM does.
async fn drain(State(site): State<Arc<Site>>) -> axum::Json<Value> {
    tracing::info!("an operator asks for the end");
    let drain = Arc::clone(&site.drain);
    tokio::spawn(async move {
        tokio::time::sleep(DRAIN_AFTER).await;
        drain.notify_one();
    });
    axum::Json(json!({}))
}

async fn limits(State(site): State<Arc<Site>>) -> Response {
    match site.roles.iter().find_map(|role| role.limits.as_ref()) {
        Some(limits) => axum::Json(limits()).into_response(),
        None => {
            let why = "no gateway runs in this process: ask the gateways\n";
            (StatusCode::NOT_FOUND, why).into_response()
        }
    }
}

/// What all players are to be told.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Broadcast {
    text: String,
}

async fn broadcast(
    State(site): State<Arc<Site>>,
    axum::Json(broadcast): axum::Json<Broadcast>,
) -> Response {
    let bytes = broadcast.text.len();
    if bytes == 0 || bytes > NOTICE_BYTES_MAX {
        let why = format!("text: 1 to {NOTICE_BYTES_MAX} bytes\n");
        return (StatusCode::BAD_REQUEST, why).into_response();
    }
    let games: Vec<&Notices> = site.roles.iter().flat_map(|role| &role.notices).collect();
    if games.is_empty() {
        let why = "no game runs in this process: ask the games\n";
        return (StatusCode::NOT_FOUND, why).into_response();
    }
    let mut sessions = 0;
    for game in games {
        match game.tell(&broadcast.text).await {
            Ok(told) => sessions += told,
            Err(error) => {
                return (StatusCode::SERVICE_UNAVAILABLE, format!("{error}\n")).into_response();
            }
        }
    }
    axum::Json(json!({ "sessions": sessions })).into_response()
}

impl Site {
    /// A role alone has all of the process, threads that the kernel runs for
    /// its ring included; roles that share one have their threads.
    fn cpu_seconds(&self, role: &RoleView) -> f64 {
        if self.roles.len() == 1 {
            process::cpu_seconds().unwrap_or(0.0)
        } else {
            process::thread_cpu_seconds(role.thread_prefixes).unwrap_or(0.0)
        }
    }
}
