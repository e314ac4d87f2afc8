//! Center and game as processes have them: real QUIC on loopback, real files; the gateway's side
//! is played by a test shard over uplink's own dialer.

mod center;
mod game;
mod purity;
mod shard;
