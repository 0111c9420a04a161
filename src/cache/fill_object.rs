//! A response whose body is being written, as every worker reads it from its file.

use crate::cache::files::object::{HEADERS_LEN, Header};
use crate::cache::files::spool::Spool;
use crate::cache::insert::NewObject;
use crate::cache::lease::Follower;
use crate::cache::load::STORED_FIELDS_MAX;
use crate::cache::name::Name;
use crate::disk::file::DiskFile;
use crate::http::fields::Fields;
use crate::http::h1::head;
use crate::http::status::Status;
use crate::policy::meta;
use crate::policy::rfc9111::freshness::Lifetimes;

/// A response whose body is being written.
#[derive(Debug)]
pub struct FillObject {
    /// Its name. A follower checks that its own request selects it.
    pub name: Name,
    /// Its status.
    pub status: Status,
    /// Its fields.
    pub fields: Fields,
    /// How long it may be used.
    pub lifetimes: Lifetimes,
    /// The file that is being written.
    pub file: DiskFile,
    /// Where the body begins in it.
    pub body_offset: u64,
    /// The body's length, if the origin stated it.
    pub total: Option<u64>,
}

impl FillObject {
    /// A response that its leader has begun to write.
    pub fn begun(new: &NewObject, spool: &Spool, total: Option<u64>) -> Self {
        let NewObject { name, status, fields, lifetimes } = new.clone();
        let (file, body_offset) = (spool.file().clone(), spool.body_offset());
        Self { name, status, fields, lifetimes, file, body_offset, total }
    }

    /// The response that the followed leader writes; `None` if that cannot be read, or is gone.
    pub async fn followed(follower: &Follower, total: Option<u64>) -> Option<Self> {
        let object = follower.cache.shared.store.load_fill(follower.at.id()).await.ok()??;
        Some(Self {
            name: Name::of(object.key_text()),
            status: Status(object.status()),
            fields: head::parse_fields(object.head(), STORED_FIELDS_MAX).ok()?,
            lifetimes: meta::decode(object.meta()).ok()?,
            body_offset: object.body_offset(),
            file: object.file,
            total,
        })
    }

    /// Whether a request with these fields, which looked under `name`, selects it.
    pub fn is_for(&self, request: &Fields, name: &Name) -> bool {
        let whole = self.name.of_whole();
        let found = whole.as_ref().unwrap_or(&self.name);
        if found.key == name.key {
            return true;
        }
        // The request began to wait before it was known that the key has variants.
        let Some(vary) = &self.lifetimes.vary else { return false };
        name.beside(found, vary, request).is_some_and(|own| own.key == found.key)
    }

    /// The length of the body, if the file says that it is whole.
    pub async fn finished_len(&self) -> Option<u64> {
        let bytes = self.file.read(0, HEADERS_LEN).await.ok()?;
        let header = Header::parse(&bytes).ok()?;
        header.body_crc.and(header.body_len)
    }

    /// Whether the file has these bytes at this place of the body.
    pub async fn has_bytes(&self, at: u64, bytes: &[u8]) -> bool {
        let stored = self.file.read(self.body_offset + at, bytes.len()).await;
        stored.is_ok_and(|stored| stored == bytes)
    }
}
