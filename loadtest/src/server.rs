//! The server's side of a report: samples of its admin ports through a run.
//! Invariant: a role has the same name in every sample of a run.

use std::collections::BTreeMap;

use crate::admin::{AdminUrl, RoleStats};
use crate::report::ServerFigures;
use crate::timeline::RoleReading;

/// Samples in a row that may fail before a port is left alone: each failure can
/// cost its timeout.
const FAILURES_MAX: u32 = 3;
/// Change of resident memory, part of it, that still counts as rest.
const REST_RSS: f64 = 0.005;
/// CPU, seconds a second, that still counts as rest: heartbeats of the clients.
const REST_CPU: f64 = 0.1;

/// One role of one process.
#[derive(Debug)]
struct Watched {
    /// Name in the report.
    name: String,
    /// Name in the answers of its port.
    role: String,
    /// Index in `ports`.
    port: usize,
    latest: RoleStats,
    figures: ServerFigures,
    cpu_before: Option<f64>,
    cpu_connected: Option<f64>,
    cpu_at_start: Option<f64>,
}

#[derive(Debug)]
struct Port {
    url: AdminUrl,
    failures: u32,
    /// Lost and closed before the run; nothing if nobody asked or its port did not tell.
    losses_before: Option<BTreeMap<String, u64>>,
}

/// A series of losses that rose in a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loss {
    /// As in `/metrics`.
    pub series: String,
    /// By how much.
    pub count: u64,
}

/// See the module.
#[derive(Debug)]
pub struct Server {
    ports: Vec<Port>,
    token: Option<String>,
    watched: Vec<Watched>,
}

impl Server {
    /// Reads every port for the first time.
    ///
    /// # Errors
    /// A port cannot be read; for people.
    pub fn new(urls: &[AdminUrl], token: Option<String>) -> Result<Self, String> {
        let mut server = Self {
            ports: Vec::new(),
            token,
            watched: Vec::new(),
        };
        for (port, url) in urls.iter().enumerate() {
            let stats = url.stats(server.token.as_deref())?;
            for (role, latest) in stats.roles {
                // Of several processes of one role the first keeps its name.
                let name = if server.has_role(&role) {
                    format!("{role}-{}", port + 1)
                } else {
                    role.clone()
                };
                server.watched.push(Watched {
                    name,
                    role,
                    port,
                    figures: ServerFigures {
                        rss_bytes_before: latest.rss_bytes,
                        rss_bytes_peak: latest.rss_bytes,
                        ..ServerFigures::default()
                    },
                    cpu_before: latest.cpu_seconds,
                    latest,
                    cpu_connected: None,
                    cpu_at_start: None,
                });
            }
            server.ports.push(Port {
                url: url.clone(),
                failures: 0,
                losses_before: None,
            });
        }
        Ok(server)
    }

    /// Whether anything is watched.
    pub fn is_watched(&self) -> bool {
        !self.watched.is_empty()
    }

    /// Whether a role has this name in the report.
    pub fn has_role(&self, name: &str) -> bool {
        self.watched.iter().any(|watched| watched.name == name)
    }

    /// The names of the roles, for people.
    pub fn role_names(&self) -> String {
        let names: Vec<&str> = self.watched.iter().map(|w| w.name.as_str()).collect();
        names.join(", ")
    }

    /// The gateway's engine, `unknown` if no port told it.
    pub fn engine(&self) -> String {
        self.watched
            .iter()
            .find_map(|watched| watched.latest.engine.clone())
            .unwrap_or_else(|| String::from("unknown"))
    }

    /// Reads every port again. `seconds` have passed since the last time.
    /// Returns whether the server was at rest meanwhile.
    pub fn sample(&mut self, seconds: f64) -> bool {
        let mut is_at_rest = true;
        for (at, port) in self.ports.iter_mut().enumerate() {
            if port.failures >= FAILURES_MAX {
                continue;
            }
            let Ok(mut stats) = port.url.stats(self.token.as_deref()) else {
                port.failures += 1;
                continue;
            };
            port.failures = 0;
            for watched in self.watched.iter_mut().filter(|w| w.port == at) {
                if let Some(now) = stats.roles.remove(&watched.role) {
                    is_at_rest &= rests(&watched.latest, &now, seconds);
                    let peak = &mut watched.figures.rss_bytes_peak;
                    *peak = peak.map_or(now.rss_bytes, |peak| {
                        Some(now.rss_bytes.map_or(peak, |now| peak.max(now)))
                    });
                    watched.latest = now;
                }
            }
        }
        is_at_rest
    }

    /// The latest reading of each role, in the order of [`Self::processes`].
    pub fn reading(&self) -> Vec<RoleReading> {
        self.watched
            .iter()
            .map(|watched| RoleReading {
                cpu_seconds: watched.latest.cpu_seconds,
                rss_bytes: watched.latest.rss_bytes,
            })
            .collect()
    }

    /// Name of each role with the number of the process that it is in.
    pub fn processes(&self) -> Vec<(String, usize)> {
        self.watched
            .iter()
            .map(|watched| (watched.name.clone(), watched.port))
            .collect()
    }

    /// Notes what was lost and closed before the run.
    pub fn mark_losses(&mut self) {
        for port in &mut self.ports {
            // A port that cannot tell has no less to say of CPU and memory.
            port.losses_before = port.url.losses(self.token.as_deref()).ok();
        }
    }

    /// What the server lost and closed since [`Self::mark_losses`], by series, summed over its
    /// processes; nothing if no port tells.
    pub fn losses(&self) -> Option<Vec<Loss>> {
        let mut sums: Option<BTreeMap<String, u64>> = None;
        for port in &self.ports {
            let Some(before) = &port.losses_before else {
                continue;
            };
            let Ok(now) = port.url.losses(self.token.as_deref()) else {
                continue;
            };
            let sums = sums.get_or_insert_default();
            for (series, value) in now {
                let rose = value.saturating_sub(before.get(&series).copied().unwrap_or(0));
                if rose > 0 {
                    *sums.entry(series).or_default() += rose;
                }
            }
        }
        let losses = sums?.into_iter();
        Some(
            losses
                .map(|(series, count)| Loss { series, count })
                .collect(),
        )
    }

    /// The last client has just come in.
    pub fn mark_connected(&mut self) {
        for watched in &mut self.watched {
            watched.cpu_connected = watched.latest.cpu_seconds;
        }
    }

    /// All clients are in and the first send is about to be made.
    pub fn mark_start(&mut self) {
        for watched in &mut self.watched {
            watched.figures.rss_bytes_idle = watched.latest.rss_bytes;
            watched.cpu_at_start = watched.latest.cpu_seconds;
        }
    }

    /// The last reply is here.
    pub fn mark_end(&mut self) {
        for watched in &mut self.watched {
            watched.figures.cpu_seconds = watched
                .latest
                .cpu_seconds
                .zip(watched.cpu_at_start)
                .map(|(end, start)| end - start);
        }
    }

    /// The figures by role.
    pub fn figures(
        &self,
        clients: u32,
        frames_received: u64,
        resumes: u64,
    ) -> BTreeMap<String, ServerFigures> {
        self.watched
            .iter()
            .map(|watched| {
                let mut figures = watched.figures;
                figures.derive(clients, frames_received, resumes);
                figures.connect_cpu_us_per_client = watched
                    .cpu_connected
                    .zip(watched.cpu_before)
                    .filter(|_| clients > 0)
                    .map(|(after, before)| (after - before) * 1e6 / f64::from(clients));
                (watched.name.clone(), figures)
            })
            .collect()
    }
}

fn rests(before: &RoleStats, now: &RoleStats, seconds: f64) -> bool {
    let cpu = before
        .cpu_seconds
        .zip(now.cpu_seconds)
        .is_none_or(|(before, now)| now - before <= REST_CPU * seconds);
    let memory = before
        .rss_bytes
        .zip(now.rss_bytes)
        .is_none_or(|(before, now)| now.abs_diff(before) as f64 <= REST_RSS * before as f64);
    cpu && memory
}
