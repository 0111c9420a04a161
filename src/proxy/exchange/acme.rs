//! The proofs that an ACME client has put into a folder, by which an authority sees that a host is
//! under its control (RFC 8555 section 8.3).

use std::io::{self, Read as _};
use std::path::Path;
use std::rc::Rc;

use crate::disk::{self, Kind};
use crate::http::status::Status;
use crate::policy::acme::FOLDER;
use crate::policy::cache_status::CacheStatus;
use crate::policy::reason::close::CloseReason;
use crate::proxy::client::Client;
use crate::proxy::context::Context;
use crate::proxy::exchange::synthetic;
use crate::proxy::facts::Facts;
use crate::proxy::respond::Added;
use crate::sys::file;

/// Answers with the proof of a token, or with 404.
pub(crate) async fn answer<C: Client>(
    context: &Rc<Context>,
    client: &mut C,
    token: &str,
    facts: &mut Facts,
) -> Result<(), CloseReason> {
    let added = Added::new(CacheStatus::own(), None, None);
    let Some(dir) = context.config.acme.clone() else { return Ok(()) };
    let path = Path::new(FOLDER).join(token);
    let read = disk::run(Kind::Read, {
        let (dir, path) = (dir.clone(), path.clone());
        move || read(&dir, &path)
    });
    let proof = match read.await {
        Ok(proof) => proof,
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => {
            ::log::error!("cannot read {:?} for an ACME challenge: {error}", dir.join(path));
            None
        }
    };
    let Some(proof) = proof else {
        let why = "there is no such ACME challenge";
        return synthetic::answer(client, Status(404), why, &[], &added, facts).await;
    };
    let content = (Status(200), Some("application/octet-stream"), &proof[..]);
    let extra = [("Cache-Control", "no-store")];
    synthetic::content(client, content, &extra, &added, facts).await
}

fn read(dir: &Path, path: &Path) -> io::Result<Option<Vec<u8>>> {
    let Some(proof) = file::open_beneath(dir, path)? else { return Ok(None) };
    let mut bytes = Vec::new();
    proof.take(PROOF_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    match bytes.len() as u64 {
        ..=PROOF_BYTES_MAX => Ok(Some(bytes)),
        _ => Err(io::Error::other("the file is too long for a proof")),
    }
}

/// A token, a dot and a digest are fewer than 200.
const PROOF_BYTES_MAX: u64 = 1 << 10;
