//! Limits of a whole gateway on what comes from one network or with one account: open
//! connections, connections, handshakes and logins in time, and what an account has left of
//! its frames and bytes from one connection to the next.
//!
//! What a single connection may send while it is open is `protocol::check`'s. Nothing in here
//! reads a clock, and nothing is asked for a frame: a connection comes by at its beginning,
//! its handshake, its login and its end.
//!
//! Invariant: what is kept has a fixed size ([`Usage`]), and all shards of a gateway share it,
//! so that a limit holds for the gateway as an operator writes it.

mod table;

use std::net::IpAddr;
use std::num::NonZeroU64;

use protocol::time::Time;

use crate::front::trust::Trust;
use table::{Slot, Table};

/// Networks and, apart from them, accounts that are told apart at once: 2.6 MB each. Far more
/// than come within a second, and those that nobody limits any more cost none.
pub const PLACES: usize = 65_536;

/// What happens to what is above a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Penalty {
    /// It waits for its turn, up to one burst of them; what comes beyond is disconnected.
    #[default]
    Delay,
    /// It is lost without a word.
    Drop,
    /// The connection is closed with a reason.
    Disconnect,
}

impl Penalty {
    /// For what comes again by itself when it gets no answer, as an INIT does: nothing is
    /// kept of it, so it cannot wait here.
    pub(crate) fn without_waiting(self) -> Self {
        match self {
            Self::Delay => Self::Drop,
            other => other,
        }
    }
}

/// How often something may happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Every {
    /// Once in so many microseconds, sustained. 0 switches the limit off.
    pub us: u64,
    /// So many times at once.
    pub burst: u32,
}

impl Every {
    fn burst_us(self) -> u64 {
        self.us.saturating_mul(u64::from(self.burst))
    }
}

/// What an operator allows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Networks whose members share no limit.
    pub exempt: Trust,
    /// Connections that a network may have open; 0: any number.
    pub connections_max: u32,
    /// Connections that a network may open.
    pub connections: Every,
    /// For connections above either. There is no turn to wait for when too many are open.
    pub connections_penalty: Penalty,
    /// Handshakes of a network.
    pub handshakes: Every,
    /// For those above.
    pub handshakes_penalty: Penalty,
    /// Logins of an account.
    pub logins: Every,
    /// For those above.
    pub logins_penalty: Penalty,
    /// For frames above the rates of a connection.
    pub rate_penalty: Penalty,
}

/// Which limit somebody was above.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limited {
    /// Connections of a network that are open.
    NetworkOpen,
    /// Connections that a network opens.
    NetworkConnections,
    /// Handshakes of a network.
    NetworkHandshakes,
    /// Logins of an account.
    AccountLogins,
}

impl Limited {
    /// All of them, in the order of their discriminants.
    pub const ALL: [Self; 4] = [
        Self::NetworkOpen,
        Self::NetworkConnections,
        Self::NetworkHandshakes,
        Self::AccountLogins,
    ];

    /// Label in metrics.
    pub const fn label(self) -> &'static str {
        match self {
            Self::NetworkOpen => "network_open",
            Self::NetworkConnections => "network_connections",
            Self::NetworkHandshakes => "network_handshakes",
            Self::AccountLogins => "account_logins",
        }
    }
}

/// What a limit says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Within it.
    Pass,
    /// Above: its turn comes in so many microseconds.
    Wait(Limited, u64),
    /// Above, and that is that.
    Refuse(Limited, Penalty),
}

/// A verdict, and whether somebody was forgotten for whom it was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Judged {
    /// What the limit says.
    pub verdict: Verdict,
    /// The set was full of networks or accounts with something in use.
    pub forgot: bool,
}

/// The network that an address belongs to: 24 bits of an IPv4 address, 64 of an IPv6 address,
/// which are what one customer is usually given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network(NonZeroU64);

impl Network {
    /// Of this address. One of IPv4 that comes mapped into IPv6 is the IPv4 address.
    pub fn of(address: IpAddr) -> Self {
        let prefix = match address.to_canonical() {
            // In 100::/8, which is no global unicast and never will be a client's.
            IpAddr::V4(ip) => 1 << 56 | u64::from(ip.to_bits() >> 8),
            IpAddr::V6(ip) => (ip.to_bits() >> 64) as u64,
        };
        // ::1 and what else has 64 zeros before it count as one.
        Self(NonZeroU64::new(prefix).unwrap_or(NonZeroU64::MIN))
    }
}

impl std::fmt::Display for Network {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let prefix = self.0.get();
        if prefix >> 24 == 1 << 32 {
            let address = std::net::Ipv4Addr::from_bits((prefix as u32) << 8);
            write!(f, "{address}/24")
        } else {
            let address = std::net::Ipv6Addr::from_bits(u128::from(prefix) << 64);
            write!(f, "{address}/64")
        }
    }
}

/// The rates of a network, by their place in its slot.
const CONNECTIONS: usize = 0;
const HANDSHAKES: usize = 1;
/// Those of an account.
const LOGINS: usize = 0;
const FRAMES: usize = 1;
const BYTES: usize = 2;

/// Who has how much of what is limited in use, for all shards of a gateway. Their clocks must
/// have one origin.
pub struct Usage {
    networks: Table,
    accounts: Table,
}

impl std::fmt::Debug for Usage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Usage").finish_non_exhaustive()
    }
}

impl Usage {
    /// Room for so many networks and as many accounts. `secret` must be random: it decides
    /// who shares a set with whom.
    pub fn new(places: usize, secret: [u64; 2]) -> Self {
        Self {
            networks: Table::new(places, secret),
            accounts: Table::new(places, secret),
        }
    }

    /// A connection from this network, which counts as open from now on unless it is refused.
    /// `penalty` is that of the limits, or what of it there can be.
    pub fn open(&self, now: Time, network: Network, limits: &Limits, penalty: Penalty) -> Judged {
        self.network(now, network, limits, |slot| {
            if limits.connections_max > 0 && slot.open >= limits.connections_max {
                let penalty = match penalty {
                    Penalty::Delay => Penalty::Disconnect,
                    other => other,
                };
                return Verdict::Refuse(Limited::NetworkOpen, penalty);
            }
            let full_at = &mut slot.full_at[CONNECTIONS];
            let limited = Limited::NetworkConnections;
            let verdict = charge(now, full_at, limits.connections, penalty, limited);
            if !matches!(verdict, Verdict::Refuse(..)) {
                slot.open += 1;
            }
            verdict
        })
    }

    /// One of the open connections of this network has ended.
    pub fn close(&self, network: Network) {
        // It may have been forgotten meanwhile, and be counted from 0 again.
        self.networks.with_known(network.0.get(), |slot| {
            slot.open = slot.open.saturating_sub(1);
        });
    }

    /// A client in this network wants a handshake.
    pub fn handshake(
        &self,
        now: Time,
        network: Network,
        limits: &Limits,
        penalty: Penalty,
    ) -> Judged {
        self.network(now, network, limits, |slot| {
            let full_at = &mut slot.full_at[HANDSHAKES];
            let limited = Limited::NetworkHandshakes;
            charge(now, full_at, limits.handshakes, penalty, limited)
        })
    }

    fn network(
        &self,
        now: Time,
        network: Network,
        limits: &Limits,
        work: impl FnOnce(&mut Slot) -> Verdict,
    ) -> Judged {
        let worth = |slot: &Slot| {
            share(u64::from(slot.open), u64::from(limits.connections_max))
                .max(owed(now, slot.full_at[CONNECTIONS], limits.connections))
                .max(owed(now, slot.full_at[HANDSHAKES], limits.handshakes))
        };
        let (verdict, forgot) = self.networks.with(network.0.get(), worth, |slot| {
            let verdict = work(slot);
            if !matches!(verdict, Verdict::Pass) {
                slot.above = slot.above.saturating_add(1);
            }
            verdict
        });
        Judged { verdict, forgot }
    }

    /// Somebody has proved to be this account and wants to log in.
    pub fn login(&self, now: Time, account: &str, limits: &Limits) -> Judged {
        let key = self.accounts.key_of(account.as_bytes());
        let worth = |slot: &Slot| account_worth(now, slot);
        let (verdict, forgot) = self.accounts.with(key, worth, |slot| {
            let full_at = &mut slot.full_at[LOGINS];
            let penalty = limits.logins_penalty;
            charge(now, full_at, limits.logins, penalty, Limited::AccountLogins)
        });
        Judged { verdict, forgot }
    }

    /// A connection of this account has ended; when the bursts of its frames and its bytes
    /// would have been whole again.
    pub fn keep(&self, now: Time, account: &str, (frames, bytes): (Time, Time)) {
        if frames <= now && bytes <= now {
            return;
        }
        let key = self.accounts.key_of(account.as_bytes());
        let worth = |slot: &Slot| account_worth(now, slot);
        self.accounts.with(key, worth, |slot| {
            slot.full_at[FRAMES] = slot.full_at[FRAMES].max(frames);
            slot.full_at[BYTES] = slot.full_at[BYTES].max(bytes);
        });
    }

    /// What was kept.
    pub fn kept(&self, account: &str) -> Option<(Time, Time)> {
        let key = self.accounts.key_of(account.as_bytes());
        let of = |slot: &mut Slot| (slot.full_at[FRAMES], slot.full_at[BYTES]);
        self.accounts.with_known(key, of)
    }
}

/// How full the tables are, and who is above the limits most.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Census {
    /// Networks that have a place.
    pub networks: usize,
    /// Accounts that have one.
    pub accounts: usize,
    /// Places of each of the two tables.
    pub places: usize,
    /// The networks that were above a limit most often, the worst first.
    pub worst: Vec<Above>,
}

/// A network that was above a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Above {
    /// Which.
    pub network: Network,
    /// Its open connections.
    pub open: u32,
    /// How often it was above a limit since it came into the table.
    pub times: u32,
}

impl Usage {
    /// Counts who is in the tables; of the networks that were above a limit, `worst_max` are
    /// named. Takes some milliseconds, and never the time of a shard: each set is held for as
    /// long as it takes to look at its 16 places.
    pub fn census(&self, worst_max: usize) -> Census {
        let mut census = Census {
            places: self.networks.places(),
            ..Census::default()
        };
        self.networks.look(|key, slot| {
            census.networks += 1;
            let Some(network) = NonZeroU64::new(key).filter(|_| slot.above > 0) else {
                return;
            };
            let worst = &mut census.worst;
            let at = worst.partition_point(|other| other.times >= slot.above);
            if at < worst_max {
                let above = Above {
                    network: Network(network),
                    open: slot.open,
                    times: slot.above,
                };
                worst.insert(at, above);
                worst.truncate(worst_max);
            }
        });
        self.accounts.look(|_, _| census.accounts += 1);
        census
    }
}

/// Takes one out of what may happen.
fn charge(
    now: Time,
    full_at: &mut Time,
    rate: Every,
    penalty: Penalty,
    limited: Limited,
) -> Verdict {
    if rate.us == 0 {
        return Verdict::Pass;
    }
    // Nobody can owe more than two bursts, but from tighter limits that a reload has lifted:
    // who does may go on.
    if full_at.us_since(now) > rate.burst_us().saturating_mul(2) {
        *full_at = now + rate.burst_us().saturating_sub(rate.us);
    }
    let next = (*full_at).max(now) + rate.us;
    let above_us = next.us_since(now).saturating_sub(rate.burst_us());
    let verdict = match penalty {
        _ if above_us == 0 => Verdict::Pass,
        Penalty::Delay if above_us <= rate.burst_us() => Verdict::Wait(limited, above_us),
        Penalty::Delay => Verdict::Refuse(limited, Penalty::Disconnect),
        penalty => Verdict::Refuse(limited, penalty),
    };
    // What is refused costs nothing: else who comes too often would shut everybody else of
    // its network out for good.
    if !matches!(verdict, Verdict::Refuse(..)) {
        *full_at = next;
    }
    verdict
}

/// Thousandths of what is allowed, rounded up.
fn share(used: u64, allowed: u64) -> u64 {
    match allowed {
        0 => 0,
        allowed => used.saturating_mul(1_000).div_ceil(allowed),
    }
}

fn owed(now: Time, full_at: Time, rate: Every) -> u64 {
    share(full_at.us_since(now), rate.burst_us())
}

/// An account is worth keeping for as long as it owes something.
fn account_worth(now: Time, slot: &Slot) -> u64 {
    let owed_us = slot.full_at.iter().map(|at| at.us_since(now));
    owed_us.max().unwrap_or(0)
}

#[cfg(test)]
mod tests;
