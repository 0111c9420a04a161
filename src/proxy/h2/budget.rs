//! The work without a use that a client may cause on one connection.
//!
//! A frame costs the client nearly nothing. A stream that is reset as soon as it was opened makes
//! ktrix ask an origin, and control frames make it read, count and answer. Each of them spends from a
//! budget here that requests, answers and time fill up again. The `h2` crate bounds the rest: the
//! frames and the size of a head, empty and tiny DATA frames, and resets of streams that were not
//! accepted yet.

use crate::policy::reason::close::CloseReason;

/// The budgets of one connection, and where in its frames the bytes read so far end.
#[derive(Debug)]
pub(super) struct Budget {
    /// Streams that may still be reset before the window ends.
    resets_left: u32,
    resets_max: u32,
    window_ends_ms: u64,
    /// Control frames that may still come.
    control_left: i64,
    filled_ms: u64,
    frames: Frames,
}

/// The resets that are allowed are allowed again after this, in milliseconds.
const WINDOW_MS: u64 = 60_000;

/// Control frames that may come at once. A client sends up to two updates of windows for each DATA
/// frame, and some clients a PING with each reset of a stream.
const CONTROL_MAX: i64 = 4_000;

/// Control frames that may come in the long run, for each second, request and DATA frame.
const CONTROL_PER_SECOND: i64 = 50;
const CONTROL_PER_REQUEST: i64 = 8;
const CONTROL_PER_DATA: i64 = 2;

impl Budget {
    /// As many resets are allowed as the client may have streams.
    pub(super) fn new(n_streams_max: u32, now_ms: u64) -> Self {
        Self {
            resets_left: n_streams_max,
            resets_max: n_streams_max,
            window_ends_ms: now_ms + WINDOW_MS,
            control_left: CONTROL_MAX,
            filled_ms: now_ms,
            frames: Frames { left: PREFACE_BYTES, head: [0; HEAD_BYTES], n_head: 0 },
        }
    }

    /// A stream was reset by the client, or because of the client, or was refused.
    pub(super) fn note_reset(&mut self, now_ms: u64) {
        if now_ms >= self.window_ends_ms {
            self.window_ends_ms = now_ms + WINDOW_MS;
            self.resets_left = self.resets_max;
        }
        self.resets_left = self.resets_left.saturating_sub(1);
    }

    /// The client took a whole answer.
    pub(super) fn note_answer(&mut self) {
        self.resets_left = (self.resets_left + 1).min(self.resets_max);
    }

    /// A DATA frame of about this size goes to the client, which will update its windows for it.
    pub(super) fn note_data(&mut self, n_bytes: usize) {
        let n_frames = n_bytes.div_ceil(FRAME_BYTES_MIN) as i64;
        self.add_control(CONTROL_PER_DATA * n_frames);
    }

    /// Takes note of the frames in the bytes that were read.
    pub(super) fn note_read(&mut self, bytes: &[u8], now_ms: u64) {
        let since_ms = now_ms.saturating_sub(self.filled_ms);
        if since_ms >= 1_000 {
            self.filled_ms = now_ms;
            self.add_control(CONTROL_PER_SECOND.saturating_mul((since_ms / 1_000) as i64));
        }
        let mut rest = bytes;
        while let Some((kind, n_payload)) = self.frames.next(&mut rest) {
            self.add_control(match kind {
                HEADERS => CONTROL_PER_REQUEST,
                DATA if n_payload > 0 => CONTROL_PER_DATA,
                _ => -1,
            });
        }
    }

    /// Why the connection must end, if a budget is spent.
    pub(super) fn spent(&self) -> Option<CloseReason> {
        match (self.resets_left, self.control_left) {
            (0, _) => Some(CloseReason::ResetFlood),
            (_, ..0) => Some(CloseReason::ControlFlood),
            _ => None,
        }
    }

    fn add_control(&mut self, n: i64) {
        self.control_left = self.control_left.saturating_add(n).min(CONTROL_MAX);
    }
}

/// Finds the heads of frames in a stream of bytes that is cut anywhere, RFC 9113 section 4.1.
#[derive(Debug)]
struct Frames {
    /// Bytes before the next head.
    left: usize,
    head: [u8; HEAD_BYTES],
    n_head: usize,
}

impl Frames {
    /// The type and the length of the next frame whose head ends within `bytes`, which are used up to
    /// there.
    fn next(&mut self, bytes: &mut &[u8]) -> Option<(u8, usize)> {
        let n_skipped = self.left.min(bytes.len());
        self.left -= n_skipped;
        *bytes = bytes.get(n_skipped..).unwrap_or_default();
        let wanted = self.head.get_mut(self.n_head..).unwrap_or_default();
        let n_taken = wanted.len().min(bytes.len());
        let (taken, rest) = bytes.split_at_checked(n_taken)?;
        wanted.get_mut(..n_taken)?.copy_from_slice(taken);
        *bytes = rest;
        self.n_head += n_taken;
        if self.n_head < HEAD_BYTES {
            return None;
        }
        let [high, middle, low, kind, ..] = self.head;
        self.n_head = 0;
        self.left = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
        Some((kind, self.left))
    }
}

/// Bytes of the connection preface, RFC 9113 section 3.4.
const PREFACE_BYTES: usize = 24;

/// Bytes of the head of a frame.
const HEAD_BYTES: usize = 9;

/// Types of frames, RFC 9113 section 6.
const DATA: u8 = 0;
const HEADERS: u8 = 1;

/// The DATA frames that a client is taken to get are at least this large, but for the last one.
const FRAME_BYTES_MIN: usize = 4 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
        let len = (payload.len() as u32).to_be_bytes();
        [&len[1..], &[kind, 0, 0, 0, 0, 1], payload].concat()
    }

    fn preface() -> Vec<u8> {
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec()
    }

    #[test]
    fn frames_are_found_however_the_bytes_are_cut() {
        let bytes = [preface(), frame(4, b""), frame(1, b"abc"), frame(0, &[9; 300])].concat();
        for cut in 0..=bytes.len() {
            let mut frames = Budget::new(1, 0).frames;
            let mut found = Vec::new();
            let (start, end) = bytes.split_at(cut);
            for mut part in [start, end] {
                while let Some(frame) = frames.next(&mut part) {
                    found.push(frame);
                }
            }
            assert_eq!(found, [(4, 0), (1, 3), (0, 300)], "cut at {cut}");
        }
    }

    #[test]
    fn control_frames_are_bounded_and_earned() {
        const PING: u8 = 6;
        let pings = |budget: &mut Budget, n: i64, now_ms: u64| {
            (0..n).for_each(|_| budget.note_read(&frame(PING, &[0; 8]), now_ms));
        };
        let mut budget = Budget::new(100, 0);
        budget.note_read(&preface(), 0);
        pings(&mut budget, CONTROL_MAX, 0);
        assert_eq!(budget.spent(), None);
        budget.note_read(&frame(HEADERS, b"x"), 0);
        pings(&mut budget, CONTROL_PER_REQUEST, 0);
        budget.note_data(100_000);
        pings(&mut budget, CONTROL_PER_DATA * 25, 0);
        pings(&mut budget, 10 * CONTROL_PER_SECOND, 10_000);
        assert_eq!(budget.spent(), None);
        pings(&mut budget, 1, 10_999);
        assert_eq!(budget.spent(), Some(CloseReason::ControlFlood));
        // An empty DATA frame is one too, and what was not used is not kept beyond the bound.
        let mut budget = Budget::new(100, 0);
        budget.note_read(&preface(), 0);
        budget.note_data(1 << 30);
        (0..=CONTROL_MAX).for_each(|_| budget.note_read(&frame(DATA, b""), 0));
        assert_eq!(budget.spent(), Some(CloseReason::ControlFlood));
    }

    #[test]
    fn resets_are_bounded_by_the_streams_and_earned_by_answers_and_time() {
        let mut budget = Budget::new(3, 0);
        budget.note_answer();
        budget.note_reset(0);
        budget.note_reset(0);
        assert_eq!(budget.spent(), None);
        budget.note_answer();
        budget.note_reset(1);
        assert_eq!(budget.spent(), None);
        budget.note_reset(WINDOW_MS);
        assert_eq!(budget.spent(), None);
        budget.note_reset(WINDOW_MS);
        budget.note_reset(WINDOW_MS + 1);
        assert_eq!(budget.spent(), Some(CloseReason::ResetFlood));
    }
}
