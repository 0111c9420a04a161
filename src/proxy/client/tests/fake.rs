//! A client for tests: the body of its request is scripted, and all that it is given is kept.

use std::collections::VecDeque;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::rc::Rc;

use crate::config::{Listen, ListenAddress};
use crate::http::fields::Fields;
use crate::http::head::{BodyLength, ResponseHead};
use crate::http::status::Status;
use crate::policy::reason::close::CloseReason;
use crate::proxy::client::front::Front;
use crate::proxy::client::{Client, ClientError};
use crate::reactor::address::PeerAddress;
use crate::reactor::event::Event;

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
    /// Posted when the client goes; nothing reaches it from then on.
    pub(crate) gone: Rc<Event>,
    pub(crate) interims: Vec<ResponseHead>,
    pub(crate) started: Option<(Status, Fields, BodyLength)>,
    /// The body that was sent or kept.
    pub(crate) sent: Vec<u8>,
    pub(crate) end: Option<End>,
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
            front: Front::plain(&listen, peer, None),
            body: VecDeque::new(),
            trailers: Fields::new(),
            is_head: false,
            gone: Rc::default(),
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

    fn reach(&self) -> Result<(), CloseReason> {
        match self.gone.version() {
            0 => Ok(()),
            _ => Err(CloseReason::ClientGone),
        }
    }
}

impl Client for FakeClient {
    fn front(&self) -> &Front {
        &self.front
    }

    async fn read_body(&mut self, into: &mut Vec<u8>) -> Result<bool, ClientError> {
        if let Some(piece) = self.body.pop_front() {
            into.extend(piece?);
        }
        Ok(!self.body.is_empty())
    }

    fn take_trailers(&mut self) -> Fields {
        std::mem::take(&mut self.trailers)
    }

    async fn gone(&mut self) {
        self.gone.after(0).await;
    }

    async fn interim(&mut self, head: &ResponseHead) -> Result<(), CloseReason> {
        assert!(!self.has_started(), "an interim response comes before the answer");
        self.interims.push(head.clone());
        self.reach()
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
        self.reach()
    }

    async fn flush(&mut self) -> Result<(), CloseReason> {
        self.reach()
    }

    async fn send_file(&mut self, file: &File, offset: u64, len: u64) -> Result<(), CloseReason> {
        let mut bytes = vec![0; len as usize];
        file.read_exact_at(&mut bytes, offset).expect("the file has what is to be sent of it");
        self.send(&bytes).await
    }

    async fn finish(&mut self, trailers: &Fields) -> Result<(), CloseReason> {
        assert!(self.has_started() && self.end.is_none(), "an answer that has begun ends once");
        self.end = Some(End::Finished(trailers.clone()));
        Ok(())
    }

    fn abort(&mut self) {
        self.end = Some(End::Aborted);
    }

    fn sent_bytes(&self) -> u64 {
        self.sent.len() as u64
    }
}
