//! Lanes and turns, against counting.

use protocol::body::Lane;

use super::{lane_of, number_of, turn_of};

#[test]
fn each_turn_has_its_place_in_one_lane_and_is_found_again() {
    for client in 0..9 {
        let mut counts = [0_u32; 3];
        for turn in 0..1_000 {
            let lane = lane_of(client, turn);
            let count = &mut counts[lane as usize];
            assert_eq!(number_of(client, turn), *count, "client {client}");
            assert_eq!(turn_of(client, lane, *count), turn, "client {client}");
            *count += 1;
        }
        assert_eq!(counts[Lane::Reliable as usize], 500);
        assert_eq!(counts[Lane::Sequenced as usize], 250);
        assert_eq!(counts[Lane::Unreliable as usize], 250);
    }
}

#[test]
fn a_number_that_nobody_sent_is_no_turn() {
    for client in 0..4 {
        for lane in [Lane::Reliable, Lane::Sequenced, Lane::Unreliable] {
            assert_eq!(turn_of(client, lane, u32::MAX), u32::MAX);
        }
        number_of(client, u32::MAX);
    }
}
