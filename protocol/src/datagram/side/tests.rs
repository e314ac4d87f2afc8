use super::*;

#[test]
fn both_directions_have_keys_of_their_own() {
    let (one, two) = (SideKeys::derive(&[1; 32]), SideKeys::derive(&[2; 32]));
    let keys = [&one.client, &one.gateway, &two.client, &two.gateway];
    for (at, key) in keys.iter().enumerate() {
        assert!(keys[..at].iter().all(|other| other.0 != key.0));
    }
    assert_eq!(SideKeys::derive(&[1; 32]).client.0, one.client.0);
}

#[test]
fn a_path_carries_for_a_while_after_each_answer() {
    let mut proof = Proof::default();
    let at = |ms| Time(0).after_ms(ms);
    assert!(!proof.holds(at(0)) && proof.is_old(at(0)));
    let asked = proof.challenge();
    assert_eq!(proof.challenge(), asked);
    assert!(!proof.handle_response(at(10), [9; 8]));
    assert!(!proof.holds(at(10)));
    assert!(proof.handle_response(at(10), asked));
    // It was answered: what comes later of it proves nothing.
    assert!(!proof.handle_response(at(2_000), asked));
    assert!(proof.holds(at(10 + HOLD_MS - 1)));
    assert!(!proof.holds(at(10 + HOLD_MS)));
    assert!(!proof.is_old(at(10 + ASK_MS - 1)));
    assert!(proof.is_old(at(10 + ASK_MS)));
    assert!(proof.handle_response(at(5_000), proof.challenge()));
    assert!(proof.holds(at(5_001)));
}
