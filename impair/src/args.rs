//! The arguments of `sallyport impair`, and their translation into settings.

use std::net::{SocketAddr, ToSocketAddrs as _};
use std::time::Duration;

use clap::{Args, ValueEnum};

use crate::path::{CERTAIN, Conditions};
use crate::{Events, Settings};

/// Arguments of `sallyport impair`. Times are one way: a round trip pays them twice.
#[derive(Clone, Debug, Args)]
pub struct ImpairArgs {
    /// Where to forward to
    #[arg(value_name = "TARGET")]
    pub target: String,
    /// Where to listen; port 0 takes one that is free
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:0")]
    pub listen: SocketAddr,
    /// What to forward
    #[arg(long, value_enum, default_value_t = Protocol::Both)]
    pub protocol: Protocol,
    /// Delay of each direction
    #[arg(long, value_name = "MS", default_value_t = 0.0, value_parser = at_most::<60_000>)]
    pub delay_ms: f64,
    /// The delay varies by as much to both sides
    #[arg(long, value_name = "MS", default_value_t = 0.0, value_parser = at_most::<60_000>)]
    pub jitter_ms: f64,
    /// Datagrams that are lost; on TCP, segments that arrive only after a retransmission
    #[arg(long, value_name = "PERCENT", default_value_t = 0.0, value_parser = at_most::<100>)]
    pub loss: f64,
    /// Datagrams that are held back, so that later ones overtake them
    #[arg(long, value_name = "PERCENT", default_value_t = 0.0, value_parser = at_most::<100>)]
    pub reorder: f64,
    /// Datagrams that arrive twice
    #[arg(long, value_name = "PERCENT", default_value_t = 0.0, value_parser = at_most::<100>)]
    pub duplicate: f64,
    /// Bytes a second that each direction of a flow can carry; 0 for any number
    #[arg(long, value_name = "BYTES_PER_SECOND", default_value_t = 0)]
    pub rate: u64,
    /// Cut each flow after so long, spread from half of it to one and a half
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub cut_every: Option<Duration>,
    /// Let a flow be silent for so long before it is cut, as when a phone loses its network
    #[arg(long, value_name = "SECONDS", requires = "cut_every", value_parser = seconds)]
    pub cut_silent: Option<Duration>,
    /// Send the datagrams of a flow from another port every so long, as a phone does that changes
    /// its network
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub rebind_every: Option<Duration>,
    /// TCP connections and UDP flows at once, of each
    #[arg(long, value_name = "N", default_value_t = 8_000)]
    pub flows: usize,
    /// Equal seeds draw equal fates
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
    /// End by itself after so long
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub duration: Option<Duration>,
}

/// What is forwarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Protocol {
    /// TCP and UDP on the same port
    Both,
    /// TCP only
    Tcp,
    /// UDP only
    Udp,
}

/// A number from 0 to `MAX`.
fn at_most<const MAX: u32>(text: &str) -> Result<f64, String> {
    let number: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    match (0.0..=f64::from(MAX)).contains(&number) {
        true => Ok(number),
        false => Err(format!("must be from 0 to {MAX}")),
    }
}

/// A time of up to a day.
fn seconds(text: &str) -> Result<Duration, String> {
    at_most::<86_400>(text).map(Duration::from_secs_f64)
}

impl ImpairArgs {
    /// The settings of a proxy.
    ///
    /// # Errors
    /// The target is no address; says what to write instead.
    pub fn settings(&self) -> Result<Settings, String> {
        let target = self
            .target
            .to_socket_addrs()
            .ok()
            .and_then(|mut addresses| addresses.next())
            .ok_or_else(|| {
                format!(
                    "TARGET {} is no address: write HOST:PORT, such as 127.0.0.1:7000",
                    self.target
                )
            })?;
        let micros = |ms: f64| (ms * 1_000.0) as u64;
        let millionths = |percent: f64| (percent / 100.0 * f64::from(CERTAIN)) as u32;
        Ok(Settings {
            listen: self.listen,
            target,
            tcp: self.protocol != Protocol::Udp,
            udp: self.protocol != Protocol::Tcp,
            conditions: Conditions {
                delay_us: micros(self.delay_ms),
                jitter_us: micros(self.jitter_ms),
                loss: millionths(self.loss),
                reorder: millionths(self.reorder),
                duplicate: millionths(self.duplicate),
                bytes_per_second: self.rate,
            },
            events: Events {
                cut_every: self.cut_every,
                cut_silent: self.cut_silent.unwrap_or_default(),
                rebind_every: self.rebind_every,
            },
            flows_max: self.flows,
            seed: self.seed,
        })
    }
}
