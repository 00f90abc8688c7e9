//! Rendered messages.
//!
//! `plan` and `apply` render with the same code, and [`Message::digest`] covers every byte that a recipient
//! sees, so the approved messages are the ones that are sent.

use std::sync::Arc;

use crate::domain::canonical::{Canonical, ContentDigest};
use crate::domain::coupon::CouponCode;
use crate::domain::expiry::MessageExpiry;
use crate::domain::media::{MediaFile, MediaKind};
use crate::domain::phone::E164;

/// A WhatsApp template at the provider, as requests and previews need it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TemplateHead {
    /// Its key in the manifest.
    pub key: String,
    /// Its name at the provider.
    pub name: String,
    /// Its language code, if the manifest gives one.
    pub language: Option<String>,
    /// The headline of the offer, for previews.
    pub offer_text: String,
    /// Whether it was approved with a timer.
    pub has_expiration: bool,
    /// The text with `{{1}}`…, for previews.
    pub body: String,
    /// The label of the URL button, for previews.
    pub button_label: String,
    /// The URL with `{{1}}`, for previews.
    pub button_url: String,
}

/// The media of the header.
#[derive(Debug, Clone)]
pub enum Media {
    /// A public URL.
    Url(String),
    /// A file to upload, read once for all messages.
    File(Arc<MediaFile>),
}

impl PartialEq for Media {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Media::Url(one), Media::Url(other)) => one == other,
            (Media::File(one), Media::File(other)) => one.digest == other.digest && one.name == other.name,
            _ => false,
        }
    }
}

/// The message for one recipient.
#[derive(Debug, Clone)]
pub struct Message {
    /// The template.
    pub template: Arc<TemplateHead>,
    /// The media of the header, if any, and its kind.
    pub media: Option<(MediaKind, Media)>,
    /// The parameters of the body.
    pub params: Vec<String>,
    /// The parameter of the button's URL.
    pub url_param: Option<String>,
    /// The coupon code.
    pub coupon: CouponCode,
    /// When the offer ends; `None` for a template without a timer.
    pub expiry: Option<MessageExpiry>,
}

impl Message {
    /// The size of the file that a request with this message uploads, in bytes.
    pub fn upload_bytes(&self) -> u64 {
        match &self.media {
            Some((_, Media::File(file))) => file.content.len() as u64,
            _ => 0,
        }
    }

    /// The digest of this message from `from` to anybody: equal for messages that may share a request.
    pub fn digest(&self, from: E164) -> ContentDigest {
        self.digest_under(&self.head_digest(from))
    }

    /// The digest of what most messages of a campaign share: the sender, the template, the media.
    fn head_digest(&self, from: E164) -> HeadDigest {
        let mut canonical = Canonical::new(b"sendform message head v1");
        canonical.number(from.digits());
        canonical.text(&self.template.name);
        canonical.optional(self.template.language.as_deref());
        match &self.media {
            None => canonical.number(0),
            Some((kind, Media::Url(url))) => {
                canonical.number(1);
                canonical.text(kind.word());
                canonical.text(url);
            }
            Some((kind, Media::File(file))) => {
                canonical.number(2);
                canonical.text(kind.word());
                canonical.bytes(&file.digest);
                canonical.text(&file.name);
            }
        }
        HeadDigest(canonical.finish())
    }

    fn digest_under(&self, head: &HeadDigest) -> ContentDigest {
        let mut canonical = Canonical::keyed(&head.0);
        self.canonical_params(&mut canonical);
        canonical.optional(self.url_param.as_deref());
        canonical.text(self.coupon.expose());
        match self.expiry {
            None => canonical.number(0),
            Some(MessageExpiry::At(instant)) => {
                canonical.number(1);
                canonical.number(instant.as_millisecond().cast_unsigned());
            }
            Some(MessageExpiry::AfterSend(duration)) => {
                canonical.number(2);
                canonical.number(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX));
            }
        }
        ContentDigest(canonical.finish())
    }

    /// A short digest of the message without the URL's parameter, code and expiry, by which a campaign under
    /// another name is recognised. `head` is the digest of this message's head.
    pub fn similarity_digest(&self, head: &HeadDigest) -> i64 {
        let mut canonical = Canonical::keyed(&head.0);
        self.canonical_params(&mut canonical);
        // The URL's parameter often names the campaign, so it does not count.
        canonical.number(u64::MAX);
        canonical.so_far()
    }

    /// The short digest as older versions recorded it, with the URL's parameter.
    pub fn older_similarity_digest(&self, head: &HeadDigest) -> i64 {
        let mut canonical = Canonical::keyed(&head.0);
        self.canonical_params(&mut canonical);
        canonical.optional(self.url_param.as_deref());
        canonical.so_far()
    }

    fn canonical_params(&self, canonical: &mut Canonical) {
        canonical.number(self.params.len() as u64);
        for param in &self.params {
            canonical.text(param);
        }
    }

    /// The text as the recipient would read it.
    pub fn body(&self) -> String {
        fill(&self.template.body, &self.params)
    }

    /// The URL that the button opens.
    pub fn button_url(&self) -> String {
        fill(&self.template.button_url, self.url_param.as_slice())
    }
}

/// Puts `params` in place of `{{1}}`, `{{2}}`….
pub fn fill(text: &str, params: &[String]) -> String {
    let mut filled = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find("{{") {
        filled.push_str(&rest[..start]);
        let after = &rest[start + 2..];
        let end = after.find("}}");
        let value = end
            .and_then(|end| after[..end].trim().parse::<usize>().ok())
            .and_then(|number| params.get(number.checked_sub(1)?));
        match (value, end) {
            (Some(value), Some(end)) => {
                filled.push_str(value);
                rest = &after[end + 2..];
            }
            _ => {
                filled.push_str("{{");
                rest = after;
            }
        }
    }
    filled.push_str(rest);
    filled
}

/// The digest of what most messages of a campaign share: the sender, the template, the media.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeadDigest([u8; 32]);

/// Computes the digests of many messages from one sender.
#[derive(Debug)]
pub struct Digester {
    from: E164,
    /// The last template and media, and their digest.
    last: Option<Last>,
}

#[derive(Debug)]
struct Last {
    template: Arc<TemplateHead>,
    media: Option<(MediaKind, Media)>,
    digest: HeadDigest,
}

impl Digester {
    /// For messages from `from`.
    pub fn new(from: E164) -> Self {
        Self { from, last: None }
    }

    /// The digests of a message and of its head.
    pub fn digests(&mut self, message: &Message) -> (ContentDigest, HeadDigest) {
        let head = match &self.last {
            Some(last) if Arc::ptr_eq(&last.template, &message.template) && last.media == message.media => last.digest,
            _ => {
                let digest = message.head_digest(self.from);
                let template = Arc::clone(&message.template);
                self.last = Some(Last { template, media: message.media.clone(), digest });
                digest
            }
        };
        (message.digest_under(&head), head)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placeholders_are_filled_and_other_braces_left_alone() {
        let params = ["Asha".to_owned(), "{{1}}".to_owned()];
        assert_eq!(fill("Hi {{1}}, {{ 2 }}! {{3}} {{x}}", &params), "Hi Asha, {{1}}! {{3}} {{x}}");
    }

    #[test]
    fn a_canonical_form_is_hashed_as_it_always_was() {
        let mut canonical = Canonical::keyed(&[3; 32]);
        let mut hasher = blake3::Hasher::new_keyed(&[3; 32]);
        // Longer than the room that most forms have, and than what is hashed at once.
        for text in ["", "ab", &"long ".repeat(1_000)] {
            canonical.text(text);
            hasher.update(&(text.len() as u64).to_le_bytes());
            hasher.update(text.as_bytes());
            let so_far = i64::from_le_bytes(*hasher.finalize().as_bytes().first_chunk().unwrap());
            assert_eq!(canonical.so_far(), so_far);
        }
        assert_eq!(canonical.finish(), *hasher.finalize().as_bytes());
        let tagged = blake3::Hasher::new().update(&3_u64.to_le_bytes()).update(b"tag").finalize();
        assert_eq!(Canonical::new(b"tag").finish(), *tagged.as_bytes());
    }

    fn message() -> Message {
        Message {
            template: Arc::new(TemplateHead {
                key: "en".into(),
                name: "lto".into(),
                language: Some("en".into()),
                offer_text: "Offer".into(),
                has_expiration: true,
                body: "Hi {{1}}".into(),
                button_label: "Shop".into(),
                button_url: "https://example.com/{{1}}".into(),
            }),
            media: None,
            params: vec!["ab".into(), "c".into()],
            url_param: None,
            coupon: CouponCode::new("happy76").unwrap(),
            expiry: None,
        }
    }

    #[test]
    fn the_digest_changes_with_everything_that_a_recipient_sees() {
        let from = E164::parse_exact("+919900112233").unwrap();
        let base = message().digest(from);
        let other_from = E164::parse_exact("+919900112234").unwrap();
        let mut variants = vec![message().digest(other_from)];
        let mut vary = |change: fn(&mut Message)| {
            let mut message = message();
            change(&mut message);
            variants.push(message.digest(from));
        };
        vary(|message| message.params = vec!["a".into(), "bc".into()]);
        vary(|message| message.url_param = Some(String::new()));
        vary(|message| message.coupon = CouponCode::new("happy77").unwrap());
        vary(|message| message.media = Some((MediaKind::Image, Media::Url("https://e.com/a.png".into()))));
        vary(|message| message.media = Some((MediaKind::Video, Media::Url("https://e.com/a.png".into()))));
        vary(|message| message.expiry = Some(MessageExpiry::AfterSend(std::time::Duration::from_secs(60))));
        vary(|message| Arc::make_mut(&mut message.template).name.push('2'));
        vary(|message| Arc::make_mut(&mut message.template).language = None);
        let mut all = variants.clone();
        all.push(base);
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), variants.len() + 1);
        // The similarity digest does not change with the URL's parameter, the code and the expiry.
        let similarity_digest = |change: fn(&mut Message)| {
            let mut message = message();
            change(&mut message);
            message.similarity_digest(&message.head_digest(from))
        };
        let unchanged = similarity_digest(|_| {});
        assert_eq!(similarity_digest(|message| message.url_param = Some("utm=2".into())), unchanged);
        assert_eq!(similarity_digest(|message| message.coupon = CouponCode::new("A").unwrap()), unchanged);
        assert_ne!(similarity_digest(|message| message.params[0].push('!')), unchanged);
        assert_ne!(similarity_digest(|message| Arc::make_mut(&mut message.template).name.push('2')), unchanged);
        // Without a parameter it is what older versions recorded; with one, they recorded another.
        assert_eq!(message().older_similarity_digest(&message().head_digest(from)), unchanged);
        let with_parameter = Message { url_param: Some("utm=2".into()), ..message() };
        assert_ne!(with_parameter.older_similarity_digest(&with_parameter.head_digest(from)), unchanged);
        // The manifest's own key for the template is not seen by anybody.
        let mut renamed = message();
        Arc::make_mut(&mut renamed.template).key = "english".into();
        assert_eq!(renamed.digest(from), base);
    }
}
