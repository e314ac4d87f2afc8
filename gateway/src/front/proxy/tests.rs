use rand_chacha::ChaCha20Rng;
use rand_core::{RngCore, SeedableRng};

use super::*;

const CLIENT: &str = "192.0.2.9:40000";

fn client_source() -> Source {
    Source::Client(CLIENT.parse().unwrap())
}

/// A header of version 2 with a family, its address bytes and extensions.
fn v2_header(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
    let mut header = v2::PROTOCOL_PREFIX.to_vec();
    header.extend([0x20 | command, family]);
    header.extend((body.len() as u16).to_be_bytes());
    header.extend(body);
    header
}

fn ipv4_body() -> Vec<u8> {
    let mut body = vec![192, 0, 2, 9, 10, 0, 0, 1];
    body.extend(40_000u16.to_be_bytes());
    body.extend(7_000u16.to_be_bytes());
    body
}

/// Appends a checksum, as its definition says: over all, itself as zeros.
fn with_crc(command: u8, family: u8, mut body: Vec<u8>, behind: &[u8]) -> Vec<u8> {
    body.extend([TLV_CRC32C, 0, 4]);
    let at = V2_FIXED_BYTES + body.len();
    body.extend([0; 4]);
    body.extend(behind);
    let mut header = v2_header(command, family, &body);
    let crc = crc32c::crc32c(&header).to_be_bytes();
    header[at..at + 4].copy_from_slice(&crc);
    header
}

fn take(bytes: &[u8]) -> Result<(Option<Source>, Vec<u8>), BadProxyHeader> {
    let mut bytes = bytes.to_vec();
    let mut data = &mut bytes[..];
    let source = ProxyHeader::default().take(&mut data)?;
    Ok((source, data.to_vec()))
}

fn good() -> Vec<(Vec<u8>, Source)> {
    let ipv6: SocketAddr = "[2001:db8::9]:40000".parse().unwrap();
    let mut ipv6_body = Vec::new();
    for ip in ["2001:db8::9", "2001:db8::1"] {
        ipv6_body.extend(ip.parse::<std::net::Ipv6Addr>().unwrap().octets());
    }
    ipv6_body.extend(40_000u16.to_be_bytes());
    ipv6_body.extend(7_000u16.to_be_bytes());
    let noop = [4, 0, 2, 0, 0];
    vec![
        (
            b"PROXY TCP4 192.0.2.9 10.0.0.1 40000 7000\r\n".to_vec(),
            client_source(),
        ),
        (
            b"PROXY TCP6 2001:db8::9 2001:db8::1 40000 7000\r\n".to_vec(),
            Source::Client(ipv6),
        ),
        (
            b"PROXY TCP6 ::ffff:192.0.2.9 ::ffff:10.0.0.1 40000 7000\r\n".to_vec(),
            client_source(),
        ),
        (b"PROXY UNKNOWN\r\n".to_vec(), Source::Balancer),
        (
            b"PROXY UNKNOWN ffff:f ffff:f 65535 65535\r\n".to_vec(),
            Source::Balancer,
        ),
        (v2_header(1, 0x11, &ipv4_body()), client_source()),
        (v2_header(1, 0x21, &ipv6_body), Source::Client(ipv6)),
        (
            v2_header(1, 0x11, &[ipv4_body(), noop.to_vec()].concat()),
            client_source(),
        ),
        (with_crc(1, 0x11, ipv4_body(), &[]), client_source()),
        (with_crc(1, 0x11, ipv4_body(), &noop), client_source()),
        (with_crc(1, 0x21, ipv6_body, &noop), Source::Client(ipv6)),
        // LOCAL: whatever follows is ignored.
        (v2_header(0, 0x00, &[]), Source::Balancer),
        (v2_header(0, 0x00, &[1, 2]), Source::Balancer),
        (v2_header(0, 0x11, &ipv4_body()), Source::Balancer),
        (with_crc(0, 0x00, Vec::new(), &[]), Source::Balancer),
        // UNSPEC and AF_UNIX: no address of ours.
        (v2_header(1, 0x00, &[9; 20]), Source::Balancer),
        (v2_header(1, 0x31, &[7; 216]), Source::Balancer),
    ]
}

#[test]
fn good_headers_are_read_and_what_follows_is_left() {
    for (header, source) in good() {
        for behind in [&b""[..], b"x", b"PROXY TCP4 more", &[0; 3_000]] {
            let whole = [&header[..], behind].concat();
            assert_eq!(
                take(&whole),
                Ok((Some(source), behind.to_vec())),
                "{header:?}"
            );
        }
    }
}

#[test]
fn a_header_may_come_in_pieces() {
    for (header, source) in good() {
        let whole = [&header[..], b"behind"].concat();
        for piece in [1, 2, 3, 5, 16, 17, 100] {
            let mut bytes = whole.clone();
            let mut proxy = ProxyHeader::default();
            let mut found = None;
            let mut at = 0;
            while found.is_none() {
                let end = (at + piece).min(bytes.len());
                let mut data = &mut bytes[at..end];
                let offered = data.len();
                found = proxy.take(&mut data).expect("a good header");
                assert!(found.is_some() || data.is_empty());
                at += offered - data.len();
            }
            assert_eq!(
                (found, at),
                (Some(source), header.len()),
                "{header:?} by {piece}"
            );
        }
    }
}

#[test]
fn bad_headers_are_refused() {
    let long = [&b"PROXY UNKNOWN "[..], &[b'x'; 200]].concat();
    let mut too_long = v2_header(1, 0x11, &ipv4_body());
    too_long[14..16].copy_from_slice(&((PROXY_V2_BYTES_MAX - 15) as u16).to_be_bytes());
    let mut wrong_crc = with_crc(1, 0x11, ipv4_body(), &[]);
    *wrong_crc.last_mut().unwrap() ^= 1;
    let mut moved = with_crc(1, 0x11, ipv4_body(), &[]);
    moved[19] ^= 1;
    let bad: Vec<Vec<u8>> = vec![
        b"GET / HTTP/1.1\r\n".to_vec(),
        b"\x44\x00\x00\x01hello".to_vec(),
        b"PROXX".to_vec(),
        b"PROXY\tTCP4".to_vec(),
        b"PROXY TCP4 192.0.2.9 10.0.0.1 40000 7000\n".to_vec(),
        b"PROXY TCP4 192.0.2.9 10.0.0.1 40000\r\n".to_vec(),
        b"PROXY TCP4 192.0.2.900 10.0.0.1 40000 7000\r\n".to_vec(),
        b"PROXY TCP4 192.0.2.9 10.0.0.1 040 7000\r\n".to_vec(),
        b"PROXY TCP4 192.0.2.9 10.0.0.1 70000 7000\r\n".to_vec(),
        b"PROXY UDP4 192.0.2.9 10.0.0.1 40000 7000\r\n".to_vec(),
        b"PROXY UNKNOWN\rx\n".to_vec(),
        long,
        too_long,
        wrong_crc,
        moved,
        // Version 1 in binary, an unknown command, an unknown family.
        [v2::PROTOCOL_PREFIX, &[0x11, 0x11, 0, 0]].concat(),
        v2_header(2, 0x11, &ipv4_body()),
        v2_header(1, 0x41, &ipv4_body()),
        // Too short for its addresses, and an extension that is cut.
        v2_header(1, 0x21, &ipv4_body()),
        v2_header(1, 0x11, &[ipv4_body(), vec![4, 0, 9, 1]].concat()),
        v2_header(1, 0x11, &[ipv4_body(), vec![3, 0, 2, 1, 1]].concat()),
    ];
    for bytes in bad {
        assert_eq!(take(&bytes), Err(BadProxyHeader), "{bytes:?}");
    }
}

#[test]
fn it_never_waits_beyond_its_bound() {
    // The longest line and the longest header that may still go on.
    let line = [&b"PROXY UNKNOWN "[..], &[b'x'; PROXY_V1_BYTES_MAX]].concat();
    assert_eq!(take(&line[..PROXY_V1_BYTES_MAX - 1]), Ok((None, vec![])));
    assert_eq!(take(&line[..PROXY_V1_BYTES_MAX]), Err(BadProxyHeader));
    let header = v2_header(1, 0x00, &[0; PROXY_V2_BYTES_MAX - V2_FIXED_BYTES]);
    assert_eq!(take(&header[..PROXY_V2_BYTES_MAX - 1]), Ok((None, vec![])));
    assert_eq!(take(&header), Ok((Some(Source::Balancer), vec![])));
}

#[test]
fn mutations_never_panic_and_keep_the_bound() {
    let mut random = ChaCha20Rng::seed_from_u64(7);
    let good = good();
    for round in 0..20_000 {
        let (header, _) = &good[round % good.len()];
        let mut bytes = header.clone();
        for _ in 0..=random.next_u32() % 4 {
            let at = random.next_u32() as usize % bytes.len();
            match random.next_u32() % 4 {
                0 => bytes[at] = random.next_u32() as u8,
                1 => bytes[at] ^= 1 << (random.next_u32() % 8),
                2 => bytes.truncate(at.max(1)),
                _ => bytes.insert(at, random.next_u32() as u8),
            }
        }
        bytes.extend([b'z'; 1_200]);
        let piece = 1 + random.next_u32() as usize % 64;
        let mut proxy = ProxyHeader::default();
        let mut taken = 0;
        let mut last = Ok(None);
        for chunk in bytes.chunks_mut(piece) {
            let mut data = chunk;
            let offered = data.len();
            last = proxy.take(&mut data);
            taken += offered - data.len();
            assert!(proxy.partial.len() <= PROXY_V2_BYTES_MAX);
            if last != Ok(None) {
                break;
            }
        }
        assert_ne!(last, Ok(None), "it came to an end");
        assert!(taken <= PROXY_V2_BYTES_MAX);
    }
}
