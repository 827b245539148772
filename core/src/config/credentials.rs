//! User names and passwords, which come from Secrets alone.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::referred;
use crate::content::{Contents, Reference, SecretRef};
use crate::guard::{Findings, value};

/// Where user name and password come from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CredentialsSource {
    /// A Secret of type kubernetes.io/basic-auth in Edict's own namespace, with the keys username
    /// and password. They are sent with every request, as Basic authentication.
    pub secret_ref: SecretRef,
}

impl CredentialsSource {
    /// What it refers to: first the user name.
    pub fn references(&self) -> [Reference; 2] {
        ["username", "password"].map(|key| self.secret_ref.key(key))
    }

    /// User name and password, where both are there.
    pub fn pair<'a>(&self, contents: &'a Contents) -> Option<[&'a [u8]; 2]> {
        let [username, password] = self.references();
        Some([contents.get(&username)?, contents.get(&password)?])
    }

    /// Judges the references, and what is behind them.
    pub(super) fn check(&self, contents: &Contents, found: &mut Findings) {
        let [username, password] = self
            .references()
            .map(|reference| referred("secretRef", &reference, contents, found));
        if let (Some(username), Some(password)) = (username, password) {
            let rules = value::credentials(username, password);
            found.hidden("secretRef", rules, username);
        }
    }
}
