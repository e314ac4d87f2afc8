//! Both sides get the same keys, or the one that notices gets none.

use super::*;
use crate::frame::write_crc;

const PARAMETERS: Parameters = Parameters {
    frame_bytes_max: 32_768,
    heartbeat_interval_ms: 30_000,
    idle_timeout_ms: 75_000,
    login_timeout_ms: 10_000,
    unix_ms: 1_767_225_600_123,
};

fn gateway() -> StaticKey {
    StaticKey::from_secret([3; 32])
}

fn hello() -> (Initiator, Vec<u8>) {
    let mut frame = Vec::new();
    let initiator = Initiator::hello(gateway().public(), [4; 32], 99, &mut frame).unwrap();
    (initiator, frame)
}

fn answer(hello: &[u8]) -> Result<(Keys, Vec<u8>), CloseReason> {
    let mut out = b"before".to_vec();
    let keys = respond(&gateway(), [5; 32], hello, 77, &PARAMETERS, &mut out);
    if keys.is_err() {
        assert_eq!(out, b"before", "a refused HELLO is answered");
    }
    keys.map(|keys| (keys, out.split_off(6)))
}

fn with_crc(mut frame: Vec<u8>) -> Vec<u8> {
    write_crc(&mut frame);
    frame
}

#[test]
fn both_sides_have_the_same_keys() {
    let (initiator, hello) = hello();
    let (gateway_keys, welcome) = answer(&hello).unwrap();
    assert_eq!(
        (hello.len(), welcome.len()),
        (HELLO_FRAME_BYTES, WELCOME_FRAME_BYTES)
    );
    assert_eq!((hello.len(), welcome.len()), (68, 92));
    let (client_keys, parameters) = initiator.welcome(&welcome).unwrap();
    assert_eq!(parameters, PARAMETERS);
    assert_eq!(client_keys.client, gateway_keys.client);
    assert_eq!(client_keys.gateway, gateway_keys.gateway);
    assert_eq!(client_keys.hash, gateway_keys.hash);
    assert_ne!(client_keys.client, client_keys.gateway);
}

#[test]
fn other_ephemeral_keys_give_other_keys() {
    let (_, first) = hello();
    let mut second = Vec::new();
    Initiator::hello(gateway().public(), [6; 32], 99, &mut second).unwrap();
    let (one, _) = answer(&first).unwrap();
    let (other, _) = answer(&second).unwrap();
    assert_ne!(one.client, other.client);
    assert_ne!(one.hash, other.hash);
}

/// With and without a checksum that fits: the prologue covers what Noise does not.
#[test]
fn each_flipped_bit_of_hello_is_refused() {
    let (_, hello) = hello();
    for at in 0..hello.len() {
        for bit in 0..8 {
            let mut spoiled = hello.clone();
            spoiled[at] ^= 1 << bit;
            assert!(answer(&spoiled).is_err(), "byte {at} bit {bit}");
            if !(AAD_BYTES..FRAME_HEADER_BYTES).contains(&at) {
                assert!(answer(&with_crc(spoiled)).is_err(), "byte {at} bit {bit}");
            }
        }
    }
}

#[test]
fn each_flipped_bit_of_welcome_is_refused() {
    let (_, hello_frame) = hello();
    let (_, welcome) = answer(&hello_frame).unwrap();
    // The timestamp of WELCOME and its two zero bytes are only under the CRC:
    // whoever could change them could also hold the frame back.
    let unauthenticated = |at: usize| (8..AAD_BYTES).contains(&at) || (18..20).contains(&at);
    for at in 0..welcome.len() {
        for bit in 0..8 {
            let mut spoiled = welcome.clone();
            spoiled[at] ^= 1 << bit;
            assert!(hello().0.welcome(&spoiled).is_err(), "byte {at} bit {bit}");
            if !(AAD_BYTES..FRAME_HEADER_BYTES).contains(&at) && !unauthenticated(at) {
                let spoiled = with_crc(spoiled);
                assert!(hello().0.welcome(&spoiled).is_err(), "byte {at} bit {bit}");
            }
        }
    }
}

#[test]
fn another_gateway_is_noticed_by_both() {
    let other = StaticKey::from_secret([8; 32]);
    let mut frame = Vec::new();
    let initiator = Initiator::hello(other.public(), [4; 32], 99, &mut frame).unwrap();
    assert_eq!(answer(&frame).unwrap_err(), CloseReason::BadHandshake);
    // A gateway that answers with what it has, all the same.
    let (_, right) = hello();
    let (_, welcome) = answer(&right).unwrap();
    assert_eq!(
        initiator.welcome(&welcome).unwrap_err(),
        CloseReason::BadHandshake
    );
}

#[test]
fn reasons_of_the_gateway() {
    let (_, good) = hello();
    let changed = |at: usize, to: u8| {
        let mut frame = good.clone();
        frame[at] = to;
        with_crc(frame)
    };
    let cases = [
        (changed(3, 0), CloseReason::BadFlags),
        (changed(3, FLAG_HANDSHAKE | 4), CloseReason::BadFlags),
        (changed(4, 1), CloseReason::BadFlags),
        (changed(16, 2), CloseReason::BadHandshake),
        (changed(17, 2), CloseReason::BadVersion),
        (changed(0, 67), CloseReason::BadLength),
        (changed(20, 0), CloseReason::BadHandshake),
        (good[..10].to_vec(), CloseReason::BadLength),
    ];
    for (at, (frame, reason)) in cases.into_iter().enumerate() {
        assert_eq!(answer(&frame).unwrap_err(), reason, "case {at}");
    }
    let mut flipped = good.clone();
    flipped[30] ^= 1;
    assert_eq!(answer(&flipped).unwrap_err(), CloseReason::BadCrc);
    // A longer Noise message is not one of this version.
    let mut long = Vec::new();
    frame::encode_handshake(99, &[&good[16..], b"more"].concat(), &mut long);
    assert_eq!(answer(&long).unwrap_err(), CloseReason::BadHandshake);
}

#[test]
fn a_rejection_carries_its_reason() {
    let mut frame = Vec::new();
    reject(CloseReason::BadVersion, 5, &mut frame);
    assert_eq!(frame.len(), HANDSHAKE_FRAME_BYTES_MIN);
    assert_eq!(
        hello().0.welcome(&frame).unwrap_err(),
        CloseReason::BadVersion
    );
    frame[18] = 0xff;
    assert_eq!(hello().0.welcome(&frame).unwrap_err(), CloseReason::BadCrc);
    assert_eq!(
        hello().0.welcome(&with_crc(frame)).unwrap_err(),
        CloseReason::BadHandshake
    );
}

#[test]
fn a_longer_welcome_of_a_later_gateway_is_understood() {
    let (key, (initiator, hello)) = (gateway(), hello());
    let clear = [TYPE_WELCOME, VERSION, 0, 0];
    let prologue = prologue(&hello, &[TYPE_HELLO, VERSION, 0, 0]);
    let mut noise = builder(NOISE_NAME, [5; 32])
        .unwrap()
        .prologue(&prologue)
        .and_then(|b| b.local_private_key(key.secret()))
        .and_then(snow::Builder::build_responder)
        .unwrap();
    noise.read_message(&hello[20..], &mut []).unwrap();
    let payload = [PARAMETERS.encode().as_slice(), b"of a later version"].concat();
    let mut message = [0; 300];
    let length = noise.write_message(&payload, &mut message).unwrap();
    let mut welcome = Vec::new();
    frame::encode_handshake(1, &[&clear, &message[..length]].concat(), &mut welcome);
    assert_eq!(initiator.welcome(&welcome).unwrap().1, PARAMETERS);
}

#[test]
fn an_unusable_gateway_key_never_leads_to_keys() {
    // A point of small order: the shared secret would be known to everyone.
    let mut frame = Vec::new();
    if let Ok(initiator) = Initiator::hello(&[0; 32], [4; 32], 99, &mut frame) {
        let (_, welcome) = answer(&hello().1).unwrap();
        assert!(initiator.welcome(&welcome).is_err());
    }
}

#[test]
fn secrets_are_not_printed() {
    let secret = gateway();
    let printed = format!("{secret:?}");
    assert!(!printed.contains("3, 3, 3, 3"), "{printed}");
}
