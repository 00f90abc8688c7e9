//! The audience: its expressions and its files.

use std::collections::BTreeSet;

use super::{Lowering, at, character, csv, types};
use crate::audience::source::{self, RowSource, first_row};
use crate::audience::{MAX_LISTS, suppression_column};
use crate::domain::campaign::{AudienceSpec, InvalidRows, SourceSpec, SuppressSpec};
use crate::domain::diagnostic::{Code, Diagnostic, did_you_mean, is_full};
use crate::domain::input::{AudienceInput, SourceInput, SuppressInput};
use crate::domain::phone::PhoneReader;
use crate::manifest::source::Pointer;
use crate::render::Composer;

/// The largest number of sources.
const MAX_SOURCES: usize = 250;

impl Lowering<'_> {
    pub(super) fn audience(
        &mut self,
        audience: &types::Audience,
        templates: usize,
        composer: &mut Composer,
        vars: &BTreeSet<&str>,
    ) -> Option<(AudienceSpec, AudienceInput)> {
        let root = at(&["audience"]);
        let (sources, lists) = (audience.sources.len(), audience.suppress.len());
        for (key, number, max) in [("sources", sources, MAX_SOURCES), ("suppress", lists, MAX_LISTS)] {
            if number > max {
                let message = format!("`audience.{key}` has {number} files; the maximum is {max}");
                self.error(&root.join(key), Code::TooManyEntries, message, "join some of them into one");
                return None;
            }
        }
        let reader = PhoneReader::new(audience.default_region.as_deref());
        if reader.is_none() {
            let region = audience.default_region.as_deref().unwrap_or_default();
            self.error(
                &root.join("default_region"),
                Code::UnknownRegion,
                format!("there is no region `{region}`"),
                "write the country as two capital letters, such as `IN`",
            );
        }
        if let Some(condition) = &audience.where_ {
            let compiled = composer.compile_condition(condition);
            if let Some(field) = self.compiled(&root.join("where"), compiled, vars) {
                composer.set_condition(field);
            }
        }
        self.selection(audience, templates, composer, vars);
        // The other files are checked although one cannot be found.
        let mut sources = Vec::new();
        for (index, source) in audience.sources.iter().enumerate() {
            let at = root.join("sources").join(index).join("csv");
            if let Some(path) = self.data_file(&at, &source.csv) {
                sources.push(csv(path, source.delimiter, source.multiline));
                self.sources_at.push(at);
            }
        }
        let mut suppress = Vec::new();
        for (index, list) in audience.suppress.iter().enumerate() {
            let at = root.join("suppress").join(index).join("csv");
            if let Some(path) = self.data_file(&at, &list.csv) {
                suppress.push(SuppressInput {
                    source: csv(path, list.delimiter, list.multiline),
                    phone: list.phone.clone(),
                    skip_invalid: list.invalid == types::InvalidRow::Skip,
                });
                self.suppress_at.push(at);
            }
        }
        let input = AudienceInput {
            sources,
            phone: audience.phone.clone(),
            id: audience.id.clone(),
            reader: reader?,
            suppress,
        };
        Some((spec(audience), input))
    }

    /// Compiles `audience.template`, which selects the template of each row.
    fn selection(
        &mut self,
        audience: &types::Audience,
        templates: usize,
        composer: &mut Composer,
        vars: &BTreeSet<&str>,
    ) {
        let root = at(&["audience"]);
        let Some(select) = &audience.template else {
            if templates > 1 {
                self.error(
                    &root,
                    Code::MissingKey,
                    "with several templates, `audience.template` must select the template of each row",
                    "such as `template: \"{{ 'hi' if recipient.lang == 'hi' else 'en' }}\"`",
                );
            }
            return;
        };
        let at = root.join("template");
        let Some(field) = self.field(&at, select, composer, vars) else { return };
        if let Some(key) = field.literal()
            && !composer.templates().contains_key(key.trim())
        {
            let near = did_you_mean(key, composer.templates().keys().map(String::as_str))
                .map(|near| format!("did you mean `{near}`?"));
            self.report(
                &at,
                Diagnostic::error(Code::UnknownTemplate, format!("there is no template `{key}`")).maybe_hint(near),
            );
        }
        composer.set_selection(field);
    }

    /// Opens every source far enough to know its columns, and renders the first row as a trial.
    pub(super) fn data_files(&mut self, audience: &AudienceInput, composer: &Composer) {
        for (input, at) in audience.sources.iter().zip(self.sources_at.clone()) {
            match source::open(input) {
                Ok(mut source) => self.source(audience, input, &mut *source, composer),
                Err(problem) => self.file_problem(&at, problem),
            }
        }
        for (list, at) in audience.suppress.iter().zip(self.suppress_at.clone()) {
            match source::open(&list.source) {
                Ok(source) => {
                    if let Err(problem) = suppression_column(&*source, list, &audience.phone) {
                        self.report(&at, problem);
                    }
                }
                Err(problem) => self.file_problem(&at, problem),
            }
        }
    }

    /// Checks that a source has the columns that the manifest and its expressions name, and renders the first row.
    fn source(
        &mut self,
        audience: &AudienceInput,
        input: &SourceInput,
        source: &mut dyn RowSource,
        composer: &Composer,
    ) {
        let named = [(Some(&audience.phone), "phone"), (audience.id.as_ref(), "id")];
        for (column, key) in named {
            if let Some(column) = column
                && source.columns().position(column).is_none()
            {
                let problem = source.no_column(column);
                self.report(&at(&["audience", key]), problem);
            }
        }
        let absent: Vec<(String, Pointer)> = self
            .columns
            .iter()
            .filter(|(column, _)| source.columns().position(column).is_none())
            .map(|(column, at)| (column.clone(), at.clone()))
            .collect();
        for (column, at) in absent {
            if is_full(&self.found) {
                break;
            }
            let problem = source.no_column(&column);
            self.report(&at, problem);
        }
        if self.errors() == 0
            && let Ok(Some((row, location))) = first_row(source)
        {
            for problem in composer.trial(&row) {
                self.found.push(input.locate(Diagnostic::error(Code::InvalidExpression, problem), Some(location)));
            }
        }
    }
}

fn spec(audience: &types::Audience) -> AudienceSpec {
    let source = |source: &types::Source| SourceSpec {
        csv: source.csv.clone(),
        delimiter: character(source.delimiter),
        multiline: source.multiline,
    };
    let list = |list: &types::Suppress| SuppressSpec {
        csv: list.csv.clone(),
        phone: list.phone.clone(),
        delimiter: character(list.delimiter),
        invalid: match list.invalid {
            types::InvalidRow::Error => InvalidRows::Error,
            types::InvalidRow::Skip => InvalidRows::Skip,
        },
        multiline: list.multiline,
    };
    AudienceSpec {
        sources: audience.sources.iter().map(source).collect(),
        phone: audience.phone.clone(),
        default_region: audience.default_region.clone(),
        id: audience.id.clone(),
        condition: audience.where_.clone(),
        template: audience.template.clone(),
        suppress: audience.suppress.iter().map(list).collect(),
    }
}
