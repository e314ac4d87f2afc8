//! In steady state a request and its reply allocate nothing, in the client's
//! core, the shard, and the backend's stream, over TCP and over WebSocket; and a message to the members
//! of a channel allocates nothing for any of them. A binary of its own with one test, because the
//! counting allocator sees every thread.

use std::alloc::System;

use gateway::testing::Crowd;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static GLOBAL: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const CLIENTS: usize = 64;
const MESSAGES: usize = 50;

/// Allocations of so many messages of so many bytes, each to all of a crowd.
fn of_messages(mut crowd: Crowd, bytes: usize) -> usize {
    let payload = gateway::testing::noise(bytes);
    crowd.join();
    for _ in 0..20 {
        crowd.publish(&payload);
    }
    let region = Region::new(GLOBAL);
    for _ in 0..MESSAGES {
        crowd.publish(&payload);
    }
    let change = region.change();
    change.allocations + change.reallocations
}

#[test]
fn neither_a_round_trip_nor_a_member_of_a_channel_allocates() {
    for crowd in [Crowd::new, Crowd::over_websocket] {
        for bytes in [64, 4_000] {
            let few = of_messages(crowd(4), bytes);
            let many = of_messages(crowd(CLIENTS), bytes);
            assert_eq!(few, many, "{MESSAGES} messages of {bytes} bytes");
            // What is common to all members.
            assert!(few <= 8 * MESSAGES, "{few}");
        }
    }
    a_round_trip_allocates_nothing();
}

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
