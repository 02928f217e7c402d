//! Becoming a member, before there is a workspace here.

use std::time::Duration;

use tokio::time::timeout;

use super::meet::reason;
use super::{SyncConfig, SyncError};
use crate::codec::Sender;
use crate::net::{CloseCode, Net};
use crate::types::{Frame, JoinRequest, Ticket, Welcome};

/// From the first packet to the answer.
const JOIN_TIME: Duration = Duration::from_secs(20);

/// Shows a ticket to the device that made it, which makes this one a member. Blocks until it has
/// answered, at most some twenty seconds.
///
/// Of `config`, where to listen, the relays and the discovery are used. The ticket's relays are
/// used too: they are the inviter's.
///
/// # Errors
/// [`SyncError::Refused`] as the inviter says; else as the network fails.
pub fn join(
    ticket: &Ticket,
    name: &str,
    key_seed: &[u8; 32],
    config: &SyncConfig,
) -> Result<Welcome, SyncError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut net = config.net();
        net.relays.extend(ticket.addresses.relays.iter().cloned());
        net.relays.dedup();
        let net = Net::bind(&net, key_seed).await?;
        let asked = timeout(JOIN_TIME, ask(&net, ticket, name)).await;
        net.close().await;
        asked.map_err(|_| SyncError::TimedOut)?
    })
}

async fn ask(net: &Net, ticket: &Ticket, name: &str) -> Result<Welcome, SyncError> {
    let link = net.dial(&ticket.inviter, &ticket.addresses).await?;
    let (mut writer, mut reader) = link.open_control().await?;
    let request = JoinRequest { token: ticket.token.clone(), name: name.to_owned() };
    writer.write(&Frame::Join { workspace: ticket.workspace, request }).await?;
    let answer = match reader.read(Sender::Stranger).await {
        Ok(answer) => answer,
        Err(error) => return Err(reason(error, &link).await.into()),
    };
    link.close(CloseCode::Leaving);
    match answer {
        Frame::Welcome(welcome) if welcome.settings.workspace == ticket.workspace => Ok(welcome),
        Frame::Refused(refusal) => Err(refusal.into()),
        _ => Err(SyncError::Unexpected),
    }
}
