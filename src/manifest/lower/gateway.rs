//! The gateway: the provider, the account and the number.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use url::Url;

use super::{Lowering, at, types};
use crate::domain::campaign::{Callback, GatewaySpec};
use crate::domain::diagnostic::Code;
use crate::domain::phone::E164;
use crate::domain::secret::SecretRef;
use crate::gateway::kaleyra::KaleyraSpec;
use crate::manifest::source::Pointer;

/// The timeout unless the manifest has one. Other clients of this API use 8 to 50 seconds.
const DEFAULT_TIMEOUT: &str = "30s";

impl Lowering<'_> {
    pub(super) fn gateway(&mut self, gateway: &types::Gateway) -> Option<GatewaySpec> {
        let types::Gateway::Kaleyra(kaleyra) = gateway;
        let root = at(&["gateway", "kaleyra"]);
        let base_url = self.base_url(&root, kaleyra);
        let secrets = BTreeMap::from([
            ("sid".to_owned(), self.secret(&root.join("sid"), &kaleyra.sid)),
            ("api_key".to_owned(), self.secret(&root.join("api_key"), &kaleyra.api_key)),
        ]);
        let options = json!({
            "send_ref": kaleyra.send_ref,
            "expiry_encoding": match kaleyra.expiry_encoding {
                types::ExpiryEncoding::Absolute => "absolute",
                types::ExpiryEncoding::Duration => "duration",
            },
            "timeout": kaleyra.timeout.as_deref().unwrap_or(DEFAULT_TIMEOUT),
        });
        let spec = GatewaySpec {
            provider: "kaleyra".to_owned(),
            sender: E164::parse_exact(&kaleyra.from)?,
            // With a URL that is wrong the other settings are checked all the same.
            base_url: base_url.clone().or_else(|| region(types::Domain::In))?,
            secrets,
            account: "sid".to_owned(),
            callback: kaleyra.callback.as_ref().map(|callback| match callback {
                types::Callback::ProfileId(id) => Callback::ProfileId(id.clone()),
                types::Callback::Url(url) => Callback::Url(url.clone()),
            }),
            options: match options {
                Value::Object(options) => options,
                _ => Map::new(),
            },
        };
        if let Err(problems) = KaleyraSpec::read(&spec) {
            for problem in problems {
                let steps = problem.pointer.split('/').skip(1);
                let at = steps.fold(root.clone(), |pointer, step| pointer.join(step));
                self.error(&at, problem.code, problem.message, problem.hint);
            }
            return None;
        }
        base_url.map(|_| spec)
    }

    fn base_url(&mut self, root: &Pointer, kaleyra: &types::Kaleyra) -> Option<Url> {
        match (&kaleyra.domain, &kaleyra.base_url) {
            (Some(domain), None) => region(*domain),
            (None, Some(text)) => {
                let url = Url::parse(text).ok();
                if url.is_none() {
                    // The text is not repeated: it may hold a password.
                    self.error(
                        &root.join("base_url"),
                        Code::InvalidUrl,
                        "this is not a web address",
                        "such as `https://api.in.kaleyra.io`",
                    );
                }
                url
            }
            (Some(_), Some(_)) => {
                self.error(
                    &root.join("base_url"),
                    Code::DomainAndBaseUrl,
                    "`domain` and `base_url` exclude each other: both state the API's address",
                    "remove one of them",
                );
                None
            }
            (None, None) => {
                self.error(
                    root,
                    Code::MissingKey,
                    "`gateway.kaleyra` needs `domain` or `base_url`",
                    "the console shows the account's \"API Domain\": `in`, `sg`, `eu` or `na`",
                );
                None
            }
        }
    }

    fn secret(&mut self, at: &Pointer, secret: &types::Secret) -> SecretRef {
        match secret {
            types::Secret::Env(name) => SecretRef::Env(name.clone()),
            types::Secret::File(path) => {
                SecretRef::File { written: path.clone(), path: self.path(&at.join("file"), path) }
            }
            types::Secret::Exec(words) => {
                if words.is_empty() {
                    self.error(
                        &at.join("exec"),
                        Code::EmptyCommand,
                        "`exec` names no program",
                        "such as `exec: [pass, show, kaleyra]`",
                    );
                }
                SecretRef::Exec(words.clone())
            }
        }
    }
}

/// The address of the API in a region.
fn region(domain: types::Domain) -> Option<Url> {
    Url::parse(match domain {
        types::Domain::In => "https://api.in.kaleyra.io",
        types::Domain::Sg => "https://api.kaleyra.io",
        types::Domain::Eu => "https://api.eu.kaleyra.io",
        types::Domain::Na => "https://api.na.kaleyra.ai",
    })
    .ok()
}
