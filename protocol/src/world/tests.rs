//! Layouts there and back, broken input, and what a client makes of frames out of order.

use proptest::prelude::*;

use super::*;

fn at(x: u32, y: u32) -> Point {
    Point { x, y }
}

#[test]
fn bytes_are_those_of_the_layout() {
    let mut out = Vec::new();
    begin_positions(&mut out, Width::Narrow, 0x0102_0304);
    put_position(
        &mut out,
        Width::Narrow,
        Placed {
            id: 9,
            at: at(0x1122, 0x3344),
        },
    );
    assert_eq!(out, [2, 4, 3, 2, 1, 9, 0, 0, 0, 0x22, 0x11, 0x44, 0x33]);

    out.clear();
    let entered = Entered {
        id: 1,
        tag: 2,
        at: at(3, 4),
    };
    let rest = Placed {
        id: 6,
        at: at(7, 8),
    };
    encode_changes(&mut out, Width::Narrow, 5, &[entered], &[5], &[rest]);
    assert_eq!(
        out,
        [
            2, 5, 0, 0, 0, 1, 0, 1, 0, // header
            1, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 3, 0, 4, 0, // enter
            5, 0, 0, 0, // leave
            6, 0, 0, 0, 7, 0, 8, 0, // rest
        ]
    );
}

#[test]
fn a_position_is_taken_out_of_its_frame_and_an_empty_frame_is_none() {
    for width in [Width::Narrow, Width::Wide] {
        let mut out = Vec::new();
        begin_positions(&mut out, width, 3);
        // The places look like ids.
        for id in [258, 1, 2] {
            put_position(&mut out, width, Placed { id, at: at(2, 1) });
        }
        let ids = |out: &[u8]| -> Vec<u32> {
            let positions = Positions::decode(out).unwrap();
            assert!(positions.iter().all(|placed| placed.at == at(2, 1)));
            positions.iter().map(|placed| placed.id).collect()
        };
        for (id, left) in [(9, &[258, 1, 2][..]), (1, &[258, 2]), (2, &[258])] {
            remove_position(&mut out, width, id);
            assert_eq!(ids(&out), left);
        }
        remove_position(&mut out, width, 258);
        assert!(out.is_empty());
        remove_position(&mut out, width, 258);
        assert!(out.is_empty());
    }
}

#[test]
fn the_largest_frames_are_as_long_as_their_bounds() {
    let mut out = Vec::new();
    begin_positions(&mut out, Width::Wide, 1);
    for id in 0..VISIBLE_MAX as u32 {
        put_position(&mut out, Width::Wide, Placed { id, at: at(0, 0) });
    }
    assert_eq!(out.len(), POSITIONS_BYTES_MAX);
    out.clear();
    let entered = Entered {
        id: 1,
        tag: 2,
        at: at(3, 4),
    };
    let enters = [entered; VISIBLE_MAX];
    encode_changes(&mut out, Width::Wide, 1, &enters, &[0; VISIBLE_MAX], &[]);
    assert_eq!(out.len(), CHANGES_BYTES_MAX);
}

#[test]
fn requests_come_back_as_they_were() {
    let mut out = Vec::new();
    let enter = Enter {
        tag: u64::MAX - 1,
        at: at(70_000, 5),
    };
    enter.encode(&mut out);
    assert_eq!(Enter::decode(&out), Ok(enter));
    assert_eq!(Enter::decode(&out[1..]), Err(BadWorldMessage));
    out.clear();
    let step = Move {
        step: 3,
        at: at(1, u32::MAX),
    };
    step.encode(&mut out);
    assert_eq!(Move::decode(&out), Ok(step));
    out.push(0);
    assert_eq!(Move::decode(&out), Err(BadWorldMessage));
    out.clear();
    let entry = Entry {
        id: 1,
        tick: 2,
        map_width_units: 3,
        map_height_units: 4,
        view_units: 5,
        hysteresis_units: 6,
        visible_max: 7,
        tick_ms: 8,
    };
    entry.encode(&mut out);
    assert_eq!(Entry::decode(&out), Ok(entry));
    assert_eq!(Entry::decode(&out[..27]), Err(BadWorldMessage));
}

fn width() -> impl Strategy<Value = Width> {
    prop_oneof![Just(Width::Narrow), Just(Width::Wide)]
}

fn place(width: Width) -> impl Strategy<Value = Point> {
    let last = if width == Width::Narrow {
        u32::from(u16::MAX)
    } else {
        u32::MAX
    };
    (0..=last, 0..=last).prop_map(|(x, y)| Point { x, y })
}

prop_compose! {
    fn changes()(width in width())(
        width in Just(width),
        tick in any::<u32>(),
        enters in prop::collection::vec((any::<u32>(), any::<u64>(), place(width)), 0..20),
        leaves in prop::collection::vec(any::<u32>(), 0..20),
        rests in prop::collection::vec((any::<u32>(), place(width)), 0..20),
    ) -> (Width, u32, Vec<Entered>, Vec<u32>, Vec<Placed>) {
        let enters = enters.into_iter().map(|(id, tag, at)| Entered { id, tag, at }).collect();
        let rests = rests.into_iter().map(|(id, at)| Placed { id, at }).collect();
        (width, tick, enters, leaves, rests)
    }
}

proptest! {
    #[test]
    fn frames_come_back_as_they_were((width, tick, enters, leaves, rests) in changes()) {
        let mut out = Vec::new();
        encode_changes(&mut out, width, tick, &enters, &leaves, &rests);
        let decoded = Changes::decode(&out).unwrap();
        prop_assert_eq!(decoded.tick, tick);
        prop_assert_eq!(decoded.enters().collect::<Vec<_>>(), enters);
        prop_assert_eq!(decoded.leaves().collect::<Vec<_>>(), leaves);
        prop_assert_eq!(decoded.rests().collect::<Vec<_>>(), rests.clone());

        out.clear();
        begin_positions(&mut out, width, tick);
        for &rest in &rests {
            put_position(&mut out, width, rest);
        }
        let decoded = Positions::decode(&out).unwrap();
        prop_assert_eq!(decoded.tick, tick);
        prop_assert_eq!(decoded.iter().collect::<Vec<_>>(), rests);
    }

    #[test]
    fn cut_and_broken_frames_are_refused_or_read_but_never_panic(
        (width, tick, enters, leaves, rests) in changes(),
        cut in any::<prop::sample::Index>(),
        flip in any::<(prop::sample::Index, u8)>(),
    ) {
        let mut out = Vec::new();
        encode_changes(&mut out, width, tick, &enters, &leaves, &rests);
        let length = cut.index(out.len());
        if let Ok(cut) = Changes::decode(&out[..length]) {
            // Only at the border of a rest can a cut go unnoticed.
            prop_assert!(cut.rests().count() < rests.len());
        }
        let index = flip.0.index(out.len());
        out[index] ^= flip.1;
        let mut belief = Belief::default();
        if let Ok(changes) = Changes::decode(&out) {
            let _ = belief.handle_changes(&changes);
            prop_assert!(belief.seen().len() <= VISIBLE_MAX);
        }
        if let Ok(positions) = Positions::decode(&out) {
            belief.handle_positions(&positions);
        }
    }
}

fn told(tick: u32, enters: &[Entered], leaves: &[u32], rests: &[Placed]) -> Vec<u8> {
    let mut out = Vec::new();
    encode_changes(&mut out, Width::Narrow, tick, enters, leaves, rests);
    out
}

fn moved(tick: u32, id: u32, at: Point) -> Vec<u8> {
    let mut out = Vec::new();
    begin_positions(&mut out, Width::Narrow, tick);
    put_position(&mut out, Width::Narrow, Placed { id, at });
    out
}

#[test]
fn of_two_frames_the_one_of_the_later_tick_counts() {
    let mut belief = Belief::default();
    let enter = Entered {
        id: 3,
        tag: 33,
        at: at(1, 1),
    };
    // Overtook its enter: nobody of that id is in view yet.
    assert_eq!(
        belief.handle_positions(&Positions::decode(&moved(11, 3, at(2, 2))).unwrap()),
        0
    );
    let bytes = told(10, &[enter], &[], &[]);
    belief
        .handle_changes(&Changes::decode(&bytes).unwrap())
        .unwrap();
    assert_eq!(belief.of(3).unwrap().at, at(1, 1));
    belief.handle_positions(&Positions::decode(&moved(12, 3, at(5, 5))).unwrap());
    let late = told(
        11,
        &[],
        &[],
        &[Placed {
            id: 3,
            at: at(4, 4),
        }],
    );
    belief
        .handle_changes(&Changes::decode(&late).unwrap())
        .unwrap();
    assert_eq!(
        belief.of(3).unwrap().at,
        at(5, 5),
        "an older rest does not count"
    );
    let rest = told(
        30,
        &[],
        &[],
        &[Placed {
            id: 3,
            at: at(6, 6),
        }],
    );
    belief
        .handle_changes(&Changes::decode(&rest).unwrap())
        .unwrap();
    assert_eq!(belief.of(3).unwrap().at, at(6, 6));
    // Left and came again, then a place from before is late.
    let again = told(
        40,
        &[Entered {
            at: at(9, 9),
            ..enter
        }],
        &[3],
        &[],
    );
    belief
        .handle_changes(&Changes::decode(&again).unwrap())
        .unwrap();
    belief.handle_positions(&Positions::decode(&moved(39, 3, at(7, 7))).unwrap());
    assert_eq!(belief.of(3).unwrap().at, at(9, 9));
    assert_eq!(belief.seen().len(), 1);
}

#[test]
fn ticks_wrap() {
    let mut belief = Belief::default();
    let enter = Entered {
        id: 3,
        tag: 33,
        at: at(1, 1),
    };
    let bytes = told(u32::MAX, &[enter], &[], &[]);
    belief
        .handle_changes(&Changes::decode(&bytes).unwrap())
        .unwrap();
    belief.handle_positions(&Positions::decode(&moved(0, 3, at(2, 2))).unwrap());
    assert_eq!(belief.of(3).unwrap().at, at(2, 2));
}

#[test]
fn frames_that_contradict_are_told_apart() {
    let mut belief = Belief::default();
    let leave = told(1, &[], &[8], &[]);
    assert_eq!(
        belief.handle_changes(&Changes::decode(&leave).unwrap()),
        Err(Contradiction::LeftUnseen(8))
    );
    let rest = told(
        1,
        &[],
        &[],
        &[Placed {
            id: 8,
            at: at(0, 0),
        }],
    );
    assert_eq!(
        belief.handle_changes(&Changes::decode(&rest).unwrap()),
        Err(Contradiction::RestedUnseen(8))
    );
    let many: Vec<_> = (0..=VISIBLE_MAX as u32)
        .map(|id| Entered {
            id,
            tag: 0,
            at: at(0, 0),
        })
        .collect();
    assert_eq!(
        belief.handle_changes(&Changes::decode(&told(2, &many, &[], &[])).unwrap()),
        Err(Contradiction::TooMany)
    );
}
