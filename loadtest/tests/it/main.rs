//! The load test over real sockets: a real gateway, a real center, and games
//! that misbehave on purpose. Each fault must be found and named.

mod beside;
mod cluster;
mod faults;
mod mixed;
mod rooms;
mod runs;
mod storms;
mod walks;
