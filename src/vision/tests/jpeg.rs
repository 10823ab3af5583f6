//! JPEGs as cameras send them: without tables, with restart intervals, and damaged on the way.

use jpeg_encoder::{ColorType, Encoder, SamplingFactor};
use peregrine_vision::preprocess::jpeg::{checked, JpegFault};
use peregrine_vision::preprocess::{compressed, Decompressor};
use proptest::prelude::*;

const WIDTH: u16 = 211;
const HEIGHT: u16 = 149;

/// How a test's JPEG is encoded.
#[derive(Debug, Clone, Copy)]
struct Kind {
    color: ColorType,
    sampling: SamplingFactor,
    progressive: bool,
    restart_interval: u16,
}

const PLAIN: Kind =
    Kind { color: ColorType::Rgb, sampling: SamplingFactor::F_2_2, progressive: false, restart_interval: 0 };

fn kinds() -> impl Iterator<Item = Kind> {
    let colors = [
        (ColorType::Rgb, SamplingFactor::F_2_2),
        (ColorType::Rgb, SamplingFactor::F_2_1),
        (ColorType::Rgb, SamplingFactor::F_1_1),
        (ColorType::Luma, SamplingFactor::F_1_1),
    ];
    let passes = [false, true].into_iter().flat_map(|progressive| [0, 7, 14].map(|interval| (progressive, interval)));
    passes.flat_map(move |(progressive, restart_interval)| {
        colors.map(|(color, sampling)| Kind { color, sampling, progressive, restart_interval })
    })
}

/// A picture with detail everywhere.
fn encode(kind: Kind) -> Vec<u8> {
    let channels = if kind.color == ColorType::Luma { 1 } else { 3 };
    let value = |i: usize| {
        let (x, y, c) = (i / channels % usize::from(WIDTH), i / channels / usize::from(WIDTH), i % channels);
        ((x * (5 + c) + y * 3) ^ (x * y / 7)) as u8
    };
    let pixels: Vec<u8> = (0..usize::from(WIDTH) * usize::from(HEIGHT) * channels).map(value).collect();
    let mut bytes = Vec::new();
    let mut encoder = Encoder::new(&mut bytes, 75);
    encoder.set_sampling_factor(kind.sampling);
    encoder.set_progressive(kind.progressive);
    encoder.set_restart_interval(kind.restart_interval);
    encoder.encode(&pixels, WIDTH, HEIGHT, kind.color).unwrap();
    bytes
}

/// The pixels, or the reason why there are none.
fn decode(bytes: &[u8]) -> Result<Vec<u8>, &'static str> {
    let mut decompressor = Decompressor::new();
    let view = decompressor.decode(bytes).map_err(|error| error.reason())?;
    Ok(view.without_gaps().unwrap().to_vec())
}

/// Where the segments of a marker begin.
fn segments(bytes: &[u8], marker: u8) -> Vec<usize> {
    let (mut at, mut found) = (2, vec![]);
    loop {
        if bytes[at + 1] == marker {
            found.push(at);
        }
        if bytes[at + 1] == 0xDA {
            return found;
        }
        at += 2 + usize::from(u16::from_be_bytes([bytes[at + 2], bytes[at + 3]]));
    }
}

/// Without the segments of a marker.
fn without(bytes: &[u8], marker: u8) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for at in segments(&bytes, marker).into_iter().rev() {
        let length = 2 + usize::from(u16::from_be_bytes([bytes[at + 2], bytes[at + 3]]));
        bytes.drain(at..at + length);
    }
    bytes
}

/// Where the first scan's compressed data begins, and the places of its restart markers and of the marker that ends it.
fn scan(bytes: &[u8]) -> (usize, Vec<usize>) {
    let header = segments(bytes, 0xDA)[0];
    let start = header + 2 + usize::from(bytes[header + 3]);
    let mut markers = vec![];
    for at in start.. {
        match bytes[at..at + 2] {
            [0xFF, 0x00] => {}
            [0xFF, 0xD0..=0xD7] => markers.push(at),
            [0xFF, _] => {
                markers.push(at);
                return (start, markers);
            }
            _ => {}
        }
    }
    unreachable!("a scan ends")
}

#[test]
fn frames_without_huffman_tables_decode_with_the_standard_ones() {
    for kind in kinds().filter(|kind| !kind.progressive) {
        let whole = encode(kind);
        let bare = without(&whole, 0xC4);
        assert!(bare.len() < whole.len());
        assert_eq!(decode(&bare), decode(&whole), "{kind:?}");
        assert_eq!(compressed::check(&bare).map_err(|error| error.to_string()), Ok(()));
        // The decoder of the training programs takes what comes out of this.
        let complete = image::load_from_memory(&checked(&bare).unwrap()).unwrap();
        assert_eq!(complete.into_bytes(), image::load_from_memory(&whole).unwrap().into_bytes());
    }
}

#[test]
fn tables_of_its_own_are_kept() {
    let whole = encode(PLAIN);
    assert!(matches!(checked(&whole), Ok(std::borrow::Cow::Borrowed(_))));
}

#[test]
fn whole_images_of_every_kind_are_decoded() {
    for kind in kinds() {
        let bytes = encode(kind);
        let channels = if kind.color == ColorType::Luma { 1 } else { 3 };
        let expected = usize::from(WIDTH) * usize::from(HEIGHT) * channels;
        assert_eq!(decode(&bytes).map(|pixels| pixels.len()), Ok(expected), "{kind:?}");
        assert_eq!(checked(&bytes).err(), None, "{kind:?}");
    }
}

#[test]
fn padding_fill_bytes_and_what_follows_the_end_are_no_damage() {
    for kind in kinds() {
        let bytes = encode(kind);
        let expected = decode(&bytes);
        let (_, markers) = scan(&bytes);
        let mut variants = vec![];
        // A film with markers in it, a second picture, a driver's padding.
        for tail in [&b"\0\0\0\x18ftypmp42\xff\xda\0\x08\xff\xd8\x12\x34"[..], &bytes, &[0; 4096], &[0xFF; 9]] {
            variants.push([&bytes, tail].concat());
        }
        for &at in &markers {
            // Fill bytes before a marker (B.1.1.2), zeros and a few odd bytes behind the data.
            for padding in [&[0xFF; 5][..], &[0; 3], &[0; 100], &[0x5A, 0xA5]] {
                let is_read = !kind.progressive || padding[0] == 0xFF;
                if is_read {
                    variants.push([&bytes[..at], padding, &bytes[at..]].concat());
                }
            }
        }
        if kind.restart_interval > 0 && !kind.progressive {
            let last = markers.len() - 1;
            let closing = [0xFF, 0xD0 + (last % 8) as u8];
            variants.push([&bytes[..markers[last]], &closing, &bytes[markers[last]..]].concat());
        }
        for (i, variant) in variants.iter().enumerate() {
            assert_eq!(decode(variant), expected, "{kind:?}, {i}");
        }
    }
}

#[test]
fn a_lost_doubled_or_moved_restart_interval_is_damage() {
    for kind in kinds().filter(|kind| kind.restart_interval > 0) {
        let bytes = encode(kind);
        let (start, markers) = scan(&bytes);
        assert!(markers.len() > 9, "{kind:?}");
        // An interval from its own marker to the next one; the first has none.
        let mut damaged = vec![[&bytes[..start], &bytes[markers[0] + 2..]].concat()];
        for i in 0..markers.len() - 1 {
            let (from, to) = (markers[i], markers[i + 1]);
            damaged.push([&bytes[..from], &bytes[to..]].concat());
            damaged.push([&bytes[..to], &bytes[from..]].concat());
            damaged.push([&bytes[..from], &bytes[from + 2..]].concat());
            // Eight are lost, so that the numbers go on as if nothing were.
            if let Some(&to) = markers[..markers.len()].get(i + 8) {
                damaged.push([&bytes[..from], &bytes[to..]].concat());
                damaged.push([&bytes[..to], &bytes[from..]].concat());
            }
        }
        // The last, with its marker or without.
        let [.., from, to] = markers[..] else { panic!("several") };
        damaged.push([&bytes[..from + 2], &bytes[to..]].concat());
        for (i, damaged) in damaged.iter().enumerate() {
            assert!(decode(damaged).is_err(), "{kind:?}, {i}");
            assert!(checked(damaged).is_err(), "{kind:?}, {i}");
        }
    }
}

#[test]
fn a_lost_interval_is_found_on_arrival_and_explained() {
    let bytes = encode(Kind { restart_interval: 14, ..PLAIN });
    let (_, markers) = scan(&bytes);
    let damaged = [&bytes[..markers[2]], &bytes[markers[3]..]].concat();
    let error = compressed::check(&damaged).unwrap_err();
    assert_eq!(error.reason(), "damaged");
    let expected = "the JPEG image has restart marker 3 where 2 is due: restart intervals were lost or doubled";
    assert_eq!(error.to_string(), expected);
}

#[test]
fn a_wrong_restart_interval_is_damage() {
    for kind in kinds().filter(|kind| kind.restart_interval > 0 && !kind.progressive) {
        let bytes = encode(kind);
        let at = segments(&bytes, 0xDD)[0];
        for interval in [0, 1, kind.restart_interval - 1, kind.restart_interval + 1, 2 * kind.restart_interval, 999] {
            let mut damaged = bytes.clone();
            damaged[at + 4..at + 6].copy_from_slice(&interval.to_be_bytes());
            assert!(decode(&damaged).is_err(), "{kind:?}, {interval}");
        }
        assert_eq!(checked(&without(&bytes, 0xDD)).unwrap_err(), JpegFault::UndeclaredRestart);
    }
}

#[test]
fn bytes_lost_without_a_restart_marker_are_damage() {
    for kind in kinds().filter(|kind| !kind.progressive) {
        let bytes = encode(kind);
        let (start, markers) = scan(&bytes);
        let end = *markers.last().unwrap();
        for place in 0..40 {
            let from = start + (end - start) * place / 40;
            let lost = [&bytes[..from], &bytes[(from + 300).min(end)..]].concat();
            assert!(decode(&lost).is_err(), "{kind:?}: 300 bytes at {from}");
            let cut = [&bytes[..from], &bytes[end..]].concat();
            assert!(decode(&cut).is_err(), "{kind:?}: all from {from} to the end marker");
        }
    }
}

#[test]
fn a_picture_whose_height_is_damaged_is_refused() {
    let bytes = encode(PLAIN);
    let at = segments(&bytes, 0xC0)[0];
    for height in [0, HEIGHT - 40, HEIGHT + 40] {
        let mut damaged = bytes.clone();
        damaged[at + 5..at + 7].copy_from_slice(&height.to_be_bytes());
        assert!(decode(&damaged).is_err(), "{height}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn whatever_happens_to_a_jpeg_there_is_no_panic(
        kind in prop::sample::select(kinds().collect::<Vec<_>>()),
        cuts in prop::collection::vec((any::<prop::sample::Index>(), 0usize..200), 0..3),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
    ) {
        let mut bytes = encode(kind);
        for (at, length) in cuts {
            let at = at.index(bytes.len());
            bytes.drain(at..(at + length).min(bytes.len() - 1));
        }
        for (at, value) in damage {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        let _ = (decode(&bytes), checked(&bytes), compressed::check(&bytes));
    }

    #[test]
    fn any_bytes_behind_a_jpegs_first_are_read_without_a_panic(
        bytes in prop::collection::vec(prop_oneof![Just(0xFFu8), 0xC0u8..=0xDF, any::<u8>()], 0..600),
    ) {
        let bytes = [&[0xFF, 0xD8, 0xFF][..], &bytes].concat();
        let _ = (decode(&bytes), checked(&bytes));
    }
}
