//! The admin port of a process: `/metrics`, `/healthz`, `/readyz`, `/stats`, a gateway's
//! `/sessions`, and center's `/bans`.
//!
//! Owns the HTTP server, its thread (`admin`) and who may ask. Knows no
//! counter: each role hands in a [`RoleView`]. What changes
//! something in a role is handed to it (`bans`). Invariants: a connection lives for a bounded time and only so
//! many exist, so that nobody starves a role through this port; without a
//! token it listens on loopback alone (the configuration refuses the rest).

mod bans;
mod bounded;
pub mod metrics;
mod process;
pub mod sessions;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, PoisonError, RwLock};
use std::thread;

use axum::Router;
use axum::extract::{Query, Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use backend::center_driver::Desk;
use gateway::drive::Operator;
use serde_json::{Map, Value, json};

use crate::config::AdminConfig;
use crate::keys;

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
}

/// The roles of this process and who may see them.
struct Site {
    roles: Vec<Arc<RoleView>>,
    guard: Guard,
}

/// Who may ask: who gives the token, or everybody where there is none.
#[derive(Clone)]
pub struct Guard {
    bearer: Arc<RwLock<Option<String>>>,
    is_loopback: bool,
}

/// A token that has been read and is not in force.
pub struct NewToken(Option<String>);

impl Guard {
    /// Reads the token of a new configuration.
    ///
    /// # Errors
    /// Its file cannot be used, or there is none and others than this host can reach the port.
    pub fn read(&self, config: &AdminConfig) -> anyhow::Result<NewToken> {
        let token = read_token(config)?;
        anyhow::ensure!(
            token.is_some() || self.is_loopback,
            "the admin port of this process can be reached from other hosts: keep \
             admin.token_file, or restart it"
        );
        Ok(NewToken(token))
    }

    /// Lets who gives this token in from now on; whether it is another one.
    pub fn take(&self, new: NewToken) -> bool {
        let mut bearer = self.bearer.write().unwrap_or_else(PoisonError::into_inner);
        let changed = *bearer != new.0;
        *bearer = new.0;
        changed
    }

    fn lets_in(&self, given: &str) -> bool {
        let bearer = self.bearer.read().unwrap_or_else(PoisonError::into_inner);
        let bearer = bearer.as_deref();
        bearer.is_none_or(|bearer| equal(given.as_bytes(), bearer.as_bytes()))
    }
}

fn read_token(config: &AdminConfig) -> anyhow::Result<Option<String>> {
    Ok(match (&config.token, &config.token_file) {
        (Some(token), _) => Some(token.clone()),
        (None, Some(path)) => Some(keys::read_admin_token(path)?),
        (None, None) => None,
    })
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
        let bearer = read_token(config)?;
        let listener = TcpListener::bind(config.listen).map_err(|error| {
            crate::run::listen_error("admin.listen", config.listen, "tcp", &error)
        })?;
        listener.set_nonblocking(true)?;
        let guard = Guard {
            bearer: Arc::new(RwLock::new(bearer)),
            is_loopback: listener.local_addr()?.ip().is_loopback(),
        };
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

    /// Answers from now on, until the process ends.
    ///
    /// # Errors
    /// No thread or no reactor could be made.
    pub fn serve(self, roles: Vec<Arc<RoleView>>) -> io::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let site = Arc::new(Site {
            roles,
            guard: self.guard,
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
        .route("/sessions", get(sessions))
        .route("/bans", get(bans::list))
        .route("/ban", post(bans::ban))
        .route("/unban", post(bans::unban))
        .layer(middleware::from_fn_with_state(site.clone(), authorize))
        .with_state(site)
}

async fn authorize(State(site): State<Arc<Site>>, request: Request, next: Next) -> Response {
    let given = request
        .headers()
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.strip_prefix("Bearer "));
    if !site.guard.lets_in(given.unwrap_or_default()) {
        let ask = [(header::WWW_AUTHENTICATE, "Bearer")];
        let why = "give the token of admin.token_file\n";
        return (StatusCode::UNAUTHORIZED, ask, why).into_response();
    }
    next.run(request).await
}

/// Compares without telling by its duration how much was right.
fn equal(given: &[u8], expected: &[u8]) -> bool {
    let different = given
        .iter()
        .zip(expected)
        .fold(0, |sum, (a, b)| sum | (a ^ b));
    given.len() == expected.len() && std::hint::black_box(different) == 0
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

async fn sessions(
    State(site): State<Arc<Site>>,
    Query(wanted): Query<BTreeMap<String, String>>,
) -> Response {
    let Some(operator) = site.roles.iter().find_map(|role| role.operator.as_ref()) else {
        let why = "no gateway runs in this process: ask the gateways\n";
        return (StatusCode::NOT_FOUND, why).into_response();
    };
    let Some(account) = wanted.get("account") else {
        let why = "say whose: /sessions?account=NAME\n";
        return (StatusCode::BAD_REQUEST, why).into_response();
    };
    match operator.find(account).await {
        Ok(found) => {
            let found: Vec<Value> = found.iter().map(sessions::json).collect();
            axum::Json(json!({ "sessions": found })).into_response()
        }
        Err(busy) => (StatusCode::SERVICE_UNAVAILABLE, format!("{busy}\n")).into_response(),
    }
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
