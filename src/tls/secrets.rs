//! The secrets of session tickets, in memory that all workers share.
//!
//! There are three at most: the newest makes tickets, and all open them. The keeper makes a new one in
//! the place of the oldest, so that an old ticket cannot be opened by anyone. The master keeps the
//! memory over reloads and deaths of workers. No core file has it, and it is not swapped out.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering, fence};

use aws_lc_rs::digest;
use zeroize::Zeroizing;

use crate::sys::shm::{SharedMap, SharedSlice, shared_struct};

/// How many there are at once.
pub(crate) const SECRETS_MAX: usize = 3;

/// The name by which their file is passed on; its number counts the layouts.
pub(crate) const PASSED_BY: &str = "ticket-secrets.1";

const BYTES: usize = size_of::<Head>() + SECRETS_MAX * size_of::<Row>();

/// The bytes of a secret.
pub(crate) type SecretBytes = [u8; 32];

shared_struct! {
    /// One secret. A reader takes it only if its number is the same before and after.
    struct Row: 48 bytes, aligned 8 {
        /// Counts the secrets from 1; 0 while there is none.
        number: AtomicU64,
        id: AtomicU64,
        words: [AtomicU64; 4],
    }
}

shared_struct! {
    /// Which secret makes tickets.
    struct Head: 32 bytes, aligned 8 {
        /// The number of the newest.
        newest: AtomicU64,
        /// When it was made, in seconds since 1970.
        made_s: AtomicU64,
        /// 1 if the secrets are those of a file, which the keeper does not replace.
        is_of_file: AtomicU64,
        unused: AtomicU64,
    }
}

/// A secret and its name in tickets.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Secret {
    pub(super) id: u64,
    pub(super) bytes: SecretBytes,
}

impl Secret {
    fn of(bytes: SecretBytes) -> Self {
        let digest = digest::digest(&digest::SHA256, &bytes);
        let id = digest.as_ref().first_chunk().map_or(0, |first| u64::from_be_bytes(*first));
        Self { id, bytes }
    }
}

/// The secrets.
pub struct Secrets {
    head: SharedSlice<Head>,
    rows: SharedSlice<Row>,
    map: SharedMap,
}

impl Secrets {
    /// Makes the first one, before the first fork.
    ///
    /// # Errors
    /// When memory runs out, or the kernel gives no random bytes.
    pub(crate) fn create(now_s: u64) -> io::Result<Self> {
        let secrets = Self::over(SharedMap::named("ktrix-secrets", BYTES)?)?;
        secrets.publish(Secret::of(random()?), now_s);
        Ok(secrets)
    }

    /// Those of the ktrix before this one, from the file that it passed by the name [`PASSED_BY`].
    ///
    /// # Errors
    /// When the file is another one.
    pub(crate) fn passed(fd: OwnedFd) -> io::Result<Self> {
        Self::over(SharedMap::passed(fd, BYTES)?)
    }

    /// Their file, for a ktrix that comes after this one.
    pub(crate) fn file(&self) -> Option<&File> {
        self.map.opened_file()
    }

    fn over(map: SharedMap) -> io::Result<Self> {
        map.keep_secret();
        Ok(Self { head: map.slice(0, 1)?, rows: map.slice(size_of::<Head>(), SECRETS_MAX)?, map })
    }

    /// Makes a new secret if the newest is older than `every_s`; whether it did. Only one of several
    /// keepers does.
    ///
    /// # Errors
    /// When the kernel gives no random bytes.
    pub(crate) fn rotate(&self, now_s: u64, every_s: u64) -> io::Result<bool> {
        let Some(head) = self.head.first() else { return Ok(false) };
        let made_s = head.made_s.load(Ordering::Acquire);
        // A secret of the future was made by a clock that was set back since.
        let is_due = now_s.checked_sub(made_s).is_none_or(|age_s| age_s >= every_s);
        if !is_due || head.is_of_file.load(Ordering::Acquire) != 0 {
            return Ok(false);
        }
        let secret = Secret::of(random()?);
        let order = (Ordering::AcqRel, Ordering::Relaxed);
        let taken = head.made_s.compare_exchange(made_s, now_s, order.0, order.1);
        if taken.is_ok() {
            self.publish(secret, now_s);
        }
        Ok(taken.is_ok())
    }

    /// Uses the secrets of a file, the newest first, or again some of its own if there are none.
    ///
    /// # Errors
    /// When the kernel gives no random bytes.
    pub(crate) fn use_file(&self, of_file: &[SecretBytes], now_s: u64) -> io::Result<()> {
        let Some(head) = self.head.first() else { return Ok(()) };
        let was_of_file = head.is_of_file.swap(u64::from(!of_file.is_empty()), Ordering::AcqRel);
        let mut own = Zeroizing::new([0; 32]);
        let wanted = match of_file {
            [] if was_of_file == 0 => return Ok(()),
            [] => {
                *own = random()?;
                std::slice::from_ref(&*own)
            }
            _ => of_file.get(..SECRETS_MAX).unwrap_or(of_file),
        };
        let newest = head.newest.load(Ordering::Acquire);
        let known: Vec<_> = (0..SECRETS_MAX as u64)
            .filter_map(|age| self.read(newest.checked_sub(age)?).map(|secret| secret.id))
            .collect();
        if known.into_iter().eq(wanted.iter().map(|bytes| Secret::of(*bytes).id)) {
            return Ok(());
        }
        for row in self.rows.iter() {
            row.erase();
        }
        // The first has the highest number.
        wanted.iter().rev().for_each(|bytes| self.publish(Secret::of(*bytes), now_s));
        Ok(())
    }

    /// The secret that makes tickets.
    pub(super) fn newest(&self) -> Option<Secret> {
        self.read(self.head.first()?.newest.load(Ordering::Acquire))
    }

    /// The secret that made a ticket.
    pub(super) fn find(&self, id: u64) -> Option<Secret> {
        let row = self.rows.iter().find(|row| row.id.load(Ordering::Relaxed) == id)?;
        self.read(row.number.load(Ordering::Acquire)).filter(|secret| secret.id == id)
    }

    fn row(&self, number: u64) -> Option<&Row> {
        self.rows.get(usize::try_from(number).ok()? % SECRETS_MAX)
    }

    /// The secret of this number, unless it is being replaced.
    fn read(&self, number: u64) -> Option<Secret> {
        let row = self.row(number).filter(|_| number != 0)?;
        if row.number.load(Ordering::Acquire) != number {
            return None;
        }
        let id = row.id.load(Ordering::Relaxed);
        let mut bytes = [0; 32];
        for (part, word) in bytes.chunks_exact_mut(8).zip(&row.words) {
            part.copy_from_slice(&word.load(Ordering::Relaxed).to_ne_bytes());
        }
        fence(Ordering::Acquire);
        (row.number.load(Ordering::Relaxed) == number).then_some(Secret { id, bytes })
    }

    /// Makes a secret the newest, in the place of the oldest.
    fn publish(&self, secret: Secret, now_s: u64) {
        let Some(head) = self.head.first() else { return };
        let number = head.newest.load(Ordering::Acquire) + 1;
        let Some(row) = self.row(number) else { return };
        row.number.store(0, Ordering::Relaxed);
        fence(Ordering::Release);
        row.id.store(secret.id, Ordering::Relaxed);
        for (word, part) in row.words.iter().zip(secret.bytes.chunks_exact(8)) {
            let part = part.first_chunk().map_or(0, |part| u64::from_ne_bytes(*part));
            word.store(part, Ordering::Relaxed);
        }
        row.number.store(number, Ordering::Release);
        head.made_s.store(now_s, Ordering::Release);
        head.newest.store(number, Ordering::Release);
    }
}

impl Row {
    fn erase(&self) {
        self.number.store(0, Ordering::Relaxed);
        fence(Ordering::Release);
        self.id.store(0, Ordering::Relaxed);
        self.words.iter().for_each(|word| word.store(0, Ordering::Relaxed));
    }
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Secrets").finish_non_exhaustive()
    }
}

fn random() -> io::Result<SecretBytes> {
    let mut bytes = [0; 32];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(secrets: &Secrets) -> Vec<u64> {
        let all = secrets.rows.iter().flat_map(|row| &row.words);
        all.map(|word| word.load(Ordering::Relaxed)).collect()
    }

    #[test]
    fn an_old_secret_opens_tickets_until_it_is_erased() {
        let secrets = Secrets::create(1_000).unwrap();
        let first = secrets.newest().unwrap();
        assert!(!secrets.rotate(1_099, 100).unwrap(), "it is not due");
        for (n_rotations, is_known) in [(1, true), (2, true), (3, false)] {
            assert!(secrets.rotate(1_000 + 100 * n_rotations, 100).unwrap());
            assert_ne!(secrets.newest().unwrap().id, first.id);
            assert_eq!(secrets.find(first.id).is_some(), is_known, "after {n_rotations}");
        }
        let word = u64::from_ne_bytes(*first.bytes.first_chunk().unwrap());
        assert!(!words(&secrets).contains(&word));
    }

    #[test]
    fn the_next_ktrix_opens_the_tickets_of_the_one_before() {
        let secrets = Secrets::create(1_000).unwrap();
        let file = secrets.file().unwrap().try_clone().unwrap();
        let next = Secrets::passed(file.into()).unwrap();
        assert!(next.newest() == secrets.newest());
        assert!(next.rotate(2_000, 100).unwrap() && next.newest() == secrets.newest());
    }

    #[test]
    fn a_secret_of_a_clock_that_was_set_back_is_replaced_at_once() {
        let secrets = Secrets::create(1_000_000).unwrap();
        let first = secrets.newest().unwrap();
        assert!(secrets.rotate(1_000, 100).unwrap());
        assert_ne!(secrets.newest().unwrap().id, first.id);
        assert!(!secrets.rotate(1_001, 100).unwrap());
    }

    #[test]
    fn a_file_takes_the_place_of_all_and_gives_it_back() {
        let secrets = Secrets::create(1_000).unwrap();
        let own = secrets.newest().unwrap();
        let [a, b, c] = [1, 2, 3].map(|byte| Secret::of([byte; 32]));
        secrets.use_file(&[a.bytes, b.bytes], 1_001).unwrap();
        assert!(secrets.newest() == Some(a) && secrets.find(b.id) == Some(b));
        assert!(secrets.find(own.id).is_none() && secrets.find(0).is_none());
        assert!(!secrets.rotate(9_000, 100).unwrap(), "the file decides");
        // The same file changes nothing; another first line does.
        secrets.use_file(&[a.bytes, b.bytes], 1_002).unwrap();
        assert!(secrets.newest() == Some(a));
        secrets.use_file(&[c.bytes, a.bytes, b.bytes], 1_003).unwrap();
        assert!(secrets.newest() == Some(c) && secrets.find(a.id) == Some(a));
        secrets.use_file(&[], 1_004).unwrap();
        let again = secrets.newest().unwrap();
        assert!(again != own && secrets.find(a.id).is_none());
        secrets.use_file(&[], 1_005).unwrap();
        assert!(secrets.newest() == Some(again), "they are its own already");
        assert!(secrets.rotate(9_000, 100).unwrap());
    }
}
