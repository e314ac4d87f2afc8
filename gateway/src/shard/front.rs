//! What comes before a client's frames: the shard's end of `crate::front`.

use protocol::reason::CloseReason;

use super::Shard;
use super::connection::Connection;
use crate::engine::ConnId;
use crate::front::{Front, Step};

impl Shard {
    /// Gives a connection that was accepted the front that its listener asks for.
    pub(super) fn open_front(&mut self, id: ConnId) -> Result<(), CloseReason> {
        let Some(connection) = Self::at(&mut self.connections, id) else {
            return Ok(());
        };
        connection.front = Front::of_accepted(&self.config.front, connection.peer)?;
        Ok(())
    }

    /// Bytes for the front. When it is done it is gone, and `data` begins with
    /// what the client itself has sent.
    pub(super) fn handle_front(
        &mut self,
        connection: &mut Connection,
        data: &mut &mut [u8],
    ) -> Result<(), CloseReason> {
        let Some(front) = &mut connection.front else {
            return Ok(());
        };
        if let Step::Done(address) = front.take(data)? {
            connection.peer = address.or(connection.peer);
            connection.front = None;
        }
        Ok(())
    }
}
