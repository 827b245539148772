//! A port of this machine that leads to a port of a pod, for programs that know
//! nothing of Kubernetes.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::{Context as _, Result};
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, Client};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// Leads there until it is dropped.
pub struct Forward {
    /// The port here, of 127.0.0.1.
    pub address: SocketAddr,
    _lines: JoinSet<()>,
}

impl Forward {
    /// To a port of `pod`, by any free port here.
    pub async fn to(client: &Client, namespace: &str, pod: &str, port: u16) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
        let pod = pod.to_owned();
        let mut lines = JoinSet::new();
        lines.spawn(async move {
            let mut lines = JoinSet::new();
            while let Ok((here, _)) = listener.accept().await {
                let (pods, pod) = (pods.clone(), pod.clone());
                // Whoever is at this end notices a line that breaks.
                lines.spawn(async move { lead(here, &pods, &pod, port).await.ok() });
            }
        });
        Ok(Self {
            address,
            _lines: lines,
        })
    }
}

async fn lead(mut here: TcpStream, pods: &Api<Pod>, pod: &str, port: u16) -> Result<()> {
    let mut forwarder = pods.portforward(pod, &[port]).await?;
    let mut there = forwarder
        .take_stream(port)
        .context("the port was asked for")?;
    copy_bidirectional(&mut here, &mut there).await?;
    drop(there);
    forwarder.join().await?;
    Ok(())
}
