//! WhatsApp's limits on what fills a template.

use url::Url;

use crate::domain::media::MediaKind;

/// The maximum length of a URL with its variable. Source: Meta, "Limited-time offer templates".
const MAX_URL_LEN: usize = 2_000;

/// Checks a parameter of the body.
/// Source: Meta's error text "Param text cannot have new-line/tab characters or more than 4 consecutive spaces".
pub(super) fn check_param(value: &str) -> Result<(), &'static str> {
    if value.trim().is_empty() {
        Err("would be sent empty")
    } else if value.bytes().any(|byte| matches!(byte, b'\n' | b'\r' | b'\t')) {
        Err("contains a line break or a tab, which WhatsApp rejects in a parameter")
    } else if value.as_bytes().windows(5).any(|five| five == b"     ") {
        Err("contains more than four consecutive spaces, which WhatsApp rejects in a parameter")
    } else {
        Ok(())
    }
}

/// Checks the parameter at the end of a URL. Source: Meta, "Components", URL buttons: the sender encodes the value.
pub(super) fn check_url_param(value: &str, url: &str) -> Result<(), &'static str> {
    if value.is_empty() {
        Err("would be sent empty")
    } else if !value.bytes().all(|byte| byte.is_ascii_graphic() && !b"\"<>\\^`{|}".contains(&byte)) {
        Err("contains characters that are not allowed in a URL; use `| urlencode`")
    } else if url.len() + value.len() - "{{1}}".len().min(url.len()) > MAX_URL_LEN {
        Err("makes the URL longer than WhatsApp's maximum of 2000 characters")
    } else {
        Ok(())
    }
}

/// Checks the URL of a header's media: public, http or https, with a file extension.
/// Source: Kaleyra's send-LTO page, `media_url`.
pub fn check_media_url(url: &str, kind: MediaKind) -> Result<(), String> {
    let parsed = Url::parse(url).map_err(|_| "is not a URL".to_owned())?;
    if parsed.scheme() != "https" && parsed.scheme() != "http" {
        return Err(format!("starts with `{}:`; use `https:`", parsed.scheme()));
    }
    match parsed.host() {
        Some(url::Host::Domain(host)) if host.contains('.') && host != "localhost" && !host.ends_with(".local") => {}
        Some(url::Host::Ipv4(address))
            if !(address.is_private()
                || address.is_loopback()
                || address.is_link_local()
                || address.is_unspecified()) => {}
        Some(url::Host::Ipv6(address))
            if !(address.is_loopback() || address.is_unspecified() || address.is_unique_local()) => {}
        _ => return Err("is not public, so WhatsApp cannot fetch it".to_owned()),
    }
    let name = parsed.path_segments().and_then(|mut segments| segments.next_back()).unwrap_or_default();
    let extension = name.rsplit_once('.').map(|(_, extension)| extension.to_ascii_lowercase());
    match extension {
        Some(extension) if kind.extensions().contains(&extension.as_str()) => Ok(()),
        Some(extension) if !extension.is_empty() => {
            Err(format!("ends in `.{extension}`; {} header needs {}", article(kind), kind.extensions().join(", ")))
        }
        _ => Err(format!("has no file extension; {} header needs {}", article(kind), kind.extensions().join(", "))),
    }
}

fn article(kind: MediaKind) -> &'static str {
    match kind {
        MediaKind::Image => "an image",
        MediaKind::Video => "a video",
    }
}
