//! What a client may send that it should not, over real sockets to a real
//! cluster: each time the gateway says the right thing, the right counter moves
//! by the right number and no other does, an honest neighbour notices nothing,
//! and connections, open files and memory are back where they were.

mod envelope;
mod frames;
mod login;
mod messages;
mod replays;
mod timestamps;

use crate::cluster::metrics::Calm;
use crate::cluster::player::Honest;
use crate::cluster::{Cluster, Settings};

/// Round trips that the honest neighbour does before and after.
const HONEST_ROUND_TRIPS: usize = 5;

/// Starts a cluster with an honest neighbour, does something bad, and checks
/// that all is as before but for the counters that `bad` named.
fn with_neighbour(bad: impl FnOnce(&Cluster, &mut Calm<'_>)) {
    with_settings(&[], bad);
}

/// The same with settings of the gateway.
fn with_settings(settings: Settings, bad: impl FnOnce(&Cluster, &mut Calm<'_>)) {
    let cluster = Cluster::start(settings, &[], &[]);
    let honest = Honest::start(&cluster);
    honest.round_trips(HONEST_ROUND_TRIPS);
    let mut calm = Calm::before(&cluster);
    bad(&cluster, &mut calm);
    honest.round_trips(HONEST_ROUND_TRIPS);
    calm.over();
    honest.finish();
}
