//! A ticket as one word: `tidefs`, then base 32 (RFC 4648, lower case, no padding) of a version
//! byte, postcard and four bytes of BLAKE3 over both.

use super::CodecError;
use super::frame::addresses_are_bounded;
use super::record::{decode, encode};
use crate::types::Ticket;
use crate::types::limits::TICKET_BYTES_MAX;

const PREFIX: &str = "tidefs";
const TICKET_VERSION: u8 = 1;
const CHECK_BYTES: usize = 4;
const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";

/// Why a text is no ticket that can be used.
#[derive(Debug, thiserror::Error)]
pub enum TicketError {
    /// It does not begin as a ticket does.
    #[error("this is not a ticket of tidefs: a ticket is one word that begins with `{PREFIX}`")]
    Foreign,
    /// It was changed or cut on its way.
    #[error("the ticket is damaged or incomplete; copy it again, as one word")]
    Damaged,
    /// Another version, or not a ticket's bytes.
    #[error("the ticket cannot be read: {0}")]
    Codec(#[from] CodecError),
    /// Its time is over.
    #[error("the ticket expired {ago_s} seconds ago; ask for a new one")]
    Expired {
        /// Since when.
        ago_s: u64,
    },
}

/// A ticket's word.
pub fn encode_ticket(ticket: &Ticket) -> String {
    let mut bytes = encode(TICKET_VERSION, ticket);
    bytes.extend(check(&bytes));
    format!("{PREFIX}{}", base32(&bytes))
}

/// Back from [`encode_ticket`]; upper case, and white space around it, are let pass.
///
/// # Errors
/// [`TicketError`], of which [`TicketError::Expired`] is measured against `now_unix_s`.
pub fn decode_ticket(text: &str, now_unix_s: u64) -> Result<Ticket, TicketError> {
    let text = text.trim().to_ascii_lowercase();
    let word = text.strip_prefix(PREFIX).ok_or(TicketError::Foreign)?;
    if word.len() > TICKET_BYTES_MAX {
        return Err(TicketError::Damaged);
    }
    let bytes = from_base32(word).ok_or(TicketError::Damaged)?;
    let (body, found) = bytes.split_last_chunk::<CHECK_BYTES>().ok_or(TicketError::Damaged)?;
    if check(body) != *found {
        return Err(TicketError::Damaged);
    }
    let ticket: Ticket = decode("ticket", TICKET_VERSION, body)?;
    if !addresses_are_bounded(&ticket.addresses) {
        return Err(TicketError::Damaged);
    }
    if ticket.expires_unix_s <= now_unix_s {
        return Err(TicketError::Expired { ago_s: now_unix_s - ticket.expires_unix_s });
    }
    Ok(ticket)
}

fn check(body: &[u8]) -> [u8; CHECK_BYTES] {
    let hash = blake3::hash(body);
    *hash.as_bytes().first_chunk().expect("a hash has 32 bytes")
}

fn base32(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(5) * 8);
    let (mut held, mut bits) = (0_u32, 0);
    for byte in bytes {
        held = held << 8 | u32::from(*byte);
        bits += 8;
        while bits >= 5 {
            bits -= 5;
            text.push(char::from(ALPHABET[(held >> bits & 31) as usize]));
        }
        held &= (1 << bits) - 1;
    }
    if bits > 0 {
        text.push(char::from(ALPHABET[(held << (5 - bits) & 31) as usize]));
    }
    text
}

fn from_base32(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len() * 5 / 8);
    let (mut held, mut bits) = (0_u32, 0);
    for letter in text.bytes() {
        let value = match letter {
            b'a'..=b'z' => letter - b'a',
            b'2'..=b'7' => letter - b'2' + 26,
            _ => return None,
        };
        held = held << 5 | u32::from(value);
        bits += 5;
        if bits >= 8 {
            bits -= 8;
            bytes.push(u8::try_from(held >> bits).ok()?);
            held &= (1 << bits) - 1;
        }
    }
    (held == 0 && bits < 5).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::types::{Addresses, DeviceId, Role, Token, WorkspaceId};

    fn ticket() -> Ticket {
        Ticket {
            workspace: WorkspaceId([7; 16]),
            inviter: DeviceId([9; 32]),
            addresses: Addresses {
                sockets: vec!["192.0.2.7:4433".parse().expect("an address")],
                relays: vec!["https://relay.example".into()],
            },
            token: Token([5; 16]),
            expires_unix_s: 1_000,
            role: Role::Writer,
        }
    }

    #[test]
    fn a_ticket_is_one_word_and_comes_back() {
        let text = encode_ticket(&ticket());
        assert!(text.starts_with("tidefs") && text.bytes().all(|b| b.is_ascii_alphanumeric()));
        assert_eq!(decode_ticket(&text, 999).expect("decodes"), ticket());
        let shouted = format!(" {}\n", text.to_ascii_uppercase());
        assert_eq!(decode_ticket(&shouted, 999).expect("decodes"), ticket());
    }

    #[test]
    fn what_is_wrong_with_a_ticket_is_said() {
        let text = encode_ticket(&ticket());
        let expired = decode_ticket(&text, 1_060);
        assert!(matches!(expired, Err(TicketError::Expired { ago_s: 60 })), "{expired:?}");
        assert!(matches!(decode_ticket("docaaacbp", 0), Err(TicketError::Foreign)));
        assert!(matches!(decode_ticket(&text[..text.len() - 1], 0), Err(TicketError::Damaged)));
        let last = if text.ends_with('a') { "b" } else { "a" };
        let changed = format!("{}{last}", &text[..text.len() - 1]);
        assert!(matches!(decode_ticket(&changed, 0), Err(TicketError::Damaged)));
        assert!(matches!(decode_ticket("tidefs", 0), Err(TicketError::Damaged)));
        assert!(matches!(decode_ticket(&format!("{text}!"), 0), Err(TicketError::Damaged)));
    }

    #[test]
    fn secrets_do_not_show_in_logs() {
        assert!(format!("{:?}", ticket()).contains("Token(secret)"));
    }

    proptest! {
        #[test]
        fn base_32_comes_back(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            prop_assert_eq!(from_base32(&base32(&bytes)), Some(bytes));
        }

        #[test]
        fn no_text_makes_the_decoder_panic(text in "(tidefs)?[a-z2-7]{0,80}") {
            let _ = decode_ticket(&text, 0);
        }
    }
}
