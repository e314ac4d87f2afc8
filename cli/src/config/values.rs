//! The validated types that configuration values become.
//!
//! Owns parsing and printing of single values. Does not look names up and does
//! not open files. Invariant: what has been parsed prints as what was written.

use std::str::FromStr;

/// A host name or IP address and a port, looked up only when it is dialled.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HostPort(String);

impl HostPort {
    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for HostPort {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let good = text.rsplit_once(':').is_some_and(|(host, port)| {
            let bare = host
                .strip_prefix('[')
                .and_then(|rest| rest.strip_suffix(']'));
            let host_good = match bare {
                Some(inside) => inside.parse::<std::net::Ipv6Addr>().is_ok(),
                None => {
                    !host.is_empty()
                        && host
                            .bytes()
                            .all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
                }
            };
            host_good && port.parse::<u16>().is_ok_and(|port| port != 0)
        });
        if good {
            Ok(Self(text.to_owned()))
        } else {
            Err("HOST:PORT, such as \"10.0.0.7:7100\" or \"center:7100\"".to_owned())
        }
    }
}

/// A text as a TOML string.
pub fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}
