//! Links between real ends, over UDP on loopback. Each test has its own
//! sockets; what waits for a deadline waits for the real one.

mod backpressure;
mod dialling;
mod ends;
mod harness;
mod lifecycle;
mod records;
