//! A client for tests: the body of its request is scripted, and all that it is given is kept.

use std::cell::Cell;
use std::collections::VecDeque;
use std::os::unix::fs::FileExt;
use std::rc::Rc;
use std::time::Duration;

use crate::config::{Listen, ListenAddress};
use crate::disk::file::DiskFile;
use crate::http::fields::Fields;
use crate::http::head::{BodyLength, ResponseHead};
use crate::http::status::Status;
use crate::policy::reason::close::CloseReason;
use crate::proxy::client::front::Front;
use crate::proxy::client::{Client, ClientError, Switch};
use crate::reactor::address::PeerAddress;
use crate::reactor::event::Event;
use crate::reactor::pipe::Pipe;
use crate::tunnel::moved::Moved;
use crate::tunnel::{self, Side};

/// A client that exists only in a test. It asserts that it is used in the order that [`Client`]
/// names.
#[derive(Debug)]
pub(crate) struct FakeClient {
    pub(crate) front: Front,
    /// The pieces of its request's body that are still to come.
    pub(crate) body: VecDeque<Result<Vec<u8>, ClientError>>,
    pub(crate) trailers: Fields,
    /// Whether the request is a HEAD.
    pub(crate) is_head: bool,
    /// The client itself, at the other end.
    pub(crate) remote: Rc<Remote>,
    pub(crate) interims: Vec<ResponseHead>,
    pub(crate) started: Option<(Status, Fields, BodyLength)>,
    /// The body that was sent or kept.
    pub(crate) sent: Vec<u8>,
    pub(crate) end: Option<End>,
}

/// The far end of a client, for a test that an exchange runs beside.
#[derive(Debug, Default)]
pub(crate) struct Remote {
    changed: Event,
    is_gone: Cell<bool>,
    is_stuck: Cell<bool>,
    n_pieces_max: Cell<Option<usize>>,
    n_received: Cell<u64>,
}

impl Remote {
    /// The client goes; nothing reaches it from now on.
    pub(crate) fn leave(&self) {
        self.is_gone.set(true);
        self.changed.notify();
    }

    /// The client takes nothing of its answer, or takes it again.
    pub(crate) fn set_stuck(&self, is_stuck: bool) {
        self.is_stuck.set(is_stuck);
        self.changed.notify();
    }

    /// The client sends this many more pieces of its request's body, for now.
    pub(crate) fn set_pieces(&self, n_pieces_max: usize) {
        self.n_pieces_max.set(Some(n_pieces_max));
        self.changed.notify();
    }

    /// Bytes of its answer's body that the client has.
    pub(crate) fn n_received(&self) -> u64 {
        self.n_received.get()
    }

    /// Waits until this holds.
    async fn until(&self, holds: impl Fn(&Self) -> bool) {
        loop {
            let since = self.changed.version();
            if holds(self) {
                return;
            }
            self.changed.after(since).await;
        }
    }
}

/// How an answer ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Finished(Fields),
    Aborted,
}

impl FakeClient {
    /// A client on 192.0.2.1 without a request body.
    pub(crate) fn new() -> Self {
        let listen = Rc::new(Listen::at(ListenAddress::Ip(([127, 0, 0, 1], 80).into())));
        let peer = PeerAddress::Ip(([192, 0, 2, 1], 40_000).into());
        Self {
            front: Front::plain(&listen, peer, None, &[]),
            body: VecDeque::new(),
            trailers: Fields::new(),
            is_head: false,
            remote: Rc::default(),
            interims: Vec::new(),
            started: None,
            sent: Vec::new(),
            end: None,
        }
    }

    /// The status of its answer; 0 if none has begun.
    pub(crate) fn status(&self) -> u16 {
        self.started.as_ref().map_or(0, |(status, ..)| status.0)
    }

    /// The field of its answer, as text.
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        let (_, fields, _) = self.started.as_ref()?;
        std::str::from_utf8(fields.get(name)?).ok()
    }

    /// Whether its answer is whole: as long as was announced, and finished.
    pub(crate) fn is_answered(&self) -> bool {
        let is_as_long = match self.started {
            Some((_, _, BodyLength::Known(len))) => self.is_head || len == self.sent.len() as u64,
            Some(_) => true,
            None => false,
        };
        is_as_long && matches!(self.end, Some(End::Finished(_)))
    }

    async fn reach(&self) -> Result<(), CloseReason> {
        let remote = &self.remote;
        remote.until(|it| it.is_gone.get() || !it.is_stuck.get()).await;
        if remote.is_gone.get() {
            return Err(CloseReason::ClientGone);
        }
        remote.n_received.set(self.sent.len() as u64);
        Ok(())
    }
}

impl Client for FakeClient {
    fn front(&self) -> &Front {
        &self.front
    }

    async fn read_body(&mut self, into: &mut Vec<u8>) -> Result<bool, ClientError> {
        self.remote.until(|it| it.n_pieces_max.get() != Some(0)).await;
        self.remote.n_pieces_max.update(|it| it.map(|n| n.saturating_sub(1)));
        if let Some(piece) = self.body.pop_front() {
            into.extend(piece?);
        }
        Ok(!self.body.is_empty())
    }

    fn gives_pipe(&self) -> bool {
        false
    }

    async fn fill_pipe(&mut self, _: &mut Pipe) -> Result<(), ClientError> {
        Err(ClientError::Closed(CloseReason::Incomplete))
    }

    fn take_trailers(&mut self) -> Fields {
        std::mem::take(&mut self.trailers)
    }

    async fn gone(&mut self) {
        self.remote.until(|it| it.is_gone.get()).await;
    }

    async fn left(&mut self) {
        self.gone().await;
    }

    async fn interim(&mut self, head: &ResponseHead) -> Result<(), CloseReason> {
        assert!(!self.has_started(), "an interim response comes before the answer");
        self.interims.push(head.clone());
        self.reach().await
    }

    fn start(&mut self, status: Status, fields: &Fields, length: BodyLength) {
        assert!(!self.has_started(), "an answer begins once");
        self.started = Some((status, fields.clone(), length));
    }

    fn has_started(&self) -> bool {
        self.started.is_some()
    }

    fn wants_no_body(&self) -> bool {
        self.is_head
    }

    fn push(&mut self, bytes: &[u8]) {
        assert!(self.has_started() && self.end.is_none(), "a body lies within an answer");
        if !self.is_head {
            self.sent.extend_from_slice(bytes);
        }
    }

    async fn send(&mut self, bytes: &[u8]) -> Result<(), CloseReason> {
        self.push(bytes);
        self.reach().await
    }

    async fn flush(&mut self) -> Result<(), CloseReason> {
        self.reach().await
    }

    async fn send_file(
        &mut self,
        file: &DiskFile,
        offset: u64,
        len: u64,
    ) -> Result<(), CloseReason> {
        let mut bytes = vec![0; len as usize];
        file.read_exact_at(&mut bytes, offset).expect("the file has what is to be sent of it");
        self.send(&bytes).await
    }

    fn takes_pipe(&self) -> bool {
        false
    }

    async fn send_pipe(&mut self, _: &mut Pipe) -> Result<(), CloseReason> {
        Err(CloseReason::Incomplete)
    }

    async fn finish(&mut self, trailers: &Fields) -> Result<(), CloseReason> {
        assert!(self.has_started() && self.end.is_none(), "an answer that has begun ends once");
        self.end = Some(End::Finished(trailers.clone()));
        Ok(())
    }

    async fn tunnel(
        &mut self,
        _: &Switch<'_>,
        _: Side<'_>,
        _: Duration,
        _: &Moved,
    ) -> Result<tunnel::End, CloseReason> {
        panic!("no test has a tunnel to this client")
    }

    fn abort(&mut self) {
        self.end = Some(End::Aborted);
    }

    fn sent_bytes(&self) -> u64 {
        self.sent.len() as u64
    }
}
