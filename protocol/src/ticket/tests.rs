//! Tickets against hashlib, and what they depend on.

use super::*;

#[test]
fn a_ticket_is_what_another_implementation_computes() {
    // hashlib.blake2s(b"sallyport-ticket-key-1" + b"\1"*32 + b"\2"*32 + b"\3"*32), and so on.
    let ticket = Ticket::derive(&Key([1; 32]), &Key([2; 32]), &[3; 32]);
    assert_eq!(
        hex(ticket.key()),
        "296f177d3061fd37081e4f223096e9e3508df8e8326935b25dcb7249e2471749"
    );
    assert_eq!(ticket.id(), TicketId(0xe374_f271_a8bf_55aa));
    assert_eq!(Ticket::from_key(*ticket.key()), ticket);
}

#[test]
fn every_part_counts() {
    let derive = |client, gateway, hash| {
        Ticket::derive(&Key([client; 32]), &Key([gateway; 32]), &[hash; 32]).id()
    };
    let all = [
        derive(1, 2, 3),
        derive(0, 2, 3),
        derive(1, 0, 3),
        derive(1, 2, 0),
        derive(2, 1, 3),
    ];
    for (at, id) in all.iter().enumerate() {
        assert!(!all[..at].contains(id));
    }
}

#[test]
fn a_ticket_does_not_print_its_key() {
    let ticket = Ticket::from_key([7; 32]);
    assert_eq!(format!("{ticket:?}"), format!("Ticket({})", ticket.id()));
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
