//! The row of a server: what all processes of a generation know of it.
//!
//! | bytes | field | meaning |
//! | --- | --- | --- |
//! | 0..8 | word | whether it is used or skipped, see `health` |
//! | 8..16 | up_since_ms | when it came back after a failure; 0 = it never failed |
//! | 16..24 | failures | when the first of the failures in a row was << 8 \| how many there are |
//! | 24..28 | setting | what the operator wants: 0 enabled, 1 draining, 2 disabled |
//! | 28..32 | weight | its share now |
//! | 32..36 | n_doubled | how often its pause was doubled |
//! | 64..72 | rtt | when an answer came last, ms << 32 \| average time to an answer, µs |
//! | 72..76 | n_active | its active connections in all workers, if the balancer needs them |
//! | 128..136 | changed_s | when its state changed last, Unix time |
//! | 136..140 | reason | why |
//! | 140..144 | n_downs | how often it was skipped |
//! | 144..152 | checked_s | when it was checked last, Unix time; 0 = never |
//! | 152..156 | check | the result: 0 = none, 1 = passed, else the code of a `CheckFailure` |
//! | 156..160 | n_checks | how many results in a row were the same |
//! | 160..164 | own_weight | the weight of the configuration |
//! | 164..168 | own_setting | the setting of the configuration |
//!
//! The first cache line seldom changes, so that a choice by turns reads nothing that every request
//! writes.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::policy::reason::server::ServerReason;
use crate::sys::shm::shared_struct;
use crate::upstream::state::Setting;

shared_struct! {
    /// The row of a server: see the module's field table.
    #[derive(Debug)]
    #[cfg_attr(test, derive(Default))]
    pub(crate) struct ServerRow: 192 bytes, aligned 64 {
        pub(super) word: AtomicU64,
        pub(super) up_since_ms: AtomicU64,
        pub(super) failures: AtomicU64,
        setting: AtomicU32,
        weight: AtomicU32,
        pub(super) n_doubled: AtomicU32,
        _rest: [AtomicU32; 7],
        rtt: AtomicU64,
        n_active: AtomicU32,
        _rest_of_second: [AtomicU32; 13],
        changed_s: AtomicU64,
        reason: AtomicU32,
        n_downs: AtomicU32,
        pub(crate) checked_s: AtomicU64,
        pub(crate) check: AtomicU32,
        pub(crate) n_checks: AtomicU32,
        own_weight: AtomicU32,
        own_setting: AtomicU32,
        _rest_of_third: [AtomicU64; 3],
    }
}

/// The last change of a server's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LastChange {
    /// Unix time; 0 if it never changed.
    pub(crate) at_s: u64,
    pub(crate) reason: ServerReason,
    /// How often the server was skipped.
    pub(crate) n_downs: u32,
}

impl ServerRow {
    /// Sets what the configuration says of the server.
    pub(super) fn configure(&self, weight: u32, setting: Setting) {
        for (own, live, value) in [
            (&self.own_weight, &self.weight, weight),
            (&self.own_setting, &self.setting, setting.code()),
        ] {
            own.store(value, Ordering::Relaxed);
            live.store(value, Ordering::Relaxed);
        }
    }

    /// Takes over from the row of the same server in the generation before. A weight or setting that
    /// was changed live is kept if the configuration still says what it said.
    pub(crate) fn take_over_settings(&self, before: &Self) {
        let same = [
            (&self.own_weight, &before.own_weight, &self.weight, &before.weight),
            (&self.own_setting, &before.own_setting, &self.setting, &before.setting),
        ];
        for (own, own_before, live, live_before) in same {
            if own.load(Ordering::Relaxed) == own_before.load(Ordering::Relaxed) {
                live.store(live_before.load(Ordering::Relaxed), Ordering::Relaxed);
            }
        }
    }

    /// As [`Self::take_over_settings`], and takes over what was seen of the server.
    pub(super) fn take_over(&self, before: &Self) {
        self.take_over_settings(before);
        let words = [
            (&self.word, &before.word),
            (&self.up_since_ms, &before.up_since_ms),
            (&self.failures, &before.failures),
            (&self.rtt, &before.rtt),
            (&self.changed_s, &before.changed_s),
            (&self.checked_s, &before.checked_s),
        ];
        for (word, before) in words {
            word.store(before.load(Ordering::Relaxed), Ordering::Relaxed);
        }
        let counts = [
            (&self.n_doubled, &before.n_doubled),
            (&self.reason, &before.reason),
            (&self.n_downs, &before.n_downs),
            (&self.check, &before.check),
            (&self.n_checks, &before.n_checks),
        ];
        for (count, before) in counts {
            count.store(before.load(Ordering::Relaxed), Ordering::Relaxed);
        }
    }

    pub(crate) fn setting(&self) -> Setting {
        Setting::of_code(self.setting.load(Ordering::Relaxed))
    }

    /// Changes the setting; `false` if it was so before.
    pub(crate) fn set(&self, setting: Setting, now_s: u64) -> bool {
        let is_new = self.setting.swap(setting.code(), Ordering::Relaxed) != setting.code();
        if is_new {
            self.changed(ServerReason::Command, now_s);
        }
        is_new
    }

    pub(crate) fn weight(&self) -> u32 {
        self.weight.load(Ordering::Relaxed)
    }

    pub(crate) fn set_weight(&self, weight: u32, now_s: u64) {
        self.weight.store(weight, Ordering::Relaxed);
        self.changed(ServerReason::Command, now_s);
    }

    /// When it came back after a failure, in milliseconds of the monotonic clock; 0 if it never
    /// failed.
    pub(crate) fn up_since_ms(&self) -> u64 {
        self.up_since_ms.load(Ordering::Relaxed)
    }

    /// Active connections in all workers, as far as they are counted here.
    pub(crate) fn n_active(&self) -> u32 {
        self.n_active.load(Ordering::Relaxed)
    }

    pub(crate) fn add_active(&self) {
        self.n_active.fetch_add(1, Ordering::Relaxed);
    }

    /// Gives back active connections that were counted before.
    pub(crate) fn remove_active(&self, n: u32) {
        self.n_active.fetch_sub(n, Ordering::Relaxed);
    }

    /// The time to an answer, in µs: the average, which a slow answer raises at once and which time
    /// lowers; 0 if it is not known. The second value is when an answer came last, in milliseconds
    /// of the monotonic clock, modulo 2^32.
    pub(crate) fn rtt(&self) -> (u32, u32) {
        let word = self.rtt.load(Ordering::Relaxed);
        (word as u32, (word >> 32) as u32)
    }

    /// Notes the average that an answer has led to. Of two workers at once one wins.
    pub(crate) fn set_rtt(&self, rtt_us: u32, at_ms: u32) {
        self.rtt.store(u64::from(at_ms) << 32 | u64::from(rtt_us), Ordering::Relaxed);
    }

    pub(crate) fn last_change(&self) -> LastChange {
        LastChange {
            at_s: self.changed_s.load(Ordering::Relaxed),
            reason: ServerReason::of_code(self.reason.load(Ordering::Relaxed)),
            n_downs: self.n_downs.load(Ordering::Relaxed),
        }
    }

    pub(super) fn went_down(&self) {
        self.n_downs.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn changed(&self, reason: ServerReason, now_s: u64) {
        self.reason.store(reason.code(), Ordering::Relaxed);
        self.changed_s.store(now_s, Ordering::Relaxed);
    }
}
