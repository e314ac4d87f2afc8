//! What lies between a socket and the frames of its client, from outside in:
//! the PROXY header of a balancer (`proxy`), who may tell an address (`trust`).
//!
//! Pure: bytes in, bytes out, no socket, no clock. A connection has a front only
//! while it needs one, so a client that speaks frames over plain TCP costs a
//! null pointer.

pub mod proxy;
pub mod trust;

use std::net::SocketAddr;

use protocol::reason::CloseReason;

use proxy::{ProxyHeader, Source};
use trust::Trust;

/// What a listener expects in front of the frames.
#[derive(Clone, Debug, Default)]
pub struct FrontConfig {
    /// Each connection begins with a PROXY header.
    pub proxy_required: bool,
    /// Who is believed what it says about a client's address.
    pub trusted: Trust,
}

/// The layers before the frames of one connection.
#[derive(Debug)]
pub struct Front {
    layer: Layer,
}

#[derive(Debug)]
enum Layer {
    Proxy(ProxyHeader),
}

/// What a front has made of some bytes.
#[derive(Debug)]
pub enum Step {
    /// They were too few.
    Wait,
    /// The front is done: what is left are the client's bytes. The address is
    /// its own, where the balancer told one.
    Done(Option<SocketAddr>),
}

impl Front {
    /// The front of a connection that was accepted from this address; none where
    /// its first byte is the client's own.
    ///
    /// # Errors
    /// Nobody at this address may open a connection here.
    pub fn of_accepted(
        config: &FrontConfig,
        peer: Option<SocketAddr>,
    ) -> Result<Option<Box<Self>>, CloseReason> {
        if !config.proxy_required {
            return Ok(None);
        }
        // Whom the kernel does not name cannot be trusted.
        if !peer.is_some_and(|peer| config.trusted.includes(peer.ip())) {
            return Err(CloseReason::ProxyUntrusted);
        }
        Ok(Some(Box::new(Self {
            layer: Layer::Proxy(ProxyHeader::default()),
        })))
    }

    /// Takes what belongs to it from the front of `data`.
    ///
    /// # Errors
    /// The bytes are not what has to come here.
    pub fn take(&mut self, data: &mut &mut [u8]) -> Result<Step, CloseReason> {
        match &mut self.layer {
            Layer::Proxy(header) => match header.take(data) {
                Ok(Some(Source::Client(address))) => Ok(Step::Done(Some(address))),
                Ok(Some(Source::Balancer)) => Ok(Step::Done(None)),
                Ok(None) => Ok(Step::Wait),
                Err(_) => Err(CloseReason::BadProxyHeader),
            },
        }
    }
}
