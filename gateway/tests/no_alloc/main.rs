//! In steady state a request and its reply allocate nothing, in the client's
//! core, the shard, and the backend's stream, over TCP and over WebSocket. A binary of its own with one
//! test, because the counting allocator sees every thread.

use std::alloc::System;

use gateway::testing::Crowd;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static GLOBAL: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const CLIENTS: usize = 64;

#[test]
fn a_round_trip_allocates_nothing() {
    let random: Vec<u8> = (0..64_u32)
        .map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    let text = b"walk north, walk north, walk north, walk north, walk north, walk north".repeat(4);
    for mut crowd in [Crowd::new(CLIENTS), Crowd::over_websocket(CLIENTS)] {
        for payload in [&random, &text] {
            for _ in 0..200 {
                crowd.round(payload, |_, _| {});
            }
            let region = Region::new(GLOBAL);
            for _ in 0..500 {
                crowd.round(payload, |_, _| {});
            }
            let change = region.change();
            assert_eq!(
                (
                    change.allocations,
                    change.reallocations,
                    change.deallocations
                ),
                (0, 0, 0),
                "in {} round trips of {} bytes",
                500 * CLIENTS,
                payload.len()
            );
        }
    }
}
