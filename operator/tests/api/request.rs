//! A request to the API server, taken apart.

use std::collections::HashMap;

use http::{Method, header};

use super::script::Verb;
use super::store::{Change, Key, Scope};

/// What is asked, and of what.
pub struct Wanted {
    pub verb: Verb,
    pub key: Key,
    pub query: HashMap<String, String>,
    pub patch: Change,
}

impl Wanted {
    pub fn new(head: &http::request::Parts) -> Self {
        let query: HashMap<_, _> = head
            .uri
            .query()
            .unwrap_or_default()
            .split('&')
            .filter_map(|pair| pair.split_once('='))
            .map(|(name, value)| (name.to_owned(), decoded(value)))
            .collect();
        let mut parts = head.uri.path().split('/').skip(1);
        // /api/v1/... or /apis/GROUP/VERSION/...
        let before = if parts.next() == Some("apis") { 2 } else { 1 };
        let mut parts: Vec<_> = parts.skip(before).map(str::to_owned).collect();
        let namespace = if parts.len() > 2 && parts[0] == "namespaces" {
            parts.drain(..2).next_back().unwrap_or_default()
        } else {
            String::new()
        };
        let mut parts = parts.into_iter();
        let key = Key {
            resource: parts.next().unwrap_or_default(),
            namespace,
            name: parts.next().unwrap_or_default(),
        };
        let status = parts.next().as_deref() == Some("status");
        let watch = query.get("watch").is_some_and(|watch| watch == "true");
        let verb = match head.method {
            Method::POST => Verb::Create,
            Method::PUT => Verb::Replace,
            Method::DELETE => Verb::Delete,
            Method::PATCH if status => Verb::Status,
            Method::PATCH => Verb::Patch,
            _ if watch => Verb::Watch,
            _ if key.name.is_empty() => Verb::List,
            _ => Verb::Get,
        };
        let content = head.headers.get(header::CONTENT_TYPE);
        let apply =
            content.is_some_and(|kind| kind.as_bytes().starts_with(b"application/apply-patch"));
        let patch = match verb {
            Verb::Replace => Change::Replace,
            _ if apply => Change::Apply,
            _ => Change::Merge,
        };
        Self {
            verb,
            key,
            query,
            patch,
        }
    }

    pub fn scope(&self) -> Scope {
        let label = self.query.get("labelSelector");
        Scope {
            resource: self.key.resource.clone(),
            namespace: self.key.namespace.clone(),
            label: label.and_then(|label| {
                let (name, value) = label.split_once('=')?;
                Some((name.to_owned(), value.to_owned()))
            }),
        }
    }
}

/// Without percent-encoding; of ASCII there is only that here.
fn decoded(text: &str) -> String {
    let mut parts = text.split('%');
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (code, rest) = part.split_at(part.len().min(2));
        let code = u8::from_str_radix(code, 16).unwrap_or(b'?');
        plain.push(char::from(code));
        plain.push_str(rest);
    }
    plain
}
