//! Header media that is uploaded with each request.

use std::fmt;

use bytes::Bytes;

use crate::util::fs::{FileError, InputFile};

/// Image or video.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MediaKind {
    /// PNG or JPEG, at most 5 MB.
    Image,
    /// MP4 or 3GPP, at most 16 MB.
    Video,
}

impl MediaKind {
    /// `image` or `video`.
    pub fn word(self) -> &'static str {
        match self {
            MediaKind::Image => "image",
            MediaKind::Video => "video",
        }
    }

    /// The file extensions that WhatsApp accepts for this kind, in lower case.
    pub fn extensions(self) -> &'static [&'static str] {
        match self {
            MediaKind::Image => &["png", "jpg", "jpeg"],
            MediaKind::Video => &["mp4", "3gp", "3gpp"],
        }
    }

    /// The MIME types that WhatsApp accepts for this kind.
    fn types(self) -> &'static [&'static str] {
        match self {
            MediaKind::Image => &["image/png", "image/jpeg"],
            MediaKind::Video => &["video/mp4", "video/3gpp", "video/x-m4v"],
        }
    }

    /// The maximum size that WhatsApp accepts for this kind, in bytes.
    pub fn max_bytes(self) -> u64 {
        match self {
            MediaKind::Image => 5 * 1024 * 1024,
            MediaKind::Video => 16 * 1024 * 1024,
        }
    }
}

/// A media file in memory.
pub struct MediaFile {
    /// Its name, without directories.
    pub name: String,
    /// Its MIME type.
    pub mime: &'static str,
    /// Its content.
    pub content: Bytes,
    /// The digest of the content.
    pub digest: [u8; 32],
}

impl fmt::Debug for MediaFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MediaFile")
            .field("name", &self.name)
            .field("mime", &self.mime)
            .field("bytes", &self.content.len())
            .finish_non_exhaustive()
    }
}

/// Why a file cannot be used as a header.
#[derive(Debug, thiserror::Error)]
pub enum MediaError {
    /// It cannot be opened.
    #[error(transparent)]
    File(#[from] FileError),
    /// It has no bytes.
    #[error("`{0}` is empty")]
    Empty(String),
    /// It has more bytes than WhatsApp accepts.
    #[error("`{0}` has {1} bytes; WhatsApp accepts at most {2} for this kind of header")]
    TooLarge(String, u64, u64),
    /// The content has another type.
    #[error("`{0}` is {1}, not {2}")]
    WrongType(String, String, &'static str),
}

impl MediaFile {
    /// Reads a file and checks its type by its content, not by its name.
    pub fn read(path: &InputFile, kind: MediaKind) -> Result<Self, MediaError> {
        let shown = path.display().to_string();
        let most = kind.max_bytes();
        let open = path.open(most).map_err(|error| match error {
            FileError::TooLarge { path, bytes, most } => MediaError::TooLarge(path, bytes, most),
            error => MediaError::File(error),
        })?;
        let content = open.read(most).map_err(|error| FileError::Unreadable(shown.clone(), error))?;
        if content.is_empty() {
            return Err(MediaError::Empty(shown));
        }
        let wanted = match kind {
            MediaKind::Image => "a PNG or JPEG image",
            MediaKind::Video => "an MP4 or 3GPP video",
        };
        let mime = match infer::get(&content) {
            Some(found) if kind.types().contains(&found.mime_type()) => found.mime_type(),
            Some(found) => return Err(MediaError::WrongType(shown, found.mime_type().to_owned(), wanted)),
            None => return Err(MediaError::WrongType(shown, "of an unknown type".to_owned(), wanted)),
        };
        let name = path.file_name().map_or_else(|| "media".to_owned(), |name| name.to_string_lossy().into_owned());
        let digest = *blake3::hash(&content).as_bytes();
        Ok(Self { name, mime, content: Bytes::from(content), digest })
    }
}
