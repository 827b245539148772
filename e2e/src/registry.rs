//! A registry on the cluster, for one test: the real one of the CNCF, behind TLS of a
//! CA that nobody knows and behind a password.
//!
//! Nodes reach it by the address of its Service: they are no pods, and know no names
//! of the cluster.

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use k8s_openapi::api::core::v1::{Pod, Service, ServiceAccount};
use kube::Api;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use serde_json::json;

use crate::context::Context;
use crate::forward::Forward;
use crate::image::import;
use crate::machine;
use crate::process::Process;
use crate::progress::Step;
use crate::seed::Seed;
use crate::settings::Settings;
use crate::wait;

/// Who may push and pull.
pub const USER: &str = "node";
/// With what only a careful writer of configuration carries over.
pub const PASSWORD: &str = "p:\"ss\\w$rd é%20'";

const NAME: &str = "registry";
const PORT: u16 = 5000;
/// Every request is checked anew, and nobody is to be kept from guessing.
const COST: u32 = 4;

/// A namespace that has just been made, and a pod whose image is there.
const READY: Duration = Duration::from_mins(1);

/// Where its own files are mounted.
const CONFIGURATION: &str = "\
version: 0.1
storage: {inmemory: {}}
http: {addr: ':5000', tls: {certificate: /registry.d/tls.crt, key: /registry.d/tls.key}}
auth: {htpasswd: {realm: edict, path: /registry.d/htpasswd}}
";

/// One that runs.
#[derive(Debug)]
pub struct Registry {
    /// The namespace that it runs in, which goes when the test ends.
    pub namespace: String,
    /// How nodes reach it: "https://10.96.1.2:5000".
    pub url: String,
    /// The CA of its certificate, PEM.
    pub authority: String,
}

impl Registry {
    /// Brings one up, with nothing in it.
    pub async fn start(ctx: &Context) -> Result<Self> {
        let program = machine::registry(&Settings::read()?).await?;
        let step = Step::begin("registry");
        let image = import(&program, "edict/registry", &step).await?;
        ctx.cluster.provider.load(&image).await?;
        let namespace = format!("e2e-{}", ctx.name);
        let address = serve(ctx, &namespace).await?;
        let (authority, certificate, key) = certify(&address)?;
        let hash = bcrypt::hash(PASSWORD, COST)?;
        let secret = json!({
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": NAME, "namespace": namespace},
            "stringData": {
                "config.yml": CONFIGURATION,
                "htpasswd": format!("{USER}:{hash}\n"),
                "tls.crt": certificate,
                "tls.key": key,
            },
        });
        ctx.apply(&secret.to_string()).await?;
        run(ctx, &namespace, &image).await?;
        let url = format!("https://{address}:{PORT}");
        step.done(&url);
        Ok(Self {
            namespace,
            url,
            authority,
        })
    }

    /// Pushes an image as `names`, each "repository:tag", with the local engine.
    pub async fn push(&self, ctx: &Context, seed: &Seed, names: &[String]) -> Result<()> {
        let forward = Forward::to(&ctx.client, &self.namespace, NAME, PORT).await?;
        let there = forward.address.to_string();
        let folder = ctx.folder.join("docker");
        fs::create_dir_all(&folder)?;
        let account = STANDARD.encode(format!("{USER}:{PASSWORD}"));
        let config = json!({"auths": {&there: {"auth": account}}});
        fs::write(folder.join("config.json"), config.to_string())?;
        // With another configuration, docker would forget which engine it talks to.
        let engine = Process::new("docker")
            .args(["context", "inspect", "--format"])
            .arg("{{.Endpoints.docker.Host}}")
            .text()
            .await?;
        let docker = |args: &[&str]| Process::new("docker").args(args);
        for name in names {
            let full = format!("{there}/{name}");
            docker(&["tag", &seed.image, &full]).text().await?;
            // An engine takes any certificate of a registry on its own machine.
            let pushed = docker(&["push", &full])
                .env("DOCKER_CONFIG", &folder)
                .env("DOCKER_HOST", &engine)
                .text()
                .await;
            docker(&["rmi", &full]).text().await?;
            pushed.with_context(|| format!("{name} cannot be pushed"))?;
        }
        Ok(())
    }
}

/// Makes namespace and Service, and gives the address that nodes reach it by.
async fn serve(ctx: &Context, namespace: &str) -> Result<String> {
    let space = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}});
    ctx.apply(&space.to_string()).await?;
    let service = json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": NAME, "namespace": namespace},
        "spec": {"selector": {"app": NAME}, "ports": [{"port": PORT}]},
    });
    ctx.apply(&service.to_string()).await?;
    let services: Api<Service> = Api::namespaced(ctx.client.clone(), namespace);
    let spec = services.get(NAME).await?.spec;
    spec.and_then(|spec| spec.cluster_ip)
        .context("the Service has no address")
}

/// A CA of this moment, and what it gave to `address`: its certificate, then that of
/// the address, and the key of that.
fn certify(address: &str) -> Result<(String, String, String)> {
    let mut parameters = CertificateParams::default();
    parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let name = DnType::CommonName;
    parameters.distinguished_name.push(name, "a test's own CA");
    let key = KeyPair::generate()?;
    let authority = parameters.self_signed(&key)?.pem();
    let issuer = Issuer::new(parameters, key);
    let key = KeyPair::generate()?;
    let certificate = CertificateParams::new(vec![address.to_owned()])?.signed_by(&key, &issuer)?;
    Ok((authority, certificate.pem(), key.serialize_pem()))
}

async fn run(ctx: &Context, namespace: &str, image: &str) -> Result<()> {
    // No pod is admitted before its account is there, which follows the namespace.
    let accounts: Api<ServiceAccount> = Api::namespaced(ctx.client.clone(), namespace);
    wait::object(&accounts, "default", "is there", READY, |_| true).await?;
    let pod = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": NAME, "namespace": namespace, "labels": {"app": NAME}},
        "spec": {
            "terminationGracePeriodSeconds": 1,
            "automountServiceAccountToken": false,
            "containers": [{
                "name": NAME,
                "image": image,
                "imagePullPolicy": "Never",
                "args": ["serve", "/registry.d/config.yml"],
                "env": [{"name": "OTEL_TRACES_EXPORTER", "value": "none"}],
                "ports": [{"containerPort": PORT}],
                "readinessProbe": {
                    "httpGet": {"path": "/", "port": PORT, "scheme": "HTTPS"},
                    "periodSeconds": 1,
                },
                "volumeMounts": [{"name": "configuration", "mountPath": "/registry.d"}],
            }],
            "volumes": [{"name": "configuration", "secret": {"secretName": NAME}}],
        },
    });
    ctx.apply(&pod.to_string()).await?;
    let pods: Api<Pod> = Api::namespaced(ctx.client.clone(), namespace);
    wait::object(&pods, NAME, "is ready", READY, is_ready).await?;
    Ok(())
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|it| it.conditions.as_ref());
    conditions.is_some_and(|all| {
        all.iter()
            .any(|one| one.type_ == "Ready" && one.status == "True")
    })
}
