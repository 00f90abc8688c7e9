//! Templates: what was approved, and the texts that fill it.

use std::collections::BTreeSet;
use std::sync::Arc;

use url::Url;

use super::{Lowering, at, types};
use crate::domain::campaign::{BodySpec, HeaderSpec, MediaSource, OfferSpec, TemplateSpec, UrlButtonSpec};
use crate::domain::diagnostic::Code;
use crate::domain::media::{MediaError, MediaFile, MediaKind};
use crate::domain::message::TemplateHead;
use crate::manifest::source::Pointer;
use crate::render::limits::check_media_url;
use crate::render::{CompiledTemplate, Composer, Field, HeaderMedia};
use crate::util::fs::FileError;
use crate::util::human::count;

impl Lowering<'_> {
    pub(super) fn template(
        &mut self,
        key: &str,
        template: &types::Template,
        composer: &mut Composer,
        vars: &BTreeSet<&str>,
    ) -> Option<(TemplateSpec, CompiledTemplate)> {
        let before = self.errors();
        let root = at(&["templates", key]);
        let header =
            template.header.as_ref().and_then(|header| self.header(&root.join("header"), header, composer, vars));

        let body = root.join("body");
        let wanted = self.placeholders(&body.join("text"), &template.body.text);
        if wanted != template.body.params.len() {
            let given = template.body.params.len();
            self.error(
                &body.join(if template.body.params.is_empty() { "text" } else { "params" }),
                Code::ParamCountMismatch,
                format!("`body.text` has {} but `body.params` has {given}", count(wanted, "placeholder")),
                "WhatsApp refuses a message whose parameters do not match the template (its error 132000)",
            );
        }
        let mut params = Vec::new();
        for (index, param) in template.body.params.iter().enumerate() {
            params.extend(self.field(&body.join("params").join(index), param, composer, vars));
        }
        let url_param = self.url_button(&root.join("url_button"), &template.url_button, composer, vars);
        if self.errors() > before {
            return None;
        }
        let (header, media) = header.unzip();
        let head = TemplateHead {
            key: key.to_owned(),
            name: template.name.clone(),
            language: template.language.clone(),
            offer_text: template.offer.text.clone(),
            has_expiration: template.offer.has_expiration,
            body: template.body.text.clone(),
            button_label: template.url_button.label.clone(),
            button_url: template.url_button.url.clone(),
        };
        let spec = TemplateSpec {
            name: template.name.clone(),
            language: template.language.clone(),
            header,
            offer: OfferSpec { text: template.offer.text.clone(), has_expiration: template.offer.has_expiration },
            body: BodySpec { text: template.body.text.clone(), params: template.body.params.clone() },
            url_button: UrlButtonSpec {
                label: template.url_button.label.clone(),
                url: template.url_button.url.clone(),
                param: template.url_button.param.clone(),
            },
        };
        Some((spec, CompiledTemplate { head: Arc::new(head), params, url_param, media }))
    }

    fn header(
        &mut self,
        at: &Pointer,
        header: &types::Header,
        composer: &mut Composer,
        vars: &BTreeSet<&str>,
    ) -> Option<(HeaderSpec, (MediaKind, HeaderMedia))> {
        let (kind, media) = match header {
            types::Header::Image(media) => (MediaKind::Image, media),
            types::Header::Video(media) => (MediaKind::Video, media),
        };
        let spec = |source| match kind {
            MediaKind::Image => HeaderSpec::Image(source),
            MediaKind::Video => HeaderSpec::Video(source),
        };
        let at = at.join(kind.word());
        match media {
            types::Media::Url(url) => {
                let at = at.join("url");
                let field = self.field(&at, url, composer, vars)?;
                if let Some(url) = field.literal()
                    && let Err(problem) = check_media_url(url, kind)
                {
                    self.error(
                        &at,
                        Code::InvalidMediaUrl,
                        format!("this URL {problem}"),
                        "Kaleyra takes a public URL with a file extension, such as `https://cdn.example.com/offer.mp4`",
                    );
                    return None;
                }
                Some((spec(MediaSource::Url { url: url.clone() }), (kind, HeaderMedia::Url(field))))
            }
            types::Media::File(path) => {
                let at = at.join("file");
                let resolved = self.path(&at, path);
                let file = self.files.project_file(resolved).map_err(MediaError::File);
                match file.and_then(|file| MediaFile::read(&file, kind)) {
                    Ok(content) => {
                        let digest = format!("blake3:{}", blake3::Hash::from(content.digest).to_hex());
                        let source = MediaSource::File { file: path.clone(), digest };
                        Some((spec(source), (kind, HeaderMedia::File(Arc::new(content)))))
                    }
                    Err(error) => {
                        let hint = match &error {
                            MediaError::File(FileError::Missing(_)) => {
                                "paths are relative to the file that they are written in"
                            }
                            MediaError::File(FileError::Outside { .. }) => "put the file below the project's root",
                            _ => "",
                        };
                        self.error(&at, Code::UnusableMediaFile, error.to_string(), hint);
                        None
                    }
                }
            }
        }
    }

    /// The number of placeholders in a text. Reports those that are out of order.
    fn placeholders(&mut self, at: &Pointer, text: &str) -> usize {
        let mut numbers = BTreeSet::new();
        for part in text.split("{{").skip(1) {
            let inside = part.split("}}").next().unwrap_or_default().trim();
            match inside.parse::<usize>() {
                Ok(number) if number >= 1 && part.contains("}}") => drop(numbers.insert(number)),
                _ => self.error(
                    at,
                    Code::InvalidPlaceholder,
                    format!("`{{{{{inside}` is not a placeholder; placeholders are `{{{{1}}}}`, `{{{{2}}}}`…"),
                    "write the text as it was approved, and the expressions into `params`",
                ),
            }
        }
        let highest = numbers.last().copied().unwrap_or(0);
        if highest != numbers.len() {
            self.error(
                at,
                Code::InvalidPlaceholder,
                format!("the placeholders must be numbered 1 to {}, without gaps", numbers.len()),
                "",
            );
        }
        numbers.len()
    }

    fn url_button(
        &mut self,
        at: &Pointer,
        button: &types::UrlButton,
        composer: &mut Composer,
        vars: &BTreeSet<&str>,
    ) -> Option<Field> {
        let url_at = at.join("url");
        let variables = button.url.matches("{{").count();
        let plain = button.url.replace("{{1}}", "x");
        if variables > 1 || (variables == 1 && !button.url.ends_with("{{1}}")) {
            self.error(
                &url_at,
                Code::InvalidUrlVariable,
                "a button's URL can have one variable, `{{1}}`, at its end",
                "WhatsApp approves no other form; put the rest into `param`",
            );
        } else if !Url::parse(&plain).is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host()) {
            self.error(
                &url_at,
                Code::InvalidUrl,
                format!("`{}` is not a web address", button.url),
                "such as `https://shop.example.com/{{1}}`",
            );
        }
        match (&button.param, variables) {
            (Some(param), 1..) => self.field(&at.join("param"), param, composer, vars),
            (Some(_), _) => {
                self.error(
                    &at.join("param"),
                    Code::UrlParamMismatch,
                    "`param` is not used: the URL has no `{{1}}`",
                    "end the URL with `{{1}}`, or remove `param`",
                );
                None
            }
            (None, 1..) => {
                self.error(
                    &url_at,
                    Code::UrlParamMismatch,
                    "the URL ends in `{{1}}`, and no `param` fills it",
                    "add `param:` beside `url:`",
                );
                None
            }
            (None, _) => None,
        }
    }
}
