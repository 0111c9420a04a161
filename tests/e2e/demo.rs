//! `ktrix demo` as a newcomer sees it: its commands, its lines and its summary.

use std::fs::File;
use std::io::Read;
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

use nix::pty::openpty;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::support::ktrix::BINARY;
use crate::support::{Answer, Ask, Client, PATIENCE, until, until_true};

/// A running demonstration, and what it has printed.
struct Demo {
    child: Child,
    printed: Arc<Mutex<Vec<u8>>>,
    address: SocketAddr,
}

impl Demo {
    /// With a pipe for its standard output.
    fn start() -> Self {
        let (output, input) = std::io::pipe().unwrap();
        Self::start_by(Command::new(BINARY).stdout(input), output)
    }

    /// On a terminal.
    fn start_on_terminal(no_colour: &str) -> Self {
        let pty = openpty(None, None).unwrap();
        let mut command = Command::new(BINARY);
        command.env("TERM", "xterm").env("NO_COLOR", no_colour).stdout(pty.slave);
        Self::start_by(&mut command, File::from(pty.master))
    }

    fn start_by(command: &mut Command, mut output: impl Read + Send + 'static) -> Self {
        let command = command.args(["demo", "--port", "0"]);
        let child = command.stdin(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let printed = Arc::new(Mutex::new(Vec::new()));
        let all = Arc::clone(&printed);
        thread::spawn(move || {
            let mut bytes = [0; 4096];
            // A terminal that its last process has left gives an error for the end.
            while let Ok(n @ 1..) = output.read(&mut bytes) {
                all.lock().unwrap().extend_from_slice(&bytes[..n]);
            }
        });
        let mut demo = Self { child, printed, address: ([127, 0, 0, 1], 0).into() };
        demo.address = until("the invitation", PATIENCE, || {
            let text = demo.printed();
            let url = text.split_once("http://")?.1;
            text.contains("Every request").then(|| url.split_once('/')?.0.parse().ok())?
        });
        demo
    }

    fn printed(&self) -> String {
        String::from_utf8_lossy(&self.printed.lock().unwrap()).into_owned()
    }

    /// What it has printed after its invitation.
    fn lines(&self) -> Vec<String> {
        let text = self.printed();
        let shown = text.split_once("Every request").map_or("", |(_, rest)| rest);
        shown.lines().skip(1).filter(|line| !line.is_empty()).map(str::to_owned).collect()
    }

    fn wait_line(&self, target: &str, verdict: &str) -> String {
        let is_it = |line: &String| {
            let mut words = line.split_whitespace();
            words.nth(1) == Some(target) && words.nth(1) == Some(verdict)
        };
        until(&format!("a line for {target}: {verdict}"), PATIENCE, || {
            self.lines().into_iter().find(is_it)
        })
    }

    fn client(&self) -> Client {
        Client::connect(&self.address.into()).host(&self.address.to_string())
    }

    fn get(&self, target: &str) -> Answer {
        self.client().get(target)
    }

    fn wait_hit(&self, target: &str) {
        until_true("a hit", || self.get(target).is_hit());
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().cast_signed()), signal).unwrap();
    }

    /// Ends it as Ctrl-C does; gives all its lines.
    fn end(&mut self) -> Vec<String> {
        self.signal(Signal::SIGINT);
        assert!(self.child.wait().unwrap().success());
        until_true("the last words", || self.printed().contains("Its cache was removed."));
        self.lines()
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            // By a signal that lets it remove its cache; a stopped process takes none.
            self.signal(Signal::SIGTERM);
            self.signal(Signal::SIGCONT);
            let _ = self.child.wait();
        }
    }
}

#[test]
fn a_hit_has_a_time_and_a_pipe_gets_no_colours() {
    let demo = Demo::start();
    demo.get("/").expect_miss();
    demo.wait_hit("/");
    demo.wait_line("/", "miss");
    let hit = demo.wait_line("/", "hit");
    let mut words = hit.split_whitespace().rev();
    assert!(matches!(words.next(), Some("µs" | "ms" | "s")), "{hit}");
    assert!(words.next().unwrap().parse::<f64>().unwrap() > 0.0, "{hit}");
    assert!(!demo.printed().contains('\x1b'));
}

#[test]
fn the_lines_of_both_workers_are_in_order() {
    let mut demo = Demo::start();
    demo.wait_hit("/");
    // While it sleeps it reads no log, so that it finds the lines of each worker in one piece.
    demo.signal(Signal::SIGSTOP);
    let methods: Vec<&str> = (0..40).map(|n| if n % 3 == 0 { "HEAD" } else { "GET" }).collect();
    for method in &methods {
        demo.client().ask(&Ask::new(method, "/")).expect_hit();
    }
    demo.signal(Signal::SIGCONT);
    let lines = demo.end();
    let shown: Vec<_> = lines.iter().filter_map(|line| line.split_whitespace().next()).collect();
    // The last two lines are the summary and the farewell.
    let shown = &shown[shown.len() - 2 - methods.len()..shown.len() - 2];
    assert_eq!(shown, methods, "{lines:#?}");
}

#[test]
fn two_requests_at_once_are_a_miss_and_a_collapsed_one() {
    let mut demo = Demo::start();
    let mut clients = [demo.client(), demo.client()];
    for client in &mut clients {
        client.send(&Ask::get("/slow/together"));
    }
    for client in &mut clients {
        client.answer().expect_status(200);
    }
    demo.wait_line("/slow/together", "miss");
    demo.wait_line("/slow/together", "collapsed");
    let lines = demo.end();
    let sums = "requests: 2, hits: 0 (hit ratio 0 %), requests to the origin: 1 (1 saved)";
    assert_eq!(lines[2], sums, "{lines:#?}");
}

#[test]
fn the_commands_for_stale_answers_purging_and_explaining_work_as_they_are_printed() {
    let demo = Demo::start();
    let text = demo.printed();
    let command = |part: &str| text.lines().find(|line| line.contains(part)).unwrap().trim();
    let url = format!("http://{}", demo.address);

    assert!(command("/stale ").starts_with(&format!("curl -i {url}/stale ")), "{text}");
    demo.get("/stale").expect_miss();
    until_true("a stale answer", || {
        demo.get("/stale").expect_status(200);
        demo.lines().iter().any(|line| line.split_whitespace().nth(3) == Some("stale"))
    });

    demo.get("/picture").expect_miss();
    demo.wait_hit("/picture");
    assert_eq!(command("PURGE"), format!("curl -X PURGE {url}/picture"));
    demo.client().ask(&Ask::new("PURGE", "/picture")).expect_status(200);
    demo.wait_line("/picture", "purge");
    demo.get("/picture").expect_miss();

    let explained = Command::new("sh").args(["-c", command(" explain ")]).output().unwrap();
    let said = String::from_utf8_lossy(&explained.stdout);
    assert!(said.contains("verdict: hit") || said.contains("verdict: stale"), "{explained:?}");
}

#[test]
fn the_summary_counts_what_was_shown() {
    let mut demo = Demo::start();
    demo.get("/never").expect_status(200);
    demo.get("/").expect_miss();
    demo.wait_hit("/");
    demo.client().ask(&Ask::new("PURGE", "/picture")).expect_status(200);
    let mut lines = demo.end();
    assert_eq!(lines.pop().unwrap(), "ktrix has ended. Its cache was removed.");
    let sums = lines.pop().unwrap();
    let n = |word| lines.iter().filter(|l| l.split_whitespace().nth(3) == Some(word)).count();
    let (n_requests, n_hits) = (lines.len() - n("purge"), n("hit"));
    let percent = 100 * n_hits / n_requests;
    let expected = format!("requests: {n_requests}, hits: {n_hits} (hit ratio {percent} %), ");
    assert!(sums.starts_with(&expected) && n_hits >= 1, "{sums}\n{lines:#?}");
    assert!(sums.ends_with(&format!("origin: 2 ({} saved)", n_requests - 2)), "{sums}");
}

#[test]
fn a_terminal_gets_colours_unless_no_color_is_set() {
    for (no_colour, has_colours) in [("", true), ("1", false)] {
        let demo = Demo::start_on_terminal(no_colour);
        demo.get("/").expect_miss();
        until_true("the line", || demo.lines().iter().any(|line| line.contains("miss")));
        let line = demo.lines().remove(0);
        assert_eq!(line.contains("\x1b[31mmiss"), has_colours, "{line:?}");
    }
}
