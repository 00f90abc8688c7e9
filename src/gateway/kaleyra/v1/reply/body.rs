//! Bodies that are not JSON as it should be.

use super::answer::mentions_an_id;

/// The body with `\[` and `\]` outside of texts read as `[` and `]`: the vendor's page prints its
/// error body so. `None` if there is none of them. Good for refusals only, never for an acceptance.
pub(super) fn as_printed(body: &[u8]) -> Option<Vec<u8>> {
    let mut fixed = Vec::with_capacity(body.len());
    let (mut in_text, mut changed) = (false, false);
    let mut bytes = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body).iter().copied().peekable();
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => in_text = !in_text,
            b'\\' if in_text => {
                fixed.push(byte);
                fixed.extend(bytes.next());
                continue;
            }
            b'\\' if matches!(bytes.peek(), Some(b'[' | b']')) => {
                changed = true;
                continue;
            }
            _ => {}
        }
        fixed.push(byte);
    }
    (changed || fixed.len() < body.len()).then_some(fixed)
}

/// Whether a body that is not a JSON object may still hold an id. A proxy's page does not; compressed
/// bytes, or half of a JSON text, may.
pub(super) fn may_hold_id(body: &[u8]) -> bool {
    let is_text = |byte: &u8| !byte.is_ascii_control() || matches!(byte, b'\t' | b'\n' | b'\r' | b'\x0c');
    if !body.iter().all(is_text) {
        return true;
    }
    let text = String::from_utf8_lossy(body).to_ascii_lowercase();
    let trimmed = text.trim();
    if trimmed.starts_with('{') && trimmed.contains("\\u") {
        return true;
    }
    // A list that is not empty. `[error] slow down` is none.
    let list = trimmed.strip_prefix('[').map(str::trim_start);
    if list.is_some_and(|list| list.starts_with(|first: char| first.is_ascii_digit() || "\"'{[-".contains(first))) {
        return true;
    }
    let names_one = ["message_id", "messageid", "message-id", "<id>", "wamid"].iter().any(|name| text.contains(name));
    // A page's scripts and attributes are full of ids that are none of a message.
    let is_page = trimmed.starts_with('<');
    names_one || !is_page && mentions_an_id(&text)
}
