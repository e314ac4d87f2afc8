//! The clients of `dev --clients`: a load test without end, whose clients walk, in child processes.
//!
//! Owns the thread that supervises them. The clients, their sends and their
//! verification are the load test's. Invariant: no client outlives this
//! process, whichever way it ends.

use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use loadtest::LoadtestArgs;
use loadtest::args::{EngineChoice, LaneName, Scenario, Transport};
use loadtest::supervisor::{Hosting, execute};

use super::files::Files;
use super::status::Latency;

/// Longer than any dev cluster runs, seconds; one year.
const DURATION_SECONDS: f64 = 365.0 * 86_400.0;

/// Running clients.
pub struct Clients {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    p50_us: AtomicU64,
    p99_us: AtomicU64,
}

impl Clients {
    /// Starts `count` clients against the gateway at `target`.
    ///
    /// # Errors
    /// No thread could be made.
    pub fn start(count: u32, target: SocketAddr, files: &Files) -> anyhow::Result<Self> {
        let arguments = LoadtestArgs {
            target: target.to_string(),
            key: files.gateway_key.clone(),
            token_key: files.token_secret.clone(),
            audience: "sallyport".to_owned(),
            clients: count,
            rate: None,
            duration: DURATION_SECONDS,
            scenario: Scenario::Walk,
            transport: Transport::Tcp,
            lane: LaneName::Reliable,
            side_path: false,
            group: None,
            payload: 64,
            visible: None,
            stay: None,
            seed: 1,
            processes: None,
            admin: Vec::new(),
            admin_token_file: None,
            json: None,
            html: None,
            fail_if: Vec::new(),
            engine: EngineChoice::Auto,
            drain: 1.0,
        };
        let shared = Arc::new(Shared::default());
        let theirs = Arc::clone(&shared);
        // This thread has to live as long as the workers: their death signal
        // is tied to the thread that started them (prctl(2), PR_SET_PDEATHSIG).
        thread::Builder::new()
            .name("clients".to_owned())
            .spawn(move || {
                let result = execute(&arguments, Hosting::Processes, &mut |status| {
                    theirs.p50_us.store(status.p50_us, Ordering::Relaxed);
                    theirs.p99_us.store(status.p99_us, Ordering::Relaxed);
                    if theirs.stop.load(Ordering::Relaxed) {
                        ControlFlow::Break(())
                    } else {
                        ControlFlow::Continue(())
                    }
                });
                if theirs.stop.load(Ordering::Relaxed) {
                    return;
                }
                match result {
                    Ok((_, wrong)) => {
                        tracing::error!("the clients have ended: {}", wrong.join("; "));
                    }
                    Err(error) => tracing::error!("the clients have ended: {error}"),
                }
            })?;
        Ok(Self { shared })
    }

    /// As the clients saw it in the last second.
    pub fn latency(&self) -> Latency {
        Latency {
            p50_us: self.shared.p50_us.load(Ordering::Relaxed),
            p99_us: self.shared.p99_us.load(Ordering::Relaxed),
        }
    }

    /// Tells them to log out. What has not by the end of this process is ended
    /// by it.
    pub fn stop(&self) {
        self.shared.stop.store(true, Ordering::Relaxed);
    }
}
