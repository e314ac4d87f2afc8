//! What a client is told before it connects. Checked once, by [`Config::check`].

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use protocol::client::comeback::ATTEMPTS_MAX;
use protocol::limits::LABEL_BYTES_MAX;

use crate::Error;

/// What carries the frames.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Transport {
    /// A stream. Right where nothing speaks against it.
    #[default]
    Tcp,
    /// Datagrams: a lost one holds nobody else up.
    Udp,
    /// WebSocket without TLS (`ws://`), through proxies that let nothing else pass. Frames are
    /// sealed in any case.
    WebSocket,
}

/// Where to connect, and as what.
#[derive(Clone, Debug)]
pub struct Config {
    /// Gateways as `host:port`, the best first. The client stays with one while it is let in,
    /// and goes on to the next after a failure.
    pub gateways: Vec<String>,
    /// The public key that they have, and prove to have.
    pub gateway_key: [u8; 32],
    /// What carries the frames.
    pub transport: Transport,
    /// Beside TCP and WebSocket: whether messages of the unreliable lanes take datagrams to the same
    /// port while these get through, so that a lost segment holds none of them up. On unless the
    /// game turns it off; where UDP is blocked all goes over the connection, and nothing is to be
    /// done. It costs the gateway 1 KiB and each login five datagrams at most where nobody answers:
    /// a game that uses the reliable lane only turns it off.
    pub side_path: bool,
    /// Version of the game client, the game's own.
    pub client_version: u32,
    /// Distribution channel, such as the name of a store; at most 64 bytes.
    pub channel: String,
    /// Device, for blacklists; at most 64 bytes.
    pub device: String,
    /// Attempts to come back before the client gives up; those until the first login are 5.
    pub attempts_max: u32,
}

impl Config {
    /// One gateway, over TCP. The key is text as `sallyport keygen gateway` prints it.
    ///
    /// # Errors
    /// `Config`: the key is not 32 bytes of base64url.
    pub fn new(gateway: impl Into<String>, gateway_key: &str) -> Result<Self, Error> {
        let bytes = URL_SAFE_NO_PAD.decode(gateway_key.trim()).ok();
        let gateway_key = bytes
            .and_then(|bytes| bytes.try_into().ok())
            .ok_or(Error::Config(
                "the gateway's key is not 32 bytes of base64url",
            ))?;
        Ok(Self {
            gateways: vec![gateway.into()],
            gateway_key,
            transport: Transport::default(),
            side_path: true,
            client_version: 0,
            channel: String::new(),
            device: String::new(),
            attempts_max: ATTEMPTS_MAX,
        })
    }

    pub(crate) fn check(&self) -> Result<(), Error> {
        if self.gateways.is_empty() {
            return Err(Error::Config("there is no gateway to connect to"));
        }
        if self.channel.len() > LABEL_BYTES_MAX || self.device.len() > LABEL_BYTES_MAX {
            return Err(Error::Config("channel and device have at most 64 bytes"));
        }
        Ok(())
    }
}
