//! A temporary file that is written at one end while it is read at the other.
//!
//! The file is a ring: what was read makes room for what comes. A helper writes, one job at a time.

use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use crate::disk::file::DiskFile;
use crate::disk::pool::Answer;
use crate::disk::{self, Kind};
use crate::shared::bodies::{Bodies, BodyBytes};

/// The most that [`Overflow::read`] takes at once.
const READ_BYTES_MAX: u64 = 128 << 10;

/// The bytes that are on their way through the file.
#[derive(Debug)]
pub(super) struct Overflow {
    dir: PathBuf,
    file: Option<DiskFile>,
    bytes_max: u64,
    /// The length of the file, as it counts with those of all others.
    bytes: BodyBytes,
    len: u64,
    /// How many bytes were read, and written, since the beginning.
    from: u64,
    to: u64,
    flying: Arc<Vec<u8>>,
    job: Option<Answer<io::Result<DiskFile>>>,
}

impl Overflow {
    /// An empty one, whose file will be in `dir`.
    pub(super) fn new(dir: &Path, bodies: &Rc<Bodies>, bytes_max: u64) -> Self {
        Self {
            dir: dir.to_owned(),
            file: None,
            bytes_max,
            bytes: BodyBytes::none(bodies),
            len: 0,
            from: 0,
            to: 0,
            flying: Arc::default(),
            job: None,
        }
    }

    /// Has a helper write the first bytes of `memory`, and takes them from there; `false` if there is no
    /// room. The job before must have ended.
    ///
    /// # Errors
    /// All files together have as many bytes as they may.
    pub(super) fn write(&mut self, memory: &mut Vec<u8>) -> io::Result<bool> {
        debug_assert!(self.flying.is_empty(), "one job writes");
        let at = self.to % self.bytes_max;
        let room = (self.bytes_max - (self.to - self.from)).min(self.bytes_max - at);
        let n_bytes = memory.len().min(usize::try_from(room).unwrap_or(usize::MAX));
        if n_bytes == 0 {
            return Ok(false);
        }
        let end = at + n_bytes as u64;
        if end > self.len {
            // Clients that do not read must not keep others from sending.
            if !self.bytes.take_of_half(end - self.len) {
                return Err(io::Error::other("limits.bodies is reached"));
            }
            self.len = end;
        }
        let rest = memory.split_off(n_bytes);
        self.flying = Arc::new(std::mem::replace(memory, rest));
        let (bytes, opened, dir) = (Arc::clone(&self.flying), self.file.clone(), self.dir.clone());
        let write = move || {
            let file = opened.map_or_else(|| DiskFile::unnamed(&dir), Ok)?;
            file.write_all_at(&bytes, at).map(|()| file)
        };
        self.job = Some(disk::run(Kind::Write(n_bytes), write));
        Ok(true)
    }

    /// Bytes that a helper is writing.
    pub(super) fn n_flying(&self) -> usize {
        self.flying.len()
    }

    /// Waits until a helper has written what it was given. It may be dropped and called again.
    ///
    /// # Errors
    /// The bytes are not in the file; [`Self::take_flying`] gives them back.
    pub(super) async fn settle(&mut self) -> io::Result<()> {
        let Some(job) = &mut self.job else { return Ok(()) };
        let written = job.await;
        self.job = None;
        self.file = Some(written?);
        self.to += self.flying.len() as u64;
        self.flying = Arc::default();
        Ok(())
    }

    /// Takes the oldest bytes out of the file; none if there are none. They are copied: what
    /// sendfile(2) has given to a socket changes when it is written over in the file.
    ///
    /// # Errors
    /// As [`DiskFile::read`].
    pub(super) async fn read(&mut self) -> io::Result<Vec<u8>> {
        let at = self.from % self.bytes_max;
        let n_bytes = (self.to - self.from).min(self.bytes_max - at).min(READ_BYTES_MAX);
        let Some(file) = self.file.as_ref().filter(|_| n_bytes > 0) else { return Ok(Vec::new()) };
        let bytes = file.read(at, n_bytes as usize).await?;
        if bytes.len() as u64 != n_bytes {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.from += n_bytes;
        Ok(bytes)
    }

    /// The bytes that are not in the file. If a helper still writes them, the file is of no more use.
    pub(super) fn take_flying(&mut self) -> Vec<u8> {
        self.job = None;
        Arc::unwrap_or_clone(std::mem::take(&mut self.flying))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reactor;
    use crate::shared::bodies::BodyTable;

    fn bodies(bytes_max: u64) -> Rc<Bodies> {
        Rc::new(Bodies::new(Rc::new(BodyTable::create(1).unwrap()), 0, bytes_max))
    }

    /// Reads all that is in the file.
    async fn read(overflow: &mut Overflow) -> Vec<u8> {
        let mut bytes = Vec::new();
        loop {
            let mut part = overflow.read().await.unwrap();
            if part.is_empty() {
                return bytes;
            }
            bytes.append(&mut part);
        }
    }

    #[test]
    fn bytes_come_out_in_order_and_the_file_does_not_outgrow_its_bound() {
        let dir = tempfile::tempdir().unwrap();
        let bodies = bodies(20);
        let mut overflow = Overflow::new(dir.path(), &bodies, 10);
        let (mut next, mut memory, mut got) = (0_u8, Vec::new(), Vec::new());
        reactor::run(async {
            for n in 0..100 {
                memory.extend((0..3 + n % 5).map(|_| {
                    next = next.wrapping_add(1);
                    next
                }));
                while overflow.write(&mut memory).unwrap() {
                    overflow.settle().await.unwrap();
                }
                assert!(!bodies.has_room(21 - overflow.len), "the length counts");
                if n % 3 != 0 {
                    got.append(&mut read(&mut overflow).await);
                }
            }
            loop {
                got.append(&mut read(&mut overflow).await);
                if !overflow.write(&mut memory).unwrap() {
                    break;
                }
                overflow.settle().await.unwrap();
            }
        })
        .unwrap();
        let expected: Vec<u8> = (1..=got.len()).map(|n| n as u8).collect();
        assert!(got.len() > 400 && got == expected);
        let file = overflow.file.as_ref().unwrap();
        assert_eq!(file.metadata().unwrap().len(), 10);
        drop(overflow);
        assert!(bodies.has_room(20));
    }

    #[test]
    fn bytes_that_are_not_in_the_file_come_back() {
        let gone = tempfile::tempdir().unwrap().path().join("gone");
        let bodies = bodies(12);
        let mut overflow = Overflow::new(&gone, &bodies, 100);
        let mut memory = b"abcd".to_vec();
        reactor::run(async {
            assert!(overflow.write(&mut memory).unwrap());
            assert!(overflow.settle().await.is_err());
            assert!(overflow.read().await.unwrap().is_empty());
        })
        .unwrap();
        assert_eq!(overflow.take_flying(), b"abcd");
        assert!(overflow.write(&mut b"efgh".to_vec()).is_ok(), "the first bytes are counted");
        let mut overflow = Overflow::new(Path::new("/"), &bodies, 100);
        let mut memory = b"efg".to_vec();
        assert!(overflow.write(&mut memory).is_err(), "the bound of all");
        assert_eq!(memory, b"efg");
    }
}
