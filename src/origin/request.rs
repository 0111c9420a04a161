//! One request to an origin, on a connection of a pool, and the heads of its response.
//!
//! ```text
//! Sending ─ 1xx ─▶ Sending
//!    └── all written, or an early answer ──▶ Heads ─ 1xx ─▶ Heads
//!                                              └── final ─▶ OriginBody
//! ```

use std::future::Future;
use std::io::{self, IoSlice};
use std::mem;
use std::pin::pin;

use crate::disk::file::DiskFile;
use crate::http::h1::head::{self, HeadLimits};
use crate::http::head::ResponseHead;
use crate::http::method::Method;
use crate::http::status::Status;
use crate::http::upgrade;
use crate::origin::connection::Connection;
use crate::origin::upload::Upload;
use crate::origin::upstream::OriginLimits;
use crate::policy::reason::fetch::FetchError;
use crate::reactor::pipe::Pipe;
use crate::reactor::spare::Buffer;
use crate::reactor::{self, scratch};
use crate::sys::pinned::Race;
use crate::transport::Transport;

/// The most that one read takes.
const READ_BYTES: usize = 64 << 10;

/// The most that one call sends of a file, and that is brought into memory for it.
const FILE_PART_BYTES: u64 = 2 << 20;

/// Interim responses that are taken before a response counts as broken.
const INTERIM_MAX: usize = 16;

/// A request under way on a connection.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) connection: Connection,
    method: Method,
    limits: OriginLimits,
    /// The protocols that it asks to switch to; empty if it does not.
    pub(super) protocols: Vec<u8>,
    /// Read, not yet used.
    pub(super) inbox: Buffer,
    n_interim: usize,
    /// Interim responses that came while the request was sent, to be passed on; at most
    /// `INTERIM_MAX`.
    early: Vec<ResponseHead>,
    /// The whole request was written, so that the connection may be used again.
    pub(super) is_sent: bool,
    pub(super) is_eof: bool,
    /// Some byte of the request was written, so that the origin may have acted on it.
    has_sent: bool,
}

/// Why there is no answer; `E` is the error of the request's [`Upload`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FetchFailure<E> {
    /// The origins or this machine failed.
    Fetch(FetchError),
    /// The request's body broke off, or an interim response could not be passed on.
    Upload(E),
    /// All clients that waited for the answer are gone.
    Gone,
}

impl Request {
    pub(super) fn new(connection: Connection, method: Method, limits: OriginLimits) -> Self {
        Self {
            connection,
            method,
            limits,
            protocols: Vec::new(),
            inbox: Buffer::take(),
            n_interim: 0,
            early: Vec::new(),
            is_sent: false,
            is_eof: false,
            has_sent: false,
        }
    }

    /// Whether any byte of the request was written.
    pub(super) fn has_sent(&self) -> bool {
        self.has_sent
    }

    /// Whether any byte of a response has come.
    pub(super) fn has_answered(&self) -> bool {
        !self.inbox.is_empty() || self.n_interim > 0
    }

    /// Sends the request: `head` as it goes over the wire, and its body. Ends early, without an
    /// error, if the origin answers before it has received everything. Interim responses are passed
    /// on meanwhile.
    pub(super) async fn send<U: Upload>(
        &mut self,
        head: &[u8],
        body: &mut U,
    ) -> Result<(), FetchFailure<U::Error>> {
        if let Some(bytes) = body.in_memory() {
            let sent = self.write(head, bytes).await.map_err(FetchFailure::Fetch)?;
            self.is_sent = sent == Sent::Whole;
            return self.pass_on_early(body).await;
        }
        if let Some((file, len)) = body.in_file() {
            let sent = Box::pin(self.write_file(head, &file, len)).await;
            self.is_sent = sent.map_err(FetchFailure::Fetch)? == Sent::Whole;
            return self.pass_on_early(body).await;
        }
        let mut out = head.to_vec();
        let mut more = body.next(&mut out).await.map_err(FetchFailure::Upload)?;
        loop {
            let mut sent = self.write(&out, b"").await.map_err(FetchFailure::Fetch)?;
            if sent == Sent::Whole && body.gives_pipe() && self.transport().has_pipes() {
                sent = Box::pin(self.splice(body)).await?;
            }
            self.pass_on_early(body).await?;
            if sent == Sent::Interrupted {
                return Ok(());
            }
            if !more {
                self.is_sent = true;
                return Ok(());
            }
            out.clear();
            more = loop {
                let next = body.next(&mut out);
                match self.first_of(next).await.map_err(FetchFailure::Fetch)? {
                    First::Work(next) => break next.map_err(FetchFailure::Upload)?,
                    // The client may wait for it before it sends more.
                    First::Interim => self.pass_on_early(body).await?,
                    First::Answer => return self.pass_on_early(body).await,
                }
            };
        }
    }

    /// Sends what comes of a body through a pipe, as far as that is possible.
    async fn splice<U: Upload>(&mut self, body: &mut U) -> Result<Sent, FetchFailure<U::Error>> {
        let Ok(mut pipe) = Pipe::take() else { return Ok(Sent::Whole) };
        while body.gives_pipe() {
            let filled = body.fill_pipe(&mut pipe);
            match self.first_of(filled).await.map_err(FetchFailure::Fetch)? {
                First::Work(filled) => filled.map_err(FetchFailure::Upload)?,
                First::Interim => self.pass_on_early(body).await?,
                First::Answer => return Ok(Sent::Interrupted),
            }
            while !pipe.is_empty() {
                let written = self.transport().write_pipe(&mut pipe);
                if self.after(written).await.map_err(FetchFailure::Fetch)?.is_none() {
                    return Ok(Sent::Interrupted);
                }
            }
        }
        pipe.give_back();
        Ok(Sent::Whole)
    }

    /// Reads the next head: an interim one, or the final one, which may be a 101.
    pub(super) async fn head(&mut self) -> Result<ResponseHead, FetchError> {
        let mut searched = 0;
        let deadline_ms = self.deadline(self.limits().first_byte_ms);
        loop {
            let is_whole = head::find_end(&self.inbox, searched).is_some();
            if is_whole || self.inbox.len() >= self.limits().head.head_bytes {
                let parsed = head::parse_response(&self.inbox, &self.limits().head, self.method);
                if let Some((head, used)) = parsed.map_err(|_| FetchError::BadResponse)? {
                    self.inbox.drain(..used);
                    return match head.status {
                        Status::SWITCHING_PROTOCOLS => self.switch(head),
                        _ => self.accept(head),
                    };
                }
            }
            searched = self.inbox.len().saturating_sub(3);
            let n_read = self.read(deadline_ms).await.map_err(|error| error_of_io(&error))?;
            if n_read == 0 {
                return Err(match self.has_answered() {
                    true => FetchError::Truncated,
                    false => FetchError::Closed,
                });
            }
        }
    }

    /// A 101, if the whole request was sent and has asked for that protocol.
    fn switch(&self, head: ResponseHead) -> Result<ResponseHead, FetchError> {
        match upgrade::accepted(&self.protocols, &head.fields) {
            Some(_) if self.is_sent => Ok(head),
            _ => Err(FetchError::BadResponse),
        }
    }

    fn accept(&mut self, head: ResponseHead) -> Result<ResponseHead, FetchError> {
        if head.status.is_interim() {
            self.n_interim += 1;
            if self.n_interim > INTERIM_MAX {
                return Err(FetchError::Truncated);
            }
            // A request that is not complete asks for nothing.
            if head.status == Status::SWITCHING_PROTOCOLS {
                return Err(FetchError::BadResponse);
            }
        }
        Ok(head)
    }

    async fn pass_on_early<U: Upload>(
        &mut self,
        upload: &mut U,
    ) -> Result<(), FetchFailure<U::Error>> {
        for head in mem::take(&mut self.early) {
            pass_on(&head, upload).await?;
        }
        Ok(())
    }

    /// Takes the interim responses at the start of the inbox; whether an answer follows them.
    fn take_early(&mut self) -> Result<bool, FetchError> {
        loop {
            match early_of(&self.inbox, &self.limits().head, self.method) {
                Early::Incomplete => return Ok(false),
                Early::Answer => return Ok(true),
                Early::Interim(head, used) => {
                    self.inbox.drain(..used);
                    let head = self.accept(head)?;
                    self.early.push(head);
                }
            }
        }
    }

    pub(super) fn transport(&self) -> &Transport {
        self.connection.transport()
    }

    pub(super) fn limits(&self) -> &OriginLimits {
        &self.limits
    }

    fn deadline(&self, timeout_ms: u64) -> u64 {
        reactor::now().mono_ms() + timeout_ms
    }

    /// Reads what there is into the inbox: 0 at the end.
    async fn read(&mut self, deadline_ms: u64) -> io::Result<usize> {
        loop {
            match self.try_read() {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.transport().readable(deadline_ms).await?;
                }
                other => return other,
            }
        }
    }

    pub(super) fn try_read(&mut self) -> io::Result<usize> {
        if self.is_eof {
            return Ok(0);
        }
        let transport = self.connection.transport();
        let inbox = &mut self.inbox;
        let n_read = scratch::with_scratch(|scratch| -> io::Result<usize> {
            let room = scratch.len().min(READ_BYTES);
            let n_read = transport.try_read(&mut scratch[..room])?;
            inbox.extend_from_slice(&scratch[..n_read]);
            Ok(n_read)
        })?;
        self.is_eof = n_read == 0;
        Ok(n_read)
    }

    /// Writes two slices as if they were one.
    async fn write(&mut self, mut first: &[u8], mut then: &[u8]) -> Result<Sent, FetchError> {
        while !first.is_empty() || !then.is_empty() {
            let written = match then.is_empty() {
                true => self.transport().try_write(first),
                false => self.transport().try_writev(&[IoSlice::new(first), IoSlice::new(then)]),
            };
            let Some(n_written) = self.after(written).await? else {
                return Ok(Sent::Interrupted);
            };
            let of_first = n_written.min(first.len());
            first = &first[of_first..];
            then = &then[n_written - of_first..];
        }
        Ok(Sent::Whole)
    }

    /// Writes a head, and a file behind it.
    async fn write_file(
        &mut self,
        head: &[u8],
        file: &DiskFile,
        len: u64,
    ) -> Result<Sent, FetchError> {
        if self.write(head, b"").await? == Sent::Interrupted {
            return Ok(Sent::Interrupted);
        }
        let (mut offset, mut cached_to) = (0, 0);
        while offset < len {
            reactor::breathe().await;
            if offset >= cached_to {
                cached_to = len.min(offset + FILE_PART_BYTES);
                let part = file.bring_in(offset, cached_to - offset).await;
                part.map_err(|_| FetchError::Resources)?;
            }
            let part = (cached_to - offset) as usize;
            let written = self.transport().send_file(file, &mut offset, part);
            if matches!(written, Ok(0)) {
                return Err(FetchError::Resources);
            }
            if self.after(written).await?.is_none() {
                return Ok(Sent::Interrupted);
            }
        }
        Ok(Sent::Whole)
    }

    /// How many bytes a try to write has written; it waits if it was none. `None` if the origin
    /// answers already.
    async fn after(&mut self, written: io::Result<usize>) -> Result<Option<usize>, FetchError> {
        match written {
            Ok(n_written) => {
                self.has_sent = true;
                Ok(Some(n_written))
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let deadline_ms = self.deadline(self.limits().idle_ms);
                let transport = self.connection.transport_handle();
                let writable = transport.writable(deadline_ms);
                match self.first_of(writable).await? {
                    First::Work(wait) => wait.map(|()| Some(0)).map_err(|e| error_of_io(&e)),
                    First::Interim => Ok(Some(0)),
                    First::Answer => Ok(None),
                }
            }
            // The origin may have answered before it closed, so read that first.
            Err(_) if self.try_read().is_ok_and(|n_read| n_read > 0) => Ok(None),
            Err(error) => Err(error_of_io(&error)),
        }
    }

    /// Waits for `work`, unless the origin answers first; `work` is then dropped.
    async fn first_of<T>(&mut self, work: impl Future<Output = T>) -> Result<First<T>, FetchError> {
        let mut work = pin!(work);
        loop {
            let transport = self.connection.transport_handle();
            if let Some(value) = Race::new(work.as_mut(), transport.readable(0)).await {
                return Ok(First::Work(value));
            }
            match self.try_read() {
                Ok(0) if !self.has_answered() => return Err(FetchError::Closed),
                Ok(0) => return Ok(First::Answer),
                Ok(_) if self.take_early()? => return Ok(First::Answer),
                Ok(_) if !self.early.is_empty() => return Ok(First::Interim),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error_of_io(&error)),
            }
        }
    }
}

/// The failure behind an error of reading or writing before any byte of a response.
fn error_of_io(error: &io::Error) -> FetchError {
    match error.kind() {
        io::ErrorKind::TimedOut => FetchError::FirstByteTimeout,
        _ => FetchError::Closed,
    }
}

/// The end of some work, or the beginning of an answer, whichever came first.
#[derive(Debug)]
enum First<T> {
    Work(T),
    /// An interim response, which is among the early ones now.
    Interim,
    /// The final response, or its beginning, or the end.
    Answer,
}

/// Passes an interim response on, unless it is 100: that answers an Expect field, which ktrix
/// handles before it asks an origin.
pub(super) async fn pass_on<U: Upload>(
    head: &ResponseHead,
    upload: &mut U,
) -> Result<(), FetchFailure<U::Error>> {
    match head.status.0 {
        100 => Ok(()),
        _ => upload.interim(head).await.map_err(FetchFailure::Upload),
    }
}

/// The bytes that an origin sent before it had the whole request.
#[derive(Debug)]
enum Early {
    /// None, or the beginning of what may be an interim response.
    Incomplete,
    /// An interim response, and its length in bytes.
    Interim(ResponseHead, usize),
    /// The final response, or its beginning, or bytes that are no response at all.
    Answer,
}

fn early_of(inbox: &[u8], limits: &HeadLimits, method: Method) -> Early {
    match head::parse_response(inbox, limits, method) {
        Ok(Some((head, used))) if head.status.is_interim() => Early::Interim(head, used),
        Ok(None) if inbox.get(CLASS_AT).is_none_or(|class| *class == b'1') => Early::Incomplete,
        _ => Early::Answer,
    }
}

/// Where in a status line the first digit of the status is, behind `HTTP/1.1` and a space.
const CLASS_AT: usize = 9;

/// How a write ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sent {
    Whole,
    /// The origin answers already.
    Interrupted,
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::time::Duration;

    use super::*;
    use crate::origin::checkout::Tried;
    use crate::origin::tests::sample::{self, LIMITS};
    use crate::origin::tests::scripted::{OK, ScriptedOrigin};
    use crate::reactor::clock::run_by_test_clock;
    use crate::reactor::timer;

    const HEAD: &[u8] = b"POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\n";

    /// A body of five pieces, each a while after the one before.
    #[derive(Default)]
    struct Slow {
        n_given: usize,
        interim: Vec<u16>,
    }

    impl Upload for Slow {
        type Error = Infallible;

        fn in_memory(&self) -> Option<&[u8]> {
            None
        }

        async fn next(&mut self, into: &mut Vec<u8>) -> Result<bool, Infallible> {
            timer::sleep(Duration::from_millis(30)).await;
            into.push(b'x');
            self.n_given += 1;
            Ok(self.n_given < 5)
        }

        fn is_whole(&self) -> bool {
            false
        }

        fn rewind(&mut self) -> bool {
            false
        }

        async fn interim(&mut self, head: &ResponseHead) -> Result<(), Infallible> {
            self.interim.push(head.status.0);
            Ok(())
        }

        async fn gone(&mut self) {
            std::future::pending().await
        }

        async fn left(&mut self) {
            std::future::pending().await
        }
    }

    /// Sends `Slow` to an origin that writes `early` before the end of the body, and 200 after it.
    /// Gives the result of sending, the upload, and the final status.
    fn talk(early: &'static [u8]) -> (Result<bool, FetchError>, Slow, Result<u16, FetchError>) {
        run_by_test_clock(async {
            let origin = ScriptedOrigin::serving(async move |mut peer| {
                peer.take(HEAD.len() + 1).await.unwrap();
                for part in early.chunks(20) {
                    peer.say(part).await;
                    timer::sleep(Duration::from_millis(1)).await;
                }
                if peer.take(4).await.is_some() {
                    peer.say(OK).await;
                }
            });
            let pools = sample::pools_to([origin.address()], |_| {});
            let upstream = pools.known();
            let connection = upstream.checkout(&Tried::default()).await.unwrap();
            let mut request = Request::new(connection, Method::Post, LIMITS);
            let mut body = Slow::default();
            let sent = request.send(HEAD, &mut body).await.map_err(|failure| match failure {
                FetchFailure::Fetch(error) => error,
                other => unreachable!("only the origin fails: {other:?}"),
            });
            let answer = match sent {
                Ok(()) => request.head().await.map(|head| head.status.0),
                Err(error) => Err(error),
            };
            (sent.map(|()| request.is_sent), body, answer)
        })
    }

    #[test]
    fn an_interim_response_does_not_end_the_sending() {
        let (sent, body, answer) = talk(
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n\
              HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n",
        );
        assert_eq!((sent, answer), (Ok(true), Ok(200)));
        assert_eq!((body.n_given, &body.interim[..]), (5, &[102, 103][..]), "100 is not passed on");
    }

    #[test]
    fn a_final_response_ends_the_sending() {
        let (sent, body, answer) = talk(
            b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n",
        );
        assert_eq!((sent, answer), (Ok(false), Ok(403)));
        // A piece of the body comes every 30 ms; the four parts of the answer come within 3 ms.
        assert_eq!(body.n_given, 1);
        assert_eq!(body.interim, [103]);
    }

    #[test]
    fn interim_responses_without_end_are_no_answer() {
        static MANY: std::sync::LazyLock<Vec<u8>> =
            std::sync::LazyLock::new(|| b"HTTP/1.1 103 Hi\r\n\r\n".repeat(INTERIM_MAX + 1));
        assert_eq!(talk(&MANY).0, Err(FetchError::Truncated));
    }

    #[test]
    fn an_early_answer_is_known_at_every_split() {
        let told = |inbox: &[u8]| early_of(inbox, &LIMITS.head, Method::Post);
        let interim = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n";
        for cut in 0..interim.len() {
            assert!(matches!(told(&interim[..cut]), Early::Incomplete), "cut at {cut}");
        }
        assert!(matches!(told(interim), Early::Interim(_, used) if used == interim.len()));
        let answer = b"HTTP/1.1 200 OK\r\n\r\n";
        for cut in 0..=answer.len() {
            let is_answer = matches!(told(&answer[..cut]), Early::Answer);
            assert_eq!(is_answer, cut > CLASS_AT, "cut at {cut}");
        }
        assert!(matches!(told(b"SSH-2.0"), Early::Answer));
    }
}
