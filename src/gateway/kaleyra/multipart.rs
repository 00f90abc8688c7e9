//! The body of a multipart form, as in RFC 7578, the HTML standard and `curl`.
//!
//! reqwest's own form hands each part to the connection in several pieces, which leave in several
//! packets: three for a message, and a third more work for both sides. Here a message without a file
//! is one piece and the closing boundary, which leave in one write. A file is a piece of its own, the
//! same bytes for all messages.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::fmt::Write as _;

use bytes::Bytes;
use reqwest::header::HeaderValue;

/// The value of a field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value<'a> {
    /// A text.
    Text(Cow<'a, str>),
    /// A file.
    File {
        /// Its name.
        name: &'a str,
        /// Its MIME type.
        mime: &'static str,
        /// Its content.
        content: Bytes,
    },
}

/// The separator of the parts: random, so that no content contains it.
#[derive(Debug, Clone)]
pub struct Boundary {
    text: String,
    content_type: HeaderValue,
    /// The boundary that ends a form.
    closing: Bytes,
}

/// A form as bytes. Without `closing`, no server can take it for complete.
#[derive(Debug, Clone)]
pub struct Form {
    /// Everything before the closing boundary.
    pub pieces: VecDeque<Bytes>,
    /// The closing boundary.
    pub closing: Bytes,
    /// The number of bytes that are files.
    pub file_bytes: u64,
}

impl Form {
    /// The number of bytes in all.
    pub fn length(&self) -> u64 {
        self.pieces.iter().chain([&self.closing]).map(|piece| piece.len() as u64).sum()
    }
}

impl Boundary {
    /// A boundary of 128 random bits.
    pub fn draw() -> Result<Self, getrandom::Error> {
        let text = format!("sendform-{:032x}", u128::from(getrandom::u64()?) << 64 | u128::from(getrandom::u64()?));
        let content_type = format!("multipart/form-data; boundary={text}");
        let content_type = HeaderValue::try_from(content_type).expect("hexadecimal digits can be in a header");
        let closing = Bytes::from(format!("--{text}--\r\n"));
        Ok(Self { text, content_type, closing })
    }

    /// The header that names it.
    pub fn content_type(&self) -> HeaderValue {
        self.content_type.clone()
    }

    /// The form with these fields, in order.
    pub fn form(&self, fields: Vec<(&'static str, Value<'_>)>) -> Form {
        let mut pieces = VecDeque::new();
        let mut file_bytes = 0;
        let mut text = String::with_capacity(2_048);
        for (field, value) in fields {
            for part in ["--", &self.text, "\r\nContent-Disposition: form-data; name=\"", field, "\""] {
                text.push_str(part);
            }
            match value {
                Value::Text(value) => {
                    text.push_str("\r\n\r\n");
                    text.push_str(&value);
                }
                Value::File { name, mime, content } => {
                    let _ = write!(text, "; filename=\"{}\"\r\nContent-Type: {mime}\r\n\r\n", quoted(name));
                    pieces.push_back(Bytes::from(std::mem::take(&mut text)));
                    file_bytes += content.len() as u64;
                    pieces.push_back(content);
                }
            }
            text.push_str("\r\n");
        }
        pieces.push_back(Bytes::from(text));
        Form { pieces, closing: self.closing.clone(), file_bytes }
    }
}

/// A name between quotation marks.
fn quoted(name: &str) -> Cow<'_, str> {
    if name.contains(['"', '\r', '\n']) {
        name.replace('"', "%22").replace('\r', "%0D").replace('\n', "%0A").into()
    } else {
        name.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(value: &str) -> Value<'_> {
        Value::Text(value.into())
    }

    #[test]
    fn texts_are_one_piece_and_a_file_is_not_copied() {
        let boundary = Boundary::draw().unwrap();
        let form = boundary.form(vec![("to", text("+919876543210")), ("params", text("\"Åsa\",\"50 %\""))]);
        let b = &boundary.text;
        let expected = format!(
            "--{b}\r\nContent-Disposition: form-data; name=\"to\"\r\n\r\n+919876543210\r\n\
             --{b}\r\nContent-Disposition: form-data; name=\"params\"\r\n\r\n\"Åsa\",\"50 %\"\r\n"
        );
        assert_eq!(form.pieces, std::slice::from_ref(&expected));
        assert_eq!(form.closing, format!("--{b}--\r\n"));
        assert_eq!((form.length(), form.file_bytes), ((expected.len() + b.len() + 6) as u64, 0));

        let content = Bytes::from_static(b"\xff\xd8--not a boundary");
        let file = Value::File { name: "a\"b\r\n.jpg", mime: "image/jpeg", content: content.clone() };
        let form = boundary.form(vec![("media", file), ("from", text("x"))]);
        assert_eq!(form.pieces.len(), 3);
        assert_eq!(
            form.pieces[0],
            format!(
                "--{b}\r\nContent-Disposition: form-data; name=\"media\"; filename=\"a%22b%0D%0A.jpg\"\r\n\
                 Content-Type: image/jpeg\r\n\r\n"
            )
        );
        assert_eq!(form.pieces[1].as_ptr(), content.as_ptr());
        assert_eq!(form.pieces[2], format!("\r\n--{b}\r\nContent-Disposition: form-data; name=\"from\"\r\n\r\nx\r\n"));
        assert_eq!(form.file_bytes, content.len() as u64);
    }

    #[test]
    fn a_boundary_is_another_one_each_time() {
        assert_ne!(Boundary::draw().unwrap().text, Boundary::draw().unwrap().text);
    }
}
