//! A scene for exchanges: two workers with one cache directory, a router, clients that exist only
//! here, and an origin that the test plays.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::ops::Deref;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use tempfile::TempDir;

use crate::cache::Cache;
use crate::cache::files::store::TMP;
use crate::cache::found::{Found, Lookup};
use crate::cache::hot::Body;
use crate::cache::sample::{caches_by, find};
use crate::config::Config;
use crate::config::request_log::PerLog;
use crate::http::h1::head::{HeadLimits, parse_request};
use crate::http::head::RequestHead;
use crate::origin::tests::scripted::{Peer, ScriptedOrigin};
use crate::policy::cache_status::CacheVerdict;
use crate::policy::reason::close::CloseReason;
use crate::proxy::client::fake::{FakeClient, Remote};
use crate::proxy::context::Context;
use crate::proxy::exchange;
use crate::proxy::facts::Facts;
use crate::proxy::finish;
use crate::proxy::routed::Routed;
use crate::reactor::event::Event;
use crate::reactor::readable::Readable;
use crate::reactor::{self, Task, timer};
use crate::shared::bodies::{Bodies, BodyTable};
use crate::shared::servers::ServerTable;
use crate::tls::client::Clients;

/// The largest response that a scene stores; `object` of its configuration.
const OBJECT_BYTES_MAX: usize = 16 << 20;

/// Longer than anything takes.
const LONG: Duration = Duration::from_secs(100_000);

/// Two workers, their cache and their origin.
pub(super) struct Scene {
    /// The worker whose clients ask, unless a test says otherwise.
    pub(super) context: Rc<Context>,
    /// Another worker of the same cache.
    pub(super) other: Rc<Context>,
    pub(super) origin: PlayedOrigin,
    dir: Rc<TempDir>,
}

impl Scene {
    /// A scene with these rules of caching.
    pub(super) fn new(rules: &str) -> Self {
        Self::with(rules, "")
    }

    /// The same, with these lines of configuration besides.
    pub(super) fn with(rules: &str, lines: &str) -> Self {
        let dir = Rc::new(tempfile::tempdir().unwrap());
        let origin = PlayedOrigin::new();
        let config = config(dir.path(), &origin, rules, lines);
        let caches = caches_by(config.cache.as_ref().unwrap());
        Self::of(dir, origin, config, caches)
    }

    /// The scene of another run of the reactor, with what is left of its caches.
    pub(super) fn after((dir, caches): Left) -> Self {
        let origin = PlayedOrigin::new();
        let config = config(dir.path(), &origin, "", "");
        Self::of(dir, origin, config, caches)
    }

    /// What is left of it when the tasks of its workers have ended.
    pub(super) fn left(&self) -> Left {
        let cache = |context: &Context| context.cache.clone().unwrap();
        (Rc::clone(&self.dir), [cache(&self.context), cache(&self.other)])
    }

    fn of(dir: Rc<TempDir>, origin: PlayedOrigin, config: Config, caches: [Rc<Cache>; 2]) -> Self {
        let (config, servers) =
            (Rc::new(config), Rc::new(ServerTable::create([1], 1, "").unwrap()));
        let [context, other] = caches.map(|cache| {
            reactor::spawn(hear(Rc::clone(&cache)));
            let (config, temporary) = (Rc::clone(&config), dir.path().to_owned());
            let table = Rc::new(BodyTable::create(1).unwrap());
            let bodies = Rc::new(Bodies::new(table, 0, u64::MAX));
            Rc::new(Context::new(
                config,
                (&servers, 0),
                &Clients::default(),
                Some(cache),
                PerLog::default(),
                temporary,
                bodies,
            ))
        });
        Self { context, other, origin, dir }
    }

    /// Begins an exchange: its request is a line without the version, and more lines with fields.
    pub(super) fn begin(&self, request: &str) -> Begun {
        Begun::new(&self.context, request, FakeClient::new())
    }

    /// The same, of a client of the other worker.
    pub(super) fn begin_at_other(&self, request: &str) -> Begun {
        Begun::new(&self.other, request, FakeClient::new())
    }

    /// As [`Self::begin`], with a body that comes in these pieces.
    pub(super) fn begin_with(&self, request: &str, body: &[&str]) -> Begun {
        let body = body.iter().map(|piece| Ok(piece.as_bytes().to_vec())).collect();
        Begun::new(&self.context, request, FakeClient { body, ..FakeClient::new() })
    }

    /// The answer to a request that the origin is not asked for.
    pub(super) async fn get(&self, request: &str) -> Answer {
        self.begin(request).end().await
    }

    /// The answer to a request for which the origin is asked once and says this.
    pub(super) async fn get_by(&self, request: &str, said: &[u8]) -> Answer {
        let begun = self.begin(request);
        self.origin.answer(said).await;
        begun.end().await
    }

    /// The cache directory.
    pub(super) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Files of fills that are under way, or were left behind.
    pub(super) fn n_temporary(&self) -> usize {
        std::fs::read_dir(self.dir().join(TMP)).unwrap().count()
    }

    pub(super) fn cache(&self) -> &Rc<Cache> {
        self.context.cache.as_ref().unwrap()
    }

    /// What the other worker finds for a GET of this target, read from the files.
    pub(super) async fn found(&self, target: &str) -> Found {
        find(self.other.cache.as_ref().unwrap(), &head(&format!("GET {target}"))).await
    }

    /// The status and the body of what is stored for a GET of this target; 0 if a note says that
    /// nothing is to be stored.
    pub(super) async fn stored(&self, target: &str) -> Option<(u16, String)> {
        let found = self.found(target).await;
        let object = match found.lookup {
            Lookup::Miss { .. } | Lookup::Unreadable => return None,
            Lookup::HitForMiss => return Some((0, String::new())),
            Lookup::Stored(object) | Lookup::Parts { object, .. } => object,
        };
        let body = match &object.body {
            Body::Memory => object.with_body(<[u8]>::to_vec),
            Body::Large(body) => body.to_vec(),
            Body::File(file) => file.read_body(OBJECT_BYTES_MAX).unwrap().unwrap(),
        };
        Some((object.status.0, String::from_utf8(body).unwrap()))
    }

    /// Whether no worker has a fill under way, and none is entered for this target.
    pub(super) fn is_idle(&self, target: &str) -> bool {
        let name = crate::cache::sample::primary(&head(&format!("GET {target}")));
        let is_free = self.cache().fill_state(&name.key).is_none();
        is_free && [&self.context, &self.other].iter().all(|context| context.fills.is_empty())
    }
}

/// The cache directory of a scene, and the caches of its workers.
pub(super) type Left = (Rc<TempDir>, [Rc<Cache>; 2]);

fn config(dir: &Path, origin: &PlayedOrigin, rules: &str, lines: &str) -> Config {
    let (path, server) = (dir.display(), origin.origin.address());
    let text = format!(
        "upstreams: {{u: {{servers: \"{server}\", retries: 0}}}}\nupstream: u\n\
         cache: {{path: {path}, objects: 1000, object: 16 MiB, rules: {{{rules}}}}}\n{lines}",
    );
    Config::load_for(Path::new("k"), &text, 1).unwrap()
}

/// Wakes those who follow the fills of another worker, as a worker's chores do.
async fn hear(cache: Rc<Cache>) {
    let counter = Readable::new(cache.wake_fd().unwrap().try_clone_to_owned().unwrap());
    while counter.readable().await.is_ok() {
        cache.woken();
    }
}

/// Lets everything happen that waits for no deadline.
pub(super) async fn settle() {
    timer::sleep(Duration::from_millis(1)).await;
}

pub(super) async fn pass_seconds(seconds: u64) {
    timer::sleep(Duration::from_secs(seconds)).await;
}

/// A request's head from its first line, without the version, and lines with fields.
pub(super) fn head(request: &str) -> RequestHead {
    let (line, fields) = request.split_once('\n').unwrap_or((request, ""));
    let fields: String = fields.lines().map(|line| format!("{line}\r\n")).collect();
    let text = format!("{line} HTTP/1.1\r\nHost: a.example\r\n{fields}\r\n");
    parse_request(text.as_bytes(), &HeadLimits::default()).unwrap().unwrap().0
}

/// A response with this status, these lines of fields and this body.
pub(super) fn response(status: u16, fields: &str, body: &str) -> Vec<u8> {
    let fields: String = fields.lines().map(|line| format!("{line}\r\n")).collect();
    let length = match status {
        304 => String::new(),
        _ => format!("Content-Length: {}\r\n", body.len()),
    };
    format!("HTTP/1.1 {status} It\r\n{length}{fields}\r\n{body}").into_bytes()
}

/// An exchange that runs as a task; dropped, it ends wherever it is.
pub(super) struct Begun {
    pub(super) remote: Rc<Remote>,
    task: Task<Answer>,
}

impl Begun {
    pub(super) fn new(context: &Rc<Context>, request: &str, mut client: FakeClient) -> Self {
        let (context, head) = (Rc::clone(context), head(request));
        client.is_head = request.starts_with("HEAD");
        let remote = Rc::clone(&client.remote);
        let task = reactor::spawn_task(async move {
            let mut facts = Facts { began: reactor::now(), ..Facts::default() };
            let routed = Routed::new(&context, &client.front, head);
            let result = exchange::run(&context, &mut client, &routed, &mut facts).await;
            facts.close = result.err();
            Answer { client, facts }
        });
        Self { remote, task }
    }

    pub(super) fn is_over(&self) -> bool {
        self.task.is_finished()
    }

    pub(super) async fn end(self) -> Answer {
        timer::timeout(LONG, self.task).await.expect("the exchange ends")
    }
}

/// What came of an exchange.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) client: FakeClient,
    pub(super) facts: Facts,
}

impl Answer {
    /// The facts of the log: status, verdict, why, and why the connection ends.
    pub(super) fn logged(&self) -> String {
        let facts = &self.facts;
        let status = facts.logged_status().to_string();
        let verdict = facts.verdict.map_or("", CacheVerdict::word);
        let close = facts.close.map_or("", CloseReason::word);
        let words = [&*status, verdict, finish::reason(facts), close];
        words.into_iter().filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ")
    }

    pub(super) fn body(&self) -> &str {
        std::str::from_utf8(&self.client.sent).unwrap()
    }

    /// Asserts that the client has a whole answer with this body, and what the log says of it.
    #[track_caller]
    pub(super) fn expect(&self, logged: &str, body: &str) {
        assert_eq!((&*self.logged(), self.body()), (logged, body));
        assert!(self.client.is_answered(), "{self:?}");
        assert_eq!(self.facts.status, self.client.status());
    }

    /// What the client is told of the cache's part.
    pub(super) fn cache_status(&self) -> &str {
        self.client.field("cache-status").unwrap_or_default()
    }
}

/// An origin that the test plays: it takes each request, says what it likes, and closes the
/// connection.
pub(super) struct PlayedOrigin {
    origin: ScriptedOrigin,
    inbox: Rc<Inbox>,
}

#[derive(Default)]
struct Inbox {
    asked: RefCell<VecDeque<Peer>>,
    came: Event,
}

impl PlayedOrigin {
    fn new() -> Self {
        let inbox = Rc::<Inbox>::default();
        let taken = Rc::clone(&inbox);
        let origin = ScriptedOrigin::serving(async move |mut peer| {
            if peer.request().await.is_some() {
                taken.asked.borrow_mut().push_back(peer);
                taken.came.notify();
            }
        });
        Self { origin, inbox }
    }

    /// The next request.
    pub(super) async fn asked(&self) -> Asked {
        let next = async {
            loop {
                let since = self.inbox.came.version();
                if let Some(peer) = self.inbox.asked.borrow_mut().pop_front() {
                    return Asked(peer);
                }
                self.inbox.came.after(since).await;
            }
        };
        timer::timeout(LONG, next).await.expect("the origin is asked")
    }

    /// Whether a request waits to be taken.
    pub(super) fn is_asked(&self) -> bool {
        !self.inbox.asked.borrow().is_empty()
    }

    /// Answers the next request, and gives it.
    pub(super) async fn answer(&self, said: &[u8]) -> Asked {
        let asked = self.asked().await;
        asked.say(said).await;
        asked
    }

    /// Refuses connections from now on.
    pub(super) fn refuse(&self) {
        self.origin.refuse();
    }

    /// How many requests there were.
    pub(super) fn n_asked(&self) -> usize {
        self.origin.n_requests()
    }
}

/// A request that the origin got; its connection is closed when this is dropped.
pub(super) struct Asked(pub(super) Peer);

impl Deref for Asked {
    type Target = Peer;

    fn deref(&self) -> &Peer {
        &self.0
    }
}

impl Asked {
    /// The method and the target.
    pub(super) fn line(&self) -> &str {
        self.head.split(" HTTP/").next().unwrap_or_default()
    }

    pub(super) fn field(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.into_iter().find(|(it, _)| it.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }
}
