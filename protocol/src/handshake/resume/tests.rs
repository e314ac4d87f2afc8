//! A resume gives both sides the same keys, and nobody else any.

use super::*;

const PARAMETERS: Parameters = Parameters {
    frame_bytes_max: 32_768,
    heartbeat_interval_ms: 30_000,
    idle_timeout_ms: 75_000,
    login_timeout_ms: 10_000,
    unix_ms: 1_767_225_600_123,
};

fn ticket() -> Ticket {
    Ticket::from_key([9; 32])
}

fn resume() -> (Initiator, Vec<u8>) {
    let mut frame = Vec::new();
    let initiator = Initiator::resume(&ticket(), [4; 32], 99, &mut frame).unwrap();
    (initiator, frame)
}

fn answer(ticket: &Ticket, resume: &[u8]) -> Result<(Keys, Vec<u8>), CloseReason> {
    let mut out = b"before".to_vec();
    let keys = respond_resume(ticket, [5; 32], resume, 77, &PARAMETERS, &mut out);
    if keys.is_err() {
        assert_eq!(out, b"before", "a refused RESUME is answered");
    }
    keys.map(|keys| (keys, out.split_off(6)))
}

#[test]
fn both_sides_have_the_same_keys_and_the_same_next_ticket() {
    let (initiator, frame) = resume();
    assert_eq!(ticket_id(&frame), Some(ticket().id()));
    let (gateway_keys, welcome) = answer(&ticket(), &frame).unwrap();
    assert_eq!((frame.len(), welcome.len()), (92, 92));
    let (client_keys, parameters) = initiator.welcome(&welcome).unwrap();
    assert_eq!(parameters, PARAMETERS);
    assert_eq!(client_keys.client, gateway_keys.client);
    assert_eq!(client_keys.gateway, gateway_keys.gateway);
    assert_eq!(client_keys.ticket(), gateway_keys.ticket());
    assert_ne!(client_keys.ticket(), ticket());
}

#[test]
fn the_same_frame_again_gives_other_keys() {
    let (_, frame) = resume();
    let (first, _) = answer(&ticket(), &frame).unwrap();
    let mut out = Vec::new();
    let second = respond_resume(&ticket(), [6; 32], &frame, 77, &PARAMETERS, &mut out).unwrap();
    assert_ne!(first.client, second.client);
    assert_ne!(first.ticket(), second.ticket());
}

#[test]
fn who_does_not_know_the_key_gets_nowhere() {
    let (initiator, frame) = resume();
    let other = Ticket::from_key([8; 32]);
    assert_eq!(
        answer(&other, &frame).unwrap_err(),
        CloseReason::BadHandshake
    );
    // Nor does a gateway that answers in its stead.
    let (_, welcome) = {
        let mut frame = Vec::new();
        Initiator::resume(&other, [4; 32], 99, &mut frame).unwrap();
        answer(&other, &frame).unwrap()
    };
    assert!(initiator.welcome(&welcome).is_err());
}

#[test]
fn every_byte_counts() {
    let (_, frame) = resume();
    for at in 0..frame.len() {
        let mut changed = frame.clone();
        changed[at] ^= 1;
        assert!(answer(&ticket(), &changed).is_err(), "byte {at}");
        frame::write_crc(&mut changed);
        assert!(
            answer(&ticket(), &changed).is_err() || (12..16).contains(&at),
            "byte {at} with its CRC"
        );
    }
}

#[test]
fn what_is_no_resume_names_no_ticket() {
    let mut hello = Vec::new();
    Initiator::hello(&[7; 32], [4; 32], 99, &mut hello).unwrap();
    assert_eq!(ticket_id(&hello), None);
    let (_, frame) = resume();
    assert_eq!(ticket_id(&frame[..30]), None);
    let (_, mut frame) = resume();
    frame[30] ^= 1;
    assert_eq!(ticket_id(&frame), None, "its CRC is wrong");
}
