//! The origin of the demonstration: five pages over HTTP/1.1, a thread for each connection.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::http::date;

/// Every page, and its purpose.
pub(super) const PAGES: [(&str, &str); 5] = [
    ("/", "a page that is fresh for a minute"),
    ("/picture", "a picture that is fresh for an hour"),
    ("/slow", "a page that takes the origin two seconds"),
    ("/stale", "a page that is fresh for three seconds, then served stale while it is fetched"),
    ("/never", "a page that must not be stored"),
];

/// A page as slow as `/slow`, for two requests at once: `/slow` may be stored already.
pub(super) const TOGETHER: &str = "/slow/together";

/// The origin's answer to one request.
struct Answer {
    status: &'static str,
    content_type: &'static str,
    cache_control: &'static str,
    body: Vec<u8>,
}

/// Answers until the process ends, and counts the requests.
pub(super) fn serve(listener: &TcpListener, n_requests: &Arc<AtomicU64>) {
    for stream in listener.incoming().flatten() {
        let n_requests = Arc::clone(n_requests);
        // A connection that gets no thread is closed, and ktrix asks again.
        let _ = thread::Builder::new().spawn(move || serve_connection(&stream, &n_requests));
    }
}

/// Serves one connection, until it is closed or sends something unexpected.
fn serve_connection(stream: &TcpStream, n_requests: &AtomicU64) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream);
    let mut writer = stream;
    while let Some(head) = read_head(&mut reader)? {
        n_requests.fetch_add(1, Ordering::Relaxed);
        let mut words = head.split(' ');
        let (method, target) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
        let answer = answer(target.split('?').next().unwrap_or(""));
        writer.write_all(&bytes_of(&answer, method != "HEAD"))?;
    }
    Ok(())
}

/// The request line, once the head is complete; requests of the demonstration have no body.
fn read_head(reader: &mut impl BufRead) -> io::Result<Option<String>> {
    let mut reader = reader.take(HEAD_BYTES_MAX);
    let mut first = String::new();
    reader.read_line(&mut first)?;
    let mut line = first.clone();
    while !line.trim_end().is_empty() {
        line.clear();
        if reader.read_line(&mut line)? == 0 {
            return Ok(None);
        }
    }
    Ok((!first.trim_end().is_empty()).then_some(first))
}

fn answer(path: &str) -> Answer {
    let page = |cache_control, text: String| Answer {
        status: "200 OK",
        content_type: "text/html; charset=utf-8",
        cache_control,
        body: format!("<!doctype html>\n<title>ktrix</title>\n<p>{text}</p>\n").into_bytes(),
    };
    match path {
        "/" => page("max-age=60", format!("A page that the origin wrote {}.", written())),
        "/picture" => Answer {
            status: "200 OK",
            content_type: "image/png",
            cache_control: "max-age=3600",
            body: PICTURE.to_vec(),
        },
        "/slow" | TOGETHER => {
            thread::sleep(Duration::from_secs(2));
            page("max-age=60", format!("A page that took two seconds, written {}.", written()))
        }
        "/stale" => {
            let text = format!("A page that may be served stale, written {}.", written());
            page("max-age=3, stale-while-revalidate=3600", text)
        }
        "/never" => page("no-store", format!("Written {}, for you alone.", written())),
        _ => Answer { status: "404 Not Found", ..page("max-age=5", "No such page.".to_owned()) },
    }
}

fn written() -> String {
    format!("on {}", date_text())
}

fn date_text() -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    String::from_utf8_lossy(&date::format(since.as_secs())).into_owned()
}

fn bytes_of(answer: &Answer, has_body: bool) -> Vec<u8> {
    let date = date_text();
    let mut bytes = format!(
        "HTTP/1.1 {}\r\nDate: {date}\r\nContent-Type: {}\r\nCache-Control: {}\r\n\
         Content-Length: {}\r\n\r\n",
        answer.status,
        answer.content_type,
        answer.cache_control,
        answer.body.len()
    )
    .into_bytes();
    if has_body {
        bytes.extend_from_slice(&answer.body);
    }
    bytes
}

const HEAD_BYTES_MAX: u64 = 64 * 1024;
const PICTURE: &[u8] = include_bytes!("picture.png");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_page_is_answered_as_described() {
        for (path, _) in PAGES.into_iter().filter(|(path, _)| *path != "/slow") {
            assert_eq!(answer(path).status, "200 OK", "{path}");
        }
        assert_eq!(answer("/never").cache_control, "no-store");
        assert_eq!(answer("/x").status, "404 Not Found");
        assert!(answer("/picture").body.starts_with(b"\x89PNG\r\n"));
    }

    #[test]
    fn requests_follow_one_another_on_a_connection() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (stream, _) = listener.accept().unwrap();
        let origin = thread::spawn(move || {
            let n_requests = AtomicU64::new(0);
            serve_connection(&stream, &n_requests).map(|()| n_requests.into_inner())
        });
        client.write_all(b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\nGET /x?y HTTP/1.1\r\n\r\n").unwrap();
        client.shutdown(std::net::Shutdown::Write).unwrap();
        let mut said = String::new();
        client.read_to_string(&mut said).unwrap();
        assert_eq!(origin.join().unwrap().unwrap(), 2);
        assert!(said.starts_with("HTTP/1.1 200 OK\r\n"), "{said}");
        assert!(said.contains("\r\n\r\nHTTP/1.1 404 Not Found\r\n"), "{said}");
    }
}
