//! The end of a stream, behind its line in the access log.

use bytes::Bytes;
use h2::Reason;

use crate::policy::reason::close::CloseReason;
use crate::proxy::client::Client as _;
use crate::proxy::facts::Facts;
use crate::proxy::finish::{self, Asked, Sent};
use crate::proxy::h2::fields::fields_of;
use crate::proxy::h2::payload::Payload;
use crate::proxy::h2::response::{H2Response, Stage, gone};
use crate::proxy::h2::shared::Shared;

/// Ends an exchange: its line is prepared before its stream ends.
pub(super) async fn end(
    shared: &Shared,
    response: &mut H2Response<'_>,
    asked: Asked<'_>,
    facts: &mut Facts,
) {
    let context = &shared.context;
    context.log_room(response.front()).await;
    match facts.close {
        None => shared.budget.borrow_mut().note_answer(),
        Some(CloseReason::ClientGone) => {
            shared.note_reset();
            facts.close = shared.close.get().or(facts.close);
        }
        Some(CloseReason::BadRequest) => shared.note_reset(),
        Some(_) => {}
    }
    let sent = Sent { body_bytes: response.sent_bytes(), bytes: response.n_bytes() };
    finish::finish(context, response.front(), asked, facts, sent);
    response.end();
    finish::commit(context);
}

impl H2Response<'_> {
    /// Bytes of the answer so far: its body, and its fields without their compression.
    fn n_bytes(&self) -> u64 {
        self.n_head + self.n_body
    }

    /// Ends the stream: with the end of the answer if it is whole, else with a reset.
    fn end(&mut self) {
        let reset = match self.stage {
            Stage::Tunnel { is_finished } => (!is_finished).then_some(Reason::CANCEL),
            _ => self.try_end().is_err().then_some(Reason::INTERNAL_ERROR),
        };
        if let Some(reason) = reset {
            self.respond.send_reset(reason);
        }
    }

    fn try_end(&mut self) -> Result<(), CloseReason> {
        let (last, trailers) = self.finished.take().ok_or(CloseReason::Incomplete)?;
        let (has_body, has_trailers) = (last.is_some(), !trailers.is_empty());
        if matches!(self.stage, Stage::Begun(_)) && !has_body && !has_trailers {
            return self.send_head(true);
        }
        let stream = self.stream()?;
        if has_body || !has_trailers {
            let last = last.unwrap_or(Payload::Own(Bytes::new()));
            stream.send_data(last, !has_trailers).map_err(gone)?;
        }
        match has_trailers {
            true => stream.send_trailers(fields_of(&trailers)).map_err(gone),
            false => Ok(()),
        }
    }
}
