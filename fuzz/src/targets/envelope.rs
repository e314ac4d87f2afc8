//! Sealed frames in the hands of somebody who has not the keys: changed, cut, repeated, left out,
//! out of order. What opens is a frame as it was sealed, once; over a stream also in order.

use protocol::check::{self, ClockOffset};
use protocol::cipher::{Key, Opener, RekeyPolicy, Sealer};
use protocol::datagram::{Cid, End};
use protocol::frame::{Header, write_crc};
use protocol::limits::{FRAME_HEADER_BYTES, REPLAY_WINDOW};
use protocol::time::Time;

use crate::script::{Lines, Script, Way};

const SEALS: Key = Key([1; 32]);
const OPENS: Key = Key([2; 32]);

/// Frames of one script at the most, so that their number is within the replay window.
const FRAMES_MAX: usize = 256;
const _: () = assert!((FRAMES_MAX as u64) < REPLAY_WINDOW);

struct Genuine {
    frame: Vec<u8>,
    body: Vec<u8>,
    opened: bool,
}

/// A script of what happens to frames on their way.
pub fn run(data: &[u8]) -> u64 {
    let mut script = Script::new(data);
    let over_datagrams = script.u8() & 1 == 1;
    let mut now = Time(1_000_000);
    let mut sealer = Sealer::new(SEALS, now, RekeyPolicy::default());
    let mut opener = Opener::new(SEALS);
    let mut clock = ClockOffset::new(now.wire_ms(), now);
    let policy = RekeyPolicy::default();
    let mut end = End::new(Cid(0), OPENS, SEALS, policy, None, 4_096, now);
    let mut sealed: Vec<Genuine> = Vec::new();
    let mut way = Way::default();
    way.note(u64::from(over_datagrams));
    while !script.is_over() && sealed.len() < FRAMES_MAX {
        let what = script.u8() % 8;
        let mut frame = Vec::new();
        let last = sealed.len();
        let fits = match what {
            // The next frame, as it is, under a new key, lost, or changed.
            0..=3 => {
                // An end over datagrams keeps a key for longer than a script is.
                if what == 1 && !over_datagrams {
                    sealer.rekey(now);
                }
                let flags = script.u8() & protocol::frame::FLAG_COMPRESSED;
                let flags = if over_datagrams { 0 } else { flags };
                let mut body = script.piece().to_vec();
                body.push(16);
                sealer.seal(now, flags, &mut frame, |out| out.extend_from_slice(&body));
                sealed.push(Genuine {
                    frame: frame.clone(),
                    body,
                    opened: false,
                });
                if what == 2 {
                    continue;
                }
                what != 3 || change(&mut frame, &mut script)
            }
            // One that was sealed before, as it is or changed.
            4 | 5 if last > 0 => {
                let at = usize::from(script.u8()) % last;
                frame.clone_from(&sealed[at].frame);
                what == 4 || change(&mut frame, &mut script)
            }
            6 => {
                now = now.after_ms(u64::from(script.u16()));
                continue;
            }
            _ => {
                frame.extend_from_slice(script.piece());
                if frame.len() >= FRAME_HEADER_BYTES && script.u8() & 1 == 1 {
                    let length = (frame.len() as u32).to_le_bytes();
                    frame[..3].copy_from_slice(&length[..3]);
                    write_crc(&mut frame);
                }
                false
            }
        };
        if let Some(header) = Header::decode(&frame) {
            assert_eq!(header.encode()[..], frame[..FRAME_HEADER_BYTES]);
        }
        let shown = frame.clone();
        let outcome = if over_datagrams {
            let before = end.expected();
            let opened = end.open(now, &mut frame);
            let moved = opened.is_ok();
            let outcome = opened.map(|opened| opened.body.to_vec());
            assert!(
                moved || end.expected() == before,
                "what fails moves nothing"
            );
            outcome.map_err(|reason| reason as u64)
        } else {
            let before = opener.sequence();
            let opened = check::open(&mut frame, &mut opener, &mut clock, now);
            let outcome = opened.map(|opened| opened.body.to_vec());
            let after = before + u64::from(outcome.is_ok());
            assert_eq!(opener.sequence(), after, "what fails moves nothing");
            outcome.map_err(|reason| reason as u64)
        };
        way.note(u64::from(what));
        match outcome {
            Ok(body) => {
                let at = match over_datagrams {
                    true => sealed.iter().position(|it| it.frame == shown),
                    false => Some(opener.sequence() as usize - 1),
                };
                let genuine = &mut sealed[at.expect("a frame that was sealed")];
                assert_eq!(shown, genuine.frame, "a frame that nobody sealed");
                assert_eq!(body, genuine.body);
                assert!(!genuine.opened, "opened twice");
                genuine.opened = true;
                way.note(1 << 16);
            }
            Err(reason) => {
                if fits {
                    let next = match over_datagrams {
                        true => sealed.iter().find(|it| it.frame == shown && !it.opened),
                        false => sealed.get(opener.sequence() as usize),
                    };
                    assert!(
                        next.is_none_or(|it| it.frame != shown),
                        "a frame that was due did not open"
                    );
                }
                way.note(reason);
            }
        }
    }
    way.value()
}

/// Changes a frame. Whether it may be the same as before.
fn change(frame: &mut Vec<u8>, script: &mut Script<'_>) -> bool {
    let at = usize::from(script.u16());
    match script.u8() % 4 {
        0 => frame.truncate(at),
        1 => frame.extend_from_slice(script.bytes(at % 64)),
        how => {
            let length = frame.len();
            if let Some(byte) = frame.get_mut(at % length.max(1)) {
                *byte ^= script.u8();
            }
            // Anybody can compute it.
            if how == 3 && frame.len() >= FRAME_HEADER_BYTES {
                write_crc(frame);
            }
        }
    }
    true
}

/// Frames that arrive, and that do not.
pub fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for transport in 0..2 {
        let mut script = Lines::default().raw(&[transport]);
        for what in [0, 0, 1, 2, 0, 3] {
            script = script.raw(&[what, 0, 4, 0]).raw(b"body");
            if what == 3 {
                script = script.raw(&[20, 0, 3, 1]);
            }
        }
        script = script.raw(&[4, 1, 5, 2, 30, 0, 2, 1, 6, 100, 0]);
        seeds.push(script.piece(7, &[20; 40]).raw(&[1]).done());
    }
    seeds
}
