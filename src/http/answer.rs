//! The short plain answers that ktrix makes itself.

use crate::http::fields::Fields;
use crate::http::method::Method;
use crate::http::status::Status;

/// Fields and body of an answer that ktrix makes itself: the status, a sentence, and the fields
/// that the case needs (`Retry-After`, `Allow`, `Content-Range`).
///
/// The sentence is fixed text and never repeats a client's bytes. No cache may store the answer.
/// For a status without content the body is empty. The writer adds `Date` and the fields of the
/// framing and of the connection.
pub fn synthetic(status: Status, detail: &str, extra: &[(&str, &str)]) -> (Fields, Vec<u8>) {
    let body = if status.has_no_body(Method::Get) { Vec::new() } else { text(status, detail) };
    let mut fields = Fields::with_capacity(extra.len() + 4, 192);
    if !body.is_empty() {
        fields.push(b"Content-Type", b"text/plain; charset=utf-8");
        fields.push(b"X-Content-Type-Options", b"nosniff");
    }
    fields.push(b"Cache-Control", b"no-store");
    for (name, value) in extra {
        fields.push(name.as_bytes(), value.as_bytes());
    }
    (fields, body)
}

fn text(status: Status, detail: &str) -> Vec<u8> {
    let reason = status.reason();
    let text = match (reason, detail) {
        ("", "") => format!("{}\n", status.0),
        (reason, "") => format!("{} {reason}\n", status.0),
        (reason, detail) => format!("{} {reason}: {detail}\n", status.0),
    };
    text.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_names_its_status_and_the_reason() {
        let (fields, body) =
            synthetic(Status::SERVICE_UNAVAILABLE, "no server", &[("Retry-After", "5")]);
        assert_eq!(body, b"503 Service Unavailable: no server\n");
        assert_eq!(fields.get("cache-control"), Some(&b"no-store"[..]));
        assert_eq!(fields.get("retry-after"), Some(&b"5"[..]));
    }

    #[test]
    fn detail_and_body_are_left_out_where_there_is_none() {
        assert_eq!(synthetic(Status::NOT_FOUND, "", &[]).1, b"404 Not Found\n");
        assert_eq!(synthetic(Status(599), "", &[]).1, b"599\n");
        let (fields, body) = synthetic(Status::NO_CONTENT, "x", &[]);
        assert!(body.is_empty() && !fields.contains("content-type"));
    }
}
