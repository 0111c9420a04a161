//! Several workers, and a server that failed and comes back.

use std::rc::Rc;
use std::time::Duration;

use crate::http::method::Method;
use crate::origin::pools::Pools;
use crate::origin::request::FetchFailure;
use crate::origin::tests::sample::{LIMITS, ask, get, workers_to};
use crate::origin::tests::scripted::{OK, Peer, Place, ScriptedOrigin};
use crate::policy::reason::fetch::FetchError;
use crate::reactor::clock::run_by_test_clock;
use crate::reactor::event::Event;
use crate::reactor::{self, Task, now, timer};
use crate::upstream::ids::ServerId;

const BROKEN: ServerId = ServerId(0);
const GOOD: ServerId = ServerId(1);
const SKIP: Duration = Duration::from_secs(10);
const SETTLE_MS: u64 = 1;

/// Four workers, a server that refuses connections and one that works.
struct Scene {
    workers: [Rc<Pools>; 4],
    place: Option<Place>,
    _good: ScriptedOrigin,
}

impl Scene {
    /// The state after the first worker has found that the one server refuses connections.
    async fn new() -> Self {
        let (place, good) = (Place::new(), ScriptedOrigin::answering(|_| Some(OK.to_vec())));
        let servers = [place.address(), good.address()];
        let workers = workers_to(servers, |upstream| upstream.skip = SKIP).map(Rc::new);
        let scene = Self { workers, place: Some(place), _good: good };
        assert_eq!(get(&scene.workers[0]).await, Ok(GOOD));
        assert!(scene.workers[3].is_skipped(0), "all workers know it");
        scene
    }

    /// Starts the broken server again with this script.
    fn repair(&mut self, script: impl AsyncFn(Peer) + 'static) -> ScriptedOrigin {
        ScriptedOrigin::at(self.place.take().expect("the broken server"), script)
    }

    /// Each worker asks these servers, by turns.
    async fn expect_servers(&self, expected: &[ServerId]) {
        for worker in &self.workers {
            let mut servers = Vec::new();
            for _ in 0..6 {
                servers.push(get(worker).await.unwrap());
            }
            servers.sort_unstable();
            servers.dedup();
            assert_eq!(servers, expected);
        }
    }

    /// Lets one worker ask until it asks the broken server, which does not answer yet.
    async fn begin_attempt(&self, origin: &ScriptedOrigin) -> Task<Result<ServerId, Failure>> {
        let n_before = origin.n_requests();
        for _ in 0..2 {
            let worker = Rc::clone(&self.workers[1]);
            let task = reactor::spawn_task(async move { get(&worker).await });
            // By then everything that needs no deadline has happened.
            timer::sleep(Duration::from_millis(SETTLE_MS)).await;
            if origin.n_requests() > n_before {
                return task;
            }
            assert_eq!(task.await, Ok(GOOD));
        }
        panic!("the server is not tried");
    }
}

type Failure = FetchFailure<std::convert::Infallible>;

/// Answers each request when the gate has been opened.
fn gated(gate: &Rc<Event>) -> impl AsyncFn(Peer) + 'static {
    let gate = Rc::clone(gate);
    async move |mut peer| {
        while peer.request().await.is_some() {
            gate.after(0).await;
            peer.say(OK).await;
        }
    }
}

#[test]
fn one_worker_tries_a_server_that_comes_back_and_then_all_use_it() {
    run_by_test_clock(async {
        let mut scene = Scene::new().await;
        let gate = Rc::new(Event::default());
        let origin = scene.repair(gated(&gate));
        timer::sleep(SKIP - Duration::from_millis(1)).await;
        scene.expect_servers(&[GOOD]).await;
        timer::sleep(Duration::from_millis(1)).await;
        let attempt = scene.begin_attempt(&origin).await;
        scene.expect_servers(&[GOOD]).await;
        assert_eq!((origin.n_connections(), origin.n_requests()), (1, 1));
        gate.notify();
        assert_eq!(attempt.await, Ok(BROKEN));
        let answered = now();
        scene.expect_servers(&[BROKEN, GOOD]).await;
        assert_eq!((origin.n_connections(), now()), (4, answered), "at once, by all");
    });
}

#[test]
fn a_server_that_fails_in_its_attempt_is_skipped_again() {
    run_by_test_clock(async {
        let mut scene = Scene::new().await;
        // The first attempt gets no answer in time, the second one a closed connection.
        let origin = scene.repair(async |mut peer| match peer.request().await {
            Some(1) => std::future::pending().await,
            Some(2) => {}
            _ => peer.say(OK).await,
        });
        for (n_attempts, lasts_ms) in [(1, LIMITS.first_byte_ms), (2, 0)] {
            timer::sleep(SKIP * n_attempts as u32).await;
            let attempt = scene.begin_attempt(&origin).await;
            let begun_ms = now().mono_ms() - SETTLE_MS;
            // Another server is left for a GET, so that its client gets an answer.
            assert_eq!(attempt.await, Ok(GOOD));
            assert_eq!(now().mono_ms() - begun_ms, lasts_ms.max(SETTLE_MS));
            scene.expect_servers(&[GOOD]).await;
            assert_eq!(origin.n_requests(), n_attempts);
        }
        timer::sleep(SKIP * 4).await;
        scene.expect_servers(&[BROKEN, GOOD]).await;
    });
}

#[test]
fn an_abandoned_attempt_leaves_the_attempt_to_the_next_fetch() {
    run_by_test_clock(async {
        let mut scene = Scene::new().await;
        let gate = Rc::new(Event::default());
        let origin = scene.repair(gated(&gate));
        timer::sleep(SKIP).await;
        drop(scene.begin_attempt(&origin).await);
        let attempt = scene.begin_attempt(&origin).await;
        scene.expect_servers(&[GOOD]).await;
        gate.notify();
        assert_eq!(attempt.await, Ok(BROKEN));
        scene.expect_servers(&[BROKEN, GOOD]).await;
    });
}

#[test]
fn a_request_that_could_be_lost_tries_no_server_but_a_connection_does() {
    run_by_test_clock(async {
        let mut scene = Scene::new().await;
        timer::sleep(SKIP).await;
        let worker = Rc::clone(&scene.workers[1]);
        assert_eq!(ask(&worker, Method::Post).await, Ok(GOOD));
        timer::sleep(SKIP).await;
        assert!(worker.is_skipped(0), "the connection was refused");
        let origin = scene.repair(async |mut peer| {
            while peer.request().await.is_some() {
                peer.say(OK).await;
            }
        });
        timer::sleep(SKIP).await;
        for _ in 0..3 {
            assert_eq!(ask(&worker, Method::Post).await, Ok(GOOD));
            timer::sleep(Duration::from_millis(SETTLE_MS)).await;
            if !worker.is_skipped(0) {
                break;
            }
        }
        assert_eq!((origin.n_connections(), origin.n_requests()), (1, 0));
        let answered = [(); 2].map(|()| ask(&worker, Method::Post));
        let [one, two] = answered;
        let mut servers = [one.await.unwrap(), two.await.unwrap()];
        servers.sort_unstable();
        assert_eq!(servers, [BROKEN, GOOD]);
        assert_eq!((origin.n_connections(), origin.n_requests()), (1, 1), "it was kept");
    });
}

#[test]
fn a_request_without_a_retry_tries_no_server() {
    run_by_test_clock(async {
        let (place, good) = (Place::new(), ScriptedOrigin::answering(|_| Some(OK.to_vec())));
        let servers = [place.address(), good.address()];
        let [worker] = workers_to(servers, |upstream| {
            (upstream.skip, upstream.retries) = (SKIP, 0);
        });
        let refused = Err(FetchFailure::Fetch(FetchError::Connect));
        assert_eq!([get(&worker).await, get(&worker).await], [refused, Ok(GOOD)]);
        for _ in 0..4 {
            timer::sleep(SKIP * 20).await;
            assert_eq!(get(&worker).await, Ok(GOOD));
        }
    });
}

#[test]
fn a_server_that_answers_as_the_last_resort_is_used_at_once() {
    run_by_test_clock(async {
        let place = Place::new();
        let [first, second] = workers_to([place.address()], |upstream| upstream.skip = SKIP);
        let refused = Err(FetchFailure::Fetch(FetchError::Connect));
        assert_eq!([get(&first).await, get(&second).await], [refused; 2]);
        let _origin = ScriptedOrigin::at(place, async |mut peer| {
            while peer.request().await.is_some() {
                peer.say(OK).await;
            }
        });
        assert!(first.is_skipped(0));
        assert_eq!(get(&second).await, Ok(BROKEN));
        assert!(!first.is_skipped(0));
    });
}
