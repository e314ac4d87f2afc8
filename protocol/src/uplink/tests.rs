//! Each record comes back as it was, and a changed run is refused or is the one
//! encoding of something else.

use proptest::prelude::*;

use super::*;
use crate::testing::cases;

#[derive(Clone, Debug)]
struct Parts {
    kind: u8,
    session: u64,
    fence: u64,
    unix_ms: u64,
    version: u32,
    reason: u16,
    address: Option<([u8; 16], u16)>,
    away: bool,
    labels: [String; 2],
    body: Vec<u8>,
}

fn parts() -> impl Strategy<Value = Parts> {
    (
        0..11_u8,
        any::<[u64; 3]>(),
        any::<u32>(),
        any::<u16>(),
        any::<(Option<([u8; 16], u16)>, bool)>(),
        ["\\PC{0,16}", "\\PC{0,16}"],
        prop::collection::vec(any::<u8>(), 0..100),
    )
        .prop_map(
            |(kind, [session, fence, unix_ms], version, reason, (address, away), labels, body)| {
                Parts {
                    kind,
                    session,
                    fence,
                    unix_ms,
                    version,
                    reason,
                    address,
                    away,
                    labels,
                    body,
                }
            },
        )
}

impl Parts {
    fn record(&self) -> Record<'_> {
        let (fence, reason, unix_ms) = (Fence(self.fence), self.reason, self.unix_ms);
        match self.kind {
            0 => Record::Data(&self.body),
            1 => Record::Open(Open {
                fence,
                unix_ms,
                client_version: self.version,
                address: self.address.map(|(ip, port)| ClientAddress { ip, port }),
                away: self.away,
                account: &self.labels[0],
                channel: &self.labels[1],
            }),
            2 => Record::End {
                fence,
                reason,
                unix_ms,
            },
            3 => Record::Kick { fence, reason },
            4 => Record::Gone,
            6 => Record::Join {
                channel: ChannelId(self.version),
                incarnation: Incarnation(self.fence),
                next: self.unix_ms as u32,
            },
            7 => Record::Leave {
                channel: ChannelId(self.version),
            },
            8 => Record::Publish {
                filter: Filter {
                    except: SessionId(self.session),
                    version_min: self.version,
                    version_max: self.fence as u32,
                    attribute: self.away.then_some((self.reason, self.unix_ms as u32)),
                },
                body: &self.body,
            },
            9 => {
                let whole = self.body.len() / 8 * 8;
                let (sessions, body) = self.body.split_at(whole);
                let sessions = Sessions(sessions);
                Record::List { sessions, body }
            }
            10 => Record::Attribute {
                key: self.reason,
                value: self.version,
            },
            _ => Record::Quality(Quality {
                ours: Report {
                    round_trip_us: self.version,
                    jitter_us: self.fence as u32,
                    loss: self.reason as u8,
                },
                theirs: Report {
                    round_trip_us: self.unix_ms as u32,
                    jitter_us: (self.unix_ms >> 32) as u32,
                    loss: (self.reason >> 8) as u8,
                },
            }),
        }
    }
}

fn run_of(parts: &[Parts]) -> Vec<u8> {
    let mut run = Vec::new();
    for part in parts {
        encode(SessionId(part.session), &part.record(), &mut run);
    }
    run
}

fn decode_all(mut run: &[u8]) -> Result<Vec<(SessionId, Record<'_>)>, BadRecord> {
    let mut records = Vec::new();
    while let Some(record) = next(&mut run)? {
        records.push(record);
    }
    Ok(records)
}

proptest! {
    #![proptest_config(cases(256))]

    #[test]
    fn records_come_back(parts in prop::collection::vec(parts(), 0..6)) {
        let run = run_of(&parts);
        let expected: Vec<_> =
            parts.iter().map(|part| (SessionId(part.session), part.record())).collect();
        prop_assert_eq!(decode_all(&run), Ok(expected));
    }

    #[test]
    fn a_changed_run_is_refused_or_is_another(
        parts in prop::collection::vec(parts(), 1..4),
        at in any::<prop::sample::Index>(),
        bit in 0..8_u8,
        cut in any::<bool>(),
    ) {
        let mut run = run_of(&parts);
        let at = at.index(run.len());
        if cut {
            run.truncate(at);
        } else {
            run[at] ^= 1 << bit;
        }
        if let Ok(records) = decode_all(&run) {
            let mut again = Vec::new();
            for (session, record) in records {
                encode(session, &record, &mut again);
            }
            prop_assert_eq!(again, run);
        }
    }
}

#[test]
fn data_written_in_place_is_the_same_record() {
    let (mut one, mut other) = (Vec::new(), Vec::new());
    encode(SessionId(9), &Record::Data(b"body"), &mut one);
    encode_data(SessionId(9), &mut other, |out| {
        out.extend_from_slice(b"body")
    });
    assert_eq!(one, other);
    assert_eq!(one, b"\x10\0\0\x01\x09\0\0\0\0\0\0\0body");
}

#[test]
fn lengths_have_bounds() {
    assert_eq!(length(&[12, 0]), Ok(None));
    assert_eq!(length(&[11, 0, 0]), Err(BadRecord));
    assert_eq!(length(&[12, 0, 0]), Ok(Some(12)));
    let max = (RECORD_BYTES_MAX as u32).to_le_bytes();
    assert_eq!(length(&max[..3]), Ok(Some(RECORD_BYTES_MAX)));
    let above = (RECORD_BYTES_MAX as u32 + 1).to_le_bytes();
    assert_eq!(length(&above[..3]), Err(BadRecord));
}

#[test]
fn sessions_are_spread_over_the_data_streams_and_stay() {
    let streams: Vec<_> = (0..8).map(|id| stream_of(SessionId(id))).collect();
    assert_eq!(streams, [1, 2, 3, 4, 1, 2, 3, 4]);
    assert_eq!(stream_of(SessionId(u64::MAX)), 4);
}
