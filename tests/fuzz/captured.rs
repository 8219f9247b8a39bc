//! Frames from the network, of which a capture keeps the headers.

use mtproxy_bin::capture::Selection;

use crate::script::Script;

/// Ethernet, and what follows it.
fn good() -> Vec<Vec<u8>> {
    let frame = |ethertype: [u8; 2], rest: &[&[u8]]| [&[2; 12], &ethertype[..], &rest.concat()].concat();
    let ipv4 = |protocol: u8, len: u8| {
        [&[0x45, 0, 0, len, 0, 0, 0x40, 0, 64, protocol, 0, 0][..], &[192, 0, 2, 1], &[192, 0, 2, 2]].concat()
    };
    let ipv6 =
        |next: u8, len: u8| [&[0x60, 0, 0, 0, 0, len, next, 64][..], &[0xfd; 16][..], &[0xfe; 16]].concat();
    let tcp = [&[0x01, 0xbb, 0xc3, 0x50][..], &[0; 8], &[0x80, 0x18, 1, 0, 0, 0, 0, 0], &[1; 12]].concat();
    let icmp = [&[3, 4, 0, 0, 0, 0, 5, 0][..], &ipv4(6, 40), &tcp[..8]].concat();
    vec![
        frame([0x08, 0x00], &[&ipv4(6, 72), &tcp, &[0x70; 20]]),
        frame([0x86, 0xdd], &[&ipv6(6, 52), &tcp, &[0x70; 20]]),
        frame([0x81, 0x00], &[&[0, 5, 0x08, 0x00], &ipv4(6, 52), &tcp]),
        frame([0x86, 0xdd], &[&ipv6(0, 60), &[6, 0, 0, 0, 0, 0, 0, 0], &tcp, &[0x70; 20]]),
        frame([0x08, 0x00], &[&ipv4(1, 56), &icmp]),
        frame([0x08, 0x06], &[&[0; 28]]),
    ]
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    crate::script::behind(&[0, 1], &good())
}

pub(crate) fn run(input: &[u8]) {
    let mut script = Script::new(input);
    let payload_bytes = u16::from(script.byte());
    let one_in = u32::from(script.byte()) + 1;
    let frame = script.text(&good());
    let headers = Selection { payload_bytes: 0, ..Selection::default() };
    let kept = headers.kept(&frame, 1).expect("everything is selected");
    assert!(kept <= frame.len() && kept <= headers.kept_bytes_max());
    let more = Selection { payload_bytes, one_in, ..Selection::default() };
    if let Some(with_payload) = more.kept(&frame, 1) {
        assert!(
            (kept..=kept + usize::from(payload_bytes)).contains(&with_payload) && with_payload <= frame.len()
        );
    }
}
