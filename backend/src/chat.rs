//! The game `chat`: players join channels and speak in them. It is what the channels of the
//! gateway are tried and measured with.
//!
//! Its messages are in `protocol::chat`.
//!
//! Invariant: it keeps nothing; who is a member the stub knows.

use protocol::chat::{JOIN, LEAVE, MARK, SAY, SHOUT, Say, TELL, lane_of};
use protocol::ids::{ChannelId, SessionId};

use crate::stub::{ChannelError, Context, Game, Message, Request};

/// Error codes of the answers.
const BAD_REQUEST: u16 = 1;
const REFUSED: u16 = 2;

/// Sessions that one `TELL` may name: what a party has, several times over.
const TELL_MAX: usize = 1_024;

/// See the module.
#[derive(Clone, Copy, Debug, Default)]
pub struct ChatGame;

impl ChatGame {
    /// `None` for what is malformed; nobody waits for an answer.
    fn hear(context: &mut Context<'_>, message: &Message<'_>) -> Option<()> {
        let speaker = message.session;
        let mut said = speaker.0.to_le_bytes().to_vec();
        match message.message {
            SAY => {
                let (channel, rest) = message.payload.split_first_chunk()?;
                let say = Say::decode(rest)?;
                said.extend_from_slice(say.text);
                let channel = ChannelId(u32::from_le_bytes(*channel));
                let filter = say.filter(speaker);
                // What is too long was compressed on its way here, and is lost.
                let _ = context.publish(channel, say.lane, &filter, SAY, &said);
            }
            SHOUT => {
                let say = Say::decode(message.payload)?;
                said.extend_from_slice(say.text);
                let filter = say.filter(speaker);
                let _ = context.publish_all(say.lane, &filter, SHOUT, &said);
            }
            TELL => {
                let ([lane], rest) = message.payload.split_first_chunk()?;
                let (count, rest) = rest.split_first_chunk()?;
                let count = usize::from(u16::from_le_bytes(*count)).min(TELL_MAX);
                let (ids, text) = rest.split_at_checked(8 * count)?;
                let (ids, _) = ids.as_chunks::<8>();
                let to: Vec<SessionId> = ids
                    .iter()
                    .map(|id| SessionId(u64::from_le_bytes(*id)))
                    .collect();
                said.extend_from_slice(text);
                let _ = context.send_list(&to, lane_of(*lane)?, TELL, &said);
            }
            _ => {}
        }
        Some(())
    }

    fn answer(
        context: &mut Context<'_>,
        request: &Request,
        payload: &[u8],
    ) -> Option<Result<(), ChannelError>> {
        let session = request.session;
        match (request.message, payload) {
            (JOIN, &[a, b, c, d]) => {
                let channel = ChannelId(u32::from_le_bytes([a, b, c, d]));
                Some(context.join(session, channel))
            }
            (LEAVE, &[a, b, c, d]) => {
                context.leave(session, ChannelId(u32::from_le_bytes([a, b, c, d])));
                Some(Ok(()))
            }
            (MARK, &[a, b, c, d, e, f]) => {
                let key = u16::from_le_bytes([a, b]);
                let value = u32::from_le_bytes([c, d, e, f]);
                Some(context.set_attribute(session, key, value))
            }
            _ => None,
        }
    }
}

impl Game for ChatGame {
    fn message(&mut self, context: &mut Context<'_>, message: &Message<'_>) {
        let _ = Self::hear(context, message);
    }

    fn request(&mut self, context: &mut Context<'_>, request: &Request, payload: &[u8]) {
        // A player whose outbox is full ends by that.
        let _ = match Self::answer(context, request, payload) {
            Some(Ok(())) => context.reply(request, b""),
            Some(Err(error)) => context.reply_error(request, REFUSED, &error.to_string()),
            None => context.reply_error(request, BAD_REQUEST, "no such request"),
        };
    }
}
