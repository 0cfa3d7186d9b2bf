use bytes::{Bytes, BytesMut};
use proptest::prelude::*;

use super::frame::{Decoder, Encoder, Error, Frame};
use super::headers::Headers;

fn headers(pairs: &[(&str, &str)]) -> Headers {
    Headers(pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect())
}

/// Every frame of `bytes` given in pieces of these sizes, pieces of data frames joined.
fn decode(mut bytes: &[u8], sizes: &[usize]) -> Result<Vec<Frame>, Error> {
    let mut decoder = Decoder::new();
    let mut frames: Vec<Frame> = Vec::new();
    let mut sizes = sizes.iter().copied().cycle();
    while !bytes.is_empty() {
        let size = sizes.next().unwrap_or(usize::MAX).clamp(1, bytes.len());
        decoder.buffer().extend_from_slice(&bytes[..size]);
        bytes = &bytes[size..];
        while let Some(frame) = decoder.next()? {
            push(&mut frames, frame);
        }
    }
    Ok(frames)
}

/// Joins data that follows data of the same stream, unless that one was finished.
fn push(frames: &mut Vec<Frame>, frame: Frame) {
    if let (Some(Frame::Data { id, fin: fin @ false, bytes }), Frame::Data { id: next, fin: last, bytes: more }) =
        (frames.last_mut(), &frame)
        && id == next
    {
        *bytes = [&bytes[..], &more[..]].concat().into();
        *fin = *last;
        return;
    }
    frames.push(frame);
}

fn encode(frames: &[Frame]) -> BytesMut {
    let (mut encoder, mut bytes) = (Encoder::new(), BytesMut::new());
    frames.iter().for_each(|frame| encoder.encode(frame, &mut bytes));
    bytes
}

#[test]
fn frames_have_the_bytes_of_the_protocol() {
    let data = |id, fin, bytes: &'static [u8]| Frame::Data { id, fin, bytes: Bytes::from_static(bytes) };
    let cases: [(&str, Frame, &[u8]); 7] = [
        ("data", data(5, false, b"hi"), &[0, 0, 0, 5, 0, 0, 0, 2, b'h', b'i']),
        ("the end of a stream", data(5, true, b""), &[0, 0, 0, 5, 1, 0, 0, 0]),
        ("reset", Frame::Reset { id: 3, status: 5 }, &[0x80, 3, 0, 3, 0, 0, 0, 8, 0, 0, 0, 3, 0, 0, 0, 5]),
        ("ping", Frame::Ping { id: 1 }, &[0x80, 3, 0, 6, 0, 0, 0, 4, 0, 0, 0, 1]),
        ("goaway", Frame::GoAway { last_good: 7, status: 0 }, &[0x80, 3, 0, 7, 0, 0, 0, 8, 0, 0, 0, 7, 0, 0, 0, 0]),
        (
            "window update",
            Frame::WindowUpdate { id: 0, delta: 258 },
            &[0x80, 3, 0, 9, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 1, 2],
        ),
        (
            "the same for a stream",
            Frame::WindowUpdate { id: 9, delta: 1 },
            &[0x80, 3, 0, 9, 0, 0, 0, 8, 0, 0, 0, 9, 0, 0, 0, 1],
        ),
    ];
    for (sentence, frame, bytes) in cases {
        assert_eq!(encode(std::slice::from_ref(&frame)), bytes, "{sentence}");
        assert_eq!(decode(bytes, &[]), Ok(vec![frame]), "{sentence}");
    }
}

/// What zlib itself makes of one header: the dictionary's checksum is in the head of the stream.
#[test]
fn a_header_block_made_by_another_zlib_is_read() {
    let block: &[u8] = &[
        0x78, 0xf9, 0xe3, 0xc6, 0xa7, 0xc2, 0x02, 0xa6, 0x23, 0x46, 0x70, 0x3a, 0x2b, 0x29, 0x4a, 0x4d, 0xcc, 0x85,
        0x16, 0x25, 0xac, 0xa9, 0xa0, 0x80, 0x06, 0x00, 0x00, 0x00, 0xff, 0xff,
    ];
    let mut bytes = vec![0x80, 3, 0, 1, 0, 0, 0, 10 + block.len() as u8, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    bytes.extend_from_slice(block);
    let Ok(frames) = decode(&bytes, &[3]) else { panic!("it is read") };
    let expected = headers(&[("streamtype", "error")]);
    assert_eq!(frames, [Frame::SynStream { id: 1, fin: false, unidirectional: false, headers: expected }]);
}

#[test]
fn what_is_not_spdy_is_refused() {
    for (sentence, bytes, error) in [
        ("another version", &[0x80, 2, 0, 6, 0, 0, 0, 4, 0, 0, 0, 1][..], Error::Version(2)),
        ("a ping without an id", &[0x80, 3, 0, 6, 0, 0, 0, 0], Error::Malformed(6)),
        ("half a reset", &[0x80, 3, 0, 3, 0, 0, 0, 4, 0, 0, 0, 1], Error::Malformed(3)),
        ("a huge control frame", &[0x80, 3, 0, 4, 0, 0xff, 0, 0], Error::TooLarge),
        ("headers that do not unfold", &[0x80, 3, 0, 2, 0, 0, 0, 6, 0, 0, 0, 1, 9, 9], Error::Headers),
        ("HTTP", b"GET / HTTP/1.1\r\n\r\n\x80\x01", Error::Version(0)),
    ] {
        let result = decode(bytes, &[]);
        assert!(result == Err(error) || (sentence == "HTTP" && result.is_ok()), "{sentence}: {result:?}");
    }
    assert_eq!(decode(&[0x80, 3, 0, 99, 0, 0, 0, 1, 0], &[]), Ok(vec![Frame::Unknown { kind: 99 }]), "skipped");
}

fn any_headers() -> impl Strategy<Value = Headers> {
    prop::collection::vec(("[a-z-]{1,12}", "[ -~]{0,40}"), 0..6).prop_map(Headers)
}

fn any_frame() -> impl Strategy<Value = Frame> {
    let id = 1..1000_u32;
    prop_oneof![
        (id.clone(), any::<bool>(), any::<bool>(), any_headers())
            .prop_map(|(id, fin, unidirectional, headers)| { Frame::SynStream { id, fin, unidirectional, headers } }),
        (id.clone(), any::<bool>(), any_headers()).prop_map(|(id, fin, headers)| Frame::SynReply { id, fin, headers }),
        (id.clone(), any::<bool>(), any_headers()).prop_map(|(id, fin, headers)| Frame::Headers { id, fin, headers }),
        (id.clone(), 1..12_u32).prop_map(|(id, status)| Frame::Reset { id, status }),
        any::<u32>().prop_map(|id| Frame::Ping { id }),
        (id.clone(), 0..3_u32).prop_map(|(last_good, status)| Frame::GoAway { last_good, status }),
        (0..1000_u32, 1..100_000_u32).prop_map(|(id, delta)| Frame::WindowUpdate { id, delta }),
        (id, any::<bool>(), prop::collection::vec(any::<u8>(), 0..100_000)).prop_map(|(id, fin, bytes)| Frame::Data {
            id,
            fin,
            bytes: bytes.into()
        }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_chunking_gives_the_same_frames(
        frames in prop::collection::vec(any_frame(), 1..12),
        sizes in prop::collection::vec(1..50_000_usize, 1..8),
    ) {
        let mut expected = Vec::new();
        frames.iter().for_each(|frame| push(&mut expected, frame.clone()));
        let bytes = encode(&frames);
        prop_assert_eq!(decode(&bytes, &[]), Ok(expected.clone()));
        prop_assert_eq!(decode(&bytes, &sizes), Ok(expected));
    }

    #[test]
    fn garbage_never_panics(
        bytes in prop::collection::vec(any::<u8>(), 0..400),
        sizes in prop::collection::vec(1..50_usize, 1..4),
    ) {
        let _ = decode(&bytes, &sizes);
    }

    #[test]
    fn damaged_frames_never_panic(
        frames in prop::collection::vec(any_frame(), 1..4),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
    ) {
        let mut bytes = encode(&frames);
        for (at, byte) in damage {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        let _ = decode(&bytes, &[7, 1000]);
    }
}
