//! What the plots of a run are drawn from: one sample a second, of the clients and of the server.
//!
//! Owns the thinning. Reads no clock and draws nothing. Invariant: at most [`SAMPLES_MAX`]
//! samples, evenly spaced, whatever the length of the run; a peak survives the thinning.

/// Samples that are kept; more than a plot has columns of pixels for. When they are reached,
/// neighbours are joined, and from then on as many seconds make one sample.
pub const SAMPLES_MAX: usize = 600;

/// What one second was like.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sample {
    /// Its end, seconds since the start of the run.
    pub at_seconds: f64,
    /// Clients that were logged in at its end.
    pub clients: u32,
    /// Messages sent, a second.
    pub sent_per_second: f64,
    /// Messages received, a second.
    pub received_per_second: f64,
    /// Latencies, if there were any.
    pub latency: Option<Latency>,
    /// What the admin ports told, if they were read.
    pub server: Option<Reading>,
}

/// Latencies of a second, microseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Latency {
    /// Median; of joined samples the mean of them.
    pub p50_us: f64,
    /// 99th percentile; of joined samples the largest of them.
    pub p99_us: f64,
}

/// One reading of all admin ports.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reading {
    /// When, seconds since the start of the run.
    pub at_seconds: f64,
    /// In the order of the roles' names.
    pub roles: Vec<RoleReading>,
}

/// What one role used. Nothing where its port did not tell.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct RoleReading {
    /// CPU since its start.
    pub cpu_seconds: Option<f64>,
    /// Resident memory.
    pub rss_bytes: Option<u64>,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Timeline {
    /// With how many seconds each is made of.
    samples: Vec<(Sample, u32)>,
    /// Seconds that make one sample.
    stride: u32,
}

impl Default for Timeline {
    fn default() -> Self {
        Self {
            samples: Vec::new(),
            stride: 1,
        }
    }
}

impl Timeline {
    /// Adds a second.
    pub fn push(&mut self, sample: Sample) {
        match self.samples.last_mut() {
            Some((last, seconds)) if *seconds < self.stride => join(last, seconds, sample, 1),
            _ => self.samples.push((sample, 1)),
        }
        let is_full = |(_, seconds): &(Sample, u32)| *seconds == self.stride;
        if self.samples.len() >= SAMPLES_MAX && self.samples.last().is_some_and(is_full) {
            self.thin();
        }
    }

    fn thin(&mut self) {
        let mut joined: Vec<(Sample, u32)> = Vec::with_capacity(self.samples.len() / 2 + 1);
        for (at, (sample, seconds)) in self.samples.drain(..).enumerate() {
            match joined.last_mut() {
                Some((last, sum)) if at % 2 == 1 => join(last, sum, sample, seconds),
                _ => joined.push((sample, seconds)),
            }
        }
        self.samples = joined;
        self.stride = self.stride.saturating_mul(2);
    }

    /// The samples, rising in time.
    pub fn samples(&self) -> impl Iterator<Item = &Sample> {
        self.samples.iter().map(|(sample, _)| sample)
    }
}

/// Makes one of two samples that follow each other.
fn join(first: &mut Sample, seconds: &mut u32, second: Sample, more: u32) {
    let (a, b) = (f64::from(*seconds), f64::from(more));
    let mean = |x: f64, y: f64| (x * a + y * b) / (a + b);
    *first = Sample {
        at_seconds: second.at_seconds,
        clients: second.clients,
        sent_per_second: mean(first.sent_per_second, second.sent_per_second),
        received_per_second: mean(first.received_per_second, second.received_per_second),
        latency: match (first.latency, second.latency) {
            (Some(x), Some(y)) => Some(Latency {
                p50_us: mean(x.p50_us, y.p50_us),
                p99_us: x.p99_us.max(y.p99_us),
            }),
            (x, y) => x.or(y),
        },
        // CPU is counted from the start, so that the later reading has both.
        server: second.server.or_else(|| first.server.take()),
    };
    *seconds += more;
}

#[cfg(test)]
mod tests;
