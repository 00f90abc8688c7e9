//! The inbox page: the accepted messages as a phone would show them.

use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;

use super::kaleyra_v1::AcceptedMessage;

/// The page. Without data in it, its script loads the messages from the server.
const PAGE: &str = include_str!("page.html");

/// The place in the page for the messages of a page that is saved to a file.
const DATA: &str = "/*DATA*/null";

/// The placeholder for the nonce, in the page and in its policy.
const NONCE: &str = "{{nonce}}";

/// What the page may do: run its own script, use its own style, and send requests to this server.
const POLICY: &str = "default-src 'none'; script-src 'nonce-{{nonce}}'; style-src 'nonce-{{nonce}}'; \
                      connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// How a template looks, identified by its name and language.
#[derive(Debug, Clone, Serialize)]
pub struct Preview {
    /// The template's name at the provider.
    pub name: String,
    /// The language code in requests, if the manifest has one.
    pub language: Option<String>,
    /// The offer's headline.
    pub offer: String,
    /// The text with its placeholders.
    pub body: String,
    /// The button's label.
    pub button: String,
    /// The button's URL with its placeholder.
    pub url: String,
}

/// Renders the page, each time with a new nonce.
pub(super) struct Inbox {
    key: [u8; 32],
    pages: AtomicU64,
}

impl Inbox {
    pub(super) fn new() -> std::io::Result<Self> {
        let mut key = [0; 32];
        getrandom::fill(&mut key).map_err(|error| std::io::Error::other(error.to_string()))?;
        Ok(Self { key, pages: AtomicU64::new(0) })
    }

    /// The page that loads its messages from the server, and its content security policy.
    pub(super) fn page(&self) -> (String, String) {
        let count = self.pages.fetch_add(1, Ordering::Relaxed);
        let nonce = blake3::keyed_hash(&self.key, &count.to_le_bytes()).to_hex();
        (PAGE.replace(NONCE, &nonce), POLICY.replace(NONCE, &nonce))
    }

    /// A page that contains its messages and needs no server.
    pub(super) fn standalone_page(&self, messages: &[AcceptedMessage], previews: &[Preview]) -> String {
        #[derive(Serialize)]
        struct Data<'a> {
            messages: &'a [AcceptedMessage],
            templates: &'a [Preview],
        }
        let data = serde_json::to_string(&Data { messages, templates: previews })
            .expect("strings and numbers can be written as JSON");
        // Only `<` could end the script element.
        let data = if data.contains('<') { data.replace('<', "\\u003c") } else { data };
        let (page, _) = self.page();
        let (before, after) = page.split_once(DATA).unwrap_or((&page, ""));
        [before, &data, after].concat()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_page_has_a_nonce_of_its_own() {
        let inbox = Inbox::new().unwrap();
        let pages = [0, 1].map(|_| inbox.page());
        assert_ne!(pages[0].0, pages[1].0);
        let nonce = pages[0].0.split("nonce=\"").nth(1).and_then(|rest| rest.split('"').next()).unwrap();
        assert!(nonce.len() == 64 && pages[0].1.contains(&format!("script-src 'nonce-{nonce}'")), "{pages:?}");
    }
}
