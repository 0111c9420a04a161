//! The end of a stream, behind its line in the access log.

use crate::policy::reason::close::CloseReason;
use crate::proxy::client::Client as _;
use crate::proxy::facts::Facts;
use crate::proxy::finish::{self, Asked, Sent};
use crate::proxy::h2::response::H2Response;
use crate::proxy::h2::shared::Shared;

/// Ends an exchange: its line is prepared before its stream ends.
pub(super) async fn end(
    shared: &Shared,
    response: &mut H2Response<'_>,
    asked: Asked<'_>,
    facts: &mut Facts,
) {
    let context = &shared.context;
    context.log_room().await;
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
