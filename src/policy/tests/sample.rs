//! Heads for tests.

use crate::http::date;
use crate::http::fields::Fields;
use crate::http::head::{
    BodyLength, Expectation, Persistence, RequestHead, RequestParts, ResponseHead,
};
use crate::http::method::Method;
use crate::http::status::Status;
use crate::http::target::Target;
use crate::http::version::Version;

/// A moment to count from, in Unix seconds.
pub(crate) const NOW_S: u64 = 1_700_000_000;

pub(crate) fn date_text(unix_s: u64) -> String {
    String::from_utf8(date::format(unix_s).to_vec()).unwrap()
}

pub(crate) fn fields(list: &[(&str, &str)]) -> Fields {
    let mut fields = Fields::new();
    for (name, value) in list {
        fields.push(name.as_bytes(), value.as_bytes());
    }
    fields
}

pub(crate) fn request(method: &str, list: &[(&str, &str)]) -> RequestHead {
    let parts = RequestParts {
        line: b"",
        method: Method::from_bytes(method.as_bytes()),
        method_text: method.as_bytes(),
        target: Target::parse(Method::Get, b"/x").unwrap(),
        version: Version::Http11,
        fields: fields(list),
        length: BodyLength::None,
        persistence: Persistence::KeepAlive,
        expectation: Expectation::Nothing,
    };
    RequestHead::new(parts, Some(b"a.example")).unwrap()
}

pub(crate) fn response(status: u16, list: &[(&str, &str)]) -> ResponseHead {
    ResponseHead {
        version: Version::Http11,
        status: Status(status),
        reason: b"".into(),
        fields: fields(list),
        length: BodyLength::Known(0),
        content_length: None,
        keeps_alive: true,
    }
}
