//! Lists of parts, against a model that knows each byte by itself.

use super::*;
use crate::policy::sample::{NOW_S, date_text, fields, response};
use proptest::prelude::*;

fn list(length: u64, ranges: &[Range<u64>]) -> PartList {
    let mut parts = (1..).zip(ranges).map(|(id, range)| Stored { range: range.clone(), id });
    let mut list = PartList::new(Extent::Length(length), parts.next().unwrap());
    for part in parts {
        list.add(part);
    }
    list
}

#[test]
fn what_is_missing_is_between_the_parts() {
    let parts = list(100, &[10..20, 40..60]);
    let missing = |range: Range<u64>| parts.first_missing(&range);
    assert_eq!(missing(12..18), None);
    assert_eq!(missing(0..100), Some(0..10));
    assert_eq!(missing(10..100), Some(20..40));
    assert_eq!(missing(15..35), Some(20..35));
    assert_eq!(missing(60..61), Some(60..61));
    assert_eq!(
        parts.stretches(&(15..50)),
        [
            Stretch::Stored { range: 15..20, id: 1, at: 5 },
            Stretch::Missing(20..40),
            Stretch::Stored { range: 40..50, id: 2, at: 0 },
        ]
    );
    assert!(!parts.is_whole());
    assert!(list(60, &[10..60, 0..15]).is_whole());
}

#[test]
fn a_part_within_another_is_of_no_use() {
    let mut parts = list(100, &[10..20, 30..40]);
    let part = |range, id| Stored { range, id };
    assert_eq!(parts.add(part(12..20, 3)), [part(12..20, 3)]);
    assert_eq!(parts.add(part(5..50, 4)), [part(10..20, 1), part(30..40, 2)]);
    assert_eq!(parts.parts(), [part(5..50, 4)]);
    parts.strike(4);
    assert_eq!(parts.first_missing(&(0..9)), Some(0..9));
}

#[test]
fn the_number_of_parts_is_bounded() {
    let ranges: Vec<_> = (0..PARTS_MAX as u64).map(|n| n * 10..n * 10 + 5).collect();
    let mut parts = list(1_000_000, &ranges);
    let out = parts.add(Stored { range: 900_000..900_001, id: 999 });
    assert_eq!(out, [Stored { range: 900_000..900_001, id: 999 }], "the smallest goes");
    let out = parts.add(Stored { range: 900_000..900_010, id: 999 });
    assert_eq!((out.len(), parts.parts().len()), (1, PARTS_MAX));
    let mut text = Vec::new();
    parts.encode(&mut text);
    assert!(text.len() <= LIST_BYTES_MAX);
}

#[test]
fn a_part_alone_answers_what_it_surely_has() {
    let alone = |extent| PartList::new(extent, Stored { range: 4..9, id: 1 });
    let (open, to_end) = (alone(Extent::Open), alone(Extent::ToEnd));
    let cases = [
        (Spec::FromTo(6, 8), Some(6..9), Some(6..9)),
        (Spec::FromTo(4, 8), Some(4..9), Some(4..9)),
        (Spec::FromTo(3, 8), None, None),
        (Spec::FromTo(6, 9), None, Some(6..9)),
        (Spec::FromTo(9, 9), None, None),
        (Spec::From(6), None, Some(6..9)),
        (Spec::From(9), None, None),
        (Spec::Last(1), None, Some(8..9)),
        (Spec::Last(5), None, Some(4..9)),
        (Spec::Last(6), None, None),
        (Spec::Last(0), None, None),
    ];
    for (spec, if_open, if_to_end) in cases {
        assert_eq!(open.within_alone(spec), if_open, "{spec:?}");
        assert_eq!(to_end.within_alone(spec), if_to_end, "{spec:?}");
    }
}

#[test]
fn a_piece_lies_where_it_says() {
    let piece = |asked, place: &str, len| {
        let mut head = response(206, &[("content-range", place)]);
        head.length = len;
        Piece::of(asked, &head).map(|piece| (piece.range, piece.extent))
    };
    let known = BodyLength::Known;
    let any = Spec::From(0);
    assert_eq!(piece(any, "bytes 0-4/10", known(5)), Some((0..5, Extent::Length(10))));
    assert_eq!(piece(any, "bytes 0-4/10", BodyLength::Chunked), Some((0..5, Extent::Length(10))));
    assert_eq!(piece(any, "bytes 0-4/*", known(5)), Some((0..5, Extent::Open)));
    assert_eq!(piece(Spec::Last(5), "bytes 5-9/*", known(5)), Some((5..10, Extent::ToEnd)));
    // What contradicts itself.
    assert_eq!(piece(Spec::Last(5), "bytes 4-9/10", known(5)), Some((4..9, Extent::ToEnd)));
    assert_eq!(piece(any, "bytes 4-9/10", known(5)), Some((4..9, Extent::Open)));
    assert_eq!(piece(any, "bytes 4-9/10", known(0)), None);
    assert_eq!(piece(any, "bytes 4-9/5", known(6)), None);
    assert_eq!(piece(any, "lines 0-4/10", known(5)), None);
    assert!(Piece { range: 0..5, extent: Extent::Length(5) }.is_whole());
    assert!(!Piece { range: 0..5, extent: Extent::ToEnd }.is_whole());
}

#[test]
fn only_the_same_strong_validator_joins() {
    let (old, now) = (date_text(NOW_S - 90), date_text(NOW_S));
    let tag = |tag: &str| fields(&[("etag", tag)]);
    let dated = |modified: &str| fields(&[("last-modified", modified), ("date", &now)]);
    assert!(is_same(&tag("\"a\""), &tag("\"a\"")));
    assert!(!is_same(&tag("\"a\""), &tag("\"b\"")));
    assert!(!is_same(&tag("W/\"a\""), &tag("W/\"a\"")));
    assert!(!is_same(&tag("\"a\""), &dated(&old)));
    assert!(is_same(&dated(&old), &dated(&old)));
    assert!(!is_same(&dated(&now), &dated(&now)), "it could have changed in that very second");
    assert!(!is_same(&fields(&[]), &fields(&[])));
    assert_eq!(strong_validator(&tag("\"a\"")), Some(&b"\"a\""[..]));
    assert_eq!(strong_validator(&tag("W/\"a\"")), None);
    assert_eq!(strong_validator(&dated(&old)), Some(old.as_bytes()));
    assert_eq!(strong_validator(&dated(&now)), None);
}

#[test]
fn a_sample_is_of_what_is_there_and_bounded() {
    let parts = list(100, &[10..20, 30..70]);
    assert_eq!(parts.sample(100), Some(Spec::FromTo(10, 19)));
    assert_eq!(parts.sample(5), Some(Spec::FromTo(10, 14)));
    assert_eq!(parts.sample(0), Some(Spec::FromTo(10, 10)));
    assert_eq!(parts.sample(u64::MAX), Some(Spec::FromTo(10, 19)));
}

#[test]
fn a_part_joins_replaces_or_is_useless() {
    let stored = |extent| PartList::new(extent, Stored { range: 0..5, id: 1 });
    let (known, open) = (stored(Extent::Length(10)), stored(Extent::Open));
    let (a, b, none) = (fields(&[("etag", "\"a\"")]), fields(&[("etag", "\"b\"")]), fields(&[]));
    let (ten, nine) = (Some(Extent::Length(10)), Some(Extent::Length(9)));
    let (unknown, to_end) = (Some(Extent::Open), Some(Extent::ToEnd));
    let cases = [
        (&known, &a, true, ten, &a, Fit::Joins),
        (&known, &a, false, ten, &a, Fit::Joins),
        (&known, &a, true, nine, &a, Fit::Replaces),
        (&known, &a, true, ten, &b, Fit::Replaces),
        (&known, &none, true, ten, &none, Fit::Replaces),
        (&open, &a, true, ten, &a, Fit::Replaces),
        (&known, &a, true, unknown, &a, Fit::Useless),
        (&known, &a, true, to_end, &a, Fit::Useless),
        (&known, &a, false, unknown, &a, Fit::Useless),
        (&known, &a, true, unknown, &b, Fit::Replaces),
        (&known, &none, true, unknown, &none, Fit::Useless),
        (&known, &none, false, unknown, &none, Fit::Replaces),
        (&open, &a, true, unknown, &a, Fit::Replaces),
        (&known, &a, false, None, &a, Fit::Useless),
        (&known, &a, true, None, &b, Fit::Replaces),
        (&open, &none, false, None, &none, Fit::Useless),
    ];
    for (list, listed, is_fresh, extent, part, expected) in cases {
        let found = fit(list, listed, is_fresh, extent, part);
        assert_eq!(found, expected, "{list:?} {listed:?} {is_fresh} {extent:?} {part:?}");
    }
}

fn any_ranges() -> impl Strategy<Value = Vec<Range<u64>>> {
    proptest::collection::vec((0..200_u64, 1..30_u64), 1..80)
        .prop_map(|list| list.into_iter().map(|(first, len)| first..first + len).collect())
}

proptest! {
    #[test]
    fn bytes_are_there_if_a_part_brought_them(ranges in any_ranges(), asked in (0..230_u64, 1..50_u64)) {
        let mut parts = list(300, &ranges[..1]);
        let mut dropped = false;
        for (id, range) in (2..).zip(&ranges[1..]) {
            let n_before = parts.parts().len();
            let out = parts.add(Stored { range: range.clone(), id });
            dropped |= n_before == PARTS_MAX && out.len() == 1 && parts.parts().len() == PARTS_MAX;
        }
        let asked = asked.0..asked.0 + asked.1;
        let mut at = asked.start;
        for stretch in parts.stretches(&asked) {
            match stretch {
                Stretch::Stored { range, id, at: offset } => {
                    prop_assert_eq!(range.start, at);
                    let part = parts.parts().iter().find(|part| part.id == id).unwrap();
                    prop_assert_eq!(part.range.start + offset, range.start);
                    prop_assert!(range.end <= part.range.end);
                    let brought = &ranges[id as usize - 1];
                    prop_assert_eq!(brought, &part.range);
                    at = range.end;
                }
                Stretch::Missing(range) => {
                    prop_assert_eq!(range.start, at);
                    for byte in range.clone() {
                        prop_assert!(dropped || !ranges.iter().any(|it| it.contains(&byte)));
                    }
                    at = range.end;
                }
            }
        }
        prop_assert_eq!(at, asked.end);
    }

    #[test]
    fn a_list_reads_back(ranges in any_ranges()) {
        let parts = list(300, &ranges);
        let mut text = Vec::new();
        parts.encode(&mut text);
        prop_assert_eq!(PartList::decode(&text), Some(parts));
        for cut in 0..text.len() {
            if let Some(read) = PartList::decode(&text[..cut]) {
                prop_assert!(read.parts().len() < ranges.len());
            }
        }
    }

    #[test]
    fn nothing_panics(text in "(length [0-9]{1,21}|open|to the end)?\n([0-9]{0,21}-[0-9]{0,20} ?[0-9a-g]{0,17}\n){0,3}") {
        if let Some(read) = PartList::decode(text.as_bytes()) {
            let _ = (read.is_whole(), read.stretches(&(0..u64::MAX)), read.within_alone(Spec::Last(3)));
        }
    }
}
