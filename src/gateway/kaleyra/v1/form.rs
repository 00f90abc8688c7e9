//! The fields of the v1 send-LTO request.
//!
//! [`form`] alone decides what is on the wire; the request, the preview and the test against `curl` all use it. The
//! order of the fields is the vendor page's.
//!
//! Two quirks, measured with the page's own `curl` commands: the outer quotes of `--form 'x="…"'` are curl's and never
//! sent; the inner ones of `coupon_code` and `params` are sent: the code is a JSON string, the parameters are JSON
//! strings joined by commas. `limited_time_offer` is an array of one element. `params`, `lang_code`, `callback_url` and
//! `ref` are documented on sibling pages of the same endpoint, not on the send-LTO page.

use std::borrow::Cow;

use jiff::Timestamp;

use crate::domain::expiry::Expired;
use crate::domain::message::Media;
use crate::gateway::Request;
use crate::gateway::kaleyra::multipart::Value;
use crate::gateway::kaleyra::{Callback, KaleyraSpec};

/// The fields of a request, in order, for a message that leaves at `now`.
pub fn form<'a>(
    spec: &'a KaleyraSpec,
    request: &Request<'a>,
    now: Timestamp,
) -> Result<Vec<(&'static str, Value<'a>)>, Expired> {
    let message = request.message;
    let json = |text: &str| serde_json::to_string(text).expect("a text can be JSON");
    let to: Vec<String> = request.to.iter().map(ToString::to_string).collect();
    let mut fields = Vec::with_capacity(14);
    let mut text = |name: &'static str, value: Cow<'a, str>| fields.push((name, Value::Text(value)));
    text("to", to.join(",").into());
    text("type", "mediatemplate".into());
    text("template_name", message.template.name.as_str().into());
    text("channel", "whatsapp".into());
    text("from", spec.from.to_string().into());
    text("coupon_code", json(message.coupon.expose()).into());
    if let Some(expires) = request.expires {
        let milliseconds = expires.to_wire(now, spec.encoding)?;
        text(
            "limited_time_offer",
            format!(
                r#"[{{"type":"limited_time_offer","limited_time_offer":{{"expiration_time_ms":{milliseconds}}}}}]"#
            )
            .into(),
        );
    }
    if let Some((_, Media::File(file))) = &message.media {
        fields.push(("media", Value::File { name: &file.name, mime: file.mime, content: file.content.clone() }));
    }
    let mut text = |name: &'static str, value: Cow<'a, str>| fields.push((name, Value::Text(value)));
    match &spec.callback {
        Some(Callback::ProfileId(id)) => text("callback_profile_id", id.into()),
        Some(Callback::Url(url)) => text("callback_url", url.into()),
        None => {}
    }
    if let Some(param) = &message.url_param {
        text("param_url", param.into());
    }
    if let Some((_, Media::Url(url))) = &message.media {
        text("media_url", url.into());
    }
    if !message.params.is_empty() {
        text("params", message.params.iter().map(|param| json(param)).collect::<Vec<_>>().join(",").into());
    }
    if let Some(language) = &message.template.language {
        text("lang_code", language.into());
    }
    if spec.send_ref
        && let Some(reference) = &request.reference
    {
        text("ref", reference.clone().into());
    }
    Ok(fields)
}
