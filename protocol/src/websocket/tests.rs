use super::*;

#[test]
fn the_answer_to_a_key_is_the_one_of_the_rfc() {
    assert_eq!(
        accept(b"dGhlIHNhbXBsZSBub25jZQ=="),
        "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
    );
}

#[test]
fn frames_are_those_of_the_rfc() {
    // RFC 6455 §5.7.
    let mut out = Vec::new();
    write_masked(Opcode::Text, [0x37, 0xfa, 0x21, 0x3d], b"Hello", &mut out);
    assert_eq!(
        out,
        [
            0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58
        ]
    );
    for (length, header) in [
        (0, &[0x82, 0][..]),
        (125, &[0x82, 125]),
        (126, &[0x82, 126, 0, 126]),
        (256, &[0x82, 0x7e, 1, 0]),
        (65_535, &[0x82, 0x7e, 0xff, 0xff]),
        (65_536, &[0x82, 0x7f, 0, 0, 0, 0, 0, 1, 0, 0]),
    ] {
        let mut out = Vec::new();
        write_header(Opcode::Binary, length, &mut out);
        assert_eq!(out, header);
    }
}

#[test]
fn masking_is_that_of_its_definition_and_its_own_inverse() {
    let mask = [1, 0x80, 0xff, 0x10];
    for length in 0..40 {
        let plain: Vec<u8> = (0..length as u8).map(|at| at.wrapping_mul(7)).collect();
        let mut masked = plain.clone();
        apply_mask(&mut masked, mask);
        let wanted: Vec<u8> = plain
            .iter()
            .enumerate()
            .map(|(at, byte)| byte ^ mask[at % 4])
            .collect();
        assert_eq!(masked, wanted);
        apply_mask(&mut masked, mask);
        assert_eq!(masked, plain);
    }
}

#[test]
fn every_reason_has_a_close_code_that_may_be_sent() {
    for &reason in CloseReason::ALL {
        assert!(is_close_code(close_code(reason)), "{reason:?}");
    }
    assert_eq!(close_code(CloseReason::LoggedOut), 1_000);
    assert_eq!(close_code(CloseReason::BadSeal), 4_006);
}
