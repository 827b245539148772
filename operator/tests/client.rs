//! An API server that takes connections and answers nothing, as that of a frozen master does.

use std::time::Duration;

use edict_operator::client::client;
use k8s_openapi::api::coordination::v1::Lease;
use kube::{Api, Config};
use tokio::net::TcpListener;
use tokio::time::timeout;

/// Shorter than the Lease, or a leader could not ask another API server in time.
const GIVEN_UP: Duration = Duration::from_secs(14);

#[tokio::test]
async fn a_request_is_given_up_while_the_lease_still_holds() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let listener = TcpListener::bind("[::1]:0").await.unwrap();
    let uri = format!("http://{}", listener.local_addr().unwrap());
    // The kernel takes connections for it.
    let client = client(Config::new(uri.parse().unwrap())).unwrap();
    let api: Api<Lease> = Api::namespaced(client, "edict-system");
    let answer = timeout(GIVEN_UP, api.get("edict-operator")).await;
    answer.expect("a request that ends").unwrap_err();
}
