//! Cache-Control as typed directives, RFC 9111 section 5.2.
//!
//! If a directive is repeated or malformed, the meaning that stores and reuses less wins: the
//! smallest of several lifetimes, and zero for one that is not a number (RFC 9111 section 4.2.1).
//! Unknown directives are ignored (section 5.2.3).

use crate::base::chars::eq_ignore_case;
use crate::http::fields::Fields;
use crate::policy::rfc9111::directive::{Argument, Directive, directives};
use crate::policy::rfc9111::scope::Scope;

/// The directives of a response, RFC 9111 section 5.2.2.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ResponseControl {
    /// `no-store`, section 5.2.2.5.
    pub no_store: bool,
    /// `public`, section 5.2.2.9.
    pub public: bool,
    /// `must-revalidate`, section 5.2.2.2.
    pub must_revalidate: bool,
    /// `proxy-revalidate`, section 5.2.2.8.
    pub proxy_revalidate: bool,
    /// `must-understand`, section 5.2.2.3.
    pub must_understand: bool,
    /// `no-transform`, section 5.2.2.6.
    pub no_transform: bool,
    /// `immutable`, RFC 8246.
    pub immutable: bool,
    /// `private`, section 5.2.2.7.
    pub private: Scope,
    /// `no-cache`, section 5.2.2.4.
    pub no_cache: Scope,
    /// `max-age` in seconds, section 5.2.2.1.
    pub max_age: Option<u32>,
    /// `s-maxage` in seconds, section 5.2.2.10.
    pub s_maxage: Option<u32>,
    /// `stale-while-revalidate` in seconds, RFC 5861 section 3.
    pub stale_while_revalidate: Option<u32>,
    /// `stale-if-error` in seconds, RFC 5861 section 4.
    pub stale_if_error: Option<u32>,
}

/// The directives of a request, RFC 9111 section 5.2.1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RequestControl {
    /// `no-cache`, section 5.2.1.4, or `Pragma: no-cache` without a Cache-Control (section 5.4).
    pub no_cache: bool,
    /// `no-store`, section 5.2.1.5.
    pub no_store: bool,
    /// `only-if-cached`, section 5.2.1.7.
    pub only_if_cached: bool,
    /// `no-transform`, section 5.2.1.6.
    pub no_transform: bool,
    /// `max-age` in seconds, section 5.2.1.1.
    pub max_age: Option<u32>,
    /// `min-fresh` in seconds, section 5.2.1.3.
    pub min_fresh: Option<u32>,
    /// `max-stale` in seconds, section 5.2.1.2; `u32::MAX` if it has no argument.
    pub max_stale: Option<u32>,
    /// `stale-if-error` in seconds, RFC 5861 section 4.
    pub stale_if_error: Option<u32>,
}

impl ResponseControl {
    /// The directives of all Cache-Control lines together (RFC 9111 section 5.2).
    pub fn of(fields: &Fields) -> Self {
        Self::parse(fields.get_all("cache-control"))
    }

    /// The directives of these field lines together. Pragma has no meaning in a response
    /// (RFC 9111 section 5.4).
    pub fn parse<'a>(lines: impl Iterator<Item = &'a [u8]>) -> Self {
        let mut control = Self::default();
        for directive in lines.flat_map(directives) {
            control.take(&directive);
        }
        control
    }

    /// Whether a stale response must not be used without validation (RFC 9111 sections 5.2.2.2 and
    /// 5.2.2.8; `s-maxage` implies `proxy-revalidate`, section 5.2.2.10).
    pub const fn forbids_stale(&self) -> bool {
        self.must_revalidate || self.proxy_revalidate || self.s_maxage.is_some()
    }

    /// Whether a shared cache may store the response to a request with Authorization (RFC 9111
    /// section 3.5).
    pub const fn allows_authorized(&self) -> bool {
        self.public || self.must_revalidate || self.s_maxage.is_some()
    }

    fn take(&mut self, directive: &Directive<'_>) {
        // A directive without arguments counts even if it has one.
        let mut name = [0; NAME_BYTES_MAX];
        match lower(directive.name, &mut name) {
            b"no-store" => self.no_store = true,
            b"public" => self.public = true,
            b"must-revalidate" => self.must_revalidate = true,
            b"proxy-revalidate" => self.proxy_revalidate = true,
            b"must-understand" => self.must_understand = true,
            b"no-transform" => self.no_transform = true,
            b"immutable" => self.immutable = true,
            b"private" => self.private = self.private.max(Scope::of(directive.argument)),
            b"no-cache" => self.no_cache = self.no_cache.max(Scope::of(directive.argument)),
            b"max-age" => smallest(&mut self.max_age, directive),
            b"s-maxage" => smallest(&mut self.s_maxage, directive),
            b"stale-while-revalidate" => smallest(&mut self.stale_while_revalidate, directive),
            b"stale-if-error" => smallest(&mut self.stale_if_error, directive),
            _ => {}
        }
    }
}

impl RequestControl {
    /// The directives of Cache-Control, or of Pragma without a Cache-Control (RFC 9111 section
    /// 5.4), in one pass over the fields and without allocation.
    pub fn of(fields: &Fields) -> Self {
        let mut control = Self::default();
        let mut has_control = false;
        let mut has_pragma = false;
        for (name, value) in fields.iter() {
            match name.len() {
                13 if eq_ignore_case(name, b"cache-control") => {
                    has_control = true;
                    control.take_line(value);
                }
                6 if eq_ignore_case(name, b"pragma") => {
                    has_pragma |= directives(value).any(|directive| directive.is("no-cache"));
                }
                _ => {}
            }
        }
        control.no_cache |= has_pragma && !has_control;
        control
    }

    /// Adds the directives of one Cache-Control line.
    pub fn take_line(&mut self, line: &[u8]) {
        for directive in directives(line) {
            self.take(&directive);
        }
    }

    fn take(&mut self, directive: &Directive<'_>) {
        let mut name = [0; NAME_BYTES_MAX];
        match lower(directive.name, &mut name) {
            b"no-cache" => self.no_cache = true,
            b"no-store" => self.no_store = true,
            b"only-if-cached" => self.only_if_cached = true,
            b"no-transform" => self.no_transform = true,
            b"max-age" => smallest(&mut self.max_age, directive),
            b"stale-if-error" => smallest(&mut self.stale_if_error, directive),
            b"min-fresh" => {
                // One that is not a number still asks for a fresh response.
                self.min_fresh = self.min_fresh.max(Some(directive.seconds().unwrap_or(0)));
            }
            b"max-stale" if directive.argument == Argument::None => {
                self.max_stale = Some(self.max_stale.unwrap_or(u32::MAX));
            }
            b"max-stale" => smallest(&mut self.max_stale, directive),
            _ => {}
        }
    }
}

/// Lowers `smallest` to the argument of a directive; one that is not a number is zero.
fn smallest(smallest: &mut Option<u32>, directive: &Directive<'_>) {
    let seconds = directive.seconds().unwrap_or(0);
    *smallest = Some(smallest.map_or(seconds, |before| before.min(seconds)));
}

/// `name` in lower case within `room`; empty, which is no directive, if it is too long.
fn lower<'a>(name: &[u8], room: &'a mut [u8; NAME_BYTES_MAX]) -> &'a [u8] {
    let Some(room) = room.get_mut(..name.len()) else {
        return &[];
    };
    room.copy_from_slice(name);
    room.make_ascii_lowercase();
    room
}

/// The longest known directive name: `stale-while-revalidate`.
const NAME_BYTES_MAX: usize = 22;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::rfc9111::directive::SECONDS_MAX;
    use proptest::prelude::*;

    fn response(lines: &[&str]) -> ResponseControl {
        ResponseControl::parse(lines.iter().map(|line| line.as_bytes()))
    }

    fn request(fields: &[(&str, &str)]) -> RequestControl {
        let mut list = Fields::new();
        for (name, value) in fields {
            list.push(name.as_bytes(), value.as_bytes());
        }
        RequestControl::of(&list)
    }

    #[test]
    fn malformed_max_age_is_zero() {
        let cases: &[(&[&str], Option<u32>)] = &[
            (&[], None),
            (&["max-age=60"], Some(60)),
            (&["MaX-AgE=60"], Some(60)),
            (&["max-age=\"60\""], Some(60)),
            (&["max-age='60'"], Some(0)),
            (&["max-age=-60"], Some(0)),
            (&["max-age=60.0"], Some(0)),
            (&["max-age"], Some(0)),
            (&["max-age="], Some(0)),
            (&["max-age =60"], Some(0)),
            (&["max-age= 60"], Some(0)),
            (&["max-age=60a"], Some(0)),
            (&["max-age=2147483648"], Some(SECONDS_MAX)),
            (&["max-age=999999999999999999999"], Some(SECONDS_MAX)),
            (&["max-age=60, max-age=1"], Some(1)),
            (&["max-age=1, max-age=60"], Some(1)),
            (&["max-age=60", "max-age=1"], Some(1)),
            (&["max-age=60, max-age=x"], Some(0)),
            (&["ext=\"max-age=60\", max-age=1"], Some(1)),
            (&["max-age=1, ext=\"max-age=60\""], Some(1)),
            (&["ext=\"max-age=60\""], None),
            (&["foobar, max-age=60"], Some(60)),
            (&["x-max-age=60", "max-agee=60"], None),
        ];
        for (lines, expected) in cases {
            assert_eq!(response(lines).max_age, *expected, "{lines:?}");
        }
    }

    #[test]
    fn directives_are_found_anywhere_and_in_any_case() {
        let control = response(&[
            "public, No-Store",
            "x=1,MUST-revalidate , proxy-revalidate",
            "must-understand,no-transform, immutable=1",
        ]);
        assert!(control.no_store && control.public && control.must_revalidate);
        assert!(control.proxy_revalidate && control.must_understand);
        assert!(control.no_transform && control.immutable);
        assert!(!response(&["no-storee, xno-store, ext=\"no-store\""]).no_store);
        assert!(response(&["ext=\"open, no-store"]).no_store, "an open quote hides nothing");
    }

    #[test]
    fn pragma_counts_only_without_cache_control() {
        assert!(request(&[("Pragma", "no-cache")]).no_cache);
        assert!(request(&[("pragma", "x, No-Cache")]).no_cache);
        assert!(!request(&[("Pragma", "no-cache"), ("Cache-Control", "max-age=9")]).no_cache);
        assert!(!request(&[("Pragma", "nocache")]).no_cache);
        let control = request(&[
            ("cache-control", "max-age=5, min-fresh=2"),
            ("CACHE-CONTROL", "only-if-cached, min-fresh=7, max-age=3, no-store"),
        ]);
        assert_eq!((control.max_age, control.min_fresh), (Some(3), Some(7)));
        assert!(control.only_if_cached && control.no_store && !control.no_cache);
        assert_eq!(request(&[("cache-control", "min-fresh=x")]).min_fresh, Some(0));
    }

    #[test]
    fn max_stale_takes_the_smallest_bound() {
        let cases: &[(&str, Option<u32>)] = &[
            ("no-transform", None),
            ("max-stale", Some(u32::MAX)),
            ("max-stale=5", Some(5)),
            ("max-stale, max-stale=5", Some(5)),
            ("max-stale=5, max-stale", Some(5)),
            ("max-stale=x", Some(0)),
        ];
        for (line, expected) in cases {
            assert_eq!(request(&[("cache-control", line)]).max_stale, *expected, "{line:?}");
        }
    }

    proptest! {
        #[test]
        fn order_and_layout_of_directives_are_ignored(
            mut members in proptest::collection::vec(
                prop_oneof![
                    Just("no-store"), Just("public"), Just("max-age=7"), Just("max-age=9"),
                    Just("s-maxage=\"3\""), Just("private=\"x\""), Just("no-cache"), Just("odd"),
                ],
                0..6,
            ),
            by_line: bool,
        ) {
            let forward = response(&[&members.join(",")]);
            members.reverse();
            let backward = if by_line {
                response(&members)
            } else {
                response(&[&members.join(" ,\t")])
            };
            prop_assert_eq!(forward, backward);
        }

        #[test]
        fn no_bytes_panic(line in proptest::collection::vec(any::<u8>(), 0..120)) {
            ResponseControl::parse([line.as_slice()].into_iter());
            RequestControl::default().take_line(&line);
        }
    }
}
